/*
 * sieve_parts - what the forms of the sieve share: candidates, the step that is spread out, and what
 * comes at the end. Private to lib/sieve*.c.
 *
 * A candidate is an offset with a plausible length that ends within the samples. It waits until there
 * are enough of them; then two samples of P refuse nearly all. Those that they let through are near.
 * Of these the bytes that the end is among are fetched ahead, so that many of them come at the same
 * time, and P at the very end is compared; where those bytes may not be read, the caller has to.
 *
 * Where one candidate after the other ends in the same step, the samples are too coarse. So after FEW
 * of them the step is spread out: P at each of its offsets. Candidates that end there are then judged
 * at once. It is the bytes of one step for several candidates: linear still.
 */
#ifndef GPROC_SIEVE_PARTS_H
#define GPROC_SIEVE_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "checksum.h"
#include "frame.h"
#include "sieve.h"
#include "sums.h"

enum {
    FEW = 3,
    /* Then those that wait are enough. */
    WAITING_COUNT = 128,
    /* Where the near are more, those that wait might not have room among them: at most a block of the
     * vectors (64) comes after the last but one was not enough. */
    NEAR_COUNT = GPROC_SIEVE_NEAR_COUNT - WAITING_COUNT - 64,
    STEP_BYTES = GPROC_SUMS_STEP_BYTES,
    STEP_SHIFT = 6,
    BYTE_BITS = 8,
};

_Static_assert(STEP_BYTES == 1 << STEP_SHIFT, "steps are told by a shift");

/* No step, nor the one before one. */
#define NO_STEP (UINT32_MAX - 1)

/* A step spread out. P(step + i) is base + table[i]. */
struct spread {
    _Alignas(STEP_BYTES) uint16_t table[STEP_BYTES];
    uint32_t step; /* NO_STEP: none */
    uint32_t base;
};

/*
 * Whether a frame of that length may have that checksum: no byte is more than 255. Without this each
 * offset that reads noise as its checksum would have to wait. From 2^24 on, where sums come round,
 * it is true.
 */
static inline bool sum_is_possible(uint32_t length_bytes, uint32_t checksum)
{
    return checksum >> BYTE_BITS <= length_bytes;
}

/* The bytes of a step that was not summed whole, with zeros in place of what was not. */
static inline void step_copy(const struct gproc_sieve_load *load, off_t begin,
                             uint8_t copy[STEP_BYTES])
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

    if (__builtin_expect(begin >= -load->passed_bytes && begin + STEP_BYTES <= load->summed_bytes,
                         true)) {
        return load->bytes + begin;
    }
    step_copy(load, begin, copy);
    return copy;
}

static inline void candidates_add(struct gproc_candidates *candidates, uint32_t offset,
                                  uint32_t end, uint32_t sum)
{
    candidates->offsets[candidates->count] = offset;
    candidates->ends[candidates->count] = end;
    candidates->sums[candidates->count] = sum;
    candidates->count++;
}

/* The sum of a header but for its last byte. */
static inline uint32_t header_sum(const uint8_t *header)
{
    uint32_t sum = 0;

    for (int i = 0; i < GPROC_FRAME_HEADER_BYTES - 1; i++) {
        sum += header[i];
    }
    return sum;
}

/* Has the bytes fetched that a near one's end is among: until it is judged there are others to do. */
static inline void near_fetch(const struct gproc_sieve_load *load, uint32_t end)
{
    if (load->all_readable) {
        __builtin_prefetch(load->bytes + ((ptrdiff_t)end - (ptrdiff_t)load->behind_bytes));
    }
}

/* The sum of the first `size_bytes` bytes of a step, all of which may be read. */
typedef uint32_t part_sum(const uint8_t *bytes, size_t size_bytes);

/* Judges the near ones and drops them. The first good offset, or `last`, if that is less. */
static inline __attribute__((always_inline)) size_t near_judge(const struct gproc_sieve_load *load,
                                                               struct gproc_candidates *near,
                                                               size_t last, part_sum *sum_of)
{
    for (size_t i = 0; i < near->count; i++) {
        const uint32_t end = near->ends[i];
        uint8_t copy[STEP_BYTES];

        const uint8_t *bytes = step_bytes(load, end / STEP_BYTES, copy);
        const uint32_t sum = load->samples[end / STEP_BYTES] + sum_of(bytes, end % STEP_BYTES);

        if (sum == near->sums[i] && near->offsets[i] < last) {
            last = near->offsets[i];
        }
    }
    near->count = 0;
    return last;
}

/* All is done up to offset `last`, the first that is not decided. `sum` is P eleven bytes after
 * offset `end`. */
static inline void sieve_end(struct gproc_sieve *sieve, const struct gproc_sieve_load *load,
                             size_t last, size_t end, uint32_t sum)
{
    struct gproc_candidates *near = &sieve->near;

    sieve->decided_count = last;
    sieve->passed_sum = last == end ? sum - header_sum(load->bytes + end) - load->here
                                    : gproc_checksum(load->bytes, last);
    if (sieve->too_long >= last) {
        sieve->too_long = SIZE_MAX;
    }

    const size_t near_count = near->count;
    near->count = 0;
    for (size_t i = 0; i < near_count; i++) {
        if (near->offsets[i] < last) {
            candidates_add(near, near->offsets[i], near->ends[i], near->sums[i]);
        }
    }
}

#endif
