/* A watch reports every mailbox that may have changed, no other, and sleeps in between. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"
#include "scratch.h"
#include "watch.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    THIRD = 4713,
    UNWATCHED = 99,
    REPORTS_MOST = 64,
};

struct fixture {
    struct scratch *scratch;
    struct gproc_place place;
    struct gproc_watch watch;
    pid_t reported[REPORTS_MOST];
    int reported_count;
    pid_t remove; /* when anything is reported; 0: none */
    pid_t add;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    void *scratch;

    assert_non_null(fixture);
    assert_int_equal(scratch_setup(&scratch), 0);
    fixture->scratch = scratch;
    assert_int_equal(gproc_place_init(&fixture->place, fixture->scratch->mailboxes, 0777), 0);
    assert_int_equal(gproc_watch_init(&fixture->watch, &fixture->place), 0);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    void *scratch = fixture->scratch;

    gproc_watch_release(&fixture->watch);
    gproc_place_release(&fixture->place);
    free(fixture);
    return scratch_teardown(&scratch);
}

static void report(void *context, pid_t pid)
{
    struct fixture *fixture = context;

    assert_in_range(fixture->reported_count, 0, REPORTS_MOST - 1);
    fixture->reported[fixture->reported_count++] = pid;
    if (fixture->remove != 0)
        gproc_watch_remove(&fixture->watch, fixture->remove);
    if (fixture->add != 0)
        assert_int_equal(gproc_watch_add(&fixture->watch, fixture->add), 0);
}

static bool is_readable(const struct fixture *fixture)
{
    struct pollfd watched = {.fd = fixture->watch.fd, .events = POLLIN};

    return poll(&watched, 1, 0) == 1;
}

/* All events of what this process did are there already: inotify queues them before the call
 * returns. */
static void expect_reports(struct fixture *fixture, int count, ...)
{
    va_list pids;

    fixture->reported_count = 0;
    assert_int_equal(is_readable(fixture), count > 0);
    assert_int_equal(gproc_watch_read(&fixture->watch, report, fixture), count);
    assert_int_equal(fixture->reported_count, count);
    va_start(pids, count);
    for (int i = 0; i < count; i++) {
        const pid_t pid = va_arg(pids, pid_t);
        bool found = false;

        for (int k = 0; k < count; k++)
            found = found || fixture->reported[k] == pid;
        assert_true(found);
    }
    va_end(pids);
}

/* What is left over from following names: events of nobody's. */
static void settle(struct fixture *fixture)
{
    while (is_readable(fixture))
        assert_true(gproc_watch_read(&fixture->watch, NULL, NULL) >= 0);
}

/* How many kernel watches there are. */
static int watches_count(const struct fixture *fixture)
{
    char path[64];
    char *line = NULL;
    size_t capacity = 0;
    int count = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fixture->watch.fd);
    file = fopen(path, "re");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0)
        count += strncmp(line, "inotify wd:", 11) == 0;
    free(line);
    fclose(file);
    return count;
}

static void watch(struct fixture *fixture, pid_t pid)
{
    assert_int_equal(gproc_watch_add(&fixture->watch, pid), 0);
    settle(fixture);
}

static void append(struct fixture *fixture, pid_t pid)
{
    scratch_append(fixture->scratch, pid, "x", 1);
}

/* --- What is reported */

static void a_mailbox_that_comes_is_reported(void **state)
{
    struct fixture *fixture = *state;

    watch(fixture, BOX);
    watch(fixture, OTHER);
    expect_reports(fixture, 0);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
    expect_reports(fixture, 0);
}

static void each_change_of_the_content_is_reported(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    append(fixture, OTHER);
    watch(fixture, BOX);
    watch(fixture, OTHER);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
    append(fixture, BOX);
    append(fixture, OTHER);
    append(fixture, BOX);
    expect_reports(fixture, 2, BOX, OTHER);
    assert_int_equal(truncate(scratch_box(fixture->scratch, OTHER), 0), 0);
    expect_reports(fixture, 1, OTHER);
}

static void a_mailbox_is_followed_when_it_goes_and_comes_back(void **state)
{
    struct fixture *fixture = *state;
    int i;

    append(fixture, BOX);
    watch(fixture, BOX);
    for (i = 0; i < 3; i++) {
        /* Held open, as by somebody who reads: the file lives on without a name. */
        int held = open(scratch_box(fixture->scratch, BOX), O_RDWR | O_CLOEXEC);

        assert_int_equal(unlink(scratch_box(fixture->scratch, BOX)), 0);
        expect_reports(fixture, 1, BOX);
        settle(fixture);
        assert_int_equal(write(held, "x", 1), 1);
        expect_reports(fixture, 0); /* it is the mailbox no more */
        append(fixture, BOX);
        expect_reports(fixture, 1, BOX);
        settle(fixture);
        append(fixture, BOX);
        expect_reports(fixture, 1, BOX);
        close(held);
        settle(fixture);
    }
}

