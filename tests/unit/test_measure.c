/*
 * A large mailbox is counted in slices, and what came of it is right whatever becomes of the mailbox
 * in between; one that is open already is counted by that, if it is the same.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mailbox.h"
#include "mailboxes.h"
#include "measure.h"
#include "temporary.h"

enum {
    PID = 4711,
    LARGE_BYTES = 1024 * 1024,
    SLICE_COUNT = 64, /* of large messages: no more in a slice, which is 64 MiB and what it takes to
                         end a message */
};

struct fixture {
    const char *file;
    uint8_t *large; /* a frame */
    struct gproc_place directory;
    struct gproc_mailbox mailbox;
    struct gproc_measure measure;
    atomic_bool stop;
};

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->file =
        strcpy(temporary_memory(*state, PATH_MAX), temporary_path(*state, "gproc/4711"));
    fixture->large = temporary_memory(*state, TEMPORARY_HEADER_BYTES + LARGE_BYTES);
    mailbox_frame(fixture->large, LARGE_BYTES, 1, 0);
    assert_int_equal(gproc_place_init(&fixture->directory, temporary_path(*state, "gproc"), 0777),
                     0);
    gproc_mailbox_init(&fixture->mailbox, PID);
    gproc_measure_init(&fixture->measure);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    gproc_mailbox_close(&fixture->mailbox);
    gproc_place_release(&fixture->directory);
}

