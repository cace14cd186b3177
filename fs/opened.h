/*
 * opened - open files and directories that belong to no mailbox, so that none is left when the
 * mount ends: the kernel's word that a file was closed comes some time after the close, or never.
 */
#ifndef GPROCFS_OPENED_H
#define GPROCFS_OPENED_H

#include <pthread.h>

/* The first field of each. */
struct opened {
    void (*close)(struct opened *opened); /* frees it */
    struct opened *next;
    struct opened **link;
};

struct opened_list {
    pthread_mutex_t mutex;
    struct opened *first; /* protected by mutex */
};

void opened_init(struct opened_list *list);
void opened_release(struct opened_list *list); /* closes all */

void opened_add(struct opened_list *list, struct opened *opened, void (*close)(struct opened *));
void opened_remove(struct opened_list *list, struct opened *opened); /* and closes it */

#endif
