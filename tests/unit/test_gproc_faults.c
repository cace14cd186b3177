/*
 * Whatever call fails in sending, showing and listing, it is done or the error is handed up; nothing
 * is lost, nothing is left half done, and nothing stays open.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "stage.h"

enum {
    LARGE_BYTES = 300 * 1024, /* more than is read at a time */
};

static void test_open_has_both_directories_or_holds_nothing(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    temporary_mkdir(stage.parent);
    fault_walk_init(&walk);
    do {
        const struct gproc_options options = {stage.mailboxes, stage.locks};
        struct gproc *gproc = NULL;
        int result;

        fault_walk_start(&walk);
        result = gproc_open(&options, &gproc);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(gproc != NULL, result == 0);
        gproc_close(gproc);
        for (int i = 0; i < 2; i++) {
            const char *path = i == 0 ? stage.mailboxes : stage.locks;

            if (temporary_exists(path))
                temporary_remove(path);
            else
                assert_true(result < 0);
        }
    } while (fault_walk_next(&walk));
}

static void test_default_path_that_is_too_long_is_refused(void **state)
{
    char *path = temporary_memory(*state, PATH_MAX + 1);
    struct gproc *gproc = NULL;

    memset(path, 'a', PATH_MAX);
    assert_int_equal(setenv("gproc.tempdir", path, 1), 0);
    assert_int_equal(gproc_open(NULL, &gproc), -ENAMETOOLONG);
    assert_null(gproc);
}

static void test_message_is_sent_whole_or_not_at_all(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        int result;

        stage_set(&stage);
        stage_put(&stage, "was there");
        fault_walk_start(&walk);
        result = gproc_send_as(stage.gproc, STAGE_PID, STAGE_SENDER, "sent", 4, GPROC_FOREVER);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, walk.then == FAULT_THEN_ALL ? -EUCLEAN : 0);
        if (result != -EUCLEAN)
            stage_expect(&stage, "was there", result == 0 ? "sent" : NULL, NULL);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* ---- Showing */

static int collect(void *context, const struct gproc_mail *mail)
{
    char *shown = context;
    size_t length = strlen(shown);

    assert_int_equal(mail->sender, STAGE_SENDER);
    memcpy(shown + length, mail->payload, mail->payload_bytes);
    memcpy(shown + length + mail->payload_bytes, " ", 2);
    return 0;
}

/* With damage between the messages, so that they are copied in two runs. */
static void test_messages_are_shown_all_or_the_error_is_handed_up(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        char shown[64] = "";
        int result;

        stage_set(&stage);
        stage_put(&stage, "a");
        temporary_append(stage.box, "?", 1);
        stage_put(&stage, "b");
        stage_put(&stage, "c");
        fault_walk_start(&walk);
        result = gproc_peek(stage.gproc, STAGE_PID, GPROC_FOREVER, collect, shown);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        /* Copied under the lock, before the first is shown. */
        assert_string_equal(shown, result == 0 ? "a b c " : "");
        shown[0] = '\0';
        assert_int_equal(gproc_peek(stage.gproc, STAGE_PID, GPROC_NOW, collect, shown), 0);
        assert_string_equal(shown, "a b c ");
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* ---- Listing */

struct listed {
    unsigned count;
    struct gproc_mailbox_info info; /* of the last */
};

static int list(void *context, const struct gproc_mailbox_info *info)
{
    struct listed *listed = context;

    listed->count++;
    listed->info = *info;
    return 0;
}

static void test_mailboxes_are_listed_or_an_error_is_told(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    for (int replaced = 0; replaced < 2; replaced++) {
        fault_walk_init(&walk);
        do {
            struct listed listed = {0};
            int result;

            stage_set(&stage);
            if (replaced) {
                temporary_remove(stage.mailboxes);
                temporary_mkdir(stage.mailboxes);
            }
            stage_put(&stage, "abc");
            stage_put(&stage, "de");
            fault_walk_start(&walk);
            result = gproc_list(stage.gproc, list, &listed);
            fault_walk_stop(&walk);
            fault_walk_judge(&walk, result, 0);
            if (result == 0 && listed.count == 1) {
                fault_walk_judge(&walk, listed.info.error, 0);
                assert_int_equal(listed.info.message_count, listed.info.error == 0 ? 2 : 0);
                assert_int_equal(listed.info.payload_bytes, listed.info.error == 0 ? 5 : 0);
            } else {
                assert_true(result < 0);
            }
            stage_clear(&stage);
        } while (fault_walk_next(&walk));
    }
}

static int stop(void *context, const struct gproc_mailbox_info *info)
{
    (void)context;
    return (int)info->message_count;
}

static void test_who_is_shown_a_mailbox_may_end_it(void **state)
{
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "abc");
    stage_put(&stage, "de");
    assert_int_equal(gproc_list(stage.gproc, stop, NULL), 2);
    stage_clear(&stage);
}

/* ---- What others do meanwhile */

