/* Pictures of large mailboxes: whom they hold up, how they end, and what room they leave. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    MIB = 1 << 20,
    LARGE_MIB = 256,
    BEGUN_MIB = 16, /* of a picture: it is being taken */
    WAIT_MS = 10000,
};

static const char peek[] = ".peek";

static int large_mib(void)
{
    int size = LARGE_MIB / (int)mount_scale();

    return size > 2 * BEGUN_MIB ? size : 2 * BEGUN_MIB;
}

/* Messages of this size, as many as asked for. */
static void fill_box(struct mount *mount, size_t size_bytes, int count)
{
    uint8_t *payload = malloc(size_bytes);
    int result = 0;

    assert_non_null(payload);
    for (int i = 0; i < count && result == 0; i++) {
        memset(payload, 'a' + i % 26, size_bytes);
        result = behind_send(mount, BOX, 1, payload, size_bytes);
    }
    free(payload);
    assert_int_equal(result, 0);
}

/* What is left in the file system of the mailboxes. */
static int64_t room_bytes(const struct mount *mount)
{
    struct statvfs room;

    assert_success(statvfs(mount->mail, &room));
    return (int64_t)room.f_bavail * (int64_t)room.f_bsize;
}

/* Asks for the size of an open file: that takes the whole picture. */
static void measure_file(int fd, struct through_answer *answer)
{
    struct stat status;

    answer->result = fstat(fd, &status) == 0 ? 0 : -1;
    answer->error = errno;
}

/* Starts one, and waits until a good part of the picture is there. */
static struct through_waiter start_picture(struct mount *mount)
{
    int fd = view_open(mount, peek, BOX);
    int64_t before_bytes = room_bytes(mount);
    int64_t deadline_ms = process_clock_ms() + WAIT_MS;
    struct through_waiter waiter = through_start(0, fd, measure_file);

    assert_success(close(fd));
    while (room_bytes(mount) > before_bytes - (int64_t)BEGUN_MIB * MIB) {
        if (process_clock_ms() > deadline_ms)
            fail_msg("no picture is being taken");
    }
    return waiter;
}

static bool has_answered(const struct through_waiter *waiter)
{
    struct pollfd answered = {.fd = waiter->answer_fd, .events = POLLIN};

    return poll(&answered, 1, 0) == 1;
}

/* --- Who is held up -------------------------------------------------------------------------- */

enum {
    TIMES_MOST = 4096,
};

struct times {
    int64_t ns[TIMES_MOST];
    size_t count;
};

static int compare_times(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a;
    int64_t second = *(const int64_t *)b;

    return (first > second) - (first < second);
}

/* Usually they take a small part of what the picture does; a single one may meet a machine that is
 * busy. */
static void expect_quick(struct times *times, const char *what, int64_t picture_ns)
{
    int64_t usual_ns;
    int64_t worst_ns;

    assert_true(times->count > 0);
    qsort(times->ns, times->count, sizeof(times->ns[0]), compare_times);
    usual_ns = times->ns[times->count / 2];
    worst_ns = times->ns[times->count - 1];
    print_message("%zu of %s while a picture took %lld us: usually %lld us, at most %lld\n",
                  times->count, what, (long long)picture_ns / 1000, (long long)usual_ns / 1000,
                  (long long)worst_ns / 1000);
    if (mount_is_sanitized())
        return;
    assert_true(times->count >= 3);
    assert_true(usual_ns < picture_ns / 8);
    assert_true(worst_ns < picture_ns * 2 / 3);
}

static void note(struct times *times, int64_t begin_ns)
{
    if (times->count < TIMES_MOST)
        times->ns[times->count++] = through_clock_ns() - begin_ns;
}

static void senders_and_ls_do_not_wait_for_a_large_picture(void **state)
{
    static struct times sends;
    static struct times looks;
    struct mount *mount = mount_of(state);
    struct stat status;

    fill_box(mount, MIB, large_mib());
    assert_success(stat(through_box(mount, BOX), &status)); /* it is counted once */
    for (int i = 0; i < 3; i++) {
        int64_t picture_ns = through_clock_ns();
        struct through_waiter waiter = start_picture(mount);

        sends.count = looks.count = 0;
        while (!has_answered(&waiter)) {
            int64_t begin_ns = through_clock_ns();

            through_send(mount, BOX, "meanwhile");
            note(&sends, begin_ns);
            begin_ns = through_clock_ns();
            assert_success(stat(through_box(mount, BOX), &status));
            note(&looks, begin_ns);
        }
        picture_ns = through_clock_ns() - picture_ns;
        assert_true(through_await(&waiter).result >= 0);
        expect_quick(&sends, "sending", picture_ns);
        expect_quick(&looks, "looking", picture_ns);
    }
}

