#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "gprocfs.h"

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

/*
 * Before a request that can be interrupted is answered, its callback must be gone: libfuse calls it
 * with the request's lock held, so once this returns it neither runs nor will.
 */
static void disarm(struct job *job)
{
    if (job->on_heap && job->req != NULL)
        fuse_req_interrupt_func(job->req, NULL, NULL);
}

int job_reply_error(struct job *job, int error)
{
    disarm(job);
    return job->req != NULL ? fuse_reply_err(job->req, -error) : 0;
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

void job_end(struct job *job)
{
    struct box *box = job->box;

    if (job->owns_data)
        free((void *)job->data); /* ours since it was copied or handed over */
    if (job->charged_bytes > 0)
        atomic_fetch_sub(&box->fs->collected_bytes, job->charged_bytes);
    if (job->on_heap)
        free(job);
    box_put(box);
}
