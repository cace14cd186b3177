/* The command itself: exit statuses, what it says, options, the background, and what it refuses to
 * do. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    COULD_NOT_RUN = 1,
    USAGE = 2,
    BOX = 4711,
    OTHER = 4712,
    ALICE = 1000,
    WORK_MS = 15000,
    BEFORE_DEFAULT_MS = 4500, /* lock_timeout is 5 seconds where it is not set */
    LIMIT_BYTES =
        1500000, /* as in the option of `limited`; more than the kernel's piece of 1 MiB */
};

/* Every line below runs beside the test's own daemon, with directories of its own in `work`. */
static void expect_status(struct mount *mount, int status, const char *line)
{
    struct process_result result = through_run_as(mount, 0, "sh", "mkdir -p mail mnt\n%s", line);

    if (result.status != status)
        fail_msg("%s: exit status %d instead of %d\nprinted: %s\nerrors: %s", line, result.status,
                 status, result.out, result.err);
}

static void help_and_version_succeed(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result;

    expect_status(mount, 0, "$P -h");
    expect_status(mount, 0, "$P --help");
    expect_status(mount, 0, "$P -V");
    result = through_run_as(mount, 0, "sh", "$P -h");
    assert_non_null(strstr(result.out, "lockdir"));
    assert_non_null(strstr(result.out, "max_message"));
}

static void wrong_usage_is_status_two(void **state)
{
    static const char *const lines[] = {
        "$P",
        "$P -f",
        "$P --no-such-option mail mnt",
        "$P -o max_message=many mail mnt",
        "$P -o max_message=-1 mail mnt",
        "$P -o max_message= mail mnt",
        "$P -o max_message=12x mail mnt",
        "$P -o lock_timeout=-1 mail mnt",
        "$P -o lockdir= mail mnt",
        "$P '' mnt",
        "$P -o lock_timeout=soon mail mnt",
        "$P mail mnt more",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect_status(mount, USAGE, lines[i]);
        through_expect_run(mount, "sh", "", "grep -F \"$W/mnt \" /proc/self/mountinfo; :");
    }
}

static void unknown_mount_option_is_refused(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result =
        through_run_as(mount, 0, "sh", "mkdir mail mnt; $P -o no_such_option mail mnt");

    assert_in_range(result.status, COULD_NOT_RUN, USAGE);
    assert_string_not_equal(result.err, "");
}

