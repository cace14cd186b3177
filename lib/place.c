#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    /* How often a directory may go between making and opening it before we call it an attack. */
    DELETED_MOST_COUNT = 100,
};

static int open_directory(const struct gproc_place *place)
{
    int attempt;

    for (attempt = 0; attempt < DELETED_MOST_COUNT; attempt++) {
        int fd = open(place->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0)
            return fd;
        if (errno != ENOENT)
            return -errno;
        if (mkdir(place->path, place->mode) < 0 && errno != EEXIST) /* ENOENT: there is no parent */
            return -errno;
    }
    return -EBUSY;
}

int gproc_place_init(struct gproc_place *place, const char *path, mode_t mode)
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    place->fd = -1;
    place->mode = mode;
    place->path = strndup(path, length);
    if (place->path == NULL)
        return -ENOMEM;
    place->fd = open_directory(place);
    if (place->fd < 0) {
        int error = place->fd;

        gproc_place_release(place);
        return error;
    }
    return 0;
}

void gproc_place_release(struct gproc_place *place)
{
    if (place->fd >= 0)
        (void)close(place->fd); /* a directory open for reading has nothing to lose */
    free(place->path);
    place->fd = -1;
    place->path = NULL;
}

int gproc_place_renew(struct gproc_place *place)
{
    int fd = open_directory(place);
    int error = 0;

    if (fd < 0)
        return fd;
    /* EBUSY is a race with an open() in another thread over the number, EINTR a signal: both pass.
     */
    while (dup3(fd, place->fd, O_CLOEXEC) < 0) {
        if (errno == EBUSY || errno == EINTR)
            continue;
        error = -errno;
        break;
    }
    (void)close(fd);
    return error;
}

int gproc_place_stat(const struct gproc_place *place, const char *name, struct stat *status)
{
    char path[PATH_MAX];
    size_t directory_bytes = strlen(place->path);
    size_t name_bytes = strlen(name);

    if (directory_bytes + 1 + name_bytes >= sizeof(path))
        return -ENAMETOOLONG;
    memcpy(path, place->path, directory_bytes);
    path[directory_bytes] = '/';
    memcpy(path + directory_bytes + 1, name, name_bytes + 1);
    if (lstat(path, status) == 0)
        return 0;
    return errno == ENOTDIR ? -ENOENT : -errno;
}

int gproc_place_names(const struct gproc_place *place, const char *name, const struct stat *status)
{
    struct stat there;
    int result = gproc_place_stat(place, name, &there);

    if (result < 0)
        return result == -ENOENT ? 0 : result;
    return there.st_dev == status->st_dev && there.st_ino == status->st_ino;
}

struct gproc_identity gproc_identity_of(const struct stat *status)
{
    struct gproc_identity identity = {
        .device = status->st_dev,
        .inode = status->st_ino,
        .mode = status->st_mode,
        .uid = status->st_uid,
        .gid = status->st_gid,
    };

    return identity;
}

bool gproc_identity_is(const struct gproc_identity *identity, const struct stat *status)
{
    return identity->inode == status->st_ino && identity->device == status->st_dev &&
           identity->mode == status->st_mode && identity->uid == status->st_uid &&
           identity->gid == status->st_gid;
}
