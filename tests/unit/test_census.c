/*
 * A census says of an intact mailbox what a scan says, in whatever pieces its bytes come, and of any
 * other that it is not whole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "census.h"
#include "mailboxes.h"
#include "scan.h"
#include "temporary.h"

/* Counts by a scan. Whether it is intact. */
static bool scan_all(const uint8_t *bytes, size_t size_bytes, uint64_t *messages_count,
                     int64_t *payload_bytes)
{
    const struct gproc_source source = {.data = bytes, .fd = -1, .size_bytes = (off_t)size_bytes};
    struct gproc_message message;
    struct gproc_scan scan;
    bool intact;

    *messages_count = 0;
    *payload_bytes = 0;
    gproc_scan_init(&scan, &source, 0);
    while (gproc_scan_next(&scan, &message) == 1) {
        ++*messages_count;
        *payload_bytes += (int64_t)message.payload_bytes;
    }
    intact = scan.damaged_bytes == 0;
    gproc_scan_release(&scan);
    return intact;
}

/* Each piece has memory of its own, so that an overread shows. */
static void add_piece(struct gproc_census *census, const uint8_t *bytes, size_t size_bytes)
{
    uint8_t *piece = malloc(size_bytes);

    assert_non_null(piece);
    memcpy(piece, bytes, size_bytes);
    gproc_census_add(census, piece, size_bytes);
    free(piece);
}

/* In pieces of this size. Whether it is intact. */
static bool compare(const uint8_t *bytes, size_t size_bytes, size_t piece_bytes)
{
    struct gproc_census census;
    uint64_t messages_count;
    int64_t payload_bytes;
    bool intact = scan_all(bytes, size_bytes, &messages_count, &payload_bytes);

    gproc_census_init(&census, (off_t)size_bytes);
    for (size_t at = 0; at < size_bytes; at += piece_bytes)
        add_piece(&census, bytes + at,
                  size_bytes - at < piece_bytes ? size_bytes - at : piece_bytes);
    assert_int_equal(gproc_census_is_whole(&census), intact);
    if (intact) {
        assert_int_equal(census.messages_count, messages_count);
        assert_int_equal(census.payload_bytes, payload_bytes);
    }
    return intact;
}

static void test_census_of_any_mailbox_agrees_with_a_scan_of_it(void **state)
{
    static const size_t pieces_bytes[] = {1, 2, 3, 11, 12, 13, 64, 1000, 100000};
    struct random random = {20180513};
    size_t intact_count = 0;

    (void)state;
    for (int kind = 0; kind < MAILBOX_KINDS; kind++) {
        for (size_t i = 0; i < 200; i++) {
            size_t piece = pieces_bytes[i % (sizeof(pieces_bytes) / sizeof(*pieces_bytes))];
            struct mailbox mailbox;

            mailbox_init(&mailbox, (enum mailbox_kind)kind, 1 + i * 20, &random);
            intact_count += compare(mailbox.data, mailbox.size_bytes, piece);
            mailbox_release(&mailbox);
        }
    }
    assert_in_range(intact_count, 200, (MAILBOX_KINDS - 1) * 200);
}

/* Four messages, one of them empty. How many bytes. */
static size_t write_messages(uint8_t bytes[128])
{
    static const size_t lengths[] = {5, 0, 30, 1};
    size_t used = 0;

    for (size_t i = 0; i < 4; i++)
        used +=
            temporary_frame(bytes + used, 4711, "abcdefghijklmnopqrstuvwxyz0123456789", lengths[i]);
    return used;
}

static void test_every_wrong_byte_and_every_end_is_judged_as_by_a_scan(void **state)
{
    uint8_t bytes[128];
    size_t size_bytes = write_messages(bytes);

    (void)state;
    for (size_t piece = 1; piece <= size_bytes; piece++) {
        size_t intact_count = 0;

        for (size_t end = 0; end <= size_bytes; end++)
            intact_count += compare(bytes, end, piece);
        assert_int_equal(intact_count, 5);
        for (size_t i = 0; i < size_bytes; i++) {
            bytes[i] ^= 0x81;
            (void)compare(bytes, size_bytes, piece);
            bytes[i] ^= 0x81;
        }
    }
}

static void test_mailbox_that_has_not_passed_to_its_end_is_not_whole(void **state)
{
    struct gproc_census census;
    uint8_t bytes[128];
    size_t size_bytes = write_messages(bytes);

    (void)state;
    gproc_census_init(&census, (off_t)size_bytes + 1);
    gproc_census_add(&census, bytes, size_bytes);
    assert_false(gproc_census_is_whole(&census));
    gproc_census_init(&census, 0);
    assert_true(gproc_census_is_whole(&census));
    assert_int_equal(census.messages_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_census_of_any_mailbox_agrees_with_a_scan_of_it),
        cmocka_unit_test(test_every_wrong_byte_and_every_end_is_judged_as_by_a_scan),
        cmocka_unit_test(test_mailbox_that_has_not_passed_to_its_end_is_not_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
