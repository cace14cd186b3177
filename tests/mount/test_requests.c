/*
 * How many requests the kernel sends for what a shell does with a mailbox that it knows already:
 * those that somebody waits for, in order. Each is a way to the daemon and back.
 *
 * They are read off the log of a daemon with -d. A GETATTR comes before every OPEN: attributes are
 * not believed for any time (a message changes them), and to check permissions the kernel wants
 * them (default_permissions). RELEASE is not counted: nobody waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
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

enum {
    BOX = 4711,
    REQUESTS_BYTES = 4096, /* of their names */
    MOST_MESSAGES = 3,
};

/* It logs every request. */
static const struct mount_options debug_options = {.options = "debug", .chatty = true};

/* What nobody waits for. */
static bool is_asynchronous(const char *name)
{
    static const char *const names[] = {"RELEASE", "RELEASEDIR", "FORGET", "BATCH_FORGET",
                                        "INTERRUPT"};
    bool found = false;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !found; i++)
        found = strcmp(name, names[i]) == 0;
    return found;
}

static off_t log_size(const struct mount *mount)
{
    struct stat status;

    assert_success(stat(mount->log, &status));
    return status.st_size;
}

/*
 * The names of the requests in the log from `offset` on, with a space after each. A request is
 * logged before it is worked on, so those that were waited for are there:
 *
 *   unique: 6, opcode: OPEN (14), nodeid: 8589939303, insize: 48, pid: 4242
 */
static void read_requests(const struct mount *mount, off_t offset, char requests[REQUESTS_BYTES])
{
    FILE *log = fopen(mount->log, "re");
    size_t used_bytes = 0;
    char line[1024];

    assert_non_null(log);
    assert_success(fseeko(log, offset, SEEK_SET));
    requests[0] = '\0';
    while (fgets(line, sizeof(line), log) != NULL) {
        char name[32];

        if (sscanf(line, "unique: %*u, opcode: %31s", name) != 1 || is_asynchronous(name))
            continue;
        assert_true(used_bytes + sizeof(name) < REQUESTS_BYTES);
        used_bytes += (size_t)snprintf(requests + used_bytes, sizeof(name) + 1, "%s ", name);
    }
    assert_success(fclose(log));
}

/* Runs the line once so that all is known to the kernel, then again: that must take exactly these
 * requests. `mailbox` has `count` messages before each. */
static void expect_requests(struct mount *mount, int count, const char *line, const char *expected)
{
    char requests[REQUESTS_BYTES];

    for (int pass = 0; pass < 2; pass++) {
        off_t offset;

        for (int i = 0; i < count; i++)
            behind_expect_sent(mount, BOX, 1, "x\n");
        offset = log_size(mount);
        through_expect_run(mount, "sh", NULL, "%s", line);
        read_requests(mount, offset, requests);
    }
    assert_string_equal(requests, expected);
}

static void make_box(struct mount *mount)
{
    through_send(mount, BOX, "hello");
    through_expect_texts(mount, BOX, "hello", NULL);
}

/* Without the GETATTR it were two, the least that there can be. */
static void appending_takes_an_open_and_a_write(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    expect_requests(mount, 0, "echo x >> $M/4711", "GETATTR OPEN WRITE ");
}

/* The first FLUSH is the shell's own: it duplicates the descriptor and closes the first. */
static void replacing_takes_two_flushes_more(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    expect_requests(mount, 0, "echo x > $M/4711", "GETATTR OPEN FLUSH WRITE FLUSH ");
}

/* The second GETATTR is cat's own fstat. */
static void receiving_takes_a_read_for_each_message_and_one_for_the_end(void **state)
{
    static const char *const expected[MOST_MESSAGES + 1] = {
        "GETATTR OPEN GETATTR READ ",
        "GETATTR OPEN GETATTR READ READ ",
        "GETATTR OPEN GETATTR READ READ READ ",
        "GETATTR OPEN GETATTR READ READ READ READ ",
    };
    struct mount *mount = mount_of(state);

    make_box(mount);
    for (int count = 0; count <= MOST_MESSAGES; count++)
        expect_requests(mount, count, "cat $M/4711", expected[count]);
}

static void looking_takes_one_request(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    expect_requests(mount, 0, "stat $M/4711", "GETATTR ");
    expect_requests(mount, 1, "test -s $M/4711", "GETATTR ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(appending_takes_an_open_and_a_write, &debug_options),
        MOUNT_TEST_WITH(replacing_takes_two_flushes_more, &debug_options),
        MOUNT_TEST_WITH(receiving_takes_a_read_for_each_message_and_one_for_the_end,
                        &debug_options),
        MOUNT_TEST_WITH(looking_takes_one_request, &debug_options),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
