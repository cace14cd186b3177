/*
 * field - one field of a frame's header, where a call of gproc_frame_decode() for each header would
 * be most of the cost. The layout is that of frame.h.
 */
#ifndef GPROC_FIELD_H
#define GPROC_FIELD_H

#include <stdint.h>
#include <string.h>

enum gproc_field {
    GPROC_FIELD_LENGTH = 0,
    GPROC_FIELD_SENDER = 4,
    GPROC_FIELD_CHECKSUM = 8,
};

/* The 32 bits of `field`, of the header at `header`: no more of it is read. */
static inline uint32_t gproc_field_get(const uint8_t *header, enum gproc_field field)
{
    uint32_t value;

    memcpy(&value, header + field, sizeof(value));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

#endif
