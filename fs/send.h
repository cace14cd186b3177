/*
 * send - what writing to a mailbox does.
 *
 * A handle opened with O_TRUNC collects: what is written becomes one message when a descriptor of
 * it is closed or synced. Any other handle sends each write as a message, at once.
 *
 * A message that failed in part is not sent at all: after an error of a write the rest of it is
 * refused too, until the descriptor is flushed or truncated to nothing.
 *
 * All of these answer the request, some later.
 */
#ifndef GPROCFS_SEND_H
#define GPROCFS_SEND_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "handle.h"

/* `data` is borrowed for the call. */
void send_write(struct handle *handle, fuse_req_t req, const void *data, size_t size_bytes,
                off_t offset, bool appends);

/* Sends what has been collected, if anything. From a task that was killed: throws it away. `syncs`:
 * for fsync, during which the kernel holds the inode. */
void send_flush(struct handle *handle, fuse_req_t req, bool syncs);

/* The collected message is `size_bytes` long from now on. 0, or -EFBIG, -ENOSPC, -ENOMEM. Answers
 * nothing. */
int send_resize(struct handle *handle, fuse_req_t req, off_t size_bytes);

/* Whether exactly so much has been sent by a handle that does not collect. */
bool send_has_sent(struct handle *handle, off_t size_bytes);

/* Throws away what has been collected. */
void send_forget(struct handle *handle);

#endif
