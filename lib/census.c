#include "census.h"

#include <assert.h>
#include <string.h>

#include "checksum.h"

void gproc_census_init(struct gproc_census *census, off_t size_bytes)
{
    *census = (struct gproc_census){.left_bytes = size_bytes};
}

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

/* Passes whole frames, as many as there are. How many bytes. */
static size_t pass_frames(struct gproc_census *census, const uint8_t *bytes, size_t size_bytes)
{
    size_t passed = 0;

    while (size_bytes - passed >= GPROC_FRAME_HEADER_BYTES) {
        const struct gproc_frame frame = gproc_frame_decode(bytes + passed);
        size_t payload_bytes;

        /* Anything else, also a length that cannot be, is for the slow way. */
        if (frame.length_bytes < GPROC_FRAME_HEADER_BYTES ||
            (size_t)frame.length_bytes > size_bytes - passed)
            break;
        payload_bytes = (size_t)frame.length_bytes - GPROC_FRAME_HEADER_BYTES;
        if (gproc_checksum(bytes + passed + GPROC_FRAME_HEADER_BYTES, payload_bytes) !=
            frame.checksum) {
            census->damaged = true;
            break;
        }
        census->messages_count++;
        census->payload_bytes += (int64_t)payload_bytes;
        passed += (size_t)frame.length_bytes;
    }
    return passed;
}

/* A whole header is there: a payload of what length is to pass, and with what sum? */
static void begin_payload(struct gproc_census *census)
{
    const struct gproc_frame frame = gproc_frame_decode(census->header);
    const off_t payload_bytes = (off_t)frame.length_bytes - GPROC_FRAME_HEADER_BYTES;

    census->damaged = payload_bytes < 0; /* one that is too long does not come to its end */
    if (census->damaged)
        return;
    census->payload_left = (size_t)payload_bytes;
    census->payload_bytes += payload_bytes;
    census->sum = 0;
    census->expected = frame.checksum;
}

static void end_payload(struct gproc_census *census)
{
    census->damaged = census->sum != census->expected;
    census->messages_count++;
    census->header_bytes = 0;
}

/* Passes a part of a header or of a payload. How many bytes. */
static size_t pass_piece(struct gproc_census *census, const uint8_t *bytes, size_t size_bytes)
{
    size_t passed;

    if (census->header_bytes < GPROC_FRAME_HEADER_BYTES) {
        passed = least(GPROC_FRAME_HEADER_BYTES - census->header_bytes, size_bytes);
        memcpy(census->header + census->header_bytes, bytes, passed);
        census->header_bytes += passed;
        census->left_bytes -= (off_t)passed;
        if (census->header_bytes < GPROC_FRAME_HEADER_BYTES)
            return passed;
        begin_payload(census);
    } else {
        passed = least(census->payload_left, size_bytes);
        census->sum += gproc_checksum(bytes, passed);
        census->payload_left -= passed;
        census->left_bytes -= (off_t)passed;
    }
    if (!census->damaged && census->payload_left == 0)
        end_payload(census);
    return passed;
}

void gproc_census_add(struct gproc_census *census, const uint8_t *bytes, size_t size_bytes)
{
    assert(census->damaged || (off_t)size_bytes <= census->left_bytes);
    while (size_bytes > 0 && !census->damaged) {
        size_t passed = 0;

        if (census->header_bytes == 0) {
            passed = pass_frames(census, bytes, size_bytes);
            census->left_bytes -= (off_t)passed;
            bytes += passed;
            size_bytes -= passed;
        }
        if (size_bytes == 0 || census->damaged)
            break;
        passed = pass_piece(census, bytes, size_bytes);
        bytes += passed;
        size_bytes -= passed;
    }
}

bool gproc_census_is_whole(const struct gproc_census *census)
{
    return !census->damaged && census->left_bytes == 0 && census->header_bytes == 0;
}
