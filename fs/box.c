#include "box.h"

#include <errno.h>
#include <stdlib.h>

#include "gprocfs.h"
#include "handle.h"
#include "lock.h"

static void queue_init(struct job_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void queue_append(struct job_queue *queue, struct job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
    job->parked = true;
}

static void queue_prepend(struct job_queue *queue, struct job *job)
{
    if (queue->first == NULL) {
        queue_append(queue, job);
        return;
    }
    job->next = queue->first;
    queue->first = job;
    job->parked = true;
}

static struct job *queue_pop(struct job_queue *queue)
{
    struct job *job = queue->first;

    if (job == NULL)
        return NULL;
    queue->first = job->next;
    if (queue->first == NULL)
        queue->end = &queue->first;
    job->parked = false;
    return job;
}

/* True if it was there. */
static bool queue_remove(struct job_queue *queue, struct job *job)
{
    struct job **link = &queue->first;

    while (*link != NULL && *link != job)
        link = &(*link)->next;
    if (*link == NULL)
        return false;
    *link = job->next;
    if (job->next == NULL)
        queue->end = link;
    job->parked = false;
    return true;
}

void boxes_init(struct boxes *boxes)
{
    (void)pthread_mutex_init(&boxes->mutex, NULL); /* without attributes it cannot fail */
}

static void free_box(struct box *box)
{
    gproc_inflight_release(&box->inflight);
    (void)pthread_mutex_destroy(&box->mutex);
    free(box);
}

void boxes_release(struct boxes *boxes)
{
    size_t i;

    for (i = 0; i < BOXES_BUCKETS_COUNT; i++) {
        while (boxes->buckets[i] != NULL) {
            struct box *box = boxes->buckets[i];

            if (box->handles != NULL) {
                handle_free(box->handles); /* with the last one the box may go as well */
            } else {
                boxes->buckets[i] = box->next;
                free_box(box);
            }
        }
    }
    (void)pthread_mutex_destroy(&boxes->mutex);
}

void boxes_each(struct boxes *boxes, void (*each)(struct box *box))
{
    struct box *box;
    size_t i;

    for (i = 0; i < BOXES_BUCKETS_COUNT; i++)
        for (box = boxes->buckets[i]; box != NULL; box = box->next)
            each(box);
}

static struct box *new_box(struct gprocfs *fs, pid_t pid)
{
    struct box *box = calloc(1, sizeof(*box));

    if (box == NULL)
        return NULL;
    box->pid = pid;
    box->fs = fs;
    (void)pthread_mutex_init(&box->mutex, NULL); /* without attributes it cannot fail */
    queue_init(&box->ready);
    queue_init(&box->contended);
    gproc_inflight_init(&box->inflight, &fs->store, pid);
    gproc_measure_init(&box->measure);
    return box;
}

static struct box **bucket_of(struct boxes *boxes, pid_t pid)
{
    return &boxes->buckets[(uint32_t)pid % BOXES_BUCKETS_COUNT];
}

struct box *box_get(struct gprocfs *fs, pid_t pid)
{
    struct boxes *boxes = &fs->boxes;
    struct box **bucket = bucket_of(boxes, pid);
    struct box *box;

    (void)pthread_mutex_lock(&boxes->mutex);
    for (box = *bucket; box != NULL && box->pid != pid; box = box->next)
        ;
    if (box == NULL) {
        box = new_box(fs, pid);
        if (box != NULL) {
            box->next = *bucket;
            *bucket = box;
        }
    }
    if (box != NULL)
        box->users_count++;
    (void)pthread_mutex_unlock(&boxes->mutex);
    return box;
}

struct box *box_again(struct box *box)
{
    struct boxes *boxes = &box->fs->boxes;

    (void)pthread_mutex_lock(&boxes->mutex);
    box->users_count++;
    (void)pthread_mutex_unlock(&boxes->mutex);
    return box;
}

void box_put(struct box *box)
{
    struct boxes *boxes = &box->fs->boxes;
    struct box **link = bucket_of(boxes, box->pid);
    bool worthless;

    (void)pthread_mutex_lock(&boxes->mutex);
    box->users_count--;
    /* Without a user nobody is at work, so its things may be looked at. */
    worthless = box->users_count == 0 && gproc_inflight_is_empty(&box->inflight) &&
                box->measure.status.st_size == 0;
    if (worthless) {
        while (*link != box)
            link = &(*link)->next;
        *link = box->next;
    }
    (void)pthread_mutex_unlock(&boxes->mutex);
    if (worthless)
        free_box(box);
}

/* Called by libfuse with the request's lock held, from any thread: takes a waiting job out, and no
 * more. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct job *job = data;
    struct box *box = job->box;
    bool was_waiting;

    (void)req;
    (void)pthread_mutex_lock(&box->mutex);
    was_waiting =
        job->parked && (queue_remove(&box->contended, job) || queue_remove(&box->ready, job));
    job->interrupted = true;
    (void)pthread_mutex_unlock(&box->mutex);
    if (was_waiting)
        keeper_abandon(&box->fs->keeper, job);
}

void box_abandon(struct job *job)
{
    (void)job_reply_error(job, -EINTR); /* it is gone, or will be with this answer */
    job_end(job);
}

