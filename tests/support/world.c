#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

struct search {
    struct world *world;
    int result;
};

static int load(void *context, pid_t pid, uint64_t serial)
{
    struct search *search = context;

    if (pid == search->world->pid)
        search->result = gproc_inflight_load(&search->world->inflight, serial);
    return search->result < 0;
}

static int open_places(struct world *world, const char *root)
{
    char path[PATH_MAX];
    int result;

    snprintf(path, sizeof(path), "%s/gproc", root);
    result = gproc_place_init(&world->mailboxes, path, 0777);
    if (result < 0)
        return result;
    snprintf(path, sizeof(path), "%s/gflock", root);
    result = gproc_place_init(&world->locks, path, 0777);
    if (result < 0)
        gproc_place_release(&world->mailboxes);
    return result;
}

int world_open(struct world *world, const char *root, pid_t pid)
{
    struct search search = {.world = world};
    int result = open_places(world, root);

    if (result < 0)
        return result;
    world->pid = pid;
    world->lock.fd = -1;
    world->mailbox.fd = -1;
    world->has_mailbox = false;
    result = gproc_store_open(&world->store, &world->mailboxes);
    if (result < 0) {
        gproc_place_release(&world->mailboxes);
        gproc_place_release(&world->locks);
        return result;
    }
    gproc_inflight_init(&world->inflight, &world->store, pid);
    result = gproc_store_adopt(&world->store);
    if (result >= 0)
        result = gproc_store_list(&world->store, load, &search);
    if (search.result < 0)
        result = search.result;
    if (result < 0)
        world_close(world);
    return result < 0 ? result : 0;
}

void world_close(struct world *world)
{
    gproc_inflight_release(&world->inflight);
    gproc_store_close(&world->store);
    gproc_place_release(&world->mailboxes);
    gproc_place_release(&world->locks);
}

int world_lock(struct world *world)
{
    int result = gproc_lock_take(&world->lock, &world->locks, world->pid, gproc_creator_self,
                                 GPROC_WAIT_FOREVER);

    if (result < 0)
        return result;
    result = gproc_mailbox_open(&world->mailbox, &world->mailboxes, world->pid, O_RDWR);
    world->has_mailbox = result == 0;
    if (result == 0 || result == -ENOENT)
        return 0;
    gproc_lock_release(&world->lock);
    return result;
}

void world_unlock(struct world *world)
{
    gproc_mailbox_close(&world->mailbox);
    world->has_mailbox = false;
    gproc_lock_release(&world->lock);
}

int world_settle(struct world *world)
{
    int result = world_lock(world);

    if (result < 0)
        return result;
    result = gproc_inflight_settle(&world->inflight, world->has_mailbox ? &world->mailbox : NULL);
    world_unlock(world);
    return result;
}

int world_take(struct world *world)
{
    int result = world_lock(world);

    if (result < 0)
        return result;
    if (world->has_mailbox && world->mailbox.status.st_size > 0)
        result = gproc_inflight_take(&world->inflight, &world->mailbox);
    world_unlock(world);
    return result;
}

int world_return(struct world *world)
{
    int result = world_lock(world);

    if (result < 0)
        return result;
    if (!world->has_mailbox) {
        result = gproc_mailbox_create(&world->mailbox, &world->mailboxes, world->pid, O_RDWR,
                                      GPROC_MAILBOX_MODE, gproc_creator_self);
        world->has_mailbox = result >= 0;
    }
    if (result >= 0)
        result = gproc_inflight_return(&world->inflight, &world->mailbox);
    world_unlock(world);
    return result;
}
