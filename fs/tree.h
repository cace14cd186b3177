/*
 * tree - names, views and inode numbers, each computed from the others; there is no table of
 * inodes.
 *
 * The number that stat(2) shows, the same at any time and in any mount:
 *
 *   1                           the root
 *   bits 0..30                  the process id, 1 to 2147483647; 0: the view itself
 *   bits 31..33                 the view, from 1 on
 *
 * The node id, which the kernel uses to name a file to us, is that number and
 *
 *   bits 34..63                 which of its nodes; 0: the first, which the kernel knows for long
 *
 * Open files of a view that has pictures (TREE_LOOKS) show each a picture of the mailbox, with a
 * size of its own; but when the kernel asks for a size, it names a node and not an open file. So
 * whoever looks such a name up gets a node of his own. Node ids of one file that differ in this are
 * different inodes to the kernel, and the same file to everybody else.
 *
 * So it is with a mailbox, while a file of it is open whose writes are sent at once: the kernel
 * holds an inode's lock during a write, and who writes through the same inode waits for it where no
 * signal reaches him, for as long as the first write waits for the lock of the mailbox. Opening the
 * first node to write then is ESTALE, on which the kernel looks the name up again. And while the
 * mailbox is to be emptied through its first node.
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
    TREE_FOLLOW,
    TREE_ENVELOPE,
    TREE_PEEK,
    TREE_LIST,
    TREE_STATS,
    TREE_VIEWS_END,
};

enum tree_view_flags {
    TREE_TAKES = 1 << 0,     /* reading takes: it changes the mailbox */
    TREE_SENDS = 1 << 1,     /* writing sends */
    TREE_WAITS = 1 << 2,     /* reading waits for the next message, as on a pipe */
    TREE_ENVELOPES = 1 << 3, /* reading shows the sender too */
    TREE_LOOKS = 1 << 4,     /* a picture of what waits; takes nothing */
    TREE_IS_FILE = 1 << 5,   /* one file of its own, and no directory of mailboxes */
};

enum {
    TREE_PICTURE_MASK = (1 << 30) - 1,
};

struct tree_view {
    const char *name; /* below the root; "" is the root itself */
    unsigned int flags;
};

/* A place in the tree. */
struct tree_node {
    enum tree_view_id view;
    pid_t pid;        /* 0: the view's directory, or its one file */
    uint32_t picture; /* which of its nodes; up to TREE_PICTURE_MASK */
};

/* The view's row. */
const struct tree_view *tree_view(enum tree_view_id id);

/* True and `*id` for the view that has this name below the root; not for the root's own. */
bool tree_view_named(const char *name, enum tree_view_id *id);

/* Whether the node is a directory. */
bool tree_is_directory(struct tree_node node);

/* How many directories the root has. */
unsigned int tree_directories_count(void);

/* What stat shows. */
uint64_t tree_inode(struct tree_node node);

/* What the kernel is given. */
uint64_t tree_node_id(struct tree_node node);

/* True and `*node` for a node id that the tree has. */
bool tree_find(uint64_t node_id, struct tree_node *node);

#endif
