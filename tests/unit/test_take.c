/*
 * What a dead mount left in flight is part of the queue again, whoever is first to do something with
 * it: a look, a poll, a read, an emptying, a removal, an end of the mount. What was sent to an owner who
 * is gone is for nobody else. And the end of the mount ends what takes long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gprocfs.h"
#include "inside.h"
#include "process.h"
#include "stage.h"

enum {
    READ_BYTES = 4096,
    WAIT_MS = 20000,
    NOBODY = 65534,
    SLICE_BYTES = 64 * 1024 * 1024, /* of a mailbox, after which others have their turn */
};

struct fixture {
    struct stage stage;
    struct inside *inside;
};

static void open_fixture(struct fixture *fixture, void **state)
{
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
}

static void close_fixture(struct fixture *fixture)
{
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static uint64_t find(struct inside *inside, const char *view)
{
    uint64_t directory = INSIDE_ROOT, node;

    if (view[0] != '\0')
        assert_int_equal(inside_look_up(inside, INSIDE_ROOT, view, &directory), 0);
    assert_int_equal(inside_look_up(inside, directory, "4711", &node), 0);
    return node;
}

static uint64_t open_view(struct inside *inside, const char *view, int flags, uint64_t *node)
{
    uint64_t handle;

    *node = find(inside, view);
    assert_int_equal(inside_open(inside, *node, flags, &handle), 0);
    return handle;
}

static void expect_text(struct inside *inside, uint64_t node, uint64_t handle, off_t offset,
                        const char *text)
{
    size_t size_bytes;
    const void *bytes;

    assert_int_equal(inside_read(inside, node, handle, READ_BYTES, offset), 0);
    bytes = inside_bytes(inside, &size_bytes);
    assert_int_equal(size_bytes, strlen(text));
    assert_memory_equal(bytes, text, size_bytes);
}

/* Takes the first, as a mount that is not ended; all others are in flight. */
static void take_first(struct inside *inside)
{
    uint64_t node, handle = open_view(inside, "", O_RDONLY, &node);

    expect_text(inside, node, handle, 0, "one");
    assert_int_equal(inside_release(inside, node, handle), 0);
}

/* A mount that received the first of three and died. */
static void leave_in_flight(struct fixture *fixture)
{
    pid_t child;

    stage_put(&fixture->stage, "one");
    stage_put(&fixture->stage, "two");
    stage_put(&fixture->stage, "three");
    child = process_fork(0);
    assert_true(child >= 0);
    if (child == 0) {
        take_first(inside_mount(fixture->stage.parent, NULL));
        _exit(0);
    }
    assert_int_equal(temporary_join(child, WAIT_MS), 0);
    stage_expect(&fixture->stage, NULL);
    stage_put(&fixture->stage, "four");
    fixture->inside = inside_mount(fixture->stage.parent, NULL);
}

/* ---- Who comes first after a dead mount */

static void test_looking_shows_what_a_dead_mount_left(void **state)
{
    struct fixture fixture;
    struct stat attributes;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    handle = open_view(fixture.inside, ".peek", O_RDONLY, &node);
    expect_text(fixture.inside, node, handle, 0, "twothreefour");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    assert_int_equal(inside_get_attributes(fixture.inside, find(fixture.inside, ""), &attributes),
                     0);
    assert_int_equal(attributes.st_size, strlen("twothreefour"));
    close_fixture(&fixture);
}

static void test_reading_goes_on_behind_a_dead_mount(void **state)
{
    static const char *const texts[] = {"two", "three", "four"};
    struct fixture fixture;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    handle = open_view(fixture.inside, ".follow", O_RDONLY, &node);
    assert_int_equal(inside_poll(fixture.inside, node, handle, false), POLLIN | POLLRDNORM);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect_text(fixture.inside, node, handle, 0, texts[i]);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    close_fixture(&fixture);
}

/* Of a mailbox that was removed meanwhile what was taken before is there still: nobody said otherwise. */
static void test_reading_finds_what_was_taken_from_a_mailbox_that_is_gone(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    handle = open_view(fixture.inside, ".follow", O_RDONLY, &node);
    assert_int_equal(unlink(fixture.stage.box), 0);
    expect_text(fixture.inside, node, handle, 0, "two");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    inside_unmount(fixture.inside);
    stage_expect(&fixture.stage, "three", NULL);
    stage_clear(&fixture.stage);
}

static void test_emptying_throws_away_what_a_dead_mount_left(void **state)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    assert_int_equal(inside_set_size(fixture.inside, find(fixture.inside, ""), 0), 0);
    inside_unmount(fixture.inside);
    stage_expect(&fixture.stage, NULL);
    stage_clear(&fixture.stage);
}

