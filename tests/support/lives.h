/*
 * lives - one daemon after the other on the same mountpoint, and the children of a test that go on
 * with each next one.
 *
 * The test alone begins and ends a life; its children, made after lives_new(), hear of it in memory
 * that they share. Lives are numbered from 1. Functions may be used in any process, and fail no
 * test.
 */
#ifndef TEST_LIVES_H
#define TEST_LIVES_H

#include <stdatomic.h>
#include <stdbool.h>

#include "mount.h"

enum {
    LIVES_MOST = 1 << 20,
};

struct lives {
    atomic_uint count; /* number of the latest; those that wait for the next sleep on it */
    atomic_bool is_up;
    atomic_bool over;
    atomic_bool killed[LIVES_MOST]; /* that is how this one ended */
};

/* NULL: no memory. */
struct lives *lives_new(void);
void lives_free(struct lives *lives);

/* It is mounted. */
void lives_begin(struct lives *lives);

/* To be called before the daemon is killed or told to end: what fails from now on has a reason. */
void lives_end(struct lives *lives, bool by_kill);

/* There will be no other; nobody waits for one any longer. */
void lives_finish(struct lives *lives);

/* Waits for a life other than `known`, or for the end of all: the number of the latest. */
unsigned lives_await(struct lives *lives, unsigned known);

/* Whether this one had not begun to end. False: something that failed before may be due to that. */
bool lives_goes_on(const struct lives *lives, unsigned life);

/* open(2), unless the mount is gone just then: the bare mountpoint below takes any file. -1. */
int lives_open(const char *path, int flags);

#endif
