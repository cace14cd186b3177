/*
 * move - how messages come into flight and go back: from the mailbox, from what a dead mount left,
 * and into the mailbox again.
 *
 * None of it is one step on the disk, so each may be found half done, by the next mount. Then it is
 * unsettled, and to be settled before anything else is taken or handed out.
 *
 * Cost: each reads and writes once what is moved, and counts it on the way. What is damaged or has
 * holes is read once more for that, and so is what a dead mount left.
 *
 * An inflight is used by one thread at a time. Functions that say "lock held" want the mailbox's
 * lock.
 */
#ifndef GPROC_MOVE_H
#define GPROC_MOVE_H

#include <stdbool.h>
#include <stdint.h>

#include "inflight.h"
#include "mailbox.h"

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

/*
 * Puts everything back into the mailbox, in front of what is there, also what is in somebody's
 * hands: those messages are no longer theirs. Lock held; status fresh. 0; on an error all is still
 * in flight, and maybe unsettled. -ENOBUFS: GPROC_SEGMENT_HOLES_COUNT mounts died and left
 * something here.
 */
int gproc_inflight_return(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox);

#endif
