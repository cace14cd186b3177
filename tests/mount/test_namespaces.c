/*
 * Processes and a daemon that see each other under other process ids, or not at all: a daemon in a
 * pid namespace of its own, and senders in namespaces below the daemon's. All share one /proc, that
 * of the test.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "scratch.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    WORK_MS = 10000,
    LARGE_BYTES = 3 * 1024 * 1024 + 17, /* the kernel cuts at 1 MiB */
    MAYBE_CUT_BYTES = 512 * 1024,       /* so many that the daemon may ask whether there is more */
    TEAM = 3000,
    CANNOT_CHOOSE = 120,     /* no errno that is met here */
    NOBODY_PID = 2000000001, /* beyond every pid_max */
};

#define WAITING_READERS "gprocfs_parked_requests{kind=\"message\"}"

/* That in which the daemon is. */
static int namespace_of_daemon(struct mount *mount)
{
    int fd = open(mount_path(mount, "/proc/%d/ns/pid", (int)mount->daemon), O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        fail_msg("the daemon's namespace: %s", strerror(errno));
    return fd;
}

static int send_one(const char *path, int flags, const char *text)
{
    int fd = open(path, flags, 0666);
    int error;

    if (fd < 0)
        return errno;
    error = through_write(fd, text, strlen(text));
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

/* --- The daemon does not see us --------------------------------------------------------------- */

static void sender_without_a_name_is_0(void **state)
{
    struct mount *mount = mount_of(state);

    through_send(mount, BOX, "hello");
    behind_expect_frame(mount, BOX, 0, "hello", 5);
    assert_int_equal(send_one(through_box(mount, OTHER), THROUGH_APPEND, "world"), 0);
    behind_expect_frame(mount, OTHER, 0, "world", 5);
}

static void envelope_of_a_sender_without_a_name_says_0(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_send(mount, BOX, "hello");
    behind_expect_sent(mount, BOX, 99, "there");
    fd = view_open(mount, ".envelope", BOX);
    through_expect_read(fd, "0 5\nhello99 5\nthere");
    assert_success(close(fd));
}

static void strangers_send_look_and_receive(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "4711\n14\none\ntwo\nthree\none\ntwo\nthree\nleft\n",
                       "echo one > $M/4711 && echo two >> $M/4711 && { echo three; } > $M/4711\n"
                       "ls $M; stat -c %%s $M/4711; cat $M/.peek/4711; cat $M/4711\n"
                       "chmod 640 $M/4711 && test \"$(stat -c %%a $B/4711)\" = 640 || exit\n"
                       "touch $M/4711 && echo gone > $M/4711 && truncate -s 0 $M/4711 || exit\n"
                       "cat $M/4711; echo left > $M/4711; head -n1 $M/4711; rm $M/4711; ls $M");
}

static void large_message_that_is_collected_is_one(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, LARGE_BYTES, 1);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, payload, LARGE_BYTES);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, 0, payload, LARGE_BYTES);
}

/* Who cannot look at the writer cannot know that a write goes on. */
static void each_piece_of_a_large_write_is_a_message(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, LARGE_BYTES, 2);
    struct behind_message message;
    uint8_t *bytes = NULL;
    size_t count = 0, joined = 0, done = 0;
    int fd = through_open(mount, BOX, THROUGH_APPEND);
    ssize_t size;

    through_write_once(fd, payload, LARGE_BYTES);
    assert_success(close(fd));
    size = behind_read(mount, BOX, &bytes);
    mount_keep(mount, bytes);
    for (; size > 0 && done < (size_t)size; count++) {
        ssize_t frame = behind_parse(bytes + done, (size_t)size - done, &message);

        assert_true(frame > 0);
        assert_int_equal(message.sender, 0);
        assert_true(joined + message.payload_bytes <= LARGE_BYTES);
        assert_memory_equal(message.payload, payload + joined, message.payload_bytes);
        joined += message.payload_bytes;
        done += (size_t)frame;
    }
    assert_int_equal(joined, LARGE_BYTES);
    assert_true(count > 1);
}

