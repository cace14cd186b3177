/*
 * In the background, where nobody reads its standard error, the daemon says to syslog what went wrong,
 * as an error, and what is worth knowing, as a notice.
 *
 * A child of the test has a /dev of its own, with a socket in it that hears what is said.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "mount.h"
#include "process.h"
#include "through.h"

enum {
    HEARD_MS = 15000,
    CHILD_MS = 60000,
};

/* What a child came upon, as its exit status. */
enum verdict {
    GOOD = 0,
    NO_DEVICES, /* nothing can be tested here */
    NO_MOUNT,
    NO_NOTICE,
    NO_ERROR,
    NOT_REFUSED,
};

static bool make_device(const char *path, unsigned major_number, unsigned minor_number)
{
    return mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)) == 0 &&
           chmod(path, 0666) == 0;
}

/* The socket that hears, in a /dev that is this process's and its children's alone; or -1. */
static int make_dev(void)
{
    const struct timeval wait = {.tv_sec = HEARD_MS / 1000};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/dev", "tmpfs", 0, "mode=0755") != 0 || !make_device("/dev/null", 1, 3) ||
        !make_device("/dev/fuse", 10, 229) ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(address.sun_path, 0666) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0)
        return -1;
    return fd;
}

/* Whether a line of this priority comes, which has all of these words in it. */
static bool hears(int fd, int priority, const char *who, const char *what)
{
    char line[2048], start[16];
    ssize_t size;

    (void)snprintf(start, sizeof(start), "<%d>", priority);
    while ((size = recv(fd, line, sizeof(line) - 1, 0)) > 0) {
        line[size] = '\0';
        if (strncmp(line, start, strlen(start)) == 0 && strstr(line, " gprocfs[") != NULL &&
            strstr(line, who) != NULL && strstr(line, what) != NULL)
            return true;
    }
    return false;
}

/* Runs a line as it is; whether it exits with 0. */
static bool succeeds(struct mount *mount, const char *line)
{
    struct process_result result = through_run_as(mount, 0, "sh", "%s", line);

    return result.status == 0;
}

static enum verdict listen_to(struct mount *mount)
{
    enum {
        DAEMON = 3 << 3, /* LOG_DAEMON, */
        ERROR = 3,       /* LOG_ERR and LOG_NOTICE as they are sent */
        NOTICE = 5,
    };
    const char *box = mount_path(mount, "%s/mail/2", mount->work);
    enum verdict verdict = GOOD;
    int heard = make_dev();
    int fd;

    if (heard < 0)
        return NO_DEVICES;
    if (!succeeds(mount, "mkdir mail mnt && $P -o lockdir=$L mail mnt"))
        return NO_MOUNT;
    if (!succeeds(mount, "printf garbage > mail/1; printf xyz >> mnt/1; cat mnt/1 > /dev/null") ||
        !hears(heard, DAEMON | NOTICE, "mailbox 1: ", "damaged bytes passed over"))
        verdict = NO_NOTICE;
    fd = open(mount_path(mount, "%s/mnt/2", mount->work), THROUGH_REPLACE, 0666);
    /* By no child: it would close the file, too, and so send it. */
    if (fd < 0 || write(fd, "x", 1) != 1 || unlink(box) != 0 || mkdir(box, 0777) != 0)
        verdict = NO_MOUNT;
    if (close(fd) == 0)
        verdict = NOT_REFUSED;
    if (!hears(heard, DAEMON | ERROR, "mailbox 2: ", "cannot send: "))
        verdict = NO_ERROR;
    return succeeds(mount, "umount mnt") ? verdict : NO_MOUNT;
}

static void daemon_in_the_background_says_it_to_syslog(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t child;
    int status;

    assert_success(mount_stop(mount));
    child = process_fork(0);
    assert_true(child >= 0);
    if (child == 0)
        _exit((int)listen_to(mount));
    status = process_wait(child, CHILD_MS);
    if (status == NO_DEVICES)
        skip();
    assert_int_equal(status, GOOD);
}

int main(void)
{
    static const struct mount_options options = {.needs_root = true, .seconds = 90};
    static const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(daemon_in_the_background_says_it_to_syslog, &options),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("syslog", tests, NULL, NULL) == 0 ? 0 : 1;
}
