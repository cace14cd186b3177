#include "keeper.h"

#include <errno.h>
#include <unistd.h>

#include "bell.h"
#include "gprocfs.h"
#include "log.h"

enum {
    PAUSE_LEAST_NS = 50 * 1000,
    PAUSE_MOST_NS = 10 * 1000 * 1000,
    /*
     * The kernel holds its lock on the directory while it waits for an unlink, and with it holds
     * everybody up who makes or looks up a mailbox; and that on the inode while it waits for an fsync,
     * with everybody who syncs another file of it. A lock that is held this long is stuck or as
     * good as.
     */
    OTHERS_WAIT_MS = 50,
    REST_INTERVAL_MS = 1000, /* between looks at files that nobody uses */
};

int64_t keeper_now_ms(void)
{
    return bell_now_ns() / BELL_NS_PER_MS;
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
        bell_ring(keeper->bell);
    else
        box_put(box);
}

void keeper_abandon(struct keeper *keeper, struct job *job)
{
    (void)pthread_mutex_lock(&keeper->mutex);
    job->next = keeper->abandoned;
    keeper->abandoned = job;
    (void)pthread_mutex_unlock(&keeper->mutex);
    bell_ring(keeper->bell);
}

void keeper_rest(struct keeper *keeper)
{
    if (!atomic_exchange(&keeper->boxes_rest, true))
        bell_ring(keeper->bell);
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
    /* Short of descriptors or memory it cannot be told; time goes on. */
    return result == -EWOULDBLOCK || result == -EMFILE || result == -ENFILE || result == -ENOMEM;
}

/* One box whose lock was held. True: it has to be watched further. */
static bool look_at(struct keeper *keeper, struct box *box)
{
    int64_t timeout_ms = keeper->fs->lock_timeout_ms;
    bool waits, owes, stuck, late, long_held;
    int64_t held_ms;

    if (!still_held(box)) {
        if (crew_give(&keeper->fs->crew, box, box_lock_is_free) < 0)
            return true; /* out of threads or memory: again in a moment */
        return false;
    }
    (void)pthread_mutex_lock(&box->mutex);
    waits = box->contended.first != NULL;
    /* Who waits for mail was not tried while the lock was held, and who polls was told of none. */
    owes = (box->news && box->waiting.first != NULL) || box->pollers != NULL;
    stuck = box->stuck;
    held_ms = keeper_now_ms() - box->held_since_ms;
    late = timeout_ms > 0 && !stuck && held_ms >= timeout_ms;
    long_held = held_ms >= OTHERS_WAIT_MS;
    if (!waits && !owes && !stuck)
        box->lock_is_held = false; /* nobody is left who waits; the next one counts anew */
    (void)pthread_mutex_unlock(&box->mutex);
    if (waits && long_held)
        box_let_others_pass(box);
    if (waits && late) {
        log_mailbox(box->pid, "its lock is held by a process that does not give it back",
                    -ETIMEDOUT);
        box_lock_timed_out(box, -ETIMEDOUT);
        stuck = true;
    }
    if (waits || owes || stuck)
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

/* When to look again, by the clock; -1: when woken. */
struct times {
    int64_t locks_ns;
    int64_t rest_ns;
    int64_t crew_ns;
    int64_t pause_ns; /* between looks at locks */
};

/* Has the files of those that have rested long enough closed: by the crew, since that may take its
 * time (NFS, FUSE). False: none is left that rests. */
static bool have_rested_closed(struct keeper *keeper)
{
    struct box *box;
    bool more;

    while ((box = boxes_pop_rested(&keeper->fs->boxes, &more)) != NULL) {
        if (crew_give(&keeper->fs->crew, box, box_close_files) < 0) {
            box_put(box); /* it rests again */
            break;
        }
    }
    return more;
}

/* Files that nobody uses any more are closed. */
static void close_rested(struct keeper *keeper, struct times *times)
{
    if (times->rest_ns >= 0 && bell_now_ns() >= times->rest_ns) {
        times->rest_ns = -1;
        atomic_store(&keeper->boxes_rest, false); /* first: who comes meanwhile says so again */
        if (have_rested_closed(keeper))
            atomic_store(&keeper->boxes_rest, true);
    }
    if (times->rest_ns < 0 && atomic_load(&keeper->boxes_rest))
        times->rest_ns = bell_now_ns() + REST_INTERVAL_MS * BELL_NS_PER_MS;
}

/* What is due of the things that have no event. */
static void look_at_what_is_due(struct keeper *keeper, struct times *times, bool fresh)
{
    struct box *watched;

    if (fresh) {
        times->pause_ns = PAUSE_LEAST_NS;
        times->locks_ns = bell_now_ns() + times->pause_ns;
    } else if (times->locks_ns >= 0 && bell_now_ns() >= times->locks_ns) {
        (void)pthread_mutex_lock(&keeper->mutex);
        watched = keeper->watched;
        keeper->watched = NULL;
        (void)pthread_mutex_unlock(&keeper->mutex);
        look_at_all(keeper, watched);
        times->pause_ns *= 2;
        if (times->pause_ns > PAUSE_MOST_NS)
            times->pause_ns = PAUSE_MOST_NS;
        (void)pthread_mutex_lock(&keeper->mutex);
        times->locks_ns = keeper->watched != NULL ? bell_now_ns() + times->pause_ns : -1;
        (void)pthread_mutex_unlock(&keeper->mutex);
    }
    close_rested(keeper, times);
}

static int64_t soonest(const struct times *times)
{
    return bell_sooner_ns(times->locks_ns, bell_sooner_ns(times->rest_ns, times->crew_ns));
}

static void *keep(void *context)
{
    struct keeper *keeper = context;
    struct times times = {-1, -1, -1, PAUSE_LEAST_NS};
    bool stopping;

    do {
        struct job *abandoned;
        bool fresh;

        (void)pthread_mutex_lock(&keeper->mutex);
        abandoned = keeper->abandoned;
        keeper->abandoned = NULL;
        fresh = keeper->woken;
        keeper->woken = false;
        stopping = keeper->stopping;
        (void)pthread_mutex_unlock(&keeper->mutex);

        answer_abandoned(abandoned);
        look_at_what_is_due(keeper, &times, fresh);
        if (crew_help(&keeper->fs->crew))
            times.crew_ns = bell_now_ns() + CREW_PATIENCE_MS * BELL_NS_PER_MS;
        else
            times.crew_ns = -1;
        if (!stopping)
            (void)bell_sleep(keeper->bell, -1, soonest(&times));
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
    atomic_store(&keeper->boxes_rest, false);
    keeper->bell = bell_new();
    if (keeper->bell < 0)
        return keeper->bell;
    (void)pthread_mutex_init(&keeper->mutex, NULL); /* without attributes it cannot fail */
    result = -pthread_create(&keeper->thread, NULL, keep, keeper);
    if (result < 0)
        (void)close(keeper->bell);
    return result;
}

void keeper_stop(struct keeper *keeper)
{
    (void)pthread_mutex_lock(&keeper->mutex);
    keeper->stopping = true;
    (void)pthread_mutex_unlock(&keeper->mutex);
    bell_ring(keeper->bell);
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
    if (keeper->bell >= 0)
        (void)close(keeper->bell);
    keeper->bell = -1; /* what becomes of boxes from now on wakes nobody */
}
