/*
 * The daemon may do more than its callers, and lends them nothing: where it judges by itself, it judges
 * as the kernel would, by owner, group and others, also by a caller's other groups; and where it cannot
 * find out, no. What was allowed at open is asked again when it has changed.
 *
 * As root, who alone can be several users.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "inside.h"
#include "process.h"
#include "stage.h"

enum {
    NOBODY = 65534,
    GROUPS_COUNT = 100, /* more than are asked for at first */
    GROUP = 70000,      /* the last of them */
    READ_BYTES = 4096,
    WAIT_MS = 20000,
};

struct fixture {
    struct stage stage;
    struct inside *inside;
    pid_t caller; /* who belongs to all these groups */
};

static void open_fixture(struct fixture *fixture, void **state)
{
    gid_t groups[GROUPS_COUNT];
    struct process_ids ids = {NOBODY, NOBODY, groups, GROUPS_COUNT};
    uint8_t byte;
    int fds[2];

    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < GROUPS_COUNT; i++)
        groups[i] = (gid_t)(GROUP - GROUPS_COUNT + 1 + i);
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
    stage_put(&fixture->stage, "one");
    fixture->inside = inside_mount(fixture->stage.parent, NULL);
    assert_int_equal(pipe(fds), 0);
    fixture->caller = process_fork_as(&ids);
    assert_true(fixture->caller >= 0);
    if (fixture->caller == 0) {
        (void)!write(fds[1], "", 1); /* he is who he is to be */
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
    inside_become(fixture->inside, NOBODY, NOBODY, fixture->caller);
}

static void close_fixture(struct fixture *fixture)
{
    assert_int_equal(kill(fixture->caller, SIGKILL), 0);
    assert_int_equal(temporary_join(fixture->caller, WAIT_MS), 128 + SIGKILL);
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static void let_only(const struct fixture *fixture, gid_t group, mode_t mode)
{
    assert_int_equal(chown(fixture->stage.box, 0, group), 0);
    assert_int_equal(chmod(fixture->stage.box, mode), 0);
}

static uint64_t find(struct fixture *fixture, const char *view)
{
    uint64_t directory = INSIDE_ROOT, node;

    if (view[0] != '\0')
        assert_int_equal(inside_look_up(fixture->inside, INSIDE_ROOT, view, &directory), 0);
    assert_int_equal(inside_look_up(fixture->inside, directory, "4711", &node), 0);
    return node;
}

static int try_to_open(struct fixture *fixture, const char *view, int flags)
{
    uint64_t node = find(fixture, view), handle;
    int result = inside_open(fixture->inside, node, flags, &handle);

    if (result == 0)
        assert_int_equal(inside_release(fixture->inside, node, handle), 0);
    return result;
}

static void test_groups_of_a_caller_count_all_of_them(void **state)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    let_only(&fixture, 0, 0640);
    assert_int_equal(try_to_open(&fixture, ".peek", O_RDONLY), -EACCES);
    let_only(&fixture, NOBODY, 0640); /* his own */
    assert_int_equal(try_to_open(&fixture, ".peek", O_RDONLY), 0);
    let_only(&fixture, GROUP, 0640);
    assert_int_equal(try_to_open(&fixture, ".peek", O_RDONLY), 0);
    assert_int_equal(try_to_open(&fixture, "", O_RDONLY), -EACCES); /* taking writes */
    assert_int_equal(try_to_open(&fixture, "", O_WRONLY), -EACCES);
    let_only(&fixture, GROUP, 0660);
    assert_int_equal(try_to_open(&fixture, "", O_RDWR), 0);
    let_only(&fixture, GROUP, 0606); /* the group's rights are his, not the others' */
    assert_int_equal(try_to_open(&fixture, ".peek", O_RDONLY), -EACCES);
    close_fixture(&fixture);
}

static void test_who_cannot_be_found_out_may_not(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;

    open_fixture(&fixture, state);
    let_only(&fixture, GROUP, 0640);
    node = find(&fixture, ".peek");
    fault_calls("calloc", 1, 2, -ENOMEM); /* the first ones for the box, or for the groups */
    assert_true(inside_open(fixture.inside, node, O_RDONLY, &handle) < 0);
    fault_stop();
    /* The box is there, as somebody uses it: what is lacking is memory for the groups. */
    inside_become(fixture.inside, 0, 0, gettid());
    assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &handle), 0);
    inside_become(fixture.inside, NOBODY, NOBODY, fixture.caller);
    fault_calls("calloc", 1, 1, -ENOMEM);
    {
        uint64_t other;

        assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &other), -EACCES);
    }
    fault_stop();
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    close_fixture(&fixture);
}

