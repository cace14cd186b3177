/*
 * world - mailbox, lock and store of one mount, as the daemon strings them together, for tests of
 * what is in flight and of what is left of it when the mount is killed.
 *
 * Functions return 0 or a count, else a negative errno, and may be used in a forked child.
 */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include <stdbool.h>
#include <sys/types.h>

#include "inflight.h"
#include "mailbox.h"
#include "move.h"
#include "place.h"
#include "store.h"

struct world {
    pid_t pid; /* whose mailbox */
    struct gproc_place mailboxes, locks;
    struct gproc_store store;
    struct gproc_inflight inflight;
    struct gproc_lock lock;       /* held between world_lock() and world_unlock() */
    struct gproc_mailbox mailbox; /* open between these two, if has_mailbox */
    bool has_mailbox;
};

/*
 * Starts a mount on the directories gproc and gflock below `root`: adopts and loads what dead ones
 * left of mailbox `pid`. Does not settle it.
 */
int world_open(struct world *world, const char *root, pid_t pid);

/* Ends it cleanly. What is in flight stays in the store. */
void world_close(struct world *world);

/* Takes the mailbox's lock, and opens the mailbox where there is one. */
int world_lock(struct world *world);
void world_unlock(struct world *world);

/* Under the lock: settles; takes all from the mailbox; puts all back, making it where it is
 * missing. */
int world_settle(struct world *world);
int world_take(struct world *world);
int world_return(struct world *world);

#endif
