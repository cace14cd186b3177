/*
 * keeper - the one thread that watches over what waits for a lock: it tries held ones again, lets
 * time run out, and answers what was interrupted. It waits for nothing but its own clock and its own
 * wake-up call, and does no mailbox's work.
 *
 * flock(2) tells nobody when a lock is given back, so a held one is tried again: after 50
 * microseconds at first, for the usual case of a sender that is done by then, and half as often
 * each time up to 10 milliseconds. For mail there is the lookout.
 */
#ifndef GPROCFS_KEEPER_H
#define GPROCFS_KEEPER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct box;
struct gprocfs;
struct job;

struct keeper {
    struct gprocfs *fs;
    pthread_t thread;
    int bell; /* owned; -1: who rings is not heard */
    pthread_mutex_t mutex;
    /* Protected by mutex. */
    bool stopping;
    bool woken;
    struct job *abandoned;
    struct box *watched; /* with a reference each */
    /* A box may rest with files open (see boxes.h): it is looked at about once a second. */
    atomic_bool boxes_rest;
};

/* Starts the thread. 0 or a negative errno. */
int keeper_start(struct keeper *keeper, struct gprocfs *fs);

/* Ends the thread. What comes in after it (the crew may still be at work) waits for
 * keeper_release(). */
void keeper_stop(struct keeper *keeper);

/* Answers all that waits for a lock, and frees. Nobody else may be left who uses the keeper. */
void keeper_release(struct keeper *keeper);

/* The lock of this box is held by somebody else; there is a job that waits for it. */
void keeper_watch(struct keeper *keeper, struct box *box);

/* The job was interrupted and is in no queue any more: it is the keeper's. Safe inside libfuse's
 * callback. */
void keeper_abandon(struct keeper *keeper, struct job *job);

/* A box rests now with files open. */
void keeper_rest(struct keeper *keeper);

/* Milliseconds of a clock that only goes forward. */
int64_t keeper_now_ms(void);

#endif
