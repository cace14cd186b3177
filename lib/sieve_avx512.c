/*
 * Sixty-four offsets make a block. What is read four bytes at a time from its first byte on are the
 * lengths at every fourth offset, from the next byte on those one further: so the offsets of a block
 * are four ways of sixteen lanes, lane k of way j for offset 4 * k + j, and nothing is shuffled. The
 * sums before them differ from way to way by one byte of each lane.
 */
#include "sieve_forms.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "field.h"
#include "sieve_parts.h"

enum {
    LANES = 16,
    WAYS = 4,
    BLOCK = LANES * WAYS,
    BLOCK_BYTES = BLOCK + GPROC_FRAME_HEADER_BYTES - 1,
};

bool gproc_sieve_avx512_is_usable(void)
{
    return __builtin_cpu_supports("avx512bw") != 0;
}

#define AVX512        __attribute__((target("avx512bw")))
#define AVX512_INLINE AVX512 static inline __attribute__((always_inline))

/* Sixteen candidates, one a lane. See struct gproc_candidates. */
struct group {
    __m512i offsets;
    __m512i ends;
    __m512i sums;
    __m512i steps; /* that they end in */
};

static inline size_t lesser(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of a block's way, those lanes whose offset is below `count`. */
static inline __mmask16 lanes_below(size_t count, size_t way)
{
    const size_t lanes = count > way ? (count - way + WAYS - 1) / WAYS : 0;

    return (__mmask16)(lanes < LANES ? (1U << lanes) - 1 : 0xffff);
}

/* The least offset in a block of all that the ways' lanes say, one at least. */
static size_t first_offset(__mmask16 first, __mmask16 second, __mmask16 third, __mmask16 fourth)
{
    const __mmask16 lanes[WAYS] = {first, second, third, fourth};
    size_t least = BLOCK;

    for (size_t way = 0; way < WAYS; way++) {
        if (lanes[way] != 0) {
            const size_t offset = (size_t)__builtin_ctz(lanes[way]) * WAYS + way;
            least = offset < least ? offset : least;
        }
    }
    return least;
}

#define BLOCK_HAS(block, lanes)                                                                    \
    (((block).first.lanes | (block).second.lanes | (block).third.lanes | (block).fourth.lanes) != 0)
#define BLOCK_FIRST(block, lanes)                                                                  \
    first_offset((block).first.lanes, (block).second.lanes, (block).third.lanes,                   \
                 (block).fourth.lanes)

/* The sums of four bytes each. */
AVX512_INLINE __m512i fours_sum(const uint8_t *bytes)
{
    return _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_loadu_si512(bytes), _mm512_set1_epi8(1)),
                             _mm512_set1_epi16(1));
}

/* Each quarter of the vector the sum of the quarters before it. */
AVX512_INLINE __m512i quarters_before(__m512i quarters)
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

/* Each 32-bit lane the sum of those up to it. */
AVX512_INLINE __m512i lanes_up_to(__m512i lanes)
{
    const __m512i two = _mm512_add_epi32(lanes, _mm512_bslli_epi128(lanes, 4));
    const __m512i four = _mm512_add_epi32(two, _mm512_bslli_epi128(two, 8));
    const __m512i before = quarters_before(_mm512_shuffle_epi32(four, _MM_PERM_DDDD));

    return _mm512_add_epi32(four, before);
}

/* Spreads `step` out, all of which may be read. */
AVX512 static void spread_out(struct spread *spread, const struct gproc_sieve_load *load,
                              uint32_t step)
{
    uint8_t copy[STEP_BYTES];
    const __m512i bytes = _mm512_loadu_si512(step_bytes(load, step, copy));
    const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi8(1));
    /* Each pair the sum of those up to it, first in its quarter. */
    const __m512i two = _mm512_add_epi16(pairs, _mm512_bslli_epi128(pairs, 2));
    const __m512i four = _mm512_add_epi16(two, _mm512_bslli_epi128(two, 4));
    const __m512i eight = _mm512_add_epi16(four, _mm512_bslli_epi128(four, 8));
    const __m512i last = _mm512_set1_epi16(14 | 15 << 8);
    const __m512i up_to =
        _mm512_add_epi16(eight, quarters_before(_mm512_shuffle_epi8(eight, last)));
    const __m512i evens = _mm512_sub_epi16(up_to, pairs);
    const __m512i odds = _mm512_sub_epi16(up_to, _mm512_srli_epi16(bytes, 8));
    const __m512i low = _mm512_unpacklo_epi16(evens, odds);
    const __m512i high = _mm512_unpackhi_epi16(evens, odds);

    _mm512_store_si512(spread->table, _mm512_permutex2var_epi64(
                                          low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high));
    _mm512_store_si512(
        spread->table + STEP_BYTES / 2,
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high));
    spread->step = step;
    spread->base = load->samples[step];
}

