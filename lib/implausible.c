#include "implausible.h"

#include <string.h>

#include "field.h"
#include "frame.h"

size_t gproc_implausible_count(const uint8_t *bytes, size_t count, int32_t most)
{
    size_t run = 0;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    typedef int32_t lengths __attribute__((vector_size(16)));

    /* Four vectors, each a byte on, hold the lengths at sixteen offsets. */
    for (; count - run >= sizeof(lengths); run += sizeof(lengths)) {
        lengths plausible = {0};
        uint64_t halves[2];

        for (size_t i = 0; i < sizeof(int32_t); i++) {
            lengths length;

            memcpy(&length, bytes + run + i, sizeof(length));
            plausible |= (length >= GPROC_FRAME_HEADER_BYTES) & (length <= most);
        }
        memcpy(halves, &plausible, sizeof(halves));
        if ((halves[0] | halves[1]) != 0) {
            break;
        }
    }
#endif
    for (; run < count; run++) {
        const int32_t length = (int32_t)gproc_field_get(bytes + run, GPROC_FIELD_LENGTH);

        if (length >= GPROC_FRAME_HEADER_BYTES && length <= most) {
            break;
        }
    }
    return run;
}
