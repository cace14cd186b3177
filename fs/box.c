#include "box.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <unistd.h>

#include "gprocfs.h"
#include "handle.h"
#include "lock.h"
#include "poller.h"

enum {
    /*
     * The kernel looks a name up again only once. Whoever was told to must not find the first node
     * free then, and taken again a moment later: he would be told ESTALE. Too many to be remembered
     * find it shunned at least this long, and those that are get a minute to come.
     */
    BASE_SHUNNED_MS = 1000,
    TOLD_MS = 60 * 1000,
    NOTIFY_INC_EPOCH = 8, /* FUSE_NOTIFY_INC_EPOCH, which older headers do not have */
    LATER_EVERY = 8,      /* so many jobs, one of those that go on later has its turn */
};

/* Called by libfuse with the request's lock held, from any thread: takes a waiting job out, and no
 * more. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct job *job = data;
    struct box *box = job->box;
    bool was_waiting;

    (void)req;
    (void)pthread_mutex_lock(&box->mutex);
    was_waiting = job->queue != NULL;
    if (was_waiting)
        queue_leave(job);
    job->interrupted = true;
    (void)pthread_mutex_unlock(&box->mutex);
    if (was_waiting)
        keeper_abandon(&box->fs->keeper, job);
}

void box_abandon(struct job *job)
{
    struct box *box = job->has_waited ? box_again(job->box) : NULL;

    (void)job_reply_error(job, -EINTR); /* it is gone, or will be with this answer */
    job_end(job);
    /* It may have been on its way to a message: that is for the next one. */
    if (box != NULL && (!box_is_followed(box) || crew_give(&box->fs->crew, box, box_take_up) < 0))
        box_put(box);
}

static void answer_all(struct job *job, int error)
{
    while (job != NULL) {
        struct job *next = job->next;

        if (error == -ETIMEDOUT)
            stats_add(&job->fs->stats, STATS_LOCK_TIMEOUTS, 1);
        (void)job_reply_error(job, error); /* whoever has gone has gone */
        job_end(job);
        job = next;
    }
}

/* The lock was found held. True: for the first time, and the keeper is to be told. Call with the
 * mutex held. */
static bool note_held(struct box *box, struct gproc_creator creator)
{
    bool first = !box->lock_is_held;

    if (first) {
        box->lock_is_held = true;
        box->held_since_ms = keeper_now_ms();
        stats_add(&box->fs->stats, STATS_LOCK_WAITS, 1);
    }
    box->waiter = creator;
    return first;
}

/*
 * The kernel holds the first node's lock for whoever waits in it. So it is to look names up again:
 * the next who comes, to write, to change or to delete, gets another node. Of all names, since to
 * forget one (notify_inval_entry) it takes its lock on the directory, where we would wait for a
 * request that waits for us, at the end of the mount for ever. Kernels before 6.16 do not know this
 * word: there whoever comes waits as well, until the time-out.
 */
static void have_names_looked_up(const struct gprocfs *fs)
{
    struct fuse_out_header word = {.len = sizeof(word), .error = NOTIFY_INC_EPOCH};

    (void)!write(fuse_session_fd(fs->session), &word, sizeof(word)); /* EINVAL: see above */
}

/* The lock was found held just now. */
static void begin_to_wait(struct box *box)
{
    keeper_watch(&box->fs->keeper, box);
    have_names_looked_up(box->fs);
}

/* The same, for who does not wait. */
static void found_held(struct box *box, struct gproc_creator creator)
{
    bool watch;

    (void)pthread_mutex_lock(&box->mutex);
    watch = note_held(box, creator);
    (void)pthread_mutex_unlock(&box->mutex);
    if (watch)
        begin_to_wait(box);
}

void box_lock_is_held(const struct job *job)
{
    found_held(job->box, job->creator);
}

/* The job where it can wait; NULL: no memory, and it has been answered. */
static struct job *keep(struct job *job)
{
    return job->on_heap ? job : job_keep(job, on_interrupt);
}

/* Puts a job that could not have the lock aside. */
static void put_aside(struct job *job)
{
    struct box *box = job->box;
    bool was_kept = job->on_heap;
    bool watch, refuse, give_up;

    job = keep(job);
    if (job == NULL)
        return;
    (void)pthread_mutex_lock(&box->mutex);
    watch = note_held(box, job->creator);
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
        begin_to_wait(box);
    if (give_up || refuse)
        answer_all(job, give_up ? -EINTR : -ETIMEDOUT);
}