/* Of the lanes `wanted`, which end in the step that is spread out, those that are good. */
AVX512_INLINE __mmask16 lanes_good(const struct spread *spread, const struct group *group,
                                   __mmask16 wanted)
{
    /* Each 16 bits of `ends` look something up; of each 32 only the lower do so for us. */
    const __m512i found =
        _mm512_maskz_permutex2var_epi16(0x55555555, _mm512_load_si512(spread->table), group->ends,
                                        _mm512_load_si512(spread->table + STEP_BYTES / 2));
    const __m512i base = _mm512_set1_epi32((int)spread->base);

    return _mm512_mask_cmpeq_epi32_mask(wanted, _mm512_add_epi32(found, base), group->sums);
}

/* Adds those lanes to the candidates: how many they are. */
AVX512_INLINE size_t lanes_add(struct gproc_candidates *candidates, const struct group *group,
                               __mmask16 lanes)
{
    const size_t at = candidates->count;
    const size_t count = (size_t)__builtin_popcount(lanes);

    _mm512_storeu_si512(&candidates->offsets[at],
                        _mm512_maskz_compress_epi32(lanes, group->offsets));
    _mm512_storeu_si512(&candidates->ends[at], _mm512_maskz_compress_epi32(lanes, group->ends));
    _mm512_storeu_si512(&candidates->sums[at], _mm512_maskz_compress_epi32(lanes, group->sums));
    candidates->count = at + count;
    return count;
}

static inline int lower(off_t a)
{
    return (int)(uint32_t)(a < UINT32_MAX ? a : UINT32_MAX);
}

/* What stays the same for all blocks, and what is carried from one to the next. */
struct sifting {
    const struct gproc_sieve_load *load;
    __m512i left;
    __m512i summed; /* or less, if less is left */
    __m512i behind;
    /* The step that many ends were in, and the one after it, where they may move on to. */
    struct spread *here;
    struct spread *next;
    bool moves_on;
    /* In each lane: offsets of the first way's; P eleven bytes after the block's first offset, and
     * then after those of a way. */
    __m512i offsets;
    __m512i base;
    struct gproc_candidates *waiting;
};

/* What the lanes of a way are. */
struct lanes {
    __m512i ends; /* from the first offset of all */
    __mmask16 open;
    __mmask16 beyond;
    __mmask16 too_long;
};

struct block {
    struct lanes first, second, third, fourth;
};

/* Tells the lanes of a way apart by their lengths; the first `count` offsets of the block are to be
 * looked at. */
AVX512_INLINE struct lanes lanes_look(const struct sifting *sifting, const uint8_t *bytes,
                                      size_t way, size_t count)
{
    const __m512i lengths = _mm512_loadu_si512(bytes + way + GPROC_FIELD_LENGTH);
    const __m512i offsets = _mm512_add_epi32(sifting->offsets, _mm512_set1_epi32((int)way));
    const __mmask16 long_enough =
        _mm512_mask_cmpge_epi32_mask(count < BLOCK ? lanes_below(count, way) : 0xffff, lengths,
                                     _mm512_set1_epi32(GPROC_FRAME_HEADER_BYTES));
    struct lanes lanes = {.ends = _mm512_add_epi32(lengths, offsets)};
    const __mmask16 fits = _mm512_mask_cmple_epu32_mask(long_enough, lanes.ends, sifting->left);

    lanes.open = _mm512_mask_cmple_epu32_mask(long_enough, lanes.ends, sifting->summed);
    lanes.beyond = fits & (__mmask16)~lanes.open;
    lanes.too_long = long_enough & (__mmask16)~fits;
    return lanes;
}

/* Judges the open lanes of a way, `before` being P where their payloads begin: which are good. Those
 * that cannot be judged here wait. */
AVX512_INLINE __mmask16 lanes_judge(struct sifting *sifting, const uint8_t *bytes, size_t way,
                                    struct lanes lanes, __m512i before)
{
    const __m512i at = _mm512_add_epi32(lanes.ends, sifting->behind);
    const __m512i checksums = _mm512_loadu_si512(bytes + way + GPROC_FIELD_CHECKSUM);
    const struct group group = {
        .offsets = _mm512_add_epi32(sifting->offsets, _mm512_set1_epi32((int)way)),
        .ends = at,
        .sums = _mm512_add_epi32(before, checksums),
        .steps = _mm512_srli_epi32(at, STEP_SHIFT),
    };
    /* See sum_is_possible(); an end is a length, or more. */
    const __mmask16 open = _mm512_mask_cmple_epu32_mask(
        lanes.open, _mm512_srli_epi32(checksums, BYTE_BITS), lanes.ends);
    const uint32_t step = sifting->here->step;
    const __mmask16 in_here =
        _mm512_mask_cmpeq_epi32_mask(open, group.steps, _mm512_set1_epi32((int)step));
    const __mmask16 in_next =
        _mm512_mask_cmpeq_epi32_mask(open, group.steps, _mm512_set1_epi32((int)(step + 1)));
    const __mmask16 others = open & (__mmask16) ~(in_here | in_next);
    __mmask16 good = 0;

