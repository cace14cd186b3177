/* How the command fits in with mount(8), fstab, service managers and a screen. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

static void help_fits_a_screen_and_has_two_examples(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result = through_run_as(mount, 0, "sh", "$P -h");
    int lines = 0;

    for (const char *at = result.out; *at != '\0'; at++) {
        size_t columns = strcspn(at, "\n");

        assert_in_range(columns, 0, 80);
        at += columns;
        assert_int_equal(*at, '\n');
        lines++;
    }
    assert_in_range(lines, 1, 23); /* and the next prompt */
    assert_non_null(strstr(result.out, "gprocfs /"));
    assert_non_null(strstr(result.out, "echo "));
}

/* mount(8) says so where a file system comes from nowhere. */
static void none_is_the_default_mailbox_directory_and_dot_none_a_directory(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "a\n",
                       "mkdir a none mnt; export TMPDIR=$W/a; $P none mnt || exit\n"
                       "echo data > mnt/1; fusermount3 -u mnt\n"
                       "test -s a/gproc/1 && test ! -e none/1 && echo a");
    through_expect_run(mount, "sh", "none\n",
                       "rm -rf a; mkdir a; export TMPDIR=$W/a; $P ./none mnt || exit\n"
                       "echo data > mnt/1; fusermount3 -u mnt\n"
                       "test -s none/1 && test ! -e a/gproc && echo none");
}

static void words_of_fstab_that_are_for_others_do_not_matter(void **state)
{
    static const char *const words[] = {
        "auto",
        "comment=mail",
        "defaults",
        "noauto,user=joe,_netdev,nofail",
        "nodiratime,relatime,strictatime,lazytime",
        "nonempty",
        "users,nouser,owner,group",
        "x-systemd.automount,x-systemd.requires=some.service,X-mount.mkdir",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        through_expect_run(mount, "sh", "",
                           "mkdir -p mail mnt; $P -o %s,lockdir=$L mail mnt || exit\n"
                           "fusermount3 -u mnt",
                           words[i]);
}

/* Below the mountpoint they would be hidden; beside it, where only the names begin alike, they are not. */
static void mailboxes_may_be_beside_the_mountpoint(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "data",
                       "mkdir mnt mntmail mntlocks; $P -o lockdir=mntlocks mntmail mnt || exit\n"
                       "printf data > mnt/1; cat mnt/1; fusermount3 -u mnt");
}

/* `mount -a` looks for it there. */
static void source_in_the_table_of_mounts_is_what_was_given(void **state)
{
    static const struct {
        const char *arguments;
        const char *source;
    } lines[] = {
        {"mnt", "gprocfs"},
        {"none mnt", "none"},
        {"mail mnt", "mail"},
        {"'a, b\\c' mnt", "a,\\040b\\134c"},
        {"-o fsname=mine none mnt", "mine"},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char wanted[64];

        (void)snprintf(wanted, sizeof(wanted), "fuse.gprocfs %s\n", lines[i].source);
        through_expect_run(mount, "sh", wanted,
                           "export TMPDIR=$W/tmp; mkdir -p tmp mail mnt 'a, b\\c'; $P %s || exit\n"
                           "grep -F \"$W/mnt \" /proc/self/mountinfo | sed 's/.* - //; s/ rw.*//'\n"
                           "fusermount3 -u mnt",
                           lines[i].arguments);
    }
}

/* mount(8) runs it so: source, directory, then letters of mount(8)'s own, and -o. */
static void mount_helper_understands_what_mount_adds(void **state)
{
    static const char *const added[] = {
        "-o rw,allow_other",
        "-s -n -v -o rw",
        "-t fuse.gprocfs -o ro,nosuid,nodev",
        "-n -o rw,noexec -t gprocfs",
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(added) / sizeof(added[0]); i++)
        through_expect_run(mount, "sh", "mounted\n",
                           "export TMPDIR=$W/tmp; mkdir -p tmp mnt; ln -sf $P mount.gprocfs\n"
                           "./mount.gprocfs none $W/mnt %s || exit\n"
                           "grep -qF \"$W/mnt \" /proc/self/mountinfo && echo mounted\n"
                           "fusermount3 -u mnt",
                           added[i]);
    /* `mount -f`: all but to mount. */
    through_expect_run(mount, "sh", "0\n",
                       "./mount.gprocfs none $W/mnt -f -o rw; echo $?\n"
                       "grep -F \"$W/mnt \" /proc/self/mountinfo; :");
}

static void service_manager_is_told_of_the_mount_and_of_its_end(void **state)
{
    static const char *const wanted[] = {"READY=1", "STOPPING=1"};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct mount *mount = mount_of(state);
    /* Close-on-exec: kept by no daemon. Abstract: as short as it has to be. */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "@gproc-test-command-%ld",
                          (long)getpid());

    assert_true(fd >= 0);
    address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length)),
                     0);
    through_expect_run(mount, "sh", "0\n",
                       "mkdir mail mnt; export NOTIFY_SOCKET=@%s\n"
                       "$P -f -o lockdir=$L mail mnt & p=$!\n"
                       "until grep -qF \"$W/mnt \" /proc/self/mountinfo || ! kill -0 $p\n"
                       "do :; done\n"
                       "kill $p; wait $p; echo $?",
                       address.sun_path + 1);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        char heard[64];
        ssize_t size = recv(fd, heard, sizeof(heard), 0);

        assert_int_equal(size, strlen(wanted[i]));
        assert_memory_equal(heard, wanted[i], strlen(wanted[i]));
    }
    (void)close(fd);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        MOUNT_TEST(help_fits_a_screen_and_has_two_examples),
        MOUNT_TEST(none_is_the_default_mailbox_directory_and_dot_none_a_directory),
        MOUNT_TEST(words_of_fstab_that_are_for_others_do_not_matter),
        MOUNT_TEST(mailboxes_may_be_beside_the_mountpoint),
        MOUNT_TEST(source_in_the_table_of_mounts_is_what_was_given),
        MOUNT_TEST(mount_helper_understands_what_mount_adds),
        MOUNT_TEST(service_manager_is_told_of_the_mount_and_of_its_end),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("mounting", tests, NULL, NULL) == 0 ? 0 : 1;
}
