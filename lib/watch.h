/*
 * watch - tells when mailboxes change, by inotify(7): one descriptor to poll for any number of
 * them.
 *
 * A mailbox is watched as a name: it may not exist yet, be emptied, deleted, replaced; its
 * directory may be deleted and is then made again, or replaced by somebody else. What is reported
 * is "look again", at times once too often, never once too seldom:
 *
 *   what changes                              is seen through a watch on
 *   the mailbox's content, mode, link count   its file, while there is one
 *   it comes, goes or is replaced             the directory
 *   the directory is moved away               the directory
 *   the directory is deleted                  the mailbox's file, which goes first; where one that
 * is watched has no file, the directory's parent
 *
 * The last row: a deleted directory itself is silent as long as somebody has it open, as its place
 * does; and watching the parent all the time would wake us for everybody's comings and goings in
 * /tmp.
 *
 * Not seen: the parent, or one above it, that is moved away; a removal of the directory while a
 * mailbox has no file, where the parent may not be read; writes through mmap, and by other machines
 * of a network file system.
 *
 * Cost: a kernel watch for each existing mailbox and one or two more, none while no mailbox is
 * watched; 12 bytes for each mailbox; each event looks through all of them (3 us for ten thousand).
 *
 * Nothing here blocks but for the file system. A watch is used by one thread at a time.
 */
#ifndef GPROC_WATCH_H
#define GPROC_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "place.h"

struct gproc_watch_entry {
    pid_t pid;
    int id;       /* inotify's, of the file; -1: there is none */
    bool stale;   /* its name may have another file by now */
    bool changed; /* to be reported */
};

/* Private, but for `fd`: poll it for reading; and to look at, what is watched. */
struct gproc_watch {
    int fd;                            /* owned */
    int directory_id;                  /* inotify's; -1: not watched */
    int parent_id;                     /* likewise */
    bool stale;                        /* the path may lead to another directory by now */
    struct gproc_place *directory;     /* not owned */
    struct gproc_watch_entry *entries; /* owned */
    size_t entries_count;
    size_t capacity_count;
};

/*
 * Watches nothing yet. `directory` must outlive the watch, which renews it as needed. 0, or
 * -EMFILE, -ENFILE, -ENOMEM: then it may be released or not.
 */
int gproc_watch_init(struct gproc_watch *watch, struct gproc_place *directory);

void gproc_watch_release(struct gproc_watch *watch);

/*
 * Watches mailbox `pid` (positive) from now on: look at it after this, not before. Twice is once.
 * 0, or -ENOMEM; -ENOSPC: too many kernel watches; -EACCES: the mailbox may not be read; -ENOENT:
 * the directory is gone and its parent too; -EAGAIN: it is replaced faster than we can follow. Then
 * it is not watched.
 */
int gproc_watch_add(struct gproc_watch *watch, pid_t pid);

/* Watches it no longer, and does not report it any more. One that is not watched is left alone. */
void gproc_watch_remove(struct gproc_watch *watch, pid_t pid);

/*
 * Takes what has happened from the descriptor, follows names to new files, and then calls
 * `changed`, once for each mailbox that may have changed; it may add and remove. NULL: nobody is
 * told. How many those were, or, after they were told, an error of following as of
 * gproc_watch_add(): what could not be followed may change unseen until the next call, which tries
 * again (-EACCES: only when that name changes).
 */
int gproc_watch_read(struct gproc_watch *watch, void (*changed)(void *context, pid_t pid),
                     void *context);

#endif
