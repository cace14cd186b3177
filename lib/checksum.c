#include "checksum.h"

#include <string.h>

#if defined(__SSE2__) && !defined(GPROC_CHECKSUM_PORTABLE)

#include <emmintrin.h>

enum {
    VECTOR_BYTES = 16,
    STRIDE_BYTES = 4 * VECTOR_BYTES, /* as many independent additions as hide their latency */
};

/* The bytes at `bytes` summed by psadbw: eight to each 64-bit half, so that nothing can overflow.
 */
static __m128i vector_sum(const uint8_t *bytes)
{
    /* loadu takes any alignment, whatever the type of its argument says. */
    const __m128i vector = _mm_loadu_si128((const __m128i *)(const void *)bytes);

    return _mm_sad_epu8(vector, _mm_setzero_si128());
}

/*
 * Sums as many bytes as whole vectors hold and moves `*bytes` and `*size_bytes` past them. SSE2 is
 * part of x86-64, so there is nothing to choose at run time; wider vectors would wait for memory
 * just the same.
 */
static uint32_t bulk_sum(const uint8_t **bytes, size_t *size_bytes)
{
    __m128i sums[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(),
                       _mm_setzero_si128()};

    for (; *size_bytes >= STRIDE_BYTES; *bytes += STRIDE_BYTES, *size_bytes -= STRIDE_BYTES) {
        sums[0] = _mm_add_epi64(sums[0], vector_sum(*bytes));
        sums[1] = _mm_add_epi64(sums[1], vector_sum(*bytes + VECTOR_BYTES));
        sums[2] = _mm_add_epi64(sums[2], vector_sum(*bytes + 2 * VECTOR_BYTES));
        sums[3] = _mm_add_epi64(sums[3], vector_sum(*bytes + 3 * VECTOR_BYTES));
    }
    for (; *size_bytes >= VECTOR_BYTES; *bytes += VECTOR_BYTES, *size_bytes -= VECTOR_BYTES) {
        sums[0] = _mm_add_epi64(sums[0], vector_sum(*bytes));
    }

    const __m128i pairs =
        _mm_add_epi64(_mm_add_epi64(sums[0], sums[1]), _mm_add_epi64(sums[2], sums[3]));
    const __m128i total = _mm_add_epi64(pairs, _mm_unpackhi_epi64(pairs, pairs));
    return (uint32_t)_mm_cvtsi128_si32(total);
}

#else

enum {
    WORD_BYTES = 8,
    /* A 16-bit lane gains at most 2 * 255 a word: 128 words are what it holds. */
    WORDS_PER_FOLD = 128,
};

/* Adds up the four 16-bit lanes of a word. */
static uint32_t lanes_fold(uint64_t lanes)
{
    lanes = (lanes & UINT64_C(0x0000ffff0000ffff)) + (lanes >> 16 & UINT64_C(0x0000ffff0000ffff));
    return (uint32_t)lanes + (uint32_t)(lanes >> 32);
}

/*
 * Sums as many bytes as whole words hold and moves `*bytes` and `*size_bytes` past them. The order
 * of the bytes in a word makes no difference to their sum, so neither does the host's.
 */
static uint32_t bulk_sum(const uint8_t **bytes, size_t *size_bytes)
{
    const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);
    uint32_t sum = 0;

    while (*size_bytes >= WORD_BYTES) {
        uint64_t lanes = 0;

        for (int i = 0; i < WORDS_PER_FOLD && *size_bytes >= WORD_BYTES; i++) {
            uint64_t word;

            memcpy(&word, *bytes, sizeof(word));
            lanes += (word & even) + (word >> 8 & even);
            *bytes += WORD_BYTES;
            *size_bytes -= WORD_BYTES;
        }
        sum += lanes_fold(lanes);
    }
    return sum;
}

#endif

uint32_t gproc_checksum(const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    uint32_t sum = bulk_sum(&bytes, &size_bytes);

    for (; size_bytes > 0; size_bytes--) {
        sum += *bytes++;
    }
    return sum;
}
