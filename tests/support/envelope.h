/*
 * envelope - takes apart what a read of `.envelope` answers.
 */
#ifndef TEST_ENVELOPE_H
#define TEST_ENVELOPE_H

#include <stddef.h>
#include <sys/types.h>

#include "behind.h"

/*
 * The message at the start of the bytes: how many of them it has, with its line; 0 where none are
 * left, -EBADMSG where that is no whole message. Reads up to a zero that follows the bytes.
 */
ssize_t envelope_parse(const char *bytes, size_t size_bytes, struct behind_message *message);

#endif
