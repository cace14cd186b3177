/*
 * crew - threads that take up a box whose lock has become free, or which has news, so that the
 * keeper and the lookout never do a mailbox's work themselves.
 *
 * One is started when there is something to do, another where that has waited for longer than a moment
 * because all are at work (a slow disk), up to a limit; they stay. So a thousand that are woken at once
 * cost one thread.
 */
#ifndef GPROCFS_CREW_H
#define GPROCFS_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct box;

enum {
    CREW_THREADS_MOST_COUNT = 64,
    CREW_PATIENCE_MS = 2,
};

struct crew_task;

struct crew {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Protected by mutex. */
    struct crew_task *first;
    struct crew_task **end;
    pthread_t threads[CREW_THREADS_MOST_COUNT];
    size_t threads_count;
    size_t idle_count;
    bool stopping;
};

void crew_init(struct crew *crew);

/*
 * Has somebody call run(box). The box's reference is the crew's from now on. 0, or -ENOMEM, -EAGAIN
 * where there is nobody and nobody can be had: the reference is the caller's still.
 */
int crew_give(struct crew *crew, struct box *box, void (*run)(struct box *box));

/* Where something has waited for too long, has another thread take it up. True: something waits, so
 * call it again after CREW_PATIENCE_MS. */
bool crew_help(struct crew *crew);

/* Waits for all that has been given, and ends the threads. */
void crew_stop(struct crew *crew);

#endif
