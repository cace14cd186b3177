/*
 * paths - where mailboxes and locks are, and what a mailbox may be called.
 *
 *   mailbox directory   $gproc.tempdir/gproc (the variable's name has a dot),
 *                       else $TMPDIR/gproc, else /tmp/gproc
 *   lock directory      $TMPDIR/gflock, else /tmp/gflock; `gproc.tempdir` does not move it
 *   mailbox             <pid>
 *   lock                <pid>.lock
 *
 * A pid is a decimal number from 1 to 2147483647 without leading zeros. Variables that are set but
 * empty count as unset. Nothing here touches the file system or allocates; getenv() is read at each
 * call.
 */
#ifndef GPROC_PATHS_H
#define GPROC_PATHS_H

#include <stddef.h>
#include <sys/types.h>

enum {
    GPROC_NAME_BYTES = sizeof("2147483647.lock"), /* enough for any name below, with its NUL */
};

/* 0 and `*pid`, or -EINVAL for a name that is no mailbox's. */
int gproc_pid_parse(const char *name, pid_t *pid);

/* Writes the mailbox's or the lock's name. `pid` must be positive. */
void gproc_mailbox_name(pid_t pid, char name[GPROC_NAME_BYTES]);
void gproc_lock_name(pid_t pid, char name[GPROC_NAME_BYTES]);

/* Writes the directory's path. 0, or -ENAMETOOLONG where it does not fit; the buffer is unspecified
 * then. */
int gproc_mailbox_directory(char *path, size_t size_bytes);
int gproc_lock_directory(char *path, size_t size_bytes);

#endif