static void a_mailbox_that_is_replaced_is_followed(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    append(fixture, UNWATCHED);
    watch(fixture, BOX);
    assert_int_equal(
        rename(scratch_box(fixture->scratch, UNWATCHED), scratch_box(fixture->scratch, BOX)), 0);
    expect_reports(fixture, 1, BOX);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
}

static void a_second_link_is_reported_when_it_comes_and_goes(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    watch(fixture, BOX);
    watch(fixture, OTHER);
    /* The same file for both: neither is blinded by what happens to the other. */
    assert_int_equal(link(scratch_box(fixture->scratch, BOX), scratch_box(fixture->scratch, OTHER)),
                     0);
    expect_reports(fixture, 2, BOX, OTHER);
    settle(fixture);
    assert_int_equal(unlink(scratch_box(fixture->scratch, OTHER)), 0);
    expect_reports(fixture, 2, BOX, OTHER);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
    append(fixture, OTHER);
    expect_reports(fixture, 1, OTHER);
}

static void others_mailboxes_and_files_beside_wake_nobody(void **state)
{
    struct fixture *fixture = *state;
    char beside[400];

    append(fixture, BOX);
    append(fixture, UNWATCHED);
    watch(fixture, BOX);
    append(fixture, UNWATCHED);
    snprintf(beside, sizeof(beside), "%s/beside", fixture->scratch->path);
    assert_int_equal(mkdir(beside, 0700), 0);
    assert_int_equal(rmdir(beside), 0);
    assert_false(is_readable(fixture));
}

/* --- The directory */

static void a_directory_that_is_deleted_with_its_mailboxes_is_followed(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    watch(fixture, BOX);
    watch(fixture, OTHER);
    scratch_delete(fixture->scratch->mailboxes);
    assert_true(gproc_watch_read(&fixture->watch, NULL, NULL) > 0);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
    settle(fixture);
    append(fixture, OTHER);
    expect_reports(fixture, 1, OTHER);
}

/* Nothing in it that could tell, and somebody has it open: silent but for its parent. */
static void an_empty_directory_that_is_deleted_is_followed(void **state)
{
    struct fixture *fixture = *state;

    watch(fixture, BOX);
    assert_int_equal(rmdir(fixture->scratch->mailboxes), 0);
    append(fixture, BOX); /* makes another one */
    expect_reports(fixture, 1, BOX);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
}

static void a_directory_that_is_moved_away_is_followed_by_its_name(void **state)
{
    struct fixture *fixture = *state;
    char away[400];

    append(fixture, BOX);
    watch(fixture, BOX);
    snprintf(away, sizeof(away), "%s/away", fixture->scratch->path);
    assert_int_equal(rename(fixture->scratch->mailboxes, away), 0);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
}

static void a_directory_without_a_parent_is_told_and_found_when_there_is_one_again(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    watch(fixture, BOX);
    scratch_delete(fixture->scratch->path);
    assert_int_equal(gproc_watch_read(&fixture->watch, NULL, NULL), -ENOENT);
    assert_int_equal(gproc_watch_add(&fixture->watch, OTHER), -ENOENT);
    assert_int_equal(mkdir(fixture->scratch->path, 0700), 0);
    assert_int_equal(gproc_watch_read(&fixture->watch, NULL, NULL), 0);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
}

/* Others remove and make the directory as fast as they can; at the end nothing has been missed. */
static void no_race_with_removal_blinds_the_watch(void **state)
{
    struct fixture *fixture = *state;
    struct scratch *scratch = fixture->scratch;
    const int64_t deadline_ms = process_clock_ms() + SCRATCH_DEADLINE_MS;
    struct pollfd watched = {.fd = fixture->watch.fd, .events = POLLIN};
    off_t seen = 0;
    int result = 0;
    int status;
    pid_t child;

    watch(fixture, BOX);
    child = process_fork(0);
    if (child == 0) {
        for (int i = 0; i < 300; i++) {
            scratch_append(scratch, BOX, "x", 1);
            scratch_delete(scratch->mailboxes);
        }
        scratch_append(scratch, BOX, "the end", 7);
        _exit(0);
    }
    while (result >= 0 && seen < 7 && process_clock_ms() < deadline_ms) {
        if (poll(&watched, 1, (int)(deadline_ms - process_clock_ms())) == 1)
            result = gproc_watch_read(&fixture->watch, NULL, NULL);
        seen = scratch_size(scratch, BOX);
    }
    status = process_wait(child, SCRATCH_DEADLINE_MS);
    assert_int_equal(result < 0 ? result : 0, 0);
    assert_int_equal(status, 0);
    assert_true(seen >= 7);
}

/* --- Limits and upkeep */

