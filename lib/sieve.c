/*
 * A candidate is an offset with a plausible length. Two samples of P refuse nearly all candidates;
 * one that they let through is noted, and the bytes that its end is among are fetched ahead, so
 * that many of them come at the same time.
 *
 * Where one candidate after the other ends in the same step, the samples are too coarse. So after
 * FEW of them the step is spread out: P at each of its offsets. Candidates that end there are then
 * judged for good. It is the bytes of one step for several candidates: linear still.
 */
#include "sieve.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "checksum.h"
#include "field.h"
#include "frame.h"
#include "sums.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    FEW = 3,
    WAITING_COUNT = 64,
    STEP_BYTES = GPROC_SUMS_STEP_BYTES,
    STEP_SHIFT = 6,
};

_Static_assert(STEP_BYTES == 1 << STEP_SHIFT, "steps are told by a shift");

/* No step, nor the one before one. */
#define NO_STEP (UINT32_MAX - 1)

/* A step spread out. P(step + i) is base + table[i]. */
struct spread {
    uint32_t step; /* NO_STEP: none */
    uint32_t base;
    uint16_t table[STEP_BYTES];
    /* Which to spread: the step that so many candidates in a row ended in. */
    uint32_t last_step;
    int in_a_row;
};

/* The bytes of a step that was not summed whole, with zeros in place of what was not. */
__attribute__((cold, noinline)) static void step_copy(const struct gproc_sieve_load *load,
                                                      off_t begin, uint8_t copy[STEP_BYTES])
{
    const off_t first = begin > -load->passed_bytes ? begin : -load->passed_bytes;
    const off_t end =
        begin + STEP_BYTES < load->summed_bytes ? begin + STEP_BYTES : load->summed_bytes;

    memset(copy, 0, STEP_BYTES);
    if (end > first) {
        memcpy(copy + (first - begin), load->bytes + first, (size_t)(end - first));
    }
}

/* The bytes of `step`, or, where not all of them were summed, a copy with zeros in place of others.
 * All must be readable. */
static inline const uint8_t *step_bytes(const struct gproc_sieve_load *load, uint32_t step,
                                        uint8_t copy[STEP_BYTES])
{
    const off_t begin = (off_t)step * STEP_BYTES - (off_t)load->behind_bytes;

    if (begin >= -load->passed_bytes && begin + STEP_BYTES <= load->summed_bytes) {
        return load->bytes + begin;
    }
    step_copy(load, begin, copy);
    return copy;
}

/* Spreads `step` out: the first one only where all may be read, and so the others. */
static void spread_out(struct spread *spread, const struct gproc_sieve_load *load, uint32_t step)
{
    uint8_t copy[STEP_BYTES];
    const uint8_t *bytes = step_bytes(load, step, copy);
    uint32_t sum = 0;

    for (int i = 0; i < STEP_BYTES; i++) {
        spread->table[i] = (uint16_t)sum;
        sum += bytes[i];
    }
    spread->step = step;
    spread->base = load->samples[step];
}

/* Candidates that wait until they are enough: then the samples are looked up for one after the other
 * without a branch between, so that none waits for another's. See struct gproc_sieve. */
struct waiting {
    size_t count;
    uint32_t offsets[WAITING_COUNT + GPROC_SIEVE_SLACK_COUNT];
    uint32_t ends[WAITING_COUNT + GPROC_SIEVE_SLACK_COUNT];
    uint32_t sums[WAITING_COUNT + GPROC_SIEVE_SLACK_COUNT];
};

/* Spreads out a step that candidates keep ending in, and drops those that it refuses. Of the near
 * ones, those from `first` on are new. */
static void near_settle(struct gproc_sieve *sieve, const struct gproc_sieve_load *load,
                        struct spread *spread, size_t first)
{
    const size_t count = sieve->near_count;

    sieve->near_count = first;
    for (size_t i = first; i < count; i++) {
        const uint32_t end = sieve->ends[i];
        const uint32_t sum = sieve->sums[i];
        const uint32_t step = end / STEP_BYTES;

        spread->in_a_row = step == spread->last_step ? spread->in_a_row + 1 : 0;
        spread->last_step = step;
        if (load->all_readable && spread->in_a_row >= FEW && step != spread->step) {
            spread_out(spread, load, step);
        }
        if (step != spread->step || sum == spread->base + spread->table[end % STEP_BYTES]) {
            sieve->offsets[sieve->near_count] = sieve->offsets[i];
            sieve->ends[sieve->near_count] = end;
            sieve->sums[sieve->near_count] = sum;
            sieve->near_count++;
        }
    }
}

