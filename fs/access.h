/*
 * access - whether a caller may open a mailbox, as far as the kernel does not decide that.
 *
 * The kernel checks owner and mode for what open(2) asks (default_permissions). Two things it does
 * not know: that receiving changes the mailbox, so that reading needs write permission too; and
 * what the daemon itself may do below. Whatever will be refused later is refused here, because a
 * shell hears an error of open and ignores one of close.
 */
#ifndef GPROCFS_ACCESS_H
#define GPROCFS_ACCESS_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "lock.h"
#include "tree.h"

struct box;
struct gprocfs;

/* Whom a file belongs to that is made for this request: the caller, where we may give files away;
 * else us. */
struct gproc_creator access_creator(fuse_req_t req);

/* Of the mailbox for which an open was allowed. Under its name there may be another one later. */
struct access_grant {
    uid_t uid;
    gid_t gid;
    mode_t mode;
};

/* What it takes to receive, to send and to look. */
enum {
    ACCESS_TAKE = S_IROTH | S_IWOTH,
    ACCESS_SEND = S_IWOTH,
    ACCESS_LOOK = S_IROTH,
};

/*
 * Of the node's `box`. `made`: what has been made for this very open, which so may do with it what its mode forbids;
 * NULL: nothing.
 * 0, or -ESTALE: the mailbox has vanished, look again; -EACCES; -EROFS; -ESRCH: there is no such
 * process (with live); or what opening the mailbox or its lock says.
 */
int access_open(struct box *box, fuse_req_t req, struct tree_node node, int open_flags,
                const struct stat *made, struct access_grant *grant);

/*
 * Whether what was allowed at open holds for the mailbox as it is now: it is the same to look at,
 * or the caller might open it anew. `wanted`: the rights that takes, S_IROTH and S_IWOTH.
 * 0 or -ESTALE.
 */
int access_again(const struct access_grant *grant, fuse_req_t req, const struct stat *status,
                 mode_t wanted);

/* Creates the mailbox for the caller, with `mode`. 1 and `*made`; 0 where it is there already; or as
 * above. */
int access_create(struct gprocfs *fs, fuse_req_t req, pid_t pid, mode_t mode, struct stat *made);

#endif
