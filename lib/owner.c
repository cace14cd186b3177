/*
 * How an owner waits without missing anything: events are taken from the watch first, the mailbox
 * is looked at after that, and only then is there a wait for the next event. What comes in between
 * leaves an event that ends the wait at once. Emptying the mailbox leaves one of our own, so after
 * each batch there is one look in vain.
 *
 * That event has another use: it is not taken before the batch is used up, and keeps the watch
 * readable for poll() until then. What poll() needs besides is to be told again when the lock could
 * not be had, and of mail that came before we watched. That is the bell, a timer: set off in a
 * while, or at once. Both are in an epoll, whose descriptor is the caller's. Who never asks for it
 * pays for neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "batch.h"
#include "context.h"
#include "gproc.h"
#include "lock.h"
#include "mailbox.h"
#include "watch.h"

enum {
    /* What is older than this was meant for an earlier process of that number. */
    STALE_S = 10,
    /* How soon a poller is told to try a held lock again: doubling from the one to the other. */
    RETRY_LEAST_MS = 1,
    RETRY_MOST_MS = 100,
    SHIFT_BYTES = 256 * 1024,
};

struct gproc_owner {
    struct gproc *gproc; /* not owned */
    pid_t pid;
    struct gproc_watch watch;
    struct gproc_batch
        batch;   /* taken from the mailbox; what was not handed out is to be received */
    int poll_fd; /* owned; an epoll of the watch and the bell, or -1 */
    int bell_fd; /* owned; a timer, or -1 */
    bool bell_is_set;
    int retry_ms; /* until the bell tells to try the lock again, next time */
};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Opening */

static bool is_stale(const struct stat *status)
{
    struct timespec now;
    time_t age_s;

    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    age_s = now.tv_sec - status->st_mtim.tv_sec;
    if (age_s != STALE_S)
        return age_s > STALE_S; /* one from the future is not stale */
    return now.tv_nsec >= status->st_mtim.tv_nsec;
}

/* Makes the mailbox, or decides about what is in it. */
static int begin(struct gproc *gproc, pid_t pid, int flags, int wait_ms)
{
    struct gproc_mailbox mailbox;
    struct gproc_lock lock;
    int result = gproc_lock_take(&lock, &gproc->locks, pid, gproc_creator_self, wait_ms);

    if (result < 0)
        return result;
    result = gproc_mailbox_create(&mailbox, &gproc->mailboxes, pid, O_RDWR, GPROC_MAILBOX_MODE,
                                  gproc_creator_self);
    if (result >= 0) {
        if (result == 0 && (flags & GPROC_OWNER_KEEP) == 0 && is_stale(&mailbox.status))
            result = gproc_mailbox_clear(&mailbox);
        gproc_mailbox_close(&mailbox);
    }
    gproc_lock_release(&lock);
    return result < 0 ? result : 0;
}

int gproc_owner_open(struct gproc *gproc, pid_t pid, int flags, int wait_ms,
                     struct gproc_owner **owner)
{
    struct gproc_owner *opened;
    int result;

    if (pid <= 0 || (flags & ~GPROC_OWNER_KEEP) != 0)
        return -EINVAL;
    opened = malloc(sizeof(*opened));
    if (opened == NULL)
        return -ENOMEM;
    *opened = (struct gproc_owner){
        .gproc = gproc,
        .pid = pid,
        .poll_fd = -1,
        .bell_fd = -1,
        .retry_ms = RETRY_LEAST_MS,
    };
    gproc_batch_init(&opened->batch);
    result = gproc_watch_init(&opened->watch, &gproc->mailboxes);
    if (result < 0)
        goto free_it;
    /* The mailbox last: if anything fails, nothing was thrown away. */
    result = gproc_watch_add(&opened->watch, pid);
    if (result < 0)
        goto release_watch;
    result = begin(gproc, pid, flags, wait_ms);
    if (result < 0)
        goto release_watch;
    *owner = opened;
    return 0;

release_watch:
    gproc_watch_release(&opened->watch);
free_it:
    free(opened);
    return result;
}

/* ---- The bell */

/* Sets it off in `after_ms` milliseconds, 0 for now; or silences it with -1. */
static int set_bell(struct gproc_owner *owner, int after_ms)
{
    struct itimerspec when = {.it_value = {0, 0}};

    if (owner->bell_fd < 0 || (after_ms < 0 && !owner->bell_is_set))
        return 0;
    if (after_ms == 0)
        when.it_value.tv_nsec = 1; /* 0 would disarm it */
    else if (after_ms > 0)
        when.it_value.tv_nsec = (long)after_ms * 1000000;
    if (timerfd_settime(owner->bell_fd, 0, &when, NULL) < 0)
        return -errno;
    owner->bell_is_set = after_ms >= 0;
    return 0;
}

