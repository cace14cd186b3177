/*
 * How many threads read requests: one more where one is at work for long, and one alone again when it
 * is not needed any more, though the requests go on. Each thread too many makes each of them dearer.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "process.h"
#include "through.h"

enum {
    BOX = 4711,
    MESSAGE_BYTES = 1 << 20,
    MESSAGES = 64,
    REQUESTS = 2000, /* at a time */
    THREADS_MOST = 64,
    SETTLED_MS = 20000, /* the usual is less than one second */
};

/* How often each thread but the first has come to run. */
struct switches {
    long tids[THREADS_MOST];
    uint64_t counts[THREADS_MOST];
    size_t threads_count;
};

/* Both numbers of a thread, or 0: it has ended. */
static uint64_t count_switches(struct mount *mount, long tid)
{
    char line[256];
    uint64_t sum = 0;
    FILE *status =
        fopen(mount_path(mount, "/proc/%d/task/%ld/status", (int)mount->daemon, tid), "re");

    while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
        const char *number = strstr(line, "voluntary_ctxt_switches:");

        if (number != NULL)
            sum += strtoull(strchr(number, ':') + 1, NULL, 10);
    }
    if (status != NULL)
        fclose(status);
    return sum;
}

static void look_at_threads(struct mount *mount, struct switches *switches)
{
    DIR *tasks = opendir(mount_path(mount, "/proc/%d/task", (int)mount->daemon));
    struct dirent *entry;

    assert_non_null(tasks);
    switches->threads_count = 0;
    while ((entry = readdir(tasks)) != NULL) {
        long tid = strtol(entry->d_name, NULL, 10);

        if (tid == 0 || tid == mount->daemon || switches->threads_count == THREADS_MOST)
            continue;
        switches->tids[switches->threads_count] = tid;
        switches->counts[switches->threads_count++] = count_switches(mount, tid);
    }
    closedir(tasks);
}

static uint64_t count_of(const struct switches *switches, long tid)
{
    for (size_t i = 0; i < switches->threads_count; i++) {
        if (switches->tids[i] == tid)
            return switches->counts[i];
    }
    return 0;
}

/* Requests one after the other: of how many of them in a hundred the busiest thread had its share. */
static unsigned share_of_the_busiest(struct mount *mount)
{
    struct switches before, after;
    uint64_t most = 0, sum = 0;
    struct stat status;

    look_at_threads(mount, &before);
    for (int i = 0; i < REQUESTS; i++)
        assert_success(stat(through_box(mount, BOX), &status));
    look_at_threads(mount, &after);
    for (size_t i = 0; i < after.threads_count; i++) {
        uint64_t count = after.counts[i] - count_of(&before, after.tids[i]);

        most = count > most ? count : most;
        sum += count;
    }
    return sum == 0 ? 0 : (unsigned)(most * 100 / sum);
}

/* On one processor, as gprocfs counts them, and with it whatever we start. */
static void pin(void)
{
    cpu_set_t allowed, one;
    size_t processor = 0;

    assert_success(sched_getaffinity(0, sizeof(allowed), &allowed));
    while (!CPU_ISSET(processor, &allowed))
        processor++;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    assert_success(sched_setaffinity(0, sizeof(one), &one));
}

static void one_thread_reads_again_when_no_other_is_needed(void **state)
{
    struct mount *mount = mount_of(state);
    int64_t deadline_ms;
    struct switches at_first, then;
    unsigned share;
    char first;
    int fd;

    assert_int_equal(mount_stop(mount), 0);
    pin();
    assert_int_equal(mount_start(mount), 0);
    behind_fill(mount, BOX, MESSAGE_BYTES, MESSAGES);
    look_at_threads(mount, &at_first);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, &first, 1), 1); /* moves all of them, which takes its time */
    assert_success(close(fd));
    look_at_threads(mount, &then);
    assert_true(then.threads_count > at_first.threads_count);
    deadline_ms = process_clock_ms() + SETTLED_MS;
    do
        share = share_of_the_busiest(mount);
    while (share < 95 && process_clock_ms() < deadline_ms);
    print_message("of 100 requests %u by one thread\n", share);
    assert_true(share >= 95);
}

int main(void)
{
    static const struct mount_options usual = {.seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(one_thread_reads_again_when_no_other_is_needed, &usual),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL) == 0 ? 0 : 1;
}
