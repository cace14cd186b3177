/*
 * shrink - makes a list of steps that fails as short and as simple as it still fails.
 *
 * It takes pieces away, halves first, single steps last, for as long as any can go; then it makes
 * arguments simpler. What is left fails, and fails no longer without any one of its steps (if
 * failing depends on the steps alone, and the tries do not run out).
 */
#ifndef MODEL_SHRINK_H
#define MODEL_SHRINK_H

#include <stdbool.h>

#include "steps.h"

/* Whether this list fails. */
typedef bool shrink_fails(const struct steps *steps, void *context);

/* `steps` fails. At most so many tries; how many it took. */
unsigned shrink(struct steps *steps, shrink_fails *fails, void *context, unsigned tries);

#endif
