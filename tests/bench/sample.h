/*
 * sample - the time of two things that are to be compared, on a machine that others use too.
 *
 * They are measured by turns, so that what disturbs one soon disturbs the other, and the medians
 * count, so that what disturbs few does not.
 */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include <stddef.h>

enum {
    SAMPLE_ROUNDS_COUNT = 9,
    /* What takes long disturbs itself less: after so many seconds, so many rounds are enough. */
    SAMPLE_LONG_S = 15,
    SAMPLE_LONG_ROUNDS_COUNT = 3,
};

/* Does what is to be measured, and says how long a piece of it took, in seconds. */
typedef double sample_run(void *context);

struct sample {
    double ours_s;
    double baseline_s;
};

/* Seconds of a clock that only goes forward. */
double sample_now_s(void);

/* Seconds that this thread had a processor: for what never waits. */
double sample_cpu_s(void);

/* Both by turns, once without looking and then for some rounds: the medians. */
struct sample sample_both(sample_run *ours, sample_run *baseline, void *context);

/* The same for one alone. */
double sample_one(sample_run *run, void *context);

/* Of how many rounds a median was, of all so far: the fewest. */
size_t sample_least_rounds(void);

/* The median; sorts them. */
double sample_median(double values[], size_t count);

#endif
