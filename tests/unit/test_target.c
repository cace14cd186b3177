/*
 * A target (see gproc.h): what is sent to it arrives as with gproc_send(), though its files stay open:
 * also where they are deleted, replaced or forbidden between two messages, and on both sides of a
 * fork.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gproc.h"
#include "process.h"
#include "scratch.h"

enum {
    BOX = 4711,
    SENDER = 815,
    NOBODY = 65534,
    KCMP_FILE = 0, /* whether two descriptors are one open file; linux/kcmp.h may be missing */
};

static int show(void *context, const struct gproc_mail *mail)
{
    char *text = context;
    size_t length = strlen(text);

    snprintf(text + length, 256 - length, "%d:%.*s|", (int)mail->sender, (int)mail->payload_bytes,
             (const char *)mail->payload);
    return 0;
}

static void assert_waiting(const struct scratch *scratch, const char *expected)
{
    char text[256] = "";

    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, text), 0);
    assert_string_equal(text, expected);
}

static struct gproc_target *open_target(const struct scratch *scratch)
{
    struct gproc_target *target = NULL;

    assert_int_equal(gproc_target_open(scratch->gproc, BOX, &target), 0);
    assert_int_equal(scratch_size(scratch, BOX), -1); /* it opens nothing */
    return target;
}

static int send_text(struct gproc_target *target, const char *text)
{
    return gproc_target_send_as(target, SENDER, text, strlen(text), GPROC_NOW);
}

static int descriptors_count(void)
{
    DIR *stream = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(stream);
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count;
}

static void many_messages_cost_two_descriptors_until_it_is_closed(void **state)
{
    struct scratch *scratch = *state;
    int before_count = descriptors_count();
    struct gproc_target *target = open_target(scratch);
    char expected[64];

    assert_int_equal(send_text(target, "one"), 0);
    assert_int_equal(send_text(target, ""), 0);
    assert_int_equal(gproc_target_send(target, "three", 5, GPROC_NOW), 0);
    snprintf(expected, sizeof(expected), "815:one|815:|%d:three|", (int)getpid());
    assert_waiting(scratch, expected);
    assert_int_equal(descriptors_count(), before_count + 2);
    gproc_target_close(target);
    gproc_target_close(NULL);
    assert_int_equal(descriptors_count(), before_count);
}

static void what_cannot_be_sent_is_refused_before_anything_is_made(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_target *target = NULL;

    assert_int_equal(gproc_target_open(scratch->gproc, 0, &target), -EINVAL);
    assert_int_equal(gproc_target_open(scratch->gproc, -1, &target), -EINVAL);
    assert_null(target);
    target = open_target(scratch);
    assert_int_equal(gproc_target_send(target, "", GPROC_PAYLOAD_MAX_BYTES + 1, GPROC_NOW),
                     -EMSGSIZE);
    assert_int_equal(scratch_size(scratch, BOX), -1);
    gproc_target_close(target);
}

/* What is in the way of the mailbox stays, and is no reason to keep the lock. */
static void what_is_no_mailbox_is_refused_and_the_lock_given_back(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_target *target = open_target(scratch);

    assert_int_equal(mkdir(scratch_box(scratch, BOX), 0777), 0);
    assert_int_equal(send_text(target, "one"), -EEXIST);
    close(scratch_lock(scratch, BOX));
    assert_int_equal(rmdir(scratch_box(scratch, BOX)), 0);
    assert_int_equal(send_text(target, "two"), 0);
    assert_waiting(scratch, "815:two|");
    gproc_target_close(target);
}

static void between_messages_the_lock_is_everybodys(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_target *target = open_target(scratch);
    int lock;

    assert_int_equal(send_text(target, "one"), 0);
    lock = scratch_lock(scratch, BOX);
    assert_int_equal(send_text(target, "two"), -EAGAIN);
    assert_int_equal(gproc_target_send_as(target, SENDER, "two", 3, 20), -ETIMEDOUT);
    close(lock);
    assert_int_equal(send_text(target, "three"), 0);
    assert_waiting(scratch, "815:one|815:three|");
    gproc_target_close(target);
}

static void move_away(const char *path)
{
    char away[400];

    snprintf(away, sizeof(away), "%s.away", path);
    assert_int_equal(rename(path, away), 0);
}

static void delete_file(const char *path)
{
    assert_int_equal(unlink(path), 0);
}

static void replace_file(const char *path)
{
    char other[400];

    snprintf(other, sizeof(other), "%s.other", path);
    close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
    assert_int_equal(rename(other, path), 0);
}

static void link_file(const char *path)
{
    char other[400];

    snprintf(other, sizeof(other), "%s.link", path);
    assert_int_equal(link(path, other), 0);
}

