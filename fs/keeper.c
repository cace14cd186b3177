#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gprocfs.h"
#include "log.h"

enum {
    PAUSE_LEAST_NS = 50 * 1000,
    PAUSE_MOST_NS = 10 * 1000 * 1000,
    /*
     * The kernel holds its lock on the directory while it waits for an unlink, and with it holds
     * everybody up who makes or looks up a mailbox. A lock that is held this long is stuck or as
     * good as.
     */
    DIRECTORY_WAIT_MS = 50,
};

int64_t keeper_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Call with the mutex held, or not: an eventfd counts, so no wake-up is lost. */
static void wake(struct keeper *keeper)
{
    uint64_t one = 1;

    (void)!write(keeper->wake_fd, &one, sizeof(one)); /* full means that it is awake anyway */
}

/* False: it is on the list already. `fresh` has it looked at soon. The reference is the caller's
 * affair. */
static bool add_watched(struct keeper *keeper, struct box *box, bool fresh)
{
    bool add;

    (void)pthread_mutex_lock(&keeper->mutex);
    add = !box->watched;
    if (add) {
        box->watched = true;
        box->next_watched = keeper->watched;
        keeper->watched = box;
        keeper->woken = keeper->woken || fresh;
    }
    (void)pthread_mutex_unlock(&keeper->mutex);
    return add;
}

void keeper_watch(struct keeper *keeper, struct box *box)
{
    (void)box_again(box);
    if (add_watched(keeper, box, true))
        wake(keeper);
    else
        box_put(box);
}

void keeper_abandon(struct keeper *keeper, struct job *job)
{
    (void)pthread_mutex_lock(&keeper->mutex);
    job->next = keeper->abandoned;
    keeper->abandoned = job;
    (void)pthread_mutex_unlock(&keeper->mutex);
    wake(keeper);
}

static struct box *pop_watched(struct box **list)
{
    struct box *box = *list;

    if (box != NULL)
        *list = box->next_watched;
    return box;
}

/* Is the lock still held? Whatever else is wrong with it, the job that tries next will find and
 * answer. */
static bool still_held(struct box *box)
{
    struct gproc_creator creator;
    struct gproc_lock lock;
    int result;

    (void)pthread_mutex_lock(&box->mutex);
    creator = box->waiter;
    (void)pthread_mutex_unlock(&box->mutex);
    result = gproc_lock_take(&lock, &box->fs->locks, box->pid, creator, GPROC_WAIT_NONE);
    gproc_lock_release(&lock);
    return result == -EWOULDBLOCK;
}

/* One box whose lock was held. True: it has to be watched further. */
static bool look_at(struct keeper *keeper, struct box *box)
{
    int64_t timeout_ms = keeper->fs->lock_timeout_ms;
    bool waits, stuck, late, long_held;
    int64_t held_ms;

    if (!still_held(box)) {
        if (crew_give(&keeper->fs->crew, box) < 0)
            return true; /* out of threads or memory: again in a moment */
        return false;
    }
    (void)pthread_mutex_lock(&box->mutex);
    waits = box->contended.first != NULL;
    stuck = box->stuck;
    held_ms = keeper_now_ms() - box->held_since_ms;
    late = timeout_ms > 0 && !stuck && held_ms >= timeout_ms;
    long_held = held_ms >= DIRECTORY_WAIT_MS;
    if (!waits && !stuck)
        box->lock_is_held = false; /* nobody is left who waits; the next one counts anew */
    (void)pthread_mutex_unlock(&box->mutex);
    if (waits && long_held)
        box_let_go_of_directory(box);
    if (waits && late) {
        log_mailbox(box->pid, "its lock is held by a process that does not give it back",
                    -ETIMEDOUT);
        box_lock_timed_out(box, -ETIMEDOUT);
        stuck = true;
    }
    if (waits || stuck)
        return true;
    box_put(box);
    return false;
}

/* Looks at each box once. A box is off the list meanwhile: whoever finds its lock held then puts it
 * on again. */
static void look_at_all(struct keeper *keeper, struct box *list)
{
    struct box *box;

    while ((box = pop_watched(&list)) != NULL) {
        (void)pthread_mutex_lock(&keeper->mutex);
        box->watched = false;
        (void)pthread_mutex_unlock(&keeper->mutex);
        if (look_at(keeper, box) && !add_watched(keeper, box, false))
            box_put(box);
    }
}

static void answer_abandoned(struct job *job)
{
    while (job != NULL) {
        struct job *next = job->next;

        box_abandon(job);
        job = next;
    }
}

static void sleep_until_woken(struct keeper *keeper, const struct timespec *limit)
{
    struct pollfd wake_up = {.fd = keeper->wake_fd, .events = POLLIN};
    uint64_t count;

    if (ppoll(&wake_up, 1, limit, NULL) > 0)
        (void)!read(keeper->wake_fd, &count, sizeof(count)); /* only empties it */
}

static void *keep(void *context)
{
    struct keeper *keeper = context;
    struct timespec pause = {0, PAUSE_LEAST_NS};
    bool stopping;

    do {
        struct job *abandoned;
        struct box *watched;
        bool woken;

        (void)pthread_mutex_lock(&keeper->mutex);
        abandoned = keeper->abandoned;
        keeper->abandoned = NULL;
        watched = keeper->watched;
        keeper->watched = NULL;
        woken = keeper->woken;
        keeper->woken = false;
        stopping = keeper->stopping;
        (void)pthread_mutex_unlock(&keeper->mutex);

        answer_abandoned(abandoned);
        if (woken)
            pause.tv_nsec = PAUSE_LEAST_NS;
        else if (pause.tv_nsec < PAUSE_MOST_NS)
            pause.tv_nsec *= 2;
        if (!stopping)
            sleep_until_woken(keeper, watched != NULL ? &pause : NULL);
        look_at_all(keeper, watched); /* the last time, it frees the list for keeper_release() */
    } while (!stopping);
    return NULL;
}

int keeper_start(struct keeper *keeper, struct gprocfs *fs)
{
    int result;

    keeper->fs = fs;
    keeper->stopping = false;
    keeper->woken = false;
    keeper->abandoned = NULL;
    keeper->watched = NULL;
    keeper->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (keeper->wake_fd < 0)
        return -errno;
    (void)pthread_mutex_init(&keeper->mutex, NULL); /* without attributes it cannot fail */
    result = -pthread_create(&keeper->thread, NULL, keep, keeper);
    if (result < 0)
        (void)close(keeper->wake_fd);
    return result;
}

void keeper_stop(struct keeper *keeper)
{
    (void)pthread_mutex_lock(&keeper->mutex);
    keeper->stopping = true;
    (void)pthread_mutex_unlock(&keeper->mutex);
    wake(keeper);
    (void)pthread_join(keeper->thread, NULL);
}

void keeper_release(struct keeper *keeper)
{
    struct box *box;

    answer_abandoned(keeper->abandoned);
    while ((box = pop_watched(&keeper->watched)) != NULL) {
        box_lock_timed_out(box, -ENOTCONN);
        box_put(box);
    }
    (void)pthread_mutex_destroy(&keeper->mutex);
    (void)close(keeper->wake_fd);
}
