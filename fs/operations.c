#include "operations.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>

#include "access.h"
#include "gprocfs.h"
#include "handle.h"
#include "listing.h"
#include "look.h"
#include "paths.h"
#include "picture.h"
#include "poller.h"
#include "reply.h"
#include "report.h"
#include "send.h"
#include "take.h"
#include "tree.h"

enum {
    /* How often a mailbox may be deleted while it is made and opened before the caller is told. */
    CREATE_MOST_COUNT = 10,
};

static struct gprocfs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct handle *handle_of(const struct fuse_file_info *info)
{
    return (struct handle *)(uintptr_t)info->fh;
}

static struct report *report_of(const struct fuse_file_info *info)
{
    return (struct report *)(uintptr_t)info->fh;
}

static struct listing *listing_of(const struct fuse_file_info *info)
{
    return (struct listing *)(uintptr_t)info->fh;
}

/* Errors are answered without looking whether it arrived: whoever has gone does not miss it. */
static void refuse(fuse_req_t req, int error)
{
    (void)reply_error(req, error);
}

static void op_init(void *userdata, struct fuse_conn_info *connection)
{
    const struct gprocfs *fs = userdata;

    connection->max_read = fs->read_most_bytes; /* libfuse insists that both agree */
    /* A size that changes behind the mount must not make the kernel drop or invent pages: there are
     * none. */
    connection->want &= ~(unsigned int)FUSE_CAP_AUTO_INVAL_DATA;
    /* Attributes that come with names would be out of date before anybody looks at them, and cost
     * each file a look. */
    connection->want &= ~(unsigned int)(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
    /* Else the kernel looks up one name of a directory at a time, and one that is slow below keeps all
     * others waiting where no signal reaches them. See also main.c. */
    connection->want |= connection->capable & FUSE_CAP_PARALLEL_DIROPS;
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
    /* Pictures can be mapped, then, by who shares the mapping as well. */
    connection->want |= connection->capable & FUSE_CAP_DIRECT_IO_ALLOW_MMAP;
#endif
    /* Splicing pays from a few pages on; a message is mostly smaller. */
    connection->want &=
        ~(unsigned int)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

/* What is called `name` in the directory `parent`, if it exists: 0, -ENOENT or -ENAMETOOLONG. */
static int find_named(fuse_ino_t parent, const char *name, struct tree_node *node)
{
    bool is_root;

    if (!tree_find(parent, node) || !tree_is_directory(*node))
        return -ENOENT;
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    is_root = node->view == TREE_MAILBOX;
    if (is_root && tree_view_named(name, &node->view))
        return 0;
    return gproc_pid_parse(name, &node->pid) == 0 ? 0 : -ENOENT;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct tree_node node;
    int result = find_named(parent, name, &node);

    if (result < 0)
        (void)reply_no(req, result); /* everybody asks for names that are not there */
    else
        look_up(fs_of(req), req, node);
}

static void op_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct tree_node node;

    (void)info;
    if (!tree_find(inode, &node))
        refuse(req, -ESTALE);
    else
        look_attributes(fs_of(req), req, node);
}

static void op_setattr(fuse_req_t req, fuse_ino_t inode, struct stat *attributes, int to_set,
                       struct fuse_file_info *info)
{
    struct tree_node node;

    if (!tree_find(inode, &node))
        refuse(req, -ESTALE);
    else
        look_change(fs_of(req), req, node, attributes, to_set,
                    info != NULL ? handle_of(info) : NULL);
}

/*
 * What the kernel is told of an open file. Never the page cache: messages must not stay there, and
 * where a file grows between a read and the answer to it, the kernel shows zeros to who reads it
 * from another thread at that moment.
 */
static unsigned int flags_of(const struct handle *handle)
{
    if ((handle->view_flags & TREE_WAITS) != 0)
        return FOPEN_DIRECT_IO | FOPEN_NOFLUSH | FOPEN_NONSEEKABLE | FOPEN_STREAM;
    return FOPEN_DIRECT_IO | (handle->collects ? 0 : FOPEN_NOFLUSH);
}

/* Makes the handle for a mailbox that the caller may open. */
static int open_handle(fuse_req_t req, struct tree_node node, const struct stat *made,
                       struct fuse_file_info *info)
{
    struct access_grant grant;
    struct handle *handle;
    struct box *box = box_get(fs_of(req), node.pid);
    int result;

    if (box == NULL)
        return -ENOMEM;
    result = access_open(box, req, node, info->flags, made, &grant);
    /* A shell ignores the error of the close that would send: it hears that of open. */
    if (result == 0 && (info->flags & O_ACCMODE) != O_RDONLY && box_is_stuck(box) &&
        box_try_lock(box, access_creator(req)) == -EWOULDBLOCK)
        result = -ETIMEDOUT;
    if (result == 0)
        result = handle_new(box, node, info->flags, fuse_req_ctx(req)->pid, access_creator(req),
                            grant, &handle);
    if (result < 0) {
        box_put(box);
        return result;
    }
    info->fh = (uintptr_t)handle;
    return 0;
}

/* The kernel did not hear of the handle: there will be no release. */
static void drop_handle(struct fuse_file_info *info)
{
    take_release(handle_of(info), NULL);
}

/*
 * libfuse 3.14 cannot say FOPEN_STREAM: that there is no position at all. Without it the kernel
 * holds the open file's lock on its position during a read that waits, and whoever shares the file
 * waits for that lock where no signal reaches him. So the answer is put together here.
 */
static void answer_open(fuse_req_t req, struct fuse_file_info *info)
{
    struct fuse_open_out answer = {.fh = info->fh, .open_flags = flags_of(handle_of(info))};

    if (fuse_reply_buf(req, (const char *)&answer, sizeof(answer)) == -ENOENT)
        drop_handle(info);
}

static void open_report(fuse_req_t req, struct fuse_file_info *info)
{
    struct report *report = NULL;
    int result = (info->flags & O_ACCMODE) == O_RDONLY ? report_open(fs_of(req), &report) : -EACCES;

    if (result < 0) {
        refuse(req, result);
        return;
    }
    info->fh = (uintptr_t)report;
    info->direct_io = 1;
    info->noflush = 1;
    if (fuse_reply_open(req, info) == -ENOENT)
        report_close(report);
}

static bool is_report(fuse_ino_t inode)
{
    struct tree_node node;

    return tree_find(inode, &node) && node.view == TREE_STATS;
}

static void op_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct tree_node node;
    int result;

    if (is_report(inode)) {
        open_report(req, info);
        return;
    }
    result =
        tree_find(inode, &node) && node.pid != 0 ? open_handle(req, node, NULL, info) : -ESTALE;
    if (result < 0)
        refuse(req, result);
    else
        answer_open(req, info);
}

