/*
 * Names and numbers, and the way back: process ids, views and node ids against models that say the
 * same in other words.
 *
 * The input is a name, up to its first zero; and its first eight bytes are a node id.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paths.h"
#include "tree.h"

enum {
    NAME_MAX_BYTES = 64,
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(bool holds, const char *what, const char *name, uint64_t number)
{
    if (holds)
        return;
    (void)fprintf(stderr, "%s: \"%s\", %#llx\n", what, name, (unsigned long long)number);
    abort();
}

/* Whoever prints it again has the same name. */
static bool is_pid(const char *name, pid_t *pid)
{
    long long value = strtoll(name, NULL, 10);
    char again[NAME_MAX_BYTES];

    (void)snprintf(again, sizeof(again), "%lld", value);
    *pid = (pid_t)value;
    return value >= 1 && value <= INT_MAX && strcmp(again, name) == 0;
}

static void check_names_of(pid_t pid)
{
    char name[GPROC_NAME_BYTES], want[NAME_MAX_BYTES];
    pid_t again = -1;

    (void)snprintf(want, sizeof(want), "%ld", (long)pid);
    gproc_mailbox_name(pid, name);
    require(strcmp(name, want) == 0, "the mailbox's name", name, (uint64_t)pid);
    require(gproc_pid_parse(name, &again) == 0 && again == pid, "not read again", name,
            (uint64_t)pid);
    (void)snprintf(want, sizeof(want), "%ld.lock", (long)pid);
    gproc_lock_name(pid, name);
    require(strcmp(name, want) == 0, "the lock's name", name, (uint64_t)pid);
    require(gproc_pid_parse(name, &again) < 0, "a lock is no mailbox", name, (uint64_t)pid);
}

static void check_pid(const char *name)
{
    pid_t want, found = -1;
    bool is_one = is_pid(name, &want);

    require((gproc_pid_parse(name, &found) == 0) == is_one, "is it a pid", name, 0);
    require(found == (is_one ? want : -1), "another pid", name, (uint64_t)found);
    if (is_one)
        check_names_of(found);
}

static void check_view(const char *name)
{
    static const struct {
        const char *name;
        enum tree_view_id id;
    } views[] = {
        {".follow", TREE_FOLLOW}, {".envelope", TREE_ENVELOPE}, {".peek", TREE_PEEK},
        {".list", TREE_LIST},     {".stats", TREE_STATS},
    };
    enum tree_view_id want = TREE_VIEWS_END, found = TREE_VIEWS_END;

    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
        if (strcmp(views[i].name, name) == 0)
            want = views[i].id;
    require(tree_view_named(name, &found) == (want != TREE_VIEWS_END), "is it a view", name, want);
    require(found == want, "another view", name, found);
    if (found != TREE_VIEWS_END)
        require(strcmp(tree_view(found)->name, name) == 0, "the view's name", name, found);
}

/* Whether the tree has such a node: the root has one number, and `.stats` is one file. */
static bool is_node(uint64_t id, const struct tree_node *node)
{
    if (id == 1)
        return true;
    if (node->view < TREE_MAILBOX || node->view > TREE_STATS)
        return false;
    return node->view == TREE_MAILBOX ? node->pid != 0 : node->view != TREE_STATS || node->pid == 0;
}

static void check_node_id(const char *name, uint64_t id)
{
    struct tree_node want = {
        .view = (enum tree_view_id)(id / 0x80000000 % 8),
        .pid = (pid_t)(id % 0x80000000),
        .picture = (uint32_t)(id / 0x400000000),
    };
    struct tree_node found;
    bool is_found = tree_find(id, &found);

    require(is_found == is_node(id, &want), "is it a node", name, id);
    if (!is_found)
        return;
    if (id == 1)
        want = (struct tree_node){.view = TREE_MAILBOX};
    require(found.view == want.view && found.pid == want.pid && found.picture == want.picture,
            "another node", name, id);
    require(tree_node_id(found) == id, "not the node's id", name, tree_node_id(found));
    require(tree_inode(found) == id % 0x400000000, "not the inode", name, tree_inode(found));
    require(tree_is_directory(found) == (found.pid == 0 && found.view != TREE_STATS),
            "is it a directory", name, id);
    if (found.pid != 0)
        check_names_of(found.pid);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    char name[NAME_MAX_BYTES] = "";
    uint64_t id = 0;

    if (input_bytes >= sizeof(name))
        return 0;
    if (input_bytes > 0)
        memcpy(name, input, input_bytes);
    for (size_t i = 0; i < sizeof(id) && i < input_bytes; i++)
        id |= (uint64_t)input[i] << 8 * i;
    check_pid(name);
    check_view(name);
    check_node_id(name, id);
    /* The low bits alone: what a mailbox of a view, or its directory, has as its first node. */
    check_node_id(name, id % 0x400000000);
    return 0;
}
