/* Who may do what: a daemon of root for everybody, and a daemon of an ordinary user. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    ALICE = 1000,
    BOB = 65534,
    WORK_MS = 5000,
};

/* What a user does with a mailbox: 0, or the errno that it met. */
typedef int work_function(const char *path);

/* The errno that a user's process ends with; 255 where it did not end by itself. */
static int as_user(uid_t uid, work_function *work, const char *path)
{
    pid_t pid = process_fork(uid);
    int status;

    if (pid == 0) {
        umask(022);
        _exit(work(path));
    }
    assert_true(pid > 0);
    status = process_wait(pid, WORK_MS);
    return status >= 0 && status < 128 ? status : 255;
}

static int send_with(const char *path, int flags)
{
    int fd = open(path, flags, 0666);
    int error;

    if (fd < 0)
        return errno;
    error = through_write(fd, "hello", 5);
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

static int do_replace(const char *path)
{
    return send_with(path, THROUGH_REPLACE);
}

static int do_append(const char *path)
{
    return send_with(path, THROUGH_APPEND);
}

static int do_receive(const char *path)
{
    char buffer[64];
    int fd = open(path, THROUGH_RECEIVE);
    ssize_t got;

    if (fd < 0)
        return errno;
    got = read(fd, buffer, sizeof(buffer));
    return got < 0 ? errno : got == 5 ? 0 : ENODATA;
}

static int do_stat(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 ? 0 : errno;
}

static int do_clear(const char *path)
{
    return truncate(path, 0) == 0 ? 0 : errno;
}

static int do_remove(const char *path)
{
    return unlink(path) == 0 ? 0 : errno;
}

static int do_chmod(const char *path)
{
    return chmod(path, 0666) == 0 ? 0 : errno;
}

static int do_chown_to_alice(const char *path)
{
    return chown(path, ALICE, ALICE) == 0 ? 0 : errno;
}

/* A mailbox of this user with this mode, and a message in it. */
static void plant(struct mount *mount, int pid, uid_t uid, mode_t mode)
{
    behind_expect_sent(mount, pid, 1, "hello");
    assert_success(chown(behind_box(mount, pid), uid, (gid_t)uid));
    assert_success(chmod(behind_box(mount, pid), mode));
    /* As a sender of the reference that runs as this user would have left it. */
    assert_success(chown(behind_lock_file(mount, pid), uid, (gid_t)uid));
}

static struct stat stat_of(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        fail_msg("%s: %s", path, strerror(errno));
    return status;
}

/* --- The daemon of root ---------------------------------------------------------------------- */

static void mailbox_made_for_a_user_belongs_to_that_user(void **state)
{
    static work_function *const works[] = {do_replace, do_append};
    static const uid_t users[] = {0, ALICE, BOB};
    struct mount *mount = mount_of(state);
    int pid = BOX;

    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        for (size_t j = 0; j < sizeof(users) / sizeof(users[0]); j++, pid++) {
            struct stat status;

            assert_int_equal(as_user(users[j], works[i], through_box(mount, pid)), 0);
            status = stat_of(behind_box(mount, pid));
            assert_int_equal(status.st_uid, users[j]);
            assert_int_equal(status.st_gid, users[j]);
            assert_int_equal(status.st_mode & 07777, 0644);
            status = stat_of(through_box(mount, pid));
            assert_int_equal(status.st_uid, users[j]);
            behind_expect_texts(mount, pid, "hello", NULL);
            assert_int_equal(as_user(users[j], do_receive, through_box(mount, pid)), 0);
        }
    }
}

/* So that a Go program of that user can take it too. */
static void lock_made_for_a_user_can_be_opened_by_that_user_behind(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;

    assert_int_equal(as_user(ALICE, do_replace, through_box(mount, BOX)), 0);
    status = stat_of(behind_lock_file(mount, BOX));
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_uid, ALICE);
}

static void private_mailbox_of_another_user_is_closed(void **state)
{
    static work_function *const works[] = {do_replace, do_append, do_receive, do_clear};
    struct mount *mount = mount_of(state);

    plant(mount, BOX, ALICE, 0600);
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        int error = as_user(BOB, works[i], through_box(mount, BOX));

        if (error != EACCES)
            fail_msg("work %zu: errno %d", i, error);
    }
    assert_int_equal(as_user(BOB, do_stat, through_box(mount, BOX)), 0);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
    assert_int_equal(as_user(ALICE, do_append, through_box(mount, BOX)), 0);
    assert_int_equal(as_user(ALICE, do_receive, through_box(mount, BOX)), 0);
    assert_int_equal(as_user(0, do_receive, through_box(mount, BOX)), 0);
}

