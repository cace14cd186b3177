#include "access.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "box.h"
#include "gprocfs.h"
#include "lock.h"
#include "mailbox.h"
#include "sender.h"

enum {
    GROUPS_FIRST_COUNT = 64,
};

/* Whether the caller is in the group, as its own or as one of its others. */
static bool in_group(fuse_req_t req, gid_t group)
{
    gid_t first[GROUPS_FIRST_COUNT];
    gid_t *groups = first;
    int count, i;
    bool found = fuse_req_ctx(req)->gid == group;

    if (found || !sender_can_be_looked_at()) /* libfuse finds groups in /proc */
        return found;
    count = fuse_req_getgroups(req, GROUPS_FIRST_COUNT, first);
    if (count > GROUPS_FIRST_COUNT) {
        groups = calloc((size_t)count, sizeof(*groups));
        if (groups == NULL)
            return false;
        i = fuse_req_getgroups(req, count, groups);
        count = i < count ? i : count;
    }
    for (i = 0; i < count && !found; i++)
        found = groups[i] == group;
    if (groups != first)
        free(groups);
    return found;
}

/* Whether the caller has all of `wanted` (S_IROTH, S_IWOTH), as the kernel would judge. */
static bool may(fuse_req_t req, const struct stat *status, mode_t wanted)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    mode_t mode = status->st_mode;

    if (uid == 0)
        return true;
    if (uid == status->st_uid)
        mode >>= 6;
    else if (in_group(req, status->st_gid))
        mode >>= 3;
    return (mode & wanted) == wanted;
}

int access_again(const struct access_grant *grant, fuse_req_t req, const struct stat *status,
                 mode_t wanted)
{
    if (status->st_uid == grant->uid && status->st_gid == grant->gid &&
        status->st_mode == grant->mode)
        return 0;
    return may(req, status, wanted) ? 0 : -ESTALE;
}

struct gproc_creator access_creator(fuse_req_t req)
{
    const struct gprocfs *fs = fuse_req_userdata(req);
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    struct gproc_creator creator = {caller->uid, caller->gid};

    return fs->gives_away ? creator : gproc_creator_self;
}

/* What the mount as a whole and the view forbid. */
static int check_view(const struct gprocfs *fs, struct tree_node node, bool writes)
{
    unsigned int flags = tree_view(node.view)->flags;

    if (writes && (flags & TREE_SENDS) == 0)
        return -EACCES;
    if (fs->read_only && (writes || (flags & TREE_TAKES) != 0))
        return -EROFS;
    if (writes && fs->live && kill(node.pid, 0) < 0 && errno == ESRCH)
        return -ESRCH;
    return 0;
}

/* Whether we may open the mailbox for that: 0 and what stat says of it, or what opening says. */
static int check_mailbox(struct box *box, int access, struct stat *status)
{
    struct gproc_mailbox mailbox;
    int result = gproc_mailbox_find(&box->fs->mailboxes, box->pid, status);

    if (result == 0 && box_knows_mailbox(box, status, access))
        return 0;
    result = gproc_mailbox_open(&mailbox, &box->fs->mailboxes, box->pid, access);
    if (result < 0)
        return result;
    *status = mailbox.status;
    gproc_mailbox_close(&mailbox);
    return 0;
}

/* Whether we may open its lock. */
static int check_lock(struct box *box, struct gproc_creator creator)
{
    struct stat status;
    int result = gproc_lock_stat(&box->fs->locks, box->pid, &status);

    if (result == 0 && box_knows_lock(box, &status))
        return 0;
    return gproc_lock_probe(&box->fs->locks, box->pid, creator);
}

int access_open(struct box *box, fuse_req_t req, struct tree_node node, int open_flags,
                const struct stat *made, struct access_grant *grant)
{
    bool takes = (tree_view(node.view)->flags & TREE_TAKES) != 0;
    bool writes = (open_flags & O_ACCMODE) != O_RDONLY;
    bool reads = (open_flags & O_ACCMODE) != O_WRONLY;
    struct stat status;
    int result = check_view(box->fs, node, writes);
    int access = !reads ? O_WRONLY : takes ? O_RDWR : O_RDONLY;
    mode_t wanted = (writes ? ACCESS_SEND : 0) | (!reads ? 0 : takes ? ACCESS_TAKE : ACCESS_LOOK);

    if (result < 0)
        return result;
    result = check_mailbox(box, access, &status);
    if (result < 0)
        return result == -ENOENT ? -ESTALE : result;
    /* The kernel has judged by what it was told a moment ago, or not at all where it was told that
     * there is none; and it does not know that receiving needs the right to write. */
    if ((made == NULL || made->st_ino != status.st_ino || made->st_dev != status.st_dev) &&
        !may(req, &status, wanted))
        result = -EACCES;
    grant->uid = status.st_uid;
    grant->gid = status.st_gid;
    grant->mode = status.st_mode;
    if (result == 0 && (writes || takes))
        result = check_lock(box, access_creator(req));
    return result;
}

int access_create(struct gprocfs *fs, fuse_req_t req, pid_t pid, mode_t mode, struct stat *made)
{
    struct tree_node node = {.view = TREE_MAILBOX, .pid = pid};
    struct gproc_mailbox mailbox;
    int result = check_view(fs, node, true);

    if (result < 0)
        return result;
    result = gproc_mailbox_create(&mailbox, &fs->mailboxes, pid, O_WRONLY, mode & 07777,
                                  access_creator(req));
    if (result < 0)
        return result;
    *made = mailbox.status;
    gproc_mailbox_close(&mailbox);
    return result;
}
