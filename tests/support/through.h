/*
 * through - what a test does through the mount: opens, messages, shell lines.
 *
 * Functions that fail the test (cmocka) say so; they are for a test's own thread and process.
 */
#ifndef TEST_THROUGH_H
#define TEST_THROUGH_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount.h"
#include "process.h"

/* What the `>` of a shell opens with; and `>>`; and `<`. */
#define THROUGH_REPLACE (O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC)
#define THROUGH_APPEND  (O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC)
#define THROUGH_RECEIVE (O_RDONLY | O_CLOEXEC)

/* Fails the test unless the call returns -1 with this errno. */
#define assert_errno(call, expected)                                                               \
    do {                                                                                           \
        errno = 0;                                                                                 \
        assert_int_equal((call), -1);                                                              \
        assert_int_equal(errno, (expected));                                                       \
    } while (0)

/* Fails the test unless the call returns 0; shows errno where it does not. */
#define assert_success(call)                                                                       \
    do {                                                                                           \
        errno = 0;                                                                                 \
        if ((call) != 0)                                                                           \
            fail_msg("%s: errno %d", #call, errno);                                                \
    } while (0)

/* A process's mailbox through the mount; good as mount_path() is. */
const char *through_box(struct mount *mount, int pid);

/* Opens it; mode 0666. Fails the test if that fails. */
int through_open(struct mount *mount, int pid, int flags);

/* Opens it in a view such as ".follow". Fails the test if that fails. */
int through_open_view(struct mount *mount, const char *view, int pid, int flags);

/* Writes everything, in as many write(2) as it takes. 0, or the errno of the one that failed. */
int through_write(int fd, const void *bytes, size_t size_bytes);

/* Writes everything in one write(2); fails the test if less is taken. */
void through_write_once(int fd, const void *bytes, size_t size_bytes);

/* One read(2) must return exactly this text; "" is the end. Fails the test otherwise. */
void through_expect_read(int fd, const char *text);

/* Sends a text through the mount, as `>` does. Fails the test if that fails. */
void through_send(struct mount *mount, int pid, const char *text);

/*
 * Receives: opens, reads once for each of the texts (the last is NULL), finds the end, closes.
 * Fails the test at the first difference.
 */
#define through_expect_texts(mount, pid, ...)                                                      \
    through_expect_list(mount, pid, (const char *const[]){__VA_ARGS__})
void through_expect_list(struct mount *mount, int pid, const char *const texts[]);

/* Fails the test unless stat(2) of the mailbox shows this size. */
void through_expect_size(struct mount *mount, int pid, off_t size_bytes);

/* Bytes that look random, the same for the same seed; freed with the mount. */
uint8_t *through_payload(struct mount *mount, size_t size_bytes, uint32_t seed);

/*
 * Runs a line in a shell ("sh", "bash", ...) as `uid` (0: as we are), in the mount's `work`, with
 * M, B, L, W and P set to mnt, mail, locks, work and the daemon's program. The result is freed with
 * the mount. If the daemon leaves the line hanging, it is killed and the status is PROCESS_STUCK.
 */
struct process_result through_run_as(struct mount *mount, uid_t uid, const char *shell,
                                     const char *format, ...) __attribute__((format(printf, 4, 5)));

/*
 * The same as we are; fails the test unless it exits with 0 and prints exactly `output` (NULL:
 * whatever it likes).
 */
void through_expect_run(struct mount *mount, const char *shell, const char *output,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Skips the test, and says so, where PATH has no such command. */
void through_need(const char *command);

/* What a child of the test came upon; it fills in what it likes. */
struct through_answer {
    ssize_t result;
    int error;     /* errno, where the result is -1 */
    int64_t at_ns; /* through_clock_ns() at the moment of it */
    char text[256];
};

/* A child that waits for something: its process id until it is reaped, and where it will answer. */
struct through_waiter {
    pid_t pid;
    int answer_fd;
};

/* What a waiter does with a descriptor. */
typedef void through_act(int fd, struct through_answer *answer);

/* Nanoseconds of a clock that only goes forward, the same one in all processes. */
int64_t through_clock_ns(void);

/* The usual act: one read(2), and its text. */
void through_read_once(int fd, struct through_answer *answer);

/*
 * Starts a child, as `uid` if that is not 0, that does `act` with the descriptor, the only one that
 * it keeps (-1: it keeps them all), and answers. SIGUSR1 interrupts what it waits for, and does
 * nothing else. For the end of the waiter call one of the next two; a test that fails before leaves
 * it to its end with the test program.
 */
struct through_waiter through_start(uid_t uid, int fd, through_act *act);

/* Starts one that reads once from a mailbox in a view, a file that is open nowhere else. */
struct through_waiter through_start_reader(struct mount *mount, const char *view, int pid);

/* The answer. Fails the test where there is none within some seconds. */
struct through_answer through_await(struct through_waiter *waiter);

/*
 * Kills it; how many milliseconds it took until it was gone. Fails the test where it had ended
 * before.
 */
int64_t through_kill_ms(struct through_waiter *waiter);

/* Its read must have returned exactly this text; or must fail: the errno. */
void through_expect_answer(struct through_waiter *waiter, const char *text);
int through_expect_failure(struct through_waiter *waiter);

/* Waits until this many requests wait in the daemon for a "message" (a "poll", a "lock"). */
void through_await_parked(struct mount *mount, const char *kind, int64_t count);

/*
 * Waits until this many files of mailboxes are open, as the daemon knows it. It hears of the last
 * close(2) after that has returned: then what was read in part goes back.
 */
void through_await_open(struct mount *mount, int64_t count);

#endif
