/*
 * outcome - what was seen of a step.
 */
#ifndef MODEL_OUTCOME_H
#define MODEL_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "steps.h"

enum {
    OUTCOME_READABLE = 1,
    OUTCOME_WRITABLE = 2,
};

/* A file's bytes; `there`: there is such a file. */
struct outcome_bytes {
    bool there;
    uint8_t *bytes; /* owned, followed by a zero; NULL where it is not there */
    size_t count;
};

struct outcome {
    long result; /* what the call returned */
    int error;   /* errno where that is negative */
    struct outcome_bytes data;
    long size;      /* st_size */
    long mode;      /* permissions */
    int events;     /* of poll */
    pid_t child;    /* who wrote */
    bool is_parked; /* the reader waits in the daemon */
    long sent, received;
    /* While no daemon runs, and then as the new one lists them: of STEP_REMOUNT and STEP_KILL. */
    struct outcome_bytes files[STEP_BOXES];
    struct outcome_bytes lists[STEP_BOXES];
};

void outcome_release(struct outcome *outcome);

#endif