static void test_removal_throws_away_what_a_dead_mount_left(void **state)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    assert_int_equal(inside_unlink(fixture.inside, INSIDE_ROOT, "4711"), 0);
    inside_unmount(fixture.inside);
    assert_false(temporary_exists(fixture.stage.box));
    stage_clear(&fixture.stage);
}

static void test_end_of_the_mount_puts_back_what_a_dead_mount_left(void **state)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    leave_in_flight(&fixture);
    inside_unmount(fixture.inside);
    stage_expect(&fixture.stage, "two", "three", "four", NULL);
    stage_clear(&fixture.stage);
}

/* ---- Whose it is */

/* As root alone can: the mailbox is somebody else's now, and what is in flight was not sent to him. */
static void test_what_is_in_flight_is_not_for_another_owner(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;

    if (geteuid() != 0)
        skip();
    open_fixture(&fixture, state);
    stage_put(&fixture.stage, "one");
    stage_put(&fixture.stage, "secret");
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    take_first(fixture.inside);
    stage_expect(&fixture.stage, NULL);
    stage_put(&fixture.stage, "his");
    assert_int_equal(chown(fixture.stage.box, NOBODY, NOBODY), 0);
    handle = open_view(fixture.inside, ".peek", O_RDONLY, &node);
    expect_text(fixture.inside, node, handle, 0, "his");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    inside_unmount(fixture.inside);
    stage_expect(&fixture.stage, "his", NULL);
    /* It is the former owner's again, and so is what waits for him. */
    assert_int_equal(chown(fixture.stage.box, 0, 0), 0);
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    handle = open_view(fixture.inside, "", O_RDONLY, &node);
    expect_text(fixture.inside, node, handle, 0, "secret");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    close_fixture(&fixture);
}

/* ---- What takes long */

/* Large, and mostly nothing: a hole is damage, of which there is nothing to hand over. */
static void make_large(const struct stage *stage)
{
    stage_put(stage, "one");
    assert_int_equal(truncate(stage->box, SLICE_BYTES + READ_BYTES), 0);
    stage_put(stage, "two");
}

static void test_poll_of_a_large_mailbox_lets_others_have_their_turn(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    make_large(&fixture.stage);
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    handle = open_view(fixture.inside, ".follow", O_RDONLY, &node);
    assert_int_equal(inside_poll(fixture.inside, node, handle, false), POLLIN | POLLRDNORM);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    assert_int_equal(inside_set_size(fixture.inside, find(fixture.inside, ""), 0), 0);
    close_fixture(&fixture);
}

/* SIGTERM has come while a request is at work: it ends, and with it what was begun. */
static void test_end_of_the_mount_ends_what_takes_long(void **state)
{
    struct fixture fixture;
    struct stat attributes;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    make_large(&fixture.stage);
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    handle = open_view(fixture.inside, "", O_RDONLY, &node);
    atomic_store(&inside_fs(fixture.inside)->store.is_ending, true);
    assert_int_equal(inside_get_attributes(fixture.inside, node, &attributes), -ENOTCONN);
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), -ENOTCONN);
    atomic_store(&inside_fs(fixture.inside)->store.is_ending, false);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    close_fixture(&fixture);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_looking_shows_what_a_dead_mount_left),
        TEMPORARY_TEST(test_reading_goes_on_behind_a_dead_mount),
        TEMPORARY_TEST(test_reading_finds_what_was_taken_from_a_mailbox_that_is_gone),
        TEMPORARY_TEST(test_emptying_throws_away_what_a_dead_mount_left),
        TEMPORARY_TEST(test_removal_throws_away_what_a_dead_mount_left),
        TEMPORARY_TEST(test_end_of_the_mount_puts_back_what_a_dead_mount_left),
        TEMPORARY_TEST(test_what_is_in_flight_is_not_for_another_owner),
        TEMPORARY_TEST(test_poll_of_a_large_mailbox_lets_others_have_their_turn),
        TEMPORARY_TEST(test_end_of_the_mount_ends_what_takes_long),
    };

    return cmocka_run_group_tests_name("take", tests, NULL, NULL);
}
