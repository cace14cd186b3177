/*
 * Requests that are interrupted at any moment - before they come, while they wait for a lock, a message
 * or their turn - are answered EINTR, have sent nothing and have nothing; and those behind them go on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "gprocfs.h"
#include "inside.h"
#include "stage.h"

enum {
    READ_BYTES = 4096,
};

struct fixture {
    struct stage stage;
    struct inside *inside;
    uint64_t node;
};

static void mount_on(struct fixture *fixture, void **state)
{
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
    temporary_write(fixture->stage.box, NULL, 0);
    fixture->inside = inside_mount(fixture->stage.parent, NULL);
    assert_int_equal(inside_look_up(fixture->inside, INSIDE_ROOT, "4711", &fixture->node), 0);
}

static void unmount(struct fixture *fixture)
{
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static uint64_t open_view(struct fixture *fixture, const char *view, int flags, uint64_t *node)
{
    uint64_t directory, handle;

    assert_int_equal(inside_look_up(fixture->inside, INSIDE_ROOT, view, &directory), 0);
    assert_int_equal(inside_look_up(fixture->inside, directory, "4711", node), 0);
    assert_int_equal(inside_open(fixture->inside, *node, flags, &handle), 0);
    return handle;
}

static uint64_t open_box(struct fixture *fixture, int flags)
{
    uint64_t handle;

    assert_int_equal(inside_open(fixture->inside, fixture->node, flags, &handle), 0);
    return handle;
}

static void release(struct fixture *fixture, uint64_t handle)
{
    assert_int_equal(inside_release(fixture->inside, fixture->node, handle), 0);
}

static int hold_lock(const struct fixture *fixture)
{
    int fd = open(fixture->stage.lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    return fd;
}

static uint64_t send_write(struct fixture *fixture, uint64_t handle, const char *text)
{
    struct fuse_write_in in = {.fh = handle, .size = (uint32_t)strlen(text)};

    return inside_send(fixture->inside, FUSE_WRITE, fixture->node, &in, sizeof(in), text,
                       strlen(text));
}

static void expect_parked(struct fixture *fixture, enum stats_id which, int64_t count)
{
    assert_int_equal(atomic_load(&inside_fs(fixture->inside)->stats.values[which]), count);
}

/* ---- Interrupted before they come */

static void test_interruption_that_comes_first_ends_whatever_would_wait(void **state)
{
    struct fixture fixture;
    uint64_t node, follower, writer, number;
    int fd;

    mount_on(&fixture, state);
    follower = open_view(&fixture, ".follow", O_RDONLY, &node);
    writer = open_box(&fixture, O_WRONLY | O_APPEND);
    inside_interrupt_next(fixture.inside);
    assert_int_equal(inside_read(fixture.inside, node, follower, READ_BYTES, 0), -EINTR);
    expect_parked(&fixture, STATS_PARKED_MESSAGE, 0);
    fd = hold_lock(&fixture);
    inside_interrupt_next(fixture.inside);
    number = send_write(&fixture, writer, "never");
    assert_int_equal(inside_await(fixture.inside, number), -EINTR);
    expect_parked(&fixture, STATS_PARKED_LOCK, 0);
    /* Also where others wait already. */
    number = send_write(&fixture, writer, "once");
    assert_false(inside_is_answered(fixture.inside, number));
    inside_interrupt_next(fixture.inside);
    assert_int_equal(inside_await(fixture.inside, send_write(&fixture, writer, "never")), -EINTR);
    (void)close(fd);
    assert_int_equal(inside_await(fixture.inside, number), 0);
    /* A read out of its order, which waits for its turn. */
    assert_int_equal(inside_release(fixture.inside, node, follower), 0);
    release(&fixture, writer);
    follower = open_box(&fixture, O_RDONLY);
    inside_interrupt_next(fixture.inside);
    assert_int_equal(inside_read(fixture.inside, fixture.node, follower, READ_BYTES, READ_BYTES),
                     -EINTR);
    release(&fixture, follower);
    unmount(&fixture);
}

