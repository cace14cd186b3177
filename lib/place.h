/*
 * place - a directory under /tmp: one that anybody may delete, replace or plant things in at any
 * moment.
 *
 * Files in it are opened through its descriptor, never by a path that others can bend. That leaves
 * one hole: a directory that was deleted or moved away still takes files that nobody else will
 * find. So who is about to rely on a file asks gproc_place_names() whether the path still leads to
 * it, and where it does not, gproc_place_renew() and tries again.
 *
 * The descriptor's number is the same for the life of the place: renewing puts another directory
 * under it (dup3), so that threads may use it without a lock. All functions but init and release
 * may be called from any thread. None blocks but for the file system.
 */
#ifndef GPROC_PLACE_H
#define GPROC_PLACE_H

#include <stdbool.h>
#include <sys/stat.h>

/* Which file it is, and who may open it: what open(2) judges by. */
struct gproc_identity {
    dev_t device;
    ino_t inode;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct gproc_place {
    char *path;  /* owned; without a slash at the end */
    mode_t mode; /* what the directory is created with, less the process's umask */
    int fd;      /* owned; of the directory */
};

/*
 * Opens the directory, creating it (not its parents) where it is missing. The last component of the
 * path may not be a symbolic link. 0, or -ENOMEM, -ENOTDIR, -ELOOP and whatever open and mkdir say,
 * or -EBUSY: it is deleted as fast as it is made; then the place holds nothing and may be released
 * or not.
 */
int gproc_place_init(struct gproc_place *place, const char *path, mode_t mode);

void gproc_place_release(struct gproc_place *place);

/* Looks the path up anew, creating the directory where it is missing. 0, or as init; then all is as
 * it was. */
int gproc_place_renew(struct gproc_place *place);

/* What stat says of `name` under the place's *path*. 0; -ENOENT, also where the directory is gone; or
 * another negative errno. */
int gproc_place_stat(const struct gproc_place *place, const char *name, struct stat *status);

/*
 * Whether `name` under the place's *path* is the file that `status` describes.
 * 1 yes, 0 no (replaced, gone, or the directory is another one), or a negative errno.
 */
int gproc_place_names(const struct gproc_place *place, const char *name, const struct stat *status);

struct gproc_identity gproc_identity_of(const struct stat *status);

/* Whether `status` is of that file, and whoever might open it then may now. */
bool gproc_identity_is(const struct gproc_identity *identity, const struct stat *status);

#endif
