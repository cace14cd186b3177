/*
 * look - what can be seen and changed of a mailbox without sending or taking: attributes, names,
 * room.
 *
 * Sizes are bytes of payload that wait, in flight and in the file below as one. All of these answer
 * the request.
 */
#ifndef GPROCFS_LOOK_H
#define GPROCFS_LOOK_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "gprocfs.h"
#include "handle.h"
#include "tree.h"

/* How long the kernel may believe a name, and attributes. See look.c. */
extern const double look_name_timeout_s;
extern const double look_attributes_timeout_s;

/* Gives the node a number of its own where others use the first: see tree.h. */
void look_choose_node(fuse_req_t req, struct tree_node *node);

void look_up(struct gprocfs *fs, fuse_req_t req, struct tree_node node);
void look_attributes(struct gprocfs *fs, fuse_req_t req, struct tree_node node);

/*
 * What the kernel is told with a name: 0, or -ENOENT and what stat says. The kernel holds
 * its lock on the directory meanwhile, which everybody needs who makes or removes a mailbox, so
 * nothing is counted here: the size is that of the file below, good for no time at all, and is
 * asked for when somebody wants it.
 */
int look_entry(struct gprocfs *fs, struct tree_node node, struct fuse_entry_param *entry);

/* Changes attributes: `to_set` is FUSE_SET_ATTR_*. `handle` is the open file it is done through, or
 * NULL. */
void look_change(struct gprocfs *fs, fuse_req_t req, struct tree_node node,
                 const struct stat *attributes, int to_set, struct handle *handle);

/* Deletes a mailbox and what is in flight of it. */
void look_remove(struct gprocfs *fs, fuse_req_t req, pid_t pid);

void look_room(const struct gprocfs *fs, fuse_req_t req);

#endif
