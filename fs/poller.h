/*
 * poller - who is to be told, by the kernel, that a mailbox may have something to receive.
 *
 * A poll handle of the kernel's belongs to one poller, a poller to one open file, and both go when
 * they have been told once, or the file is closed, or it polls again. The kernel asks anew then.
 *
 * The list of a box is protected by the box's mutex. Telling is done without it, by the lookout: a
 * notification from inside a request, or under a lock, could wait for itself in the kernel.
 */
#ifndef GPROCFS_POLLER_H
#define GPROCFS_POLLER_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

struct box;
struct handle;

struct poller {
    struct fuse_pollhandle *kernel; /* owned */
    struct handle *handle;          /* whose it is, once in a box's list */
    struct poller *next;
    struct poller **link;
};

/* For a poll handle, which is the poller's from now on, also where there is no memory: NULL. */
struct poller *poller_new(struct fuse_pollhandle *kernel);

/* One that is in no list. NULL is left alone. */
void poller_free(struct poller *poller);

/* Makes it the handle's only one. Call with the box's mutex held; what it returns is freed after.
 */
struct poller *poller_put(struct handle *handle, struct poller *poller);

/* Takes the handle's out of its box's list: it, or NULL. Call with the box's mutex held. */
struct poller *poller_take(struct handle *handle);

/* Tells all that there are, once. Call without any lock. */
void pollers_tell(struct box *box);

#endif
