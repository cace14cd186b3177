#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "access.h"
#include "box.h"
#include "log.h"
#include "mailbox.h"
#include "move.h"
#include "picture.h"
#include "reply.h"
#include "send.h"

/*
 * A name always means the same inode, so it may be believed for long: a mailbox that has vanished
 * is ESTALE at open, and the kernel looks again. One that is for one user only is not believed at
 * all. Attributes change behind the mount's back with
 * every message.
 */
const double look_name_timeout_s = 3600;
const double look_attributes_timeout_s = 0;

/* Those of the root are wanted at each step of every path; nothing but its times changes behind the
 * mount. */
static const double directory_timeout_s = 1;

enum {
    STAT_BLOCK_BYTES = 512, /* the unit of st_blocks, whatever st_blksize is */
    READ_BITS = S_IRUSR | S_IRGRP | S_IROTH,
    EXECUTE_BITS = S_IXUSR | S_IXGRP | S_IXOTH,
};

/* Of a directory of the tree, or of `.stats`. */
static int look_fixed(const struct gprocfs *fs, struct tree_node node, struct stat *attributes)
{
    if (fstat(fs->mailboxes.fd, attributes) < 0)
        return -errno;
    attributes->st_ino = tree_inode(node);
    attributes->st_nlink = 2 + (node.view == TREE_MAILBOX ? tree_directories_count() : 0);
    if (node.view != TREE_MAILBOX)
        attributes->st_mode &= S_IFMT | READ_BITS | EXECUTE_BITS; /* nothing is made there */
    if (!tree_is_directory(node)) {
        attributes->st_mode = S_IFREG | READ_BITS;
        attributes->st_nlink = 1;
        attributes->st_size = 0; /* as in /proc: it is made up when it is opened */
        attributes->st_blocks = 0;
    }
    return 0;
}

/* What a mailbox's attributes look like in this view. */
static void show_through(struct tree_node node, struct stat *attributes)
{
    unsigned int flags = tree_view(node.view)->flags;
    mode_t mode = attributes->st_mode;

    attributes->st_ino = tree_inode(node);
    if ((flags & TREE_SENDS) != 0)
        return;
    /* The kernel asks for the right to read. Taking needs the one to write, too. */
    if ((flags & TREE_TAKES) != 0)
        mode &= mode << 1;
    attributes->st_mode = (attributes->st_mode & S_IFMT) | (mode & READ_BITS);
    attributes->st_blocks = 0; /* the disk space is the mailbox's */
    if ((flags & TREE_WAITS) != 0)
        attributes->st_size =
            0; /* as of a pipe: what splice(2) would read ahead it reads as the end */
}

/* By whoever is at work on the box. -ENOENT where there is no mailbox. One that we may not read
 * shows its file's size. */
static int look_measure(struct box *box, struct tree_node node, struct stat *attributes)
{
    uint64_t payload_bytes = 0, disk_bytes = 0;
    const struct gproc_measure *measure;
    int result = box_measure(box, attributes, &measure);

    if (result == 0)
        attributes->st_size = (off_t)measure->payload_bytes;
    else if (result != -EACCES && result != -EPERM)
        return result;
    result = gproc_inflight_measure(&box->inflight, &payload_bytes, &disk_bytes);
    if (result < 0)
        log_mailbox(box->pid, "cannot measure what is in flight", result); /* it is shown as less */
    attributes->st_size += (off_t)payload_bytes;
    attributes->st_blocks += (blkcnt_t)((disk_bytes + STAT_BLOCK_BYTES - 1) / STAT_BLOCK_BYTES);
    show_through(node, attributes);
    return 0;
}

/*
 * Of a view that shows pictures: where somebody has this node open, the size is that of his, and
 * there is one even if the mailbox is there no more.
 */
