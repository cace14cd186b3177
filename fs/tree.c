#include "tree.h"

static const struct tree_view views[TREE_VIEWS_END] = {
    [TREE_MAILBOX] = {.directory = "", .flags = TREE_TAKES | TREE_SENDS},
};

enum {
    ROOT_INODE = 1, /* FUSE_ROOT_ID: the kernel's choice */
    PID_BITS = 31,
};

const struct tree_view *tree_view(enum tree_view_id id)
{
    return &views[id];
}

uint64_t tree_inode(struct tree_node node)
{
    if (node.view == TREE_MAILBOX && node.pid == 0)
        return ROOT_INODE;
    return (uint64_t)node.view << PID_BITS | (uint64_t)node.pid;
}

bool tree_find(uint64_t inode, struct tree_node *node)
{
    uint64_t view = inode >> PID_BITS;

    if (inode == ROOT_INODE) {
        node->view = TREE_MAILBOX;
        node->pid = 0;
        return true;
    }
    if (view < TREE_MAILBOX || view >= TREE_VIEWS_END)
        return false;
    node->view = (enum tree_view_id)view;
    node->pid = (pid_t)(inode & (((uint64_t)1 << PID_BITS) - 1));
    return true;
}
