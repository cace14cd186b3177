/*
 * window - a stretch of a source that has been read into memory, and stays there until the next.
 *
 * Not for several threads at once.
 */
#ifndef GPROC_WINDOW_H
#define GPROC_WINDOW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "source.h"

/* All zero but for the capacity: nothing has been read yet. */
struct gproc_window {
    uint8_t *bytes;        /* owned; NULL until needed */
    off_t offset;          /* of the first of them in the mailbox */
    size_t size_bytes;     /* how many are valid */
    size_t capacity_bytes; /* how many there is room for, or will be */
};

/* How many of the bytes from `offset` on are in it. */
size_t gproc_window_holds(const struct gproc_window *window, off_t offset);

/*
 * Reads up to `wanted_bytes` bytes at `offset`, as many as it has room for. Allocates the first
 * time, its capacity or `left_bytes`, whichever is less: no later stretch needs more than that.
 * 0, -ENOMEM, or what gproc_source_read() says; the window is empty then.
 */
int gproc_window_load(struct gproc_window *window, const struct gproc_source *source, off_t offset,
                      off_t wanted_bytes, off_t left_bytes);

/* Frees what it holds. Twice is harmless. */
void gproc_window_release(struct gproc_window *window);

#endif