static void forbid_file(const char *path)
{
    assert_int_equal(chmod(path, 0444), 0);
}

/* Each in turn, between two messages; what then is in the mailbox, or what the second one fails
 * with. */
static void files_that_vanish_or_change_are_found_or_made_anew(void **state)
{
    static const struct {
        void (*change)(const char *path);
        const char *what; /* "gproc/4711", "gflock/4711.lock" or a directory */
        int result;
        const char *waiting;
    } rows[] = {
        {delete_file, "gproc/4711", 0, "815:two|"},
        {move_away, "gproc/4711", 0, "815:two|"},
        {replace_file, "gproc/4711", 0, "815:two|"},
        {link_file, "gproc/4711", -EEXIST, NULL},
        {forbid_file, "gproc/4711", -EACCES, "815:one|"},
        {delete_file, "gflock/4711.lock", 0, "815:one|815:two|"},
        {move_away, "gflock/4711.lock", 0, "815:one|815:two|"},
        {replace_file, "gflock/4711.lock", 0, "815:one|815:two|"},
        {forbid_file, "gflock/4711.lock", -EACCES, NULL}, /* nobody can look then */
        {move_away, "gproc", 0, "815:two|"},
        {scratch_delete, "gproc", 0, "815:two|"},
        {move_away, "gflock", 0, "815:one|815:two|"},
        {scratch_delete, "gflock", 0, "815:one|815:two|"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        void *own = NULL;
        struct scratch *scratch;
        pid_t child;

        assert_int_equal(scratch_setup(&own), 0);
        scratch = own;
        assert_int_equal(chmod(scratch->path, 0777), 0);
        assert_int_equal(chmod(scratch->mailboxes, 0777), 0);
        assert_int_equal(chmod(scratch->locks, 0777), 0);
        /* Modes mean nothing to root. */
        child = process_fork(geteuid() == 0 ? NOBODY : 0);
        if (child == 0) {
            struct gproc_target *target = NULL;
            char path[400], waiting[256] = "";
            int result = gproc_target_open(scratch->gproc, BOX, &target);

            if (result == 0)
                result = send_text(target, "one");
            snprintf(path, sizeof(path), "%s/%s", scratch->path, rows[i].what);
            rows[i].change(path);
            if (result == 0)
                result = send_text(target, "two");
            gproc_target_close(target);
            if (result != rows[i].result)
                _exit(1);
            result = rows[i].waiting != NULL
                         ? gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, waiting)
                         : 0;
            _exit(result == 0 && (rows[i].waiting == NULL || strcmp(waiting, rows[i].waiting) == 0)
                      ? 0
                      : 2);
        }
        if (process_wait(child, SCRATCH_DEADLINE_MS) != 0)
            fail_msg("row %zu", i);
        assert_int_equal(scratch_teardown(&own), 0);
    }
}

/* The descriptor of this process that a lock file is open at. */
static int lock_descriptor(const struct scratch *scratch)
{
    const char *file = scratch_lock_file(scratch, BOX);
    char path[64], target[400];

    for (int fd = 0; fd < 256; fd++) {
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof(target) - 1);
        if (length > 0 && (size_t)length == strlen(file) &&
            memcmp(target, file, (size_t)length) == 0)
            return fd;
    }
    return -1;
}

/* One open file would be one lock for both, that keeps neither from the other. */
static void after_a_fork_parent_and_child_have_a_lock_each(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_target *target = open_target(scratch);
    int parents;
    pid_t child;

    assert_int_equal(send_text(target, "one"), 0);
    parents = lock_descriptor(scratch);
    assert_true(parents >= 0);
    child = process_fork(0);
    if (child == 0) {
        long same;

        if (send_text(target, "two") != 0)
            _exit(2);
        same = syscall(SYS_kcmp, getppid(), getpid(), KCMP_FILE, parents, lock_descriptor(scratch));
        if (same == 0) /* -1: the kernel does not say */
            _exit(1);
        gproc_target_close(target);
        gproc_close(scratch->gproc);
        free(scratch);
        exit(0); /* not _exit(2), so that what was run counts */
    }
    assert_int_equal(process_wait(child, SCRATCH_DEADLINE_MS), 0);
    assert_int_equal(send_text(target, "three"), 0);
    assert_waiting(scratch, "815:one|815:two|815:three|");
    gproc_target_close(target);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(many_messages_cost_two_descriptors_until_it_is_closed),
        TEST(what_cannot_be_sent_is_refused_before_anything_is_made),
        TEST(what_is_no_mailbox_is_refused_and_the_lock_given_back),
        TEST(between_messages_the_lock_is_everybodys),
        cmocka_unit_test(files_that_vanish_or_change_are_found_or_made_anew),
        TEST(after_a_fork_parent_and_child_have_a_lock_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