/* Puts a job that found no message aside until there is news. */
static void await_mail(struct job *job)
{
    struct box *box = job->box;
    bool attend, give_up;

    job = keep(job);
    if (job == NULL)
        return;
    (void)pthread_mutex_lock(&box->mutex);
    give_up = job->interrupted;
    attend = !give_up && !box->mail_is_watched;
    if (!give_up && job->has_waited)
        queue_prepend(&box->waiting, job); /* it was the first, and stays it */
    else if (!give_up)
        queue_append(&box->waiting, job);
    job->has_waited = true;
    (void)pthread_mutex_unlock(&box->mutex);
    if (attend)
        lookout_attend(&box->fs->lookout, box, false);
    if (give_up)
        answer_all(job, -EINTR);
}

/* Lets others go first; those that have gone, and the end of the mount, end it. */
static void go_on_later(struct job *job)
{
    struct box *box = job->box;
    int error = fuse_session_exited(box->fs->session) ? -ENOTCONN : 0;

    job = keep(job);
    if (job == NULL)
        return;
    (void)pthread_mutex_lock(&box->mutex);
    if (job->interrupted)
        error = -EINTR;
    if (error == 0)
        queue_append(&box->later, job);
    (void)pthread_mutex_unlock(&box->mutex);
    if (error < 0)
        answer_all(job, error);
}

/* The first that waits for mail, if there is news. While the lock is held he could not receive
 * anyway, and another one waits for the lock already. Call with the mutex held. */
static struct job *pop_waiting(struct box *box)
{
    if (!box->news || (box->lock_is_held && !box->returned))
        return NULL;
    box->returned = false;
    box->news = false; /* before he looks: whoever brings some meanwhile says so again */
    return queue_pop(&box->waiting);
}

/* What is open of the files is known from now on. Call with the mutex held. */
static void note_files(struct box_files *files)
{
    if (files->lock.fd >= 0)
        files->known_lock = files->lock.file;
    if (files->mailbox.fd >= 0) {
        files->known_mailbox = gproc_identity_of(&files->mailbox.status);
        files->known_access = files->mailbox.access;
    }
}

/* Nobody is at work any more. What is kept open stays so, unless too much is: then it is for the
 * caller to close. Call with the mutex held. */
static void rest(struct box *box, struct box_files **closed)
{
    box->busy = false;
    if (box->files == NULL)
        return;
    note_files(box->files);
    if (boxes_have_too_many_files(&box->fs->boxes)) {
        *closed = box->files;
        box->files = NULL;
    }
}

/* The next job for the one at work; NULL, and he is no longer at work. `more`: the last one has got
 * a message for which it had waited, so the next one that waits is worth a try. */
static struct job *next_job(struct box *box, bool more)
{
    struct box_files *closed = NULL;
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    box->news = box->news || more;
    box->returned = box->returned || more;
    job = ++box->turns_count % LATER_EVERY == 0 ? queue_pop(&box->later) : NULL;
    while (job == NULL && (job = queue_pop(&box->ready)) != NULL && job->takes_lock &&
           box->contended.first != NULL) {
        queue_append(&box->contended, job); /* behind those that came before it */
        job = NULL;
    }
    if (job == NULL && !box->lock_is_held)
        job = queue_pop(&box->contended);
    if (job == NULL)
        job = pop_waiting(box);
    if (job == NULL)
        job = queue_pop(&box->later);
    if (job == NULL)
        rest(box, &closed);
    (void)pthread_mutex_unlock(&box->mutex);
    boxes_free_files(&box->fs->boxes, closed);
    return job;
}

