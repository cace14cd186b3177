/*
 * The forms, best first. Each sums by vectors what fills vectors, several at a time, so that the
 * additions need not wait for each other; psadbw adds eight bytes to a 64-bit sum, in which nothing
 * can overflow.
 *
 * Who was chosen is kept in an atomic pointer: threads that call for the first time at the same
 * moment all choose the same.
 */
#include "checksum.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* The masks are for gproc_checksum_part(), before and after the middle, and for the last vector of
 * gproc_checksum_after(), before it. */
#define ONES_8  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
#define ONES_64 ONES_8, ONES_8, ONES_8, ONES_8, ONES_8, ONES_8, ONES_8, ONES_8

extern const uint8_t gproc_checksum_masks[3 * GPROC_CHECKSUM_BLOCK_BYTES];
const uint8_t gproc_checksum_masks[3 * GPROC_CHECKSUM_BLOCK_BYTES] = {
    [GPROC_CHECKSUM_BLOCK_BYTES] = ONES_64,
};

static bool always(void)
{
    return true;
}

/* What is left when the vectors are done with. */
static uint32_t rest_sum(const uint8_t *bytes, size_t size_bytes)
{
    uint32_t sum = 0;

    for (; size_bytes > 0; size_bytes--) {
        sum += *bytes++;
    }
    return sum;
}

enum {
    WORD_BYTES = 8,
    PORTABLE_LANES = 4, /* as many words at a time as make a vector or two */
    PORTABLE_BYTES = PORTABLE_LANES * WORD_BYTES,
    /* A 16-bit lane gains at most 2 * 255 a word: 128 words are what it holds. */
    WORDS_PER_FOLD = 128,
};

/* Adds up the four 16-bit lanes of a word. */
static uint32_t lanes_fold(uint64_t lanes)
{
    lanes = (lanes & UINT64_C(0x0000ffff0000ffff)) + (lanes >> 16 & UINT64_C(0x0000ffff0000ffff));
    return (uint32_t)lanes + (uint32_t)(lanes >> 32);
}

/* In words, which a compiler makes vectors of where there are any. The order of the bytes in a word
 * makes no difference to their sum, so neither does the host's. */
static uint32_t portable_sum(const uint8_t *bytes, size_t size_bytes)
{
    const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);
    uint32_t sum = 0;

    while (size_bytes >= PORTABLE_BYTES) {
        uint64_t lanes[PORTABLE_LANES] = {0};

        for (int i = 0; i < WORDS_PER_FOLD && size_bytes >= PORTABLE_BYTES; i++) {
            uint64_t words[PORTABLE_LANES];

            memcpy(words, bytes, sizeof(words));
            for (int lane = 0; lane < PORTABLE_LANES; lane++) {
                lanes[lane] += (words[lane] & even) + (words[lane] >> 8 & even);
            }
            bytes += PORTABLE_BYTES;
            size_bytes -= PORTABLE_BYTES;
        }
        for (int lane = 0; lane < PORTABLE_LANES; lane++) {
            sum += lanes_fold(lanes[lane]);
        }
    }
    return sum + rest_sum(bytes, size_bytes);
}

#if defined(__x86_64__)

enum {
    LINE_BYTES = 64,
    /* From so many bytes on it pays to have the wide loads not cross cache lines. */
    ALIGN_FROM_BYTES = 512,
};

static uint32_t sse2_sum(const uint8_t *bytes, size_t size_bytes)
{
    __m128i sums[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(),
                       _mm_setzero_si128()};

    for (; size_bytes >= 64; bytes += 64, size_bytes -= 64) {
        sums[0] = _mm_add_epi64(sums[0], gproc_checksum_pair(gproc_checksum_load(bytes)));
        sums[1] = _mm_add_epi64(sums[1], gproc_checksum_pair(gproc_checksum_load(bytes + 16)));
        sums[2] = _mm_add_epi64(sums[2], gproc_checksum_pair(gproc_checksum_load(bytes + 32)));
        sums[3] = _mm_add_epi64(sums[3], gproc_checksum_pair(gproc_checksum_load(bytes + 48)));
    }
    for (; size_bytes >= 16; bytes += 16, size_bytes -= 16) {
        sums[0] = _mm_add_epi64(sums[0], gproc_checksum_pair(gproc_checksum_load(bytes)));
    }
    return gproc_checksum_fold(
               _mm_add_epi64(_mm_add_epi64(sums[0], sums[1]), _mm_add_epi64(sums[2], sums[3]))) +
           rest_sum(bytes, size_bytes);
}

static bool avx2_is_usable(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

#define AVX2 __attribute__((target("avx2")))

/* Thirty-two bytes as four sums. */
AVX2 static inline __m256i avx2_sums(const uint8_t *bytes)
{
    return _mm256_sad_epu8(_mm256_loadu_si256((const __m256i *)(const void *)bytes),
                           _mm256_setzero_si256());
}

AVX2 static uint32_t avx2_sum(const uint8_t *bytes, size_t size_bytes)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i sums[4] = {zero, zero, zero, zero};

    for (; size_bytes >= 128; bytes += 128, size_bytes -= 128) {
        sums[0] = _mm256_add_epi64(sums[0], avx2_sums(bytes));
        sums[1] = _mm256_add_epi64(sums[1], avx2_sums(bytes + 32));
        sums[2] = _mm256_add_epi64(sums[2], avx2_sums(bytes + 64));
        sums[3] = _mm256_add_epi64(sums[3], avx2_sums(bytes + 96));
    }
    for (; size_bytes >= 32; bytes += 32, size_bytes -= 32) {
        sums[0] = _mm256_add_epi64(sums[0], avx2_sums(bytes));
    }

    const __m256i all =
        _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    return gproc_checksum_fold(
               _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1))) +
           rest_sum(bytes, size_bytes);
}

