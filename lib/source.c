#include "source.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int gproc_source_read(const struct gproc_source *source, void *buffer, size_t size_bytes,
                      off_t offset)
{
    uint8_t *bytes = buffer;

    if (offset < 0 || offset > source->size_bytes ||
        size_bytes > (uintmax_t)(source->size_bytes - offset)) {
        return -EIO;
    }
    if (source->data != NULL && size_bytes > 0) {
        memcpy(bytes, source->data + offset, size_bytes);
        return 0;
    }
    while (size_bytes > 0) {
        if (source->stop != NULL && atomic_load(source->stop)) {
            return -ECANCELED;
        }
        const ssize_t count = pread(source->fd, bytes, size_bytes, source->start + offset);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? -errno : -ENODATA;
        }
        bytes += count;
        offset += count;
        size_bytes -= (size_t)count;
    }
    return 0;
}
