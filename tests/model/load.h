/*
 * load - many processes that send, receive and look at the same time, some of which are killed, as
 * is the daemon; and whether what they saw can be explained.
 */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Besides sending and receiving. */
enum load_trouble {
    LOAD_KILLS_READERS = 1,
    LOAD_KILLS_SENDERS = 2,
    LOAD_KILLS_DAEMON = 4,
    LOAD_REMOUNTS = 8,
    LOAD_DRAINS = 16, /* a Go program receives, too */
    LOAD_PARTS = 32,  /* readers give back what they have begun */
    LOAD_TROUBLES = 64,
};

enum {
    LOAD_TEXT_BYTES = 600,
};

struct load {
    bool failed;
    char text[LOAD_TEXT_BYTES];
    size_t messages_count; /* sent */
    size_t events_count;
    size_t kills_count; /* of readers and senders */
    size_t ends_count;  /* of the daemon */
};

/* Runs for so long on a fresh mount. `trouble`: enum load_trouble. */
struct load load_run(uint64_t seed, unsigned trouble, int64_t run_ms);

#endif
