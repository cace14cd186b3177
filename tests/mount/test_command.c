/* The command itself: exit statuses, options, the background, and what it refuses to do. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

enum {
    COULD_NOT_RUN = 1,
    USAGE = 2,
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(help_and_version_succeed),
        MOUNT_TEST(wrong_usage_is_status_two),
        MOUNT_TEST(unknown_mount_option_is_refused),
        MOUNT_TEST(what_cannot_be_mounted_is_status_one),
        MOUNT_TEST(mounting_above_the_mailboxes_or_the_locks_is_refused),
        MOUNT_TEST(mounting_over_the_mailbox_directory_is_refused_with_the_reason),
        MOUNT_TEST(daemon_in_the_background_is_mounted_when_it_returns),
        MOUNT_TEST(relative_paths_are_good_to_the_end),
        MOUNT_TEST(default_mailbox_directory_is_that_of_the_environment),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("command", tests, NULL, NULL) == 0 ? 0 : 1;
}
