/*
 * sieve - of many offsets one after the other, which a good frame may begin at: a length that is
 * plausible, and a checksum that agrees with the samples of prefix sums. Nearly all are refused by
 * these, many at a time; of what is left the bytes are looked at.
 *
 * There are two forms: for AVX-512, sixteen offsets at a time, and for any processor. Both let the
 * same frames through, but of the others not always the same.
 *
 * Cost: linear; no allocation, no I/O. Pure functions; any thread.
 */
#ifndef GPROC_SIEVE_H
#define GPROC_SIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    GPROC_SIEVE_MAX_COUNT = 4096,
    GPROC_SIEVE_NEAR_COUNT = 384,
    GPROC_SIEVE_SLACK_COUNT = 16, /* that a vector is stored into whole */
};

/* What is to be looked at. Distances are from the first offset. */
struct gproc_sieve_load {
    const uint8_t *bytes; /* at the first offset */
    size_t bytes_count;   /* how many of them may be read */
    size_t count;         /* of offsets, each with a whole header in `bytes`; at most the maximum */
    off_t left;           /* bytes of the mailbox, from the first offset on */
    bool all_readable;    /* whether all that was summed may be read, not only bytes_count */
    /* P at the first offset; the sample of the step it is in, after which come the others; how far
     * behind the first offset this step begins; since how many bytes before that offset P counts,
     * and up to how many after it. */
    uint32_t here;
    const uint32_t *samples;
    uint32_t behind_bytes;
    off_t passed_bytes;
    off_t summed_bytes;
};

/* Offsets that a good frame may begin at. */
struct gproc_candidates {
    size_t count;
    uint32_t offsets[GPROC_SIEVE_NEAR_COUNT + GPROC_SIEVE_SLACK_COUNT];
    uint32_t ends[GPROC_SIEVE_NEAR_COUNT + GPROC_SIEVE_SLACK_COUNT]; /* from samples[0] on */
    uint32_t sums[GPROC_SIEVE_NEAR_COUNT + GPROC_SIEVE_SLACK_COUNT]; /* P there, if it is good */
};

/* What came of it. */
struct gproc_sieve {
    /* Offsets that were looked at: up to one that ends beyond the samples, or is good, or for which
     * there was no room among the near. */
    size_t decided_count;
    size_t too_long;     /* first decided offset whose length runs past the end; or SIZE_MAX */
    uint32_t passed_sum; /* of the bytes at the decided offsets */
    /* Those of the decided that are not, if not all may be read: the caller has to look at P. They
     * come in order but for those less than 64 offsets apart. */
    struct gproc_candidates near;
};

/* Sifts, by the best form there is. */
void gproc_sieve(const struct gproc_sieve_load *load, struct gproc_sieve *sieve);

/* One way to do it. */
struct gproc_sieve_form {
    const char *name;
    bool (*is_usable)(void); /* on this processor; the others must not be called */
    void (*sift)(const struct gproc_sieve_load *load, struct gproc_sieve *sieve);
};

/* All that were compiled, the best first; the last is usable everywhere. */
const struct gproc_sieve_form *gproc_sieve_forms(size_t *count);

/* For tests: has all sieves be of this form from now on, which must be usable. */
void gproc_sieve_choose(const struct gproc_sieve_form *form);

#endif
