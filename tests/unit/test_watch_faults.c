/*
 * Whatever call fails, a mailbox is watched, or is not and the error is handed up; what could not be
 * followed is followed by the next call; and what the kernel says of its watches is understood.
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
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "stage.h"
#include "watch.h"

enum {
    OTHER = 4712,
    THIRD = 4713,
    REPORTS_MOST = 64,
};

struct fixture {
    struct stage stage;
    struct gproc_watch watch;
    pid_t reported[REPORTS_MOST];
    size_t reported_count;
    bool remove_all;      /* when anything is reported */
    unsigned calls_count; /* of inotify_add_watch, so far */
};

static void report(void *context, pid_t pid)
{
    struct fixture *fixture = context;

    assert_true(fixture->reported_count < REPORTS_MOST);
    fixture->reported[fixture->reported_count++] = pid;
    while (fixture->remove_all && fixture->watch.entries_count > 0)
        gproc_watch_remove(&fixture->watch, fixture->watch.entries[0].pid);
}

static struct gproc_place *place_of(struct fixture *fixture)
{
    return &fixture->stage.gproc->mailboxes;
}

static void set(struct fixture *fixture, struct temporary *temporary)
{
    *fixture = (struct fixture){.watch = {.fd = -1}};
    stage_init(&fixture->stage, temporary);
    stage_set(&fixture->stage);
    assert_int_equal(gproc_watch_init(&fixture->watch, place_of(fixture)), 0);
}

static void clear(struct fixture *fixture)
{
    gproc_watch_release(&fixture->watch);
    stage_clear(&fixture->stage);
}

static bool is_readable(const struct fixture *fixture)
{
    struct pollfd watched = {.fd = fixture->watch.fd, .events = POLLIN};

    return poll(&watched, 1, 0) == 1;
}

/* Reads all there is, and forgets it. */
static void settle(struct fixture *fixture)
{
    while (is_readable(fixture))
        assert_true(gproc_watch_read(&fixture->watch, NULL, NULL) >= 0);
}

static bool is_reported(struct fixture *fixture, pid_t pid)
{
    fixture->reported_count = 0;
    assert_true(gproc_watch_read(&fixture->watch, report, fixture) >= 0);
    for (size_t i = 0; i < fixture->reported_count; i++) {
        if (fixture->reported[i] == pid)
            return true;
    }
    return false;
}

/* Fails the test unless a change of the mailbox is seen now. */
static void expect_watched(struct fixture *fixture)
{
    settle(fixture);
    stage_put(&fixture->stage, "x");
    assert_true(is_readable(fixture));
    assert_true(is_reported(fixture, STAGE_PID));
    settle(fixture);
    stage_put(&fixture->stage, "x");
    assert_true(is_reported(fixture, STAGE_PID));
}

/* ---- One call fails */

static void test_mailbox_is_watched_or_an_error_handed_up(void **state)
{
    struct fixture fixture = {.watch = {.fd = -1}};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    for (int exists = 0; exists < 2; exists++) {
        fault_walk_init(&walk);
        do {
            int result;

            stage_set(&fixture.stage);
            if (exists)
                stage_put(&fixture.stage, "x");
            fault_walk_start(&walk);
            result = gproc_watch_init(&fixture.watch, place_of(&fixture));
            if (result == 0)
                result = gproc_watch_add(&fixture.watch, STAGE_PID);
            fault_walk_stop(&walk);
            fault_walk_judge(&walk, result, 0);
            assert_int_equal(fixture.watch.entries_count, result == 0);
            /* Not watched, it may be watched after all. */
            if (fixture.watch.fd >= 0 && result < 0)
                assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
            if (fixture.watch.fd >= 0)
                expect_watched(&fixture);
            clear(&fixture);
        } while (fault_walk_next(&walk));
    }
}

/* What two mailboxes, one of them without a file, have to be followed through. */
static void test_what_could_not_be_followed_is_followed_by_the_next_call(void **state)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct fixture fixture;
        int result;

        set(&fixture, *state);
        stage_put(&fixture.stage, "x");
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
        assert_int_equal(gproc_watch_add(&fixture.watch, OTHER), 0);
        settle(&fixture);
        temporary_remove(fixture.stage.mailboxes);
        fault_walk_start(&walk);
        result = gproc_watch_read(&fixture.watch, report, &fixture);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result >= 0)
            assert_int_equal(result, fixture.reported_count);
        /* Told now, or by the next call. */
        if (fixture.reported_count == 0)
            assert_true(is_reported(&fixture, STAGE_PID));
        assert_true(gproc_watch_read(&fixture.watch, NULL, NULL) >= 0);
        expect_watched(&fixture);
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

