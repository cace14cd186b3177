/*
 * model - the resync rule written down as plainly as it can be, to hold the scanner against.
 *
 * Shares no code with lib/: it decodes and sums by itself. Quadratic, so for small mailboxes. For
 * tests only: running out of memory ends the program.
 */
#ifndef GPROC_TESTS_MODEL_H
#define GPROC_TESTS_MODEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "scan.h"

/* All that a scan of a mailbox tells. */
struct model {
    struct gproc_message *messages; /* owned */
    size_t message_count;
    off_t unresolved; /* see lib/scan.h */
    off_t damaged_bytes;
};

/* What must be found in the mailbox at `data` from `position` on. */
void model_init(struct model *model, const uint8_t *data, size_t size_bytes, size_t position);
void model_release(struct model *model);

/*
 * Goes on with `scan` to the end and compares all that it finds with `model`. NULL if they agree,
 * else what differs first, in a buffer that the next call reuses. Does not release the scan.
 */
const char *model_differs(const struct model *model, struct gproc_scan *scan);

#endif
