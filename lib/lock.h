/*
 * lock - the advisory lock that every append and every drain of a mailbox is made under.
 *
 * flock(2) LOCK_EX on <lock directory>/<pid>.lock, as the Go package takes it. Lock files are
 * created (0600, read-write) and never deleted by this protocol, but cleaners of /tmp delete them:
 * a lock on a file that the path no longer names excludes nobody, so that is looked at after the
 * lock was taken, and it is taken again where it holds. The Go package does not look; against a Go
 * peer that sits on a deleted lock file nothing can be done from here.
 *
 * A lock is held by the open file, not by a thread: it goes with its descriptor, also when the
 * process is killed. Distinct locks are independent; one lock is used by one thread at a time.
 *
 * Opening the file costs more than locking it. Who takes the same lock again and again lets it rest
 * in between: given back, with the file still open. After a fork only one of the two processes may
 * retake such a lock: for the kernel they are one holder.
 */
#ifndef GPROC_LOCK_H
#define GPROC_LOCK_H

#include <stdint.h>
#include <sys/types.h>

#include "place.h"

enum {
    GPROC_WAIT_NONE = 0,
    GPROC_WAIT_FOREVER = -1,
};

struct gproc_lock {
    int fd;                     /* owned while the lock is held or rests, else -1 */
    struct gproc_identity file; /* what that is of */
};

/* Whom a file belongs to that has to be created: (uid_t)-1 and (gid_t)-1 leave it to the kernel. */
struct gproc_creator {
    uid_t uid;
    gid_t gid;
};

extern const struct gproc_creator gproc_creator_self;

/*
 * Takes the lock of mailbox `pid`, if need be waiting up to `wait_ms` milliseconds
 * (GPROC_WAIT_NONE: not at all, GPROC_WAIT_FOREVER). 0, or
 *   -EWOULDBLOCK  held by somebody else, and wait_ms is GPROC_WAIT_NONE
 *   -ETIMEDOUT    held by somebody else all that time
 *   -EINTR        a signal arrived while waiting for ever
 *   -EBUSY        the lock file or its directory is replaced as fast as we open it
 *   -EACCES, -EMFILE, ...  the lock file cannot be opened or created
 *   -ELOOP, -EINVAL, ...   it is not a regular file
 * After an error nothing is held. Going on without the lock is never right.
 */
int gproc_lock_take(struct gproc_lock *lock, struct gproc_place *locks, pid_t pid,
                    struct gproc_creator creator, int64_t wait_ms);

/* One that neither is held nor rests. */
void gproc_lock_init(struct gproc_lock *lock);

/*
 * The same as gproc_lock_take() for a lock that may rest, and errors as there; but one that rests is
 * taken without opening its file, where the path still names it and nothing about it has changed.
 */
int gproc_lock_retake(struct gproc_lock *lock, struct gproc_place *locks, pid_t pid,
                      struct gproc_creator creator, int64_t wait_ms);

/* Gives it back, and lets it rest. A lock that is not held is left alone. */
void gproc_lock_rest(struct gproc_lock *lock);

/* What stat says of the lock file, by its path. 0, -ENOENT, or another negative errno. */
int gproc_lock_stat(const struct gproc_place *locks, pid_t pid, struct stat *status);

/* Opens, and creates, the lock file without taking the lock: whether we may. 0, or as above. */
int gproc_lock_probe(struct gproc_place *locks, pid_t pid, struct gproc_creator creator);

/* Closes its file without giving it back: after a fork, for the process that does not go on with it. */
void gproc_lock_abandon(struct gproc_lock *lock);

/* Gives it back, and closes its file. A lock that is not held is left alone. */
void gproc_lock_release(struct gproc_lock *lock);

#endif
