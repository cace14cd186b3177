/*
 * implausible - passes over bytes that are nowhere the length of a frame: zeros, text, noise, at
 * several bytes a nanosecond.
 *
 * Reads the headers it is given, and nothing else. Pure functions; any thread.
 */
#ifndef GPROC_IMPLAUSIBLE_H
#define GPROC_IMPLAUSIBLE_H

#include <stddef.h>
#include <stdint.h>

/* How many of the first `count` offsets at `bytes`, one after the other, have a length below 12 or
 * above `most`. Each has a whole header. */
size_t gproc_implausible_count(const uint8_t *bytes, size_t count, int32_t most);

#endif
