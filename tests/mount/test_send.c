/* Sending through the mount: when a message is sent, whose it is, and when it must not be. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "process.h"
#include "through.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    KIB = 1024,
    MIB = 1024 * KIB,
    DEFAULT_LIMIT_BYTES = 64 * MIB,
    SMALL_LIMIT_BYTES = 1000,
    PAGE_BYTES = 4096,
    USER = 1,        /* who has a name everywhere, as fusermount3 wants */
    EXEC_MS = 15000, /* the usual is at once */
};

/* --- When a message is sent ------------------------------------------------------------------ */

static void replacing_handle_sends_one_message_at_close(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "one ", 4);
    through_write_once(fd, "two ", 4);
    through_write_once(fd, "three", 5);
    behind_expect_texts(mount, BOX, NULL);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, getpid(), "one two three", 13);
}

static void other_handles_send_each_write_at_once(void **state)
{
    static const int flags[] = {
        THROUGH_APPEND,
        O_WRONLY | O_CLOEXEC,
        O_RDWR | O_CLOEXEC,
        O_RDWR | O_CREAT | O_CLOEXEC,
        O_RDWR | O_APPEND | O_CLOEXEC,
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        uint8_t *drained;
        int fd = through_open(mount, BOX, flags[i]);

        through_write_once(fd, "one", 3);
        behind_expect_texts(mount, BOX, "one", NULL);
        through_write_once(fd, "two", 3);
        behind_expect_texts(mount, BOX, "one", "two", NULL);
        assert_success(close(fd));
        behind_expect_texts(mount, BOX, "one", "two", NULL);
        assert_true(behind_drain(mount, BOX, &drained) > 0);
        mount_keep(mount, drained);
    }
}

static void messages_are_appended_in_order(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "from behind");
    through_send(mount, BOX, "replacing replaces nothing");
    through_send(mount, BOX, "and again");
    behind_expect_sent(mount, BOX, 2, "from behind again");
    behind_expect_texts(mount, BOX, "from behind", "replacing replaces nothing", "and again",
                        "from behind again", NULL);
}

static void nothing_written_sends_nothing_and_clears_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_expect_run(mount, "sh", "", ": > $M/%d; : >> $M/%d", OTHER, OTHER);
    behind_expect_bytes(mount, OTHER, NULL, 0);

    behind_expect_sent(mount, BOX, 1, "waits");
    through_expect_run(mount, "sh", "", ": > $M/%d; : >> $M/%d; : <> $M/%d", BOX, BOX, BOX);
    fd = through_open(mount, BOX, THROUGH_REPLACE);
    assert_success(fsync(fd));
    assert_success(close(dup(fd)));
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, 1, "waits", 5);
}

static void write_of_nothing_sends_nothing(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = through_open(mount, BOX, flags[i]);

        assert_int_equal(write(fd, "", 0), 0);
        assert_success(close(fd));
    }
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void close_of_a_duplicate_sends_what_is_collected_so_far(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "on", 2);
    through_write_once(fd, "e", 1);
    assert_success(close(dup(fd)));
    behind_expect_texts(mount, BOX, "one", NULL);
    assert_success(close(dup(fd)));
    behind_expect_texts(mount, BOX, "one", NULL);
    through_write_once(fd, "two", 3);
    assert_success(close(dup(fd)));
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "one", "two", NULL);
}

static void fsync_sends_what_is_collected_so_far(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "one", 3);
    assert_success(fsync(fd));
    behind_expect_texts(mount, BOX, "one", NULL);
    through_write_once(fd, "two", 3);
    assert_success(fdatasync(fd));
    behind_expect_texts(mount, BOX, "one", "two", NULL);
    through_write_once(fd, "three", 5);
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "one", "two", "three", NULL);
}

static void pwrite_acts_on_the_collected_message(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "hello world", 11);
    assert_int_equal(pwrite(fd, "J", 1, 0), 1);
    assert_int_equal(pwrite(fd, "W", 1, 6), 1);
    assert_int_equal(pwrite(fd, "!", 1, 11), 1);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, getpid(), "Jello World!", 12);
}