static void what_cannot_be_mounted_is_status_one(void **state)
{
    static const char *const lines[] = {
        "$P mail no-such-directory",
        "$P no-such-directory/mail mnt",
        ": > file; $P mail file",
        ": > file; $P file mnt",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        expect_status(mount, COULD_NOT_RUN, lines[i]);
}

/* The daemon would wait for itself inside the kernel, where nothing ends it. */
static void mounting_above_the_mailboxes_or_the_locks_is_refused(void **state)
{
    static const char *const lines[] = {
        "mkdir -p up/mail; $P -o lockdir=$L up/mail up",
        "mkdir -p up/locks; $P -o lockdir=up/locks mail up",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect_status(mount, COULD_NOT_RUN, lines[i]);
        through_expect_run(mount, "sh", "", "grep -F \"$W/up \" /proc/self/mountinfo; :");
    }
}

/* Go programs would send through the mount, and be framed twice. */
static void mounting_over_the_mailbox_directory_is_refused_with_the_reason(void **state)
{
    static const char *const lines[] = {
        "$P -o lockdir=$L mail mail",
        "$P -o lockdir=$L mail $W/mnt/../mail/",
        "ln -s mail other; $P -o lockdir=$L mail other",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct process_result result =
            through_run_as(mount, 0, "sh", "mkdir -p mail mnt; rm -f other\n%s", lines[i]);

        assert_int_equal(result.status, COULD_NOT_RUN);
        assert_string_not_equal(result.err, "");
        through_expect_run(mount, "sh", "", "grep -F \"$W/mail \" /proc/self/mountinfo; :");
    }
}

/* --- What it says ----------------------------------------------------------------------------- */

/* A command that does not mount, what it exits with, and what its one line names. */
struct mistake {
    const char *line;
    int status;
    const char *names;
};

/* One line on standard error, ours, and nothing mounted. */
static void expect_one_line(struct mount *mount, uid_t uid, const struct mistake *mistake)
{
    struct process_result result =
        through_run_as(mount, uid, "sh", "mkdir -p mail mnt\n%s", mistake->line);
    const char *end = strchr(result.err, '\n');

    if (result.status != mistake->status || strncmp(result.err, "gprocfs: ", 9) != 0 ||
        end == NULL || end[1] != '\0' || strstr(result.err, mistake->names) == NULL)
        fail_msg("%s: exit status %d instead of %d, and instead of a line that names %s: \"%s\"",
                 mistake->line, result.status, mistake->status, mistake->names, result.err);
    assert_string_equal(result.out, "");
    through_expect_run(mount, "sh", "", "grep -F \"$W/\" /proc/self/mountinfo; :");
}

static void mistake_is_one_line_that_names_it(void **state)
{
    static const struct mistake mistakes[] = {
        {"$P", USAGE, "no mountpoint"},
        {"$P mail mnt more", USAGE, "more"},
        {"$P '' mnt", USAGE, "mailbox directory"},
        {"$P mail ''", USAGE, "mountpoint"},
        {"$P --nonsense mail mnt", USAGE, "--nonsense"},
        {"$P -o nonsense mail mnt", USAGE, "nonsense"},
        {"$P -d -o lockdir= mail mnt", USAGE, "lockdir"},
        {"$P mail mnt -o", USAGE, "-o"},
        {"$P -o remount,ro mail mnt", USAGE, "cannot be changed"},
        {"$P mail /dev/fd/3", USAGE, "drop_privileges"},
        {"$P -o lock_timeout=soon mail mnt", USAGE, "lock_timeout=soon"},
        {"$P -o lock_timeout=-1 mail mnt", USAGE, "lock_timeout=-1"},
        {"$P -o lock_timeout=1.5 mail mnt", USAGE, "lock_timeout=1.5"},
        {"$P -o lock_timeout=99999999999 mail mnt", USAGE, "lock_timeout=99999999999"},
        {"$P -o max_message=0 mail mnt", USAGE, "max_message=0"},
        {"$P -o max_message=64M mail mnt", USAGE, "max_message=64M"},
        {"$P -o max_message=2147483636 mail mnt", USAGE, "2147483635"},
        {"$P mail missing", COULD_NOT_RUN, "missing: No such file"},
        {"$P mail 'mis\nsing'", COULD_NOT_RUN, "mis?sing: No such file"},
        {": > file; $P mail file", COULD_NOT_RUN, "file: Not a directory"},
        {": > file; $P file mnt", COULD_NOT_RUN, "file: Not a directory"},
        {"$P missing/mail mnt", COULD_NOT_RUN, "missing/mail: No such file"},
        {": > file; $P -o lockdir=file mail mnt", COULD_NOT_RUN, "file: Not a directory"},
        {"$P -o lockdir=$W/locks mail mail", COULD_NOT_RUN, "mail is the mailbox directory"},
        {"mkdir -p up/mail; $P -o lockdir=locks up/mail up", COULD_NOT_RUN, "/up: "},
        {"TMPDIR=$(printf %5000d 0) $P mnt", COULD_NOT_RUN, "TMPDIR"},
        {"mkdir gone && cd gone && rmdir ../gone && $P mail $W/mnt", COULD_NOT_RUN, "mail: "},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
        expect_one_line(mount, 0, &mistakes[i]);
}

/* In the foreground, in the background and with -d, where libfuse may speak too. */
static void kernel_that_refuses_is_one_line(void **state)
{
    static const struct mistake mistakes[] = {
        {"$P -o lockdir=locks,context=nonsense mail mnt", COULD_NOT_RUN, "/mnt: cannot be mounted"},
        {"$P -f -o lockdir=locks,context=nonsense mail mnt", COULD_NOT_RUN, "Invalid argument"},
        /* A file system without the node, seen by this shell alone. */
        {"unshare -m sh -c 'mount -t tmpfs none /dev && exec $P -o lockdir=$W/locks mail mnt'",
         COULD_NOT_RUN, "/mnt: cannot be mounted: device not found"},
        /* Everything is below it. Where it were mounted, then for this shell alone. */
        {"unshare -m $P -o lockdir=$W/locks mail /", COULD_NOT_RUN,
         "/: mounted here, gprocfs would"},
        /* One whose words name the node, which libfuse's own name is a part of. */
        {"unshare -m sh -c 'mount -t tmpfs none /dev && mkdir /dev/fuse && "
         "exec $P -o lockdir=$W/locks mail mnt'",
         COULD_NOT_RUN, "/mnt: cannot be mounted: failed to open /dev/fuse: Is a directory"},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
        expect_one_line(mount, 0, &mistakes[i]);
}

static void what_a_user_may_not_do_is_one_line(void **state)
{
    static const struct mistake mistakes[] = {
        {"$W/gprocfs -o lockdir=locks $W/closed mnt", COULD_NOT_RUN, "/closed: Permission denied"},
        {"$W/gprocfs -o lockdir=$W/closed mail mnt", COULD_NOT_RUN, "/closed: Permission denied"},
        {"$W/gprocfs -o lockdir=locks $W/unwritable mnt", COULD_NOT_RUN,
         "/.gprocfs: Permission denied"},
        {"$W/gprocfs -o lockdir=locks mail $W/unwritable", COULD_NOT_RUN,
         "/unwritable: cannot be mounted: "},
        {"$W/gprocfs -o lockdir=locks,allow_other mail mnt; s=$?; "
         "grep -qs ^user_allow_other /etc/fuse.conf && { fusermount3 -u mnt; s=1; "
         "echo gprocfs: allow_other >&2; }; exit $s",
         COULD_NOT_RUN, "allow_other"},
    };
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "",
                       "cp -L $P gprocfs && chmod 755 gprocfs && mkdir -m 700 closed && "
                       "mkdir -m 755 unwritable && touch unwritable/file");
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
        expect_one_line(mount, ALICE, &mistakes[i]);
}

static void dead_mount_names_the_command_that_clears_it(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result;
    const char *command;

    through_expect_run(mount, "sh", "",
                       "mkdir -p mail dead; $P -f -o lockdir=locks mail dead & p=$!\n"
                       "until grep -qF \"$W/dead \" /proc/self/mountinfo || ! kill -0 $p\n"
                       "do :; done\n"
                       "kill -9 $p; wait $p; :");
    result = through_run_as(mount, 0, "sh", "$P -o lockdir=locks mail dead");
    command = strstr(result.err, "fusermount3 -u ");
    assert_int_equal(result.status, COULD_NOT_RUN);
    assert_non_null(command);
    assert_string_equal(strchr(result.err, '\n'), "\n"); /* one line */
    /* And it does: as it stands there. */
    through_expect_run(mount, "sh", "data\n",
                       "%s$P -o lockdir=locks mail dead && echo data > dead/1 && cat dead/1; "
                       "fusermount3 -u dead",
                       command);
}

static void mountpoint_may_hold_files_and_has_them_again_afterwards(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(
        mount, "sh", "1\nfile\n",
        "mkdir mail full && touch full/file && $P -o lockdir=locks mail full || exit\n"
        "echo data > full/1; ls full; fusermount3 -u full; ls full");
}

/* With -d libfuse tells what it does, where it always has. */
static void debugging_shows_requests_on_standard_error(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "yes\n",
                       "mkdir mail mnt; $P -d -o lockdir=locks mail mnt 2>log & p=$!\n"
                       "until grep -qF \"$W/mnt \" /proc/self/mountinfo || ! kill -0 $p\n"
                       "do :; done\n"
                       "ls mnt; kill $p; wait $p\n"
                       "grep -q 'FUSE library version' log && grep -q GETATTR log && echo yes");
}

/* --- Running ---------------------------------------------------------------------------------- */

static void daemon_in_the_background_is_mounted_when_it_returns(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "data\n",
                       "mkdir mail mnt || exit\n"
                       "$P -o lockdir=$L mail mnt || exit\n"
                       "echo data > mnt/1 && cat mnt/1; result=$?\n"
                       "fusermount3 -u mnt && exit $result");
}