static int poll_add(int poll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int gproc_owner_fd(struct gproc_owner *owner)
{
    int result;

    if (owner->poll_fd >= 0)
        return owner->poll_fd;
    owner->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (owner->poll_fd < 0)
        return -errno;
    owner->bell_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (owner->bell_fd < 0) {
        result = -errno;
        goto close_poll;
    }
    result = poll_add(owner->poll_fd, owner->watch.fd);
    if (result == 0)
        result = poll_add(owner->poll_fd, owner->bell_fd);
    /* Mail that came before we watched has left no event: the first look is always worth it. */
    if (result == 0)
        result = set_bell(owner, 0);
    if (result == 0)
        return owner->poll_fd;

    (void)close(owner->bell_fd);
    owner->bell_fd = -1;
close_poll:
    (void)close(owner->poll_fd);
    owner->poll_fd = -1;
    return result;
}

/* ---- Receiving */

/* Moves all that the mailbox holds to the batch, which is used up. 0, or a negative errno: nothing
 * moved. */
static int take(struct gproc_owner *owner, int wait_ms)
{
    struct gproc *gproc = owner->gproc;
    struct gproc_mailbox mailbox;
    struct gproc_lock lock;
    int result = gproc_lock_take(&lock, &gproc->locks, owner->pid, gproc_creator_self, wait_ms);

    if (result < 0)
        return result;
    result = gproc_mailbox_open(&mailbox, &gproc->mailboxes, owner->pid, O_RDWR);
    if (result == 0) {
        result = gproc_batch_fill(&owner->batch, &mailbox);
        if (result == 0)
            result = gproc_mailbox_clear(&mailbox);
        if (result < 0)
            gproc_batch_release(&owner->batch);
        gproc_mailbox_close(&mailbox);
    }
    gproc_lock_release(&lock);
    return result == -ENOENT ? 0 : result; /* it has gone: nothing is there */
}

/* Takes what is there, the lock only where something is. 0, or a negative errno. */
static int look(struct gproc_owner *owner, int wait_ms)
{
    struct stat status;
    int result = gproc_watch_read(&owner->watch, NULL, NULL);

    if (result < 0)
        return result;
    result = gproc_mailbox_stat(&owner->gproc->mailboxes, owner->pid, &status);
    if (result < 0)
        return result == -ENOENT ? 0 : result;
    return status.st_size > 0 ? take(owner, wait_ms) : 0;
}

/* The same, with the bell set as it has to be after that. */
static int refill(struct gproc_owner *owner, int wait_ms)
{
    int result = look(owner, wait_ms);

    /* Setting it cannot fail: it is a timer of ours. */
    if (result < 0) {
        /* The events that led here are gone, and what they told of was not taken. */
        (void)set_bell(owner, owner->retry_ms);
        owner->retry_ms = 2 * owner->retry_ms < RETRY_MOST_MS ? 2 * owner->retry_ms : RETRY_MOST_MS;
        return result;
    }
    owner->retry_ms = RETRY_LEAST_MS;
    (void)set_bell(owner, -1);
    return 0;
}

static int wait_for_event(const struct gproc_owner *owner, int wait_ms)
{
    struct pollfd watched = {.fd = owner->watch.fd, .events = POLLIN};

    return poll(&watched, 1, wait_ms) < 0 ? -errno : 0;
}

int gproc_owner_receive(struct gproc_owner *owner, struct gproc_mail *mail, int timeout_ms)
{
    const int64_t deadline_ms = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
    int left_ms = timeout_ms;
    bool again;

    for (;;) {
        int result = gproc_batch_next(&owner->batch, mail);

        if (result != 0)
            return result < 0 ? result : 0;
        result = refill(owner, left_ms);
        if (result < 0 && result != -EAGAIN)
            return result;
        again = result < 0;
        result = gproc_batch_next(&owner->batch, mail);
        if (result != 0)
            return result < 0 ? result : 0;
        if (timeout_ms == GPROC_NOW)
            return -EAGAIN;
        if (timeout_ms > 0) {
            const int64_t left = deadline_ms - now_ms();

            if (left <= 0)
                return -ETIMEDOUT;
            left_ms = (int)left;
        }
        /* Somebody replaces files faster than we can look: no event may tell when he has done. */
        result = wait_for_event(owner, again ? RETRY_LEAST_MS : left_ms);
        if (result < 0)
            return result;
    }
}

/* ---- Giving back */

/* Writes at the end of an open file (`offset` -1), or over what is at `offset`. */
static int write_all(int fd, const uint8_t *bytes, size_t size_bytes, off_t offset)
{
    while (size_bytes > 0) {
        const ssize_t written =
            offset < 0 ? write(fd, bytes, size_bytes) : pwrite(fd, bytes, size_bytes, offset);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        bytes += written;
        size_bytes -= (size_t)written;
        if (offset >= 0)
            offset += written;
    }
    return 0;
}

/* Moves the first `size_bytes` bytes of a file up by `by_bytes`, the last first, over what is
 * there. */
static int shift(const struct gproc_mailbox *mailbox, off_t size_bytes, size_t by_bytes)
{
    const struct gproc_source source = {.fd = mailbox->fd, .size_bytes = size_bytes};
    uint8_t *buffer = malloc(SHIFT_BYTES);
    off_t end = size_bytes;
    int result = 0;

    if (buffer == NULL)
        return -ENOMEM;
    while (end > 0 && result == 0) {
        const size_t part = end < SHIFT_BYTES ? (size_t)end : SHIFT_BYTES;

        end -= (off_t)part;
        result = gproc_source_read(&source, buffer, part, end);
        if (result == 0)
            result = write_all(mailbox->fd, buffer, part, end + (off_t)by_bytes);
    }
    free(buffer);
    return result;
}

/*
 * Brings the `size_bytes` bytes that were just appended to the front of the mailbox. The file does
 * not grow, so nothing is lacking any more but luck: an error leaves a mixture.
 */
static int bring_to_front(const struct gproc_mailbox *mailbox, const uint8_t *bytes,
                          size_t size_bytes)
{
    const int flags = fcntl(mailbox->fd, F_GETFL);
    int result;

    /* With O_APPEND, pwrite() appends as well. */
    if (flags < 0 || fcntl(mailbox->fd, F_SETFL, flags & ~O_APPEND) < 0)
        return -errno;
    result = shift(mailbox, mailbox->status.st_size, size_bytes);
    if (result == 0)
        result = write_all(mailbox->fd, bytes, size_bytes, 0);
    return result;
}

/* Lock held. Appends first: that fails before anything has changed, and whoever is killed has lost
 * nothing. */
static int put_bytes(const struct gproc_mailbox *mailbox, const uint8_t *bytes, size_t size_bytes)
{
    const off_t before = mailbox->status.st_size;
    int result = write_all(mailbox->fd, bytes, size_bytes, -1);

    if (result < 0)
        return ftruncate(mailbox->fd, before) < 0 ? -EUCLEAN : result;
    if (before > 0 && bring_to_front(mailbox, bytes, size_bytes) < 0)
        return -EUCLEAN;
    return 0;
}

int gproc_owner_put_back(struct gproc_owner *owner, int wait_ms)
{
    struct gproc *gproc = owner->gproc;
    struct gproc_mailbox mailbox;
    struct gproc_lock lock;
    const uint8_t *bytes;
    const size_t size_bytes = gproc_batch_rest(&owner->batch, &bytes);
    int result;

    if (size_bytes == 0)
        return 0;
    result = gproc_lock_take(&lock, &gproc->locks, owner->pid, gproc_creator_self, wait_ms);
    if (result < 0)
        return result;
    result = gproc_mailbox_create(&mailbox, &gproc->mailboxes, owner->pid, O_RDWR,
                                  GPROC_MAILBOX_MODE, gproc_creator_self);
    if (result >= 0) {
        result = put_bytes(&mailbox, bytes, size_bytes);
        gproc_mailbox_close(&mailbox);
    }
    gproc_lock_release(&lock);
    if (result == 0)
        gproc_batch_release(
            &owner->batch); /* now it is the mailbox's again, and the event tells us so */
    return result;
}

int gproc_owner_close(struct gproc_owner *owner, int wait_ms)
{
    int result;

    if (owner == NULL)
        return 0;
    result = gproc_owner_put_back(owner, wait_ms);
    if (owner->bell_fd >= 0)
        (void)close(owner->bell_fd);
    if (owner->poll_fd >= 0)
        (void)close(owner->poll_fd);
    gproc_batch_release(&owner->batch);
    gproc_watch_release(&owner->watch);
    free(owner);
    return result;
}
