/*
 * Whatever call fails, a measure is right or the error is handed up, and then the next one is right;
 * and bytes that cannot be read, or are another file's, are not what an imprint was made of.
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
#include "mailbox.h"
#include "measure.h"
#include "stage.h"

/* Fails the test unless that much waits. */
static void expect_measure(const struct gproc_measure *measure, uint64_t messages_count,
                           uint64_t payload_bytes)
{
    assert_int_equal(measure->messages_count, messages_count);
    assert_int_equal(measure->payload_bytes, payload_bytes);
}

/* With the mailbox not open yet, and nobody who stops it. */
static int update(struct gproc_measure *measure, struct stage *stage, struct stat *status)
{
    struct gproc_mailbox none;

    gproc_mailbox_init(&none, STAGE_PID);
    return gproc_measure_update(measure, &stage->gproc->mailboxes, &none, NULL, status);
}

static void test_measure_is_right_or_the_error_is_handed_up(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_measure measure;
        struct stat status;
        int result;

        stage_set(&stage);
        stage_put(&stage, "first");
        gproc_measure_init(&measure);
        assert_int_equal(update(&measure, &stage, &status), 0);
        stage_put(&stage, "second");
        fault_walk_start(&walk);
        result = update(&measure, &stage, &status);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result == 0)
            expect_measure(&measure, 2, 11);
        assert_int_equal(update(&measure, &stage, &status), 0);
        expect_measure(&measure, 2, 11);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

static void test_mailbox_that_is_missing_is_an_empty_one(void **state)
{
    struct gproc_measure measure;
    struct stat status;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    gproc_measure_init(&measure);
    assert_int_equal(update(&measure, &stage, &status), 0);
    expect_measure(&measure, 1, 5);
    temporary_remove(stage.box);
    assert_int_equal(update(&measure, &stage, &status), -ENOENT);
    expect_measure(&measure, 0, 0);
    stage_clear(&stage);
}

/* A mailbox that is as it was costs one stat. */
static void test_mailbox_that_is_unchanged_is_not_opened(void **state)
{
    struct gproc_measure measure;
    struct stat status;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    gproc_measure_init(&measure);
    assert_int_equal(update(&measure, &stage, &status), 0);
    fault_calls("openat", 1, 1, -EACCES);
    assert_int_equal(update(&measure, &stage, &status), 0);
    fault_stop();
    expect_measure(&measure, 1, 5);
    stage_clear(&stage);
}

/* Nor is one that is open already, by whoever keeps it. */
static void test_mailbox_that_is_kept_is_not_opened_again(void **state)
{
    struct gproc_measure measure;
    struct gproc_mailbox kept;
    struct stat status;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    assert_int_equal(gproc_mailbox_open(&kept, &stage.gproc->mailboxes, STAGE_PID, O_RDONLY), 0);
    gproc_measure_init(&measure);
    fault_calls("openat", 1, 100, -EMFILE);
    assert_int_equal(gproc_measure_update(&measure, &stage.gproc->mailboxes, &kept, NULL, &status),
                     0);
    expect_measure(&measure, 1, 5);
    temporary_remove(stage.box);
    stage_put(&stage, "first");
    /* Another one, of as many bytes. */
    assert_int_equal(gproc_measure_update(&measure, &stage.gproc->mailboxes, &kept, NULL, &status),
                     -EMFILE);
    fault_stop();
    expect_measure(&measure, 0, 0);
    gproc_mailbox_close(&kept);
    stage_clear(&stage);
}

static int empty_it(void *context, const char *name)
{
    const struct stage *stage = context;

    if (strcmp(name, "pread") == 0)
        assert_int_equal(truncate(stage->box, 0), 0);
    return FAULT_NONE;
}

static void test_mailbox_that_is_emptied_while_it_is_read_is_no_error(void **state)
{
    struct gproc_measure measure;
    struct stat status;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    gproc_measure_init(&measure);
    fault_start(empty_it, &stage);
    assert_int_equal(update(&measure, &stage, &status), 0);
    fault_stop();
    expect_measure(&measure, 0, 0);
    stage_put(&stage, "other");
    stage_put(&stage, "third");
    assert_int_equal(update(&measure, &stage, &status), 0);
    expect_measure(&measure, 2, 10);
    stage_clear(&stage);
}

/* ---- The imprint */

static void test_file_is_another_one_by_its_device_and_by_bytes_that_cannot_be_read(void **state)
{
    struct gproc_imprint imprint;
    struct gproc_mailbox mailbox;
    struct gproc_message message;
    struct gproc_source source;
    struct gproc_scan scan;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    assert_int_equal(gproc_mailbox_open(&mailbox, &stage.gproc->mailboxes, STAGE_PID, O_RDONLY), 0);
    source = gproc_mailbox_source(&mailbox);
    gproc_imprint_init(&imprint);
    imprint.status = mailbox.status;
    gproc_scan_init(&scan, &source, 0);
    assert_int_equal(gproc_scan_next(&scan, &message), 1);
    gproc_imprint_note(&imprint, &message);
    gproc_scan_release(&scan);

    mailbox.status.st_dev++;
    assert_int_equal(gproc_imprint_compare(&imprint, &mailbox.status, &source),
                     GPROC_IMPRINT_OTHER);
    mailbox.status.st_dev--;
    stage_put(&stage, "second");
    assert_int_equal(gproc_mailbox_refresh(&mailbox), 0);
    source = gproc_mailbox_source(&mailbox);
    assert_int_equal(gproc_imprint_compare(&imprint, &mailbox.status, &source),
                     GPROC_IMPRINT_GROWN);
    /* The first message, then the last one. */
    for (unsigned which = 1; which <= 2; which++) {
        fault_calls("pread", which, which, -EIO);
        assert_int_equal(gproc_imprint_compare(&imprint, &mailbox.status, &source),
                         GPROC_IMPRINT_OTHER);
        fault_stop();
    }
    gproc_mailbox_close(&mailbox);
    stage_clear(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_measure_is_right_or_the_error_is_handed_up),
        TEMPORARY_TEST(test_mailbox_that_is_missing_is_an_empty_one),
        TEMPORARY_TEST(test_mailbox_that_is_unchanged_is_not_opened),
        TEMPORARY_TEST(test_mailbox_that_is_kept_is_not_opened_again),
        TEMPORARY_TEST(test_mailbox_that_is_emptied_while_it_is_read_is_no_error),
        TEMPORARY_TEST(test_file_is_another_one_by_its_device_and_by_bytes_that_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