static void pwrite_past_the_end_leaves_zeros(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "ab", 2);
    assert_int_equal(pwrite(fd, "c", 1, 5), 1);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, getpid(), "ab\0\0\0c", 6);
}

static void ftruncate_acts_on_the_collected_message(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 1, "waits");
    fd = through_open(mount, BOX, THROUGH_REPLACE);
    through_write_once(fd, "hello world", 11);
    assert_success(ftruncate(fd, 5));
    assert_success(ftruncate(fd, 7));
    assert_int_equal(pwrite(fd, "!", 1, 7), 1);
    behind_expect_texts(mount, BOX, "waits", NULL);
    assert_success(close(fd));
    through_expect_size(mount, BOX, 5 + 8);
    assert_int_equal(unlink(behind_box(mount, BOX)), 0);

    fd = through_open(mount, BOX, THROUGH_REPLACE);
    through_write_once(fd, "hello world", 11);
    assert_success(ftruncate(fd, 5));
    assert_success(ftruncate(fd, 7));
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, getpid(), "hello\0\0", 7);
}

static void message_that_is_truncated_to_nothing_is_not_sent(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "gone", 4);
    assert_success(ftruncate(fd, 0));
    assert_success(close(fd));
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void after_a_send_the_next_message_starts_empty(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    /* The descriptor's own offset goes on; the message starts anew with the first byte after. */
    through_write_once(fd, "a longer first message", 22);
    assert_success(fsync(fd));
    through_write_once(fd, "b", 1);
    through_write_once(fd, "c", 1);
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "a longer first message", "bc", NULL);
}

static void handles_collect_apart_from_each_other(void **state)
{
    struct mount *mount = mount_of(state);
    int first = through_open(mount, BOX, THROUGH_REPLACE);
    int second = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(first, "fir", 3);
    through_write_once(second, "sec", 3);
    through_write_once(first, "st", 2);
    through_write_once(second, "ond", 3);
    assert_success(close(second));
    assert_success(close(first));
    behind_expect_texts(mount, BOX, "second", "first", NULL);
}

/* --- Whose it is ----------------------------------------------------------------------------- */

static void expect_sender(struct mount *mount, int32_t sender)
{
    struct behind_message message;
    uint8_t *bytes;
    ssize_t got = behind_drain(mount, BOX, &bytes);

    mount_keep(mount, bytes);
    assert_true(got > 0);
    assert_int_equal(behind_parse(bytes, (size_t)got, &message), got);
    assert_int_equal(message.sender, sender);
}

/* Writes to the descriptor that the argument points to. */
static void *write_in_thread(void *argument)
{
    const int *fd = argument;
    static bool failed;

    failed = write(*fd, "from a thread", 13) != 13;
    return failed ? &failed : NULL;
}

static void sender_is_the_process_and_not_its_thread(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = through_open(mount, BOX, flags[i]);
        pthread_t thread;
        void *failed;

        assert_int_equal(pthread_create(&thread, NULL, write_in_thread, &fd), 0);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        assert_success(close(fd));
        expect_sender(mount, getpid());
    }
}

static void *pause_in_thread(void *argument)
{
    (void)argument;
    for (;;)
        pause();
    return NULL;
}

/* Exits of itself, with a message collected, and threads that are ended by that. */
static void exit_with_threads(struct mount *mount)
{
    enum { THREADS = 8 };
    int fd = open(through_box(mount, BOX), THROUGH_REPLACE, 0666);
    pthread_t thread;

    for (int i = 0; i < THREADS; i++)
        (void)pthread_create(&thread, NULL, pause_in_thread, NULL);
    _exit(fd >= 0 && write(fd, "bye", 3) == 3 ? 0 : 1);
}

