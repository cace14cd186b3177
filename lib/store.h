/*
 * store - the directory in which one mount keeps what it has taken and not delivered.
 *
 *   <mailbox directory>/.gprocfs/              mode 1777: mounts of several users share it
 *   <mailbox directory>/.gprocfs/<id>/         mode 0700: one mount's own; id is made up at random
 *   <mailbox directory>/.gprocfs/<id>/lock     flock(2) LOCK_EX for as long as that mount lives
 *   <mailbox directory>/.gprocfs/<id>/<pid>.<serial>   a segment; serials grow in time, across
 * mounts
 *
 * A mount that dies loses its lock and leaves its directory. The next one of the same user moves
 * the segments it finds there into its own directory, each in one rename, so that they are always
 * in exactly one place. What belongs to another user, or is no plain directory or file, is passed
 * over.
 *
 * gproc_store_open() and _close() are for one thread; the others may be called from any.
 */
#ifndef GPROC_STORE_H
#define GPROC_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "place.h"

enum {
    GPROC_STORE_NAME_BYTES = 64,
};

struct gproc_store {
    struct gproc_place *directory; /* not owned: the mailbox directory */
    int fd;                        /* owned: our own directory */
    int lock_fd;                   /* owned */
    pthread_mutex_t renewing;      /* held while both descriptors are given another directory */
    /* Protected by renewing. */
    dev_t device; /* of the mailbox directory that our own is in */
    ino_t inode;
    char name[GPROC_STORE_NAME_BYTES]; /* of our own directory, below .gprocfs */
    /* False when opened; set by the owner, from any thread: what is being moved stays where it is. */
    atomic_bool is_ending;
};

/* Makes our directory and locks it. 0, or what mkdir, open and flock say: then nothing is held. */
int gproc_store_open(struct gproc_store *store, struct gproc_place *directory);

/* Deletes the directory where it is empty, and lets go of it. Segments that are left wait for the
 * next mount. */
void gproc_store_close(struct gproc_store *store);

/*
 * Moves over what dead mounts of this user left, and mounts that ended without being able to put it
 * back. How many segments, or a negative errno where there may be more of them, which could not be
 * read or moved: they stay for another time, and nothing should be taken before.
 */
int gproc_store_adopt(struct gproc_store *store);

/*
 * Calls `found` for each segment in our directory, in no order; stops where it returns other than
 * 0, and returns that. Else 0 or a negative errno.
 */
int gproc_store_list(const struct gproc_store *store,
                     int (*found)(void *context, pid_t pid, uint64_t serial), void *context);

/*
 * A new, empty file for a segment of `pid`, open for reading and writing; or a negative errno.
 * `*serial` is the newest serial of that pid so far, or 0, and becomes the new one's, which is
 * larger whatever the clock does; -EOVERFLOW where that would be more than INT64_MAX.
 */
int gproc_store_create(struct gproc_store *store, pid_t pid, uint64_t *serial);

/* Opens one that is there; or a negative errno. */
int gproc_store_open_segment(const struct gproc_store *store, pid_t pid, uint64_t serial);

/* Deletes it. 0, or what unlink says. */
int gproc_store_delete(const struct gproc_store *store, pid_t pid, uint64_t serial);

#endif
