/*
 * Whatever call fails, a lock is held and excludes others, or nothing is held and the error is handed
 * up; and where others replace what it locks, it notices, or gives up.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "lock.h"
#include "stage.h"

enum {
    LONG_MS = 20000,
};

struct fixture {
    struct stage stage;
    unsigned calls_count; /* of those that a test counts */
    unsigned until;       /* others do it before so many of them */
};

/* Whether somebody else gets the lock of the file that the path leads to. */
static bool is_free(const struct fixture *fixture)
{
    int fd = open(fixture->stage.lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool got;

    assert_true(fd >= 0);
    got = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return got;
}

static void walk_take(struct fixture *fixture, struct gproc_creator creator, int64_t wait_ms,
                      bool exists)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_lock lock;
        int result;

        stage_set(&fixture->stage);
        if (exists)
            temporary_write(fixture->stage.lock_file, "", 0);
        fault_walk_start(&walk);
        result = gproc_lock_take(&lock, &fixture->stage.gproc->locks, STAGE_PID, creator, wait_ms);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, -EWOULDBLOCK);
        assert_int_equal(lock.fd >= 0, result == 0);
        /* It would shut out whom it was made for. */
        if (walk.failed != NULL && strcmp(walk.failed, "fchown") == 0 &&
            walk.then == FAULT_THEN_NOTHING)
            assert_false(temporary_exists(fixture->stage.lock_file));
        assert_int_equal(is_free(fixture), result < 0);
        gproc_lock_release(&lock);
        assert_true(is_free(fixture));
        stage_clear(&fixture->stage);
    } while (fault_walk_next(&walk));
}

static void test_lock_is_held_or_an_error_handed_up(void **state)
{
    struct fixture fixture = {0};
    const struct gproc_creator somebody = {geteuid(), getegid()};

    stage_init(&fixture.stage, *state);
    walk_take(&fixture, gproc_creator_self, GPROC_WAIT_NONE, false);
    walk_take(&fixture, gproc_creator_self, GPROC_WAIT_FOREVER, true);
    walk_take(&fixture, somebody, LONG_MS, false);
}

/* With a lock that rests, on the file or on one that is gone. */
static void walk_retake(struct fixture *fixture, int64_t wait_ms, bool is_gone)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_place *locks;
        struct gproc_lock lock;
        int result;

        stage_set(&fixture->stage);
        locks = &fixture->stage.gproc->locks;
        assert_int_equal(gproc_lock_take(&lock, locks, STAGE_PID, gproc_creator_self, 0), 0);
        gproc_lock_rest(&lock);
        if (is_gone)
            temporary_remove(fixture->stage.lock_file);
        fault_walk_start(&walk);
        result = gproc_lock_retake(&lock, locks, STAGE_PID, gproc_creator_self, wait_ms);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, wait_ms == GPROC_WAIT_NONE ? -EWOULDBLOCK : 0);
        assert_int_equal(is_free(fixture), result < 0);
        /* Whatever is left of it may be tried again. */
        assert_int_equal(gproc_lock_retake(&lock, locks, STAGE_PID, gproc_creator_self, 0), 0);
        assert_false(is_free(fixture));
        gproc_lock_release(&lock);
        assert_true(is_free(fixture));
        stage_clear(&fixture->stage);
    } while (fault_walk_next(&walk));
}

static void test_lock_that_rested_is_held_or_an_error_handed_up(void **state)
{
    static const int64_t waits_ms[] = {GPROC_WAIT_NONE, GPROC_WAIT_FOREVER, LONG_MS};
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    for (size_t i = 0; i < sizeof(waits_ms) / sizeof(waits_ms[0]); i++) {
        walk_retake(&fixture, waits_ms[i], false);
        walk_retake(&fixture, waits_ms[i], true);
    }
}

static int count_opens(void *context, const char *name)
{
    struct fixture *fixture = context;

    fixture->calls_count += strcmp(name, "openat") == 0;
    return FAULT_NONE;
}

/* That is what it rests for; and where its file was given another mode, it is not the same any more. */
static void test_lock_that_rests_is_taken_without_opening_its_file(void **state)
{
    struct fixture fixture = {0};
    struct gproc_place *locks;
    struct gproc_lock lock;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    locks = &fixture.stage.gproc->locks;
    gproc_lock_init(&lock);
    for (unsigned expected = 1; expected <= 2; expected++) {
        fault_start(count_opens, &fixture);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(
                gproc_lock_retake(&lock, locks, STAGE_PID, gproc_creator_self, LONG_MS), 0);
            gproc_lock_rest(&lock);
        }
        fault_stop();
        /* Of a file that is not there yet: the first look, and the making. */
        assert_int_equal(fixture.calls_count, 1 + expected);
        assert_int_equal(chmod(fixture.stage.lock_file, 0640), 0);
    }
    gproc_lock_release(&lock);
    stage_clear(&fixture.stage);
}