static void an_overflow_is_reported_as_a_change_of_all(void **state)
{
    struct fixture *fixture = *state;
    char text[32] = "";
    long most;
    int fds[2];
    int settings = open("/proc/sys/fs/inotify/max_queued_events", O_RDONLY | O_CLOEXEC);

    if (settings < 0 || read(settings, text, sizeof(text) - 1) <= 0)
        skip();
    close(settings);
    most = strtol(text, NULL, 10);
    if (most > 200000) /* somebody has set it: too long a wait */
        skip();
    append(fixture, BOX);
    append(fixture, OTHER);
    watch(fixture, BOX);
    watch(fixture, OTHER);
    watch(fixture, THIRD);
    fds[0] = open(scratch_box(fixture->scratch, BOX), O_WRONLY | O_CLOEXEC);
    fds[1] = open(scratch_box(fixture->scratch, OTHER), O_WRONLY | O_CLOEXEC);
    for (long i = 0; i < most + 10; i++)
        assert_int_equal(pwrite(fds[i % 2], "x", 1, 0),
                         1); /* in turn: the same twice is one event */
    close(fds[0]);
    close(fds[1]);
    append(fixture, THIRD); /* this event is lost */
    fixture->reported_count = 0;
    while (is_readable(fixture))
        assert_true(gproc_watch_read(&fixture->watch, report, fixture) >= 0);
    assert_int_equal(fixture->reported[fixture->reported_count - 3] +
                         fixture->reported[fixture->reported_count - 2] +
                         fixture->reported[fixture->reported_count - 1],
                     BOX + OTHER + THIRD);
    append(fixture, THIRD); /* and it is watched all the same */
    expect_reports(fixture, 1, THIRD);
}

static void what_is_removed_is_reported_no_more(void **state)
{
    struct fixture *fixture = *state;

    append(fixture, BOX);
    watch(fixture, BOX);
    watch(fixture, OTHER);
    append(fixture, BOX);
    append(fixture, OTHER);
    gproc_watch_remove(&fixture->watch, BOX);
    gproc_watch_remove(&fixture->watch, UNWATCHED);
    expect_reports(fixture, 1, OTHER);
    settle(fixture);
    append(fixture, BOX);
    expect_reports(fixture, 0);
}

static void who_is_told_may_add_and_remove(void **state)
{
    struct fixture *fixture = *state;
    static const pid_t removed[] = {BOX, OTHER, THIRD};

    for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++) {
        watch(fixture, BOX);
        watch(fixture, OTHER);
        watch(fixture, THIRD);
        append(fixture, BOX);
        append(fixture, OTHER);
        append(fixture, THIRD);
        fixture->reported_count = 0;
        fixture->remove = removed[i];
        fixture->add = UNWATCHED;
        assert_in_range(gproc_watch_read(&fixture->watch, report, fixture), 2, 3);
        fixture->remove = 0;
        fixture->add = 0;
        for (int k = 0; k < fixture->reported_count; k++) {
            for (int l = 0; l < k; l++)
                assert_int_not_equal(fixture->reported[k], fixture->reported[l]);
        }
        settle(fixture);
        append(fixture, UNWATCHED);
        expect_reports(fixture, 1, UNWATCHED);
        gproc_watch_remove(&fixture->watch, UNWATCHED);
        settle(fixture);
    }
}

static void the_kernel_watches_no_more_than_is_needed(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(watches_count(fixture), 0);
    watch(fixture, BOX);
    assert_int_equal(watches_count(fixture), 2); /* the directory and its parent */
    append(fixture, BOX);
    settle(fixture);
    assert_int_equal(watches_count(fixture), 2); /* the directory and the file */
    watch(fixture, BOX);
    assert_int_equal(watches_count(fixture), 2);
    for (pid_t pid = 1; pid <= 20; pid++) {
        append(fixture, pid);
        watch(fixture, pid);
    }
    assert_int_equal(watches_count(fixture), 22);
    for (int i = 0; i < 5; i++) {
        scratch_delete(fixture->scratch->mailboxes);
        settle(fixture);
    }
    assert_int_equal(watches_count(fixture), 2);
    for (pid_t pid = 1; pid <= 20; pid++)
        gproc_watch_remove(&fixture->watch, pid);
    gproc_watch_remove(&fixture->watch, BOX);
    assert_int_equal(watches_count(fixture), 0);
    settle(fixture);
    append(fixture, BOX);
    assert_false(is_readable(fixture));
    watch(fixture, BOX);
    append(fixture, BOX);
    expect_reports(fixture, 1, BOX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_mailbox_that_comes_is_reported),
        TEST(each_change_of_the_content_is_reported),
        TEST(a_mailbox_is_followed_when_it_goes_and_comes_back),
        TEST(a_mailbox_that_is_replaced_is_followed),
        TEST(a_second_link_is_reported_when_it_comes_and_goes),
        TEST(others_mailboxes_and_files_beside_wake_nobody),
        TEST(a_directory_that_is_deleted_with_its_mailboxes_is_followed),
        TEST(an_empty_directory_that_is_deleted_is_followed),
        TEST(a_directory_that_is_moved_away_is_followed_by_its_name),
        TEST(a_directory_without_a_parent_is_told_and_found_when_there_is_one_again),
        TEST(no_race_with_removal_blinds_the_watch),
        TEST(an_overflow_is_reported_as_a_change_of_all),
        TEST(what_is_removed_is_reported_no_more),
        TEST(who_is_told_may_add_and_remove),
        TEST(the_kernel_watches_no_more_than_is_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
