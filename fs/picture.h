/*
 * picture - what an open file of `.peek` or `.list` shows: a file that only grows, at its end, by
 * what has come since.
 *
 * What it has shown it must be able to show again, to whoever seeks or maps, when the messages have
 * long been received; and a file that is said to be so long must not turn out to be shorter. So all
 * that waits is copied when the file is looked at first (by fstat or read), as it is to be shown;
 * and when somebody stands at its end, what came since. It is copied in slices, with others' turns
 * in between: a large mailbox that somebody looks at stays usable.
 *
 * Open files with the same node id (see tree.h) share one. Without the mailbox's lock: if the end
 * of the mailbox is in doubt (see trail.h) and nobody holds the lock, it is taken for a moment;
 * else that part is shown another time. Nobody waits.
 */
#ifndef GPROCFS_PICTURE_H
#define GPROCFS_PICTURE_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "handle.h"
#include "job.h"
#include "tree.h"

struct box;
struct picture;

/* The picture of this node, a new one or that of another open file; NULL: no memory. */
struct picture *picture_share(struct box *box, struct tree_node node);

/* One open file less has it. */
void picture_leave(struct picture *picture);

/* Answers with bytes of the handle's picture, which is looked for more where they are not enough.
 */
void picture_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset);

/*
 * By whoever is at work on the box: what stat says of the picture of the job's node, after another
 * look, but for its numbers. -ENOENT: nobody has one open; -EAGAIN: return JOB_AGAIN; or what
 * looking says.
 */
int picture_measure(struct job *job, struct stat *attributes);

/* By whoever is at work: what the mailbox held is in this segment now; it has been emptied. */
void pictures_moved(struct box *box, uint64_t serial);
void pictures_emptied(struct box *box);

#endif