static void one_who_is_killed_while_his_picture_is_taken_is_gone_at_once(void **state)
{
    enum { TIMES = 6, AT_ONCE_MS = 100 };
    struct mount *mount = mount_of(state);
    int64_t worst_ms = 0;
    int64_t room_before_bytes;
    int late = 0;

    fill_box(mount, MIB, large_mib());
    room_before_bytes = room_bytes(mount);
    for (int i = 0; i < TIMES; i++) {
        struct through_waiter waiter = start_picture(mount);
        int64_t took_ms = through_kill_ms(&waiter);

        worst_ms = took_ms > worst_ms ? took_ms : worst_ms;
        late += took_ms > AT_ONCE_MS;
        through_await_open(mount, 0);
        assert_int_equal(room_bytes(mount), room_before_bytes);
    }
    print_message("killed, they were gone after at most %" PRId64 " ms\n", worst_ms);
    assert_true(mount_is_sanitized() || late <= 1);
}

static void daemon_that_ends_does_not_wait_for_a_picture(void **state)
{
    enum { UNMOUNT_MS = 1000 };
    struct mount *mount = mount_of(state);
    struct stat before;
    struct stat after;

    fill_box(mount, MIB, large_mib());
    assert_success(stat(behind_box(mount, BOX), &before));
    for (int i = 0; i < 3; i++) {
        struct through_waiter waiter = start_picture(mount);
        int64_t took_ms = process_clock_ms();

        assert_int_equal(mount_stop(mount), 0);
        took_ms = process_clock_ms() - took_ms;
        (void)through_await(&waiter);
        print_message("ended after %lld ms\n", (long long)took_ms);
        assert_true(mount_is_sanitized() || took_ms < UNMOUNT_MS);
        assert_success(stat(behind_box(mount, BOX), &after));
        assert_int_equal(after.st_size, before.st_size);
        assert_int_equal(mount_start(mount), 0);
    }
}

/* What was there when it was first read is all shown, though it comes in slices. */
static void large_picture_read_first_has_what_is_received_meanwhile(void **state)
{
    enum { MESSAGES = 16 };
    struct mount *mount = mount_of(state);
    uint8_t *drained;
    char start[10];
    size_t size_bytes;
    int fd;

    fill_box(mount, MIB, MESSAGES);
    fd = view_open(mount, peek, BOX);
    assert_int_equal(read(fd, start, sizeof(start)), sizeof(start));
    assert_true(behind_drain(mount, BOX, &drained) > 0);
    mount_keep(mount, drained);
    (void)view_read_on(mount, fd, &size_bytes);
    assert_success(close(fd));
    assert_int_equal(sizeof(start) + size_bytes, MESSAGES * MIB);
}

/* --- What room they leave --------------------------------------------------------------------- */

/* The daemon's $TMPDIR from now on is in the file system of the mailboxes. */
static void put_temporary_beside_the_mail(struct mount *mount)
{
    assert_int_equal(mount_stop(mount), 0);
    assert_success(mkdir(mount_path(mount, "%s/tmp", mount->mail), 0700));
    assert_success(rmdir(mount->work));
    assert_success(symlink(mount_path(mount, "%s/tmp", mount->mail), mount->work));
    assert_int_equal(mount_start(mount), 0);
}

/* Reads to the end: 0, or the errno that it ends with. */
static int read_all(int fd)
{
    static char buffer[MIB];
    ssize_t got;

    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        ;
    return got < 0 ? errno : 0;
}