static void permission_is_asked_again_after_it_was_taken_away_behind(void **state)
{
    struct mount *mount = mount_of(state);

    plant(mount, BOX, ALICE, 0666);
    assert_int_equal(as_user(BOB, do_append, through_box(mount, BOX)), 0);
    assert_success(chmod(behind_box(mount, BOX), 0600));
    assert_int_equal(as_user(BOB, do_append, through_box(mount, BOX)), EACCES);
    assert_int_equal(as_user(BOB, do_receive, through_box(mount, BOX)), EACCES);
    behind_expect_texts(mount, BOX, "hello", "hello", NULL);
}

/* Taking changes the mailbox: who may only read, or only write, may not take. */
static void receiving_needs_the_right_to_read_and_to_write(void **state)
{
    static const mode_t modes[] = {0444, 0644, 0600, 0222, 0622, 0640};
    struct mount *mount = mount_of(state);

    for (int i = 0; i < (int)(sizeof(modes) / sizeof(modes[0])); i++) {
        plant(mount, BOX + i, ALICE, modes[i]);
        assert_int_equal(as_user(BOB, do_receive, through_box(mount, BOX + i)), EACCES);
        behind_expect_frame(mount, BOX + i, 1, "hello", 5);
    }
    plant(mount, BOX + 10, ALICE, 0444);
    assert_int_equal(as_user(ALICE, do_receive, through_box(mount, BOX + 10)), EACCES);
    plant(mount, BOX + 11, ALICE, 0666);
    assert_int_equal(as_user(BOB, do_receive, through_box(mount, BOX + 11)), 0);
}

static void sending_needs_the_right_to_write_alone(void **state)
{
    static work_function *const works[] = {do_replace, do_append};
    struct mount *mount = mount_of(state);

    plant(mount, BOX, ALICE, 0622);
    plant(mount, OTHER, ALICE, 0644);
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        assert_int_equal(as_user(BOB, works[i], through_box(mount, BOX)), 0);
        assert_int_equal(as_user(BOB, works[i], through_box(mount, OTHER)), EACCES);
    }
    behind_expect_texts(mount, BOX, "hello", "hello", "hello", NULL);
    behind_expect_frame(mount, OTHER, 1, "hello", 5);
}

static void mailbox_of_another_user_can_be_neither_changed_nor_removed(void **state)
{
    static work_function *const works[] = {do_remove, do_chmod, do_chown_to_alice};
    struct mount *mount = mount_of(state);
    struct stat status;

    plant(mount, BOX, ALICE, 0666);
    assert_success(chmod(mount->mail, 01777));
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        int error = as_user(BOB, works[i], through_box(mount, BOX));

        if (error != EPERM && error != EACCES)
            fail_msg("work %zu: errno %d", i, error);
    }
    /* Nor can one give away what is one's own. */
    plant(mount, OTHER, BOB, 0666);
    assert_int_equal(as_user(BOB, do_chown_to_alice, through_box(mount, OTHER)), EPERM);
    status = stat_of(behind_box(mount, BOX));
    assert_int_equal(status.st_uid, ALICE);
    assert_int_equal(status.st_mode & 07777, 0666);
    assert_int_equal(stat_of(behind_box(mount, OTHER)).st_uid, BOB);
    assert_int_equal(as_user(BOB, do_remove, through_box(mount, OTHER)), 0);
    assert_errno(access(behind_box(mount, OTHER), F_OK), ENOENT);
}

static void directory_that_a_user_may_not_write_takes_no_new_mailbox(void **state)
{
    struct mount *mount = mount_of(state);

    assert_success(chmod(mount->mail, 0755));
    assert_int_equal(as_user(BOB, do_replace, through_box(mount, BOX)), EACCES);
    assert_int_equal(as_user(BOB, do_append, through_box(mount, BOX)), EACCES);
    assert_errno(access(behind_box(mount, BOX), F_OK), ENOENT);
    assert_int_equal(as_user(0, do_replace, through_box(mount, BOX)), 0);
}

