#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gprocfs.h"
#include "log.h"
#include "poller.h"

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
    POLL_INTERVAL_MS = 100,  /* of mailboxes that cannot be watched */
    REST_INTERVAL_MS = 1000, /* between looks at files that nobody uses */
};

static const int64_t ns_per_ms = 1000 * 1000;
static const int64_t ns_per_s = 1000 * 1000 * 1000;

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * ns_per_s + now.tv_nsec;
}

int64_t keeper_now_ms(void)
{
    return now_ns() / ns_per_ms;
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

void keeper_attend(struct keeper *keeper, struct box *box, bool tell)
{
    bool add;

    (void)box_again(box);
    (void)pthread_mutex_lock(&keeper->mutex);
    box->to_tell = box->to_tell || tell;
    add = !box->attended;
    if (add) {
        box->attended = true;
        box->next_attended = keeper->attended;
        keeper->attended = box;
    }
    (void)pthread_mutex_unlock(&keeper->mutex);
    if (add)
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

void keeper_rest(struct keeper *keeper)
{
    if (!atomic_exchange(&keeper->boxes_rest, true))
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

/* Has those that wait for mail look again. */
static void give_news(struct keeper *keeper, struct box *box)
{
    pollers_tell(box);
    (void)box_again(box);
    if (crew_give(&keeper->fs->crew, box, box_take_up) < 0) {
        /* Out of threads or memory. It will be attended again, and find the watch in place. */
        keeper_attend(keeper, box, false);
        box_put(box);
    }
}

/* Says whether its mail is watched; false where somebody waits after all, and it must stay so. */
static bool set_watched(struct box *box, bool watched)
{
    bool needed;

    (void)pthread_mutex_lock(&box->mutex);
    needed = box_needs_watch(box);
    if (watched || !needed)
        box->mail_is_watched = watched;
    (void)pthread_mutex_unlock(&box->mutex);
    return watched || !needed;
}

static void start_to_watch(struct keeper *keeper, struct box *box)
{
    int result = gproc_watch_add(&keeper->mail, box->pid);

    (void)set_watched(box, true);
    if (result < 0) {
        log_mailbox(box->pid, "cannot be watched, and is looked at ten times a second", result);
        box->next_polled = keeper->polled;
        keeper->polled = box_again(box);
    } else {
        (void)box_again(box); /* the watch's */
    }
    give_news(keeper, box); /* what came before the watch was there */
}

static void stop_to_watch(struct keeper *keeper, struct box *box)
{
    struct box **link = &keeper->polled;

    if (!set_watched(box, false))
        return;
    while (*link != NULL && *link != box)
        link = &(*link)->next_polled;
    if (*link != NULL)
        *link = box->next_polled;
    else
        gproc_watch_remove(&keeper->mail, box->pid);
    box_put(box);
}

static bool is_watched(struct box *box)
{
    bool watched;

    (void)pthread_mutex_lock(&box->mutex);
    watched = box->mail_is_watched;
    (void)pthread_mutex_unlock(&box->mutex);
    return watched;
}

static void attend(struct keeper *keeper, struct box *box, bool tell)
{
    bool needed = box_is_followed(box);
    bool watched = is_watched(box);

    if (tell)
        pollers_tell(box);
    if (needed && !watched)
        start_to_watch(keeper, box);
    else if (!needed && watched)
        stop_to_watch(keeper, box);
    else if (needed && !tell)
        give_news(keeper, box);
}

static void attend_all(struct keeper *keeper, struct box *list)
{
    while (list != NULL) {
        struct box *box = list;
        bool tell;

        list = box->next_attended;
        (void)pthread_mutex_lock(&keeper->mutex);
        box->attended = false;
        tell = box->to_tell;
        box->to_tell = false;
        (void)pthread_mutex_unlock(&keeper->mutex);
        attend(keeper, box, tell);
        box_put(box);
    }
}

/* A mailbox's file has changed. */
static void on_change(void *context, pid_t pid)
{
    struct keeper *keeper = context;
    struct box *box = box_find(keeper->fs, pid);

    if (box == NULL)
        return; /* it is not watched any more */
    if (box_is_followed(box))
        give_news(keeper, box);
    else
        stop_to_watch(keeper, box);
    box_put(box);
}

/* Mailboxes of which a change may have gone unseen, as there were too many watches. */
static void look_at_unsure(struct keeper *keeper)
{
    int result = gproc_watch_read(&keeper->mail, on_change, keeper);
    size_t i;

    for (i = keeper->mail.entries_count; i-- > 0;) {
        if (i < keeper->mail.entries_count) /* each may take itself out */
            on_change(keeper, keeper->mail.entries[i].pid);
    }
    keeper->is_unsure = result < 0;
}

static void look_for_mail(struct keeper *keeper)
{
    struct box *box, *next;

    if (keeper->is_unsure)
        look_at_unsure(keeper);

    for (box = keeper->polled; box != NULL; box = next) {
        next = box->next_polled;
        on_change(keeper, box->pid);
    }
}

/* Until something happens, or until `limit_ns` of the clock; -1: no limit. */
static void sleep_until_woken(struct keeper *keeper, int64_t limit_ns)
{
    struct pollfd events[] = {
        {.fd = keeper->wake_fd, .events = POLLIN},
        {.fd = keeper->mail.fd, .events = POLLIN},
    };
    int64_t left_ns = limit_ns < 0 ? 0 : limit_ns - now_ns();
    struct timespec left = {0, 0};
    uint64_t count;

    if (left_ns > 0)
        left = (struct timespec){left_ns / ns_per_s, left_ns % ns_per_s};
    if (ppoll(events, 2, limit_ns < 0 ? NULL : &left, NULL) <= 0)
        return;
    if (events[0].revents != 0)
        (void)!read(keeper->wake_fd, &count, sizeof(count)); /* only empties it */
    if (events[1].revents != 0)
        keeper->is_unsure = gproc_watch_read(&keeper->mail, on_change, keeper) < 0;
}

static int64_t sooner(int64_t one_ns, int64_t other_ns)
{
    return one_ns < 0 || (other_ns >= 0 && other_ns < one_ns) ? other_ns : one_ns;
}

/* When to look again, by the clock; -1: when woken. */
struct times {
    int64_t locks_ns;
    int64_t mail_ns;
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
    if (times->rest_ns >= 0 && now_ns() >= times->rest_ns) {
        times->rest_ns = -1;
        atomic_store(&keeper->boxes_rest, false); /* first: who comes meanwhile says so again */
        if (have_rested_closed(keeper))
            atomic_store(&keeper->boxes_rest, true);
    }
    if (times->rest_ns < 0 && atomic_load(&keeper->boxes_rest))
        times->rest_ns = now_ns() + REST_INTERVAL_MS * ns_per_ms;
}

/* What is due of the things that have no event. */
static void look_at_what_is_due(struct keeper *keeper, struct times *times, bool fresh)
{
    struct box *watched;

    if (fresh) {
        times->pause_ns = PAUSE_LEAST_NS;
        times->locks_ns = now_ns() + times->pause_ns;
    } else if (times->locks_ns >= 0 && now_ns() >= times->locks_ns) {
        (void)pthread_mutex_lock(&keeper->mutex);
        watched = keeper->watched;
        keeper->watched = NULL;
        (void)pthread_mutex_unlock(&keeper->mutex);
        look_at_all(keeper, watched);
        times->pause_ns *= 2;
        if (times->pause_ns > PAUSE_MOST_NS)
            times->pause_ns = PAUSE_MOST_NS;
        (void)pthread_mutex_lock(&keeper->mutex);
        times->locks_ns = keeper->watched != NULL ? now_ns() + times->pause_ns : -1;
        (void)pthread_mutex_unlock(&keeper->mutex);
    }
    close_rested(keeper, times);
    if (times->mail_ns >= 0 && now_ns() >= times->mail_ns)
        look_for_mail(keeper);
    if (keeper->polled == NULL && !keeper->is_unsure)
        times->mail_ns = -1;
    else if (times->mail_ns < 0 || now_ns() >= times->mail_ns)
        times->mail_ns = now_ns() + POLL_INTERVAL_MS * ns_per_ms;
}

static int64_t soonest(const struct times *times)
{
    return sooner(sooner(times->locks_ns, times->mail_ns), sooner(times->rest_ns, times->crew_ns));
}

static void *keep(void *context)
{
    struct keeper *keeper = context;
    struct times times = {-1, -1, -1, -1, PAUSE_LEAST_NS};
    bool stopping;

    do {
        struct job *abandoned;
        struct box *attended;
        bool fresh;

        (void)pthread_mutex_lock(&keeper->mutex);
        abandoned = keeper->abandoned;
        keeper->abandoned = NULL;
        attended = keeper->attended;
        keeper->attended = NULL;
        fresh = keeper->woken;
        keeper->woken = false;
        stopping = keeper->stopping;
        (void)pthread_mutex_unlock(&keeper->mutex);

        answer_abandoned(abandoned);
        attend_all(keeper, attended);
        look_at_what_is_due(keeper, &times, fresh);
        if (crew_help(&keeper->fs->crew))
            times.crew_ns = now_ns() + CREW_PATIENCE_MS * ns_per_ms;
        else
            times.crew_ns = -1;
        if (!stopping)
            sleep_until_woken(keeper, soonest(&times));
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
    keeper->attended = NULL;
    keeper->polled = NULL;
    keeper->is_unsure = false;
    atomic_store(&keeper->boxes_rest, false);
    keeper->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (keeper->wake_fd < 0)
        return -errno;
    (void)pthread_mutex_init(&keeper->mutex, NULL); /* without attributes it cannot fail */
    result = gproc_watch_init(&keeper->mail, &fs->mailboxes);
    if (result == 0)
        result = -pthread_create(&keeper->thread, NULL, keep, keeper);
    if (result < 0) {
        gproc_watch_release(&keeper->mail);
        (void)close(keeper->wake_fd);
    }
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
    while ((box = keeper->attended) != NULL) {
        keeper->attended = box->next_attended;
        box_put(box);
    }
    gproc_watch_release(&keeper->mail); /* the boxes it watched go with all others */
    (void)pthread_mutex_destroy(&keeper->mutex);
    (void)close(keeper->wake_fd);
    keeper->wake_fd = -1; /* what becomes of boxes from now on wakes nobody */
}