/* Many look at once. Those for whom there is no room hear so, and senders do not miss it. */
static void expect_room_is_left(struct mount *mount)
{
    enum { PICTURES = 12, MESSAGE_BYTES = 512 * 1024 };
    uint8_t *payload = through_payload(mount, MESSAGE_BYTES, 1);
    int opened[PICTURES];
    int refused = 0;
    int error;
    int fd;

    for (int i = 0; i < PICTURES; i++) {
        opened[i] = view_open(mount, peek, BOX);
        error = read_all(opened[i]);
        if (error != 0)
            assert_int_equal(error, ENOSPC);
        refused += error != 0;
    }
    print_message("%d of %d refused, %lld KiB left\n", refused, PICTURES,
                  (long long)room_bytes(mount) / 1024);
    assert_in_range(refused, 1, PICTURES - 1);
    fd = through_open(mount, BOX, THROUGH_REPLACE);
    error = through_write(fd, payload, MESSAGE_BYTES);
    if (close(fd) != 0 && error == 0)
        error = errno;
    for (int i = 0; i < PICTURES; i++)
        assert_success(close(opened[i]));
    if (error != 0)
        fail_msg("sending while pictures are open: %s", strerror(error));
    /* And when they are closed, there is room for the next one. */
    through_await_open(mount, 0);
    fd = view_open(mount, peek, BOX);
    assert_int_equal(read_all(fd), 0);
    assert_success(close(fd));
}

static void pictures_of_many_messages_leave_room_for_senders(void **state)
{
    struct mount *mount = mount_of(state);

    put_temporary_beside_the_mail(mount);
    fill_box(mount, MIB, 16);
    expect_room_is_left(mount);
}

static void pictures_of_one_large_message_leave_room_for_senders(void **state)
{
    struct mount *mount = mount_of(state);

    put_temporary_beside_the_mail(mount);
    fill_box(mount, 20 * MIB, 1);
    expect_room_is_left(mount);
}

/* Leaves this much room, or a little less. */
static void fill_up(struct mount *mount, int64_t left_bytes)
{
    static const char zeros[4096];
    int fd =
        open(mount_path(mount, "%s/filler", mount->mail), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    while (room_bytes(mount) > left_bytes && write(fd, zeros, sizeof(zeros)) > 0)
        ;
    assert_success(close(fd));
    assert_true(room_bytes(mount) <= left_bytes);
}

/* With $TMPDIR elsewhere, where there is room. */
static void expect_shown_with_room(struct mount *mount, int64_t left_bytes)
{
    enum { MESSAGES = 8 };
    int error;
    int fd;

    fill_box(mount, MIB, MESSAGES);
    fill_up(mount, left_bytes);
    fd = view_open(mount, peek, BOX);
    error = read_all(fd);
    if (error != 0)
        fail_msg("with room for %lld KiB: %s", (long long)left_bytes / 1024, strerror(error));
    assert_int_equal(view_size(fd), MESSAGES * MIB);
    assert_success(close(fd));
    through_expect_run(mount, "sh", "9\n", "wc -l < $M/.list/%d", BOX);
}

static void full_file_system_is_looked_at_all_the_same(void **state)
{
    expect_shown_with_room(mount_of(state), 0);
}

static void file_system_with_little_room_is_looked_at_all_the_same(void **state)
{
    expect_shown_with_room(mount_of(state), 256 * 1024);
}

static void file_system_with_less_than_a_tenth_of_room_is_looked_at_all_the_same(void **state)
{
    expect_shown_with_room(mount_of(state), 6 * MIB);
}

int main(void)
{
    static const struct mount_options large = {
        .place = MOUNT_ON_TMPFS, .place_kib = 3 * LARGE_MIB * 1024, .seconds = 90};
    static const struct mount_options small = {
        .place = MOUNT_ON_TMPFS, .place_kib = 64 * 1024, .chatty = true, .seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(senders_and_ls_do_not_wait_for_a_large_picture, &large),
        MOUNT_TEST_WITH(one_who_is_killed_while_his_picture_is_taken_is_gone_at_once, &large),
        MOUNT_TEST_WITH(daemon_that_ends_does_not_wait_for_a_picture, &large),
        MOUNT_TEST_WITH(large_picture_read_first_has_what_is_received_meanwhile, &large),
        MOUNT_TEST_WITH(pictures_of_many_messages_leave_room_for_senders, &small),
        MOUNT_TEST_WITH(pictures_of_one_large_message_leave_room_for_senders, &small),
        MOUNT_TEST_WITH(full_file_system_is_looked_at_all_the_same, &small),
        MOUNT_TEST_WITH(file_system_with_little_room_is_looked_at_all_the_same, &small),
        MOUNT_TEST_WITH(file_system_with_less_than_a_tenth_of_room_is_looked_at_all_the_same,
                        &small),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("pictures", tests, NULL, NULL) == 0 ? 0 : 1;
}
