/*
 * listing - an open directory of the mount, and what readdir says of it.
 */
#ifndef GPROCFS_LISTING_H
#define GPROCFS_LISTING_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <sys/types.h>

#include "gprocfs.h"
#include "tree.h"

struct listing;

/* 0 and `*listing`, which listing_close() ends; or a negative errno. */
int listing_open(struct gprocfs *fs, struct tree_node node, struct listing **listing);

void listing_close(struct listing *listing);

/* Answers with entries from `offset` on, as many as fit `size_bytes`. */
void listing_read(struct listing *listing, fuse_req_t req, size_t size_bytes, off_t offset);

#endif
