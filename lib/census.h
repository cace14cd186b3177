/*
 * census - counts the messages of a mailbox while its bytes pass by, for as long as it is intact.
 *
 * For who reads a mailbox from its beginning anyhow, in pieces of any size. The first damage ends
 * it: what comes then only a scan can tell (see scan.h). Of an intact mailbox it says what a scan
 * would.
 *
 * Cost: one sum of every byte. Memory: none. No allocation, no I/O; one thread at a time.
 */
#ifndef GPROC_CENSUS_H
#define GPROC_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "frame.h"

struct gproc_census {
    uint64_t messages_count; /* that have passed whole */
    int64_t payload_bytes;   /* of these */
    /* Private. */
    bool damaged;
    off_t left_bytes;       /* of the mailbox */
    size_t payload_left;    /* of the message that is passing */
    uint32_t sum, expected; /* of what has passed of it; its checksum */
    size_t header_bytes;    /* of a header that came in pieces: so many are there */
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
};

/* Begins with a mailbox of `size_bytes` bytes. */
void gproc_census_init(struct gproc_census *census, off_t size_bytes);

/* The next of its bytes. No more of them than are left. */
void gproc_census_add(struct gproc_census *census, const uint8_t *bytes, size_t size_bytes);

/* Whether all of it has passed and was intact, so that the counts are the mailbox's. */
bool gproc_census_is_whole(const struct gproc_census *census);

#endif
