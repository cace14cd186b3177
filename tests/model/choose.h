/*
 * choose - the next step of a random run.
 */
#ifndef MODEL_CHOOSE_H
#define MODEL_CHOOSE_H

#include "expected.h"
#include "mailboxes.h"
#include "steps.h"

struct chooser {
    struct random random;
    long most_bytes;
    unsigned long seed; /* of the next payload: each is another */
};

/* The run of this number: what it is mounted with follows from it, too. */
void chooser_init(struct chooser *chooser, uint64_t seed);

/* One that is allowed now. */
struct step choose(struct chooser *chooser, const struct expected *expected);

#endif
