#include "handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "box.h"
#include "gprocfs.h"
#include "picture.h"
#include "poller.h"
#include "send.h"

/* Puts it into the box's list: 0, or -ESTALE. */
static int enlist(struct handle *handle, struct tree_node node, pid_t thread)
{
    struct box *box = handle->box;
    bool is_base = handle->writes && node.picture == 0;
    bool shares = is_base && !handle->collects;
    bool taken;

    (void)pthread_mutex_lock(&box->mutex);
    /* Also for who collects: the kernel truncates, by its own lights, after it has opened. */
    taken = is_base && (box_base_is_taken(box) || (shares && box->base_collectors_count > 0));
    if (taken)
        box_shun_base(box, thread);
    if (!taken) {
        box_has_come(box, thread);
        handle->takes_base = is_base;
        if (shares)
            box->base_is_taken = true;
        else if (is_base)
            box->base_collectors_count++;
        handle->next = box->handles;
        handle->link = &box->handles;
        if (handle->next != NULL)
            handle->next->link = &handle->next;
        box->handles = handle;
        if ((handle->view_flags & TREE_WAITS) != 0)
            box->followers_count++;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    return taken ? -ESTALE : 0;
}

/*
 * Whoever writes through the first node while the lock is held has the kernel hold the inode's lock,
 * and then who removes or renames the name waits where no signal reaches him. Names are looked up
 * again from the moment that the lock is found held: so that is found out here, and not by the
 * write, or else the next rm could come in between.
 */
static int find_out_held(struct box *box, struct gproc_creator creator, pid_t thread)
{
    int result = box_try_lock(box, creator);

    if (result != -EWOULDBLOCK)
        return result;
    (void)pthread_mutex_lock(&box->mutex);
    box_shun_base(box, thread);
    (void)pthread_mutex_unlock(&box->mutex);
    return -ESTALE;
}

static struct handle *allocate(bool writes)
{
    struct both {
        struct handle handle;
        struct outgoing outgoing;
    } * both;
    struct handle *handle = calloc(1, writes ? sizeof(*both) : sizeof(*handle));

    if (handle == NULL || !writes)
        return handle;
    both = (struct both *)handle;
    handle->outgoing = &both->outgoing;
    (void)pthread_mutex_init(&handle->outgoing->mutex,
                             NULL); /* without attributes it cannot fail */
    return handle;
}

static void deallocate(struct handle *handle)
{
    if (handle->outgoing != NULL)
        (void)pthread_mutex_destroy(&handle->outgoing->mutex);
    free(handle);
}

int handle_new(struct box *box, struct tree_node node, int open_flags, pid_t thread,
               struct gproc_creator creator, struct access_grant grant, struct handle **handle)
{
    int access = open_flags & O_ACCMODE;
    bool writes = access == O_WRONLY || access == O_RDWR;
    struct handle *made = allocate(writes);
    int result = 0;

    if (made == NULL)
        return -ENOMEM;
    made->box = box;
    made->view_flags = tree_view(node.view)->flags;
    made->reads = access == O_RDONLY || access == O_RDWR;
    made->writes = writes;
    /* cp, rsync and tar make a file that is missing with O_EXCL instead of O_TRUNC: it is new to
     * them in either case. */
    made->collects = made->writes &&
                     ((open_flags & O_TRUNC) != 0 || (open_flags & (O_EXCL | O_APPEND)) == O_EXCL);
    made->creator = creator;
    made->grant = grant;
    if ((made->view_flags & TREE_LOOKS) != 0) {
        made->picture = picture_share(box, node);
        result = made->picture != NULL ? 0 : -ENOMEM;
    }
    if (result == 0 && made->writes && !made->collects && node.picture == 0)
        result = find_out_held(box, creator, thread);
    if (result == 0)
        result = enlist(made, node, thread);
    if (result < 0) {
        deallocate(made);
        return result;
    }
    stats_add(&box->fs->stats, STATS_OPEN_FILES, 1);
    *handle = made;
    return 0;
}

void handle_free(struct handle *handle)
{
    struct box *box = handle->box;
    struct poller *poller;

    (void)pthread_mutex_lock(&box->mutex);
    *handle->link = handle->next;
    if (handle->next != NULL)
        handle->next->link = handle->link;
    if ((handle->view_flags & TREE_WAITS) != 0)
        box->followers_count--;
    if (handle->takes_base && !handle->collects)
        box->base_is_taken = false;
    else if (handle->takes_base)
        box->base_collectors_count--;
    poller = poller_take(handle);
    (void)pthread_mutex_unlock(&box->mutex);
    poller_free(poller);
    if (handle->picture != NULL)
        picture_leave(handle->picture);
    send_forget(handle);
    stats_add(&box->fs->stats, STATS_OPEN_FILES, -1);
    deallocate(handle);
    box_put(box);
}

struct job handle_job(struct handle *handle, fuse_req_t req)
{
    struct job job = {
        .req = req,
        .fs = handle->box->fs,
        .box = box_again(handle->box),
        .handle = handle,
        .creator = handle->creator,
    };

    return job;
}