/* Any of its threads may be the last, and closes: with a SIGKILL of the kernel's own upon it. */
static void process_of_many_threads_that_exits_has_sent(void **state)
{
    enum { TIMES = 30 };
    struct mount *mount = mount_of(state);

    if (mount_is_sanitized())
        skip(); /* threads that are made after a fork are nothing for the thread sanitizer */
    for (int i = 0; i < TIMES; i++) {
        pid_t child = process_fork(0);

        if (child == 0)
            exit_with_threads(mount);
        assert_int_equal(process_wait(child, 10000), 0);
        behind_expect_texts(mount, BOX, "bye", NULL);
        through_expect_texts(mount, BOX, "bye", NULL);
    }
}

static void sender_is_the_shell_that_echoes(void **state)
{
    static const char *const lines[] = {"echo hi > $M/4711; echo $$",
                                        "echo hi >> $M/4711; echo $$"};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct process_result result = through_run_as(mount, 0, "sh", "%s", lines[i]);

        assert_int_equal(result.status, 0);
        expect_sender(mount, (int32_t)strtol(result.out, NULL, 10));
    }
}

/* A child that runs `write` first, tells so on a pipe, and ends when the test closes the other. */
static pid_t child_that_writes(int fd, const char *text, int told[2], int end[2])
{
    char byte;
    pid_t pid;

    assert_int_equal(pipe(told), 0);
    assert_int_equal(pipe(end), 0);
    pid = process_fork(0);
    if (pid != 0) {
        close(told[1]);
        close(end[0]);
        return pid;
    }
    close(end[1]);
    if (write(fd, text, strlen(text)) < 0 || write(told[1], "", 1) != 1)
        _exit(1);
    /* Not before: the exit closes the copy, which sends. */
    _exit(read(end[0], &byte, 1) == 0 ? 0 : 1);
}

static void sender_is_who_wrote_the_first_byte(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);
    int told[2];
    int end[2];
    char byte;
    pid_t child = child_that_writes(fd, "first ", told, end);

    assert_true(child > 0);
    assert_int_equal(read(told[0], &byte, 1), 1);
    through_write_once(fd, "second", 6);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, child, "first second", 12);
    close(end[1]);
    close(told[0]);
    assert_int_equal(process_wait(child, 5000), 0);
    behind_expect_frame(mount, BOX, child, "first second", 12);
}

/* --- How much -------------------------------------------------------------------------------- */

static void message_of_any_size_is_one_frame(void **state)
{
    static const size_t sizes[] = {
        1, 4095, 4096, 8192, 8193, 128 * KIB, MIB - 1, MIB, MIB + 1, 5000000, DEFAULT_LIMIT_BYTES,
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i);
        int fd = through_open(mount, BOX + (int)i, THROUGH_REPLACE);

        assert_int_equal(through_write(fd, payload, sizes[i]), 0);
        assert_success(close(fd));
        behind_expect_frame(mount, BOX + (int)i, getpid(), payload, sizes[i]);
        through_expect_size(mount, BOX + (int)i, (off_t)sizes[i]);
        assert_int_equal(unlink(behind_box(mount, BOX + (int)i)), 0);
    }
}

static void message_of_many_small_writes_is_one_frame(void **state)
{
    enum { WRITES = 2000, STEP_BYTES = 37 };
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, WRITES * STEP_BYTES, 1);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    for (size_t i = 0; i < WRITES; i++)
        through_write_once(fd, payload + i * STEP_BYTES, STEP_BYTES);
    assert_success(close(fd));
    behind_expect_frame(mount, BOX, getpid(), payload, WRITES * STEP_BYTES);
}

/* The kernel cuts a write into requests; the daemon looks at the writer to join them again. */
static void one_large_write_of_an_appending_handle_is_one_message(void **state)
{
    static const size_t sizes[] = {128 * KIB, MIB, MIB + 1, 5000000};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i);
        int fd = through_open(mount, BOX, THROUGH_APPEND);
        uint8_t *drained;

        through_write_once(fd, payload, sizes[i]);
        behind_expect_frame(mount, BOX, getpid(), payload, sizes[i]);
        assert_success(close(fd));
        behind_expect_frame(mount, BOX, getpid(), payload, sizes[i]);
        assert_true(behind_drain(mount, BOX, &drained) > 0);
        mount_keep(mount, drained);
    }
}

