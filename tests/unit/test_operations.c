/*
 * What a request is answered that names what is not there, or asks for what a mailbox cannot do; and
 * what becomes of one whose answer finds nobody, since who waited for it was interrupted: nothing stays
 * open, and a message goes back to the front.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gprocfs.h"
#include "inside.h"
#include "stage.h"
#include "tree.h"

enum {
    READ_BYTES = 4096,
    STRANGE_VIEW = 7, /* there are six */
    SMALL_ROOM_BYTES = 15,
    OTHER_PID = STAGE_PID + BOXES_BUCKETS_COUNT, /* kept in the same place as STAGE_PID */
};

struct fixture {
    struct stage stage;
    struct inside *inside;
    uint64_t box; /* the mailbox's node */
};

static void mount_on(struct fixture *fixture, void **state, const struct inside_options *options)
{
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
    fixture->inside = inside_mount(fixture->stage.parent, options);
    fixture->box =
        tree_node_id((struct tree_node){.view = TREE_MAILBOX, .pid = STAGE_PID, .picture = 0});
}

static void unmount(struct fixture *fixture)
{
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static uint64_t find(struct fixture *fixture, uint64_t parent, const char *name)
{
    uint64_t node;

    assert_int_equal(inside_look_up(fixture->inside, parent, name, &node), 0);
    return node;
}

static uint64_t find_box(struct fixture *fixture, const char *view)
{
    char name[16];
    uint64_t parent = view[0] != '\0' ? find(fixture, INSIDE_ROOT, view) : INSIDE_ROOT;

    (void)snprintf(name, sizeof(name), "%d", STAGE_PID);
    return find(fixture, parent, name);
}

static uint64_t open_box(struct fixture *fixture, const char *view, int flags, uint64_t *node)
{
    uint64_t handle;

    *node = find_box(fixture, view);
    assert_int_equal(inside_open(fixture->inside, *node, flags, &handle), 0);
    return handle;
}

static int64_t open_files(struct fixture *fixture)
{
    return atomic_load(&inside_fs(fixture->inside)->stats.values[STATS_OPEN_FILES]);
}

static void expect_text(struct fixture *fixture, uint64_t node, uint64_t handle, off_t offset,
                        const char *text)
{
    size_t size_bytes;
    const void *bytes;

    assert_int_equal(inside_read(fixture->inside, node, handle, READ_BYTES, offset), 0);
    bytes = inside_bytes(fixture->inside, &size_bytes);
    assert_int_equal(size_bytes, strlen(text));
    assert_memory_equal(bytes, text, size_bytes);
}

static int ask(struct fixture *fixture, uint32_t operation, uint64_t node, const void *first,
               size_t first_bytes, const char *names, size_t names_bytes)
{
    return inside_await(fixture->inside, inside_send(fixture->inside, operation, node, first,
                                                     first_bytes, names, names_bytes));
}

/* ---- What is not there, and what cannot be done */

/* A node that no name leads to: one of no view, and the root's as a view's. */
static void test_nodes_of_nothing_are_stale(void **state)
{
    struct fixture fixture;
    const uint64_t nowhere[] = {
        (uint64_t)STRANGE_VIEW << 31,
        (uint64_t)STRANGE_VIEW << 31 | STAGE_PID,
        0,
        tree_node_id((struct tree_node){.view = TREE_STATS, .pid = STAGE_PID}),
    };
    struct fuse_setattr_in set = {.valid = FATTR_MODE, .mode = S_IFREG | 0600};
    struct fuse_open_in open_in = {.flags = O_RDONLY};
    struct fuse_create_in create = {.flags = O_WRONLY | O_CREAT, .mode = S_IFREG | 0600};
    struct stat attributes;
    uint64_t found;

    mount_on(&fixture, state, NULL);
    for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        assert_int_equal(inside_get_attributes(fixture.inside, nowhere[i], &attributes), -ESTALE);
        assert_int_equal(ask(&fixture, FUSE_SETATTR, nowhere[i], &set, sizeof(set), NULL, 0),
                         -ESTALE);
        assert_int_equal(inside_open(fixture.inside, nowhere[i], O_RDONLY, &found), -ESTALE);
        assert_int_equal(inside_look_up(fixture.inside, nowhere[i], "4711", &found), -ENOENT);
        assert_int_equal(
            ask(&fixture, FUSE_OPENDIR, nowhere[i], &open_in, sizeof(open_in), NULL, 0), -ENOTDIR);
        assert_int_equal(ask(&fixture, FUSE_CREATE, nowhere[i], &create, sizeof(create), "4711", 5),
                         -EPERM);
    }
    unmount(&fixture);
}