static void sender_is_the_user_s_process(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result = through_run_as(mount, ALICE, "sh", "echo $$; echo hi > $M/4711");

    assert_int_equal(result.status, 0);
    behind_expect_frame(mount, BOX, (int32_t)strtol(result.out, NULL, 10), "hi\n", 3);
}

static void message_that_goes_back_leaves_the_mailbox_to_its_owner(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;
    char byte;
    int fd;

    plant(mount, BOX, ALICE, 0660);
    behind_expect_sent(mount, BOX, 1, "world");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_success(close(fd));
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, "hello", "world", NULL);
    status = stat_of(behind_box(mount, BOX));
    assert_int_equal(status.st_uid, ALICE);
    assert_int_equal(status.st_gid, ALICE);
    assert_int_equal(status.st_mode & 07777, 0660);
}

/* What was taken from a private mailbox is as private in the in-flight store. */
static void what_is_in_flight_can_be_read_by_nobody_else(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result;
    char byte;
    int fd;

    plant(mount, BOX, ALICE, 0600);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, &byte, 1), 1);
    result = through_run_as(mount, BOB, "sh", "grep -r hello $B 2>/dev/null");
    assert_int_not_equal(result.status, 0);
    assert_string_equal(result.out, "");
    assert_success(close(fd));
}

/*
 * A process id is used again, and so is its mailbox's name: a descriptor that was opened for the
 * old mailbox gets nothing of the new one, which is somebody else's.
 */
static int do_keep_over_the_change(const char *path)
{
    char buffer[64];
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    int writer = open(path, THROUGH_APPEND, 0666);

    if (reader < 0 || writer < 0 || read(reader, buffer, sizeof(buffer)) != 5)
        return EIO;
    /* The parent sees it, makes the other mailbox, and then the file that is waited for. */
    if (unlink(path) != 0)
        return errno;
    while (access(getenv("CHANGED"), F_OK) != 0)
        (void)poll(NULL, 0, 1);
    if (read(reader, buffer, sizeof(buffer)) >= 0 || errno != ESTALE)
        return EPERM;
    return write(writer, "evil", 4) < 0 && errno == ESTALE ? 0 : EPERM;
}

static void old_descriptor_is_none_of_the_next_owners_mailbox(void **state)
{
    struct mount *mount = mount_of(state);
    const char *changed = mount_keep(mount, strdup(mount_path(mount, "%s/changed", mount->root)));
    int64_t deadline_ms = process_clock_ms() + 10000;
    pid_t child;

    assert_success(setenv("CHANGED", changed, 1));
    assert_success(chmod(mount->mail, 0777));
    plant(mount, BOX, ALICE, 0600);
    child = process_fork(ALICE);
    if (child == 0)
        _exit(do_keep_over_the_change(through_box(mount, BOX)));
    while (access(behind_box(mount, BOX), F_OK) == 0 && process_clock_ms() < deadline_ms)
        (void)poll(NULL, 0, 1);
    plant(mount, BOX, BOB, 0600);
    assert_true(close(creat(changed, 0644)) == 0);
    assert_int_equal(process_wait(child, 10000), 0);
    behind_expect_texts(mount, BOX, "hello", NULL);
    assert_success(unlink(changed));
}

/* Nor is what is in flight of a deleted mailbox for whoever makes the next one; not by unmounting
 * either. */
static void mail_in_flight_is_not_for_the_next_owner(void **state)
{
    struct mount *mount = mount_of(state);
    char byte;
    int fd;

    plant(mount, BOX, ALICE, 0600);
    behind_expect_sent(mount, BOX, 1, "secret");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_success(close(fd));
    assert_success(unlink(behind_box(mount, BOX)));
    plant(mount, BOX, BOB, 0600);
    assert_string_equal(through_run_as(mount, BOB, "sh", "cat $M/4711").out, "hello");
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, NULL);
}

/* --- The daemon of an ordinary user ---------------------------------------------------------- */

static void ordinary_user_mounts_sends_and_receives(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result =
        through_run_as(mount, mount->options->uid, "sh",
                       "echo data > $M/4711; echo more >> $M/4711; cat $M/4711; ls $M");
    struct stat status;

    assert_string_equal(result.err, "");
    assert_string_equal(result.out, "data\nmore\n4711\n");
    assert_int_equal(result.status, 0);
    status = stat_of(behind_box(mount, BOX));
    assert_int_equal(status.st_uid, mount->options->uid);
    assert_int_equal(status.st_mode & 07777, 0644);
    assert_int_equal(stat_of(behind_lock_file(mount, BOX)).st_mode & 07777, 0600);
}

