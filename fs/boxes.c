#include "boxes.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "box.h"
#include "gprocfs.h"
#include "handle.h"

enum {
    /* Boxes that nobody uses, kept for what was measured: a listing of so many costs no reading. */
    UNUSED_MOST_COUNT = 32 * 1024,
    /* Files that are kept open for a mailbox that nobody uses: a shell's loop comes back sooner. */
    REST_MS = 1000,
    /* Boxes with files open, which are two each; and the part of the descriptors we may have. */
    FILES_MOST_COUNT = 1024,
    DESCRIPTORS_PART = 8,
};

static size_t files_most_count(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
        limit.rlim_cur / DESCRIPTORS_PART > FILES_MOST_COUNT)
        return FILES_MOST_COUNT;
    return (size_t)limit.rlim_cur / DESCRIPTORS_PART;
}

void boxes_init(struct boxes *boxes)
{
    (void)pthread_mutex_init(&boxes->mutex, NULL); /* without attributes it cannot fail */
    boxes->resting_end = &boxes->resting;
    boxes->files_most_count = files_most_count();
}

struct box_files *boxes_new_files(struct boxes *boxes, pid_t pid)
{
    struct box_files *files = calloc(1, sizeof(*files));

    if (files == NULL)
        return NULL;
    gproc_lock_init(&files->lock);
    gproc_mailbox_init(&files->mailbox, pid);
    (void)atomic_fetch_add(&boxes->files_count, 1);
    return files;
}

void boxes_free_files(struct boxes *boxes, struct box_files *files)
{
    if (files == NULL)
        return;
    gproc_lock_release(&files->lock);
    gproc_mailbox_close(&files->mailbox);
    free(files);
    (void)atomic_fetch_sub(&boxes->files_count, 1);
}

bool boxes_have_too_many_files(const struct boxes *boxes)
{
    return atomic_load(&boxes->files_count) > boxes->files_most_count;
}

static void free_box(struct box *box)
{
    boxes_free_files(&box->fs->boxes, box->files);
    gproc_inflight_release(&box->inflight);
    free(box->measure);
    free(box->told);
    (void)pthread_mutex_destroy(&box->mutex);
    free(box);
}

/* Nothing rests any more, whoever comes and goes. */
static void end_all_rest(struct boxes *boxes)
{
    struct box *box;
    size_t i;

    for (i = 0; i < BOXES_BUCKETS_COUNT; i++) {
        for (box = boxes->buckets[i]; box != NULL; box = box->next) {
            boxes_free_files(boxes, box->files);
            box->files = NULL;
            free(box->told);
            box->told = NULL;
            box->link_resting = NULL;
        }
    }
}

void boxes_release(struct boxes *boxes)
{
    size_t i;

    end_all_rest(boxes);
    for (i = 0; i < BOXES_BUCKETS_COUNT; i++) {
        while (boxes->buckets[i] != NULL) {
            struct box *box = boxes->buckets[i];

            if (box->handles != NULL) {
                handle_free(box->handles); /* with the last one the box may go as well */
            } else {
                boxes->buckets[i] = box->next;
                free_box(box);
            }
        }
    }
    (void)pthread_mutex_destroy(&boxes->mutex);
}

/* Call with boxes.mutex held, as the next two. */
static void rest(struct boxes *boxes, struct box *box)
{
    box->rests_since_ms = keeper_now_ms();
    box->next_resting = NULL;
    box->link_resting = boxes->resting_end;
    *boxes->resting_end = box;
    boxes->resting_end = &box->next_resting;
}

static void rest_no_longer(struct boxes *boxes, struct box *box)
{
    *box->link_resting = box->next_resting;
    if (box->next_resting != NULL)
        box->next_resting->link_resting = box->link_resting;
    else
        boxes->resting_end = box->link_resting;
    box->link_resting = NULL;
}

/* Another user. */
static void use(struct boxes *boxes, struct box *box)
{
    if (box->users_count++ == 0)
        boxes->unused_count--;
    if (box->link_resting != NULL)
        rest_no_longer(boxes, box);
}

/* The box behind `box`, or the first, with a reference; NULL: there is none. */
static struct box *next_box(struct boxes *boxes, const struct box *box)
{
    struct box *next = box != NULL ? box->next : boxes->buckets[0];
    size_t i = box != NULL ? (uint32_t)box->pid % BOXES_BUCKETS_COUNT : 0;

    while (next == NULL && ++i < BOXES_BUCKETS_COUNT)
        next = boxes->buckets[i];
    if (next != NULL)
        use(boxes, next);
    return next;
}

