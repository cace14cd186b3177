/*
 * take - what reading from a mailbox does.
 *
 * A read takes one message, or the next part of one that did not fit. It is gone once its last byte
 * has been handed over; until then it is the handle's, and goes back to the front when that is
 * closed.
 *
 * Where reads wait (`.follow`, `.envelope`) it is read as a pipe is: there is no position.
 * Elsewhere reading on is the only reading there is: at another offset than where the last read ended there
 * is nothing, so that tools that look around in a file take nothing by it.
 */
#ifndef GPROCFS_TAKE_H
#define GPROCFS_TAKE_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <sys/types.h>

#include "handle.h"

/*
 * Answers with the next message or part, where envelopes are shown with as many as fit. At the end
 * with nothing; or where reads wait, when there is a message, with -EAGAIN if `open_flags` (as they
 * are now) say O_NONBLOCK.
 */
void take_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset,
               int open_flags);

/* Answers what can be done without waiting. `poller`, if any, is told of mail from now on, once;
 * owned. */
void take_poll(struct handle *handle, fuse_req_t req, struct poller *poller);

/* Gives back what the handle has in hand, frees the handle and answers; `req` NULL: nobody waits
 * for it. */
void take_release(struct handle *handle, fuse_req_t req);

/*
 * Puts what is in flight back into the mailbox, in front of newer messages. For the end of the
 * mount, when nobody else is at work. What cannot go back now stays in the store for the next
 * mount.
 */
void take_return(struct box *box);

#endif