static void test_files_are_no_directories_and_directories_no_files(void **state)
{
    struct fixture fixture;
    struct fuse_open_in open_in = {.flags = O_RDONLY};
    struct fuse_create_in create = {.flags = O_WRONLY | O_CREAT, .mode = S_IFREG | 0600};
    uint64_t found;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    assert_int_equal(inside_look_up(fixture.inside, fixture.box, "4711", &found), -ENOENT);
    assert_int_equal(ask(&fixture, FUSE_OPENDIR, fixture.box, &open_in, sizeof(open_in), NULL, 0),
                     -ENOTDIR);
    assert_int_equal(ask(&fixture, FUSE_CREATE, fixture.box, &create, sizeof(create), "4711", 5),
                     -EPERM);
    assert_int_equal(inside_open(fixture.inside, INSIDE_ROOT, O_RDONLY, &found), -ESTALE);
    assert_int_equal(
        inside_open(fixture.inside, find(&fixture, INSIDE_ROOT, ".peek"), O_RDONLY, &found),
        -ESTALE);
    unmount(&fixture);
}

static void test_names_can_be_made_and_removed_in_the_root_only(void **state)
{
    static const char names[] = "4711\0004712";
    static const struct {
        uint32_t operation;
        size_t in_bytes;
    } others[] = {
        {FUSE_MKDIR, sizeof(struct fuse_mkdir_in)},
        {FUSE_MKNOD, sizeof(struct fuse_mknod_in)},
        {FUSE_LINK, sizeof(struct fuse_link_in)},
        {FUSE_RENAME, sizeof(struct fuse_rename_in)},
        {FUSE_SYMLINK, 0},
        {FUSE_RMDIR, 0},
    };
    static const uint8_t zeros[64];
    struct fuse_create_in create = {.flags = O_WRONLY | O_CREAT, .mode = S_IFREG | 0600};
    struct fixture fixture;
    uint64_t peek;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    peek = find(&fixture, INSIDE_ROOT, ".peek");
    assert_int_equal(ask(&fixture, FUSE_CREATE, peek, &create, sizeof(create), "4711", 5), -EACCES);
    assert_int_equal(inside_unlink(fixture.inside, peek, "4711"), -EPERM);
    assert_int_equal(inside_unlink(fixture.inside, INSIDE_ROOT, ".peek"), -EPERM);
    assert_int_equal(inside_unlink(fixture.inside, INSIDE_ROOT, ".stats"), -EPERM);
    assert_int_equal(inside_unlink(fixture.inside, INSIDE_ROOT, "04711"), -ENOENT);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_int_equal(ask(&fixture, others[i].operation, INSIDE_ROOT, zeros, others[i].in_bytes,
                             names, sizeof(names)),
                         -EPERM);
    stage_expect(&fixture.stage, "x", NULL);
    unmount(&fixture);
}

static void test_copies_inside_the_kernel_are_refused(void **state)
{
    struct fuse_copy_file_range_in in = {.len = 1};
    struct fixture fixture;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    assert_int_equal(ask(&fixture, FUSE_COPY_FILE_RANGE, fixture.box, &in, sizeof(in), NULL, 0),
                     -EINVAL);
    unmount(&fixture);
}

/* As any file that is made up: `tail`, `vim` and `dd` sync and poll what they read. */
static void test_statistics_are_flushed_synced_and_polled_as_any_file(void **state)
{
    struct fuse_fsync_in sync = {.fh = 0};
    struct fixture fixture;
    uint64_t node, handle;
    size_t size_bytes;

    mount_on(&fixture, state, NULL);
    node = find(&fixture, INSIDE_ROOT, ".stats");
    assert_int_equal(inside_open(fixture.inside, node, O_WRONLY, &handle), -EACCES);
    assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &handle), 0);
    sync.fh = handle;
    assert_int_equal(inside_flush(fixture.inside, node, handle), 0);
    assert_int_equal(ask(&fixture, FUSE_FSYNC, node, &sync, sizeof(sync), NULL, 0), 0);
    assert_int_equal(inside_poll(fixture.inside, node, handle, true), POLLIN | POLLRDNORM);
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, -1), 0);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(size_bytes, 0);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

