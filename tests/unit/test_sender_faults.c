/*
 * Who wrote, and what he is in the midst of, as /proc tells it; where it does not, because he is gone,
 * does something else, or /proc cannot be read, nothing is known, and nothing is made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"
#include "process.h"
#include "sender.h"
#include "temporary.h"

enum {
    WHOLE_BYTES = 200000, /* more than a pipe holds */
    READ_BYTES = 4321,
    WAIT_MS = 20000,
};

/* What a child is in the midst of, for ever. */
enum deed {
    WRITES,
    WRITES_PARTS,
    WRITES_PARTS_THAT_ARE_GONE,
    READS,
    SLEEPS,
};

struct child {
    pid_t pid;
    int fds[2];
};

static void *take_parts_away(void *parts)
{
    const struct timespec pause = {0, 50L * 1000 * 1000};

    (void)nanosleep(&pause, NULL); /* the kernel has its copy when the first byte has come */
    (void)munmap(parts, (size_t)sysconf(_SC_PAGESIZE));
    return NULL;
}

static void do_for_ever(int fd, int ready_fd, enum deed deed)
{
    uint8_t *bytes = calloc(1, WHOLE_BYTES);
    struct iovec *parts = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t other;

    if (bytes == NULL || parts == MAP_FAILED)
        _exit(1);
    parts[0] = (struct iovec){bytes, WHOLE_BYTES / 4};
    parts[1] = (struct iovec){bytes, WHOLE_BYTES - WHOLE_BYTES / 4};
    if (deed == WRITES)
        (void)!write(fd, bytes, WHOLE_BYTES);
    if (deed == WRITES_PARTS_THAT_ARE_GONE &&
        pthread_create(&other, NULL, take_parts_away, parts) != 0)
        _exit(1);
    if (deed == WRITES_PARTS || deed == WRITES_PARTS_THAT_ARE_GONE)
        (void)!writev(fd, parts, 2);
    if (deed == READS || deed == SLEEPS)
        (void)!write(ready_fd, "", 1);
    if (deed == READS)
        (void)!read(fd, bytes, READ_BYTES);
    for (;;)
        (void)pause();
}

static struct child start_child(enum deed deed)
{
    struct child child;
    uint8_t byte;
    int other[2];

    assert_int_equal(pipe(child.fds), 0);
    assert_int_equal(pipe(other), 0);
    child.pid = process_fork(0);
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        if (deed == READS)
            do_for_ever(other[0], child.fds[1], deed);
        do_for_ever(child.fds[1], child.fds[1], deed);
    }
    assert_int_equal(read(child.fds[0], &byte, 1), 1);
    (void)close(other[0]);
    (void)close(other[1]);
    return child;
}

static void stop_child(struct child *child)
{
    assert_int_equal(kill(child->pid, SIGKILL), 0);
    assert_int_equal(temporary_join(child->pid, WAIT_MS), 128 + SIGKILL);
    (void)close(child->fds[0]);
    (void)close(child->fds[1]);
}

/* One that was reaped: its number is nobody's for a while. */
static pid_t dead_pid(void)
{
    pid_t child = process_fork(0);

    assert_true(child >= 0);
    if (child == 0)
        _exit(0);
    assert_int_equal(temporary_join(child, WAIT_MS), 0);
    return child;
}

/* Waits until it is what is wanted: the child has just begun. */
static void expect_soon(size_t (*what)(pid_t tid), pid_t tid, size_t wanted)
{
    int64_t deadline_ms = process_clock_ms() + WAIT_MS;

    while (what(tid) != wanted) {
        if (process_clock_ms() > deadline_ms)
            fail_msg("%zu, not %zu", what(tid), wanted);
        (void)usleep(1000);
    }
}

/* ---- Who it is */

/* What is said of this thread, which is not its process's first. */
static void *ask_of_itself(void *said)
{
    *(pid_t *)said = sender_of_thread(gettid());
    return NULL;
}

