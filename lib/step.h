/*
 * step - goes through a segment's messages, but not through what has been delivered of it.
 *
 * Reads the file, no more of it than it steps over. One thread at a time.
 */
#ifndef GPROC_STEP_H
#define GPROC_STEP_H

#include <sys/types.h>

#include "scan.h"
#include "segment.h"

/* Bytes that are no message's. */
struct gproc_step_damage {
    off_t offset;
    off_t size_bytes;
};

enum gproc_step_result {
    GPROC_STEP_END = 0,
    GPROC_STEP_MESSAGE = 1,
    GPROC_STEP_DELIVERED = 2, /* something that was delivered already has been passed over */
};

/* Begins a scan of the segment's data at `position`, in place of what `scan`, zero at first, was. */
void gproc_step_begin(struct gproc_scan *scan, const struct gproc_segment *file, off_t position);

/*
 * Goes on in a scan of a segment, but not through what has been delivered of it. An enum
 * gproc_step_result, and the message there is where it says so; or a negative errno. `*damage`: what
 * was passed before it, in any case.
 */
int gproc_step(struct gproc_scan *scan, const struct gproc_segment *file,
               struct gproc_message *message, struct gproc_step_damage *damage);

#endif
