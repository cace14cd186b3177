#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors.h"
#include "behind.h"
#include "history.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "through.h"

enum {
    MOUNT_SECONDS = 120,
    BETWEEN_KILLS_MS = 40,
    BETWEEN_ENDS_MS = 300,
    FIRST_ACTORS = 32,
};

struct director {
    struct actors actors;
    struct history history;
    struct mount *mount;
    struct random random;
    unsigned trouble;
    struct load *load;
};

static const char *start_all(struct director *director)
{
    static const enum actor_kind always[] = {ACTOR_REPLACES, ACTOR_APPENDS,   ACTOR_SENDS_BEHIND,
                                             ACTOR_REPLACES, ACTOR_RECEIVES,  ACTOR_FOLLOWS,
                                             ACTOR_RECEIVES, ACTOR_ENVELOPES, ACTOR_LOOKS};
    struct actors *actors = &director->actors;
    bool started = true;

    for (unsigned box = 0; box < ACTORS_BOXES; box++) {
        for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
            started = started && actors_start(actors, always[i], box) >= 0;
        if ((director->trouble & LOAD_DRAINS) != 0)
            started = started && actors_start(actors, ACTOR_DRAINS_BEHIND, box) >= 0;
        if ((director->trouble & LOAD_PARTS) != 0)
            started = started && actors_start(actors, ACTOR_RECEIVES_PARTS, box) >= 0;
    }
    return started ? NULL : "the processes cannot be started";
}

static bool may_be_killed(const struct director *director, enum actor_kind kind)
{
    bool reads = kind == ACTOR_RECEIVES || kind == ACTOR_FOLLOWS || kind == ACTOR_ENVELOPES;
    bool sends = kind == ACTOR_REPLACES || kind == ACTOR_APPENDS;

    return (reads && (director->trouble & LOAD_KILLS_READERS) != 0) ||
           (sends && (director->trouble & LOAD_KILLS_SENDERS) != 0);
}

/* One of those who may be, and another comes in his place. */
static void kill_one(struct director *director)
{
    struct actors *actors = &director->actors;
    unsigned which = (unsigned)random_below(&director->random, actors->count);
    const struct actor *actor = &actors->stage->actors[which];

    if (actor->pid <= 0 || !may_be_killed(director, actor->kind))
        return;
    director->history.swallowed += actors_kill(actors, which);
    director->load->kills_count++;
    (void)actors_start(actors, actor->kind, actor->box); /* unless there were too many already */
}

static const char *end_daemon(struct director *director)
{
    bool kills =
        (director->trouble & LOAD_KILLS_DAEMON) != 0 &&
        ((director->trouble & LOAD_REMOUNTS) == 0 || random_below(&director->random, 2) == 0);
    struct history_event event = {.kind = kills ? HISTORY_KILL : HISTORY_RETURN,
                                  .state = HISTORY_DONE,
                                  .box = ACTORS_BOXES,
                                  .actor = ACTORS_MOST};

    event.begun_ns = through_clock_ns();
    if (kills)
        mount_kill(director->mount);
    else if (mount_stop(director->mount) != 0)
        return "the daemon did not end well";
    event.done_ns = through_clock_ns();
    history_add(&director->history, &event);
    director->load->ends_count++;
    return mount_start(director->mount) == 0 ? NULL : "the daemon does not start again";
}

static const char *make_trouble(struct director *director, int64_t run_ms)
{
    int64_t now_ms = process_clock_ms();
    int64_t until_ms = now_ms + run_ms;
    int64_t next_end_ms = now_ms + BETWEEN_ENDS_MS;
    bool kills = (director->trouble & (LOAD_KILLS_READERS | LOAD_KILLS_SENDERS)) != 0;
    bool ends = (director->trouble & (LOAD_KILLS_DAEMON | LOAD_REMOUNTS)) != 0;
    const char *wrong = NULL;

    while (wrong == NULL && (now_ms = process_clock_ms()) < until_ms) {
        usleep((useconds_t)(1000 * random_below(&director->random, BETWEEN_KILLS_MS)));
        if (kills)
            kill_one(director);
        if (ends && now_ms >= next_end_ms) {
            wrong = end_daemon(director);
            next_end_ms = now_ms + (int64_t)random_below(&director->random, BETWEEN_ENDS_MS * 2);
        }
    }
    return wrong;
}

static const char *check_strange(const struct director *director)
{
    static char text[128];

    for (unsigned i = 0; i < director->actors.count; i++) {
        int strange = director->actors.stage->actors[i].strange;

        if (strange != 0) {
            snprintf(text, sizeof(text), "%u, of kind %d, got %d bytes that are no message", i,
                     (int)director->actors.stage->actors[i].kind, strange - 1);
            return text;
        }
    }
    return NULL;
}

static const char *direct(struct director *director, int64_t run_ms)
{
    const char *wrong = NULL;

    for (unsigned box = 0; box < ACTORS_BOXES && wrong == NULL; box++) {
        if (behind_append(director->mount, actors_box_pid(box), "", 0) != 0)
            wrong = "no mailbox can be made";
    }
    if (wrong == NULL)
        wrong = start_all(director);
    if (wrong == NULL)
        wrong = make_trouble(director, run_ms);
    if (!actors_end(&director->actors) && wrong == NULL)
        wrong = "a process does not end";
    if (wrong == NULL && actors_receive_rest(&director->actors) != 0)
        wrong = "what is left cannot be received";
    if (wrong == NULL)
        wrong = check_strange(director);
    if (wrong == NULL) {
        actors_tell(&director->actors, &director->history);
        wrong = history_judge(&director->history);
    }
    return wrong;
}

static void count(const struct director *director)
{
    director->load->events_count = director->history.count;
    for (size_t i = 0; i < director->history.count; i++)
        director->load->messages_count += director->history.list[i].kind == HISTORY_SEND &&
                                          director->history.list[i].state == HISTORY_DONE;
}

struct load load_run(uint64_t seed, unsigned trouble, int64_t run_ms)
{
    struct mount_options options = {.chatty = true, .seconds = MOUNT_SECONDS};
    struct load load = {0};
    struct director director = {.random = {seed}, .trouble = trouble, .load = &load};
    void *state = &options;
    const char *wrong = NULL;

    (void)mount_possible(); /* the time of the next one is counted from now on */
    history_init(&director.history);
    if (mount_setup(&state) != 0) {
        load.failed = true;
        snprintf(load.text, sizeof(load.text), "nothing can be mounted");
        return load;
    }
    director.mount = state;
    if (actors_init(&director.actors, director.mount, seed) != 0) {
        wrong = "no memory";
    } else {
        wrong = direct(&director, run_ms);
        count(&director);
        actors_release(&director.actors);
    }
    if (wrong != NULL)
        snprintf(load.text, sizeof(load.text), "%s", wrong);
    if (mount_teardown(&state) != 0 && wrong == NULL)
        wrong = snprintf(load.text, sizeof(load.text), "the daemon did not end well") > 0
                    ? load.text
                    : NULL;
    load.failed = wrong != NULL;
    history_release(&director.history);
    return load;
}