static void test_signal_does_not_end_reading(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    settle(&fixture);
    stage_put(&fixture.stage, "x");
    fault_calls("read", 1, 3, -EINTR);
    assert_int_equal(gproc_watch_read(&fixture.watch, NULL, NULL), 1);
    fault_stop();
    clear(&fixture);
}

/* Of all that cannot be followed, the first error is told. */
static void test_first_of_several_errors_is_told(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    assert_int_equal(gproc_watch_add(&fixture.watch, OTHER), 0);
    settle(&fixture);
    stage_put(&fixture.stage, "x");
    temporary_remove(fixture.stage.mailboxes);
    fault_calls("inotify_add_watch", 2, 9, -ENOSPC);
    assert_int_equal(gproc_watch_read(&fixture.watch, NULL, NULL), -ENOSPC);
    fault_stop();
    clear(&fixture);
}

/* Replaced by a file that stays as it is, but for what is written to it: no name tells of it again. */
static void test_file_that_could_not_be_followed_is_tried_again_by_the_next_call(void **state)
{
    const char *other = temporary_path(*state, "parent/gproc/other");
    struct fixture fixture;

    set(&fixture, *state);
    stage_put(&fixture.stage, "x");
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    settle(&fixture);
    temporary_write(other, "", 0);
    assert_int_equal(rename(other, fixture.stage.box), 0);
    fault_calls("inotify_add_watch", 1, 1, -ENOSPC);
    assert_int_equal(gproc_watch_read(&fixture.watch, NULL, NULL), -ENOSPC);
    fault_stop();
    assert_true(gproc_watch_read(&fixture.watch, NULL, NULL) >= 0);
    expect_watched(&fixture);
    clear(&fixture);
}

/* In the order in which they are watched: the directory, the file, the parent. */
enum {
    ADD_DIRECTORY = 1,
    ADD_FILE = 2,
    ADD_PARENT = 3,
};

static void
test_a_mailbox_that_may_not_be_read_is_tried_again_only_when_its_name_changes(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    settle(&fixture);
    fault_calls("inotify_add_watch", 1, 1, -EACCES);
    stage_put(&fixture.stage, "x");
    assert_int_equal(gproc_watch_read(&fixture.watch, NULL, NULL), -EACCES);
    assert_int_equal(gproc_watch_read(&fixture.watch, NULL, NULL), 0);
    fault_stop();
    stage_put(&fixture.stage, "x");
    assert_false(is_readable(&fixture));
    assert_int_equal(unlink(fixture.stage.box), 0);
    expect_watched(&fixture);
    clear(&fixture);
}

static void test_parent_that_cannot_be_watched_for_want_of_rights_is_done_without(void **state)
{
    static const struct {
        int error, result;
    } rows[] = {
        {-EACCES, 0},  {-EEXIST, 0},       {-ENOENT, 0},
        {-ENOTDIR, 0}, {-ENOSPC, -ENOSPC}, {-ENOMEM, -ENOMEM},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture fixture;

        set(&fixture, *state);
        fault_calls("inotify_add_watch", ADD_PARENT, ADD_PARENT, rows[i].error);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), rows[i].result);
        fault_stop();
        if (rows[i].result == 0)
            expect_watched(&fixture);
        clear(&fixture);
    }
}

/* ---- Paths */

/* The longest path that a directory can be opened by is too long for a mailbox in it. */
static void test_path_without_room_for_a_name_is_refused(void **state)
{
    struct temporary *temporary = *state;
    const struct fault_held before = fault_held();
    struct gproc_watch watch;
    struct gproc_place place;
    char path[PATH_MAX];
    size_t length = strlen(temporary->root);

    memcpy(path, temporary->root, length + 1);
    while (length < PATH_MAX - 12) {
        size_t part = PATH_MAX - 10 - length - 1;

        if (part > 200)
            part = 150;
        path[length++] = '/';
        memset(path + length, 'a', part);
        length += part;
        path[length] = '\0';
        assert_int_equal(mkdir(path, 0777), 0);
    }
    assert_int_equal(gproc_place_init(&place, path, 0777), 0);
    assert_int_equal(gproc_watch_init(&watch, &place), 0);
    assert_int_equal(gproc_watch_add(&watch, STAGE_PID), -ENAMETOOLONG);
    assert_int_equal(watch.entries_count, 0);
    gproc_watch_release(&watch);
    gproc_place_release(&place);
    assert_int_equal(fault_held().descriptors_count, before.descriptors_count);
}