/* A daemon leaves the directory that it was started in. */
static void relative_paths_are_good_to_the_end(void **state)
{
    static const char *const ways[] = {"$P -f -o lockdir=locks mail mnt & p=$!",
                                       "$P -f -o lockdir=./locks ./mail ./mnt/ & p=$!"};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        through_expect_run(mount, "sh", "0\none\ntwo\n0\n",
                           "mkdir -p mail mnt; %s\n"
                           "until grep -qF \"$W/mnt \" /proc/self/mountinfo || ! kill -0 $p\n"
                           "do :; done\n"
                           "echo one > mnt/1; rm -rf mail locks\n"
                           "echo one > mnt/1; echo two > mnt/1; echo $?\n"
                           "cat mnt/1; test -e mail/1 && test -e locks/1.lock || echo gone\n"
                           "kill $p; wait $p; echo $?\n"
                           "if grep -F \"$W/mnt \" /proc/self/mountinfo; then exit 1; fi",
                           ways[i]);
}

static void default_mailbox_directory_is_that_of_the_environment(void **state)
{
    static const struct {
        const char *variables;
        const char *mailbox;
        const char *lock;
    } rows[] = {
        {"TMPDIR=$W/a", "a/gproc/1", "a/gflock/1.lock"},
        {"TMPDIR=$W/b gproc.tempdir=$W/c", "c/gproc/1", "b/gflock/1.lock"},
        {"TMPDIR=$W/d gproc.tempdir=", "d/gproc/1", "d/gflock/1.lock"},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        through_expect_run(mount, "sh", "yes\n",
                           "mkdir -p a b c d mnt; env %s $P mnt || exit\n"
                           "echo data > mnt/1; result=$?\n"
                           "fusermount3 -u mnt && test -s %s && test -e %s && echo yes\n"
                           "exit $result",
                           rows[i].variables, rows[i].mailbox, rows[i].lock);
}

/* --- -o ro ------------------------------------------------------------------------------------ */

static void mount_that_only_looks_changes_nothing(void **state)
{
    static const char *const receiving[] = {"", ".follow/", ".envelope/"};
    struct mount *mount = mount_of(state);
    const char *box = mount_keep(mount, strdup(through_box(mount, BOX)));
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

    behind_expect_sent(mount, BOX, 1, "hello");
    for (size_t i = 0; i < sizeof(receiving) / sizeof(receiving[0]); i++)
        assert_errno(open(mount_path(mount, "%s/%s%d", mount->mnt, receiving[i], BOX), O_RDONLY),
                     EROFS);
    assert_errno(open(box, THROUGH_REPLACE, 0666), EROFS);
    assert_errno(open(box, THROUGH_APPEND, 0666), EROFS);
    assert_errno(open(box, O_RDWR), EROFS);
    assert_errno(open(through_box(mount, OTHER), THROUGH_APPEND, 0666), EROFS);
    assert_errno(unlink(box), EROFS);
    assert_errno(chmod(box, 0600), EROFS);
    assert_errno(chown(box, getuid(), getgid()), EROFS);
    assert_errno(truncate(box, 0), EROFS);
    assert_errno(utimensat(AT_FDCWD, box, times, 0), EROFS);
    assert_errno(mkdir(through_box(mount, OTHER), 0777), EROFS);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
    assert_errno(access(behind_box(mount, OTHER), F_OK), ENOENT);
}

static void mount_that_only_looks_shows_everything(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_size(mount, BOX, 5);
    view_expect_text(mount, ".peek", BOX, "hello");
    through_expect_run(mount, "sh", "4711\n1\n1\n",
                       "ls $M; grep -c hello $M/.list/4711; grep -c ^gprocfs_info $M/.stats");
    assert_errno(access(mount_path(mount, "%s/.gprocfs", mount->mail), F_OK), ENOENT);
    assert_int_equal(mount_stop(mount), 0);
    assert_errno(access(mount_path(mount, "%s/.gprocfs", mount->mail), F_OK), ENOENT);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
}

/* --- -o live ---------------------------------------------------------------------------------- */

/* The id of a process that has ended. */
static pid_t dead_process(void)
{
    pid_t pid = process_fork(0);

    if (pid == 0)
        _exit(0);
    assert_int_equal(process_wait(pid, WORK_MS), 0);
    return pid;
}

static void live_refuses_at_open_to_send_to_a_dead_process(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t dead = dead_process();

    assert_errno(open(through_box(mount, dead), THROUGH_REPLACE, 0666), ESRCH);
    assert_errno(open(through_box(mount, dead), THROUGH_APPEND, 0666), ESRCH);
    assert_errno(access(behind_box(mount, dead), F_OK), ENOENT);
    /* The same where it left a mailbox, which is read and removed all the same. */
    behind_expect_sent(mount, dead, 1, "left");
    behind_expect_sent(mount, dead, 1, "over");
    assert_errno(open(through_box(mount, dead), THROUGH_REPLACE, 0666), ESRCH);
    assert_errno(open(through_box(mount, dead), THROUGH_APPEND, 0666), ESRCH);
    assert_errno(open(through_box(mount, dead), O_RDWR), ESRCH);
    view_expect_text(mount, ".peek", dead, "leftover");
    through_expect_texts(mount, dead, "left", "over", NULL);
    assert_success(unlink(through_box(mount, dead)));
}

static void live_sends_to_who_is_there(void **state)
{
    struct mount *mount = mount_of(state);

    through_send(mount, getpid(), "me");
    through_expect_run(mount, "sh", "me too", "printf ' too' >> $M/%d; cat $M/%d", (int)getpid(),
                       (int)getpid());
    /* Somebody else's process is there as well, even one that may not be signalled. */
    through_send(mount, 1, "first");
    behind_expect_texts(mount, 1, "first", NULL);
}

/* --- -o max_message --------------------------------------------------------------------------- */

/* The errno of a message of `size_bytes`, in writes of at most `piece_bytes`. */
static int send_pieces(struct mount *mount, int flags, size_t size_bytes, size_t piece_bytes)
{
    const uint8_t *payload = through_payload(mount, size_bytes, 1);
    int fd = through_open(mount, BOX, flags);
    int error = 0;

    for (size_t done = 0; done < size_bytes && error == 0; done += piece_bytes)
        error = through_write(fd, payload + done,
                              size_bytes - done < piece_bytes ? size_bytes - done : piece_bytes);
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

/* Whoever sends with one write is not told that a part of it was taken. */
static void one_write_over_the_limit_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, LIMIT_BYTES + 1, 1);
    int fd = through_open(mount, BOX, THROUGH_APPEND);

    assert_errno(write(fd, payload, LIMIT_BYTES + 1), EFBIG);
    through_write_once(fd, "small", 5);
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "small", NULL);
}