static void test_pictures_can_always_be_read(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    handle = open_box(&fixture, ".peek", O_RDONLY, &node);
    assert_int_equal(inside_poll(fixture.inside, node, handle, true), POLLIN | POLLRDNORM);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

/* ---- Attributes */

static void set_times(struct fixture *fixture, uint32_t valid)
{
    struct fuse_setattr_in in = {.valid = valid, .atime = 1000, .mtime = 2000};

    assert_int_equal(ask(fixture, FUSE_SETATTR, fixture->box, &in, sizeof(in), NULL, 0), 0);
}

static struct stat look_below(const struct fixture *fixture)
{
    struct stat status;

    assert_int_equal(stat(fixture->stage.box, &status), 0);
    return status;
}

static void test_touch_sets_the_times_that_it_names(void **state)
{
    struct fixture fixture;
    struct stat before, after;

    mount_on(&fixture, state, NULL);
    temporary_write(fixture.stage.box, NULL, 0); /* nothing that is read, which is a time, too */
    before = look_below(&fixture);
    set_times(&fixture, FATTR_ATIME);
    after = look_below(&fixture);
    assert_int_equal(after.st_atim.tv_sec, 1000);
    assert_int_equal(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    set_times(&fixture, FATTR_MTIME);
    after = look_below(&fixture);
    assert_int_equal(after.st_atim.tv_sec, 1000);
    assert_int_equal(after.st_mtim.tv_sec, 2000);
    set_times(&fixture, FATTR_ATIME | FATTR_ATIME_NOW);
    after = look_below(&fixture);
    assert_true(after.st_atim.tv_sec >= before.st_atim.tv_sec);
    assert_int_equal(after.st_mtim.tv_sec, 2000);
    set_times(&fixture, FATTR_MTIME | FATTR_MTIME_NOW);
    assert_true(look_below(&fixture).st_mtim.tv_sec >= before.st_mtim.tv_sec);
    unmount(&fixture);
}

static void test_group_can_be_changed_alone(void **state)
{
    struct fuse_setattr_in in = {.valid = FATTR_GID, .gid = getegid()};
    struct fixture fixture;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    assert_int_equal(ask(&fixture, FUSE_SETATTR, fixture.box, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(look_below(&fixture).st_uid, geteuid());
    unmount(&fixture);
}

static void test_attributes_of_what_is_gone_or_none_of_his_are_refused(void **state)
{
    struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = S_IFREG | 0600};
    struct fixture fixture;
    struct stat attributes;

    mount_on(&fixture, state, NULL);
    assert_int_equal(inside_get_attributes(fixture.inside, fixture.box, &attributes), -ESTALE);
    assert_int_equal(ask(&fixture, FUSE_SETATTR, fixture.box, &in, sizeof(in), NULL, 0), -ESTALE);
    assert_int_equal(ask(&fixture, FUSE_SETATTR, INSIDE_ROOT, &in, sizeof(in), NULL, 0), -EPERM);
    stage_put(&fixture.stage, "x");
    assert_int_equal(inside_set_size(fixture.inside, fixture.box, 1), -EINVAL);
    assert_int_equal(inside_set_size(fixture.inside, find_box(&fixture, ".peek"), 0), -EPERM);
    stage_expect(&fixture.stage, "x", NULL);
    unmount(&fixture);
}

/* ---- Answers that find nobody */

static void test_files_of_which_nobody_heard_do_not_stay_open(void **state)
{
    static const char *const views[] = {"", ".follow", ".peek"};
    struct fuse_open_in open_in = {.flags = O_RDONLY};
    struct fixture fixture;
    uint64_t node, handle;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        node = find_box(&fixture, views[i]);
        inside_lose(fixture.inside, 1);
        assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &handle), -ENOENT);
        assert_int_equal(open_files(&fixture), 0);
    }
    inside_lose(fixture.inside, 1);
    assert_int_equal(
        inside_create(fixture.inside, INSIDE_ROOT, "4712", O_WRONLY | O_CREAT, &node, &handle),
        -ENOENT);
    assert_int_equal(open_files(&fixture), 0);
    node = find(&fixture, INSIDE_ROOT, ".stats");
    inside_lose(fixture.inside, 1);
    assert_int_equal(inside_open(fixture.inside, node, O_RDONLY, &handle), -ENOENT);
    assert_null(inside_fs(fixture.inside)->opened.first);
    inside_lose(fixture.inside, 1);
    assert_int_equal(ask(&fixture, FUSE_OPENDIR, INSIDE_ROOT, &open_in, sizeof(open_in), NULL, 0),
                     -ENOENT);
    assert_null(inside_fs(fixture.inside)->opened.first);
    unmount(&fixture);
}