/* Moves the waiting to the near, but for those that are refused. */
static void waiting_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve,
                         struct spread *spread, struct waiting *waiting)
{
    const size_t first = sieve->near_count;
    size_t near_count = first;

    for (size_t i = 0; i < waiting->count; i++) {
        const uint32_t end = waiting->ends[i];
        const uint32_t sum = waiting->sums[i];

        sieve->offsets[near_count] = waiting->offsets[i];
        sieve->ends[near_count] = end;
        sieve->sums[near_count] = sum;
        near_count += gproc_sums_may_be(&load->samples[end / STEP_BYTES], sum);
    }
    waiting->count = 0;
    sieve->near_count = near_count;
    near_settle(sieve, load, spread, first);
}

/* The sum of a header but for its last byte. */
static uint32_t header_sum(const uint8_t *header)
{
    uint32_t sum = 0;

    for (int i = 0; i < GPROC_FRAME_HEADER_BYTES - 1; i++) {
        sum += header[i];
    }
    return sum;
}

static bool always(void)
{
    return true;
}

static void portable_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    const uint8_t *bytes = load->bytes;
    struct spread spread = {.step = NO_STEP, .last_step = NO_STEP};
    struct waiting waiting;
    uint32_t before = load->here + header_sum(bytes);

    waiting.count = 0;
    for (size_t i = 0; i < load->count; i++) {
        before += bytes[i + GPROC_FRAME_HEADER_BYTES - 1];

        const int32_t length = (int32_t)gproc_field_get(bytes + i, GPROC_FIELD_LENGTH);

        if (length < GPROC_FRAME_HEADER_BYTES) {
            continue;
        }
        if (length > load->left - (off_t)i) {
            sieve->too_long = sieve->too_long < i ? sieve->too_long : i;
            continue;
        }
        if ((off_t)i + length > load->summed_bytes) {
            sieve->decided_count = i;
            break;
        }

        const uint32_t end = load->behind_bytes + (uint32_t)i + (uint32_t)length;
        const uint32_t sum = before + gproc_field_get(bytes + i, GPROC_FIELD_CHECKSUM);
        if (end / STEP_BYTES == spread.step + 1) {
            spread_out(&spread, load, end / STEP_BYTES); /* the ends move on */
        }
        if (end / STEP_BYTES == spread.step) {
            if (sum == spread.base + spread.table[end % STEP_BYTES]) {
                sieve->decided_count = i;
                break;
            }
            continue;
        }
        waiting.offsets[waiting.count] = (uint32_t)i;
        waiting.ends[waiting.count] = end;
        waiting.sums[waiting.count] = sum;
        if (++waiting.count == WAITING_COUNT) {
            waiting_sift(load, sieve, &spread, &waiting);
        }
    }
    waiting_sift(load, sieve, &spread, &waiting);
}

#if defined(__x86_64__)

enum {
    LANES = 16,
};

static bool avx512_is_usable(void)
{
    return __builtin_cpu_supports("avx512bw") != 0;
}

#define AVX512 __attribute__((target("avx512bw")))

/* Sixteen candidates, one a lane. See struct gproc_sieve. */
struct group {
    __m512i steps; /* that they end in */
    __m512i ends;
    __m512i sums;
};

/* The lanes below `count`. */
static inline __mmask16 lanes_below(size_t count)
{
    return (__mmask16)(count < LANES ? (1U << count) - 1 : 0xffff);
}

/* Sixteen 32-bit numbers, each a byte on, of which the first is at `first_word` words in `bytes`.
 */
AVX512 static inline __m512i fields(__m512i bytes, int first_word)
{
    const __m512i words =
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6),
                         _mm512_set1_epi32(first_word));
    const __m512i each =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6));

    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, bytes), each);
}

/* Each quarter of the vector the sum of the quarters before it. */
AVX512 static inline __m512i quarters_before(__m512i quarters)
{
    const __m512i one =
        _mm512_maskz_shuffle_i32x4(0xfff0, quarters, quarters, _MM_SHUFFLE(2, 1, 0, 0));
    const __m512i two =
        _mm512_maskz_shuffle_i32x4(0xff00, quarters, quarters, _MM_SHUFFLE(1, 0, 0, 0));
    const __m512i three =
        _mm512_maskz_shuffle_i32x4(0xf000, quarters, quarters, _MM_SHUFFLE(0, 0, 0, 0));

    /* No sum of 64 bytes needs more than 16 bits: this is for lanes of either size. */
    return _mm512_add_epi16(_mm512_add_epi16(one, two), three);
}

