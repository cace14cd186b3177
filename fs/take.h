/*
 * take - what reading from a mailbox does.
 *
 * A read takes one message, or the next part of one that did not fit. It is gone once its last byte
 * has been handed over; until then it is the handle's, and goes back to the front when that is
 * closed.
 *
 * Reading on is the only reading there is: at another offset than where the last read ended there
 * is nothing, so that tools that look around in a file take nothing by it.
 */
#ifndef GPROCFS_TAKE_H
#define GPROCFS_TAKE_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <sys/types.h>

#include "handle.h"

/* Answers with the next message or part, or with nothing at the end. */
void take_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset);

/* Gives back what the handle has in hand, frees the handle and answers. */
void take_release(struct handle *handle, fuse_req_t req);

/*
 * Puts what is in flight back into the mailbox, in front of newer messages. For the end of the
 * mount, when nobody else is at work. What cannot go back now stays in the store for the next
 * mount.
 */
void take_return(struct box *box);

#endif