static void put_large(struct fixture *fixture, unsigned count)
{
    const size_t size = TEMPORARY_HEADER_BYTES + LARGE_BYTES;
    const int fd = open(fixture->file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    while (count-- > 0)
        assert_int_equal(write(fd, fixture->large, size), size);
    assert_int_equal(close(fd), 0);
}

/* What it returns; in the measure then are so many large messages, and so many bytes in others. */
static int update(struct fixture *fixture, struct stat *status)
{
    return gproc_measure_update(&fixture->measure, &fixture->directory, &fixture->mailbox,
                                &fixture->stop, status);
}

static void expect(struct fixture *fixture, int expected, unsigned large_count,
                   unsigned others_count, unsigned others_bytes)
{
    struct stat status;
    const int result = update(fixture, &status);

    if (result != expected)
        fail_msg("it returns %d, not %d", result, expected);
    assert_int_equal(fixture->measure.messages_count, large_count + others_count);
    assert_int_equal(fixture->measure.payload_bytes,
                     (uint64_t)large_count * LARGE_BYTES + others_bytes);
}

/* ---- Slices */

static void test_large_mailbox_is_counted_in_slices_and_what_is_appended_meanwhile_too(void **state)
{
    struct fixture *fixture = fixture_open(state);

    /* A slice to the very end is all of it. */
    put_large(fixture, SLICE_COUNT);
    expect(fixture, 0, SLICE_COUNT, 0, 0);
    put_large(fixture, SLICE_COUNT + 1);
    expect(fixture, -EAGAIN, 2 * SLICE_COUNT, 0, 0);
    temporary_append_text(fixture->file, 1, "more");
    expect(fixture, 0, 2 * SLICE_COUNT + 1, 1, 4);
    expect(fixture, 0, 2 * SLICE_COUNT + 1, 1, 4);
    temporary_append_text(fixture->file, 1, "and more");
    expect(fixture, 0, 2 * SLICE_COUNT + 1, 2, 12);

    /* Anew, with nothing that becomes of it: the file is unchanged, but not counted. */
    gproc_measure_init(&fixture->measure);
    expect(fixture, -EAGAIN, SLICE_COUNT, 0, 0);
    expect(fixture, -EAGAIN, 2 * SLICE_COUNT, 0, 0);
    expect(fixture, 0, 2 * SLICE_COUNT + 1, 2, 12);

    /* Emptied between two slices. */
    gproc_measure_init(&fixture->measure);
    expect(fixture, -EAGAIN, SLICE_COUNT, 0, 0);
    temporary_write(fixture->file, "", 0);
    expect(fixture, 0, 0, 0, 0);
    fixture_close(fixture);
}

static void move_away(void **state)
{
    assert_int_equal(rename(temporary_path(*state, "gproc/4711"), temporary_path(*state, "moved")),
                     0);
}

static void replace_it(void **state)
{
    move_away(state);
    temporary_append_text(temporary_path(*state, "gproc/4711"), 1, "new");
}

static void empty_and_fill_it(void **state)
{
    temporary_write(temporary_path(*state, "gproc/4711"), "", 0);
    temporary_append_text(temporary_path(*state, "gproc/4711"), 1, "new");
}

static void test_what_goes_or_is_replaced_between_two_slices_is_counted_anew(void **state)
{
    static const struct {
        void (*happen)(void **state);
        int result;
        unsigned count;
    } rows[] = {
        {move_away, -ENOENT, 0},
        {replace_it, 0, 1},
        {empty_and_fill_it, 0, 1},
    };
    struct fixture *fixture = fixture_open(state);

    put_large(fixture, SLICE_COUNT + 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect(fixture, -EAGAIN, SLICE_COUNT, 0, 0);
        rows[i].happen(state);
        for (int again = 0; again < 2; again++)
            expect(fixture, rows[i].result, 0, rows[i].count, 3 * rows[i].count);
        if (temporary_exists(temporary_path(*state, "moved")))
            assert_int_equal(rename(temporary_path(*state, "moved"), fixture->file), 0);
    }
    fixture_close(fixture);
}

static void test_stop_ends_the_counting_which_may_begin_again(void **state)
{
    struct fixture *fixture = fixture_open(state);

    temporary_append_text(fixture->file, 1, "one");
    atomic_store(&fixture->stop, true);
    expect(fixture, -ECANCELED, 0, 0, 0);
    atomic_store(&fixture->stop, false);
    expect(fixture, 0, 0, 1, 3);
    /* For what is known already nothing is read. */
    atomic_store(&fixture->stop, true);
    expect(fixture, 0, 0, 1, 3);
    temporary_append_text(fixture->file, 1, "two");
    expect(fixture, -ECANCELED, 0, 0, 0);
    fixture_close(fixture);
}

/* ---- A mailbox that is open */

static void test_mailbox_that_is_open_is_counted_by_that_and_left_open(void **state)
{
    struct fixture *fixture = fixture_open(state);

    temporary_append_text(fixture->file, 1, "one");
    assert_int_equal(gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, O_RDONLY), 0);
    temporary_append_text(fixture->file, 1, "two"); /* more than it was when it was opened */
    expect(fixture, 0, 0, 2, 6);
    assert_int_equal(fcntl(fixture->mailbox.fd, F_GETFD), FD_CLOEXEC);
    fixture_close(fixture);
}

static void test_mailbox_that_is_open_is_passed_over_where_it_is_not_what_is_there(void **state)
{
    struct fixture *fixture = fixture_open(state);
    size_t before;

    temporary_append_text(fixture->file, 1, "older");
    assert_int_equal(gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, O_RDWR), 0);
    before = temporary_count("/proc/self/fd");
    replace_it(state);
    expect(fixture, 0, 0, 1, 3);
    assert_int_equal(temporary_count("/proc/self/fd"), before);
    gproc_mailbox_close(&fixture->mailbox);

    /* And where it is not open for reading. */
    assert_int_equal(gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, O_WRONLY), 0);
    temporary_append_text(fixture->file, 1, "two");
    expect(fixture, 0, 0, 2, 6);
    assert_int_equal(temporary_count("/proc/self/fd"), before);
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_large_mailbox_is_counted_in_slices_and_what_is_appended_meanwhile_too),
        TEMPORARY_TEST(test_what_goes_or_is_replaced_between_two_slices_is_counted_anew),
        TEMPORARY_TEST(test_stop_ends_the_counting_which_may_begin_again),
        TEMPORARY_TEST(test_mailbox_that_is_open_is_counted_by_that_and_left_open),
        TEMPORARY_TEST(test_mailbox_that_is_open_is_passed_over_where_it_is_not_what_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
