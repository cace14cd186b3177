/*
 * measure - how much waits in a mailbox, without reading it again each time somebody looks.
 *
 * A measure remembers what it has counted, and for which file. The same file, unchanged, costs one
 * stat. Appended to, it is read from where the last count ended: at its end, or at the first
 * damaged byte that more bytes could make good. Emptied, replaced, or not recognisable as what was
 * counted (see imprint.h), it is counted anew.
 *
 * A large mailbox is counted in slices, so that others have their turn in between.
 *
 * No lock is taken: looking must not wait for a stuck sender. In the midst of an append the last
 * message may be missing. A measure is used by one thread at a time. Holds nothing that must be
 * released.
 */
#ifndef GPROC_MEASURE_H
#define GPROC_MEASURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "imprint.h"
#include "mailbox.h"
#include "place.h"

struct gproc_measure {
    uint64_t payload_bytes;  /* waiting */
    uint64_t messages_count; /* waiting, the empty ones too */

    /* Private from here on. */
    struct gproc_imprint imprint;  /* of the file that was counted */
    uint64_t resume_payload_bytes; /* before the imprint's `resume` */
    bool is_partial;               /* the file is as the imprint says, but not counted to its end */
};

void gproc_measure_init(struct gproc_measure *measure);

/*
 * Brings the measure up to date, and says what stat says of the file. `kept` is the mailbox if it is
 * open already, which saves opening it, or is not open, or another one by now. 0; -EAGAIN: it is not
 * all counted, call again; -ECANCELED, because `stop` (may be NULL) became true; or -ENOENT where there is
 * no mailbox (the measure is that of an empty one then), -EACCES where it may not be read, what
 * open and pread say.
 */
int gproc_measure_update(struct gproc_measure *measure, struct gproc_place *directory,
                         const struct gproc_mailbox *kept, const atomic_bool *stop,
                         struct stat *status);

#endif
