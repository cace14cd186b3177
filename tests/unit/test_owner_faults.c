/*
 * Whatever call fails, an owner receives each message once and in order: by this call, or by the
 * next one after the error was handed up. What it opens, throws away or puts back it does wholly or
 * not at all.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"
#include "stage.h"

enum {
    LONG_MS = 20000,
    LARGE_BYTES = 600 * 1024,
};

static struct gproc_owner *owner_of(struct stage *stage)
{
    struct gproc_owner *owner = NULL;

    assert_int_equal(gproc_owner_open(stage->gproc, STAGE_PID, 0, GPROC_FOREVER, &owner), 0);
    return owner;
}

/* Receives what there is. */
static void expect_received(struct gproc_owner *owner, const char *texts)
{
    char received[256] = "";
    struct gproc_mail mail;
    size_t length = 0;
    int result;

    while ((result = gproc_owner_receive(owner, &mail, GPROC_NOW)) == 0) {
        assert_true(length + mail.payload_bytes + 1 < sizeof(received));
        memcpy(received + length, mail.payload, mail.payload_bytes);
        length += mail.payload_bytes;
        received[length++] = ' ';
    }
    assert_int_equal(result, -EAGAIN);
    assert_string_equal(received, texts);
}

static void receive_one(struct gproc_owner *owner, const char *text)
{
    struct gproc_mail mail;

    assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), 0);
    assert_int_equal(mail.payload_bytes, strlen(text));
    assert_memory_equal(mail.payload, text, strlen(text));
}

/* Says that the mailbox is from an earlier process of that number. */
static void make_old(const struct stage *stage)
{
    const struct timespec times[2] = {{1000, 0}, {1000, 0}};

    assert_int_equal(utimensat(AT_FDCWD, stage->box, times, 0), 0);
}

/* ---- One call fails */

static void test_owner_is_open_or_nothing_was_thrown_away(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_owner *owner = NULL;
        int result;

        stage_set(&stage);
        stage_put(&stage, "old");
        make_old(&stage);
        fault_walk_start(&walk);
        result = gproc_owner_open(stage.gproc, STAGE_PID, 0, GPROC_FOREVER, &owner);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(owner != NULL, result == 0);
        stage_expect(&stage, result < 0 ? "old" : NULL, NULL);
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

static bool is_readable(int fd)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};

    return poll(&watched, 1, LONG_MS) == 1;
}