/* Each 32-bit lane the sum of those before it. */
AVX512 static inline __m512i lanes_before(__m512i lanes)
{
    const __m512i two = _mm512_add_epi32(lanes, _mm512_bslli_epi128(lanes, 4));
    const __m512i four = _mm512_add_epi32(two, _mm512_bslli_epi128(two, 8));
    const __m512i before = quarters_before(_mm512_shuffle_epi32(four, _MM_PERM_DDDD));

    return _mm512_sub_epi32(_mm512_add_epi32(four, before), lanes);
}

/* The same for 16-bit lanes. */
AVX512 static inline __m512i halves_before(__m512i lanes)
{
    const __m512i two = _mm512_add_epi16(lanes, _mm512_bslli_epi128(lanes, 2));
    const __m512i four = _mm512_add_epi16(two, _mm512_bslli_epi128(two, 4));
    const __m512i eight = _mm512_add_epi16(four, _mm512_bslli_epi128(four, 8));
    const __m512i last = _mm512_set1_epi16(14 | 15 << 8);
    const __m512i before = quarters_before(_mm512_shuffle_epi8(eight, last));

    return _mm512_sub_epi16(_mm512_add_epi16(eight, before), lanes);
}

/* As spread_out(). */
AVX512 static inline __attribute__((always_inline)) void
avx512_spread_out(struct spread *spread, const struct gproc_sieve_load *load, uint32_t step)
{
    uint8_t copy[STEP_BYTES];
    const __m512i bytes = _mm512_loadu_si512(step_bytes(load, step, copy));
    const __m256i low = _mm512_castsi512_si256(bytes);
    const __m512i sum = _mm512_set1_epi16((short)_mm512_reduce_add_epi64(
        _mm512_sad_epu8(_mm512_zextsi256_si512(low), _mm512_setzero_si512())));

    _mm512_storeu_si512(spread->table, halves_before(_mm512_cvtepu8_epi16(low)));
    _mm512_storeu_si512(spread->table + STEP_BYTES / 2,
                        _mm512_add_epi16(sum, halves_before(_mm512_cvtepu8_epi16(
                                                  _mm512_extracti64x4_epi64(bytes, 1)))));
    spread->step = step;
    spread->base = load->samples[step];
}

/* Of the lanes `wanted`, which end in the step that is spread out, those that are good. */
AVX512 static inline __mmask16 lanes_good(const struct spread *spread, const struct group *group,
                                          __mmask16 wanted)
{
    /* Each 16 bits of `ends` look something up; of each 32 only the lower do so for us. */
    const __m512i found =
        _mm512_maskz_permutex2var_epi16(0x55555555, _mm512_loadu_si512(spread->table), group->ends,
                                        _mm512_loadu_si512(spread->table + STEP_BYTES / 2));
    const __m512i base = _mm512_set1_epi32((int)spread->base);

    return _mm512_mask_cmpeq_epi32_mask(wanted, _mm512_add_epi32(found, base), group->sums);
}

/* Has the lanes `open` wait, whose offsets are `offsets`. */
AVX512 static inline void waiting_add(struct waiting *waiting, const struct group *group,
                                      __m512i offsets, __mmask16 open)
{
    const size_t at = waiting->count;

    _mm512_storeu_si512(&waiting->offsets[at], _mm512_maskz_compress_epi32(open, offsets));
    _mm512_storeu_si512(&waiting->ends[at], _mm512_maskz_compress_epi32(open, group->ends));
    _mm512_storeu_si512(&waiting->sums[at], _mm512_maskz_compress_epi32(open, group->sums));
    waiting->count += (size_t)__builtin_popcount(open);
}

/* Takes those of the lanes `*open` away that end in the step that is spread out; which of them are
 * good. */
AVX512 static inline __mmask16 lanes_judge(const struct gproc_sieve_load *load,
                                           struct spread *spread, const struct group *group,
                                           __mmask16 *open)
{
    __mmask16 good = 0;

    for (;;) {
        const __mmask16 there =
            _mm512_mask_cmpeq_epi32_mask(*open, group->steps, _mm512_set1_epi32((int)spread->step));
        const uint32_t next = spread->step + 1;

        if (there != 0) {
            good |= lanes_good(spread, group, there);
            *open &= (__mmask16)~there;
        }
        /* Where ends move on, the next step is where others will be. */
        if (_mm512_mask_cmpeq_epi32_mask(*open, group->steps, _mm512_set1_epi32((int)next)) == 0) {
            return good;
        }
        avx512_spread_out(spread, load, next);
    }
}

static inline size_t first_lane(unsigned lanes)
{
    return (size_t)__builtin_ctz(lanes);
}

/* Up to `bytes_count` bytes; after them zeros. */
AVX512 static inline __m512i bytes_load(const uint8_t *bytes, size_t bytes_count)
{
    return bytes_count >= sizeof(__m512i)
               ? _mm512_loadu_si512(bytes)
               : _mm512_maskz_loadu_epi8((UINT64_C(1) << bytes_count) - 1, bytes);
}