static void ordinary_user_s_unmount_puts_back_what_is_unread(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result =
        through_run_as(mount, mount->options->uid, "sh",
                       "echo one > $M/4711; echo two > $M/4711; head -n1 $M/4711");

    assert_string_equal(result.out, "one\n");
    assert_int_equal(result.status, 0);
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, "two\n", NULL);
    assert_int_equal(mount_start(mount), 0);
    result = through_run_as(mount, mount->options->uid, "sh", "cat $M/4711");
    assert_string_equal(result.out, "two\n");
}

static void ordinary_user_s_daemon_has_no_more_rights_than_that_user(void **state)
{
    static work_function *const works[] = {do_replace, do_append, do_receive};
    struct mount *mount = mount_of(state);

    plant(mount, BOX, BOB, 0600);
    /* The lock alone is closed. */
    plant(mount, OTHER, BOB, 0666);
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        assert_int_equal(as_user(ALICE, works[i], through_box(mount, BOX)), EACCES);
        assert_int_equal(as_user(ALICE, works[i], through_box(mount, OTHER)), EACCES);
    }
    behind_expect_frame(mount, BOX, 1, "hello", 5);
    behind_expect_frame(mount, OTHER, 1, "hello", 5);
}

static void unmount_by_fusermount_ends_the_daemon_cleanly(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result = through_run_as(
        mount, mount->options->uid, "sh",
        "echo one > $M/4711; echo two > $M/4711; head -n1 $M/4711; fusermount3 -u $M");
    int status;

    assert_string_equal(result.out, "one\n");
    assert_int_equal(result.status, 0);
    status = mount_stop(mount);
    assert_int_equal(status, 0);
    behind_expect_texts(mount, BOX, "two\n", NULL);
}

int main(void)
{
    static const struct mount_options for_all = {
        .options = "allow_other", .needs_root = true, .for_all = true};
    static const struct mount_options for_all_chatty = {
        .options = "allow_other", .needs_root = true, .for_all = true, .chatty = true};
    static const struct mount_options alice = {.uid = ALICE};
    static const struct mount_options bob = {.uid = BOB};
    static const struct mount_options alice_chatty = {.uid = ALICE, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(mailbox_made_for_a_user_belongs_to_that_user, &for_all),
        MOUNT_TEST_WITH(lock_made_for_a_user_can_be_opened_by_that_user_behind, &for_all),
        MOUNT_TEST_WITH(private_mailbox_of_another_user_is_closed, &for_all_chatty),
        MOUNT_TEST_WITH(permission_is_asked_again_after_it_was_taken_away_behind, &for_all_chatty),
        MOUNT_TEST_WITH(receiving_needs_the_right_to_read_and_to_write, &for_all_chatty),
        MOUNT_TEST_WITH(sending_needs_the_right_to_write_alone, &for_all_chatty),
        MOUNT_TEST_WITH(mailbox_of_another_user_can_be_neither_changed_nor_removed, &for_all),
        MOUNT_TEST_WITH(directory_that_a_user_may_not_write_takes_no_new_mailbox, &for_all),
        MOUNT_TEST_WITH(sender_is_the_user_s_process, &for_all),
        MOUNT_TEST_WITH(message_that_goes_back_leaves_the_mailbox_to_its_owner, &for_all),
        MOUNT_TEST_WITH(what_is_in_flight_can_be_read_by_nobody_else, &for_all),
        MOUNT_TEST_WITH(old_descriptor_is_none_of_the_next_owners_mailbox, &for_all_chatty),
        MOUNT_TEST_WITH(mail_in_flight_is_not_for_the_next_owner, &for_all_chatty),
        MOUNT_TEST_WITH(ordinary_user_mounts_sends_and_receives, &alice),
        MOUNT_TEST_WITH(ordinary_user_mounts_sends_and_receives, &bob),
        MOUNT_TEST_WITH(ordinary_user_s_unmount_puts_back_what_is_unread, &alice),
        MOUNT_TEST_WITH(ordinary_user_s_daemon_has_no_more_rights_than_that_user, &alice_chatty),
        MOUNT_TEST_WITH(unmount_by_fusermount_ends_the_daemon_cleanly, &alice),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("users", tests, NULL, NULL) == 0 ? 0 : 1;
}
