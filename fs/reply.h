/*
 * reply - the one place where an error turns its sign on the way to the kernel.
 */
#ifndef GPROCFS_REPLY_H
#define GPROCFS_REPLY_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

/*
 * Answers with a negative errno, or 0 for success, and counts it. 0, or what libfuse says: -ENOENT
 * where the caller went away before the answer came, which mostly need not be looked at: whoever
 * has gone does not miss it.
 */
int reply_error(fuse_req_t req, int error);

/* The same, not counted: for a question to which no is a good answer. */
int reply_no(fuse_req_t req, int error);

#endif
