/*
 * actors - the processes of a load, and what they note in memory that all share: so it is there
 * however they end.
 */
#ifndef MODEL_ACTORS_H
#define MODEL_ACTORS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "history.h"
#include "mount.h"

enum {
    ACTORS_MOST = 256,
    ACTORS_BOXES = 2,
    ACTOR_EVENTS = 12000,
};

enum actor_kind {
    ACTOR_REPLACES, /* sends as `>` does */
    ACTOR_APPENDS,  /* as `>>`, through one open file */
    ACTOR_SENDS_BEHIND,
    ACTOR_RECEIVES,
    ACTOR_FOLLOWS,
    ACTOR_ENVELOPES,
    ACTOR_RECEIVES_PARTS,
    ACTOR_DRAINS_BEHIND,
    ACTOR_LOOKS,
    ACTOR_KINDS,
};

/* What one has done. His until he has ended. */
struct actor {
    enum actor_kind kind;
    unsigned box;
    pid_t pid; /* 0: he has ended */
    volatile unsigned count;
    volatile long asked; /* so many bytes a read, whose answer is not noted yet; 0: there is none */
    volatile int strange; /* what came that is no message: its size */
    struct history_event events[ACTOR_EVENTS];
};

struct actors {
    struct mount *mount;
    struct stage *stage; /* shared */
    unsigned count;
    uint64_t seed;
};

struct stage {
    volatile bool over;    /* who sends and looks ends */
    volatile bool drained; /* and now who receives */
    struct actor actors[ACTORS_MOST];
};

/* 0, or -1: no memory. */
int actors_init(struct actors *actors, struct mount *mount, uint64_t seed);
void actors_release(struct actors *actors);

/* Starts one; his number, or -1. */
int actors_start(struct actors *actors, enum actor_kind kind, unsigned box);

/* Kills one; he may have gone. How many messages may have gone with him. */
size_t actors_kill(struct actors *actors, unsigned which);

/* Waits until all have ended by themselves: false where one did not in time. */
bool actors_end(struct actors *actors);

/* Receives what is left, as an actor of his own: 0, or -1. */
int actors_receive_rest(struct actors *actors);

/* All that they noted. */
void actors_tell(const struct actors *actors, struct history *history);

bool actor_sends(enum actor_kind kind);
int actors_box_pid(unsigned box);

#endif