/* Nobody hears the answer: what it would hand over stays. */
static void test_interruption_that_comes_first_takes_nothing(void **state)
{
    static const char *const views[] = {".follow", ".envelope"};
    struct fixture fixture;
    uint64_t node, handle, sender;

    mount_on(&fixture, state);
    sender = open_view(&fixture, ".peek", O_RDONLY, &node);
    stage_put(&fixture.stage, "one");
    inside_interrupt_next(fixture.inside);
    assert_int_equal(inside_read(fixture.inside, node, sender, READ_BYTES, 0), -EINTR);
    release(&fixture, sender);
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        handle = open_view(&fixture, views[i], O_RDONLY, &node);
        inside_interrupt_next(fixture.inside);
        assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), -EINTR);
        stage_expect(&fixture.stage, "one", NULL);
        assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    }
    /* And of several, which are in flight then. */
    stage_put(&fixture.stage, "two");
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        handle = open_view(&fixture, views[i], O_RDONLY, &node);
        inside_interrupt_next(fixture.inside);
        assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), -EINTR);
        assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    }
    inside_unmount(fixture.inside);
    stage_expect(&fixture.stage, "one", "two", NULL);
    stage_clear(&fixture.stage);
}

/* ---- Interrupted while they wait */

static void test_reader_behind_one_that_is_interrupted_gets_what_comes(void **state)
{
    struct fixture fixture;
    uint64_t node, first, second, numbers[2], writer;
    size_t size_bytes;

    mount_on(&fixture, state);
    first = open_view(&fixture, ".follow", O_RDONLY, &node);
    second = open_view(&fixture, ".follow", O_RDONLY, &node);
    numbers[0] = inside_send_read(fixture.inside, node, first, READ_BYTES, 0, O_RDONLY);
    numbers[1] = inside_send_read(fixture.inside, node, second, READ_BYTES, 0, O_RDONLY);
    expect_parked(&fixture, STATS_PARKED_MESSAGE, 2);
    inside_interrupt(fixture.inside, numbers[0]);
    assert_int_equal(inside_await(fixture.inside, numbers[0]), -EINTR);
    writer = open_box(&fixture, O_WRONLY | O_APPEND);
    assert_int_equal(inside_write(fixture.inside, fixture.node, writer, "x", 1, 0), 0);
    assert_int_equal(inside_await(fixture.inside, numbers[1]), 0);
    release(&fixture, writer);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(inside_release(fixture.inside, node, first), 0);
    assert_int_equal(inside_release(fixture.inside, node, second), 0);
    stage_expect(&fixture.stage, NULL);
    unmount(&fixture);
}

/* The last of those who wait: nobody is left for whom there may be something. */
static void test_last_reader_that_is_interrupted_leaves_nobody_behind(void **state)
{
    struct fixture fixture;
    uint64_t node, handle, number;

    mount_on(&fixture, state);
    handle = open_view(&fixture, ".follow", O_RDONLY, &node);
    number = inside_send_read(fixture.inside, node, handle, READ_BYTES, 0, O_RDONLY);
    inside_interrupt(fixture.inside, number);
    assert_int_equal(inside_await(fixture.inside, number), -EINTR);
    expect_parked(&fixture, STATS_PARKED_MESSAGE, 0);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

/* ---- The end of the mount */

static void test_end_of_the_mount_answers_who_waits(void **state)
{
    struct fixture fixture;
    uint64_t node, follower, writer;
    int fd;

    mount_on(&fixture, state);
    follower = open_view(&fixture, ".follow", O_RDONLY, &node);
    writer = open_box(&fixture, O_WRONLY | O_APPEND);
    (void)inside_send_read(fixture.inside, node, follower, READ_BYTES, 0, O_RDONLY);
    fd = hold_lock(&fixture);
    (void)send_write(&fixture, writer, "never");
    expect_parked(&fixture, STATS_PARKED_MESSAGE, 1);
    expect_parked(&fixture, STATS_PARKED_LOCK, 1);
    inside_unmount(fixture.inside); /* or it does not return */
    stage_expect(&fixture.stage, NULL);
    (void)close(fd);
    stage_clear(&fixture.stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_interruption_that_comes_first_ends_whatever_would_wait),
        TEMPORARY_TEST(test_interruption_that_comes_first_takes_nothing),
        TEMPORARY_TEST(test_reader_behind_one_that_is_interrupted_gets_what_comes),
        TEMPORARY_TEST(test_last_reader_that_is_interrupted_leaves_nobody_behind),
        TEMPORARY_TEST(test_end_of_the_mount_answers_who_waits),
    };

    return cmocka_run_group_tests_name("box", tests, NULL, NULL);
}
