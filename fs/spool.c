#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MEMORY_LEAST_BYTES = 512,
};

void spool_init(struct spool *spool)
{
    *spool = (struct spool){.fd = -1};
}

void spool_release(struct spool *spool)
{
    free(spool->memory);
    if (spool->fd >= 0)
        (void)close(spool->fd); /* it has no name: nothing is lost by an error now */
    spool_init(spool);
}

static int write_all(int fd, const uint8_t *data, size_t size_bytes, off_t offset)
{
    while (size_bytes > 0) {
        ssize_t written = pwrite(fd, data, size_bytes, offset);

        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            data += written;
            size_bytes -= (size_t)written;
            offset += written;
        }
    }
    return 0;
}

/* A file that has no name, in this directory: its descriptor, or a negative errno. */
static int open_unnamed(int directory_fd, const char *path)
{
    int fd = openat(directory_fd, path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char name[PATH_MAX];

    if (fd >= 0)
        return fd;
    /* Not every file system can do that; then one with a name that is taken away at once. */
    if ((errno != EOPNOTSUPP && errno != EISDIR) || directory_fd != AT_FDCWD)
        return -errno;
    if ((size_t)snprintf(name, sizeof(name), "%s/gprocfs.XXXXXX", path) >= sizeof(name))
        return -ENAMETOOLONG;
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    (void)unlink(name); /* it was made just now, by us */
    return fd;
}

const char *spool_temporary(void)
{
    const char *directory = getenv("TMPDIR");

    return directory != NULL && directory[0] != '\0' ? directory : P_tmpdir;
}

/* Moves what is in memory into a new file. */
static int move_to(struct spool *spool, int fd)
{
    int result = fd < 0 ? fd : write_all(fd, spool->memory, (size_t)spool->size_bytes, 0);

    if (result < 0) {
        if (fd >= 0)
            (void)close(fd); /* as in spool_release() */
        return result;
    }
    free(spool->memory);
    spool->memory = NULL;
    spool->room_bytes = 0;
    spool->fd = fd;
    return 0;
}

static int make_file(struct spool *spool, int directory_fd)
{
    int result = -ENOENT;

    if (directory_fd >= 0)
        result = move_to(spool, open_unnamed(directory_fd, "."));
    return result < 0 ? move_to(spool, open_unnamed(AT_FDCWD, spool_temporary())) : 0;
}

static int make_room(struct spool *spool, size_t need_bytes)
{
    size_t room = spool->room_bytes < MEMORY_LEAST_BYTES ? MEMORY_LEAST_BYTES : spool->room_bytes;
    uint8_t *memory;

    if (need_bytes <= spool->room_bytes)
        return 0;
    while (room < need_bytes)
        room *= 2;
    memory = realloc(spool->memory, room);
    if (memory == NULL)
        return -ENOMEM;
    spool->memory = memory;
    spool->room_bytes = room;
    return 0;
}

int spool_append(struct spool *spool, int directory_fd, const void *data, size_t size_bytes)
{
    int result = 0;

    if (size_bytes == 0)
        return 0;
    if (spool->fd < 0 && size_bytes <= SPOOL_MEMORY_BYTES - (size_t)spool->size_bytes) {
        result = make_room(spool, (size_t)spool->size_bytes + size_bytes);
        if (result == 0)
            memcpy(spool->memory + spool->size_bytes, data, size_bytes);
    } else {
        if (spool->fd < 0)
            result = make_file(spool, directory_fd);
        if (result == 0)
            result = write_all(spool->fd, data, size_bytes, spool->size_bytes);
    }
    if (result == 0)
        spool->size_bytes += (off_t)size_bytes;
    return result;
}

void spool_cut(struct spool *spool, off_t size_bytes)
{
    /* What stands in the file behind its end is written over, or never looked at. */
    spool->size_bytes = size_bytes;
}

ssize_t spool_read(const struct spool *spool, void *buffer, size_t size_bytes, off_t offset)
{
    size_t done = 0;

    if (offset < 0 || offset >= spool->size_bytes)
        return 0;
    if (size_bytes > (size_t)(spool->size_bytes - offset))
        size_bytes = (size_t)(spool->size_bytes - offset);
    if (spool->fd < 0) {
        memcpy(buffer, spool->memory + offset, size_bytes);
        return (ssize_t)size_bytes;
    }
    while (done < size_bytes) {
        ssize_t got =
            pread(spool->fd, (uint8_t *)buffer + done, size_bytes - done, offset + (off_t)done);

        if (got == 0 || (got < 0 && errno != EINTR))
            return got == 0 ? -EIO : -errno;
        if (got > 0)
            done += (size_t)got;
    }
    return (ssize_t)done;
}
