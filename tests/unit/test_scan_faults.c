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
#include "mailboxes.h"
#include "scan.h"
#include "temporary.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_every_message_is_found_once_whatever_fails),
        TEMPORARY_TEST(test_copy_says_of_what_it_has_not_that_it_has_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
