/*
 * queue - the segments of one mailbox that are in flight, the oldest first.
 *
 * Private to the modules that work on a struct gproc_inflight (see inflight.h): that one hands out
 * and delivers, move.h brings in and takes back, walk.h looks. All of them go over this list, and
 * nobody else sees it. What has been delivered of a segment, by its cursor or its holes, is passed
 * over here once for all.
 *
 * Cost: a list, for there is nearly always one segment, rarely more than the mounts that died.
 */
#ifndef GPROC_QUEUE_H
#define GPROC_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "inflight.h"
#include "scan.h"
#include "segment.h"

struct gproc_inflight_segment {
    struct gproc_inflight_segment *next;
    uint64_t serial;
    struct gproc_segment file;
    struct gproc_scan scan; /* over what has not been taken out yet */
    bool scan_ended;
    struct gproc_taken *taken; /* owned, in order: in hand, or given back */
    struct gproc_taken *last_taken;
    size_t given_back_count; /* of those */
    struct gproc_scan again; /* over several given back as one, while they are handed out again */
    int64_t payload_bytes;   /* not delivered; -1: could not be counted yet */
    uint64_t messages_count; /* not delivered; 0 where they could not be counted */
};

/* A segment that is in no queue and has no file yet; the caller's. NULL: no memory. */
struct gproc_inflight_segment *gproc_queue_new(uint64_t serial);

/* Closes and frees one that is in no queue, with what is taken of it. Its file stays. */
void gproc_queue_free(struct gproc_inflight_segment *segment);

/* Puts it where its serial belongs, from where on it is the queue's, ready to be scanned. */
void gproc_queue_insert_uncounted(struct gproc_inflight *inflight,
                                  struct gproc_inflight_segment *segment);

/* The same, and counts it. Where that fails, gproc_inflight_measure() tries again. */
void gproc_queue_insert(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment);

/* Takes the segment off the queue and its file out of the store. 0, and it is no more; or what
 * unlink says: then nothing has changed. */
int gproc_queue_drop(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment);

/* Counts what has not been delivered of a segment that has not been counted. 0 or a negative errno.
 */
int gproc_queue_count(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment);

/* Whether its file is open and its header has been read. */
bool gproc_queue_is_loaded(const struct gproc_inflight_segment *segment);

/* Whether another segment holds its messages too and counts in its place. */
bool gproc_queue_is_superseded(const struct gproc_inflight *inflight,
                               const struct gproc_inflight_segment *segment);

#endif
