/*
 * inflight - one mailbox's messages between being taken and being delivered.
 *
 * A receiver empties the mailbox as a whole, as the Go package does, and hands messages out one by
 * one. What waits in between is a queue of segments (see segment.h), the oldest first, and the
 * messages of it that are in somebody's hands. A message is gone when it is delivered; given back,
 * it is the next one again.
 *
 * Here they are handed out. How they come here and go back is in move.h, looking in walk.h.
 *
 * Order: messages leave in the order in which they came. gproc_inflight_take() is only useful when
 * the queue is empty, or on the way back, else it would only move data early.
 *
 * Cost: the next message costs the scan of it, and delivering a write, however many are in
 * somebody's hands; only while something that was given back waits is it looked for, among those in
 * hand of its segment.
 *
 * Memory: the scan's (see scan.h) and about a hundred bytes for each message in somebody's hands,
 * or for all that are packed together. While such a pack that was given back is handed out again,
 * another scan.
 * An inflight is used by one thread at a time.
 */
#ifndef GPROC_INFLIGHT_H
#define GPROC_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "scan.h"
#include "store.h"

struct gproc_inflight_segment;

/*
 * A message taken; or several that follow each other, with nothing in between (see
 * gproc_inflight_extend()). The inflight owns it; whoever took it has it until he delivers it or
 * gives it back.
 */
struct gproc_taken {
    struct gproc_message message; /* the first */
    size_t messages_count;
    uint64_t payload_bytes;                 /* of all of them */
    off_t end;                              /* of the last of them; private */
    struct gproc_inflight_segment *segment; /* not owned */
    struct gproc_taken *next, *previous;    /* of the segment's; private */
    bool out;                               /* in somebody's hands; private */
};

enum {
    GPROC_PACK_HEAD_MOST_BYTES = 40,
};

/*
 * Where messages are packed, one behind the other, each with something said before it, that depends
 * on nothing but its sender and its length: it is asked for where these change.
 */
struct gproc_pack {
    uint8_t *bytes; /* not owned */
    size_t room_bytes;
    size_t used_bytes;
    /* Writes what is said before the message's payload, at most GPROC_PACK_HEAD_MOST_BYTES. How
     * much that was. */
    size_t (*head)(char *to, const struct gproc_message *message);
    /* Private: what was said last, and of whom. */
    char said[GPROC_PACK_HEAD_MOST_BYTES];
    size_t said_bytes; /* 0: nothing yet */
    size_t said_payload_bytes;
    int32_t said_sender;
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

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid);

/* Closes everything. Files of what is left stay in the store; taken messages are no longer
 * anybody's. */
void gproc_inflight_release(struct gproc_inflight *inflight);

/* The first message that is in nobody's hands: 1 and `*taken`, 0 where there is none, or a negative
 * errno. */
int gproc_inflight_next(struct gproc_inflight *inflight, struct gproc_taken **taken);

/*
 * Takes the messages that follow `taken`, too, and packs them, for as long as they are in nobody's
 * hands, nothing lies in between, and each fits as a whole. They are one with `taken` from now on:
 * delivered together, or given back. 0, or a negative errno: those packed before it are taken.
 */
int gproc_inflight_extend(struct gproc_inflight *inflight, struct gproc_taken *taken,
                          struct gproc_pack *pack);

/* Reads exactly `size_bytes` bytes of the (first) payload from `offset` on. 0 or a negative errno. */
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

/* The serial of the newest segment, or 0. */
uint64_t gproc_inflight_newest(const struct gproc_inflight *inflight);

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

#endif