static void test_descriptor_to_poll_is_there_or_may_be_asked_for_again(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_owner *owner;
        int result, fd;

        stage_set(&stage);
        owner = owner_of(&stage);
        fault_walk_start(&walk);
        result = gproc_owner_fd(owner);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        fd = gproc_owner_fd(owner);
        assert_true(fd >= 0);
        if (result >= 0)
            assert_int_equal(fd, result);
        stage_put(&stage, "a");
        assert_true(is_readable(fd));
        expect_received(owner, "a ");
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* Numbers of descriptors that are closed may be another's by then. */
static void test_owner_without_its_descriptor_closes_nothing_of_others(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_owner *owner;
        int others[2];
        int result;

        stage_set(&stage);
        owner = owner_of(&stage);
        fault_walk_start(&walk);
        result = gproc_owner_fd(owner);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(pipe2(others, O_CLOEXEC), 0);
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(close(others[i]), 0);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

static void test_each_message_is_received_once_whatever_fails(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_owner *owner;
        struct gproc_mail mail;
        int result, fd;

        stage_set(&stage);
        owner = owner_of(&stage);
        fd = gproc_owner_fd(owner);
        assert_true(fd >= 0);
        expect_received(owner, ""); /* else the first look is still due, and tells to look */
        stage_put(&stage, "a");
        stage_put(&stage, "b");
        fault_walk_start(&walk);
        result = gproc_owner_receive(owner, &mail, GPROC_NOW);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, -EAGAIN);
        if (result == 0)
            assert_memory_equal(mail.payload, "a", 1);
        else if (walk.then != FAULT_THEN_ALL) /* a timer does not fail, and would have to */
            assert_true(is_readable(fd));     /* after a while */
        expect_received(owner, result == 0 ? "b " : "a b ");
        stage_put(&stage, "c");
        expect_received(owner, "c ");
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

static void test_signal_ends_a_wait_and_loses_nothing(void **state)
{
    struct gproc_owner *owner;
    struct gproc_mail mail;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    owner = owner_of(&stage);
    for (int i = 0; i < 2; i++) {
        fault_calls("poll", 1, 1, -EINTR);
        assert_int_equal(gproc_owner_receive(owner, &mail, i == 0 ? GPROC_FOREVER : LONG_MS),
                         -EINTR);
        fault_stop();
    }
    stage_put(&stage, "a");
    expect_received(owner, "a ");
    assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
    stage_clear(&stage);
}

/* Into a mailbox to which something has come, or to which nothing has. */
static void walk_put_back(struct stage *stage, bool closes, const char *newer)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_owner *owner;
        int result;

        stage_set(stage);
        owner = owner_of(stage);
        stage_put(stage, "a");
        stage_put(stage, "b");
        stage_put(stage, "c");
        receive_one(owner, "a");
        if (newer != NULL)
            stage_put(stage, newer);
        fault_walk_start(&walk);
        result = closes ? gproc_owner_close(owner, GPROC_FOREVER)
                        : gproc_owner_put_back(owner, GPROC_FOREVER);
        fault_walk_stop(&walk);
        /* Told so where writing fails in the midst; or where what it wrote cannot be cut off. */
        fault_walk_judge(&walk, result,
                         newer != NULL || walk.then == FAULT_THEN_ALL ? -EUCLEAN : 0);
        if (result == 0)
            stage_expect(stage, "b", "c", newer, NULL);
        else if (result != -EUCLEAN)
            stage_expect(stage, newer, NULL);
        if (!closes && result < 0 && result != -EUCLEAN) {
            assert_int_equal(gproc_owner_put_back(owner, GPROC_NOW), 0);
            stage_expect(stage, "b", "c", newer, NULL);
        }
        if (!closes)
            assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        stage_clear(stage);
    } while (fault_walk_next(&walk));
}

static void test_what_is_put_back_is_in_front_or_still_to_be_received(void **state)
{
    struct stage stage;

    stage_init(&stage, *state);
    walk_put_back(&stage, false, "newer");
    walk_put_back(&stage, false, NULL);
    walk_put_back(&stage, true, "newer");
}

/* Long enough to be written in parts. */
static const char long_text[] = "This is not all of a message that is being put back, in front of "
                                "one like it, if only half of what there is to write is written.";

static void test_putting_back_goes_on_after_a_signal_and_after_a_part(void **state)
{
    static const struct {
        const char *name;
        int verdict;
    } rows[] = {
        {"write", -EINTR},
        {"write", FAULT_SHORT},
        {"pwrite", -EINTR},
        {"pwrite", FAULT_SHORT},
    };
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gproc_owner *owner;

        stage_set(&stage);
        owner = owner_of(&stage);
        stage_put(&stage, "a");
        stage_put(&stage, long_text);
        receive_one(owner, "a");
        stage_put(&stage, long_text);
        fault_calls(rows[i].name, 1, 4, rows[i].verdict);
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        fault_stop();
        stage_expect(&stage, long_text, long_text, NULL);
        stage_clear(&stage);
    }
}

