/*
 * lookout - the one thread that sees mail come, from behind the mount, for those that wait for it.
 *
 * It is seen by inotify(7), one descriptor for all mailboxes for which somebody waits. One that
 * cannot be watched (too many watches) is looked at ten times a second.
 *
 * To watch a mailbox its name is looked up, which takes as long as the file system below does. So
 * this is not done by the keeper, whom all that wait for a lock wait for. Nothing but mail from
 * behind waits for the lookout.
 */
#ifndef GPROCFS_LOOKOUT_H
#define GPROCFS_LOOKOUT_H

#include <pthread.h>
#include <stdbool.h>

#include "watch.h"

struct box;
struct gprocfs;

struct lookout {
    struct gprocfs *fs;
    pthread_t thread;
    int bell; /* owned; -1: who rings is not heard */
    pthread_mutex_t mutex;
    /* Protected by mutex. */
    bool stopping;
    struct box *attended; /* with a reference each */
    /* The lookout's alone. */
    struct gproc_watch mail;
    bool is_unsure;     /* not all that is watched could be followed */
    struct box *polled; /* those that cannot be watched; with a reference each */
};

/* Makes all but the thread. 0 or a negative errno. */
int lookout_init(struct lookout *lookout, struct gprocfs *fs);

/* The same, and starts the thread. 0 or a negative errno. */
int lookout_start(struct lookout *lookout, struct gprocfs *fs);

/* Ends the thread. What comes in after it waits for lookout_release(). */
void lookout_stop(struct lookout *lookout);

/* Frees. Nobody else may be left who uses it. */
void lookout_release(struct lookout *lookout);

/*
 * Somebody waits for this mailbox, or no longer: its mail is watched from now on while it is needed,
 * and those that wait look once more. `tell`: its pollers are to be told. From any thread.
 */
void lookout_attend(struct lookout *lookout, struct box *box, bool tell);

#endif
