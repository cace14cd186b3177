/*
 * expected - the model: what a mount must answer, step by step.
 *
 * It knows of a mailbox what waits there and in which order, and of an open file what it has
 * collected, holds and shows; nothing of locks, jobs, segments or requests. Where several answers
 * are right, it takes the one that was seen for granted, if it is one of them. Pure.
 */
#ifndef MODEL_EXPECTED_H
#define MODEL_EXPECTED_H

#include <stdbool.h>
#include <sys/types.h>

#include "outcome.h"
#include "steps.h"

struct expected;

/* No mailboxes, nothing open. `self`: who performs the steps. To be freed by expected_free(). */
struct expected *expected_new(long most_bytes, pid_t self);
void expected_free(struct expected *expected);

/*
 * Whether the step has a meaning now. Such as have none (of a descriptor that is not open, or whose
 * answer nothing promises) are left out, so that a list of steps stays one when some are taken away.
 */
bool expected_allows(const struct expected *expected, const struct step *step);

/* Notes that the step was performed. NULL: this is a right outcome; else why not, in a buffer that
 * the next call reuses. */
const char *expected_check(struct expected *expected, const struct step *step,
                           const struct outcome *outcome);

/* Whether the process that waits at the box must have got something by now; and whether that is
 * what it got. */
bool expected_wakes(struct expected *expected, long box);
const char *expected_check_woken(struct expected *expected, long box,
                                 const struct outcome *outcome);

/* How many open files the daemon has. */
long expected_open_files(const struct expected *expected);

/* For who chooses steps: the offset from which a read receives, or -1; whether a box exists, or has
 * somebody waiting. */
long expected_offset(const struct expected *expected, long fd);
/* Whether STEP_KILL has something to read from there. */
bool expected_reads_then_dies(const struct expected *expected, long fd);
bool expected_exists(const struct expected *expected, long box);
bool expected_is_open(const struct expected *expected, long fd);

#endif