/* More than is moved at a time has come: in parts, the last one first. */
static void test_large_mailbox_is_moved_behind_what_is_put_back_or_that_is_told(void **state)
{
    uint8_t *bytes = temporary_memory(*state, TEMPORARY_HEADER_BYTES + 1 + LARGE_BYTES);
    struct stage stage;

    stage_init(&stage, *state);
    temporary_frame(bytes, STAGE_SENDER, "b", 1);
    temporary_noise(bytes + TEMPORARY_HEADER_BYTES + 1, LARGE_BYTES, 1);
    for (int fails = 0; fails < 2; fails++) {
        struct gproc_owner *owner;

        stage_set(&stage);
        owner = owner_of(&stage);
        stage_put(&stage, "a");
        stage_put(&stage, "b");
        receive_one(owner, "a");
        temporary_append(stage.box, bytes + TEMPORARY_HEADER_BYTES + 1, LARGE_BYTES);
        if (fails)
            fault_calls("pwrite", 1, 1, -EIO);
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), fails ? -EUCLEAN : 0);
        fault_stop();
        if (!fails)
            temporary_expect(stage.box, bytes, TEMPORARY_HEADER_BYTES + 1 + LARGE_BYTES);
        stage_clear(&stage);
    }
}

/* ---- What others do meanwhile */

static int delete_it(void *context, const char *name)
{
    const struct stage *stage = context;

    if (strcmp(name, "flock") == 0)
        (void)unlink(stage->box);
    return FAULT_NONE;
}

static void test_mailbox_that_goes_is_an_empty_one(void **state)
{
    struct gproc_owner *owner;
    struct gproc_mail mail;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    owner = owner_of(&stage);
    assert_int_equal(unlink(stage.box), 0);
    expect_received(owner, "");
    stage_put(&stage, "gone");
    fault_start(delete_it, &stage);
    assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), -EAGAIN);
    fault_stop();
    stage_put(&stage, "a");
    expect_received(owner, "a ");
    assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
    stage_clear(&stage);
}

/* Replaces the directory whenever it is looked at, until somebody waits; then there is a message. */
static int replace_until_it_waits(void *context, const char *name)
{
    struct stage *stage = context;

    if (strcmp(name, "poll") == 0) {
        stage_put(stage, "a");
        fault_stop();
    } else if (strcmp(name, "lstat") == 0) {
        const char *other = temporary_path(stage->temporary, "parent/other");

        temporary_mkdir(other);
        assert_int_equal(rename(other, stage->mailboxes), 0);
    }
    return FAULT_NONE;
}

static void test_wait_goes_on_where_the_directory_is_replaced_without_end(void **state)
{
    static const int timeouts_ms[] = {GPROC_FOREVER, LONG_MS};
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t i = 0; i < sizeof(timeouts_ms) / sizeof(timeouts_ms[0]); i++) {
        struct gproc_owner *owner;
        struct gproc_mail mail;

        stage_set(&stage);
        owner = owner_of(&stage);
        assert_int_equal(unlink(stage.box), 0);
        assert_int_equal(rmdir(stage.mailboxes), 0);
        fault_start(replace_until_it_waits, &stage);
        assert_int_equal(gproc_owner_receive(owner, &mail, timeouts_ms[i]), 0);
        fault_stop();
        assert_int_equal(mail.payload_bytes, 1);
        assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
        stage_clear(&stage);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_owner_is_open_or_nothing_was_thrown_away),
        TEMPORARY_TEST(test_descriptor_to_poll_is_there_or_may_be_asked_for_again),
        TEMPORARY_TEST(test_owner_without_its_descriptor_closes_nothing_of_others),
        TEMPORARY_TEST(test_each_message_is_received_once_whatever_fails),
        TEMPORARY_TEST(test_signal_ends_a_wait_and_loses_nothing),
        TEMPORARY_TEST(test_what_is_put_back_is_in_front_or_still_to_be_received),
        TEMPORARY_TEST(test_putting_back_goes_on_after_a_signal_and_after_a_part),
        TEMPORARY_TEST(test_large_mailbox_is_moved_behind_what_is_put_back_or_that_is_told),
        TEMPORARY_TEST(test_mailbox_that_goes_is_an_empty_one),
        TEMPORARY_TEST(test_wait_goes_on_where_the_directory_is_replaced_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
