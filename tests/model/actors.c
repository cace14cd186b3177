#include "actors.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "acts.h"
#include "process.h"
#include "through.h"

enum {
    END_MS = 30000,
    ACTORS_KEPT = 16, /* for those who receive what is left */
};

int actors_box_pid(unsigned box)
{
    return box == 0 ? 4711 : 4712;
}

bool actor_sends(enum actor_kind kind)
{
    return kind == ACTOR_REPLACES || kind == ACTOR_APPENDS || kind == ACTOR_SENDS_BEHIND;
}

int actors_init(struct actors *actors, struct mount *mount, uint64_t seed)
{
    memset(actors, 0, sizeof(*actors));
    actors->mount = mount;
    actors->seed = seed;
    actors->stage = mmap(NULL, sizeof(struct stage), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return actors->stage == MAP_FAILED ? -1 : 0;
}

void actors_release(struct actors *actors)
{
    munmap(actors->stage, sizeof(struct stage));
}

static void prepare(const struct actors *actors, struct work *work, unsigned which)
{
    work->stage = actors->stage;
    work->me = &actors->stage->actors[which];
    work->self = which;
    work->mount = actors->mount;
    work->random.state = actors->seed + which;
    snprintf(work->path, sizeof(work->path), "%s/%s%d", actors->mount->mnt,
             acts_view(work->me->kind), actors_box_pid(work->me->box));
}

int actors_start(struct actors *actors, enum actor_kind kind, unsigned box)
{
    struct actor *actor;
    pid_t pid;

    if (actors->count >= ACTORS_MOST - ACTORS_KEPT)
        return -1;
    actor = &actors->stage->actors[actors->count++];
    actor->kind = kind;
    actor->box = box;
    pid = process_fork(0);
    if (pid == 0) {
        static struct work work;

        signal(SIGPIPE, SIG_IGN);
        prepare(actors, &work, actors->count - 1);
        acts_play(&work);
        _exit(0);
    }
    actor->pid = pid; /* here alone: the child has the same memory */
    return pid > 0 ? (int)actors->count - 1 : -1;
}

size_t actors_kill(struct actors *actors, unsigned which)
{
    struct actor *actor = &actors->stage->actors[which];

    if (actor->pid <= 0)
        return 0;
    (void)kill(actor->pid, SIGKILL);
    (void)process_wait(actor->pid, END_MS);
    actor->pid = 0;
    if (actor->asked == 0)
        return 0;
    return actor->kind == ACTOR_ENVELOPES ? ACTS_READ_BYTES / ACTS_ENVELOPE_LEAST_BYTES : 1;
}

static bool wait_all(struct actors *actors)
{
    bool all = true;

    for (unsigned i = 0; i < actors->count; i++) {
        struct actor *actor = &actors->stage->actors[i];
        bool receives_on = !actor_sends(actor->kind) && actor->kind != ACTOR_LOOKS;

        if (actor->pid <= 0 || (receives_on && !actors->stage->drained))
            continue;
        all = process_wait(actor->pid, END_MS) == 0 && all;
        actor->pid = 0;
    }
    return all;
}

bool actors_end(struct actors *actors)
{
    bool all;

    actors->stage->over = true;
    all = wait_all(actors);
    actors->stage->drained = true;
    return wait_all(actors) && all;
}

/* 1: there may be more than could be noted; 0: it is empty; or -1. */
static int receive_some(struct actors *actors, unsigned box)
{
    static struct work work;
    ssize_t got = 1;
    int fd;

    if (actors->count == ACTORS_MOST)
        return -1;
    actors->stage->actors[actors->count++] = (struct actor){.kind = ACTOR_RECEIVES, .box = box};
    prepare(actors, &work, actors->count - 1);
    fd = acts_open(&work, O_RDONLY);
    if (fd < 0)
        return -1;
    while (got > 0 && acts_have_room(&work)) {
        int64_t begun_ns = through_clock_ns();

        got = read(fd, work.buffer, ACTS_READ_BYTES);
        if (got > 0)
            acts_note_message(&work, HISTORY_TAKE, begun_ns, work.buffer, (size_t)got);
    }
    close(fd);
    return got > 0 ? 1 : (int)got;
}

int actors_receive_rest(struct actors *actors)
{
    int result = 0;

    for (unsigned box = 0; box < ACTORS_BOXES && result == 0; box++) {
        while ((result = receive_some(actors, box)) == 1)
            ;
    }
    return result;
}

void actors_tell(const struct actors *actors, struct history *history)
{
    for (unsigned i = 0; i < actors->count; i++) {
        const struct actor *actor = &actors->stage->actors[i];

        for (unsigned j = 0; j < actor->count; j++)
            history_add(history, &actor->events[j]);
    }
}