/* 0 where one read returns "hello". */
static int receive_one(const char *path)
{
    char buffer[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    if (read(fd, buffer, sizeof(buffer)) != 5)
        return ENODATA;
    return memcmp(buffer, "hello", 5) == 0 ? 0 : EBADMSG;
}

/* A process that waits for a message. */
static pid_t start_follower(struct mount *mount)
{
    int64_t waiting = view_sample(mount, WAITING_READERS);
    pid_t child = process_fork(0);

    if (child == 0)
        _exit(receive_one(view_path(mount, ".follow", BOX)));
    view_await_sample(mount, WAITING_READERS, waiting + 1);
    return child;
}

static void waiting_reader_is_woken_by_strangers_and_from_behind(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t child;

    assert_success(close(through_open(mount, BOX, THROUGH_APPEND)));
    child = start_follower(mount);
    through_send(mount, BOX, "hello");
    assert_int_equal(process_wait(child, WORK_MS), 0);
    child = start_follower(mount);
    behind_expect_sent(mount, BOX, 1, "hello");
    assert_int_equal(process_wait(child, WORK_MS), 0);
    behind_expect_texts(mount, BOX, NULL);
}

static void waiting_reader_can_be_killed_and_takes_nothing_with_it(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t child;

    assert_success(close(through_open(mount, BOX, THROUGH_APPEND)));
    child = start_follower(mount);
    assert_success(kill(child, SIGKILL));
    assert_int_equal(process_wait(child, WORK_MS), 128 + SIGKILL);
    view_await_sample(mount, WAITING_READERS, 0);
    through_send(mount, BOX, "hello");
    through_expect_texts(mount, BOX, "hello", NULL);
}

/* A writer of several writes, killed in their midst, by whom it cannot be told: its close may send
 * what was collected, or not; nothing else is lost, and the mailbox is good afterwards. */
static void killed_stranger_leaves_the_mailbox_good(void **state)
{
    struct mount *mount = mount_of(state);
    int written[2];
    char byte;
    pid_t child;

    assert_success(pipe2(written, O_CLOEXEC));
    child = process_fork(0);
    if (child == 0) {
        int fd = open(through_box(mount, BOX), THROUGH_REPLACE, 0666);

        if (fd < 0 || write(fd, "half", 4) != 4 || write(written[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(written[1]);
    assert_int_equal(read(written[0], &byte, 1), 1);
    close(written[0]);
    assert_success(kill(child, SIGKILL));
    assert_int_equal(process_wait(child, WORK_MS), 128 + SIGKILL);
    assert_success(truncate(through_box(mount, BOX), 0));
    through_send(mount, BOX, "whole");
    behind_expect_texts(mount, BOX, "whole", NULL);
}

static void unmount_puts_back_what_strangers_left(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "one\n",
                       "echo one > $M/4711; echo two > $M/4711; head -n1 $M/4711");
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, "two\n", NULL);
}

/* --- The daemon sees others than we ----------------------------------------------------------- */

/* A pipe that a child tells its process id through. */
static pid_t told(int fd)
{
    pid_t pid = -1;

    assert_int_equal(read(fd, &pid, sizeof(pid)), sizeof(pid));
    return pid;
}

/* In the daemon's namespace: tells what it is called there, and is there until `go` has ended. */
static int stay(int tell, const int go[2])
{
    pid_t pid = getpid();
    char byte;

    close(go[1]);
    return write(tell, &pid, sizeof(pid)) == sizeof(pid) && read(go[0], &byte, 1) == 0 ? 0 : 1;
}

static void with_live_the_daemons_process_ids_count(void **state)
{
    struct mount *mount = mount_of(state);
    int namespace_fd = namespace_of_daemon(mount);
    int errors[4], go[2], tell[2];
    pid_t child, pid;

    assert_success(pipe2(go, O_CLOEXEC));
    assert_success(pipe2(tell, O_CLOEXEC));
    child = process_fork_in_pid_namespace(0, namespace_fd);
    if (child == 0)
        _exit(stay(tell[1], go));
    assert_true(child > 0);
    close(namespace_fd);
    close(go[0]);
    pid = told(tell[0]);
    errors[0] = send_one(through_box(mount, pid), THROUGH_REPLACE, "hello");
    errors[1] = send_one(through_box(mount, pid), THROUGH_APPEND, "again");
    /* What we call it is nobody's name there, as this is nobody's at all. */
    errors[2] = send_one(through_box(mount, child), THROUGH_APPEND, "x");
    errors[3] = send_one(through_box(mount, NOBODY_PID), THROUGH_REPLACE, "x");
    close(go[1]);
    close(tell[0]);
    close(tell[1]);
    /* First of all: the daemon cannot end before the children that its namespace has are reaped. */
    assert_int_equal(process_wait(child, WORK_MS), 0);
    assert_int_equal(errors[0], 0);
    assert_int_equal(errors[1], 0);
    assert_int_equal(errors[2], ESRCH);
    assert_int_equal(errors[3], ESRCH);
    assert_int_equal(send_one(through_box(mount, pid), THROUGH_APPEND, "x"), ESRCH);
    through_expect_texts(mount, pid, "hello", "again", NULL);
}

/*
 * In a process of the daemon's namespace, or of one above: makes a namespace below it, and sends
 * from its first process. Tells what that is called here.
 */
static int send_from_below(const char *path, int flags, int tell)
{
    pid_t pid = process_fork_in_pid_namespace(0, -1);

    if (pid == 0)
        _exit(getpid() == 1 ? send_one(path, flags, "hello") : 125);
    if (pid < 0 || write(tell, &pid, sizeof(pid)) != sizeof(pid))
        return 124;
    return process_wait(pid, WORK_MS);
}

static void sender_in_a_namespace_below_is_called_as_the_daemon_calls_it(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    struct mount *mount = mount_of(state);
    int tell[2];

    assert_success(pipe2(tell, O_CLOEXEC));
    for (int i = 0; i < 2; i++) {
        if (send_from_below(through_box(mount, BOX + i), flags[i], tell[1]) != 0)
            fail_msg("it could not send");
        behind_expect_frame(mount, BOX + i, told(tell[0]), "hello", 5);
    }
    close(tell[0]);
    close(tell[1]);
}

/* The same, with a daemon that has a namespace of its own: neither 1 nor what we call it. */
static void sender_two_namespaces_below_is_called_as_the_daemon_calls_it(void **state)
{
    struct mount *mount = mount_of(state);
    int namespace_fd = namespace_of_daemon(mount);
    int tell[2];
    pid_t child;

    assert_success(pipe2(tell, O_CLOEXEC));
    child = process_fork_in_pid_namespace(0, namespace_fd);
    if (child == 0)
        _exit(send_from_below(through_box(mount, BOX), THROUGH_REPLACE, tell[1]));
    assert_true(child > 0);
    close(namespace_fd);
    assert_int_equal(process_wait(child, WORK_MS), 0);
    behind_expect_frame(mount, BOX, told(tell[0]), "hello", 5);
    close(tell[0]);
    close(tell[1]);
}

struct thread_sending {
    const char *path;
    int error;
};

static void *send_in_thread(void *context)
{
    struct thread_sending *sending = context;

    sending->error = send_one(sending->path, THROUGH_APPEND, "hello");
    return NULL;
}

/* From a thread that is not its process's first. Tells the process's id. */
static int send_from_a_thread(const char *path, int tell)
{
    struct thread_sending sending = {.path = path};
    pid_t pid = getpid();
    pthread_t thread;

    if (pthread_create(&thread, NULL, send_in_thread, &sending) != 0 ||
        pthread_join(thread, NULL) != 0)
        return 125;
    return write(tell, &pid, sizeof(pid)) == sizeof(pid) ? sending.error : 124;
}

/*
 * FUSE names the thread. Its process is to be found where /proc is not the daemon's: there the same
 * number is another process, in ours. Never is the message that one's.
 */
static void thread_is_not_taken_for_a_process_of_another_namespace(void **state)
{
    struct mount *mount = mount_of(state);
    int namespace_fd = namespace_of_daemon(mount);
    struct behind_message message;
    uint8_t *bytes = NULL;
    int tell[2];
    pid_t child, pid;
    ssize_t size;

    assert_success(pipe2(tell, O_CLOEXEC));
    child = process_fork_in_pid_namespace(0, namespace_fd);
    if (child == 0)
        _exit(send_from_a_thread(through_box(mount, BOX), tell[1]));
    assert_true(child > 0);
    close(namespace_fd);
    assert_int_equal(process_wait(child, WORK_MS), 0);
    pid = told(tell[0]);
    close(tell[0]);
    close(tell[1]);
    size = behind_read(mount, BOX, &bytes);
    mount_keep(mount, bytes);
    assert_int_equal(size, BEHIND_HEADER_BYTES + 5);
    assert_true(behind_parse(bytes, (size_t)size, &message) > 0);
    if (message.sender != pid && message.sender != 0)
        fail_msg("sender %d instead of %d, or of 0", (int)message.sender, (int)pid);
}

/* --- Rights ----------------------------------------------------------------------------------- */

static const gid_t team[] = {TEAM};
static const struct process_ids member = {
    .uid = 1000, .gid = 1000, .groups = team, .groups_count = 1};
static const struct process_ids stranger = {.uid = 1001, .gid = 1001};

static void plant_for_team(struct mount *mount, mode_t mode)
{
    behind_expect_sent(mount, BOX, 1, "hello");
    assert_success(chown(behind_box(mount, BOX), 1002, TEAM));
    assert_success(chmod(behind_box(mount, BOX), mode));
}

/*
 * Who is not seen has no groups that could be asked for: he may be refused, never is he let in by
 * mistake, and nothing is lost.
 */
static void member_of_a_group_is_let_in_or_refused(void **state)
{
    struct mount *mount = mount_of(state);
    int status;
    pid_t child;

    plant_for_team(mount, 0660);
    child = process_fork_as(&member);
    if (child == 0)
        _exit(receive_one(through_box(mount, BOX)));
    status = process_wait(child, WORK_MS);
    assert_true(status == 0 || status == EACCES);
    if (status == EACCES)
        behind_expect_texts(mount, BOX, "hello", NULL);
}

/* --- Namesakes -------------------------------------------------------------------------------- */

/* What /proc says under the caller's number is of somebody else. */
struct namesakes {
    const struct process_ids *namesake; /* in our namespace */
    void (*pass_time)(int hold);        /* it does, until it is killed; `hold` is a full pipe */
    const struct process_ids *caller;   /* in the daemon's */
    int (*work)(const char *path);
};

/* In a pid namespace: the next process is to be called `pid`. */
static bool choose_next(pid_t pid)
{
    FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "we");
    bool chosen = last != NULL && fprintf(last, "%d", (int)pid - 1) > 0;

    return last != NULL && fclose(last) == 0 && chosen;
}

/* In the daemon's namespace: what the work of a process came to that is called `pid` there. */
static int work_as(const struct namesakes *both, const char *path, pid_t pid)
{
    int status = CANNOT_CHOOSE;

    /* A thread of the daemon may be faster, and will have been once. */
    for (int tries = 0; tries < 10 && status == CANNOT_CHOOSE; tries++) {
        pid_t child = choose_next(pid) ? process_fork_as(both->caller) : -1;

        if (child == 0)
            _exit(getpid() == pid ? both->work(path) : CANNOT_CHOOSE);
        if (child > 0)
            status = process_wait(child, WORK_MS);
    }
    return status;
}

static int work_beside_namesake(struct mount *mount, const struct namesakes *both)
{
    int namespace_fd = namespace_of_daemon(mount);
    int status, hold[2];
    pid_t namesake, child;

    assert_success(pipe2(hold, O_CLOEXEC));
    namesake = process_fork_as(both->namesake);
    if (namesake == 0) {
        both->pass_time(hold[1]);
        _exit(0);
    }
    scratch_wait_asleep(namesake);
    child = process_fork_in_pid_namespace(0, namespace_fd);
    if (child == 0)
        _exit(work_as(both, through_box(mount, BOX), namesake));
    close(namespace_fd);
    status = process_wait(child, WORK_MS);
    assert_success(kill(namesake, SIGKILL));
    assert_int_equal(process_wait(namesake, WORK_MS), 128 + SIGKILL);
    close(hold[0]);
    close(hold[1]);
    if (status != CANNOT_CHOOSE)
        return status;
    print_message("skipped: no process id can be chosen here\n");
    skip();
    return -1;
}

static void wait_for_end(int hold)
{
    (void)hold;
    for (;;)
        pause();
}

/* More than a pipe holds, and more than whoever has its number in the daemon's namespace writes. */
static void write_for_long(int hold)
{
    static uint8_t bytes[LARGE_BYTES];

    (void)!write(hold, bytes, sizeof(bytes)); /* it does not end */
}

/* The kernel lets everybody read this mailbox. Taking is for the team. */
static void stranger_has_not_the_groups_of_a_namesake(void **state)
{
    static const struct namesakes both = {
        .namesake = &member, .pass_time = wait_for_end, .caller = &stranger, .work = receive_one};
    struct mount *mount = mount_of(state);

    plant_for_team(mount, 0664);
    assert_int_equal(work_beside_namesake(mount, &both), EACCES);
    behind_expect_texts(mount, BOX, "hello", NULL);
}

/* 0 where a large write is a message as soon as it has returned: so many bytes are waiting. */
static int write_once(const char *path)
{
    static uint8_t bytes[MAYBE_CUT_BYTES];
    struct stat status;
    int fd = open(path, THROUGH_APPEND, 0666);

    if (fd < 0)
        return errno;
    if (write(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
        return EIO;
    if (stat(path, &status) != 0)
        return errno;
    return status.st_size == MAYBE_CUT_BYTES ? 0 : ENODATA;
}

static void large_write_does_not_wait_for_that_of_a_namesake(void **state)
{
    static const struct namesakes both = {
        .namesake = &member, .pass_time = write_for_long, .caller = &member, .work = write_once};
    static const uint8_t zeros[MAYBE_CUT_BYTES];
    struct mount *mount = mount_of(state);
    struct behind_message message;
    uint8_t *bytes = NULL;
    ssize_t size;

    assert_int_equal(work_beside_namesake(mount, &both), 0);
    size = behind_read(mount, BOX, &bytes);
    mount_keep(mount, bytes);
    assert_int_equal(size, BEHIND_HEADER_BYTES + MAYBE_CUT_BYTES);
    assert_int_equal(behind_parse(bytes, (size_t)size, &message), size);
    assert_memory_equal(message.payload, zeros, MAYBE_CUT_BYTES);
}

int main(void)
{
    static const struct mount_options apart = {.own_pids = true};
    static const struct mount_options apart_chatty = {.own_pids = true, .chatty = true};
    static const struct mount_options apart_live = {
        .own_pids = true, .options = "live", .chatty = true};
    static const struct mount_options apart_for_all = {
        .own_pids = true, .options = "allow_other", .for_all = true};
    static const struct mount_options root = {.needs_root = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(sender_without_a_name_is_0, &apart),
        MOUNT_TEST_WITH(envelope_of_a_sender_without_a_name_says_0, &apart),
        MOUNT_TEST_WITH(strangers_send_look_and_receive, &apart),
        MOUNT_TEST_WITH(large_message_that_is_collected_is_one, &apart),
        MOUNT_TEST_WITH(each_piece_of_a_large_write_is_a_message, &apart),
        MOUNT_TEST_WITH(waiting_reader_is_woken_by_strangers_and_from_behind, &apart),
        MOUNT_TEST_WITH(waiting_reader_can_be_killed_and_takes_nothing_with_it, &apart),
        MOUNT_TEST_WITH(killed_stranger_leaves_the_mailbox_good, &apart_chatty),
        MOUNT_TEST_WITH(unmount_puts_back_what_strangers_left, &apart),
        MOUNT_TEST_WITH(with_live_the_daemons_process_ids_count, &apart_live),
        MOUNT_TEST_WITH(sender_in_a_namespace_below_is_called_as_the_daemon_calls_it, &root),
        MOUNT_TEST_WITH(sender_two_namespaces_below_is_called_as_the_daemon_calls_it, &apart),
        MOUNT_TEST_WITH(thread_is_not_taken_for_a_process_of_another_namespace, &apart),
        MOUNT_TEST_WITH(member_of_a_group_is_let_in_or_refused, &apart_for_all),
        MOUNT_TEST_WITH(stranger_has_not_the_groups_of_a_namesake, &apart_for_all),
        MOUNT_TEST_WITH(large_write_does_not_wait_for_that_of_a_namesake, &apart_for_all),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("namespaces", tests, NULL, NULL) == 0 ? 0 : 1;
}