/* Of one that waited alone, which is answered from its mailbox; and of several, which are in flight
 * then. */
static void test_messages_that_nobody_got_are_read_next(void **state)
{
    static const char *const envelopes[] = {"", "17 1\na17 1\nb17 1\nc"};
    static const char *const views[] = {"", ".envelope"};
    struct fixture fixture;
    uint64_t node, handle;

    mount_on(&fixture, state, NULL);
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        stage_put(&fixture.stage, "alone");
        handle = open_box(&fixture, views[i], O_RDONLY, &node);
        inside_lose(fixture.inside, 1);
        assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), -ENOENT);
        stage_expect(&fixture.stage, "alone", NULL);
        expect_text(&fixture, node, handle, 0, i == 0 ? "alone" : "17 5\nalone");
        stage_expect(&fixture.stage, NULL);
        assert_int_equal(inside_release(fixture.inside, node, handle), 0);

        stage_put(&fixture.stage, "a");
        stage_put(&fixture.stage, "b");
        stage_put(&fixture.stage, "c");
        handle = open_box(&fixture, views[i], O_RDONLY, &node);
        inside_lose(fixture.inside, 1);
        assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), -ENOENT);
        if (i == 0) {
            expect_text(&fixture, node, handle, 0, "a");
            inside_lose(fixture.inside, 1);
            assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 1), -ENOENT);
            expect_text(&fixture, node, handle, 1, "b");
            expect_text(&fixture, node, handle, 2, "c");
        } else {
            /* Where there is no room for all: whole ones, and the rest is the next one's. */
            inside_lose(fixture.inside, 1);
            assert_int_equal(inside_read(fixture.inside, node, handle, SMALL_ROOM_BYTES, 0),
                             -ENOENT);
            expect_text(&fixture, node, handle, 0, envelopes[i]);
        }
        assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    }
    unmount(&fixture);
}

/* One of which a part has been read goes on where that part ended. */
static void test_part_that_nobody_got_is_read_next(void **state)
{
    struct fixture fixture;
    uint64_t node, handle;
    size_t size_bytes;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "abcdef");
    stage_put(&fixture.stage, "g");
    handle = open_box(&fixture, "", O_RDONLY, &node);
    inside_lose(fixture.inside, 1);
    assert_int_equal(inside_read(fixture.inside, node, handle, 2, 0), -ENOENT);
    assert_int_equal(inside_read(fixture.inside, node, handle, 2, 0), 0);
    assert_memory_equal(inside_bytes(fixture.inside, &size_bytes), "ab", 2);
    inside_lose(fixture.inside, 1);
    assert_int_equal(inside_read(fixture.inside, node, handle, 2, 2), -ENOENT);
    expect_text(&fixture, node, handle, 2, "cdef");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

/* ---- Reads out of order */

/* What is read at another place returns nothing and takes nothing; sendfile(2) reads ahead in pages, so
 * of these the ones before are waited for, a moment. */
static void test_reads_elsewhere_take_nothing(void **state)
{
    static const struct {
        off_t offset;
        size_t size_bytes;
    } reads[] = {{1, READ_BYTES}, {READ_BYTES, READ_BYTES}, {READ_BYTES, 1}, {0, 0}};
    struct fixture fixture;
    uint64_t node, handle;
    size_t size_bytes;

    mount_on(&fixture, state, NULL);
    stage_put(&fixture.stage, "x");
    handle = open_box(&fixture, "", O_RDONLY, &node);
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        assert_int_equal(
            inside_read(fixture.inside, node, handle, reads[i].size_bytes, reads[i].offset), 0);
        (void)inside_bytes(fixture.inside, &size_bytes);
        assert_int_equal(size_bytes, 0);
        stage_expect(&fixture.stage, "x", NULL);
    }
    expect_text(&fixture, node, handle, 0, "x");
    assert_int_equal(inside_read(fixture.inside, node, handle, READ_BYTES, 0), 0);
    (void)inside_bytes(fixture.inside, &size_bytes);
    assert_int_equal(size_bytes, 0);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

