/*
 * Whatever call fails while messages are copied, remembered, told apart and poured back, the mailbox
 * and the segment between them still have all of them, the error is handed up, and it may be tried
 * again.
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
#include "segment.h"
#include "stage.h"

enum {
    SERIAL = 5,
    LARGE_BYTES = 600 * 1024,
    HOLE_BYTES = 128 * 1024,
    /* Where these are in the file; see segment.h. */
    AT_STATE = 8,
    AT_NANOSECONDS = 40,
    AT_HOLES = 64,
};

struct fixture {
    struct stage stage;
    char file[PATH_MAX], copy[PATH_MAX]; /* segments */
    struct gproc_mailbox mailbox;
    struct gproc_segment segment;
};

static void init(struct fixture *fixture, struct temporary *temporary)
{
    *fixture = (struct fixture){.mailbox = {.fd = -1}, .segment = {.fd = -1}};
    stage_init(&fixture->stage, temporary);
    strcpy(fixture->file, temporary_path(temporary, "parent/segment"));
    strcpy(fixture->copy, temporary_path(temporary, "parent/copy"));
}

static int file_of(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

/* Opens the mailbox, as it is now. */
static void look(struct fixture *fixture)
{
    gproc_mailbox_close(&fixture->mailbox);
    assert_int_equal(
        gproc_mailbox_open(&fixture->mailbox, &fixture->stage.gproc->mailboxes, STAGE_PID, O_RDWR),
        0);
}

static int copy_it(struct fixture *fixture)
{
    return gproc_segment_copy(&fixture->segment, file_of(fixture->file), &fixture->mailbox, 0,
                              NULL);
}

/* More than is written at once for sure. */
static const char ccc[] = "This message is long enough that only half of it may be written, after "
                          "which the other half may fail.";

/* A mailbox of three messages, all of which are in the segment, which is MOVING, too. */
static void set(struct fixture *fixture)
{
    stage_set(&fixture->stage);
    stage_put(&fixture->stage, "a");
    stage_put(&fixture->stage, "bb");
    stage_put(&fixture->stage, ccc);
    look(fixture);
    assert_int_equal(copy_it(fixture), 0);
}

/* Where the messages of set() end. */
enum {
    END_A = TEMPORARY_HEADER_BYTES + 1,
    END_BB = END_A + TEMPORARY_HEADER_BYTES + 2,
    END_CCC = END_BB + TEMPORARY_HEADER_BYTES + (int)sizeof(ccc) - 1,
};

static void clear(struct fixture *fixture)
{
    gproc_segment_release(&fixture->segment);
    gproc_mailbox_close(&fixture->mailbox);
    stage_clear(&fixture->stage);
}

/* As the next mount finds it. */
static int reload(struct fixture *fixture)
{
    gproc_segment_release(&fixture->segment);
    return gproc_segment_load(&fixture->segment, file_of(fixture->file));
}

/* Changes the file behind the segment's back. */
static void write_at(const char *path, off_t offset, const void *bytes, size_t size_bytes)
{
    int fd = file_of(path);

    assert_int_equal(pwrite(fd, bytes, size_bytes, offset), size_bytes);
    close(fd);
}

static void write_u64(const char *path, off_t offset, uint64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    write_at(path, offset, bytes, sizeof(bytes));
}

/* Puts a copy that is RETURNING in the segment's place. */
static void gather(struct fixture *fixture)
{
    struct gproc_segment copy = {.fd = file_of(fixture->copy)};

    assert_int_equal(gproc_segment_gather(&copy, &fixture->segment, SERIAL), 0);
    assert_int_equal(gproc_segment_seal(&copy), 0);
    assert_int_equal(rename(fixture->copy, fixture->file), 0);
    gproc_segment_release(&fixture->segment);
    fixture->segment = copy;
}

/* Fails the test unless the segment's data are the mailbox's first bytes, as many as it had. */
static void expect_copied(struct fixture *fixture, size_t size_bytes)
{
    uint8_t *data = malloc(size_bytes), *box = malloc(size_bytes);
    const int fd = file_of(fixture->file);
    struct stat status;

    assert_true(data != NULL && box != NULL);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, GPROC_SEGMENT_DATA_OFFSET + size_bytes);
    assert_int_equal(pread(fd, data, size_bytes, GPROC_SEGMENT_DATA_OFFSET), size_bytes);
    assert_int_equal(pread(fixture->mailbox.fd, box, size_bytes, 0), size_bytes);
    assert_memory_equal(data, box, size_bytes);
    close(fd);
    free(data);
    free(box);
}

/* ---- Taking */

static void fill_small(struct stage *stage)
{
    stage_put(stage, "a");
}