static int look_at_picture(struct job *job, struct stat *attributes)
{
    struct stat picture = {0};
    int shown = picture_measure(job, &picture);
    int result = look_measure(job->box, job->node, attributes);

    if (shown == 0 && result == -ENOENT) {
        memset(attributes, 0, sizeof(*attributes));
        attributes->st_mode = picture.st_mode;
        attributes->st_uid = picture.st_uid;
        attributes->st_gid = picture.st_gid;
        attributes->st_nlink = picture.st_nlink;
        show_through(job->node, attributes);
        result = 0;
    }
    if (shown == 0) {
        attributes->st_size = picture.st_size;
        attributes->st_atim = picture.st_atim;
        attributes->st_mtim = picture.st_mtim;
        attributes->st_ctim = picture.st_ctim;
    } else if (shown == -ENOENT && job->node.view == TREE_LIST) {
        attributes->st_size = 0; /* as in /proc: not known before it is made up */
    }
    return shown < 0 && shown != -ENOENT ? shown : result;
}

/* A job for something that needs no handle. False: no memory, and the request has been answered. */
static bool box_job(struct gprocfs *fs, fuse_req_t req, struct tree_node node,
                    enum job_result (*run)(struct job *job), struct job *job)
{
    memset(job, 0, sizeof(*job));
    job->box = box_get(fs, node.pid);
    if (job->box == NULL) {
        (void)reply_error(req, -ENOMEM); /* the caller may have gone: nothing to do about it */
        return false;
    }
    job->req = req;
    job->fs = fs;
    job->node = node;
    job->run = run;
    job->creator = access_creator(req);
    return true;
}

int look_entry(struct gprocfs *fs, struct tree_node node, struct fuse_entry_param *entry)
{
    int result;

    memset(entry, 0, sizeof(*entry));
    if (node.pid == 0)
        result = look_fixed(fs, node, &entry->attr);
    else
        result = gproc_mailbox_stat(&fs->mailboxes, node.pid, &entry->attr);
    if (result < 0)
        return result;
    if (node.pid != 0)
        show_through(node, &entry->attr);
    entry->ino = tree_node_id(node);
    entry->attr_timeout = tree_is_directory(node) ? directory_timeout_s : look_attributes_timeout_s;
    entry->entry_timeout = node.picture == 0 ? look_name_timeout_s : 0;
    return 0;
}

static bool is_base_shunned(struct gprocfs *fs, pid_t pid, pid_t thread)
{
    struct box *box = box_find(fs, pid);
    bool shunned;

    if (box == NULL)
        return false;
    shunned = box_base_is_shunned(box, thread);
    box_put(box);
    return shunned;
}

void look_choose_node(fuse_req_t req, struct tree_node *node)
{
    struct gprocfs *fs = fuse_req_userdata(req);
    unsigned int flags = tree_view(node->view)->flags;

    node->picture = 0;
    if (node->pid == 0)
        return;
    if ((flags & TREE_LOOKS) == 0 &&
        ((flags & TREE_SENDS) == 0 || !is_base_shunned(fs, node->pid, fuse_req_ctx(req)->pid)))
        return;
    while (node->picture == 0)
        node->picture = (uint32_t)atomic_fetch_add(&fs->nodes_count, 1) & TREE_PICTURE_MASK;
}

void look_up(struct gprocfs *fs, fuse_req_t req, struct tree_node node)
{
    struct fuse_entry_param entry;
    int result;

    look_choose_node(req, &node);
    result = look_entry(fs, node, &entry);
    if ((tree_view(node.view)->flags & TREE_LOOKS) != 0)
        entry.attr.st_size = 0; /* it is not counted yet; who maps the file is told when he asks */
    if (result < 0)
        (void)reply_no(req, result); /* everybody asks for names that are not there */
    else
        (void)fuse_reply_entry(
            req, &entry); /* nothing of ours hangs on a look-up: no table is to be undone */
}

static enum job_result answer_attributes(struct job *job)
{
    struct stat attributes;
    int result = (tree_view(job->node.view)->flags & TREE_LOOKS) != 0
                     ? look_at_picture(job, &attributes)
                     : look_measure(job->box, job->node, &attributes);

    if (result == -EAGAIN)
        return JOB_AGAIN;
    if (result == -ECANCELED)
        (void)job_reply_error(job, -ENOTCONN); /* the mount ends */
    else if (result < 0)
        (void)job_reply_error(job, result == -ENOENT ? -ESTALE : result);
    else
        (void)job_reply_attr(job, &attributes, look_attributes_timeout_s);
    return JOB_DONE;
}