/* Of a mailbox that has just been made. */
static void answer_created(fuse_req_t req, struct tree_node node, struct fuse_file_info *info)
{
    struct fuse_entry_param entry;
    int result = look_entry(fs_of(req), node, &entry);

    if (result < 0) {
        drop_handle(info);
        refuse(req, result);
        return;
    }
    info->direct_io = 1;
    info->noflush = (flags_of(handle_of(info)) & FOPEN_NOFLUSH) != 0;
    if (fuse_reply_create(req, &entry, info) == -ENOENT)
        drop_handle(info);
}

/*
 * Makes the mailbox where there is none, and the handle. The kernel has looked the name up already, so
 * ESTALE would be what the caller is told: whatever has changed meanwhile is looked at again here.
 */
static int create_handle(fuse_req_t req, struct tree_node *node, mode_t mode,
                         struct fuse_file_info *info)
{
    const struct stat *made = NULL;
    struct stat status, of_ours;
    int attempt;
    int result = -ESTALE;

    for (attempt = 0; attempt < CREATE_MOST_COUNT && result == -ESTALE; attempt++) {
        result = access_create(fs_of(req), req, node->pid, mode, &status);
        if (result < 0)
            return result;
        if (result == 1) {
            of_ours = status;
            made = &of_ours;
        }
        look_choose_node(req, node);
        result = open_handle(req, *node, made, info);
    }
    return result;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *info)
{
    struct tree_node node;
    int result = -EPERM;

    if (tree_find(parent, &node) && node.pid == 0)
        result = node.view == TREE_MAILBOX ? gproc_pid_parse(name, &node.pid) : -EACCES;
    if (result == 0)
        result = create_handle(req, &node, mode, info);
    if (result < 0)
        refuse(req, result);
    else
        answer_created(req, node, info);
}

