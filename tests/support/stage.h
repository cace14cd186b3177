/*
 * stage - a mailbox directory and its locks below a directory that can go as well, and one mailbox,
 * set up and cleared away again and again in one test: for what a walk (see fault.h) runs.
 *
 * Fails the test (cmocka) if anything fails.
 */
#ifndef TEST_STAGE_H
#define TEST_STAGE_H

#include <limits.h>

#include "context.h"
#include "gproc.h"
#include "temporary.h"

enum {
    STAGE_PID = 4711,
    STAGE_SENDER = 17,
};

struct stage {
    struct temporary *temporary;
    char parent[PATH_MAX];
    char mailboxes[PATH_MAX]; /* <parent>/gproc */
    char locks[PATH_MAX];     /* <parent>/gflock */
    char box[PATH_MAX];       /* of STAGE_PID */
    char lock_file[PATH_MAX];
    struct gproc *gproc; /* of these, between stage_set() and stage_clear() */
};

/* `temporary` is the test's; nothing is made yet. */
void stage_init(struct stage *stage, struct temporary *temporary);

/* Makes the directories, and no mailbox. */
void stage_set(struct stage *stage);

/* Takes all of it away, or what others have left of it. */
void stage_clear(struct stage *stage);

/* Appends a message of STAGE_SENDER to the mailbox, which is made where it is missing. */
void stage_put(const struct stage *stage, const char *text);

/* Fails the test unless the mailbox holds these messages of STAGE_SENDER and no other byte; NULL is
 * behind the last. */
void stage_expect(const struct stage *stage, ...) __attribute__((sentinel));

#endif
