/*
 * The daemon keeps the files of a mailbox open from one request to the next. Nobody is to notice: not
 * by descriptors that stay, not by disk space that a deleted mailbox keeps, and not by a message that
 * went to a file which is not the mailbox any more.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "process.h"
#include "temporary.h"
#include "through.h"

enum {
    BOX = 4711,
    DEADLINE_MS = 20000, /* the usual is two seconds */
    MANY_COUNT = 1200,
    KEPT_MOST_COUNT = 2 * 1024,
    OTHERS_MOST_COUNT = 100, /* of the daemon's own */
};

static size_t descriptors_count(const struct mount *mount)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)mount->daemon);
    return temporary_count(path);
}

/* Before anything was done, but once it serves: it is mounted a moment before it has opened all that
 * it always has. */
static size_t descriptors_count_at_rest(const struct mount *mount)
{
    struct statvfs room;

    assert_int_equal(statvfs(mount->mnt, &room), 0);
    return descriptors_count(mount);
}

static void pause_briefly(void)
{
    static const struct timespec pause = {0, 1000000};

    (void)nanosleep(&pause, NULL);
}

static void await_descriptors(const struct mount *mount, size_t count)
{
    int64_t deadline_ms = process_clock_ms() + DEADLINE_MS;

    while (descriptors_count(mount) > count && process_clock_ms() < deadline_ms)
        pause_briefly();
    assert_in_range(descriptors_count(mount), 1, count);
}

static void files_are_closed_when_nobody_has_used_them_for_a_while(void **state)
{
    enum { COUNT = 20 };
    struct mount *mount = mount_of(state);
    size_t before_count = descriptors_count_at_rest(mount);

    for (int i = 0; i < COUNT; i++)
        through_send(mount, BOX + i, "x");
    await_descriptors(mount, before_count);
    for (int i = 0; i < COUNT; i++)
        through_expect_texts(mount, BOX + i, "x", NULL);
    await_descriptors(mount, before_count);
}

static void there_are_never_more_than_a_certain_number(void **state)
{
    struct mount *mount = mount_of(state);
    size_t before_count = descriptors_count_at_rest(mount);

    assert_in_range(before_count, 1, OTHERS_MOST_COUNT);
    for (int i = 0; i < MANY_COUNT; i++) {
        through_send(mount, BOX + i, "x");
        if (i % 100 == 99)
            assert_in_range(descriptors_count(mount), 1, KEPT_MOST_COUNT + OTHERS_MOST_COUNT);
    }
    await_descriptors(mount, before_count);
}

static uint64_t free_bytes(const struct mount *mount)
{
    struct statvfs room;

    assert_int_equal(statvfs(mount->mail, &room), 0);
    return (uint64_t)room.f_bfree * room.f_frsize;
}

static void deleted_mailbox_gives_its_disk_space_back(void **state)
{
    enum { BYTES = 1024 * 1024 };
    struct mount *mount = mount_of(state);
    static char large[BYTES];
    uint64_t before_bytes = free_bytes(mount);
    int64_t deadline_ms;
    int fd = through_open(mount, BOX, THROUGH_APPEND);

    for (int i = 0; i < 4; i++)
        assert_int_equal(write(fd, large, sizeof(large)), sizeof(large));
    assert_int_equal(close(fd), 0);
    assert_true(free_bytes(mount) + 4 * BYTES <= before_bytes);
    assert_int_equal(unlink(behind_box(mount, BOX)), 0);
    deadline_ms = process_clock_ms() + DEADLINE_MS;
    while (free_bytes(mount) + BYTES < before_bytes && process_clock_ms() < deadline_ms)
        pause_briefly();
    assert_true(free_bytes(mount) + BYTES >= before_bytes);
}

static void move_away(struct mount *mount, const char *path)
{
    assert_int_equal(rename(path, mount_path(mount, "%s/away", mount->root)), 0);
}

static void replace(struct mount *mount, const char *path)
{
    const char *other = mount_path(mount, "%s/other", mount->root);

    assert_int_equal(close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0666)), 0);
    assert_int_equal(rename(other, path), 0);
}

static void delete_it(struct mount *mount, const char *path)
{
    (void)mount;
    assert_int_equal(unlink(path), 0);
}

/* With the file below known to be open, and a file of the mount as well. */
static void what_is_sent_next_goes_to_the_mailbox_that_is_there_now(void **state)
{
    static void (*const changes[])(struct mount *, const char *) = {move_away, replace, delete_it};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        int fd = through_open(mount, BOX, THROUGH_APPEND);

        assert_int_equal(write(fd, "before", 6), 6);
        changes[i](mount, behind_box(mount, BOX));
        assert_int_equal(write(fd, "after", 5), 5);
        behind_expect_texts(mount, BOX, "after", NULL);
        changes[i](mount, mount_path(mount, "%s/%d.lock", mount->locks, BOX));
        assert_int_equal(write(fd, "again", 5), 5);
        behind_expect_texts(mount, BOX, "after", "again", NULL);
        through_expect_texts(mount, BOX, "after", "again", NULL);
        assert_int_equal(close(fd), 0);
    }
}

int main(void)
{
    static const struct mount_options tmpfs = {.place = MOUNT_ON_TMPFS, .place_kib = 16 * 1024};
    static const struct mount_options patient = {.seconds = 100};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(files_are_closed_when_nobody_has_used_them_for_a_while, &patient),
        MOUNT_TEST_WITH(there_are_never_more_than_a_certain_number, &patient),
        MOUNT_TEST_WITH(deleted_mailbox_gives_its_disk_space_back, &tmpfs),
        MOUNT_TEST(what_is_sent_next_goes_to_the_mailbox_that_is_there_now),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("kept", tests, NULL, NULL) == 0 ? 0 : 1;
}