static void message_over_the_limit_is_refused_at_the_write(void **state)
{
    static const struct {
        int flags;
        size_t piece_bytes;
    } rows[] = {
        {THROUGH_REPLACE, LIMIT_BYTES + 1}, /* at once, which the kernel cuts */
        {THROUGH_REPLACE, 4096},
        {THROUGH_APPEND, LIMIT_BYTES + 1},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int error = send_pieces(mount, rows[i].flags, LIMIT_BYTES + 1, rows[i].piece_bytes);

        if (error != EFBIG)
            fail_msg("row %zu: errno %d", i, error);
        behind_expect_bytes(mount, BOX, "", 0);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(send_pieces(mount, rows[i].flags, LIMIT_BYTES, rows[i].piece_bytes), 0);
        behind_expect_frame(mount, BOX, getpid(), through_payload(mount, LIMIT_BYTES, 1),
                            LIMIT_BYTES);
        assert_success(truncate(through_box(mount, BOX), 0));
    }
}

/* --- -o lockdir, -o lock_timeout -------------------------------------------------------------- */

static void locks_are_in_the_directory_that_was_named(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;

    through_send(mount, BOX, "hello");
    assert_success(stat(behind_lock_file(mount, BOX), &status));
    assert_int_equal(status.st_mode & 07777, 0600);
    /* $TMPDIR of the daemon. */
    assert_errno(access(mount_path(mount, "%s/gflock", mount->work), F_OK), ENOENT);
}