/* In parts, too: the pieces into which the kernel cuts it are not those parts. */
static void one_large_writev_of_an_appending_handle_is_one_message(void **state)
{
    struct mount *mount = mount_of(state);
    size_t bytes = 3000000;
    uint8_t *payload = through_payload(mount, bytes, 1);
    struct iovec parts[] = {{payload, 1000}, {payload + 1000, 0}, {payload + 1000, bytes - 1000}};
    int fd = through_open(mount, BOX, THROUGH_APPEND);

    assert_int_equal(writev(fd, parts, 3), bytes);
    behind_expect_frame(mount, BOX, getpid(), payload, bytes);
    assert_success(close(fd));
}

static void one_byte_over_the_default_limit_is_refused_and_changes_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, DEFAULT_LIMIT_BYTES + 1, 1);
    int fd;

    behind_expect_sent(mount, BOX, 1, "waits");
    fd = through_open(mount, BOX, THROUGH_REPLACE);
    assert_int_equal(through_write(fd, payload, DEFAULT_LIMIT_BYTES + 1), EFBIG);
    behind_expect_frame(mount, BOX, 1, "waits", 5);
    (void)close(fd);
    behind_expect_frame(mount, BOX, 1, "waits", 5);
}

static void one_byte_over_a_set_limit_is_refused_and_changes_nothing(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, SMALL_LIMIT_BYTES + 1, 1);

    behind_expect_sent(mount, BOX, 1, "waits");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = through_open(mount, BOX, flags[i]);

        assert_errno(write(fd, payload, SMALL_LIMIT_BYTES + 1), EFBIG);
        behind_expect_frame(mount, BOX, 1, "waits", 5);
        (void)close(fd);
        behind_expect_frame(mount, BOX, 1, "waits", 5);
    }
}

static void message_of_exactly_a_set_limit_is_sent(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, SMALL_LIMIT_BYTES, 1);

    for (int i = 0; i < 2; i++) {
        int fd = through_open(mount, BOX + i, flags[i]);

        through_write_once(fd, payload, SMALL_LIMIT_BYTES);
        assert_success(close(fd));
        behind_expect_frame(mount, BOX + i, getpid(), payload, SMALL_LIMIT_BYTES);
    }
}

static void message_that_grows_over_the_limit_is_not_sent_at_all(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, SMALL_LIMIT_BYTES, 1);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, payload, 600);
    assert_errno(write(fd, payload, 600), EFBIG);
    (void)close(fd);
    behind_expect_bytes(mount, BOX, NULL, 0);

    fd = through_open(mount, BOX, THROUGH_REPLACE);
    through_write_once(fd, payload, 10);
    assert_errno(pwrite(fd, "x", 1, SMALL_LIMIT_BYTES), EFBIG);
    (void)close(fd);
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void ftruncate_over_the_limit_is_refused(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    through_write_once(fd, "x", 1);
    assert_errno(ftruncate(fd, SMALL_LIMIT_BYTES + 1), EFBIG);
    (void)close(fd);
}

static void appending_handle_is_good_after_a_refusal(void **state)
{
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, SMALL_LIMIT_BYTES + 1, 1);
    int fd = through_open(mount, BOX, THROUGH_APPEND);

    assert_errno(write(fd, payload, SMALL_LIMIT_BYTES + 1), EFBIG);
    through_write_once(fd, "still there", 11);
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "still there", NULL);
}