    if (in_here != 0) {
        good = lanes_good(sifting->here, &group, in_here);
    }
    if (in_next != 0) {
        good |= lanes_good(sifting->next, &group, in_next);
        sifting->moves_on = true;
    }
    if (others != 0) {
        lanes_add(sifting->waiting, &group, others);
    }
    return good;
}

/* The sum of the first `size_bytes` bytes of a step. */
AVX512_INLINE uint32_t step_part_sum(const uint8_t *bytes, size_t size_bytes)
{
    const __m512i part = _mm512_maskz_loadu_epi8((UINT64_C(1) << size_bytes) - 1, bytes);

    return (uint32_t)_mm512_reduce_add_epi64(_mm512_sad_epu8(part, _mm512_setzero_si512()));
}

/* Moves the waiting to the near, but for those that are refused. The first offset that is good, or
 * `last`, if that is less. */
AVX512 static size_t waiting_sift(const struct sifting *sifting, struct gproc_candidates *near,
                                  size_t last)
{
    const struct gproc_sieve_load *load = sifting->load;
    struct gproc_candidates *waiting = sifting->waiting;

    for (size_t i = 0; i < waiting->count; i += LANES) {
        const size_t left = waiting->count - i;
        const __mmask16 wanted = (__mmask16)(left < LANES ? (1U << left) - 1 : 0xffff);
        const __m512i ends = _mm512_loadu_si512(waiting->ends + i);
        const struct group group = {
            .offsets = _mm512_loadu_si512(waiting->offsets + i),
            .ends = ends,
            .sums = _mm512_loadu_si512(waiting->sums + i),
            .steps = _mm512_srli_epi32(ends, STEP_SHIFT),
        };
        /* The samples before and after an end come as one. */
        const __m512i first = _mm512_mask_i32gather_epi64(_mm512_setzero_si512(), (__mmask8)wanted,
                                                          _mm512_castsi512_si256(group.steps),
                                                          load->samples, sizeof(*load->samples));
        const __m512i second = _mm512_mask_i32gather_epi64(
            _mm512_setzero_si512(), (__mmask8)(wanted >> 8),
            _mm512_extracti64x4_epi64(group.steps, 1), load->samples, sizeof(*load->samples));
        const __m512i evens =
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const __m512i before = _mm512_permutex2var_epi32(first, evens, second);
        const __m512i after =
            _mm512_permutex2var_epi32(first, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), second);
        __mmask16 passed = _mm512_mask_cmple_epu32_mask(
            wanted, _mm512_sub_epi32(group.sums, before), _mm512_sub_epi32(after, before));

        if (passed == 0) {
            continue;
        }
        if (load->all_readable) {
            const uint32_t step =
                waiting->ends[i + (size_t)(31 - __builtin_clz(passed))] / STEP_BYTES;
            const __mmask16 there =
                _mm512_mask_cmpeq_epi32_mask(passed, group.steps, _mm512_set1_epi32((int)step));

            if (__builtin_popcount(there) > FEW) {
                if (sifting->here->step != step) {
                    spread_out(sifting->here, load, step);
                }

                const __mmask16 good = lanes_good(sifting->here, &group, there);
                if (good != 0) {
                    last = lesser(last, _mm512_mask_reduce_min_epu32(good, group.offsets));
                }
                passed &= (__mmask16)~there;
            }
        }
        for (size_t count = lanes_add(near, &group, passed); count > 0; count--) {
            near_fetch(load, near->ends[near->count - count]);
        }
    }
    waiting->count = 0;
    return last;
}

/* Tells the offsets of a block apart by their lengths; the first `count` are to be looked at. */
AVX512_INLINE struct block block_look(const struct sifting *sifting, const uint8_t *bytes,
                                      size_t count)
{
    return (struct block){
        .first = lanes_look(sifting, bytes, 0, count),
        .second = lanes_look(sifting, bytes, 1, count),
        .third = lanes_look(sifting, bytes, 2, count),
        .fourth = lanes_look(sifting, bytes, 3, count),
    };
}

/* Has P, in each lane, be eleven bytes after the block's first offset and then after each fourth
 * one; and carries it on to the next block. */
AVX512_INLINE __m512i block_sum(struct sifting *sifting, __m512i fours)
{
    const __m512i up_to = _mm512_add_epi32(sifting->base, lanes_up_to(fours));

    sifting->base = _mm512_permutexvar_epi32(_mm512_set1_epi32(LANES - 1), up_to);
    return up_to;
}

