/*
 * tree - names, views and inode numbers, each computed from the others; there is no table of
 * inodes.
 *
 *   inode 1                     the root
 *   bits 0..30                  the process id, 1 to 2147483647
 *   bits 31..                   the view, from 1 on
 *
 * The number that stat(2) shows is the node id that the kernel uses: the same in readdir, lookup
 * and getattr, at any time, in any mount.
 *
 * A view is a way to look at every mailbox, and a row of the table in tree.c: what may be done with
 * a file of it.
 */
#ifndef GPROCFS_TREE_H
#define GPROCFS_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum tree_view_id {
    TREE_MAILBOX = 1,
    TREE_VIEWS_END,
};

enum tree_view_flags {
    TREE_TAKES = 1 << 0, /* reading takes: it changes the mailbox */
    TREE_SENDS = 1 << 1, /* writing sends */
};

struct tree_view {
    const char *directory; /* its directory's name below the root; "" is the root itself */
    unsigned int flags;
};

/* A place in the tree. */
struct tree_node {
    enum tree_view_id view;
    pid_t pid; /* 0: the view's directory */
};

/* The view's row. */
const struct tree_view *tree_view(enum tree_view_id id);

uint64_t tree_inode(struct tree_node node);

/* True and `*node` for an inode that the tree has. */
bool tree_find(uint64_t inode, struct tree_node *node);

#endif
