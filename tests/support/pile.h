/*
 * pile - processes that all wait for the same mailbox, and one that holds its lock and is stopped.
 *
 * What a process of the pile came upon it notes in memory that all share, so that it can be killed
 * at any moment and the others still be heard. All of this fails the test (cmocka) if anything
 * fails; for a test's own thread and process. What is left of a pile ends with the test program.
 */
#ifndef TEST_PILE_H
#define TEST_PILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount.h"

enum {
    PILE_MOST_COUNT = 1024,
};

enum pile_kind {
    PILE_REPLACE,    /* `>` */
    PILE_APPEND,     /* `>>` */
    PILE_READ_WRITE, /* `1<>` */
    PILE_RECEIVE,
    PILE_FOLLOW,
    PILE_ENVELOPE,
    PILE_POLL,     /* polls .follow */
    PILE_TRUNCATE, /* truncate(2) to 0 */
    PILE_REMOVE,   /* unlink(2) */
    PILE_CHMOD,
    PILE_KINDS_END,
};

/* One process. The fields below the line are in the shared memory. */
struct pile_waiter {
    pid_t pid; /* 0: it has been reaped */
    enum pile_kind kind;
    bool killed;
    /* */
    _Atomic bool ended;
    int error; /* errno of what failed; 0: all went well */
    int64_t at_ns;
};

struct pile {
    struct mount *mount;
    int box;
    int count;
    int gate; /* all of it go on when this is closed; -1: there is none */
    struct pile_waiter *waiters;
    /* How often the message of the writer of that number was received; the last one counts what is
     * nobody's. */
    _Atomic int *received;
};

/* An empty pile on the mailbox; `gated`: its processes do nothing before pile_open_gate(). */
void pile_init(struct pile *pile, struct mount *mount, int box, bool gated);

/* Adds a process; a writer's message is its number, which is returned. */
int pile_add(struct pile *pile, enum pile_kind kind);
void pile_open_gate(struct pile *pile);

/* Whether it writes a message. */
bool pile_sends(enum pile_kind kind);

/* Counts a message that was received elsewhere. */
void pile_note(struct pile *pile, const void *payload, size_t payload_bytes);

/* Kills one of it; nanoseconds until it was gone. It must not have ended before. */
int64_t pile_kill_ns(struct pile *pile, int number);

/* Kills and reaps all that are left. */
void pile_end(struct pile *pile);

/* Waits until one of it has ended by itself; -1 where it has not within the time. Else its errno. */
int pile_await(struct pile *pile, int number, int timeout_ms);

/*
 * Kills one of it that may be where no signal reaches it: whether it was gone within the time. One
 * that was not is still there for pile_end().
 */
bool pile_may_be_killed(struct pile *pile, int number, int timeout_ms);

/* A process that holds the mailbox's lock and is stopped; and what gives the lock back. */
pid_t pile_hold_lock(struct mount *mount, int box);
void pile_let_go(pid_t *holder);

/* The median, the one below which 99 of 100 are, and the greatest. Sorts them. */
struct pile_times {
    double median_ms;
    double p99_ms;
    double most_ms;
};
struct pile_times pile_times(int64_t *times_ns, size_t count);

/* Sends to a mailbox as echo does, and receives it as cat does, so many times: how long each took.
 */
void pile_pairs(struct mount *mount, int box, int64_t *times_ns, size_t count);

/* Milliseconds until nothing is mounted at the test's mnt any more; -1: not within the time. */
int64_t pile_await_unmounted_ms(const struct mount *mount, int timeout_ms);

#endif