/* ---- Polling */

static void test_pollers_are_told_once_of_what_comes(void **state)
{
    struct fixture fixture;
    uint64_t node, handle, sender;
    int attempt;

    mount_on(&fixture, state, NULL);
    temporary_write(fixture.stage.box, NULL, 0);
    handle = open_box(&fixture, ".follow", O_RDONLY, &node);
    assert_int_equal(inside_poll(fixture.inside, node, handle, true), 0);
    assert_int_equal(inside_poll(fixture.inside, node, handle, true), 0);
    sender = open_box(&fixture, "", O_WRONLY | O_APPEND, &fixture.box);
    assert_int_equal(inside_write(fixture.inside, fixture.box, sender, "x", 1, 0), 0);
    for (attempt = 0; attempt < 20000 && inside_told_count(fixture.inside) == 0; attempt++)
        usleep(1000);
    assert_true(inside_told_count(fixture.inside) > 0);
    assert_int_equal(inside_poll(fixture.inside, node, handle, false), POLLIN | POLLRDNORM);
    assert_int_equal(inside_release(fixture.inside, fixture.box, sender), 0);
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    unmount(&fixture);
}

/* ---- Many mailboxes */

static void test_mailboxes_do_not_get_in_each_others_way(void **state)
{
    struct fixture fixture;
    uint64_t node, handle, other_node, other;
    char name[16];

    mount_on(&fixture, state, NULL);
    (void)snprintf(name, sizeof(name), "%d", OTHER_PID);
    stage_put(&fixture.stage, "mine");
    handle = open_box(&fixture, ".follow", O_RDONLY, &node);
    assert_int_equal(inside_create(fixture.inside, INSIDE_ROOT, name, O_WRONLY | O_CREAT | O_TRUNC,
                                   &other_node, &other),
                     0);
    assert_int_equal(inside_write(fixture.inside, other_node, other, "his", 3, 0), 0);
    assert_int_equal(inside_flush(fixture.inside, other_node, other), 0);
    assert_int_equal(inside_release(fixture.inside, other_node, other), 0);
    expect_text(&fixture, node, handle, 0, "mine");
    assert_int_equal(inside_release(fixture.inside, node, handle), 0);
    assert_int_equal(inside_look_up(fixture.inside, INSIDE_ROOT, name, &other_node), 0);
    assert_int_equal(inside_open(fixture.inside, other_node, O_RDONLY, &other), 0);
    expect_text(&fixture, other_node, other, 0, "his");
    assert_int_equal(inside_release(fixture.inside, other_node, other), 0);
    unmount(&fixture);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_nodes_of_nothing_are_stale),
        TEMPORARY_TEST(test_files_are_no_directories_and_directories_no_files),
        TEMPORARY_TEST(test_names_can_be_made_and_removed_in_the_root_only),
        TEMPORARY_TEST(test_copies_inside_the_kernel_are_refused),
        TEMPORARY_TEST(test_statistics_are_flushed_synced_and_polled_as_any_file),
        TEMPORARY_TEST(test_pictures_can_always_be_read),
        TEMPORARY_TEST(test_touch_sets_the_times_that_it_names),
        TEMPORARY_TEST(test_group_can_be_changed_alone),
        TEMPORARY_TEST(test_attributes_of_what_is_gone_or_none_of_his_are_refused),
        TEMPORARY_TEST(test_files_of_which_nobody_heard_do_not_stay_open),
        TEMPORARY_TEST(test_messages_that_nobody_got_are_read_next),
        TEMPORARY_TEST(test_part_that_nobody_got_is_read_next),
        TEMPORARY_TEST(test_reads_elsewhere_take_nothing),
        TEMPORARY_TEST(test_pollers_are_told_once_of_what_comes),
        TEMPORARY_TEST(test_mailboxes_do_not_get_in_each_others_way),
    };

    return cmocka_run_group_tests_name("operations", tests, NULL, NULL);
}
