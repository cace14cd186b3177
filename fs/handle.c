#include "handle.h"

#include <fcntl.h>
#include <stdlib.h>

#include "box.h"
#include "gprocfs.h"
#include "picture.h"
#include "poller.h"
#include "send.h"

struct handle *handle_new(struct box *box, struct tree_node node, int open_flags,
                          struct gproc_creator creator, struct access_grant grant)
{
    struct handle *handle = calloc(1, sizeof(*handle));
    int access = open_flags & O_ACCMODE;

    if (handle == NULL)
        return NULL;
    handle->view_flags = tree_view(node.view)->flags;
    if ((handle->view_flags & TREE_LOOKS) != 0) {
        handle->picture = picture_share(box, node);
        if (handle->picture == NULL) {
            free(handle);
            return NULL;
        }
    }
    (void)pthread_mutex_init(&handle->mutex, NULL); /* without attributes it cannot fail */
    handle->box = box;
    handle->reads = access == O_RDONLY || access == O_RDWR;
    handle->writes = access == O_WRONLY || access == O_RDWR;
    /* cp, rsync and tar make a file that is missing with O_EXCL instead of O_TRUNC: it is new to
     * them in either case. */
    handle->collects = handle->writes && ((open_flags & O_TRUNC) != 0 ||
                                          (open_flags & (O_EXCL | O_APPEND)) == O_EXCL);
    handle->creator = creator;
    handle->grant = grant;
    (void)pthread_mutex_lock(&box->mutex);
    handle->next = box->handles;
    handle->link = &box->handles;
    if (handle->next != NULL)
        handle->next->link = &handle->next;
    box->handles = handle;
    if ((handle->view_flags & TREE_WAITS) != 0)
        box->followers_count++;
    (void)pthread_mutex_unlock(&box->mutex);
    stats_add(&box->fs->stats, STATS_OPEN_FILES, 1);
    return handle;
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
    poller = poller_take(handle);
    (void)pthread_mutex_unlock(&box->mutex);
    poller_free(poller);
    if (handle->picture != NULL)
        picture_leave(handle->picture);
    send_forget(handle);
    stats_add(&box->fs->stats, STATS_OPEN_FILES, -1);
    (void)pthread_mutex_destroy(&handle->mutex);
    free(handle);
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
