#include "opened.h"

#include <stddef.h>

void opened_init(struct opened_list *list)
{
    (void)pthread_mutex_init(&list->mutex, NULL); /* without attributes it cannot fail */
    list->first = NULL;
}

void opened_release(struct opened_list *list)
{
    while (list->first != NULL)
        opened_remove(list, list->first);
    (void)pthread_mutex_destroy(&list->mutex);
}

void opened_add(struct opened_list *list, struct opened *opened, void (*close)(struct opened *))
{
    opened->close = close;
    (void)pthread_mutex_lock(&list->mutex);
    opened->next = list->first;
    opened->link = &list->first;
    if (opened->next != NULL)
        opened->next->link = &opened->next;
    list->first = opened;
    (void)pthread_mutex_unlock(&list->mutex);
}

void opened_remove(struct opened_list *list, struct opened *opened)
{
    (void)pthread_mutex_lock(&list->mutex);
    *opened->link = opened->next;
    if (opened->next != NULL)
        opened->next->link = opened->link;
    (void)pthread_mutex_unlock(&list->mutex);
    opened->close(opened);
}