static void fill_large(struct stage *stage)
{
    uint8_t *bytes = malloc(LARGE_BYTES);

    assert_non_null(bytes);
    temporary_noise(bytes, LARGE_BYTES, 1);
    temporary_append(stage->box, bytes, LARGE_BYTES);
    free(bytes);
}

/* Nothing, a message, nothing, a message, nothing. */
static void fill_sparse(struct stage *stage)
{
    temporary_write(stage->box, "", 0);
    assert_int_equal(truncate(stage->box, HOLE_BYTES), 0);
    stage_put(stage, "a");
    assert_int_equal(truncate(stage->box, 2 * HOLE_BYTES), 0);
    stage_put(stage, "b");
    assert_int_equal(truncate(stage->box, 3 * HOLE_BYTES), 0);
}

static void test_mailbox_is_copied_or_the_error_handed_up(void **state)
{
    static void (*const fills[])(struct stage *) = {fill_small, fill_large, fill_sparse};
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    for (size_t i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
        fault_walk_init(&walk);
        do {
            int fd, result;

            stage_set(&fixture.stage);
            fills[i](&fixture.stage);
            look(&fixture);
            fd = file_of(fixture.file);
            fault_walk_start(&walk);
            result = gproc_segment_copy(&fixture.segment, fd, &fixture.mailbox, 0, NULL);
            fault_walk_stop(&walk);
            fault_walk_judge(&walk, result, 0);
            if (result == 0) {
                expect_copied(&fixture, (size_t)fixture.mailbox.status.st_size);
                assert_int_equal(reload(&fixture), 0);
                assert_int_equal(fixture.segment.size_bytes, fixture.mailbox.status.st_size);
            }
            clear(&fixture);
        } while (fault_walk_next(&walk));
    }
}

static void test_what_comes_behind_a_hole_meanwhile_is_not_copied(void **state)
{
    struct stat status;
    struct fixture fixture;

    init(&fixture, *state);
    for (int soon = 0; soon < 2; soon++) {
        stage_set(&fixture.stage);
        fill_sparse(&fixture.stage);
        if (soon) /* in the midst of data */
            stage_put(&fixture.stage, "c");
        look(&fixture);
        stage_put(&fixture.stage, "late");
        assert_int_equal(copy_it(&fixture), 0);
        expect_copied(&fixture, (size_t)fixture.mailbox.status.st_size);
        /* Where the mailbox has holes, the copy has. */
        assert_int_equal(stat(fixture.file, &status), 0);
        if (fixture.mailbox.status.st_blocks * 512 < fixture.mailbox.status.st_size)
            assert_true(status.st_blocks * 512 < status.st_size);
        clear(&fixture);
    }
}

static void test_copying_stops_when_it_is_told_to(void **state)
{
    static const atomic_bool stop = true;
    struct fixture fixture;

    init(&fixture, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, "a");
    look(&fixture);
    assert_int_equal(
        gproc_segment_copy(&fixture.segment, file_of(fixture.file), &fixture.mailbox, 0, &stop),
        -ECANCELED);
    stage_expect(&fixture.stage, "a", NULL);
    assert_int_equal(reload(&fixture), -EILSEQ);
    clear(&fixture);
}

/* ---- Remembering */

static void test_owner_is_noted_or_is_the_old_one(void **state)
{
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    fault_walk_init(&walk);
    do {
        uint64_t old;
        int result;

        set(&fixture);
        old = fixture.segment.owner;
        fault_walk_start(&walk);
        result = gproc_segment_own(&fixture.segment, 4000);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(fixture.segment.owner, result == 0 ? 4001 : old);
        if (result == 0) {
            assert_int_equal(reload(&fixture), 0);
            assert_int_equal(fixture.segment.owner, 4001);
        }
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

/* The second before the first, which is a hole; then the first. */
static void walk_deliver(struct fixture *fixture, bool second_first)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        const off_t start = second_first ? END_A : 0;
        const off_t end = second_first ? END_BB : END_A;
        int result;

        set(fixture);
        if (!second_first)
            assert_int_equal(gproc_segment_deliver(&fixture->segment, END_A, END_BB), 0);
        fault_walk_start(&walk);
        result = gproc_segment_deliver(&fixture->segment, start, end);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result < 0)
            assert_int_equal(gproc_segment_skip(&fixture->segment, start), start);
        else
            assert_int_equal(gproc_segment_skip(&fixture->segment, start), END_BB);
        if (result == 0) {
            assert_int_equal(reload(fixture), 0);
            assert_int_equal(gproc_segment_skip(&fixture->segment, start), END_BB);
        }
        /* It may be tried again. */
        assert_int_equal(gproc_segment_deliver(&fixture->segment, start, end), 0);
        assert_int_equal(gproc_segment_skip(&fixture->segment, start), END_BB);
        clear(fixture);
    } while (fault_walk_next(&walk));
}