void box_close_files(struct box *box)
{
    struct box_files *files = NULL;

    (void)pthread_mutex_lock(&box->mutex);
    if (!box->busy) {
        files = box->files;
        box->files = NULL;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    boxes_free_files(&box->fs->boxes, files);
}

void box_count_inflight(struct box *box)
{
    uint64_t count = box->inflight.messages_count;

    if (count != box->counted_messages)
        stats_add(&box->fs->stats, STATS_INFLIGHT_MESSAGES,
                  (int64_t)(count - box->counted_messages));
    box->counted_messages = count;
}

/* Does a job, and then all that are there. The box is kept by a reference of ours: each job has
 * only its own. */
static void work(struct box *box, struct job *job)
{
    (void)box_again(box);
    while (job != NULL) {
        enum job_result result = job->run(job);
        bool more = result == JOB_DONE && job->has_waited;

        if (result == JOB_NEEDS_LOCK)
            put_aside(job);
        else if (result == JOB_NEEDS_MAIL)
            await_mail(job);
        else if (result == JOB_AGAIN)
            go_on_later(job);
        else
            job_end(job);
        box_count_inflight(box);
        job = next_job(box, more);
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

/* Files to be kept open. By whoever is at work. 0 or -ENOMEM. */
static int need_files(struct box *box)
{
    struct box_files *files;

    if (box->files != NULL)
        return 0;
    files = boxes_new_files(&box->fs->boxes, box->pid);
    if (files == NULL)
        return -ENOMEM;
    (void)pthread_mutex_lock(&box->mutex);
    box->files = files;
    (void)pthread_mutex_unlock(&box->mutex);
    return 0;
}

/* By whoever is at work, or nobody. */
static int take_lock(struct box *box, struct gproc_creator creator)
{
    int result = need_files(box);

    if (result == 0)
        result = gproc_lock_retake(&box->files->lock, &box->fs->locks, box->pid, creator,
                                   GPROC_WAIT_NONE);
    if (result == 0) {
        (void)pthread_mutex_lock(&box->mutex);
        box->lock_is_held = false;
        box->stuck = false;
        (void)pthread_mutex_unlock(&box->mutex);
    }
    return result;
}

int box_lock(struct job *job)
{
    return take_lock(job->box, job->creator);
}

void box_unlock(struct box *box)
{
    gproc_lock_rest(&box->files->lock);
}

int box_try_lock(struct box *box, struct gproc_creator creator)
{
    bool busy, held;
    int result;

    (void)pthread_mutex_lock(&box->mutex);
    busy = box->busy;
    held = box->lock_is_held;
    box->busy = true;
    (void)pthread_mutex_unlock(&box->mutex);
    if (busy)
        return held ? -EWOULDBLOCK : 0;
    result = take_lock(box, creator);
    if (result == 0)
        box_unlock(box);
    else if (result == -EWOULDBLOCK)
        found_held(box, creator);
    work(box, next_job(box, false));
    return result;
}

void box_forget_measure(struct box *box)
{
    free(box->measure);
    box->measure = NULL;
}

/* Most mailboxes are empty most of the time, and many readers may wait at as many of them: for these
 * nothing is kept. */
int box_measure(struct box *box, struct stat *status, const struct gproc_measure **measure)
{
    static const struct gproc_measure nothing; /* all zero, as gproc_measure_init() leaves it */
    struct gproc_measure made = box->measure != NULL ? *box->measure : nothing;
    struct gproc_mailbox none;
    int result;

    if (box->files == NULL)
        gproc_mailbox_init(&none, box->pid);
    result = gproc_measure_update(&made, &box->fs->mailboxes,
                                  box->files != NULL ? &box->files->mailbox : &none,
                                  &box->fs->store.is_ending, status);
    *measure = &nothing;
    if (made.imprint.status.st_size == 0) {
        box_forget_measure(box);
        return result;
    }
    if (box->measure == NULL)
        box->measure = malloc(sizeof(*box->measure));
    if (box->measure == NULL)
        return -ENOMEM;
    *box->measure = made;
    *measure = box->measure;
    return result;
}

bool box_knows_mailbox(struct box *box, const struct stat *status, int access)
{
    const struct box_files *files;
    bool knows;

    (void)pthread_mutex_lock(&box->mutex);
    files = box->files;
    knows = files != NULL && status->st_nlink == 1 &&
            (files->known_access == O_RDWR || files->known_access == access) &&
            gproc_identity_is(&files->known_mailbox, status);
    (void)pthread_mutex_unlock(&box->mutex);
    return knows;
}

bool box_knows_lock(struct box *box, const struct stat *status)
{
    bool knows;

    (void)pthread_mutex_lock(&box->mutex);
    knows = box->files != NULL && gproc_identity_is(&box->files->known_lock, status);
    (void)pthread_mutex_unlock(&box->mutex);
    return knows;
}

bool box_knows_lock_held(struct box *box)
{
    bool held;

    (void)pthread_mutex_lock(&box->mutex);
    held = box->lock_is_held;
    (void)pthread_mutex_unlock(&box->mutex);
    return held;
}

bool box_base_is_taken(const struct box *box)
{
    return box->base_is_taken || box->base_clears_count > 0;
}

void box_shun_base(struct box *box, pid_t thread)
{
    int64_t now_ms = keeper_now_ms();

    box->base_shunned_until_ms = now_ms + BASE_SHUNNED_MS;
    if (box->told == NULL)
        box->told = calloc(1, sizeof(*box->told));
    if (box->told == NULL)
        return; /* he comes in time, or is told again */
    box->told->until_ms = now_ms + TOLD_MS;
    box->told->threads[box->told->next] = thread;
    box->told->next = (box->told->next + 1) % BOX_TOLD_COUNT;
}

bool box_expects_lookup(const struct box *box)
{
    return box->told != NULL && keeper_now_ms() < box->told->until_ms;
}

void box_has_come(struct box *box, pid_t thread)
{
    size_t i;

    for (i = 0; box->told != NULL && i < BOX_TOLD_COUNT; i++) {
        if (box->told->threads[i] == thread)
            box->told->threads[i] = 0;
    }
}

/* Call with the mutex held. */
static bool was_told(const struct box *box, pid_t thread)
{
    bool told = false;
    size_t i;

    if (box->told == NULL || thread == 0) /* 0: of another pid namespace */
        return false;
    for (i = 0; i < BOX_TOLD_COUNT && !told; i++)
        told = box->told->threads[i] == thread;
    return told;
}

bool box_base_is_shunned(struct box *box, pid_t thread)
{
    bool shunned;

    (void)pthread_mutex_lock(&box->mutex);
    shunned = was_told(box, thread) || box_base_is_taken(box) || box->lock_is_held ||
              (box->base_shunned_until_ms != 0 && keeper_now_ms() < box->base_shunned_until_ms);
    (void)pthread_mutex_unlock(&box->mutex);
    return shunned;
}

bool box_is_stuck(struct box *box)
{
    bool stuck;

    (void)pthread_mutex_lock(&box->mutex);
    stuck = box->stuck;
    (void)pthread_mutex_unlock(&box->mutex);
    return stuck;
}

/* Goes to work, if nobody is there and there is something to do. Releases the mutex, which is held.
 */
static void go_on(struct box *box)
{
    struct job *job = NULL;

    if (!box->busy) {
        job = box->lock_is_held ? NULL : queue_pop(&box->contended);
        if (job == NULL)
            job = pop_waiting(box);
        box->busy = job != NULL;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    work(box, job);
}

void box_lock_is_free(struct box *box)
{
    bool tell;

    (void)pthread_mutex_lock(&box->mutex);
    box->lock_is_held = false;
    box->stuck = false;
    box->news = true; /* who waited for mail was not tried meanwhile */
    tell = box->pollers != NULL;
    go_on(box);
    if (tell)
        lookout_attend(&box->fs->lookout, box, true);
}

void box_has_news(struct box *box)
{
    bool tell;

    (void)pthread_mutex_lock(&box->mutex);
    box->news = true;
    tell = box->pollers != NULL;
    (void)pthread_mutex_unlock(&box->mutex);
    if (tell)
        lookout_attend(&box->fs->lookout, box, true);
}

void box_has_returned(struct box *box)
{
    (void)pthread_mutex_lock(&box->mutex);
    box->returned = true;
    (void)pthread_mutex_unlock(&box->mutex);
    box_has_news(box);
}

void box_take_up(struct box *box)
{
    (void)pthread_mutex_lock(&box->mutex);
    box->news = true;
    go_on(box);
}

bool box_needs_watch(const struct box *box)
{
    return box->waiting.first != NULL || box->pollers != NULL || box->followers_count > 0;
}

bool box_is_followed(struct box *box)
{
    bool followed;

    (void)pthread_mutex_lock(&box->mutex);
    followed = box_needs_watch(box);
    (void)pthread_mutex_unlock(&box->mutex);
    return followed;
}

/* Whether the kernel holds others up for as long as this one waits. Call with the mutex held. */
static bool is_in_the_way(const struct job *job)
{
    return job->holds_directory || (job->holds_inode && job->box->base_collectors_count > 1);
}

/* Takes out of a queue all, or those that are in the way. Call with the mutex held. */
static struct job *take_out(struct job_queue *queue, bool all)
{
    struct job_queue stay, out;
    struct job *job;

    queue_init(&stay);
    queue_init(&out);
    while ((job = queue_pop(queue)) != NULL) {
        if (all || is_in_the_way(job))
            queue_append(&out, job);
        else
            queue_append(&stay, job);
    }
    while ((job = queue_pop(&stay)) != NULL)
        queue_append(queue, job);
    for (job = out.first; job != NULL; job = job->next)
        job->queue = NULL; /* from now on an interrupt only leaves its mark */
    return out.first;
}

void box_end_parked(struct box *box, int error)
{
    struct job *held, *waiting;

    (void)pthread_mutex_lock(&box->mutex);
    held = take_out(&box->contended, true);
    waiting = take_out(&box->waiting, true);
    (void)pthread_mutex_unlock(&box->mutex);
    answer_all(held, error);
    answer_all(waiting, error);
}

void box_lock_timed_out(struct box *box, int error)
{
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    job = take_out(&box->contended, true);
    box->stuck = true;
    (void)pthread_mutex_unlock(&box->mutex);
    answer_all(job, error);
}

void box_let_others_pass(struct box *box)
{
    struct job *job;

    (void)pthread_mutex_lock(&box->mutex);
    job = take_out(&box->contended, false);
    (void)pthread_mutex_unlock(&box->mutex);
    answer_all(job, -ETIMEDOUT);
}