static void shell_sees_that_a_message_is_over_the_limit(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result result =
        through_run_as(mount, 0, "sh", "head -c %d /dev/zero > $M/%d", SMALL_LIMIT_BYTES + 1, BOX);

    assert_int_not_equal(result.status, 0);
    assert_non_null(strstr(result.err, "File too large"));
    behind_expect_bytes(mount, BOX, NULL, 0);
}

/* --- No room --------------------------------------------------------------------------------- */

/* One message that fills its pages to the last byte, so that not one more byte fits. */
static void send_whole_pages(struct mount *mount, int pid, size_t pages)
{
    size_t payload_bytes = pages * PAGE_BYTES - BEHIND_HEADER_BYTES;
    const uint8_t *payload = through_payload(mount, payload_bytes, (uint32_t)pid);

    assert_int_equal(behind_send(mount, pid, 1, payload, payload_bytes), 0);
}

/* Leaves `free_bytes` of the small file system. */
static void fill(struct mount *mount, size_t free_bytes)
{
    static const uint8_t zeros[PAGE_BYTES];
    const char *path = mount_path(mount, "%s/filler", mount->mail);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat status;

    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof(zeros)) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    /* Where the last blocks are only promised, the promise is kept now. */
    (void)fsync(fd);
    while (write(fd, zeros, 1) > 0)
        ;
    assert_success(fstat(fd, &status));
    assert_true(status.st_size > (off_t)free_bytes);
    assert_success(ftruncate(fd, status.st_size - (off_t)free_bytes));
    (void)fsync(fd);
    close(fd);
}

/* What it exited with. */
static int exec_with_a_copy_of_what_collects(const char *path, int dumpable)
{
    int fd = open(path, THROUGH_REPLACE, 0666);
    int status = -1;
    pid_t child;

    if (fd < 0 || write(fd, "by exec", 7) != 7)
        return 1;
    child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_DUMPABLE, dumpable);
        execlp("true", "true", (char *)NULL);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child || write(fd, ", by close", 10) != 10 || close(fd) != 0)
        return 1;
    return status;
}

/*
 * execve(2) closes what it shall not keep, which sends what is collected, as any close does; and the
 * kernel holds a lock meanwhile, for which whoever looks at the process may wait for ever.
 */
static void exec_sends_what_a_copy_has_collected(void **state)
{
    struct mount *mount = mount_of(state);
    uid_t uid = mount->options->uid;

    for (int dumpable = 0; dumpable < 2; dumpable++) {
        const char *path = mount_path(mount, "%s/%d", mount->mnt, BOX + dumpable);
        pid_t child = process_fork(uid);

        assert_true(child >= 0);
        if (child == 0)
            _exit(exec_with_a_copy_of_what_collects(path, dumpable));
        assert_int_equal(process_wait(child, EXEC_MS), 0);
        behind_expect_texts(mount, BOX + dumpable, "by exec", ", by close", NULL);
    }
}

static void echo_fails_visibly_on_a_full_file_system(void **state)
{
    static const char *const shells[] = {"bash", "dash"};
    static const char *const redirections[] = {">", ">>"};
    struct mount *mount = mount_of(state);
    uint8_t *before;
    ssize_t before_bytes;

    send_whole_pages(mount, BOX, 2);
    before_bytes = behind_read(mount, BOX, &before);
    mount_keep(mount, before);
    assert_int_equal(before_bytes, 2 * PAGE_BYTES);
    fill(mount, 0);
    for (size_t i = 0; i < 4; i++) {
        struct process_result result;

        if (!process_has(shells[i / 2]))
            continue;
        for (int pid = BOX; pid <= OTHER; pid++) {
            result = through_run_as(mount, 0, shells[i / 2], "echo reload %s $M/%d",
                                    redirections[i % 2], pid);
            if (result.status == 0)
                fail_msg("%s: echo reload %s %d: exit status 0", shells[i / 2], redirections[i % 2],
                         pid);
        }
        behind_expect_bytes(mount, BOX, before, (size_t)before_bytes);
        behind_expect_bytes(mount, OTHER, NULL, 0);
    }
    /* And with room again it works again. */
    assert_int_equal(unlink(mount_path(mount, "%s/filler", mount->mail)), 0);
    through_send(mount, OTHER, "room");
    behind_expect_texts(mount, OTHER, "room", NULL);
}

