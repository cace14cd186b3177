#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "paths.h"

enum {
    LOCK_MODE = 0600,
    /* How often a directory or file may be replaced under us in one call before we call it an
       attack. */
    REPLACED_MOST_COUNT = 100,
    PAUSE_LEAST_NS = 50 * 1000,
    PAUSE_MOST_NS = 5 * 1000 * 1000,
};

const struct gproc_creator gproc_creator_self = {(uid_t)-1, (gid_t)-1};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int create_file(const struct gproc_place *locks, const char *name, int flags,
                       struct gproc_creator creator)
{
    int fd = openat(locks->fd, name, flags | O_CREAT | O_EXCL, LOCK_MODE);

    if (fd < 0)
        return -errno;
    if (creator.uid != (uid_t)-1 && fchown(fd, creator.uid, creator.gid) < 0) {
        int error = -errno;

        (void)unlinkat(locks->fd, name, 0); /* it would shut out whom it was made for */
        (void)close(fd);
        return error;
    }
    return fd;
}

/*
 * The file without a lock on it. O_NONBLOCK keeps a planted fifo or device from holding us. Opening
 * without O_CREAT first is for the usual case, and for fs.protected_regular, which forbids O_CREAT
 * on another user's file.
 */
static int open_file(struct gproc_place *locks, const char *name, struct gproc_creator creator,
                     struct stat *status)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    int attempt;

    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        int fd = openat(locks->fd, name, flags);
        int error;

        if (fd < 0 && errno != ENOENT)
            return -errno;
        if (fd < 0) {
            fd = create_file(locks, name, flags, creator);
            if (fd == -EEXIST) /* somebody was faster */
                continue;
            if (fd == -ENOENT) { /* the directory itself is gone */
                error = gproc_place_renew(locks);
                if (error < 0)
                    return error;
                continue;
            }
            if (fd < 0)
                return fd;
        }
        if (fstat(fd, status) < 0)
            error = -errno;
        else
            error = S_ISREG(status->st_mode) ? 0 : -EINVAL;
        if (error == 0)
            return fd;
        (void)close(fd);
        return error;
    }
    return -EBUSY;
}

/* flock with a limit. The kernel has none, so with one the lock is tried at growing intervals. */
static int lock_file(int fd, int64_t wait_ms, int64_t deadline_ms)
{
    struct timespec pause = {0, PAUSE_LEAST_NS};

    if (wait_ms < 0)
        return flock(fd, LOCK_EX) < 0 ? -errno : 0;
    for (;;) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (wait_ms == GPROC_WAIT_NONE)
            return -EWOULDBLOCK;
        if (now_ms() >= deadline_ms)
            return -ETIMEDOUT;
        (void)nanosleep(&pause, NULL); /* cut short by a signal, it only looks earlier */
        if (pause.tv_nsec < PAUSE_MOST_NS)
            pause.tv_nsec *= 2;
    }
}

int gproc_lock_take(struct gproc_lock *lock, struct gproc_place *locks, pid_t pid,
                    struct gproc_creator creator, int64_t wait_ms)
{
    char name[GPROC_NAME_BYTES];
    int64_t now = now_ms();
    int64_t deadline_ms = wait_ms < INT64_MAX - now ? now + wait_ms : INT64_MAX;
    int attempt;

    lock->fd = -1;
    gproc_lock_name(pid, name);
    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        struct stat status;
        int fd = open_file(locks, name, creator, &status);
        int result;

        if (fd < 0)
            return fd;
        result = lock_file(fd, wait_ms, deadline_ms);
        if (result == 0) {
            result = gproc_place_names(locks, name, &status);
            if (result == 1) {
                lock->fd = fd;
                lock->file = gproc_identity_of(&status);
                return 0;
            }
        }
        (void)close(fd);
        if (result < 0)
            return result;
        result = gproc_place_renew(locks);
        if (result < 0)
            return result;
    }
    return -EBUSY;
}

void gproc_lock_init(struct gproc_lock *lock)
{
    lock->fd = -1;
}

int gproc_lock_stat(const struct gproc_place *locks, pid_t pid, struct stat *status)
{
    char name[GPROC_NAME_BYTES];

    gproc_lock_name(pid, name);
    return gproc_place_stat(locks, name, status);
}

int gproc_lock_retake(struct gproc_lock *lock, struct gproc_place *locks, pid_t pid,
                      struct gproc_creator creator, int64_t wait_ms)
{
    if (lock->fd >= 0) {
        int error = flock(lock->fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        struct stat status;

        if (gproc_lock_stat(locks, pid, &status) == 0 && gproc_identity_is(&lock->file, &status)) {
            if (error == 0)
                return 0;
            if (error == EWOULDBLOCK && wait_ms == GPROC_WAIT_NONE)
                return -EWOULDBLOCK;
        }
        gproc_lock_release(lock);
    }
    return gproc_lock_take(lock, locks, pid, creator, wait_ms);
}

int gproc_lock_probe(struct gproc_place *locks, pid_t pid, struct gproc_creator creator)
{
    char name[GPROC_NAME_BYTES];
    struct stat status;
    int fd;

    gproc_lock_name(pid, name);
    fd = open_file(locks, name, creator, &status);
    if (fd < 0)
        return fd;
    (void)close(fd);
    return 0;
}

void gproc_lock_rest(struct gproc_lock *lock)
{
    if (lock->fd >= 0)
        (void)flock(lock->fd, LOCK_UN); /* cannot fail, be it held or not */
}

void gproc_lock_abandon(struct gproc_lock *lock)
{
    if (lock->fd >= 0)
        (void)close(lock->fd); /* nothing was written to it */
    lock->fd = -1;
}

void gproc_lock_release(struct gproc_lock *lock)
{
    /* Closing alone would not do: a child forked meanwhile has the open file too, until it execs or
     * exits. */
    gproc_lock_rest(lock);
    gproc_lock_abandon(lock);
}