/* Where we are is its parent. */
static void test_directory_is_followed_by_a_path_without_a_slash(void **state)
{
    struct fixture fixture;
    struct gproc_place place;
    struct gproc_watch watch;
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(here >= 0);
    set(&fixture, *state);
    assert_int_equal(chdir(fixture.stage.parent), 0);
    assert_int_equal(gproc_place_init(&place, "gproc", 0777), 0);
    assert_int_equal(gproc_watch_init(&watch, &place), 0);
    assert_int_equal(gproc_watch_add(&watch, STAGE_PID), 0);
    assert_int_equal(rmdir(fixture.stage.mailboxes), 0);
    assert_int_equal(gproc_watch_read(&watch, NULL, NULL), 1);
    stage_put(&fixture.stage, "x");
    assert_int_equal(gproc_watch_read(&watch, NULL, NULL), 1);
    gproc_watch_release(&watch);
    gproc_place_release(&place);
    assert_int_equal(fchdir(here), 0);
    close(here);
    clear(&fixture);
}

/* ---- What others do meanwhile */

/* Another, empty directory in its place. */
static void replace_directory(struct fixture *fixture)
{
    const char *other = temporary_path(fixture->stage.temporary, "parent/other");

    temporary_mkdir(other);
    assert_int_equal(rename(other, fixture->stage.mailboxes), 0);
}

static int replace_at_each_look(void *context, const char *name)
{
    if (strcmp(name, "lstat") == 0)
        replace_directory(context);
    return FAULT_NONE;
}

/* When all is watched but the parent, which may not be. */
static int replace_before_the_parent(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (strcmp(name, "inotify_add_watch") != 0 || ++fixture->calls_count % ADD_PARENT != 0)
        return FAULT_NONE;
    replace_directory(fixture);
    return -EACCES;
}

static void test_directory_that_is_replaced_without_end_is_given_up(void **state)
{
    static int (*const others[])(void *, const char *) = {
        replace_at_each_look,
        replace_before_the_parent,
    };

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct fixture fixture;

        set(&fixture, *state);
        fault_start(others[i], &fixture);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), -EAGAIN);
        fault_stop();
        assert_int_equal(fixture.watch.entries_count, 0);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
        expect_watched(&fixture);
        clear(&fixture);
    }
}

/* At the directory's turn, and at the file's. */
static int delete_directory(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (strcmp(name, "inotify_add_watch") == 0 && ++fixture->calls_count == ADD_DIRECTORY)
        assert_int_equal(rmdir(fixture->stage.mailboxes), 0);
    return FAULT_NONE;
}

static int make_it_a_file(struct fixture *fixture, const char *name, unsigned when)
{
    if (strcmp(name, "inotify_add_watch") == 0 && ++fixture->calls_count == when) {
        assert_int_equal(rmdir(fixture->stage.mailboxes), 0);
        temporary_write(fixture->stage.mailboxes, "", 0);
    }
    return FAULT_NONE;
}

static int make_directory_a_file(void *context, const char *name)
{
    return make_it_a_file(context, name, ADD_DIRECTORY);
}

static int make_directory_of_mailbox_a_file(void *context, const char *name)
{
    return make_it_a_file(context, name, ADD_FILE);
}

static void test_directory_that_goes_while_it_is_armed_is_made_again(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    fault_start(delete_directory, &fixture);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    fault_stop();
    expect_watched(&fixture);
    clear(&fixture);
}

static void test_directory_that_becomes_a_file_is_an_error_until_it_is_one_again(void **state)
{
    static int (*const others[])(void *, const char *) = {
        make_directory_a_file,
        make_directory_of_mailbox_a_file,
    };

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct fixture fixture;

        set(&fixture, *state);
        fault_start(others[i], &fixture);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), -ENOTDIR);
        fault_stop();
        assert_int_equal(fixture.watch.entries_count, 0);
        assert_int_equal(unlink(fixture.stage.mailboxes), 0);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
        expect_watched(&fixture);
        clear(&fixture);
    }
}

/* ---- What the kernel says */

