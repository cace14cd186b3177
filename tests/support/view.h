/*
 * view - what a test sees through the views of the mount that look: `.peek`, `.list`, `.stats`.
 *
 * All of these fail the test (cmocka) if anything fails; they are for a test's own thread and
 * process.
 */
#ifndef TEST_VIEW_H
#define TEST_VIEW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount.h"

/* A mailbox in a view such as ".peek"; good as mount_path() is. */
const char *view_path(struct mount *mount, const char *view, int pid);

/* Opens that to read. */
int view_open(struct mount *mount, const char *view, int pid);

/* Reads on to the end: what it says, followed by a zero, freed with the mount. `size_bytes` may be
 * NULL. */
char *view_read_on(struct mount *mount, int fd, size_t *size_bytes);

/* Reading on must give exactly this text, then the end. */
void view_expect_more(struct mount *mount, int fd, const char *text);

/* Every way to read the first `size_bytes` must give these: reading on from the start, pread in
 * pieces of several sizes and at every offset of a text of some kilobytes, and mappings where the
 * kernel makes them. The file's offset is where it was, afterwards. */
void view_expect_stays(int fd, const void *bytes, size_t size_bytes);

/* A fresh open file must show exactly these bytes; or this text. */
void view_expect_bytes(struct mount *mount, const char *view, int pid, const void *bytes,
                       size_t size_bytes);
void view_expect_text(struct mount *mount, const char *view, int pid, const char *text);

/* What fstat(2) of the open file says is its size. */
off_t view_size(int fd);

/* The value of a sample of `.stats` as it is now, such as "gprocfs_open_files"; 0 where there is
 * none. */
int64_t view_sample(struct mount *mount, const char *sample);

/* Waits until the sample has this value; fails the test after some seconds. */
void view_await_sample(struct mount *mount, const char *sample, int64_t value);

/* The most memory that the daemon has had resident, in KiB. */
size_t view_daemon_peak_kib(const struct mount *mount);

#endif