struct others {
    const struct stage *stage;
    unsigned until;  /* before so many reads */
    bool then_fails; /* looking at it again */
    unsigned calls_count;
};

/* A byte before each read of it. */
static int shrink_it(void *context, const char *name)
{
    struct others *others = context;
    struct stat status;

    if (strcmp(name, "pread") == 0 && others->calls_count++ < others->until) {
        assert_int_equal(lstat(others->stage->box, &status), 0);
        assert_int_equal(truncate(others->stage->box, status.st_size - 1), 0);
    }
    return others->then_fails && others->calls_count > 0 && strcmp(name, "fstat") == 0 ? -EIO
                                                                                       : FAULT_NONE;
}

static void test_mailbox_that_shrinks_faster_than_it_is_read_has_no_count(void **state)
{
    struct stage stage;

    stage_init(&stage, *state);
    for (int then_fails = 0; then_fails < 2; then_fails++) {
        struct others others = {
            .stage = &stage,
            .until = (unsigned)-1,
            .then_fails = then_fails,
        };
        struct listed listed = {0};

        stage_set(&stage);
        stage_put(&stage, "a message that is longer than what is cut off it, a byte at a time");
        fault_start(shrink_it, &others);
        assert_int_equal(gproc_list(stage.gproc, list, &listed), 0);
        fault_stop();
        assert_int_equal(listed.count, 1);
        assert_int_equal(listed.info.error, -ENODATA);
        assert_int_equal(listed.info.message_count, 0);
        assert_int_equal(listed.info.payload_bytes, 0);
        stage_clear(&stage);
    }
}

static void test_mailbox_that_has_shrunk_is_counted_as_it_is_then(void **state)
{
    struct listed listed = {0};
    struct stage stage;
    struct others others = {.stage = &stage, .until = 1};

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "abc");
    temporary_append(stage.box, "?", 1);
    fault_start(shrink_it, &others);
    assert_int_equal(gproc_list(stage.gproc, list, &listed), 0);
    fault_stop();
    assert_int_equal(listed.count, 1);
    assert_int_equal(listed.info.error, 0);
    assert_int_equal(listed.info.message_count, 1);
    assert_int_equal(listed.info.file_bytes, TEMPORARY_HEADER_BYTES + 3);
    stage_clear(&stage);
}

/* What was counted before it does not count. */
static void test_mailbox_that_cannot_be_read_to_its_end_has_no_count(void **state)
{
    uint8_t *frame = temporary_memory(*state, TEMPORARY_HEADER_BYTES + LARGE_BYTES);
    const uint8_t *payload = temporary_memory(*state, LARGE_BYTES);
    struct listed listed = {0};
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "abc");
    temporary_append(stage.box, frame, temporary_frame(frame, 1, payload, LARGE_BYTES));
    stage_put(&stage, "de");
    fault_calls("pread", 2, 9, -EIO);
    assert_int_equal(gproc_list(stage.gproc, list, &listed), 0);
    fault_stop();
    assert_int_equal(listed.count, 1);
    assert_int_equal(listed.info.error, -EIO);
    assert_int_equal(listed.info.message_count, 0);
    assert_int_equal(listed.info.payload_bytes, 0);
    stage_clear(&stage);
}

/* Between its being looked at and its being opened. */
static int delete_late(void *context, const char *name)
{
    struct others *others = context;

    if (others->calls_count > 0 && strcmp(name, "openat") == 0)
        (void)unlink(others->stage->box);
    if (strcmp(name, "fstatat") == 0)
        others->calls_count++;
    return FAULT_NONE;
}

static void test_mailbox_that_goes_while_it_is_listed_is_passed_over(void **state)
{
    struct listed listed = {0};
    struct stage stage;
    struct others others = {.stage = &stage};

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "abc");
    fault_start(delete_late, &others);
    assert_int_equal(gproc_list(stage.gproc, list, &listed), 0);
    fault_stop();
    assert_int_equal(listed.count, 0);
    assert_false(temporary_exists(stage.box));
    stage_clear(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_open_has_both_directories_or_holds_nothing),
        TEMPORARY_TEST(test_default_path_that_is_too_long_is_refused),
        TEMPORARY_TEST(test_message_is_sent_whole_or_not_at_all),
        TEMPORARY_TEST(test_messages_are_shown_all_or_the_error_is_handed_up),
        TEMPORARY_TEST(test_mailboxes_are_listed_or_an_error_is_told),
        TEMPORARY_TEST(test_who_is_shown_a_mailbox_may_end_it),
        TEMPORARY_TEST(test_mailbox_that_shrinks_faster_than_it_is_read_has_no_count),
        TEMPORARY_TEST(test_mailbox_that_has_shrunk_is_counted_as_it_is_then),
        TEMPORARY_TEST(test_mailbox_that_cannot_be_read_to_its_end_has_no_count),
        TEMPORARY_TEST(test_mailbox_that_goes_while_it_is_listed_is_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
