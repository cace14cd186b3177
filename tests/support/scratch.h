/*
 * scratch - a directory of its own for each test, with mailboxes and locks in it, and what the Go
 * package does to them, written after the on-disk protocol alone, without a line of lib/.
 *
 * All functions fail the test (cmocka) if anything fails, but in a child made by process_fork(),
 * where they end the process with status 125.
 */
#ifndef TEST_SCRATCH_H
#define TEST_SCRATCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct scratch {
    char path[256];
    char mailboxes[300]; /* <path>/gproc */
    char locks[300];     /* <path>/gflock */
    struct gproc *gproc; /* of these two */
};

enum {
    SCRATCH_DEADLINE_MS =
        20000, /* for what comes at once, but on a machine that is busy or under valgrind */
};

/* Fixtures of a test: `*state` is its struct scratch. Everything in the directory is deleted after
 * it. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* The path of a mailbox, or of its lock file; good until the second next call. */
const char *scratch_box(const struct scratch *scratch, pid_t pid);
const char *scratch_lock_file(const struct scratch *scratch, pid_t pid);

/* Takes the lock; closing the descriptor gives it back. */
int scratch_lock(const struct scratch *scratch, pid_t pid);

/* Appends one frame under the lock, making directories and files as needed: open, flock, open,
 * write, close. */
void scratch_send(const struct scratch *scratch, pid_t pid, int32_t sender, const void *payload,
                  size_t payload_bytes);
void scratch_send_text(const struct scratch *scratch, pid_t pid, int32_t sender, const char *text);

/* Appends bytes as they are, without any lock. */
void scratch_append(const struct scratch *scratch, pid_t pid, const void *bytes, size_t size_bytes);

/* What a file holds; to be freed by the caller. */
uint8_t *scratch_read(const char *path, size_t *size_bytes);

/* The size of the mailbox's file, or -1 where there is none. */
off_t scratch_size(const struct scratch *scratch, pid_t pid);

/* Deletes a directory and all in it. */
void scratch_delete(const char *path);

/* Says that the mailbox was modified so many seconds before now. */
void scratch_age(const struct scratch *scratch, pid_t pid, double seconds);

/* Waits until the process is asleep: has nothing more to do until something happens. */
void scratch_wait_asleep(pid_t pid);

#endif
