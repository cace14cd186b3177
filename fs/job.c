#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "gprocfs.h"
#include "poller.h"
#include "reply.h"
#include "sender.h"

struct job *job_keep(const struct job *job, fuse_interrupt_func_t interrupted)
{
    struct job *kept = malloc(sizeof(*kept));
    struct job failed = *job;
    void *copy = NULL;

    if (kept != NULL && job->data != NULL && !job->owns_data) {
        copy = malloc(job->size_bytes != 0 ? job->size_bytes : 1);
        if (copy == NULL) {
            free(kept);
            kept = NULL;
        }
    }
    if (kept == NULL) {
        (void)job_reply_error(&failed,
                              -ENOMEM); /* the caller may have gone: nothing to do about it */
        job_end(&failed);
        return NULL;
    }
    *kept = *job;
    if (copy != NULL) {
        memcpy(copy, job->data, job->size_bytes);
        kept->data = copy;
        kept->owns_data = true;
        kept->charged_bytes = job->size_bytes; /* at most a request's: never refused, but counted */
        atomic_fetch_add(&job->fs->collected_bytes, job->size_bytes);
    }
    kept->on_heap = true;
    if (kept->req != NULL)
        fuse_req_interrupt_func(kept->req, interrupted, kept);
    return kept;
}

static void uncharge(struct job *job)
{
    if (job->charged_bytes > 0)
        atomic_fetch_sub(&job->fs->collected_bytes, job->charged_bytes);
    job->charged_bytes = 0;
}

/*
 * Before a request that can be interrupted is answered, its callback must be gone: libfuse calls it
 * with the request's lock held, so once this returns it neither runs nor will.
 */
static void disarm(struct job *job)
{
    if (job->on_heap && job->req != NULL)
        fuse_req_interrupt_func(job->req, NULL, NULL);
    uncharge(job); /* whoever has his answer sees nothing of it any more */
}

int job_reply_error(struct job *job, int error)
{
    disarm(job);
    return job->req != NULL ? reply_error(job->req, error) : 0;
}

int job_reply_write(struct job *job, size_t count_bytes)
{
    disarm(job);
    return fuse_reply_write(job->req, count_bytes);
}

int job_reply_data(struct job *job, const void *data, size_t size_bytes)
{
    disarm(job);
    return fuse_reply_buf(job->req, data, size_bytes);
}

int job_reply_attr(struct job *job, const struct stat *attributes, double timeout_s)
{
    disarm(job);
    return fuse_reply_attr(job->req, attributes, timeout_s);
}

int job_reply_poll(struct job *job, unsigned int events)
{
    disarm(job);
    return fuse_reply_poll(job->req, events);
}

/*
 * Killed, a reader stays until its request is answered, and then is gone, with whatever the answer
 * gave it. The interrupt that tells of it is on its way to another thread while a message comes for
 * the same request; so who has waited is looked at again before he is given something.
 */
bool job_is_abandoned(const struct job *job)
{
    return fuse_req_interrupted(job->req) ||
           (job->has_waited && sender_is_ending(fuse_req_ctx(job->req)->pid));
}

void job_end(struct job *job)
{
    struct box *box = job->box;

    if (job->owns_data)
        free((void *)job->data); /* ours since it was copied or handed over */
    uncharge(job);
    if (job->holds_base) {
        (void)pthread_mutex_lock(&box->mutex);
        box->base_clears_count--;
        (void)pthread_mutex_unlock(&box->mutex);
    }
    poller_free(job->poller);
    if (job->on_heap)
        free(job);
    box_put(box);
}
