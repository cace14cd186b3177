/*
 * acts - what the actors of a load do, turn by turn; for actors.c only.
 */
#ifndef MODEL_ACTS_H
#define MODEL_ACTS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actors.h"
#include "history.h"
#include "mailboxes.h"
#include "mount.h"

enum {
    ACTS_READ_BYTES = 8192,
    ACTS_ENVELOPE_LEAST_BYTES = 20, /* of a message and what is said before it */
};

/* What an actor's process works with. */
struct work {
    struct stage *stage;
    struct actor *me;
    unsigned self;
    char path[PATH_MAX];
    struct mount *mount;
    struct random random;
    uint8_t buffer[ACTS_READ_BYTES];
};

/* His turns, until all is over. */
void acts_play(struct work *work);

/* Opens the mailbox, where it is mounted: a descriptor, or -1 after a moment. */
int acts_open(struct work *work, int flags);

/* Notes a message that was read, or its beginning. */
void acts_note_message(struct work *work, enum history_kind kind, int64_t begun_ns,
                       const uint8_t *payload, size_t size_bytes);

/* Whether more can be noted. */
bool acts_have_room(const struct work *work);

/* The directory in which he opens mailboxes. */
const char *acts_view(enum actor_kind kind);

#endif
