/*
 * mailbox - the file below: open it safely, append a frame, empty it, know what it holds.
 *
 * A mailbox is a regular file with exactly one link, named by a process id in the mailbox
 * directory. Anything else under such a name is no mailbox (-ENOENT), and is neither waited for nor
 * touched.
 *
 * Opening a mailbox costs more than an append. Who comes back to the same one again and again keeps
 * it open in between and *re*opens it: that is one look at whether the path still leads to it, and
 * nothing about it has changed.
 *
 * Appending and clearing are done with the mailbox's lock held by the caller (see lock.h); nothing
 * here takes it. Thread-safe on distinct mailboxes.
 */
#ifndef GPROC_MAILBOX_H
#define GPROC_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "lock.h"
#include "place.h"
#include "scan.h"

enum {
    GPROC_MAILBOX_MODE = 0666,
};

struct gproc_mailbox {
    int fd; /* owned; -1: it is not open */
    int access;
    pid_t pid;
    struct stat status; /* as it was when the mailbox was opened, or last refreshed */
};

/* Of `pid`, not open. */
void gproc_mailbox_init(struct gproc_mailbox *mailbox, pid_t pid);

/*
 * Opens mailbox `pid` with `access` (O_RDONLY, O_WRONLY, O_RDWR), looks whether the directory's
 * path leads to it, and fills in `status`. -ENOENT: there is none (or something that is no
 * mailbox). Other errors: as open(2).
 */
int gproc_mailbox_open(struct gproc_mailbox *mailbox, struct gproc_place *directory, pid_t pid,
                       int access);

/*
 * The same, but creates the mailbox with `mode` less the process's umask, and its directory, where
 * they are missing. 1 where the mailbox was created, 0 where it was there. -EEXIST: something that
 * is no mailbox has its name.
 */
int gproc_mailbox_create(struct gproc_mailbox *mailbox, struct gproc_place *directory, pid_t pid,
                         int access, mode_t mode, struct gproc_creator creator);

/*
 * The same two for a mailbox that may be open already. It is left open, and the next of these wants
 * less work. It is opened for reading and writing if that may be, else for `access`. After an error
 * it is not open.
 */
int gproc_mailbox_reopen(struct gproc_mailbox *mailbox, struct gproc_place *directory, int access);
int gproc_mailbox_recreate(struct gproc_mailbox *mailbox, struct gproc_place *directory, int access,
                           mode_t mode, struct gproc_creator creator);

/* Whether it is open for `access`, and is the mailbox that `status`, fresh, is of. */
bool gproc_mailbox_is_open(const struct gproc_mailbox *mailbox, const struct stat *status,
                           int access);

/* One that is not open is left alone. */
void gproc_mailbox_close(struct gproc_mailbox *mailbox);

/* What stat(2) says of a mailbox, without opening it. -ENOENT as above. */
int gproc_mailbox_stat(struct gproc_place *directory, pid_t pid, struct stat *status);

/* The same by the directory's path, wherever that leads by now; -ENOENT also where there is none. */
int gproc_mailbox_find(const struct gproc_place *directory, pid_t pid, struct stat *status);

/* Looks at the open file again. 0, or what fstat says. */
int gproc_mailbox_refresh(struct gproc_mailbox *mailbox);

/*
 * Appends one frame. Lock held; mailbox open for writing. 0, or -EMSGSIZE, -ENOSPC, -EDQUOT,
 * -EFBIG, -EIO ...: then the mailbox is byte for byte what it was, unless cutting off the torn
 * frame failed as well, which is -EUCLEAN. A process that has not ignored SIGXFSZ is killed by its
 * RLIMIT_FSIZE as with any write.
 */
int gproc_mailbox_append(struct gproc_mailbox *mailbox, int32_t sender, const void *payload,
                         size_t payload_bytes);

/* Empties it. Lock held; open for writing. 0, or what ftruncate says. */
int gproc_mailbox_clear(struct gproc_mailbox *mailbox);

/* The mailbox's bytes as a scan wants them, `status` being fresh. Borrows the descriptor. */
struct gproc_source gproc_mailbox_source(const struct gproc_mailbox *mailbox);

/* Deletes it, where the directory's path leads to it. Lock held. 0, -ENOENT, or what unlink says.
 */
int gproc_mailbox_remove(struct gproc_place *directory, pid_t pid);

#endif
