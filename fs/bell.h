/*
 * bell - how a thread that watches over something sleeps: until a time, or until somebody rings.
 *
 * It is an eventfd, which counts: who rings before the other sleeps is not missed.
 */
#ifndef GPROCFS_BELL_H
#define GPROCFS_BELL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BELL_NS_PER_MS = 1000 * 1000,
};

/* Nanoseconds of a clock that only goes forward. */
int64_t bell_now_ns(void);

/* The earlier of two times; -1 is never. */
int64_t bell_sooner_ns(int64_t one_ns, int64_t other_ns);

/* A descriptor, to be closed by the caller, or a negative errno. */
int bell_new(void);

/* From any thread. */
void bell_ring(int bell);

/* Until it is rung, or there is something to be read from `other` (-1: nothing), or until that time;
 * -1: never. Whether there is something to be read. */
bool bell_sleep(int bell, int other, int64_t until_ns);

#endif
