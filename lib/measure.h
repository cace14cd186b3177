/*
 * measure - how much waits in a mailbox, without reading it again each time somebody looks.
 *
 * A measure remembers what it has counted, and for which file. The same file, unchanged, costs one
 * stat. Appended to, it is read from where the last count ended: at its end, or at the first
 * damaged byte that more bytes could make good. Emptied, replaced, or not recognisable as what was
 * counted (first and last frame are looked at), it is counted anew.
 *
 * No lock is taken: looking must not wait for a stuck sender. In the midst of an append the last
 * message may be missing. A measure is used by one thread at a time. Holds nothing that must be
 * released.
 */
#ifndef GPROC_MEASURE_H
#define GPROC_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "frame.h"
#include "place.h"

/* A frame that was seen, to know the file again by. */
struct gproc_landmark {
    off_t offset;
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
};

struct gproc_measure {
    uint64_t payload_bytes;  /* waiting */
    uint64_t messages_count; /* waiting, the empty ones too */
    /* Private from here on. */
    struct stat status; /* of the file that was counted */
    off_t resume;       /* all before it is decided for ever */
    uint64_t resume_payload_bytes;
    uint64_t resume_messages_count;
    struct gproc_landmark first;
    struct gproc_landmark last;
};

void gproc_measure_init(struct gproc_measure *measure);

/*
 * Brings the measure up to date, and says what stat says of the file. 0, or -ENOENT where there is
 * no mailbox (the measure is that of an empty one then), -EACCES where it may not be read, what
 * open and pread say.
 */
int gproc_measure_update(struct gproc_measure *measure, struct gproc_place *directory, pid_t pid,
                         struct stat *status);

#endif
