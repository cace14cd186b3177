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
 * Cost: taking reads what it takes once more, to count it. The next message costs the scan of it,
 * and delivering a write, however many are in somebody's hands; only while something that was given
 * back waits is it looked for, among those in hand of its segment.
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

#include "imprint.h"
#include "mailbox.h"
#include "scan.h"
#include "store.h"

struct gproc_inflight_segment;

/* A message taken. The inflight owns it; whoever took it has it until he delivers it or gives it
 * back. */
struct gproc_taken {
    struct gproc_message message;
    struct gproc_inflight_segment *segment; /* not owned */
    struct gproc_taken *next, *previous;    /* of the segment's; private */
    bool out;                               /* in somebody's hands; private */
};

struct gproc_inflight {
    struct gproc_store *store; /* not owned */
    pid_t pid;
    struct gproc_inflight_segment *first; /* owned, the oldest; NULL: nothing is in flight */
    uint64_t damaged_bytes;               /* passed over so far, ever */
    uint64_t delivered_count;             /* messages, so far, ever */
    /*
     * Not delivered, those in somebody's hands included: exact from the moment they are taken or
     * loaded. Less by a segment that could not be read then; gproc_inflight_measure() tries again.
     * While there is something unsettled, that may be counted twice, or be the mailbox's.
     */
    uint64_t messages_count;
};

/* How far a walk through what is in flight has come. All zero: it has not begun. */
struct gproc_inflight_mark {
    uint64_t serial;         /* all up to this segment has been shown */
    uint64_t partial_serial; /* of one that has been shown in part; 0: none */
    off_t partial_offset;    /* all messages before this in it have been shown */
    off_t damage_told;       /* damage before this in it has been shown */
};

/* Who is shown what is in flight. What is not 0 ends the walk, before what was to be shown. */
struct gproc_inflight_visitor {
    int (*message)(void *context, const struct gproc_source *source,
                   const struct gproc_message *message);
    /* Damaged bytes at `offset` of a segment's data; may be NULL. */
    int (*damage)(void *context, off_t offset, off_t size_bytes);
    void *context;
};

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid);

/* Closes everything. Files of what is left stay in the store; taken messages are no longer
 * anybody's. */
void gproc_inflight_release(struct gproc_inflight *inflight);

/*
 * Loads a segment that a dead mount left. 0; a segment that never became one is deleted and
 * forgotten. What open and pread say, -ENOMEM: then it counts as unsettled, and settling tries
 * again, so that nothing overtakes it, and nothing is taken whose copy it may be. -ENOMEM also: it
 * stays in the store, and the mailbox must not be used.
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
 * nothing: -ECANCELED, where the store `is_ending`, or what copying and writing say. */
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
 * The same of `count` messages, in the order in which they were taken: those that follow each other
 * are noted by one write. 0, and none of them is any more. On an error the first of them are
 * delivered, as many as `delivered_count` has grown by, and the others are still in hand.
 */
int gproc_inflight_deliver_all(struct gproc_inflight *inflight, struct gproc_taken *const *taken,
                               size_t count);

/*
 * Shows the messages that have not been delivered, in order, from the mark on: also those in
 * somebody's hands, and those given back. Takes nothing. Damaged bytes among them are shown too,
 * but not those that were passed over with a delivery. The mark moves with each of them.
 * 0: all has been shown. 1: all before a segment that is unsettled. Or what the visitor returned;
 * -ENOMEM; what pread says.
 */
int gproc_inflight_walk(const struct gproc_inflight *inflight, struct gproc_inflight_mark *mark,
                        const struct gproc_inflight_visitor *visitor);

/* The serial of the newest segment, or 0. */
uint64_t gproc_inflight_newest(const struct gproc_inflight *inflight);

/* Whether the segment was moved from the mailbox that left this imprint, with nothing but bytes
 * added in between: all before `resume` in it is what was seen before. */
bool gproc_inflight_continues(const struct gproc_inflight *inflight, uint64_t serial,
                              const struct gproc_imprint *imprint);

/*
 * Whether something is in flight from a mailbox of another owner than `uid`: the mailbox was
 * deleted and somebody else made a new one, to whom those messages were not sent.
 */
bool gproc_inflight_is_foreign(const struct gproc_inflight *inflight, uid_t uid);

/* The mailbox was given to `uid`, and what is in flight with it. 0, or what pwrite says. */
int gproc_inflight_own(struct gproc_inflight *inflight, uid_t uid);

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