static void message_larger_than_the_room_fails_at_the_write(void **state)
{
    static const int flags[] = {THROUGH_REPLACE, THROUGH_APPEND};
    enum { PAYLOAD_BYTES = 100 * KIB, ROOM_BYTES = 10 * PAGE_BYTES };
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, PAYLOAD_BYTES, 1);
    uint8_t *before;
    ssize_t before_bytes;

    send_whole_pages(mount, BOX, 1);
    before_bytes = behind_read(mount, BOX, &before);
    mount_keep(mount, before);
    assert_true(before_bytes > 0);
    fill(mount, ROOM_BYTES);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = through_open(mount, BOX, flags[i]);

        assert_errno(write(fd, payload, PAYLOAD_BYTES), ENOSPC);
        (void)close(fd);
        behind_expect_bytes(mount, BOX, before, (size_t)before_bytes);
    }
    through_send(mount, BOX, "small ones fit");
}

/* --- What is made on demand ------------------------------------------------------------------ */

static mode_t mode_of(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        fail_msg("%s: %s", path, strerror(errno));
    return status.st_mode & 07777;
}

static void mailbox_is_made_with_the_callers_umask_and_its_lock_for_one(void **state)
{
    static const mode_t umasks[] = {0, 002, 022, 027, 077};
    struct mount *mount = mount_of(state);

    for (int i = 0; i < (int)(sizeof(umasks) / sizeof(umasks[0])); i++) {
        umask(umasks[i]);
        through_send(mount, BOX + i, "x");
        assert_int_equal(mode_of(behind_box(mount, BOX + i)), 0666 & ~umasks[i]);
        assert_int_equal(mode_of(behind_lock_file(mount, BOX + i)), 0600);
        through_expect_run(mount, "sh", NULL, "umask %03o; echo x > $M/%d", (unsigned)umasks[i],
                           BOX + 100 + i);
        assert_int_equal(mode_of(behind_box(mount, BOX + 100 + i)), 0666 & ~umasks[i]);
        assert_int_equal(mode_of(behind_lock_file(mount, BOX + 100 + i)), 0600);
    }
}

static void directories_are_made_on_demand(void **state)
{
    struct mount *mount = mount_of(state);

    through_send(mount, BOX, "first");
    assert_int_equal(mode_of(mount->mail), 0755);
    assert_int_equal(mode_of(mount->locks), 0755);
    behind_expect_texts(mount, BOX, "first", NULL);
}

static void mailbox_directory_that_disappears_is_made_again(void **state)
{
    struct mount *mount = mount_of(state);

    through_send(mount, BOX, "lost with its directory");
    through_expect_run(mount, "sh", "", "rm -rf $B $L");
    through_send(mount, BOX, "one");
    through_send(mount, OTHER, "two");
    behind_expect_texts(mount, BOX, "one", NULL);
    behind_expect_texts(mount, OTHER, "two", NULL);
    through_expect_run(mount, "sh", "4711\n4712\n", "ls $M");
    through_expect_texts(mount, BOX, "one", NULL);
}

static void what_is_damaged_before_stays_as_it_was(void **state)
{
    static const uint8_t torn[] = {50, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 'x'};
    struct mount *mount = mount_of(state);
    uint8_t expected[sizeof(torn) + BEHIND_HEADER_BYTES + 4];

    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    through_send(mount, BOX, "good");
    memcpy(expected, torn, sizeof(torn));
    behind_frame(expected + sizeof(torn), getpid(), "good", 4);
    memcpy(expected + sizeof(torn) + BEHIND_HEADER_BYTES, "good", 4);
    behind_expect_bytes(mount, BOX, expected, sizeof(expected));
}

