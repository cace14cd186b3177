#include "frame.h"

#include <errno.h>

/* Where the fields are; see the table in frame.h. */
enum {
    LENGTH_OFFSET = 0,
    SENDER_OFFSET = 4,
    CHECKSUM_OFFSET = 8,
};

static void le32_put(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
    bytes[2] = (uint8_t)(value >> 16);
    bytes[3] = (uint8_t)(value >> 24);
}

static uint32_t le32_get(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

int gproc_frame_encode(uint8_t header[GPROC_FRAME_HEADER_BYTES], int32_t sender,
                       size_t payload_bytes, uint32_t checksum)
{
    if (payload_bytes > GPROC_FRAME_PAYLOAD_MAX_BYTES) {
        return -EMSGSIZE;
    }
    le32_put(header + LENGTH_OFFSET, (uint32_t)payload_bytes + GPROC_FRAME_HEADER_BYTES);
    le32_put(header + SENDER_OFFSET, (uint32_t)sender);
    le32_put(header + CHECKSUM_OFFSET, checksum);
    return 0;
}

struct gproc_frame gproc_frame_decode(const uint8_t header[GPROC_FRAME_HEADER_BYTES])
{
    /* To a signed type by the two's complement that gcc and clang both document. */
    return (struct gproc_frame){
        .length_bytes = (int32_t)le32_get(header + LENGTH_OFFSET),
        .sender = (int32_t)le32_get(header + SENDER_OFFSET),
        .checksum = le32_get(header + CHECKSUM_OFFSET),
    };
}
