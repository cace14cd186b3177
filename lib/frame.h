/*
 * frame - the twelve bytes before a payload, to and from memory.
 *
 *   offset  bytes  field     meaning
 *   0       4      length    payload + 12, signed, little-endian
 *   4       4      pid       the sender, signed, little-endian
 *   8       4      checksum  sum of the payload's bytes modulo 2^32, little-endian
 *   12      ...    payload
 *
 * No allocation, no I/O, no errno but those named. Pure functions; any thread.
 */
#ifndef GPROC_FRAME_H
#define GPROC_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum {
    GPROC_FRAME_HEADER_BYTES = 12,
};

/* The largest payload that a frame's signed length can tell. */
#define GPROC_FRAME_PAYLOAD_MAX_BYTES ((size_t)INT32_MAX - GPROC_FRAME_HEADER_BYTES)

/* A header as it stands on disk, not yet believed. */
struct gproc_frame {
    int32_t length_bytes; /* of the whole frame; anything at all in a damaged mailbox */
    int32_t sender;
    uint32_t checksum;
};

/*
 * Writes the header of a frame for `payload_bytes` bytes whose sum is `checksum`.
 * -EMSGSIZE: more than GPROC_FRAME_PAYLOAD_MAX_BYTES; nothing is written then.
 */
int gproc_frame_encode(uint8_t header[GPROC_FRAME_HEADER_BYTES], int32_t sender,
                       size_t payload_bytes, uint32_t checksum);

/* Reads a header; cannot fail: what it means is for the caller to judge. */
struct gproc_frame gproc_frame_decode(const uint8_t header[GPROC_FRAME_HEADER_BYTES]);

#endif
