/*
 * perform - does steps on a mount, and says what was seen.
 *
 * It does not know what is right. Functions return NULL, or what kept them from doing what they
 * should: the daemon does not answer in time.
 */
#ifndef MODEL_PERFORM_H
#define MODEL_PERFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "errands.h"
#include "mount.h"
#include "outcome.h"
#include "steps.h"

struct performer {
    struct mount *mount;
    struct errands errands;
    int fds[STEP_FDS]; /* -1: not open */
    bool waits[STEP_BOXES];
    struct step torn[STEP_BOXES]; /* of which the other half may come */
    uint8_t *buffer;              /* owned */
};

const char *performer_init(struct performer *performer, struct mount *mount);
void performer_release(struct performer *performer);

/* `reads_first`: see STEP_KILL. */
const char *perform(struct performer *performer, const struct step *step, bool reads_first,
                    struct outcome *outcome);

/* Waits until the daemon knows that so many files are open: it hears of closes after the fact. */
const char *perform_await_open(struct performer *performer, long open_files);

/* What the process that waits at a box got; waits for that. And whether there is something. */
const char *perform_await_woken(struct performer *performer, long box, struct outcome *outcome);
bool perform_is_woken(const struct performer *performer, long box);

#endif
