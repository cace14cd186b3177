/*
 * process - runs shell lines and pieces of a test in processes of their own, none of them for ever.
 *
 * Every child is in a process group of its own, dies with the test program, and has the default
 * signal handlers again (cmocka's would carry on with the test in the child). Only the group of a
 * child that was started here is ever killed.
 *
 * A fork copies descriptors, and closing a copy of one that collects a message sends what is
 * collected (the exec or the exit of the child does close it). So: no child is started while the
 * test holds a collecting descriptor, unless that is what is tested.
 *
 * To be used from a program's main thread.
 */
#ifndef TEST_PROCESS_H
#define TEST_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PROCESS_LATE = -1,  /* killed at its deadline */
    PROCESS_STUCK = -2, /* as that, and even SIGKILL did not end it within a second */
};

struct process_result {
    int status;       /* what it exited with; 128 + the signal that ended it; or PROCESS_* */
    size_t out_bytes; /* of `out`, without the zero that follows them */
    char *out;        /* standard output; never NULL; to be freed by the caller */
    char *err;        /* standard error, zero-terminated; likewise */
};

/* Milliseconds of a clock that only goes forward. */
int64_t process_clock_ms(void);

/* Whom a child is to be. */
struct process_ids {
    uid_t uid;
    gid_t gid;
    const gid_t *groups; /* the supplementary ones */
    size_t groups_count;
};

/*
 * fork(2), with what is promised above. In the child all identities are `uid`, where that is not 0.
 * The child must end with _exit(2). -1: could not be forked, errno says why.
 */
pid_t process_fork(uid_t uid);

/* The same with all of these, also where they are root's. */
pid_t process_fork_as(const struct process_ids *ids);

/*
 * process_fork() into a pid namespace: that of which `namespace_fd` is the descriptor; -1: a fresh
 * one, of which the child is the first process. The child's /proc stays ours. Needs root.
 */
pid_t process_fork_in_pid_namespace(uid_t uid, int namespace_fd);

/* Whether a fresh pid namespace can be made here. */
bool process_may_make_pid_namespaces(void);

/* Waits for a child from process_fork() to end, at most `timeout_ms`; the status as in a result. */
int process_wait(pid_t pid, int timeout_ms);

/*
 * Runs argv[0] (found in PATH) with `variables` ("NAME=VALUE", the last is NULL) added to its
 * environment and nothing to read. `*pid` is its process id, to be reaped by the caller where the
 * status is PROCESS_STUCK, and only then.
 */
struct process_result process_run(uid_t uid, const char *const argv[],
                                  const char *const variables[], int timeout_ms, pid_t *pid);

/* Whether PATH has this command. */
bool process_has(const char *command);

#endif
