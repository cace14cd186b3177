#include "sample.h"

#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

static double clock_s(clockid_t clock)
{
    struct timespec now;

    (void)clock_gettime(clock, &now); /* cannot fail for these clocks */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double sample_now_s(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

double sample_cpu_s(void)
{
    return clock_s(CLOCK_THREAD_CPUTIME_ID);
}

static int compare(const void *left, const void *right)
{
    const double *a = left;
    const double *b = right;

    return (*a > *b) - (*a < *b);
}

double sample_median(double values[], size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

static size_t least_count = SAMPLE_ROUNDS_COUNT;

size_t sample_least_rounds(void)
{
    return least_count;
}

/* Whether there is to be another round after so many of them. */
static bool goes_on(size_t rounds_count, double begin_s)
{
    if (rounds_count < SAMPLE_LONG_ROUNDS_COUNT)
        return true;
    return rounds_count < SAMPLE_ROUNDS_COUNT && sample_now_s() - begin_s < SAMPLE_LONG_S;
}

struct sample sample_both(sample_run *ours, sample_run *baseline, void *context)
{
    double ours_s[SAMPLE_ROUNDS_COUNT] = {0}, baseline_s[SAMPLE_ROUNDS_COUNT] = {0};
    double begin_s = sample_now_s();
    struct sample sample;
    size_t count;

    (void)ours(context); /* warms up */
    (void)baseline(context);
    for (count = 0; goes_on(count, begin_s); count++) {
        ours_s[count] = ours(context);
        baseline_s[count] = baseline(context);
    }
    least_count = count < least_count ? count : least_count;
    sample.ours_s = sample_median(ours_s, count);
    sample.baseline_s = sample_median(baseline_s, count);
    return sample;
}

double sample_one(sample_run *run, void *context)
{
    return sample_both(run, run, context).ours_s;
}
