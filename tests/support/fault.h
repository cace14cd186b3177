/*
 * fault - has chosen system calls and allocations of the library fail, or lets a test do, right
 * before one of them, what others might do at that moment.
 *
 * For programs that are named test_..._faults.c, and only for those: they are linked so that what
 * they and the library call by the names in fault.wrap comes here first (--wrap of the linker), and
 * goes on from here, unless it is to fail, to where it would have gone. What the C library and
 * cmocka do by themselves does not come here, nor what other threads do: all of this is a thread's
 * own.
 *
 * Not among the names: close(2), which gives the descriptor back even where it complains; clocks and
 * mutexes, which do not fail.
 */
#ifndef TEST_FAULT_H
#define TEST_FAULT_H

#include <stdbool.h>
#include <stddef.h>

/* What becomes of a call: it is done, or one of these, or it is not done and has a negative errno. */
enum fault_verdict {
    FAULT_NONE = 0,
    FAULT_SHORT = 1, /* of those that read or write: does half of it, but pwrite all of 64 bytes */
    FAULT_NOTHING = 2, /* of those that write: returns 0 */
};

/*
 * From now on `decide` says of each call what becomes of it. What it calls itself is done. Until
 * fault_stop(), which it may call, too.
 */
void fault_start(int (*decide)(void *context, const char *name), void *context);
void fault_stop(void);

/* Between these two everything is done, as if the library were not at it: for what is others'. */
void fault_pause(void);
void fault_go_on(void);

/* The calls of this name from the first-th to the last-th, counted from 1, have this verdict. */
void fault_calls(const char *name, unsigned first, unsigned last, int verdict);

/* What this thread has open and allocated. */
struct fault_held {
    size_t descriptors_count;
    long blocks_count;
};

struct fault_held fault_held(void);

/* Beside the one call of a run that fails. */
enum fault_then {
    FAULT_THEN_NOTHING,
    FAULT_THEN_AGAIN, /* the next call of its name fails, too: the second try, or the rest */
    FAULT_THEN_ALL,   /* everything after it fails: what would repair it */
    FAULT_THENS_COUNT,
};

/*
 * A walk runs an operation again and again. In each run another one of its calls fails, in another
 * way; in the last run none does:
 *
 *     fault_walk_init(&walk);
 *     do {
 *         ... make the world ...
 *         fault_walk_start(&walk);
 *         result = operation();
 *         fault_walk_stop(&walk);
 *         fault_walk_judge(&walk, result, 0);
 *         ... look at the world, and take it down ...
 *     } while (fault_walk_next(&walk));
 */
struct fault_walk {
    unsigned which;   /* the call that fails, from 0 */
    unsigned variant; /* how */
    enum fault_then then;
    struct fault_held held; /* by the world that is not made yet */

    /* Of this run. */
    unsigned seen;
    const char *failed; /* the call's name; NULL: none has failed */
    int verdict;
    unsigned variants;
    bool again; /* FAULT_THEN_AGAIN has been */
};

void fault_walk_init(struct fault_walk *walk);
void fault_walk_start(struct fault_walk *walk);
void fault_walk_stop(struct fault_walk *walk);

/*
 * Fails the test unless an operation in which nothing failed has succeeded, and one that failed
 * hands up the error it met, or `also` (0: no other). Where more than one call failed, one of their
 * errors.
 */
void fault_walk_judge(const struct fault_walk *walk, int result, int also);

/* Whether there is another run. Fails the test where something is open or allocated still. */
bool fault_walk_next(struct fault_walk *walk);

/* The run in words, for a message. */
const char *fault_walk_say(const struct fault_walk *walk);

#endif