static bool avx512_is_usable(void)
{
    return __builtin_cpu_supports("avx512bw") != 0;
}

/* Beyond the caches it was 0.88 as fast as AVX2 on AMD's Zen 4, and no faster within them. */
static bool avx512_is_wanted(void)
{
    return avx512_is_usable() && __builtin_cpu_is("amd") == 0;
}

#define AVX512 __attribute__((target("avx512bw")))

/* Sixty-four bytes as eight sums. */
AVX512 static inline __m512i avx512_sums(const uint8_t *bytes)
{
    return _mm512_sad_epu8(_mm512_loadu_si512(bytes), _mm512_setzero_si512());
}

/* `size_bytes` bytes, fewer than a vector: others are not touched. */
AVX512 static inline __m512i avx512_part(const uint8_t *bytes, size_t size_bytes)
{
    const __mmask64 wanted = (UINT64_C(1) << size_bytes) - 1;

    return _mm512_sad_epu8(_mm512_maskz_loadu_epi8(wanted, bytes), _mm512_setzero_si512());
}

AVX512 static uint32_t avx512_sum(const uint8_t *bytes, size_t size_bytes)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums[4] = {zero, zero, zero, zero};

    if (size_bytes >= ALIGN_FROM_BYTES) {
        const size_t before = -(uintptr_t)bytes % LINE_BYTES;

        sums[1] = avx512_part(bytes, before);
        bytes += before;
        size_bytes -= before;
    }
    for (; size_bytes >= 256; bytes += 256, size_bytes -= 256) {
        sums[0] = _mm512_add_epi64(sums[0], avx512_sums(bytes));
        sums[1] = _mm512_add_epi64(sums[1], avx512_sums(bytes + 64));
        sums[2] = _mm512_add_epi64(sums[2], avx512_sums(bytes + 128));
        sums[3] = _mm512_add_epi64(sums[3], avx512_sums(bytes + 192));
    }
    for (; size_bytes >= 64; bytes += 64, size_bytes -= 64) {
        sums[0] = _mm512_add_epi64(sums[0], avx512_sums(bytes));
    }
    sums[2] = _mm512_add_epi64(sums[2], avx512_part(bytes, size_bytes));
    return (uint32_t)_mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3])));
}

#elif defined(__aarch64__) && defined(__ARM_NEON)

/* NEON is part of 64-bit ARM, as SSE2 is of x86-64. */
static uint32_t neon_sum(const uint8_t *bytes, size_t size_bytes)
{
    uint32x4_t sums[4] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};

    for (; size_bytes >= 64; bytes += 64, size_bytes -= 64) {
        sums[0] = vpadalq_u16(sums[0], vpaddlq_u8(vld1q_u8(bytes)));
        sums[1] = vpadalq_u16(sums[1], vpaddlq_u8(vld1q_u8(bytes + 16)));
        sums[2] = vpadalq_u16(sums[2], vpaddlq_u8(vld1q_u8(bytes + 32)));
        sums[3] = vpadalq_u16(sums[3], vpaddlq_u8(vld1q_u8(bytes + 48)));
    }
    for (; size_bytes >= 16; bytes += 16, size_bytes -= 16) {
        sums[0] = vpadalq_u16(sums[0], vpaddlq_u8(vld1q_u8(bytes)));
    }
    return vaddvq_u32(vaddq_u32(vaddq_u32(sums[0], sums[1]), vaddq_u32(sums[2], sums[3]))) +
           rest_sum(bytes, size_bytes);
}

#endif

static const struct gproc_checksum_form forms[] = {
#if defined(__x86_64__)
    {"AVX-512", avx512_is_usable, avx512_is_wanted, avx512_sum},
    {"AVX2", avx2_is_usable, avx2_is_usable, avx2_sum},
    {"SSE2", always, always, sse2_sum},
#elif defined(__aarch64__) && defined(__ARM_NEON)
    {"NEON", always, always, neon_sum},
#endif
    {"portable", always, always, portable_sum},
};

const struct gproc_checksum_form *gproc_checksum_forms(size_t *count)
{
    *count = sizeof(forms) / sizeof(*forms);
    return forms;
}

/* Is called until it has put another into its place. */
static uint32_t first_sum(const uint8_t *bytes, size_t size_bytes);

static _Atomic(uint32_t (*)(const uint8_t *, size_t)) chosen = first_sum;

static uint32_t first_sum(const uint8_t *bytes, size_t size_bytes)
{
    const struct gproc_checksum_form *form = forms;

    while (!form->is_wanted()) {
        form++;
    }
    atomic_store_explicit(&chosen, form->sum, memory_order_relaxed);
    return form->sum(bytes, size_bytes);
}

uint32_t gproc_checksum(const void *data, size_t size_bytes)
{
    return atomic_load_explicit(&chosen, memory_order_relaxed)(data, size_bytes);
}