/* A watch of the kernel's that ends by itself, as it does when a file system is unmounted. */
static void test_watch_that_the_kernel_ended_is_begun_again(void **state)
{
    for (int of_parent = 0; of_parent < 2; of_parent++) {
        struct fixture fixture;
        int id;

        set(&fixture, *state);
        assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
        settle(&fixture);
        id = of_parent ? fixture.watch.parent_id : fixture.watch.directory_id;
        assert_int_equal(inotify_rm_watch(fixture.watch.fd, id), 0);
        assert_true(is_reported(&fixture, STAGE_PID));
        expect_watched(&fixture);
        assert_int_equal(unlink(fixture.stage.box), 0);
        settle(&fixture);
        assert_int_equal(rmdir(fixture.stage.mailboxes), 0);
        assert_true(is_reported(&fixture, STAGE_PID));
        clear(&fixture);
    }
}

/* Names beside the directory, and in it beside the mailboxes. */
static void test_names_that_are_nobodys_are_no_news(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    settle(&fixture);
    temporary_write(temporary_path(*state, "parent/beside"), "", 0);
    temporary_write(temporary_path(*state, "parent/gproc/notes"), "", 0);
    temporary_write(temporary_path(*state, "parent/gproc/4713"), "", 0);
    assert_true(is_readable(&fixture));
    assert_int_equal(gproc_watch_read(&fixture.watch, report, &fixture), 0);
    assert_int_equal(fixture.reported_count, 0);
    clear(&fixture);
}

/* An event of the parent without a name: that it is unmounted, which another event ends. */
static void test_event_of_the_parent_without_a_name_is_no_news(void **state)
{
    struct inotify_event event = {.mask = IN_UNMOUNT};
    struct fixture fixture;
    int fds[2];
    int saved;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    settle(&fixture);
    event.wd = fixture.watch.parent_id;
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(write(fds[1], &event, sizeof(event)), sizeof(event));
    saved = fcntl(fixture.watch.fd, F_DUPFD_CLOEXEC, 0);
    assert_true(saved >= 0);
    assert_int_equal(dup3(fds[0], fixture.watch.fd, O_CLOEXEC), fixture.watch.fd);
    assert_int_equal(gproc_watch_read(&fixture.watch, report, &fixture), 0);
    assert_int_equal(dup3(saved, fixture.watch.fd, O_CLOEXEC), fixture.watch.fd);
    close(saved);
    close(fds[0]);
    close(fds[1]);
    expect_watched(&fixture);
    clear(&fixture);
}

static void test_who_is_told_may_remove_all(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    assert_int_equal(gproc_watch_add(&fixture.watch, STAGE_PID), 0);
    assert_int_equal(gproc_watch_add(&fixture.watch, OTHER), 0);
    assert_int_equal(gproc_watch_add(&fixture.watch, THIRD), 0);
    settle(&fixture);
    temporary_write(temporary_path(*state, "parent/gproc/4711"), "", 0);
    temporary_write(temporary_path(*state, "parent/gproc/4712"), "", 0);
    temporary_write(temporary_path(*state, "parent/gproc/4713"), "", 0);
    fixture.remove_all = true;
    assert_int_equal(gproc_watch_read(&fixture.watch, report, &fixture), 1);
    assert_int_equal(fixture.reported_count, 1);
    clear(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_mailbox_is_watched_or_an_error_handed_up),
        TEMPORARY_TEST(test_what_could_not_be_followed_is_followed_by_the_next_call),
        TEMPORARY_TEST(test_signal_does_not_end_reading),
        TEMPORARY_TEST(test_first_of_several_errors_is_told),
        TEMPORARY_TEST(test_file_that_could_not_be_followed_is_tried_again_by_the_next_call),
        TEMPORARY_TEST(
            test_a_mailbox_that_may_not_be_read_is_tried_again_only_when_its_name_changes),
        TEMPORARY_TEST(test_parent_that_cannot_be_watched_for_want_of_rights_is_done_without),
        TEMPORARY_TEST(test_path_without_room_for_a_name_is_refused),
        TEMPORARY_TEST(test_directory_is_followed_by_a_path_without_a_slash),
        TEMPORARY_TEST(test_directory_that_is_replaced_without_end_is_given_up),
        TEMPORARY_TEST(test_directory_that_goes_while_it_is_armed_is_made_again),
        TEMPORARY_TEST(test_directory_that_becomes_a_file_is_an_error_until_it_is_one_again),
        TEMPORARY_TEST(test_watch_that_the_kernel_ended_is_begun_again),
        TEMPORARY_TEST(test_names_that_are_nobodys_are_no_news),
        TEMPORARY_TEST(test_event_of_the_parent_without_a_name_is_no_news),
        TEMPORARY_TEST(test_who_is_told_may_remove_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