static int append_one(const char *path)
{
    int fd = open(path, THROUGH_APPEND, 0666);
    int error;

    if (fd < 0)
        return errno;
    error = through_write(fd, "hello", 5);
    close(fd); /* sends nothing */
    return error;
}

static void lock_that_is_held_there_blocks_until_it_is_given_back(void **state)
{
    struct mount *mount = mount_of(state);
    int lock = behind_lock(mount, BOX);
    pid_t child = process_fork(0);

    if (child == 0) {
        close(lock); /* or it would wait for itself */
        _exit(append_one(through_box(mount, BOX)));
    }
    view_await_sample(mount, "gprocfs_parked_requests{kind=\"lock\"}", 1);
    through_expect_size(mount, BOX, 0);
    assert_success(close(lock));
    assert_int_equal(process_wait(child, WORK_MS), 0);
    behind_expect_texts(mount, BOX, "hello", NULL);
}

static void lock_that_is_held_too_long_is_a_time_out(void **state)
{
    struct mount *mount = mount_of(state);
    int lock = behind_lock(mount, BOX);
    pid_t child = process_fork(0);

    if (child == 0)
        _exit(append_one(through_box(mount, BOX)));
    assert_int_equal(process_wait(child, BEFORE_DEFAULT_MS), ETIMEDOUT);
    assert_success(close(lock));
    through_send(mount, OTHER, "other");
    behind_expect_texts(mount, OTHER, "other", NULL);
    behind_expect_texts(mount, BOX, NULL);
}

