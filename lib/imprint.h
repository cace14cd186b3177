/*
 * imprint - what a mailbox file looked like, to know it again and go on where one stopped.
 *
 * A mailbox only ever grows at its end, or is emptied. So the same file (inode and device) that is
 * not shorter, and in which the first and the last message that were seen still stand, has grown:
 * all before `resume` is decided and need not be read again. An append always makes it longer: one
 * that was modified and has the same size was emptied and filled again.
 *
 * That is a judgement, not a proof. Emptied and filled again with more bytes that begin the same,
 * or within one tick of the file system's clock with as many, a file is taken for the old one.
 * Touched (touch(1)), or with an append that was cut off again for want of room, it is taken for
 * one that was filled again. One in which no message was seen is known by its size alone.
 *
 * Costs one look at two stats, and at most two reads of 12 bytes. Holds nothing that must be
 * released. An imprint is used by one thread at a time.
 */
#ifndef GPROC_IMPRINT_H
#define GPROC_IMPRINT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "frame.h"
#include "scan.h"

/* A frame that was seen. */
struct gproc_landmark {
    off_t offset;
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
};

struct gproc_imprint {
    struct stat status;      /* of the file when it was last looked at; for its user to set */
    off_t resume;            /* all before it is decided: the end of the last message noted, or 0 */
    uint64_t messages_count; /* noted */
    struct gproc_landmark first; /* of those; void where there are none */
    struct gproc_landmark last;
};

enum gproc_imprint_change {
    GPROC_IMPRINT_NONE,     /* the same file with the same size and times */
    GPROC_IMPRINT_GROWN,    /* the same with bytes added, or none: go on at `resume` */
    GPROC_IMPRINT_REFILLED, /* what was noted stands, but it was modified and has the same size */
    GPROC_IMPRINT_OTHER,    /* another file, or other messages: begin anew */
};

/* Of no file. */
void gproc_imprint_init(struct gproc_imprint *imprint);

/*
 * What has become of the file, whose `status` is fresh and whose bytes are `source`. Bytes that
 * cannot be read do not stand there. REFILLED is sure only with the mailbox's lock held: in the
 * midst of an append, too, the time may be the new one and the size still the old one.
 */
enum gproc_imprint_change gproc_imprint_compare(const struct gproc_imprint *imprint,
                                                const struct stat *status,
                                                const struct gproc_source *source);

/* Whether compare would say GPROC_IMPRINT_NONE: for this the file need not be open. */
bool gproc_imprint_is_unchanged(const struct gproc_imprint *imprint, const struct stat *status);

/* Notes the message behind those that are noted: `resume` is its end now. */
void gproc_imprint_note(struct gproc_imprint *imprint, const struct gproc_message *message);

#endif
