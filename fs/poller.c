#include "poller.h"

#include <stdlib.h>

#include "box.h"
#include "gprocfs.h"
#include "handle.h"

struct poller *poller_new(struct fuse_pollhandle *kernel)
{
    struct poller *poller = calloc(1, sizeof(*poller));

    if (poller == NULL)
        fuse_pollhandle_destroy(kernel);
    else
        poller->kernel = kernel;
    return poller;
}

void poller_free(struct poller *poller)
{
    if (poller == NULL)
        return;
    fuse_pollhandle_destroy(poller->kernel);
    free(poller);
}

struct poller *poller_take(struct handle *handle)
{
    struct poller *poller = handle->poller;

    if (poller == NULL)
        return NULL;
    *poller->link = poller->next;
    if (poller->next != NULL)
        poller->next->link = poller->link;
    handle->poller = NULL;
    stats_add(&handle->box->fs->stats, STATS_PARKED_POLL, -1);
    return poller;
}

struct poller *poller_put(struct handle *handle, struct poller *poller)
{
    struct poller *old = poller_take(handle);
    struct box *box = handle->box;

    poller->handle = handle;
    poller->next = box->pollers;
    poller->link = &box->pollers;
    if (poller->next != NULL)
        poller->next->link = &poller->next;
    box->pollers = poller;
    handle->poller = poller;
    stats_add(&box->fs->stats, STATS_PARKED_POLL, 1);
    return old;
}

void pollers_tell(struct box *box)
{
    struct poller *first = NULL;
    struct poller *poller;

    (void)pthread_mutex_lock(&box->mutex);
    while (box->pollers != NULL) {
        poller = poller_take(box->pollers->handle);
        poller->next = first;
        first = poller;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    while ((poller = first) != NULL) {
        first = poller->next;
        (void)fuse_lowlevel_notify_poll(poller->kernel); /* who has closed meanwhile is not told */
        poller_free(poller);
    }
}
