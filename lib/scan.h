/*
 * scan - finds the messages in a mailbox, whole or damaged.
 *
 * The rule (resync): at offset s a frame is good if 12 <= length <= bytes left at s and the
 * checksum matches; then it is a message and s += length; else s += 1.
 *
 * Cost: linear in the mailbox's size whatever it holds. An intact mailbox is read once, in order.
 * Where a plausible length turns out to be damaged, prefix sums are taken from there on, no further
 * than candidates reach: one sum in GPROC_SUMS_STEP_BYTES bytes. With them nearly every later
 * candidate is refused by a look at two sums; one that is not costs at most GPROC_SUMS_STEP_BYTES
 * bytes more (in a file, at most one pread of a page). Holes of a file are passed over unread.
 *
 * Memory: none for an intact mailbox in memory; for one in a file two windows, at most 320 KiB
 * together; where there is damage the prefix sums, at most 4 / GPROC_SUMS_STEP_BYTES of the
 * mailbox's size.
 *
 * Reads nothing outside [0, size_bytes) of its source. Does no locking: what the source shows must
 * not be changed by others, or the result is that of no moment (but memory stays safe). A scan is
 * used by one thread at a time; distinct scans are independent.
 */
#ifndef GPROC_SCAN_H
#define GPROC_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "source.h"
#include "sums.h"
#include "window.h"

/* A message that has been found. Offsets count from the mailbox's first byte. */
struct gproc_message {
    off_t frame_offset;   /* of its header */
    off_t payload_offset; /* frame_offset + 12 */
    size_t payload_bytes; /* 0 is legal */
    int32_t sender;
    uint32_t checksum;
};

/*
 * Private but for what is said beside a field: read `position`, `unresolved` and `damaged_bytes`.
 *
 * `unresolved` is the first damaged offset where fewer than 12 bytes were left, or where the length
 * (12 or more) ran past the end: after bytes have been appended, a scan that begins at
 * `unresolved`, or at `position` where that is -1, finds what a scan of the whole would find from
 * there on.
 */
struct gproc_scan {
    struct gproc_source source;
    off_t position;      /* the next offset to look at; all before it is decided */
    off_t unresolved;    /* first damaged offset that bytes appended later could make good, or -1 */
    off_t damaged_bytes; /* passed over so far */
    struct gproc_window window; /* around `position`; only ever moves forward */
    struct gproc_window far;    /* wherever else something was looked at last */
    struct gproc_sums sums;     /* none until needed; void once position has passed them */
    uint32_t here;              /* P(position), unless they are void */
    off_t usual_bytes;          /* the length of the frame before */
    const uint8_t *quick;       /* where the quick way looks: bytes from */
    off_t quick_offset;         /* this offset on; */
    off_t quick_end;            /* up to here it may be taken, or -1 */
};

/*
 * Begins at `position` of the source (0, or where an earlier scan of the same bytes stood).
 * Allocates nothing: windows come with the first gproc_scan_next().
 */
void gproc_scan_init(struct gproc_scan *scan, const struct gproc_source *source, off_t position);

/*
 * The next message, in order: 1 and `*message`, or 0 when there is none left (then position ==
 * size_bytes). Payload bytes are not handed out: read them from the source at payload_offset.
 * Errors: -ENOMEM; what pread says; -ENODATA where the file is shorter than the source said. After
 * an error the scan may only be released, or called again: it goes on from the same position.
 */
int gproc_scan_next(struct gproc_scan *scan, struct gproc_message *message);

/* Copies bytes of a file from `offset` on that the scan happens to have in memory. False: it has not
 * all of them. */
bool gproc_scan_copy(const struct gproc_scan *scan, void *buffer, size_t size_bytes, off_t offset);

/* Frees what the scan holds; the source is the caller's. Twice is harmless. */
void gproc_scan_release(struct gproc_scan *scan);

#endif
