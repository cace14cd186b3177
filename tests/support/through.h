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

#endif
