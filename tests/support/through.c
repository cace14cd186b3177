#include "through.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "view.h"

enum {
    RUN_MS = 15000,
    ANSWER_MS = 10000, /* the usual is at once */
    TEXT_MAX_BYTES = 1 << 16,
    SCRIPT_MAX_BYTES = 8192,
};

const char *through_box(struct mount *mount, int pid)
{
    return mount_path(mount, "%s/%d", mount->mnt, pid);
}

int through_open(struct mount *mount, int pid, int flags)
{
    int fd = open(through_box(mount, pid), flags, 0666);

    if (fd < 0)
        fail_msg("open %d with flags %#o: %s", pid, (unsigned)flags, strerror(errno));
    return fd;
}

int through_open_view(struct mount *mount, const char *view, int pid, int flags)
{
    int fd = open(view_path(mount, view, pid), flags, 0666);

    if (fd < 0)
        fail_msg("open %s/%d with flags %#o: %s", view, pid, (unsigned)flags, strerror(errno));
    return fd;
}

int through_write(int fd, const void *bytes, size_t size_bytes)
{
    size_t done = 0;

    while (done < size_bytes) {
        ssize_t wrote = write(fd, (const uint8_t *)bytes + done, size_bytes - done);

        if (wrote < 0 && errno != EINTR)
            return errno;
        if (wrote > 0)
            done += (size_t)wrote;
    }
    return 0;
}

void through_write_once(int fd, const void *bytes, size_t size_bytes)
{
    ssize_t wrote = write(fd, bytes, size_bytes);

    if (wrote != (ssize_t)size_bytes)
        fail_msg("write of %zu bytes: %zd, %s", size_bytes, wrote,
                 wrote < 0 ? strerror(errno) : "short");
}

void through_expect_read(int fd, const char *text)
{
    char buffer[TEXT_MAX_BYTES];
    ssize_t got = read(fd, buffer, sizeof(buffer) - 1);

    if (got < 0)
        fail_msg("read for \"%s\": %s", text, strerror(errno));
    buffer[got > 0 ? got : 0] = '\0';
    assert_string_equal(buffer, text);
    assert_int_equal(got, strlen(text));
}

void through_send(struct mount *mount, int pid, const char *text)
{
    int fd = through_open(mount, pid, THROUGH_REPLACE);

    through_write_once(fd, text, strlen(text));
    assert_success(close(fd));
}

void through_expect_list(struct mount *mount, int pid, const char *const texts[])
{
    int fd = through_open(mount, pid, THROUGH_RECEIVE);

    for (size_t i = 0; texts[i] != NULL; i++)
        through_expect_read(fd, texts[i]);
    through_expect_read(fd, "");
    assert_success(close(fd));
}

void through_expect_size(struct mount *mount, int pid, off_t size_bytes)
{
    struct stat status;

    assert_success(stat(through_box(mount, pid), &status));
    assert_int_equal(status.st_size, size_bytes);
}

uint8_t *through_payload(struct mount *mount, size_t size_bytes, uint32_t seed)
{
    uint8_t *payload = mount_keep(mount, malloc(size_bytes + 1));
    uint32_t x = seed * 2654435761U + 1;

    for (size_t i = 0; i < size_bytes; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        payload[i] = (uint8_t)(x >> 24);
    }
    return payload;
}

