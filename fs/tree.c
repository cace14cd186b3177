#include "tree.h"

#include <string.h>

static const struct tree_view views[TREE_VIEWS_END] = {
    [TREE_MAILBOX] = {.name = "", .flags = TREE_TAKES | TREE_SENDS},
    [TREE_FOLLOW] = {.name = ".follow", .flags = TREE_TAKES | TREE_WAITS},
    [TREE_ENVELOPE] = {.name = ".envelope", .flags = TREE_TAKES | TREE_WAITS | TREE_ENVELOPES},
    [TREE_PEEK] = {.name = ".peek", .flags = TREE_LOOKS},
    [TREE_LIST] = {.name = ".list", .flags = TREE_LOOKS},
    [TREE_STATS] = {.name = ".stats", .flags = TREE_IS_FILE},
};

enum {
    ROOT_INODE = 1, /* FUSE_ROOT_ID: the kernel's choice */
    PID_BITS = 31,
    VIEW_BITS = 3,
    PICTURE_SHIFT = PID_BITS + VIEW_BITS,
};

static const uint64_t pid_mask = ((uint64_t)1 << PID_BITS) - 1;
static const uint64_t view_mask = ((uint64_t)1 << VIEW_BITS) - 1;

const struct tree_view *tree_view(enum tree_view_id id)
{
    return &views[id];
}

bool tree_view_named(const char *name, enum tree_view_id *id)
{
    unsigned int i;

    for (i = TREE_MAILBOX + 1; i < TREE_VIEWS_END; i++) {
        if (strcmp(views[i].name, name) == 0) {
            *id = (enum tree_view_id)i;
            return true;
        }
    }
    return false;
}

bool tree_is_directory(struct tree_node node)
{
    return node.pid == 0 && (views[node.view].flags & TREE_IS_FILE) == 0;
}

unsigned int tree_directories_count(void)
{
    unsigned int count = 0;
    unsigned int i;

    for (i = TREE_MAILBOX + 1; i < TREE_VIEWS_END; i++)
        count += (views[i].flags & TREE_IS_FILE) == 0;
    return count;
}

uint64_t tree_inode(struct tree_node node)
{
    if (node.view == TREE_MAILBOX && node.pid == 0)
        return ROOT_INODE;
    return (uint64_t)node.view << PID_BITS | (uint64_t)node.pid;
}

uint64_t tree_node_id(struct tree_node node)
{
    return tree_inode(node) | (uint64_t)node.picture << PICTURE_SHIFT;
}

bool tree_find(uint64_t node_id, struct tree_node *node)
{
    uint64_t view = node_id >> PID_BITS & view_mask;

    if (node_id == ROOT_INODE) {
        *node = (struct tree_node){.view = TREE_MAILBOX};
        return true;
    }
    if (view < TREE_MAILBOX || view >= TREE_VIEWS_END)
        return false;
    node->view = (enum tree_view_id)view;
    node->pid = (pid_t)(node_id & pid_mask);
    node->picture = (uint32_t)(node_id >> PICTURE_SHIFT);
    if (node->view == TREE_MAILBOX)
        return node->pid != 0; /* the root's one number is above */
    return node->pid == 0 || (views[node->view].flags & TREE_IS_FILE) == 0;
}
