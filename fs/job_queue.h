/*
 * job_queue - jobs in the order in which they came, from which any one can be taken out.
 *
 * Nothing here takes a lock: a queue is its box's, and so is the mutex. A job is in one queue at a
 * time; `job->queue` says in which.
 */
#ifndef GPROCFS_JOB_QUEUE_H
#define GPROCFS_JOB_QUEUE_H

#include <stdbool.h>

#include "job.h"
#include "stats.h"

struct job_queue {
    struct job *first;
    struct job **end;
    bool is_counted; /* how many there are is known as `gauge` of the jobs' mount */
    enum stats_id gauge;
};

/* An empty one that nobody counts. */
void queue_init(struct job_queue *queue);

void queue_append(struct job_queue *queue, struct job *job);
void queue_prepend(struct job_queue *queue, struct job *job);

/* Takes a job out of the queue it is in. */
void queue_leave(struct job *job);

/* Takes the first one out; NULL: there is none. */
struct job *queue_pop(struct job_queue *queue);

#endif