/* Puts a job that could not have the lock aside. False: it has been answered. */
static bool put_aside(struct job *job)
{
    struct box *box = job->box;
    bool was_kept = job->on_heap;
    bool watch = false, refuse, give_up;

    if (!was_kept) {
        job = job_keep(job, on_interrupt);
        if (job == NULL)
            return false;
    }
    (void)pthread_mutex_lock(&box->mutex);
    if (!box->lock_is_held) {
        box->lock_is_held = true;
        box->held_since_ms = keeper_now_ms();
        watch = true;
    }
    box->waiter = job->creator;
    give_up = job->interrupted;
    refuse = box->stuck;
    if (!give_up && !refuse) {
        if (was_kept)
            queue_prepend(&box->contended, job); /* it came from there, or is the first */
        else
            queue_append(&box->contended, job);
    }
    (void)pthread_mutex_unlock(&box->mutex);
    if (watch)
        keeper_watch(&box->fs->keeper, box);
    if (!give_up && !refuse)
        return true;
    (void)job_reply_error(job, give_up ? -EINTR : -ETIMEDOUT); /* as in box_abandon() */
    job_end(job);
    return false;
}

/* The next job for the one at work; NULL, and he is no longer at work. */
static struct job *next_job(struct box *box)
{
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    while ((job = queue_pop(&box->ready)) != NULL && job->takes_lock &&
           box->contended.first != NULL)
        queue_append(&box->contended, job); /* behind those that came before it */
    if (job == NULL && !box->lock_is_held)
        job = queue_pop(&box->contended);
    if (job == NULL)
        box->busy = false;
    (void)pthread_mutex_unlock(&box->mutex);
    return job;
}

/* Does a job, and then all that are there. The box is kept by a reference of ours: each job has
 * only its own. */
static void work(struct box *box, struct job *job)
{
    (void)box_again(box);
    while (job != NULL) {
        if (job->run(job) == JOB_NEEDS_LOCK)
            (void)put_aside(job);
        else
            job_end(job);
        job = next_job(box);
    }
    box_put(box);
}

void box_submit(struct job *job)
{
    struct box *box = job->box;

    for (;;) {
        bool kept = job->on_heap; /* once it is in a queue, it is no longer ours to look at */
        bool must_queue, interrupted;

        (void)pthread_mutex_lock(&box->mutex);
        must_queue = job->takes_lock && box->contended.first != NULL;
        if (!box->busy && !must_queue) {
            box->busy = true;
            (void)pthread_mutex_unlock(&box->mutex);
            work(box, job);
            return;
        }
        interrupted = job->interrupted;
        if (kept && !interrupted)
            queue_append(must_queue ? &box->contended : &box->ready, job);
        (void)pthread_mutex_unlock(&box->mutex);
        if (kept && interrupted)
            box_abandon(job);
        if (kept)
            return;
        job = job_keep(job, on_interrupt);
        if (job == NULL)
            return;
    }
}

int box_lock(struct job *job, struct gproc_lock *lock)
{
    struct box *box = job->box;
    int result = gproc_lock_take(lock, &box->fs->locks, box->pid, job->creator, GPROC_WAIT_NONE);

    if (result == 0) {
        (void)pthread_mutex_lock(&box->mutex);
        box->lock_is_held = false;
        box->stuck = false;
        (void)pthread_mutex_unlock(&box->mutex);
    }
    return result;
}

bool box_is_stuck(struct box *box)
{
    bool stuck;

    (void)pthread_mutex_lock(&box->mutex);
    stuck = box->stuck;
    (void)pthread_mutex_unlock(&box->mutex);
    return stuck;
}

void box_lock_is_free(struct box *box)
{
    struct job *job = NULL;

    (void)pthread_mutex_lock(&box->mutex);
    box->lock_is_held = false;
    box->stuck = false;
    if (!box->busy) {
        job = queue_pop(&box->contended);
        box->busy = job != NULL;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    work(box, job);
}

/* Takes out of those that wait for the lock all, or those that hold the directory. Call with the
 * mutex held. */
static struct job *take_out(struct box *box, bool all)
{
    struct job_queue stay, out;
    struct job *job;

    queue_init(&stay);
    queue_init(&out);
    while ((job = queue_pop(&box->contended)) != NULL) {
        if (all || job->holds_directory)
            queue_append(&out, job);
        else
            queue_append(&stay, job);
    }
    while ((job = queue_pop(&stay)) != NULL)
        queue_append(&box->contended, job);
    for (job = out.first; job != NULL; job = job->next)
        job->parked = false; /* from now on an interrupt only leaves its mark */
    return out.first;
}

static void answer_all(struct job *job, int error)
{
    while (job != NULL) {
        struct job *next = job->next;

        (void)job_reply_error(job, error); /* whoever has gone has gone */
        job_end(job);
        job = next;
    }
}

void box_lock_timed_out(struct box *box, int error)
{
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    job = take_out(box, true);
    box->stuck = true;
    (void)pthread_mutex_unlock(&box->mutex);
    answer_all(job, error);
}

void box_let_go_of_directory(struct box *box)
{
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    job = take_out(box, false);
    (void)pthread_mutex_unlock(&box->mutex);
    answer_all(job, -ETIMEDOUT);
}
