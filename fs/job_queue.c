#include "job_queue.h"

#include <stddef.h>

#include "gprocfs.h"

void queue_init(struct job_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
    queue->is_counted = false;
}

static void queue_count(const struct job_queue *queue, const struct job *job, int64_t more)
{
    if (queue->is_counted)
        stats_add(&job->fs->stats, queue->gauge, more);
}

static void queue_insert(struct job_queue *queue, struct job **link, struct job *job)
{
    job->next = *link;
    job->link = link;
    *link = job;
    if (job->next != NULL)
        job->next->link = &job->next;
    else
        queue->end = &job->next;
    job->queue = queue;
    queue_count(queue, job, 1);
}

void queue_append(struct job_queue *queue, struct job *job)
{
    queue_insert(queue, queue->end, job);
}

void queue_prepend(struct job_queue *queue, struct job *job)
{
    queue_insert(queue, &queue->first, job);
}

void queue_leave(struct job *job)
{
    struct job_queue *queue = job->queue;

    *job->link = job->next;
    if (job->next != NULL)
        job->next->link = job->link;
    else
        queue->end = job->link;
    job->queue = NULL;
    job->next = NULL;
    queue_count(queue, job, -1);
}

struct job *queue_pop(struct job_queue *queue)
{
    struct job *job = queue->first;

    if (job != NULL)
        queue_leave(job);
    return job;
}