static void test_sender_is_the_threads_process(void **state)
{
    pthread_t thread;
    pid_t said = 0;

    (void)state;
    assert_int_equal(sender_of_thread(getpid()), getpid());
    assert_int_equal(sender_of_thread(getppid()), getppid());
    assert_int_equal(pthread_create(&thread, NULL, ask_of_itself, &said), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(said, getpid());
}

/* 0 is what the kernel says of a process of which our pid namespace knows nothing. */
static void test_sender_that_is_gone_or_elsewhere_is_nobody(void **state)
{
    pid_t dead = dead_pid();

    (void)state;
    assert_int_equal(sender_of_thread(0), 0);
    assert_int_equal(sender_of_thread(-1), 0);
    assert_int_equal(sender_of_thread(dead), 0);
    assert_int_equal(sender_write_bytes(0), 0);
    assert_int_equal(sender_write_bytes(dead), 0);
    assert_int_equal(sender_read_bytes(dead), 0);
    assert_false(sender_was_killed(0));
    assert_false(sender_was_killed(dead));
    assert_false(sender_is_ending(dead));
}

static void *ask_without_proc(void *said)
{
    pid_t *both = said;

    fault_calls("open", 1, 1, -EMFILE);
    both[0] = sender_of_thread(gettid());
    fault_calls("read", 1, 1, -ESRCH); /* he went between the two */
    both[1] = sender_of_thread(gettid());
    fault_stop();
    return NULL;
}

static void test_sender_is_nobody_where_proc_cannot_be_read(void **state)
{
    pid_t said[2] = {-1, -1};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, ask_without_proc, said), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(said[0], 0);
    assert_int_equal(said[1], 0);
}

/* ---- What it is in the midst of */

static void test_write_is_as_large_as_it_was_called_for(void **state)
{
    static const enum deed deeds[] = {WRITES, WRITES_PARTS};

    (void)state;
    for (size_t i = 0; i < sizeof(deeds) / sizeof(deeds[0]); i++) {
        struct child child = start_child(deeds[i]);

        expect_soon(sender_write_bytes, child.pid, WHOLE_BYTES);
        assert_int_equal(sender_read_bytes(child.pid), 0);
        stop_child(&child);
    }
}

static void test_read_is_as_large_as_it_was_called_for(void **state)
{
    struct child child = start_child(READS);

    (void)state;
    expect_soon(sender_read_bytes, child.pid, READ_BYTES);
    assert_int_equal(sender_write_bytes(child.pid), 0);
    stop_child(&child);
}

static void test_who_does_something_else_writes_and_reads_nothing(void **state)
{
    struct child child = start_child(SLEEPS);

    (void)state;
    assert_int_equal(sender_write_bytes(child.pid), 0);
    assert_int_equal(sender_read_bytes(child.pid), 0);
    stop_child(&child);
    /* He who runs is in no call. */
    assert_int_equal(sender_write_bytes(gettid()), 0);
}

static void test_parts_that_cannot_be_seen_are_nothing(void **state)
{
    struct child child = start_child(WRITES_PARTS_THAT_ARE_GONE);

    (void)state;
    expect_soon(sender_write_bytes, child.pid, 0);
    stop_child(&child);
}

/* ---- How it ends */

/* Ended, and not reaped: its last words can be read in /proc. */
static void await_zombie(pid_t pid)
{
    siginfo_t info;

    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void test_end_by_a_signal_is_told_from_one_of_itself(void **state)
{
    struct child child = start_child(SLEEPS);
    pid_t other = process_fork(0);

    (void)state;
    assert_true(other >= 0);
    if (other == 0)
        _exit(3);
    assert_false(sender_was_killed(child.pid));
    assert_false(sender_is_ending(child.pid));
    assert_int_equal(kill(child.pid, SIGTERM), 0);
    await_zombie(child.pid);
    await_zombie(other);
    assert_true(sender_was_killed(child.pid));
    assert_true(sender_is_ending(child.pid));
    assert_false(sender_was_killed(other));
    assert_false(sender_is_ending(other));
    /* Where /proc cannot be read nobody is said to be dead. */
    fault_calls("open", 1, 2, -EMFILE);
    assert_false(sender_was_killed(child.pid));
    assert_false(sender_is_ending(child.pid));
    fault_stop();
    assert_int_equal(temporary_join(child.pid, WAIT_MS), 128 + SIGTERM);
    assert_int_equal(temporary_join(other, WAIT_MS), 3);
    (void)close(child.fds[0]);
    (void)close(child.fds[1]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender_is_the_threads_process),
        cmocka_unit_test(test_sender_that_is_gone_or_elsewhere_is_nobody),
        cmocka_unit_test(test_sender_is_nobody_where_proc_cannot_be_read),
        cmocka_unit_test(test_write_is_as_large_as_it_was_called_for),
        cmocka_unit_test(test_read_is_as_large_as_it_was_called_for),
        cmocka_unit_test(test_who_does_something_else_writes_and_reads_nothing),
        cmocka_unit_test(test_parts_that_cannot_be_seen_are_nothing),
        cmocka_unit_test(test_end_by_a_signal_is_told_from_one_of_itself),
    };

    return cmocka_run_group_tests_name("sender, faults", tests, NULL, NULL);
}
