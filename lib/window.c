#include "window.h"

#include <errno.h>
#include <stdlib.h>

/* The lesser of two sizes. */
static size_t lesser(size_t capacity_bytes, off_t size_bytes)
{
    return size_bytes < (off_t)capacity_bytes ? (size_t)size_bytes : capacity_bytes;
}

size_t gproc_window_holds(const struct gproc_window *window, off_t offset)
{
    const off_t behind = offset - window->offset;

    return behind >= 0 && behind < (off_t)window->size_bytes ? window->size_bytes - (size_t)behind
                                                             : 0;
}

int gproc_window_load(struct gproc_window *window, const struct gproc_source *source, off_t offset,
                      off_t wanted_bytes, off_t left_bytes)
{
    if (window->bytes == NULL) {
        const size_t room = lesser(window->capacity_bytes, left_bytes);

        window->bytes = malloc(room);
        if (window->bytes == NULL) {
            return -ENOMEM;
        }
        window->capacity_bytes = room;
    }

    const size_t size_bytes = lesser(window->capacity_bytes, wanted_bytes);
    window->size_bytes = 0;
    const int status = gproc_source_read(source, window->bytes, size_bytes, offset);
    if (status == 0) {
        window->offset = offset;
        window->size_bytes = size_bytes;
    }
    return status;
}

void gproc_window_release(struct gproc_window *window)
{
    free(window->bytes);
    *window = (struct gproc_window){0};
}