static void test_signals_do_not_end_a_wait_that_has_a_limit(void **state)
{
    struct fixture fixture = {0};
    struct gproc_lock lock;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    fault_calls("flock", 1, 3, -EINTR);
    assert_int_equal(
        gproc_lock_take(&lock, &fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self, LONG_MS),
        0);
    fault_stop();
    assert_false(is_free(&fixture));
    gproc_lock_release(&lock);
    stage_clear(&fixture.stage);
}

static void test_probe_hands_up_what_failed_and_holds_nothing(void **state)
{
    struct fixture fixture = {0};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        int result;

        stage_set(&fixture.stage);
        fault_walk_start(&walk);
        result = gproc_lock_probe(&fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_true(is_free(&fixture));
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

/* ---- What others do meanwhile */

/* Deletes the file between its opening and its being locked. */
static int delete_before_flock(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (strcmp(name, "flock") == 0 && fixture->calls_count++ < fixture->until)
        assert_int_equal(unlink(fixture->stage.lock_file), 0);
    return FAULT_NONE;
}

static void test_lock_of_a_file_that_was_replaced_is_taken_again(void **state)
{
    struct fixture fixture = {0};
    struct gproc_lock lock;

    stage_init(&fixture.stage, *state);
    fixture.until = 3;
    stage_set(&fixture.stage);
    fault_start(delete_before_flock, &fixture);
    assert_int_equal(
        gproc_lock_take(&lock, &fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self, 0), 0);
    fault_stop();
    assert_false(is_free(&fixture));
    gproc_lock_release(&lock);
    stage_clear(&fixture.stage);
}

static void expect_busy(struct fixture *fixture, int (*others)(void *context, const char *name))
{
    const struct fault_held before = fault_held();
    struct gproc_lock lock;

    fixture->until = (unsigned)-1;
    stage_set(&fixture->stage);
    fault_start(others, fixture);
    assert_int_equal(
        gproc_lock_take(&lock, &fixture->stage.gproc->locks, STAGE_PID, gproc_creator_self, 0),
        -EBUSY);
    fault_stop();
    assert_int_equal(lock.fd, -1);
    stage_clear(&fixture->stage);
    assert_int_equal(fault_held().descriptors_count, before.descriptors_count);
}

/* Not there when it is opened, and there when it is made. */
static int come_and_go(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (strcmp(name, "openat") == 0 && fixture->calls_count++ % 2 == 1)
        temporary_write(fixture->stage.lock_file, "", 0);
    else if (strcmp(name, "openat") == 0)
        (void)unlink(fixture->stage.lock_file);
    return FAULT_NONE;
}

static void test_file_that_is_replaced_without_end_is_given_up(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    expect_busy(&fixture, delete_before_flock);
    fixture.calls_count = 0;
    expect_busy(&fixture, come_and_go);
}

/* The directory and what it is in. */
static int delete_all_before_flock(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (strcmp(name, "flock") == 0 && temporary_exists(fixture->stage.parent))
        temporary_remove(fixture->stage.parent);
    return FAULT_NONE;
}

static void test_directory_that_cannot_be_made_again_is_an_error(void **state)
{
    struct fixture fixture = {0};
    struct gproc_lock lock;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    temporary_remove(fixture.stage.parent);
    assert_int_equal(
        gproc_lock_take(&lock, &fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self, 0),
        -ENOENT);
    assert_int_equal(gproc_lock_probe(&fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self),
                     -ENOENT);
    stage_clear(&fixture.stage);

    stage_set(&fixture.stage);
    fault_start(delete_all_before_flock, &fixture);
    assert_int_equal(
        gproc_lock_take(&lock, &fixture.stage.gproc->locks, STAGE_PID, gproc_creator_self, 0),
        -ENOENT);
    fault_stop();
    assert_int_equal(lock.fd, -1);
    stage_clear(&fixture.stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_lock_is_held_or_an_error_handed_up),
        TEMPORARY_TEST(test_lock_that_rested_is_held_or_an_error_handed_up),
        TEMPORARY_TEST(test_lock_that_rests_is_taken_without_opening_its_file),
        TEMPORARY_TEST(test_signals_do_not_end_a_wait_that_has_a_limit),
        TEMPORARY_TEST(test_probe_hands_up_what_failed_and_holds_nothing),
        TEMPORARY_TEST(test_lock_of_a_file_that_was_replaced_is_taken_again),
        TEMPORARY_TEST(test_file_that_is_replaced_without_end_is_given_up),
        TEMPORARY_TEST(test_directory_that_cannot_be_made_again_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