/* What was seen stays to be seen, as of any file that is open; of what comes then, nothing. */
static void test_looking_ends_where_it_is_not_allowed_any_more(void **state)
{
    struct fixture fixture;
    struct stat attributes;
    uint64_t node, handle;
    size_t size_bytes;

    open_fixture(&fixture, state);
    let_only(&fixture, 0, 0644);
    node = find(&fixture, ".peek");
    assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &handle), 0);
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), 0);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(size_bytes, 3);
    let_only(&fixture, 0, 0600);
    stage_put(&fixture.stage, "secret");
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 3), 0);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(size_bytes, 0);
    assert_int_equal(inside_get_attributes(fixture.inside, node, &attributes), 0);
    assert_int_equal(attributes.st_size, 3);
    let_only(&fixture, 0, 0644);
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 3), 0);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(size_bytes, 6);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    close_fixture(&fixture);
}

/* Also where only the group, or only the owner, is another one now. */
static void test_taking_and_sending_end_where_they_are_not_allowed_any_more(void **state)
{
    struct fixture fixture;
    uint64_t node, handle, follow, follower;

    open_fixture(&fixture, state);
    let_only(&fixture, GROUP, 0660);
    node = find(&fixture, "");
    follow = find(&fixture, ".follow");
    assert_int_equal(inside_open(fixture.inside, node, O_WRONLY | O_APPEND, &handle), 0);
    assert_int_equal(inside_open(fixture.inside, follow, O_RDONLY, &follower), 0);
    let_only(&fixture, 0, 0660);
    assert_int_equal(inside_write(fixture.inside, node, handle, "x", 1, 0), -ESTALE);
    assert_int_equal(inside_read(fixture.inside, follow, follower, READ_BYTES, 0), -ESTALE);
    stage_expect(&fixture.stage, "one", NULL);
    let_only(&fixture, GROUP, 0660);
    assert_int_equal(inside_write(fixture.inside, node, handle, "x", 1, 0), 0);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    assert_int_equal(inside_release(fixture.inside, follow, follower), 0);
    close_fixture(&fixture);
}

/* ---- Mounts that allow less */

static void test_mount_that_only_looks_refuses_all_else(void **state)
{
    const struct inside_options options = {.read_only = true};
    struct inside *inside;
    struct stage stage;
    uint64_t directory, node, handle;
    size_t size_bytes;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "one");
    inside = inside_mount(stage.parent, &options);
    assert_int_equal(inside_look_up(inside, INSIDE_ROOT, "4711", &node), 0);
    assert_int_equal(inside_open(inside, node, O_RDONLY, &handle), -EROFS);
    assert_int_equal(inside_open(inside, node, O_WRONLY, &handle), -EROFS);
    assert_int_equal(inside_create(inside, INSIDE_ROOT, "4712", O_WRONLY | O_CREAT, &node, &handle),
                     -EROFS);
    assert_int_equal(inside_look_up(inside, INSIDE_ROOT, ".peek", &directory), 0);
    assert_int_equal(inside_look_up(inside, directory, "4711", &node), 0);
    assert_int_equal(inside_open(inside, node, O_RDONLY, &handle), 0);
    assert_int_equal(inside_read(inside, node, handle, READ_BYTES, 0), 0);
    (void)inside_bytes(inside, &size_bytes);
    assert_int_equal(size_bytes, 3);
    assert_int_equal(inside_release(inside, node, handle), 0);
    inside_unmount(inside);
    stage_expect(&stage, "one", NULL);
    stage_clear(&stage);
}

/* It need not be the caller's, nor the daemon's: a process of another user exists, too. */
static void test_live_means_that_there_is_a_process_whosever(void **state)
{
    const struct inside_options options = {.live = true};
    struct inside *inside;
    struct stage stage;
    uint64_t node, handle;
    int result;

    if (geteuid() != 0)
        skip();
    stage_init(&stage, *state);
    stage_set(&stage);
    inside = inside_mount(stage.parent, &options);
    assert_int_equal(chmod(stage.mailboxes, 0777), 0);
    assert_int_equal(chmod(stage.locks, 0777), 0);
    inside_become(inside, NOBODY, getegid(), gettid());
    assert_int_equal(seteuid(NOBODY), 0);
    result = inside_create(inside, INSIDE_ROOT, "1", O_WRONLY | O_CREAT, &node, &handle);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(result, 0);
    assert_int_equal(inside_release(inside, node, handle), 0);
    /* None has such a number: it is more than there may be. */
    assert_int_equal(
        inside_create(inside, INSIDE_ROOT, "2147483647", O_WRONLY | O_CREAT, &node, &handle),
        -ESRCH);
    inside_unmount(inside);
    stage_clear(&stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_groups_of_a_caller_count_all_of_them),
        TEMPORARY_TEST(test_who_cannot_be_found_out_may_not),
        TEMPORARY_TEST(test_looking_ends_where_it_is_not_allowed_any_more),
        TEMPORARY_TEST(test_taking_and_sending_end_where_they_are_not_allowed_any_more),
        TEMPORARY_TEST(test_mount_that_only_looks_refuses_all_else),
        TEMPORARY_TEST(test_live_means_that_there_is_a_process_whosever),
    };

    return cmocka_run_group_tests_name("access, faults", tests, NULL, NULL);
}