int main(void)
{
    static const struct mount_options large = {.seconds = 30};
    static const struct mount_options root = {.needs_root = true, .seconds = 30};
    static const struct mount_options limited = {.options = "max_message=1000"};
    static const struct mount_options tmpfs = {
        .place = MOUNT_ON_TMPFS, .place_kib = 512, .chatty = true};
    static const struct mount_options ext4 = {
        .place = MOUNT_ON_EXT4, .place_kib = 2048, .chatty = true};
    static const struct mount_options bare = {.bare = true};
    static const struct mount_options of_a_user = {.uid = USER};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(replacing_handle_sends_one_message_at_close),
        MOUNT_TEST(other_handles_send_each_write_at_once),
        MOUNT_TEST(messages_are_appended_in_order),
        MOUNT_TEST(nothing_written_sends_nothing_and_clears_nothing),
        MOUNT_TEST(write_of_nothing_sends_nothing),
        MOUNT_TEST(close_of_a_duplicate_sends_what_is_collected_so_far),
        MOUNT_TEST(fsync_sends_what_is_collected_so_far),
        MOUNT_TEST(exec_sends_what_a_copy_has_collected),
        MOUNT_TEST_WITH(exec_sends_what_a_copy_has_collected, &of_a_user),
        MOUNT_TEST(pwrite_acts_on_the_collected_message),
        MOUNT_TEST(pwrite_past_the_end_leaves_zeros),
        MOUNT_TEST(ftruncate_acts_on_the_collected_message),
        MOUNT_TEST(message_that_is_truncated_to_nothing_is_not_sent),
        MOUNT_TEST(after_a_send_the_next_message_starts_empty),
        MOUNT_TEST(handles_collect_apart_from_each_other),
        MOUNT_TEST(sender_is_the_process_and_not_its_thread),
        MOUNT_TEST(process_of_many_threads_that_exits_has_sent),
        MOUNT_TEST(sender_is_the_shell_that_echoes),
        MOUNT_TEST(sender_is_who_wrote_the_first_byte),
        MOUNT_TEST_WITH(message_of_any_size_is_one_frame, &large),
        MOUNT_TEST(message_of_many_small_writes_is_one_frame),
        MOUNT_TEST_WITH(one_large_write_of_an_appending_handle_is_one_message, &root),
        MOUNT_TEST_WITH(one_large_writev_of_an_appending_handle_is_one_message, &root),
        MOUNT_TEST_WITH(one_byte_over_the_default_limit_is_refused_and_changes_nothing, &large),
        MOUNT_TEST_WITH(one_byte_over_a_set_limit_is_refused_and_changes_nothing, &limited),
        MOUNT_TEST_WITH(message_of_exactly_a_set_limit_is_sent, &limited),
        MOUNT_TEST_WITH(message_that_grows_over_the_limit_is_not_sent_at_all, &limited),
        MOUNT_TEST_WITH(ftruncate_over_the_limit_is_refused, &limited),
        MOUNT_TEST_WITH(appending_handle_is_good_after_a_refusal, &limited),
        MOUNT_TEST_WITH(shell_sees_that_a_message_is_over_the_limit, &limited),
        MOUNT_TEST_WITH(echo_fails_visibly_on_a_full_file_system, &tmpfs),
        MOUNT_TEST_WITH(echo_fails_visibly_on_a_full_file_system, &ext4),
        MOUNT_TEST_WITH(message_larger_than_the_room_fails_at_the_write, &tmpfs),
        MOUNT_TEST_WITH(message_larger_than_the_room_fails_at_the_write, &ext4),
        MOUNT_TEST(mailbox_is_made_with_the_callers_umask_and_its_lock_for_one),
        MOUNT_TEST_WITH(directories_are_made_on_demand, &bare),
        MOUNT_TEST(mailbox_directory_that_disappears_is_made_again),
        MOUNT_TEST(what_is_damaged_before_stays_as_it_was),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("send", tests, NULL, NULL) == 0 ? 0 : 1;
}
