/*
 * tracer - runs a daemon one system call at a time, to kill it at each of them, or to make each of
 * them fail.
 *
 * All threads of it stop at the entry and at the exit of every system call, and go on when told to.
 * Beside it a client may run, a child that is not traced: its end is an event, too.
 *
 * The daemon never outlives the test program. Functions are for the thread that called
 * tracer_start(); between that and tracer_kill(), or the daemon's end, SIGCHLD is blocked there.
 * None of them fails the test, so that there is nobody left in a stop when it does.
 */
#ifndef TEST_TRACER_H
#define TEST_TRACER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TRACER_ARGUMENTS = 6,
};

struct tracer {
    pid_t daemon;  /* and its process group; 0: gone */
    int status;    /* as waitpid() says it, when it has ended */
    pid_t client;  /* set by the user of the tracer; 0: none */
    int device_fd; /* the daemon's /dev/fuse; -1: not seen yet */
    bool by_calls; /* it stops at calls: from its first thread on, or from the start */
    sigset_t signals_before;
};

/* Where a thread of the daemon has stopped. */
struct tracer_stop {
    pid_t thread;
    bool is_call; /* else it is something that is only to go on */
    bool is_entry;
    long number;
    uint64_t arguments[TRACER_ARGUMENTS]; /* at the entry */
    int64_t result;                       /* at the exit: or a negative errno */
    int signal_number;                    /* that goes on with it */
    bool by_calls;                        /* it goes on to the next call */
};

enum tracer_event {
    TRACER_STOP,   /* a thread stopped, at a call or not */
    TRACER_CLIENT, /* the client has ended, and is reaped: `client` is 0, `status` says how */
    TRACER_ENDED,  /* the daemon is gone; `status` says how */
    TRACER_LATE,   /* nothing of these happened in time */
};

/* What a call is, as far as it matters where it is stopped. */
enum tracer_kind {
    TRACER_LOOKS = 0,   /* it leaves everything as it was */
    TRACER_CHANGES = 1, /* a file, a directory, or what somebody outside knows */
};

/* Whether programs may be traced here, one call at a time. */
bool tracer_possible(void);

/*
 * Starts argv[0], an absolute path, with its output in the file `log`. It stops at calls from its
 * start on, or from where it starts its first thread, which is sooner there. 0, or -1: cannot be
 * traced.
 */
int tracer_start(struct tracer *tracer, const char *const argv[], const char *log, bool from_start);

/* Waits for what happens next. Nothing stopped goes on by itself. */
enum tracer_event tracer_next(struct tracer *tracer, struct tracer_stop *stop, int timeout_ms);

/* The thread goes on to its next stop. */
void tracer_go_on(const struct tracer_stop *stop);

/* Kills the daemon and waits for its end: no thread of it does another call. */
void tracer_kill(struct tracer *tracer);

/* Whether a thread is about to wait for a request: from the first of these on it is mounted. */
bool tracer_is_waiting(struct tracer *tracer, const struct tracer_stop *stop);

/* Whether a path that the call was given ends like this. At an entry, of openat and its kin. */
bool tracer_names(const struct tracer_stop *stop, const char *end);

/* Whether the call's first argument is a descriptor of a file or directory, not of a device or of
 * what the kernel made up. */
bool tracer_is_of_file(const struct tracer *tracer, const struct tracer_stop *stop);

enum tracer_kind tracer_kind_of(long number);

/* Whether this machine's registers are known: else the functions that follow return -1. */
bool tracer_can_change(void);

/* At an entry: the call is not done. At its exit: what it returned. Of an argument: another value.
 * 0, or -1: the thread is gone. */
int tracer_skip_call(const struct tracer_stop *stop);
int tracer_set_result(const struct tracer_stop *stop, int64_t result);
int tracer_set_argument(const struct tracer_stop *stop, unsigned which, uint64_t value);

#endif
