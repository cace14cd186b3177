/*
 * sums - prefix sums of a stretch of bytes, sampled: P(x) is the sum of its bytes before x, modulo
 * 2^32, and is kept for every GPROC_SUMS_STEP_BYTES-th x.
 *
 * Cost: 4 / GPROC_SUMS_STEP_BYTES of what may come, allocated once; what is not reached is never
 * touched. Each byte is read once. No I/O: the bytes are handed in, in order.
 *
 * Not for several threads at once.
 */
#ifndef GPROC_SUMS_H
#define GPROC_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    GPROC_SUMS_STEP_BYTES = 64,
};

/* All zero: none yet. */
struct gproc_sums {
    uint32_t *samples; /* owned; samples[k] = P(offset + k steps), and one more: P(end) */
    off_t offset;      /* of the first step: less than a step before the begin, or there */
    off_t begin;       /* where the stretch begins; P is 0 there and before */
    off_t end;         /* how far it has come */
    uint32_t last;     /* P(end) */
};

/*
 * Begins a stretch at `begin`, after which no more than `most_bytes` bytes come. Its first step is
 * shorter by `cut_bytes`, less than a step. That takes memory the first time only: later stretches
 * must not need more. 0 or -ENOMEM; nothing changed then.
 */
int gproc_sums_begin(struct gproc_sums *sums, off_t begin, size_t cut_bytes, off_t most_bytes);

/* The bytes from `end` on. */
void gproc_sums_append(struct gproc_sums *sums, const uint8_t *bytes, size_t bytes_count);

/* Frees what it holds. Twice is harmless. */
void gproc_sums_release(struct gproc_sums *sums);

/* Whether P may be `sum` at an offset in the step that has `step` as its sample. P does not fall,
 * and rises by far less than 2^32 in a step: it has to be between this sample and the next. */
static inline bool gproc_sums_may_be(const uint32_t *step, uint32_t sum)
{
    return sum - step[0] <= step[1] - step[0];
}

#endif