void look_attributes(struct gprocfs *fs, fuse_req_t req, struct tree_node node)
{
    struct stat attributes;
    struct job job;
    int result;

    if (node.pid != 0) {
        if (box_job(fs, req, node, answer_attributes, &job))
            box_submit(&job);
        return;
    }
    result = look_fixed(fs, node, &attributes);
    if (result < 0)
        (void)reply_error(req, result);
    else
        (void)fuse_reply_attr(req, &attributes, directory_timeout_s);
}

/* Empties the mailbox and what is in flight. */
static enum job_result answer_clear(struct job *job)
{
    int result = box_lock(job);

    if (result == -EWOULDBLOCK)
        return JOB_NEEDS_LOCK;
    if (result == 0) {
        struct gproc_mailbox *mailbox = &job->box->files->mailbox;

        result = gproc_mailbox_reopen(mailbox, &job->fs->mailboxes, O_WRONLY);
        if (result == 0 && gproc_inflight_is_unsettled(&job->box->inflight))
            result = gproc_inflight_settle(&job->box->inflight, mailbox);
        if (result == 0)
            result = gproc_inflight_clear(&job->box->inflight);
        if (result == 0)
            result = gproc_mailbox_clear(mailbox);
        if (result == 0)
            pictures_emptied(job->box);
        box_unlock(job->box);
    }
    if (result < 0) {
        log_mailbox(job->box->pid, "cannot clear it", result);
        (void)job_reply_error(job, result);
        return JOB_DONE;
    }
    return answer_attributes(job);
}

/* Sets the times of an open file to what was asked for. */
static int change_times(const char *path, const struct stat *attributes, int to_set)
{
    struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};

    if (to_set & FUSE_SET_ATTR_ATIME_NOW)
        times[0].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_ATIME)
        times[0] = attributes->st_atim;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        times[1].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_MTIME)
        times[1] = attributes->st_mtim;
    return utimensat(AT_FDCWD, path, times, 0) < 0 ? -errno : 0;
}

/*
 * Mode, owner and times of the file below. It is opened by O_PATH, which needs no permission and
 * follows nothing, and then named by its descriptor: not by a name under which something else may
 * stand by now.
 */
static int change_file(struct gprocfs *fs, pid_t pid, const struct stat *attributes, int to_set)
{
    const int owner = FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME;
    struct gproc_mailbox mailbox;
    char path[64];
    int result = gproc_mailbox_open(&mailbox, &fs->mailboxes, pid, O_PATH);

    if (result < 0)
        return result == -ENOENT ? -ESTALE : result;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", mailbox.fd); /* it always fits */
    if (to_set & owner) {
        uid_t uid = to_set & FUSE_SET_ATTR_UID ? attributes->st_uid : (uid_t)-1;
        gid_t gid = to_set & FUSE_SET_ATTR_GID ? attributes->st_gid : (gid_t)-1;

        if (fchownat(mailbox.fd, "", uid, gid, AT_EMPTY_PATH) < 0)
            result = -errno;
    }
    if (result == 0 && (to_set & FUSE_SET_ATTR_MODE) &&
        chmod(path, attributes->st_mode & 07777) < 0)
        result = -errno;
    if (result == 0 && (to_set & times))
        result = change_times(path, attributes, to_set);
    gproc_mailbox_close(&mailbox);
    return result;
}

/* The new size: of the message that the handle collects, or of the mailbox, which can only be none.
 * 1: a job does it. */
static int change_size(struct gprocfs *fs, fuse_req_t req, struct tree_node node, off_t size_bytes,
                       struct handle *handle)
{
    struct job job;

    if (handle != NULL && handle->collects)
        return send_resize(handle, req, size_bytes);
    /* rsync --inplace cuts a file to what it has written to it. */
    if (handle != NULL && send_has_sent(handle, size_bytes))
        return 0;
    if (size_bytes != 0)
        return -EINVAL;
    if (box_job(fs, req, node, answer_clear, &job)) {
        job.takes_lock = true;
        job.holds_base = node.picture == 0;
        (void)pthread_mutex_lock(&job.box->mutex);
        job.box->base_clears_count += job.holds_base;
        (void)pthread_mutex_unlock(&job.box->mutex);
        box_submit(&job);
    }
    return 1;
}

