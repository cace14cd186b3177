/*
 * Whatever call fails while a mailbox is scanned, the error is handed up, and the scan goes on from
 * where it was: every message is found, once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "frame.h"
#include "mailboxes.h"
#include "scan.h"
#include "sums.h"
#include "temporary.h"
#include "window.h"

enum {
    MESSAGES_COUNT = 4,
    LARGE_BYTES = 300 * 1024, /* more than is read at a time */
};

/* Small and large ones; between them stretches that look like large ones, and are damaged. */
static void fill(const char *path)
{
    static uint8_t frame[TEMPORARY_HEADER_BYTES + LARGE_BYTES];

    temporary_write(path, "", 0);
    temporary_noise(frame, sizeof(frame), 1);
    for (uint32_t i = 0; i < MESSAGES_COUNT; i++) {
        const uint32_t payload_bytes = i % 2 == 0 ? 10 : LARGE_BYTES;

        mailbox_frame(frame, LARGE_BYTES, i, 1);
        temporary_append(path, frame, sizeof(frame));
        mailbox_frame(frame, payload_bytes, i, 0);
        temporary_append(path, frame, TEMPORARY_HEADER_BYTES + payload_bytes);
    }
}

static void test_every_message_is_found_once_whatever_fails(void **state)
{
    const char *path = temporary_path(*state, "mailbox");
    struct gproc_source source = {0};
    struct fault_walk walk;
    struct stat status;

    fill(path);
    source.fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(source.fd >= 0);
    assert_int_equal(fstat(source.fd, &status), 0);
    source.size_bytes = status.st_size;
    fault_walk_init(&walk);
    do {
        struct gproc_message message;
        struct gproc_scan scan;
        int32_t found = 0;
        int result, error = 0;

        gproc_scan_init(&scan, &source, 0);
        fault_walk_start(&walk);
        do {
            while ((result = gproc_scan_next(&scan, &message)) == 1)
                assert_int_equal(message.sender, found++);
            if (result < 0) {
                error = result;
                fault_walk_stop(&walk);
            }
        } while (result < 0);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, error, 0);
        assert_int_equal(found, MESSAGES_COUNT);
        assert_int_equal(scan.position, source.size_bytes);
        gproc_scan_release(&scan);
    } while (fault_walk_next(&walk));
    close(source.fd);
}

/* What was read last is in memory, and nothing before it or behind it. */
static void test_copy_says_of_what_it_has_not_that_it_has_not(void **state)
{
    const char *path = temporary_path(*state, "mailbox");
    struct gproc_source source = {0};
    struct gproc_message message;
    struct gproc_scan scan;
    struct stat status;
    uint8_t byte = 1;

    fill(path);
    source.fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(source.fd >= 0);
    assert_int_equal(fstat(source.fd, &status), 0);
    source.size_bytes = status.st_size;
    gproc_scan_init(&scan, &source, 0);
    assert_false(gproc_scan_copy(&scan, &byte, 1, 0));
    while (gproc_scan_next(&scan, &message) == 1)
        ;
    assert_false(gproc_scan_copy(&scan, &byte, 1, 0));
    assert_false(gproc_scan_copy(&scan, &byte, 1, source.size_bytes + LARGE_BYTES));
    gproc_scan_release(&scan);
    close(source.fd);
}

/* ---- No memory: for a window, or for the samples */

static void test_window_without_memory_is_empty_and_may_be_loaded_again(void **state)
{
    static const uint8_t bytes[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const struct gproc_source source = {.data = bytes, .fd = -1, .size_bytes = sizeof(bytes)};
    struct gproc_window window = {.capacity_bytes = 4};

    (void)state;
    fault_calls("malloc", 1, 1, -ENOMEM);
    assert_int_equal(gproc_window_load(&window, &source, 0, 10, 10), -ENOMEM);
    assert_null(window.bytes);
    assert_int_equal(gproc_window_holds(&window, 0), 0);
    assert_int_equal(gproc_window_load(&window, &source, 0, 10, 10), 0);
    fault_stop();
    assert_int_equal(gproc_window_holds(&window, 0), 4);
    gproc_window_release(&window);
}

static void test_sums_without_memory_are_as_they_were(void **state)
{
    struct gproc_sums sums = {0};

    (void)state;
    fault_calls("malloc", 1, 1, -ENOMEM);
    assert_int_equal(gproc_sums_begin(&sums, 5, 0, 100), -ENOMEM);
    assert_null(sums.samples);
    assert_int_equal(sums.begin, 0);
    assert_int_equal(gproc_sums_begin(&sums, 5, 0, 100), 0);
    fault_stop();
    assert_int_equal(sums.begin, 5);
    gproc_sums_release(&sums);
}

static void test_scan_without_memory_goes_on_when_there_is_some(void **state)
{
    /* Damaged, so that there are to be samples, and a good one. */
    static const uint8_t bytes[2 * GPROC_FRAME_HEADER_BYTES] = {
        GPROC_FRAME_HEADER_BYTES, [8] = 1, [GPROC_FRAME_HEADER_BYTES] = GPROC_FRAME_HEADER_BYTES};
    const char *path = temporary_path(*state, "mailbox");

    temporary_write(path, bytes, sizeof(bytes));
    for (int in_file = 0; in_file < 2; in_file++) {
        struct gproc_source source = {.data = bytes, .fd = -1, .size_bytes = sizeof(bytes)};
        struct gproc_message message;
        struct gproc_scan scan;

        if (in_file) {
            source.data = NULL;
            source.fd = open(path, O_RDONLY | O_CLOEXEC);
            assert_true(source.fd >= 0);
        }
        gproc_scan_init(&scan, &source, 0);
        fault_calls("malloc", 1, 2, -ENOMEM);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(gproc_scan_next(&scan, &message), -ENOMEM);
            assert_int_equal(scan.position, 0);
        }
        assert_int_equal(gproc_scan_next(&scan, &message), 1);
        fault_stop();
        assert_int_equal(message.frame_offset, GPROC_FRAME_HEADER_BYTES);
        gproc_scan_release(&scan);
        if (in_file)
            close(source.fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_every_message_is_found_once_whatever_fails),
        TEMPORARY_TEST(test_copy_says_of_what_it_has_not_that_it_has_not),
        cmocka_unit_test(test_window_without_memory_is_empty_and_may_be_loaded_again),
        cmocka_unit_test(test_sums_without_memory_are_as_they_were),
        TEMPORARY_TEST(test_scan_without_memory_goes_on_when_there_is_some),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
