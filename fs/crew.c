#include "crew.h"

#include <errno.h>
#include <stdlib.h>

#include "box.h"
#include "keeper.h"

struct crew_task {
    int64_t given_ms;
    struct crew_task *next;
    struct box *box;
    void (*run)(struct box *box);
};

void crew_init(struct crew *crew)
{
    (void)pthread_mutex_init(&crew->mutex, NULL); /* without attributes it cannot fail */
    (void)pthread_cond_init(&crew->changed, NULL);
    crew->first = NULL;
    crew->end = &crew->first;
    crew->threads_count = 0;
    crew->idle_count = 0;
    crew->stopping = false;
}

static void *serve(void *context)
{
    struct crew *crew = context;

    (void)pthread_mutex_lock(&crew->mutex);
    for (;;) {
        struct crew_task *task = crew->first;

        if (task != NULL) {
            crew->first = task->next;
            if (crew->first == NULL)
                crew->end = &crew->first;
            (void)pthread_mutex_unlock(&crew->mutex);
            task->run(task->box);
            box_put(task->box);
            free(task);
            (void)pthread_mutex_lock(&crew->mutex);
        } else if (crew->stopping) {
            break;
        } else {
            crew->idle_count++;
            (void)pthread_cond_wait(&crew->changed, &crew->mutex);
            crew->idle_count--;
        }
    }
    (void)pthread_mutex_unlock(&crew->mutex);
    return NULL;
}

/* Call with the mutex held. */
static int add_thread(struct crew *crew)
{
    int result = -pthread_create(&crew->threads[crew->threads_count], NULL, serve, crew);

    if (result == 0)
        crew->threads_count++;
    return result;
}

int crew_give(struct crew *crew, struct box *box, void (*run)(struct box *box))
{
    struct crew_task *task = malloc(sizeof(*task));
    int result = 0;

    if (task == NULL)
        return -ENOMEM;
    task->next = NULL;
    task->given_ms = keeper_now_ms();
    task->box = box;
    task->run = run;
    (void)pthread_mutex_lock(&crew->mutex);
    if (crew->threads_count == 0)
        result = add_thread(crew);
    if (result == 0) {
        *crew->end = task;
        crew->end = &task->next;
        (void)pthread_cond_signal(&crew->changed);
    }
    (void)pthread_mutex_unlock(&crew->mutex);
    if (result < 0)
        free(task);
    return result;
}

bool crew_help(struct crew *crew)
{
    const struct crew_task *task;

    (void)pthread_mutex_lock(&crew->mutex);
    task = crew->first;
    if (task != NULL && crew->idle_count == 0 && crew->threads_count < CREW_THREADS_MOST_COUNT &&
        keeper_now_ms() - task->given_ms >= CREW_PATIENCE_MS)
        (void)add_thread(crew); /* without one it waits for those there are */
    (void)pthread_mutex_unlock(&crew->mutex);
    return task != NULL;
}

void crew_stop(struct crew *crew)
{
    size_t i;

    (void)pthread_mutex_lock(&crew->mutex);
    crew->stopping = true;
    (void)pthread_cond_broadcast(&crew->changed);
    (void)pthread_mutex_unlock(&crew->mutex);
    for (i = 0; i < crew->threads_count; i++)
        (void)pthread_join(crew->threads[i], NULL);
    (void)pthread_cond_destroy(&crew->changed);
    (void)pthread_mutex_destroy(&crew->mutex);
}
