/*
 * operations - the table of what the kernel may ask: decode, call, and nothing else.
 *
 * The session's user data is the struct gprocfs.
 */
#ifndef GPROCFS_OPERATIONS_H
#define GPROCFS_OPERATIONS_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

extern const struct fuse_lowlevel_ops operations;

#endif
