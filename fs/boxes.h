/*
 * boxes - all mailboxes that somebody uses, or has used a moment ago, by their process ids.
 *
 * A box is there while somebody has a reference. It stays without one while it is worth something:
 * it has something in flight, or was measured, or has files open still, or was to be looked up again
 * by somebody who has not come yet. The last two rest, until nobody has come back for REST_MS (see
 * boxes.c), or it is too late for him: the keeper asks for those about once a second while there are
 * any. How many boxes have files open is limited by the descriptors that the process may have.
 */
#ifndef GPROCFS_BOXES_H
#define GPROCFS_BOXES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct box;
struct box_files;
struct gprocfs;

enum {
    BOXES_BUCKETS_COUNT = 4096,
};

struct boxes {
    pthread_mutex_t mutex;
    /* Protected by mutex. */
    struct box *buckets[BOXES_BUCKETS_COUNT];
    size_t unused_count; /* boxes that are kept though nobody uses them */
    struct box *resting; /* those of them that have files open, the longest first */
    struct box **resting_end;

    size_t files_most_count;
    _Atomic size_t files_count; /* boxes that have files open */
};

void boxes_init(struct boxes *boxes);

/* Frees all boxes, and the files that are still open; no thread may be left that uses one. */
void boxes_release(struct boxes *boxes);

/* Calls `each` for every box there is; others may come and go meanwhile. */
void boxes_each(struct boxes *boxes, void (*each)(struct box *box));

/* The box that has rested for long enough, with a reference for the caller, who is to have
 * box_close_files() called, and give it back; NULL: there is none, or none at all that rests (`*more`
 * is false). */
struct box *boxes_pop_rested(struct boxes *boxes, bool *more);

/*
 * For whoever is at work on a box: files to be kept open, none of which is yet. NULL: no memory. To
 * be freed by boxes_free_files(), which closes what is open; NULL is left alone.
 */
struct box_files *boxes_new_files(struct boxes *boxes, pid_t pid);
void boxes_free_files(struct boxes *boxes, struct box_files *files);

/* Whether so many are open that none should be kept open any longer. */
bool boxes_have_too_many_files(const struct boxes *boxes);

/* The box of `pid`, with a reference for the caller; NULL: no memory. */
struct box *box_get(struct gprocfs *fs, pid_t pid);
struct box *box_again(struct box *box); /* another reference */

/* The box of `pid` if there is one, with a reference for the caller; else NULL. */
struct box *box_find(struct gprocfs *fs, pid_t pid);

/* Gives a reference back. */
void box_put(struct box *box);

#endif