static void test_what_is_delivered_is_noted_or_counts_as_not_delivered(void **state)
{
    struct fixture fixture;

    init(&fixture, *state);
    walk_deliver(&fixture, true);
    walk_deliver(&fixture, false);
}

/* Whatever a hole is, what lies in another one becomes one with it. */
static void test_hole_takes_in_what_lies_in_it(void **state)
{
    struct fixture fixture;

    init(&fixture, *state);
    set(&fixture);
    assert_int_equal(gproc_segment_deliver(&fixture.segment, 20, 24), 0);
    assert_int_equal(gproc_segment_deliver(&fixture.segment, END_A, END_BB), 0);
    assert_int_equal(fixture.segment.holes_count, 1);
    assert_int_equal(reload(&fixture), 0);
    assert_int_equal(fixture.segment.holes_count, 1);
    assert_int_equal(gproc_segment_skip(&fixture.segment, END_A), END_BB);
    assert_int_equal(gproc_segment_skip(&fixture.segment, 0), 0);
    clear(&fixture);
}

static void test_segment_is_loaded_or_the_error_handed_up(void **state)
{
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    fault_walk_init(&walk);
    do {
        int fd, result;

        set(&fixture);
        assert_int_equal(gproc_segment_deliver(&fixture.segment, END_A, END_BB), 0);
        gproc_segment_release(&fixture.segment);
        fd = file_of(fixture.file);
        fault_walk_start(&walk);
        result = gproc_segment_load(&fixture.segment, fd);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result < 0)
            assert_int_equal(reload(&fixture), 0);
        assert_int_equal(fixture.segment.size_bytes, END_CCC);
        assert_int_equal(gproc_segment_skip(&fixture.segment, END_A), END_BB);
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

/* ---- What became of it */

enum cut {
    MOVE_BEFORE_EMPTYING,
    MOVE_AFTER_EMPTYING,
    RETURN_BEFORE_IT,
    RETURN_IN_ITS_MIDST,
    RETURN_AFTER_IT,
    CUTS_COUNT,
};

/* What is on disk where it was cut off there. Returns what comes of it. */
static int cut_off(struct fixture *fixture, enum cut cut)
{
    set(fixture);
    if (cut == MOVE_AFTER_EMPTYING || cut >= RETURN_BEFORE_IT)
        assert_int_equal(truncate(fixture->stage.box, 0), 0);
    if (cut >= RETURN_BEFORE_IT)
        gather(fixture);
    if (cut == RETURN_IN_ITS_MIDST || cut == RETURN_AFTER_IT) {
        stage_put(&fixture->stage, "a");
        stage_put(&fixture->stage, "bb");
    }
    if (cut == RETURN_AFTER_IT)
        stage_put(&fixture->stage, ccc);
    look(fixture);
    return cut == MOVE_BEFORE_EMPTYING || cut == RETURN_AFTER_IT ? 0 : 1;
}

static void test_what_was_cut_off_is_decided_or_the_error_handed_up(void **state)
{
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    for (int cut = 0; cut < CUTS_COUNT; cut++) {
        fault_walk_init(&walk);
        do {
            const int expected = cut_off(&fixture, (enum cut)cut);
            int result;

            fault_walk_start(&walk);
            result = gproc_segment_resolve(&fixture.segment, &fixture.mailbox);
            fault_walk_stop(&walk);
            fault_walk_judge(&walk, result, 0);
            if (result < 0) { /* it may be tried again, also by the next mount */
                assert_int_equal(reload(&fixture), 0);
                look(&fixture);
                result = gproc_segment_resolve(&fixture.segment, &fixture.mailbox);
            }
            assert_int_equal(result, expected);
            if (expected == 1) {
                assert_int_equal(fixture.segment.state, GPROC_SEGMENT_READY);
                stage_expect(&fixture.stage, NULL);
            } else {
                stage_expect(&fixture.stage, "a", "bb", ccc, NULL);
            }
            clear(&fixture);
        } while (fault_walk_next(&walk));
    }
}

/* Emptied, and the same sent again, in the same second: the time tells. */
static void test_same_messages_at_another_nanosecond_are_others(void **state)
{
    struct fixture fixture;

    init(&fixture, *state);
    set(&fixture);
    write_u64(fixture.file, AT_NANOSECONDS, (uint64_t)fixture.segment.modified.tv_nsec + 1);
    assert_int_equal(reload(&fixture), 0);
    assert_int_equal(gproc_segment_resolve(&fixture.segment, &fixture.mailbox), 1);
    stage_expect(&fixture.stage, "a", "bb", ccc, NULL);
    clear(&fixture);
}

/* Two of three had been returned, and somebody has sent a message since. */
static void test_what_had_been_returned_is_told_or_the_error_handed_up(void **state)
{
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    fault_walk_init(&walk);
    do {
        off_t result;

        (void)cut_off(&fixture, RETURN_IN_ITS_MIDST);
        stage_put(&fixture.stage, "others'");
        assert_int_equal(gproc_mailbox_refresh(&fixture.mailbox), 0);
        fault_walk_start(&walk);
        result = gproc_segment_returned(&fixture.segment, &fixture.mailbox);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, (int)result, 0);
        if (result >= 0)
            assert_int_equal(result, END_BB);
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

/* All that had been returned is messages, and something that is none behind the last of them: an older
 * version put that back, too. */
static void test_damage_that_had_been_returned_is_passed_over(void **state)
{
    const off_t checksum_offset = GPROC_SEGMENT_DATA_OFFSET + END_A + 8;
    struct fixture fixture;

    init(&fixture, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, "a");
    stage_put(&fixture.stage, "b");
    look(&fixture);
    assert_int_equal(copy_it(&fixture), 0);
    gather(&fixture);
    write_at(fixture.file, checksum_offset, "?", 1);
    assert_int_equal(truncate(fixture.stage.box, END_A + 2), 0);
    stage_put(&fixture.stage, "others'");
    look(&fixture);
    assert_int_equal(gproc_segment_returned(&fixture.segment, &fixture.mailbox), END_A);
    clear(&fixture);
}

/* ---- The way back */

static void test_messages_are_put_back_or_the_error_is_handed_up(void **state)
{
    struct fault_walk walk;
    struct fixture fixture;

    init(&fixture, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_segment copy = {.fd = -1};
        int result;

        set(&fixture);
        assert_int_equal(gproc_segment_deliver(&fixture.segment, END_A, END_BB), 0);
        assert_int_equal(truncate(fixture.stage.box, 0), 0);
        copy.fd = file_of(fixture.copy);
        fault_walk_start(&walk);
        result = gproc_segment_gather(&copy, &fixture.segment, SERIAL);
        if (result == 0)
            result = gproc_segment_seal(&copy);
        if (result == 0)
            result = gproc_segment_pour(&copy, &fixture.mailbox);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, walk.then == FAULT_THEN_ALL ? -EUCLEAN : 0);
        if (result == 0)
            stage_expect(&fixture.stage, "a", ccc, NULL);
        else if (result != -EUCLEAN)
            stage_expect(&fixture.stage, NULL);
        gproc_segment_release(&copy);
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

/* Of a segment on its way back: a serial that there cannot be, and a hole, are none of its own. */
static void test_segment_supersedes_only_what_its_file_names(void **state)
{
    const uint8_t returning = GPROC_SEGMENT_RETURNING;
    struct fixture fixture;

    init(&fixture, *state);
    set(&fixture);
    write_at(fixture.file, AT_STATE, &returning, 1);
    write_u64(fixture.file, AT_HOLES, (uint64_t)INT64_MAX + SERIAL);
    write_u64(fixture.file, AT_HOLES + 16, END_A);
    write_u64(fixture.file, AT_HOLES + 24, END_BB);
    write_u64(fixture.file, AT_HOLES + 32, SERIAL);
    assert_int_equal(reload(&fixture), 0);
    assert_true(gproc_segment_supersedes(&fixture.segment, SERIAL));
    assert_false(gproc_segment_supersedes(&fixture.segment, SERIAL + 1));
    assert_false(gproc_segment_supersedes(&fixture.segment, END_A));
    assert_false(gproc_segment_supersedes(&fixture.segment, (uint64_t)INT64_MAX + SERIAL));
    clear(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_mailbox_is_copied_or_the_error_handed_up),
        TEMPORARY_TEST(test_what_comes_behind_a_hole_meanwhile_is_not_copied),
        TEMPORARY_TEST(test_copying_stops_when_it_is_told_to),
        TEMPORARY_TEST(test_owner_is_noted_or_is_the_old_one),
        TEMPORARY_TEST(test_what_is_delivered_is_noted_or_counts_as_not_delivered),
        TEMPORARY_TEST(test_hole_takes_in_what_lies_in_it),
        TEMPORARY_TEST(test_segment_is_loaded_or_the_error_handed_up),
        TEMPORARY_TEST(test_what_was_cut_off_is_decided_or_the_error_handed_up),
        TEMPORARY_TEST(test_same_messages_at_another_nanosecond_are_others),
        TEMPORARY_TEST(test_what_had_been_returned_is_told_or_the_error_handed_up),
        TEMPORARY_TEST(test_damage_that_had_been_returned_is_passed_over),
        TEMPORARY_TEST(test_messages_are_put_back_or_the_error_is_handed_up),
        TEMPORARY_TEST(test_segment_supersedes_only_what_its_file_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
