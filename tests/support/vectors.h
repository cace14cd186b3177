/*
 * vectors - reads tests/data/resync.txt: mailboxes, intact and damaged, and what must come out of
 * each.
 *
 * One word a kind of line:
 *   case NUMBER reference-agrees|reference-crashes
 *   mailbox HEX
 *   message SENDER HEX                   any number of these; HEX may be empty
 *   end
 *
 * For tests only: whatever goes wrong is said on stderr and ends the program.
 */
#ifndef GPROC_TESTS_VECTORS_H
#define GPROC_TESTS_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vector_message {
    int32_t sender;
    uint8_t *payload; /* owned by the vector; exactly payload_bytes long, so that overreads show */
    size_t payload_bytes;
};

struct vector {
    int number;
    bool reference_agrees; /* false: the reference panics on this one */
    uint8_t *mailbox;      /* owned; exactly mailbox_bytes long */
    size_t mailbox_bytes;
    struct vector_message *messages; /* owned */
    size_t message_count;
};

struct vectors {
    struct vector *vectors; /* owned */
    size_t count;
};

/* Reads `name` in the directory $GPROC_TEST_DATA, or in tests/data. */
void vectors_init(struct vectors *vectors, const char *name);
void vectors_release(struct vectors *vectors);

#endif