void boxes_each(struct boxes *boxes, void (*each)(struct box *box))
{
    struct box *box = NULL;

    do {
        struct box *last = box;

        (void)pthread_mutex_lock(&boxes->mutex);
        box = next_box(boxes, last); /* the last one stays where it is while we have it */
        (void)pthread_mutex_unlock(&boxes->mutex);
        if (last != NULL)
            box_put(last);
        if (box != NULL)
            each(box);
    } while (box != NULL);
}

static struct box *new_box(struct gprocfs *fs, pid_t pid)
{
    struct box *box = calloc(1, sizeof(*box));

    if (box == NULL)
        return NULL;
    box->pid = pid;
    box->fs = fs;
    (void)pthread_mutex_init(&box->mutex, NULL); /* without attributes it cannot fail */
    queue_init(&box->ready);
    queue_init(&box->later);
    queue_init(&box->contended);
    box->contended.is_counted = true;
    box->contended.gauge = STATS_PARKED_LOCK;
    queue_init(&box->waiting);
    box->waiting.is_counted = true;
    box->waiting.gauge = STATS_PARKED_MESSAGE;
    gproc_inflight_init(&box->inflight, &fs->store, pid);
    return box;
}

static struct box **bucket_of(struct boxes *boxes, pid_t pid)
{
    return &boxes->buckets[(uint32_t)pid % BOXES_BUCKETS_COUNT];
}

static struct box *get(struct gprocfs *fs, pid_t pid, bool make)
{
    struct boxes *boxes = &fs->boxes;
    struct box **bucket = bucket_of(boxes, pid);
    struct box *box;
    bool made = false;

    (void)pthread_mutex_lock(&boxes->mutex);
    for (box = *bucket; box != NULL && box->pid != pid; box = box->next)
        ;
    if (box == NULL && make) {
        box = new_box(fs, pid);
        made = true;
        if (box != NULL) {
            box->next = *bucket;
            *bucket = box;
        }
    }
    if (box != NULL && made)
        box->users_count++;
    else if (box != NULL)
        use(boxes, box);
    (void)pthread_mutex_unlock(&boxes->mutex);
    return box;
}

struct box *box_get(struct gprocfs *fs, pid_t pid)
{
    return get(fs, pid, true);
}

struct box *box_find(struct gprocfs *fs, pid_t pid)
{
    return get(fs, pid, false);
}

struct box *box_again(struct box *box)
{
    struct boxes *boxes = &box->fs->boxes;

    (void)pthread_mutex_lock(&boxes->mutex);
    box->users_count++;
    (void)pthread_mutex_unlock(&boxes->mutex);
    return box;
}

/*
 * Whether nothing is lost with the box. Call with boxes.mutex held; without a user nobody is at
 * work, so its things may be looked at.
 */
static bool is_worthless(const struct boxes *boxes, const struct box *box)
{
    return box->users_count == 0 && box->files == NULL && !box_expects_lookup(box) &&
           gproc_inflight_is_empty(&box->inflight) &&
           (box->measure == NULL || boxes->unused_count >= UNUSED_MOST_COUNT);
}

/* Call with boxes.mutex held. */
static void take_out(struct boxes *boxes, const struct box *box)
{
    struct box **link = bucket_of(boxes, box->pid);

    while (*link != box)
        link = &(*link)->next;
    *link = box->next;
}

void box_put(struct box *box)
{
    struct boxes *boxes = &box->fs->boxes;
    struct keeper *keeper = &box->fs->keeper;
    bool worthless, rests = false;

    (void)pthread_mutex_lock(&boxes->mutex);
    box->users_count--;
    worthless = is_worthless(boxes, box);
    if (worthless) {
        take_out(boxes, box);
    } else if (box->users_count == 0) {
        boxes->unused_count++;
        rests = box->files != NULL || box->told != NULL;
        if (rests)
            rest(boxes, box);
    }
    (void)pthread_mutex_unlock(&boxes->mutex);
    if (worthless)
        free_box(box);
    if (rests)
        keeper_rest(keeper);
}

/* Forgets who was told to look the name up again, if it is too late for him. Nobody uses the box. */
static bool expects_nobody(struct box *box)
{
    if (box_expects_lookup(box))
        return false;
    free(box->told);
    box->told = NULL;
    return true;
}

struct box *boxes_pop_rested(struct boxes *boxes, bool *more)
{
    int64_t now_ms = keeper_now_ms();
    struct box *box;

    (void)pthread_mutex_lock(&boxes->mutex);
    while ((box = boxes->resting) != NULL && now_ms - box->rests_since_ms >= REST_MS &&
           !expects_nobody(box) && box->files == NULL) {
        rest_no_longer(boxes, box);
        rest(boxes, box); /* once more, behind the others */
    }
    *more = box != NULL;
    if (box != NULL && now_ms - box->rests_since_ms < REST_MS)
        box = NULL;
    if (box != NULL)
        use(boxes, box);
    (void)pthread_mutex_unlock(&boxes->mutex);
    return box;
}
