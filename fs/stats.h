/*
 * stats - what this mount has done and what it holds, counted; and the text of `.stats`.
 *
 * Counting is one atomic addition, from any thread, with no order to anything else: values that are
 * read together need not be of one moment. A counter of 64 bits does not run over in our lifetime.
 *
 * The text is the one of Prometheus, version 0.0.4. Its size is bounded: there is a row for each
 * number and one for each errno that has occurred.
 */
#ifndef GPROCFS_STATS_H
#define GPROCFS_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum stats_id {
    /* These only grow. */
    STATS_SENT_MESSAGES,
    STATS_RECEIVED_MESSAGES,
    STATS_SENT_BYTES,     /* of payload */
    STATS_RECEIVED_BYTES, /* of payload */
    STATS_DAMAGED_BYTES,  /* passed over */
    STATS_LOCK_WAITS,     /* times that a lock was found held, and had to be waited for */
    STATS_LOCK_TIMEOUTS,  /* requests that were answered ETIMEDOUT */
    /* These also go down. */
    STATS_PARKED_LOCK,
    STATS_PARKED_MESSAGE,
    STATS_PARKED_POLL,
    STATS_INFLIGHT_MESSAGES,
    STATS_COLLECTED_BYTES,
    STATS_OPEN_FILES,
    STATS_COUNT,
};

enum {
    STATS_ERRNOS_COUNT = 256, /* above those that Linux shows */
    STATS_TEXT_MOST_BYTES = 24 * 1024,
};

/* All zero is a valid start. Nothing to release. */
struct stats {
    _Atomic int64_t values[STATS_COUNT];
    _Atomic int64_t errors[STATS_ERRNOS_COUNT]; /* by errno; [0]: what is none */
};

/* `delta` is negative only for what also goes down. */
static inline void stats_add(struct stats *stats, enum stats_id id, int64_t delta)
{
    (void)atomic_fetch_add_explicit(&stats->values[id], delta, memory_order_relaxed);
}

/* Of a number that is counted elsewhere. */
static inline void stats_set(struct stats *stats, enum stats_id id, int64_t value)
{
    atomic_store_explicit(&stats->values[id], value, memory_order_relaxed);
}

/* Counts an error that a request was answered with: a negative errno. 0 is none, and not counted.
 */
void stats_error(struct stats *stats, int error);

/* 0 and `*text`, for the caller to free; it is less than STATS_TEXT_MOST_BYTES and ends in a zero
 * that `*size_bytes` does not count. Or -ENOMEM, and neither is set. */
int stats_print(const struct stats *stats, char **text, size_t *size_bytes);

#endif