/* Judges the open ones of a block, or has them wait. The first offset that is good, or `last`, if
 * that is less. `up_to` is P after each four of `bytes`, eleven further on, whose sums `fours` are. */
AVX512_INLINE size_t block_judge(struct sifting *sifting, const uint8_t *bytes, size_t begin,
                                 const struct block *block, __m512i fours, __m512i up_to,
                                 size_t last)
{
    const __m512i byte = _mm512_set1_epi32(0xff);
    const __m512i behind_header = _mm512_loadu_si512(bytes + GPROC_FRAME_HEADER_BYTES - 1);
    const __m512i after0 = _mm512_sub_epi32(up_to, fours);
    const __m512i after1 = _mm512_add_epi32(after0, _mm512_and_si512(behind_header, byte));
    const __m512i after2 = _mm512_add_epi32(
        after1, _mm512_and_si512(_mm512_srli_epi32(behind_header, BYTE_BITS), byte));
    const __m512i after3 = _mm512_sub_epi32(up_to, _mm512_srli_epi32(behind_header, 24));

    sifting->moves_on = false;

    const __mmask16 first = lanes_judge(sifting, bytes, 0, block->first, after1);
    const __mmask16 second = lanes_judge(sifting, bytes, 1, block->second, after2);
    const __mmask16 third = lanes_judge(sifting, bytes, 2, block->third, after3);
    const __mmask16 fourth = lanes_judge(sifting, bytes, 3, block->fourth, up_to);

    return (first | second | third | fourth) != 0
               ? lesser(last, begin + first_offset(first, second, third, fourth))
               : last;
}

/* Has the steps that are spread out follow the ends. Here, and not when the next one is asked for:
 * few vectors are held. */
AVX512_INLINE void spreads_follow(struct sifting *sifting)
{
    if (sifting->moves_on) {
        struct spread *const here = sifting->here;

        sifting->here = sifting->next;
        sifting->next = here;
    }
    if (sifting->here->step != NO_STEP && sifting->next->step != sifting->here->step + 1) {
        spread_out(sifting->next, sifting->load, sifting->here->step + 1);
    }
}

AVX512 void gproc_sieve_avx512(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    struct spread spreads[2];
    struct gproc_candidates waiting;
    struct sifting sifting = {
        .load = load,
        .left = _mm512_set1_epi32(lower(load->left)),
        .summed = _mm512_set1_epi32(
            lower(load->summed_bytes < load->left ? load->summed_bytes : load->left)),
        .behind = _mm512_set1_epi32((int)load->behind_bytes),
        .here = &spreads[0],
        .next = &spreads[1],
        .offsets = _mm512_slli_epi32(
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 2),
        .base = _mm512_set1_epi32((int)(load->here + header_sum(load->bytes))),
        .waiting = &waiting,
    };
    uint8_t copy[BLOCK_BYTES];
    size_t last = load->count; /* the first that is not to be looked at, or is not decided */
    size_t i;

    spreads[0].step = NO_STEP;
    spreads[1].step = NO_STEP;
    waiting.count = 0;
    for (i = 0; i < last; i += BLOCK) {
        const uint8_t *bytes = load->bytes + i;

        if (load->bytes_count - i < BLOCK_BYTES) {
            memset(copy, 0, sizeof(copy));
            memcpy(copy, bytes, load->bytes_count - i);
            bytes = copy;
        }

        const struct block block = block_look(&sifting, bytes, last - i);
        if (sieve->too_long == SIZE_MAX && BLOCK_HAS(block, too_long)) {
            sieve->too_long = i + BLOCK_FIRST(block, too_long);
        }
        if (BLOCK_HAS(block, beyond)) {
            last = i + BLOCK_FIRST(block, beyond);
        }

        const __m512i fours = fours_sum(bytes + GPROC_FRAME_HEADER_BYTES - 1);
        const __m512i up_to = block_sum(&sifting, fours);
        if (BLOCK_HAS(block, open)) {
            last = block_judge(&sifting, bytes, i, &block, fours, up_to, last);
            if (waiting.count >= WAITING_COUNT) {
                last = waiting_sift(&sifting, &sieve->near, last);
                if (sieve->near.count > NEAR_COUNT) {
                    last = load->all_readable ? near_judge(load, &sieve->near, last, step_part_sum)
                                              : lesser(last, i + BLOCK);
                }
            }
            spreads_follow(&sifting);
        }
        sifting.offsets = _mm512_add_epi32(sifting.offsets, _mm512_set1_epi32(BLOCK));
    }
    last = waiting_sift(&sifting, &sieve->near, last);
    if (load->all_readable) {
        last = near_judge(load, &sieve->near, last, step_part_sum);
    }
    sieve_end(sieve, load, last, i, (uint32_t)_mm512_cvtsi512_si32(sifting.base));
}

#endif
