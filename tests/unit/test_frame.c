/* A frame's header is twelve bytes, little-endian, and means the same after a round trip. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

/* Headers as they stand on disk, and what they mean. */
static const struct {
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
    struct gproc_frame frame;
} rows[] = {
    {{12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {12, 0, 0}},
    {{15, 0, 0, 0, 2, 0, 0, 0, 212, 2, 0, 0}, {15, 2, 0x2d4}},
    {{16, 50, 84, 118, 1, 2, 3, 4, 5, 6, 7, 8}, {0x76543210, 0x04030201, 0x08070605}},
    {{255, 255, 255, 127, 1, 0, 0, 0, 255, 255, 255, 255}, {INT32_MAX, 1, UINT32_MAX}},
    {{12, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 128}, {12, -1, 0x80000000}},
    {{12, 0, 0, 0, 0, 0, 0, 128, 1, 0, 0, 0}, {12, INT32_MIN, 1}},
    /* No message of ours, but what a damaged mailbox may hold. */
    {{0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0}, {INT32_MIN, 0, 0}},
    {{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}, {-1, 0, 0}},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0}},
};

enum {
    ROW_COUNT = sizeof(rows) / sizeof(*rows),
};

static void test_decode_reads_little_endian(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const struct gproc_frame frame = gproc_frame_decode(rows[i].header);

        assert_int_equal(frame.length_bytes, rows[i].frame.length_bytes);
        assert_int_equal(frame.sender, rows[i].frame.sender);
        assert_int_equal(frame.checksum, rows[i].frame.checksum);
    }
}

static void test_encode_writes_little_endian(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const struct gproc_frame *frame = &rows[i].frame;
        uint8_t header[GPROC_FRAME_HEADER_BYTES];

        if (frame->length_bytes < GPROC_FRAME_HEADER_BYTES) {
            continue;
        }
        assert_int_equal(gproc_frame_encode(header, frame->sender,
                                            (size_t)frame->length_bytes - GPROC_FRAME_HEADER_BYTES,
                                            frame->checksum),
                         0);
        assert_memory_equal(header, rows[i].header, sizeof(header));
    }
}

/* Each bit of each field goes to one place and comes back from there. */
static void test_every_bit_makes_the_round_trip(void **state)
{
    (void)state;
    for (int bit = 0; bit < 32; bit++) {
        const uint32_t value = UINT32_C(1) << bit;
        const size_t payload_bytes =
            bit < 31 ? value - (bit > 3 ? GPROC_FRAME_HEADER_BYTES : 0) : 0;
        uint8_t header[GPROC_FRAME_HEADER_BYTES];

        assert_int_equal(gproc_frame_encode(header, (int32_t)value, payload_bytes, ~value), 0);

        const struct gproc_frame frame = gproc_frame_decode(header);
        assert_int_equal(frame.length_bytes, payload_bytes + GPROC_FRAME_HEADER_BYTES);
        assert_int_equal(frame.sender, (int32_t)value);
        assert_int_equal(frame.checksum, ~value);
    }
}

static void test_largest_payload_is_taken(void **state)
{
    uint8_t header[GPROC_FRAME_HEADER_BYTES];

    (void)state;
    assert_int_equal(GPROC_FRAME_PAYLOAD_MAX_BYTES, 2147483635);
    assert_int_equal(gproc_frame_encode(header, 1, GPROC_FRAME_PAYLOAD_MAX_BYTES, 0), 0);
    assert_int_equal(gproc_frame_decode(header).length_bytes, INT32_MAX);
}

static void test_larger_payload_is_refused_and_nothing_written(void **state)
{
    static const size_t sizes[] = {
        GPROC_FRAME_PAYLOAD_MAX_BYTES + 1,
        GPROC_FRAME_PAYLOAD_MAX_BYTES + 12,
        GPROC_FRAME_PAYLOAD_MAX_BYTES + 13,
        UINT32_MAX,
        SIZE_MAX - 12,
        SIZE_MAX,
    };
    uint8_t untouched[GPROC_FRAME_HEADER_BYTES];

    (void)state;
    memset(untouched, 0x5a, sizeof(untouched));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint8_t header[GPROC_FRAME_HEADER_BYTES];

        memset(header, 0x5a, sizeof(header));
        assert_int_equal(gproc_frame_encode(header, 1, sizes[i], 2), -EMSGSIZE);
        assert_memory_equal(header, untouched, sizeof(header));
    }
}

/* A header may stand at any address, and nothing beside it is touched. */
static void test_no_alignment_is_needed(void **state)
{
    (void)state;
    for (size_t at = 0; at < 8; at++) {
        uint8_t *bytes = malloc(at + GPROC_FRAME_HEADER_BYTES);

        assert_non_null(bytes);
        assert_int_equal(gproc_frame_encode(bytes + at, -2, 30, 0x01020304), 0);
        assert_int_equal(gproc_frame_decode(bytes + at).length_bytes, 42);
        assert_int_equal(gproc_frame_decode(bytes + at).sender, -2);
        assert_int_equal(gproc_frame_decode(bytes + at).checksum, 0x01020304);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_reads_little_endian),
        cmocka_unit_test(test_encode_writes_little_endian),
        cmocka_unit_test(test_every_bit_makes_the_round_trip),
        cmocka_unit_test(test_largest_payload_is_taken),
        cmocka_unit_test(test_larger_payload_is_refused_and_nothing_written),
        cmocka_unit_test(test_no_alignment_is_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
