/*
 * trail - goes through all that waits for a process, the oldest first, taking nothing; and goes on
 * later from where it stopped.
 *
 * What waits is one queue in two places: the segments that this mount has in flight, and the
 * mailbox behind them. A trail remembers how far it came, so that each message is shown once,
 * however the queue moves meanwhile: messages delivered to somebody are passed over if they were
 * not shown yet; when this mount moves the mailbox into flight, the trail is told and goes on in
 * the segment (gproc_trail_moved()); when it empties the mailbox, it is told too
 * (gproc_trail_emptied()). That others have emptied the mailbox shows in the file itself, also when
 * it has been moved by then: it is another one, or shorter, or what was seen in it no longer stands
 * there, or it was modified and has the same size. See imprint.h for what that cannot tell: then
 * what has come is not shown, or, of a mailbox that was touched, is shown again.
 *
 * Without the mailbox's lock, its end may be the half of an append, in which the resync rule would
 * find messages that nobody sent. So a trail that is not `certain` stops at the first byte that
 * more bytes could make good, and says so; damage at the very end is among those. Nor is it sure
 * that a mailbox of the same size was filled again: an append may just have begun.
 *
 * Memory: the scan's (see scan.h). A trail is used by one thread at a time, together with its
 * inflight. Holds nothing that must be released.
 */
#ifndef GPROC_TRAIL_H
#define GPROC_TRAIL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "imprint.h"
#include "mailbox.h"
#include "scan.h"
#include "walk.h"

struct gproc_trail {
    struct gproc_inflight_mark mark; /* what is in flight, as far as it has been shown */
    struct gproc_imprint imprint;    /* of the mailbox, as far as it has been shown */
    off_t damage_told;               /* damage of the mailbox before this has been shown */
    bool is_complete;                /* the last time, all of the mailbox was shown */
    uint64_t moved_serial;           /* of the segment that the mailbox became since; 0: none */
    struct gproc_imprint moved;      /* the imprint as it was then, and damage_told */
    off_t moved_damage_told;
};

/* Who is shown what there is. */
struct gproc_trail_visitor {
    /*
     * A message, in `source`. 0: it was shown. -ESTALE: what was read is not what was found, since
     * somebody empties the mailbox at this moment: the trail stops before it, and that is no error.
     * Any other negative errno ends the call, with that message not shown.
     */
    int (*message)(void *context, const struct gproc_source *source,
                   const struct gproc_message *message);
    /* Damaged bytes that were passed over, at `offset` of a segment or of the mailbox. As above;
     * may be NULL. */
    int (*damage)(void *context, bool in_flight, off_t offset, off_t size_bytes);
    void *context;
};

enum gproc_trail_end {
    GPROC_TRAIL_ALL = 0,   /* all that waits has been shown, or it is being emptied */
    GPROC_TRAIL_DOUBT = 1, /* not what is in doubt: take the lock, and go on with `certain` */
};

void gproc_trail_init(struct gproc_trail *trail);

/*
 * Shows what has not been shown yet. `inflight` NULL: there is nothing in flight; `mailbox` NULL:
 * there is no mailbox; else open for reading, status fresh. `certain`: the lock is held. A segment
 * that is unsettled (see gproc_inflight_is_unsettled()), and what comes behind it, is not shown:
 * that is GPROC_TRAIL_DOUBT, too, whatever `certain` says.
 * An enum gproc_trail_end; or a negative errno: the visitor's, -ENOMEM, what pread says. -ENODATA
 * and -ESTALE where the mailbox was emptied meanwhile are not errors: it ends there, with
 * GPROC_TRAIL_ALL, and the next call looks again. A mailbox that is as it was then, all shown,
 * costs a comparison of two stats.
 */
int gproc_trail_go(struct gproc_trail *trail, struct gproc_inflight *inflight,
                   struct gproc_mailbox *mailbox, bool certain,
                   const struct gproc_trail_visitor *visitor);

/* All that the mailbox held is in segment `serial` now. */
void gproc_trail_moved(struct gproc_trail *trail, uint64_t serial);

/* The mailbox has been emptied. */
void gproc_trail_emptied(struct gproc_trail *trail);

#endif
