/*
 * inflight - one mailbox's messages between being taken and being delivered.
 *
 * A receiver empties the mailbox as a whole, as the Go package does, and hands messages out one by
 * one. What waits in between is a queue of segments (see segment.h), the oldest first, and the
 * messages of it that are in somebody's hands. A message is gone when it is delivered; given back,
 * it is the next one again.
 *
 * Order: messages leave in the order in which they came. gproc_inflight_take() is only useful when
 * the queue is empty, or on the way back, else it would only move data early.
 *
 * Memory: the scan's (see scan.h) and about a hundred bytes for each message in somebody's hands.
 * An inflight is used by one thread at a time. Functions that say "lock held" want the mailbox's
 * lock.
 */
#ifndef GPROC_INFLIGHT_H
#define GPROC_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mailbox.h"
#include "scan.h"
#include "store.h"

struct gproc_inflight_segment;

/* A message taken. The inflight owns it; whoever took it has it until he delivers it or gives it
 * back. */
struct gproc_taken {
    struct gproc_message message;
    struct gproc_inflight_segment *segment; /* not owned */
    struct gproc_taken *next;               /* the queue's */
    bool out;                               /* in somebody's hands */
};

struct gproc_inflight {
    struct gproc_store *store; /* not owned */
    pid_t pid;
    struct gproc_inflight_segment *first; /* owned, the oldest; NULL: nothing is in flight */
    uint64_t damaged_bytes;               /* passed over so far, ever */
};

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid);

/* Closes everything. Files of what is left stay in the store; taken messages are no longer
 * anybody's. */
void gproc_inflight_release(struct gproc_inflight *inflight);

/*
 * Loads a segment that a dead mount left. 0; a segment that never became one is deleted and
 * forgotten. -ENOMEM, or what open and pread say: then it stays in the store for another time.
 */
int gproc_inflight_load(struct gproc_inflight *inflight, uint64_t serial);

/* Whether there is something whose move was cut off: gproc_inflight_settle() must come before all
 * else. */
bool gproc_inflight_is_unsettled(const struct gproc_inflight *inflight);

/*
 * Decides what became of those. Lock held; `mailbox` as for gproc_segment_resolve(); its status is
 * fresh again afterwards. 0 or a negative errno: then it may be tried again.
 */
int gproc_inflight_settle(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox);

/* Moves all that the mailbox holds behind what is here. Lock held; status fresh. 0; an error moves
 * nothing. */
int gproc_inflight_take(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox);

/* The first message that is in nobody's hands: 1 and `*taken`, 0 where there is none, or a negative
 * errno. */
int gproc_inflight_next(struct gproc_inflight *inflight, struct gproc_taken **taken);

/* Reads exactly `size_bytes` bytes of the payload from `offset` on. 0 or a negative errno. */
int gproc_inflight_read(const struct gproc_taken *taken, void *buffer, size_t size_bytes,
                        size_t offset);

/* It is gone. 0, and `taken` is no more; on an error it is still in hand, and may be delivered
 * again or given back. */
int gproc_inflight_deliver(struct gproc_inflight *inflight, struct gproc_taken *taken);

/*
 * Whether something is in flight from a mailbox of another owner than `uid`: the mailbox was
 * deleted and somebody else made a new one, to whom those messages were not sent.
 */
bool gproc_inflight_is_foreign(const struct gproc_inflight *inflight, uid_t uid);

/* It is the first of the waiting again, in its old order. */
void gproc_inflight_give_back(struct gproc_inflight *inflight, struct gproc_taken *taken);

/* Whether nothing at all is in flight, not even in somebody's hands. */
bool gproc_inflight_is_empty(const struct gproc_inflight *inflight);

/* Bytes of payload, and of disk, that are in flight, those in somebody's hands included. 0 or a
 * negative errno. */
int gproc_inflight_measure(struct gproc_inflight *inflight, uint64_t *payload_bytes,
                           uint64_t *disk_bytes);

/* Throws everything away that is in nobody's hands. 0 or a negative errno. */
int gproc_inflight_clear(struct gproc_inflight *inflight);

/*
 * Puts everything back into the mailbox, in front of what is there, also what is in somebody's
 * hands: those messages are no longer theirs. Lock held; status fresh. 0; on an error all is still
 * in flight, and maybe unsettled. -ENOBUFS: GPROC_SEGMENT_HOLES_COUNT mounts died and left
 * something here.
 */
int gproc_inflight_return(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox);

#endif