/*
 * A new owner, in one go for the mailbox and for what is in flight, which else would be somebody
 * else's to whoever looks in between. The job's data are the attributes, its offset what to set.
 */
static enum job_result answer_owner(struct job *job)
{
    struct stat attributes;
    int result;

    memcpy(&attributes, job->data, sizeof(attributes));
    result = change_file(job->fs, job->box->pid, &attributes, (int)job->offset);
    if (result == 0 && (job->offset & FUSE_SET_ATTR_UID) != 0) {
        result = gproc_inflight_own(&job->box->inflight, attributes.st_uid);
        if (result < 0)
            log_mailbox(job->box->pid, "what is in flight stays the former owner's", result);
    }
    if (result < 0) {
        (void)job_reply_error(job, result); /* whoever has gone does not miss it */
        return JOB_DONE;
    }
    return answer_attributes(job);
}

static void change_owner(struct gprocfs *fs, fuse_req_t req, struct tree_node node,
                         const struct stat *attributes, int to_set)
{
    struct job job;

    if (box_job(fs, req, node, answer_owner, &job)) {
        job.data = attributes;
        job.size_bytes = sizeof(*attributes);
        job.offset = to_set;
        box_submit(&job);
    }
}

/* Of a message that is being collected for a mailbox that was removed meanwhile. */
static void answer_nowhere(fuse_req_t req, struct tree_node node, const struct handle *handle)
{
    struct stat attributes = {
        .st_mode = handle->grant.mode, .st_uid = handle->grant.uid, .st_gid = handle->grant.gid};

    show_through(node, &attributes);
    (void)fuse_reply_attr(req, &attributes, look_attributes_timeout_s);
}

void look_change(struct gprocfs *fs, fuse_req_t req, struct tree_node node,
                 const struct stat *attributes, int to_set, struct handle *handle)
{
    int result;

    if (node.pid == 0 || node.view != TREE_MAILBOX) {
        (void)reply_error(req, -EPERM);
        return;
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0 && (to_set & FUSE_SET_ATTR_SIZE) == 0) {
        change_owner(fs, req, node, attributes, to_set);
        return;
    }
    result = change_file(fs, node.pid, attributes, to_set);
    if (result == -ESTALE && handle != NULL && handle->collects && (to_set & FUSE_SET_ATTR_SIZE)) {
        result = send_resize(handle, req, attributes->st_size);
        if (result < 0)
            (void)reply_error(req, result);
        else
            answer_nowhere(req, node, handle);
        return;
    }
    if (result == 0 && (to_set & FUSE_SET_ATTR_SIZE))
        result = change_size(fs, req, node, attributes->st_size, handle);
    if (result < 0)
        (void)reply_error(req, result);
    else if (result == 0)
        look_attributes(fs, req, node);
}

static enum job_result answer_remove(struct job *job)
{
    int result = box_lock(job);

    if (result == -EWOULDBLOCK)
        return JOB_NEEDS_LOCK;
    if (result == 0) {
        struct stat status;

        result = gproc_mailbox_stat(&job->fs->mailboxes, job->box->pid, &status);
        if (result == 0)
            result = gproc_inflight_clear(&job->box->inflight);
        if (result == 0)
            result = gproc_mailbox_remove(&job->fs->mailboxes, job->box->pid);
        if (result == 0) {
            pictures_emptied(job->box);
            box_forget_measure(job->box); /* a box is kept for what it has measured */
            gproc_mailbox_close(&job->box->files->mailbox);
        }
        box_unlock(job->box);
    }
    (void)job_reply_error(job, result);
    return JOB_DONE;
}

void look_remove(struct gprocfs *fs, fuse_req_t req, pid_t pid)
{
    struct tree_node node = {.view = TREE_MAILBOX, .pid = pid};
    struct job job;

    if (box_job(fs, req, node, answer_remove, &job)) {
        job.takes_lock = true;
        job.holds_directory = true;
        box_submit(&job);
    }
}

void look_room(const struct gprocfs *fs, fuse_req_t req)
{
    struct statvfs below;

    if (fstatvfs(fs->mailboxes.fd, &below) < 0)
        (void)reply_error(req, -errno);
    else
        (void)fuse_reply_statfs(req, &below);
}
