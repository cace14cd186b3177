/*
 * checksum - the sum of bytes that a frame carries, modulo 2^32.
 *
 * There are several forms of it, for what a processor has: AVX-512, AVX2, SSE2, NEON, and one for
 * any. The first call finds out which is the best; all give the same.
 *
 * Cost: one pass over the bytes, no memory. Any thread. What is inline here is for few bytes, where
 * a call would cost as much as the sum.
 */
#ifndef GPROC_CHECKSUM_H
#define GPROC_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    GPROC_CHECKSUM_BLOCK_BYTES = 64, /* a cache line of most processors */
    GPROC_CHECKSUM_BEFORE_BYTES = 12,
};

/* The sum of `size_bytes` bytes at `data`, modulo 2^32; 0 for none. `data` may be NULL then. */
uint32_t gproc_checksum(const void *data, size_t size_bytes);

/* One way to do it. */
struct gproc_checksum_form {
    const char *name;
    bool (*is_usable)(void); /* on this processor; the others must not be called */
    bool (*is_wanted)(void); /* whether it is usable, and the best of those after it */
    uint32_t (*sum)(const uint8_t *bytes, size_t size_bytes);
};

/* All that were compiled, the widest first; the last is wanted everywhere. */
const struct gproc_checksum_form *gproc_checksum_forms(size_t *count);

/* The sum of one block. */
static inline uint32_t gproc_checksum_block(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES]);

/* The sum of the first `size_bytes` bytes of a block, all of which may be read. */
static inline uint32_t gproc_checksum_part(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES],
                                           size_t size_bytes);

/* As gproc_checksum() for `size_bytes` bytes that come after GPROC_CHECKSUM_BEFORE_BYTES which may
 * be read, too. */
static inline uint32_t gproc_checksum_after(const uint8_t *bytes, size_t size_bytes);

#if defined(__SSE2__)

/* The bytes at `bytes` as they come; of any alignment, whatever the argument's type says. */
static inline __m128i gproc_checksum_load(const uint8_t *bytes)
{
    return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}

/* Sixteen bytes as two sums of eight. */
static inline __m128i gproc_checksum_pair(__m128i bytes)
{
    return _mm_sad_epu8(bytes, _mm_setzero_si128());
}

/* Two sums as one. */
static inline uint32_t gproc_checksum_fold(__m128i pair)
{
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_unpackhi_epi64(pair, pair)));
}

/* The sums of a block. */
static inline __m128i gproc_checksum_block_pair(const uint8_t *bytes)
{
    const __m128i low = _mm_add_epi32(gproc_checksum_pair(gproc_checksum_load(bytes)),
                                      gproc_checksum_pair(gproc_checksum_load(bytes + 16)));
    const __m128i high = _mm_add_epi32(gproc_checksum_pair(gproc_checksum_load(bytes + 32)),
                                       gproc_checksum_pair(gproc_checksum_load(bytes + 48)));

    return _mm_add_epi32(low, high);
}

static inline uint32_t gproc_checksum_block(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES])
{
    return gproc_checksum_fold(gproc_checksum_block_pair(bytes));
}

/* A vector here, begun n bytes before its end, is n bytes of ones and then zeros; begun n bytes
 * after its start, it is the other way round for what is before it. */
extern const uint8_t gproc_checksum_masks[3 * GPROC_CHECKSUM_BLOCK_BYTES];

/* The sums of sixteen bytes, of those that the mask says. */
static inline __m128i gproc_checksum_masked(const uint8_t *bytes, const uint8_t *mask)
{
    return gproc_checksum_pair(
        _mm_and_si128(gproc_checksum_load(bytes), gproc_checksum_load(mask)));
}

static inline uint32_t gproc_checksum_part(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES],
                                           size_t size_bytes)
{
    const uint8_t *masks = gproc_checksum_masks + 2 * GPROC_CHECKSUM_BLOCK_BYTES - size_bytes;
    const __m128i low = _mm_add_epi32(gproc_checksum_masked(bytes, masks),
                                      gproc_checksum_masked(bytes + 16, masks + 16));
    const __m128i high = _mm_add_epi32(gproc_checksum_masked(bytes + 32, masks + 32),
                                       gproc_checksum_masked(bytes + 48, masks + 48));

    return gproc_checksum_fold(_mm_add_epi32(low, high));
}

static inline uint32_t gproc_checksum_after(const uint8_t *bytes, size_t size_bytes)
{
    __m128i sum = _mm_setzero_si128();

    if (size_bytes < 16 - GPROC_CHECKSUM_BEFORE_BYTES) {
        uint32_t few = 0;

        while (size_bytes > 0) {
            few += bytes[--size_bytes];
        }
        return few;
    }
    if (size_bytes >= GPROC_CHECKSUM_BLOCK_BYTES) {
        sum = gproc_checksum_block_pair(bytes);
        bytes += GPROC_CHECKSUM_BLOCK_BYTES;
        size_bytes -= GPROC_CHECKSUM_BLOCK_BYTES;
    }
    if (size_bytes > 0) {
        const uint8_t *last = bytes + size_bytes - 16;
        /* Of the last sixteen, those that are not counted with the others. */
        const uint8_t *masks = gproc_checksum_masks + GPROC_CHECKSUM_BLOCK_BYTES - 16;

        sum = _mm_add_epi32(sum, gproc_checksum_masked(last, masks + size_bytes % 16));
        for (; size_bytes >= 16; size_bytes -= 16) {
            sum = _mm_add_epi32(sum, gproc_checksum_pair(gproc_checksum_load(bytes)));
            bytes += 16;
        }
    }
    return gproc_checksum_fold(sum);
}

#else

/* A loop of a known length: compilers make vectors of it. */
static inline uint32_t gproc_checksum_block(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES])
{
    uint32_t sum = 0;

    for (int i = 0; i < GPROC_CHECKSUM_BLOCK_BYTES; i++) {
        sum += bytes[i];
    }
    return sum;
}

static inline uint32_t gproc_checksum_part(const uint8_t bytes[GPROC_CHECKSUM_BLOCK_BYTES],
                                           size_t size_bytes)
{
    return gproc_checksum(bytes, size_bytes);
}

static inline uint32_t gproc_checksum_after(const uint8_t *bytes, size_t size_bytes)
{
    return gproc_checksum(bytes, size_bytes);
}

#endif

#endif
