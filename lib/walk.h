/*
 * walk - looks at what is in flight, and takes nothing.
 *
 * A walk goes on from a mark, so that it may stop at any message and what came meanwhile costs no
 * more than itself.
 *
 * Cost: a scan of what it shows (see scan.h), and its memory.
 */
#ifndef GPROC_WALK_H
#define GPROC_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "imprint.h"
#include "inflight.h"
#include "scan.h"

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

/*
 * Shows the messages that have not been delivered, in order, from the mark on: also those in
 * somebody's hands, and those given back. Takes nothing. Damaged bytes among them are shown too,
 * but not those that were passed over with a delivery. The mark moves with each of them.
 * 0: all has been shown. 1: all before a segment that is unsettled. Or what the visitor returned;
 * -ENOMEM; what pread says.
 */
int gproc_inflight_walk(const struct gproc_inflight *inflight, struct gproc_inflight_mark *mark,
                        const struct gproc_inflight_visitor *visitor);

/* Whether the segment was moved from the mailbox that left this imprint, with nothing but bytes
 * added in between: all before `resume` in it is what was seen before. */
bool gproc_inflight_continues(const struct gproc_inflight *inflight, uint64_t serial,
                              const struct gproc_imprint *imprint);

#endif