int main(void)
{
    static const struct mount_options root = {.needs_root = true};
    static const struct mount_options for_all = {.needs_root = true, .for_all = true};
    static const struct mount_options read_only = {.options = "ro"};
    static const struct mount_options live = {.options = "live"};
    /* Root's daemon may look at a writer, and sees how much it writes in all. */
    static const struct mount_options limited = {
        .options = "max_message=1500000", .needs_root = true, .chatty = true};
    static const struct mount_options patient = {.options = "lock_timeout=0"};
    static const struct mount_options hasty = {.options = "lock_timeout=1", .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(help_and_version_succeed),
        MOUNT_TEST(wrong_usage_is_status_two),
        MOUNT_TEST(unknown_mount_option_is_refused),
        MOUNT_TEST(what_cannot_be_mounted_is_status_one),
        MOUNT_TEST(mounting_above_the_mailboxes_or_the_locks_is_refused),
        MOUNT_TEST(mounting_over_the_mailbox_directory_is_refused_with_the_reason),
        MOUNT_TEST(mistake_is_one_line_that_names_it),
        MOUNT_TEST_WITH(kernel_that_refuses_is_one_line, &root),
        MOUNT_TEST_WITH(what_a_user_may_not_do_is_one_line, &for_all),
        MOUNT_TEST(dead_mount_names_the_command_that_clears_it),
        MOUNT_TEST(mountpoint_may_hold_files_and_has_them_again_afterwards),
        MOUNT_TEST(debugging_shows_requests_on_standard_error),
        MOUNT_TEST(daemon_in_the_background_is_mounted_when_it_returns),
        MOUNT_TEST(relative_paths_are_good_to_the_end),
        MOUNT_TEST(default_mailbox_directory_is_that_of_the_environment),
        MOUNT_TEST_WITH(mount_that_only_looks_changes_nothing, &read_only),
        MOUNT_TEST_WITH(mount_that_only_looks_shows_everything, &read_only),
        MOUNT_TEST_WITH(live_refuses_at_open_to_send_to_a_dead_process, &live),
        MOUNT_TEST_WITH(live_sends_to_who_is_there, &live),
        MOUNT_TEST_WITH(message_over_the_limit_is_refused_at_the_write, &limited),
        MOUNT_TEST_WITH(one_write_over_the_limit_takes_nothing, &limited),
        MOUNT_TEST(locks_are_in_the_directory_that_was_named),
        MOUNT_TEST_WITH(lock_that_is_held_there_blocks_until_it_is_given_back, &patient),
        MOUNT_TEST_WITH(lock_that_is_held_too_long_is_a_time_out, &hasty),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("command", tests, NULL, NULL) == 0 ? 0 : 1;
}
