/*
 * serve - the threads that read requests from the kernel and answer them.
 *
 * One at the start; another where that one is at work for longer than a moment, so that one slow file
 * system below does not keep the others from being served, or where there is too much for one. They
 * are not ended again before the mount is.
 */
#ifndef GPROCFS_SERVE_H
#define GPROCFS_SERVE_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stdatomic.h>

/*
 * Serves until a signal of those blocked below arrives, or the mount is gone. 0; or a negative
 * errno where it could not begin. `*ending` becomes true as soon as it is to end, for those at work
 * to see. When it returns no request is in hand any more. Call with
 * serve_block_signals() done before any thread was started.
 */
int serve(struct fuse_session *session, atomic_bool *ending);

/* SIGINT, SIGTERM and SIGHUP come to serve() only; SIGPIPE and SIGXFSZ to nobody. 0 or a negative
 * errno. */
int serve_block_signals(void);

#endif
