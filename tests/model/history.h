/*
 * history - what many processes did and saw at the same time, and whether any order of events
 * explains it.
 *
 * Each event has a time at which it had not begun and one at which it was over. Judged is:
 *
 *   - each message that was sent was taken once; none that was not sent; twice only where the daemon
 *     was killed before anybody else had an answer from the same mailbox;
 *   - of two messages that were sent one after the other, and taken through the mount, the second is
 *     not taken before the first; and no reader has those of one sender in disorder;
 *   - nobody found a mailbox empty in which a message was all the time;
 *   - the size that stat told is neither less than what was there all the time, nor more than what
 *     may have been.
 *
 * A message that somebody had in part and gave back may be late, and so it is no witness. Pure.
 * Running out of memory ends the program.
 */
#ifndef MODEL_HISTORY_H
#define MODEL_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_SEND,   /* of a message: `count` is its size */
    HISTORY_TAKE,   /* through the mount */
    HISTORY_DRAIN,  /* behind it */
    HISTORY_PART,   /* a part of a message was read, and given back */
    HISTORY_EMPTY,  /* a mailbox was found empty */
    HISTORY_SIZE,   /* `count` bytes were there */
    HISTORY_KILL,   /* of the daemon */
    HISTORY_RETURN, /* a clean end of the daemon */
    HISTORY_KINDS,
};

enum history_state {
    HISTORY_BEGUN, /* nobody knows whether it came to an end */
    HISTORY_DONE,
    HISTORY_FAILED,
};

struct history_event {
    enum history_kind kind;
    enum history_state state;
    unsigned box;
    unsigned actor;  /* who */
    unsigned sender; /* of the message: an actor; and the how manieth it is of his */
    unsigned number;
    long count;
    int64_t begun_ns, done_ns;
};

struct history {
    struct history_event *list; /* owned; those of an actor are in order */
    size_t count;
    size_t room;
    size_t swallowed; /* so many messages may have gone to readers that were killed */
};

void history_init(struct history *history);
void history_release(struct history *history);
void history_add(struct history *history, const struct history_event *event);

/* NULL where it can be explained; else why not, in a buffer that the next call reuses. */
const char *history_judge(const struct history *history);

#endif
