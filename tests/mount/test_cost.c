/* What many names cost: memory for those that are gone, and system calls for those that are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    FIRST = 100000, /* of the names */
    CHILD_MS = 15000,
};

/* A number of the daemon's /proc/PID/status. */
static long daemon_status(const struct mount *mount, const char *key)
{
    char line[256];
    char path[64];
    long value = -1;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)mount->daemon);
    status = fopen(path, "re");
    assert_non_null(status);
    while (value < 0 && fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtol(line + strlen(key), NULL, 10);
    }
    fclose(status);
    assert_true(value >= 0);
    return value;
}

/* --- Names that are gone ---------------------------------------------------------------------- */

/* Sends to a name and looks at it, which then goes; 0, or what went wrong. */
static int come_and_go(struct mount *mount, int pid, bool behind)
{
    struct stat status;
    int fd = open(through_box(mount, pid), THROUGH_APPEND, 0666);

    if (fd < 0 || write(fd, "hello", 5) != 5 || close(fd) != 0)
        return errno;
    if (stat(through_box(mount, pid), &status) != 0 || status.st_size != 5)
        return errno;
    if (unlink(behind ? behind_box(mount, pid) : through_box(mount, pid)) != 0)
        return errno;
    return stat(through_box(mount, pid), &status) == 0 ? EEXIST : 0;
}

static void expect_no_growth(struct mount *mount, bool behind)
{
    enum { NAMES = 20000, BEFORE = 2000, GROWTH_MOST_KIB = 2048 };
    int count = NAMES / (int)(mount_scale() < 100 ? mount_scale() : 100);
    long before_kib = 0;
    long growth_kib;

    for (int i = 0; i < BEFORE + count; i++) {
        int error = come_and_go(mount, FIRST + i, behind);

        if (error != 0)
            fail_msg("name %d: %s", i, strerror(error));
        if (i == BEFORE)
            before_kib = daemon_status(mount, "VmRSS:");
    }
    growth_kib = daemon_status(mount, "VmRSS:") - before_kib;
    print_message("%d names that are gone: %ld KiB more\n", count, growth_kib);
    assert_true(growth_kib < GROWTH_MOST_KIB);
}

static void skip_where_memory_tells_nothing(void)
{
    if (mount_is_sanitized()) {
        print_message("skipped: a sanitizer keeps memory of its own\n");
        skip();
    }
}

static void names_that_were_removed_cost_no_memory(void **state)
{
    struct mount *mount = mount_of(state);

    skip_where_memory_tells_nothing();
    expect_no_growth(mount, false);
}

static void names_that_were_removed_behind_cost_no_memory_once_looked_at(void **state)
{
    struct mount *mount = mount_of(state);

    skip_where_memory_tells_nothing();
    expect_no_growth(mount, true);
}

/* --- Names that are there --------------------------------------------------------------------- */

/* strace of the daemon, which writes to the file `trace`; it is ready when it says so. -1: it may
 * not be traced. */
static pid_t start_trace(struct mount *mount)
{
    char daemon[16];
    char said[256] = "";
    size_t said_bytes = 0;
    int ends[2];
    pid_t pid;

    snprintf(daemon, sizeof(daemon), "%d", (int)mount->daemon);
    assert_success(pipe2(ends, O_CLOEXEC));
    pid = process_fork(0);
    if (pid == 0) {
        (void)dup2(ends[1], STDERR_FILENO); /* where it fails nothing is said */
        execlp("strace", "strace", "-f", "-s", "64", "-e",
               "trace=newfstatat,statx,openat,open,stat", "-o",
               mount_path(mount, "%s/trace", mount->work), "-p", daemon, NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    close(ends[1]);
    while (strstr(said, "attached") == NULL) {
        struct pollfd more = {.fd = ends[0], .events = POLLIN};
        ssize_t got = 0;

        if (poll(&more, 1, CHILD_MS) == 1)
            got = read(ends[0], said + said_bytes, sizeof(said) - 1 - said_bytes);
        if (got <= 0)
            break;
        said_bytes += (size_t)got;
        said[said_bytes] = '\0';
    }
    if (strstr(said, "attached") == NULL) {
        print_message("skipped: strace says %s\n", said);
        (void)process_wait(pid, CHILD_MS);
        close(ends[0]);
        return -1;
    }
    return pid; /* the pipe stays, for what else it says, until the test program ends */
}

static void end_trace(pid_t trace)
{
    assert_success(kill(trace, SIGINT));
    assert_true(process_wait(trace, CHILD_MS) >= 0);
}

static void make_boxes(struct mount *mount, int count)
{
    uint8_t frame[BEHIND_HEADER_BYTES + 5];

    behind_frame(frame, 1, "hello", 5);
    memcpy(frame + BEHIND_HEADER_BYTES, "hello", 5);
    for (int i = 0; i < count; i++) {
        int fd = open(behind_box(mount, FIRST + i), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        assert_true(fd >= 0);
        through_write_once(fd, frame, sizeof(frame));
        assert_success(close(fd));
    }
}

static void second_listing_asks_once_for_each_mailbox_and_opens_none(void **state)
{
    enum { BOXES = 10000 };
    static const char list[] = "ls -l $M | awk '$5 == 5' | wc -l";
    struct mount *mount = mount_of(state);
    int count = BOXES / (int)(mount_scale() < 100 ? mount_scale() : 100);
    struct process_result result;
    long opens = -1;
    long asked = -1;
    pid_t trace;

    if (!process_has("strace")) {
        print_message("skipped: there is no strace\n");
        skip();
    }
    make_boxes(mount, count);
    result = through_run_as(mount, 0, "sh", list);
    assert_int_equal(atoi(result.out), count);
    trace = start_trace(mount);
    if (trace < 0)
        skip();
    result = through_run_as(mount, 0, "sh", list);
    end_trace(trace);
    assert_int_equal(atoi(result.out), count);
    result = through_run_as(mount, 0, "sh",
                            "grep -c 'open.*\"1[0-9]*\"' trace; grep -c 'stat.*\"1[0-9]*\"' trace");
    assert_int_equal(sscanf(result.out, "%ld %ld", &opens, &asked), 2);
    print_message("%d mailboxes: %ld opened, asked for %ld times\n", count, opens, asked);
    assert_int_equal(opens, 0);
    assert_true(asked > 0);
    assert_true(asked <= count);
}

int main(void)
{
    static const struct mount_options slow = {.seconds = 90};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(names_that_were_removed_cost_no_memory, &slow),
        MOUNT_TEST_WITH(names_that_were_removed_behind_cost_no_memory_once_looked_at, &slow),
        MOUNT_TEST_WITH(second_listing_asks_once_for_each_mailbox_and_opens_none, &slow),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("cost", tests, NULL, NULL) == 0 ? 0 : 1;
}