static void op_read(fuse_req_t req, fuse_ino_t inode, size_t size_bytes, off_t offset,
                    struct fuse_file_info *info)
{
    if (is_report(inode))
        report_read(report_of(info), req, size_bytes, offset);
    else if (handle_of(info)->picture != NULL)
        picture_read(handle_of(info), req, size_bytes, offset);
    else
        take_read(handle_of(info), req, size_bytes, offset, info->flags);
}

static void op_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size_bytes,
                     off_t offset, struct fuse_file_info *info)
{
    (void)inode;
    send_write(handle_of(info), req, data, size_bytes, offset, (info->flags & O_APPEND) != 0);
}

static void op_flush(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    if (is_report(inode))
        refuse(req, 0);
    else
        send_flush(handle_of(info), req, false);
}

static void op_fsync(fuse_req_t req, fuse_ino_t inode, int data_only, struct fuse_file_info *info)
{
    (void)data_only;
    if (is_report(inode))
        refuse(req, 0);
    else
        send_flush(handle_of(info), req, true);
}

static void op_release(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    if (is_report(inode)) {
        report_close(report_of(info));
        refuse(req, 0);
    } else {
        take_release(handle_of(info), req);
    }
}

static void op_poll(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info,
                    struct fuse_pollhandle *kernel)
{
    struct poller *poller = kernel != NULL ? poller_new(kernel) : NULL;

    if (kernel != NULL && poller == NULL) {
        refuse(req, -ENOMEM);
    } else if (is_report(inode) || handle_of(info)->picture != NULL) {
        poller_free(poller);
        (void)fuse_reply_poll(req, POLLIN | POLLRDNORM); /* as any file */
    } else {
        take_poll(handle_of(info), req, poller);
    }
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct tree_node node;

    int result = find_named(parent, name, &node);

    if (result == 0 && (node.pid == 0 || node.view != TREE_MAILBOX))
        result = -EPERM;
    if (result < 0)
        refuse(req, result);
    else
        look_remove(fs_of(req), req, node.pid);
}

static void op_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct listing *listing = NULL;
    struct tree_node node;
    int result = -ENOTDIR;

    if (tree_find(inode, &node) && tree_is_directory(node))
        result = listing_open(fs_of(req), node, &listing);
    if (result < 0) {
        refuse(req, result);
        return;
    }
    info->fh = (uintptr_t)listing;
    if (fuse_reply_open(req, info) == -ENOENT)
        listing_close(listing);
}

static void op_readdir(fuse_req_t req, fuse_ino_t inode, size_t size_bytes, off_t offset,
                       struct fuse_file_info *info)
{
    (void)inode;
    listing_read(listing_of(info), req, size_bytes, offset);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    (void)inode;
    listing_close(listing_of(info));
    refuse(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t inode)
{
    (void)inode;
    look_room(fs_of(req), req);
}

/*
 * A copy inside the kernel would end at the size that it saw when it began, in the midst of what is
 * waiting. Refused, cat and cp read and write instead.
 */
static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset,
                               struct fuse_file_info *from_info, fuse_ino_t to, off_t to_offset,
                               struct fuse_file_info *to_info, size_t size_bytes, int flags)
{
    (void)from;
    (void)from_offset;
    (void)from_info;
    (void)to;
    (void)to_offset;
    (void)to_info;
    (void)size_bytes;
    (void)flags;
    refuse(req, -EINVAL);
}

/* What a mailbox cannot do, whatever it is called. */
static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)parent;
    (void)name;
    (void)mode;
    (void)device;
    refuse(req, -EPERM);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    op_mknod(req, parent, name, mode, 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    (void)target;
    op_mknod(req, parent, name, 0, 0);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned int flags)
{
    (void)new_parent;
    (void)new_name;
    (void)flags;
    op_mknod(req, parent, name, 0, 0);
}

static void op_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent, const char *name)
{
    (void)inode;
    op_mknod(req, parent, name, 0, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    op_mknod(req, parent, name, 0, 0);
}

const struct fuse_lowlevel_ops operations = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .poll = op_poll,
    .unlink = op_unlink,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .statfs = op_statfs,
    .copy_file_range = op_copy_file_range,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
};
