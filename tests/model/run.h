/*
 * run - steps on a fresh mount, each held against the model.
 */
#ifndef MODEL_RUN_H
#define MODEL_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "steps.h"

enum {
    RUN_TEXT_BYTES = 600,
};

struct run {
    bool failed;
    size_t performed;          /* so many steps; where it failed, the last of them did */
    enum step_kind kind;       /* of that one */
    char text[RUN_TEXT_BYTES]; /* what is wrong */
};

/* Performs those of them that have a meaning. */
struct run run_steps(const struct steps *steps);

/* Chooses `count` steps from the seed, the last of them a remount, and performs them; `steps` is to
 * be initialised, and has them afterwards. */
struct run run_random(uint64_t seed, size_t count, struct steps *steps);

#endif