static struct process_result run(struct mount *mount, uid_t uid, const char *shell,
                                 const char *script)
{
    const char *const plain[] = {shell, "-c", script, NULL};
    const char *const zsh[] = {shell, "-f", "-c", script, NULL}; /* without anybody's start files */
    const char *const variables[] = {mount_path(mount, "M=%s", mount->mnt),
                                     mount_path(mount, "B=%s", mount->mail),
                                     mount_path(mount, "L=%s", mount->locks),
                                     mount_path(mount, "W=%s", mount->work),
                                     mount_path(mount, "P=%s", mount_program()),
                                     mount_path(mount, "TMPDIR=%s", mount->work),
                                     "LC_ALL=C",
                                     NULL};
    struct process_result result;
    pid_t pid;

    result = process_run(uid, strcmp(shell, "zsh") == 0 ? zsh : plain, variables, RUN_MS, &pid);
    mount_keep(mount, result.out);
    mount_keep(mount, result.err);
    if (result.status == PROCESS_STUCK) {
        fprintf(stderr, "the daemon leaves this hanging: %s\n", script);
        mount_kill(mount);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return result;
}

static void script_print(char script[SCRIPT_MAX_BYTES], const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static void script_print(char script[SCRIPT_MAX_BYTES], const char *format, va_list arguments)
{
    static const char enter[] = "cd \"$W\" || exit 126\n";

    memcpy(script, enter, sizeof(enter));
    vsnprintf(script + sizeof(enter) - 1, SCRIPT_MAX_BYTES - sizeof(enter), format, arguments);
}

struct process_result through_run_as(struct mount *mount, uid_t uid, const char *shell,
                                     const char *format, ...)
{
    char script[SCRIPT_MAX_BYTES];
    va_list arguments;

    va_start(arguments, format);
    script_print(script, format, arguments);
    va_end(arguments);
    return run(mount, uid, shell, script);
}

void through_expect_run(struct mount *mount, const char *shell, const char *output,
                        const char *format, ...)
{
    char script[SCRIPT_MAX_BYTES];
    struct process_result result;
    va_list arguments;

    va_start(arguments, format);
    script_print(script, format, arguments);
    va_end(arguments);
    result = run(mount, 0, shell, script);
    if (result.status == 0 && (output == NULL || strcmp(result.out, output) == 0))
        return;
    fail_msg(
        "%s: %s\nexit status %d\nprinted \"%.2000s\"\n instead of \"%.2000s\"\nerrors: %.2000s",
        shell, strchr(script, '\n') + 1, result.status, result.out,
        output != NULL ? output : "(anything)", result.err);
}

void through_need(const char *command)
{
    if (process_has(command))
        return;
    print_message("not tried: there is no %s\n", command);
    skip();
}

/* --- Those who wait -------------------------------------------------------------------------- */

int64_t through_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void through_read_once(int fd, struct through_answer *answer)
{
    answer->result = read(fd, answer->text, sizeof(answer->text) - 1);
    answer->error = errno;
    answer->at_ns = through_clock_ns();
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

/* A descriptor of another test's file would keep that open. */
static void keep_only(int first, int second)
{
    int low = first < second ? first : second;
    int high = first < second ? second : first;

    for (int fd = STDERR_FILENO + 1; fd < high; fd++) {
        if (fd != low)
            close(fd);
    }
    (void)syscall(SYS_close_range, high + 1, ~0U, 0);
}

static void wait_in_child(int fd, through_act *act, int answer_fd)
{
    struct sigaction interrupt = {.sa_handler = do_nothing};
    struct through_answer answer = {.result = -1};

    sigaction(SIGUSR1, &interrupt, NULL);
    if (fd >= 0)
        keep_only(fd, answer_fd);
    act(fd, &answer);
    _exit(write(answer_fd, &answer, sizeof(answer)) == sizeof(answer) ? 0 : 1);
}

struct through_waiter through_start(uid_t uid, int fd, through_act *act)
{
    struct through_waiter waiter;
    int ends[2];

    assert_success(pipe2(ends, O_CLOEXEC));
    waiter.pid = process_fork(uid);
    if (waiter.pid == 0)
        wait_in_child(fd, act, ends[1]);
    close(ends[1]);
    waiter.answer_fd = ends[0];
    assert_true(waiter.pid > 0);
    return waiter;
}

struct through_waiter through_start_reader(struct mount *mount, const char *view, int pid)
{
    int fd = through_open_view(mount, view, pid, THROUGH_RECEIVE);
    struct through_waiter waiter = through_start(0, fd, through_read_once);

    assert_success(close(fd));
    return waiter;
}

struct through_answer through_await(struct through_waiter *waiter)
{
    struct pollfd answered = {.fd = waiter->answer_fd, .events = POLLIN};
    struct through_answer answer = {.result = -1};
    ssize_t got = -1;

    if (poll(&answered, 1, ANSWER_MS) == 1)
        got = read(waiter->answer_fd, &answer, sizeof(answer));
    close(waiter->answer_fd);
    /* One that has not answered is killed. */
    (void)process_wait(waiter->pid, got == sizeof(answer) ? ANSWER_MS : 0);
    if (got != sizeof(answer))
        fail_msg("a process that waits has not answered: %zd bytes", got);
    return answer;
}

int64_t through_kill_ms(struct through_waiter *waiter)
{
    int64_t begin_ns = through_clock_ns();
    int status;

    assert_success(kill(waiter->pid, SIGKILL));
    status = process_wait(waiter->pid, ANSWER_MS);
    close(waiter->answer_fd);
    if (status != 128 + SIGKILL)
        fail_msg("a process that was killed while it waited: status %d", status);
    return (through_clock_ns() - begin_ns) / 1000000;
}

void through_expect_answer(struct through_waiter *waiter, const char *text)
{
    struct through_answer answer = through_await(waiter);

    if (answer.result < 0)
        fail_msg("a read that waited for \"%s\": %s", text, strerror(answer.error));
    assert_string_equal(answer.text, text);
    assert_int_equal(answer.result, strlen(text));
}

int through_expect_failure(struct through_waiter *waiter)
{
    struct through_answer answer = through_await(waiter);

    if (answer.result >= 0)
        fail_msg("a read that must fail returned \"%s\"", answer.text);
    return answer.error;
}

void through_await_parked(struct mount *mount, const char *kind, int64_t count)
{
    char sample[64]; /* not from mount_path(): that is used again before the wait is over */

    snprintf(sample, sizeof(sample), "gprocfs_parked_requests{kind=\"%s\"}", kind);
    view_await_sample(mount, sample, count);
}

void through_await_open(struct mount *mount, int64_t count)
{
    view_await_sample(mount, "gprocfs_open_files", count);
}
