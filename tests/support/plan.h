/*
 * plan - one system call of a traced daemon is to fail, and how.
 *
 * A plan counts the daemon's calls that can fail - those on files and memory, and those that make a
 * thread, an eventfd or a watch; not those on the FUSE device, nor futexes; nor close(2), which must
 * not be tried again - and has one of them fail in one of the ways that fit it: it is not done, and
 * returns an errno; or it does less than it was asked to.
 *
 * For the thread that traces.
 */
#ifndef TEST_PLAN_H
#define TEST_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tracer.h"

enum plan_how {
    NO_FAULT = 0,
    FAILS,
    IS_SHORT,     /* does half of it */
    IS_FULL,      /* does half of it, and the next of its kind has ENOSPC */
    IS_FULL_TORN, /* and what would repair that has EIO */
};

struct fault {
    enum plan_how how;
    int error;
};

/* The one fault of a run. */
struct plan {
    unsigned which;     /* at which of the calls that can fail */
    unsigned variant;   /* which of its faults */
    unsigned seen;      /* so many calls that can fail have been */
    unsigned variants;  /* how many faults that call has; 0: it did not come to it */
    long number;        /* that call */
    struct fault fault; /* how == NO_FAULT: none was to be had */
    bool alone;         /* a lock found held would say that somebody lives: none is */
    pid_t thread;       /* where it goes on: 0: nowhere */
    int64_t result;     /* at the next exit there; 0: as it is */
    bool over;          /* it writes what it has counted (gcov), which is no work of its own */
    enum plan_how next; /* what becomes of the next one there of this kind */
};

/*
 * For each stop of the daemon, before it goes on. `counts`: now is when the fault is to be. False:
 * it could not be done.
 */
bool plan_follow(struct plan *plan, const struct tracer *tracer, const struct tracer_stop *stop,
                 bool counts);

/* Whether the call makes a thread, or what threads wait for. */
bool plan_is_of_threads(const struct tracer_stop *stop);

/* What the fault does, in words. */
const char *plan_say(const struct plan *plan);

#endif