static inline __attribute__((always_inline)) int lower(off_t a)
{
    return (int)(uint32_t)(a < UINT32_MAX ? a : UINT32_MAX);
}

AVX512 static void avx512_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    const __m512i header = _mm512_set1_epi32(GPROC_FRAME_HEADER_BYTES);
    const __m512i left = _mm512_set1_epi32(lower(load->left));
    const __m512i summed = _mm512_set1_epi32(lower(load->summed_bytes));
    const __m512i behind = _mm512_set1_epi32((int)load->behind_bytes);
    const uint32_t here =
        load->here + header_sum(load->bytes) + load->bytes[GPROC_FRAME_HEADER_BYTES - 1];
    struct spread spread = {.step = NO_STEP, .last_step = NO_STEP};
    __m512i offsets = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i passed = _mm_setzero_si128();
    struct waiting waiting;
    size_t too_long = SIZE_MAX;
    size_t last = load->count; /* the first that is not to be looked at, or is not decided */
    size_t i = 0;

    waiting.count = 0;
    do {
        for (; i < last && waiting.count < WAITING_COUNT; i += LANES) {
            const __m512i bytes = bytes_load(load->bytes + i, load->bytes_count - i);
            const __m512i lengths = fields(bytes, GPROC_FIELD_LENGTH / 4);
            const __m512i ends = _mm512_add_epi32(lengths, offsets);
            const __mmask16 wanted = lanes_below(last - i);
            const __mmask16 long_enough = _mm512_mask_cmpge_epi32_mask(wanted, lengths, header);
            __mmask16 open = _mm512_mask_cmple_epu32_mask(long_enough, ends, left);
            /* What comes after the first header is where the first payload begins. */
            const __m128i payloads = _mm512_castsi512_si128(_mm512_alignr_epi32(bytes, bytes, 3));

            if (too_long == SIZE_MAX && long_enough != open) {
                too_long = i + first_lane(long_enough & (unsigned)~open);
            }
            if (open != 0) {
                const __mmask16 beyond = _mm512_mask_cmpgt_epu32_mask(open, ends, summed);
                const __m512i at = _mm512_add_epi32(ends, behind);
                const __m512i base = _mm512_set1_epi32((int)(here + gproc_checksum_fold(passed)));
                const __m512i before =
                    _mm512_add_epi32(base, lanes_before(_mm512_cvtepu8_epi32(payloads)));
                const struct group group = {
                    .steps = _mm512_srli_epi32(at, STEP_SHIFT),
                    .ends = at,
                    .sums = _mm512_add_epi32(before, fields(bytes, GPROC_FIELD_CHECKSUM / 4)),
                };
                __mmask16 stop = beyond;

                open &= (__mmask16)~beyond;
                stop |= lanes_judge(load, &spread, &group, &open);
                if (stop != 0) {
                    last = i + first_lane(stop);
                    open &= lanes_below(last - i);
                }
                waiting_add(&waiting, &group, offsets, open);
            }
            passed = _mm_add_epi32(passed, gproc_checksum_pair(payloads));
            offsets = _mm512_add_epi32(offsets, _mm512_set1_epi32(LANES));
        }
        waiting_sift(load, sieve, &spread, &waiting);
    } while (i < last);
    sieve->decided_count = last;
    sieve->too_long = too_long < last ? too_long : SIZE_MAX;
}

#endif

static const struct gproc_sieve_form forms[] = {
#if defined(__x86_64__)
    {"AVX-512", avx512_is_usable, avx512_sift},
#endif
    {"portable", always, portable_sift},
};

const struct gproc_sieve_form *gproc_sieve_forms(size_t *count)
{
    *count = sizeof(forms) / sizeof(*forms);
    return forms;
}

/* Is called until it has put another into its place; see checksum.c. */
static void first_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve);

static _Atomic(void (*)(const struct gproc_sieve_load *, struct gproc_sieve *)) chosen = first_sift;

static void first_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    const struct gproc_sieve_form *form = forms;

    while (!form->is_usable()) {
        form++;
    }
    atomic_store_explicit(&chosen, form->sift, memory_order_relaxed);
    form->sift(load, sieve);
}

void gproc_sieve_choose(const struct gproc_sieve_form *form)
{
    atomic_store_explicit(&chosen, form->sift, memory_order_relaxed);
}

void gproc_sieve(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    assert(load->count <= GPROC_SIEVE_MAX_COUNT);
    sieve->decided_count = load->count;
    sieve->too_long = SIZE_MAX;
    sieve->near_count = 0;
    atomic_load_explicit(&chosen, memory_order_relaxed)(load, sieve);
}
