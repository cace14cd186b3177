/*
 * gprocfs - what the parts of the daemon share: one mount.
 *
 * Threads: several answer requests (serve.c), one watches over those that wait for a lock (keeper.c),
 * one sees mail come (lookout.c), the first one waits for signals. All that is here is set up before
 * they start and not written after, but for what says otherwise.
 *
 * Order of locks: a request's own in libfuse, then boxes.mutex, then a box's mutex, then the
 * keeper's, or the lookout's. None is held during I/O or while libfuse is called.
 */
#ifndef GPROCFS_GPROCFS_H
#define GPROCFS_GPROCFS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "box.h"
#include "crew.h"
#include "keeper.h"
#include "lookout.h"
#include "opened.h"
#include "place.h"
#include "stats.h"
#include "store.h"

struct fuse_session;

struct gprocfs {
    struct fuse_session *session;
    struct gproc_place mailboxes;
    struct gproc_place locks;
    struct gproc_store store;
    struct boxes boxes;
    struct opened_list opened;
    struct keeper keeper;
    struct lookout lookout;
    struct crew crew;
    size_t message_most_bytes;
    uint32_t read_most_bytes; /* of one request; 0: as much as the kernel likes */
    int64_t lock_timeout_ms;  /* 0: for ever */
    int64_t return_until_ms;  /* at the end of the mount: how long locks are waited for */
    bool live;
    bool gives_away; /* we are root: what is made belongs to whom it was made for */
    bool read_only;
    _Atomic size_t collected_bytes; /* what all open files have collected */
    _Atomic uint32_t nodes_count;   /* how many nodes of their own have been given out */
    struct stats stats;
};

#endif
