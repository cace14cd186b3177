/*
 * spool - bytes that are written once, at the end, and read anywhere: in memory while they are few,
 * else in a file that has no name.
 *
 * The file is in the store, or where that cannot be (a mount that only looks, a full file system)
 * in $TMPDIR or /tmp. A spool is used by one thread at a time. Blocks for the file system only.
 */
#ifndef GPROCFS_SPOOL_H
#define GPROCFS_SPOOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SPOOL_MEMORY_BYTES = 64 * 1024, /* beyond this it is in a file */
};

struct spool {
    uint8_t *memory; /* owned; NULL: nothing is in it yet, or it is in the file */
    size_t room_bytes;
    int fd; /* owned; -1: there is no file */
    off_t size_bytes;
};

void spool_init(struct spool *spool);
void spool_release(struct spool *spool);

/*
 * Appends. `directory_fd` is of the directory where a file may be made; -1: there is none. 0, or
 * -ENOMEM, -ENOSPC, and what open and pwrite say: then nothing has been appended.
 */
int spool_append(struct spool *spool, int directory_fd, const void *data, size_t size_bytes);

/* Where a file is made that is not made in a directory that was named. Static, or the environment's.
 */
const char *spool_temporary(void);

/* Takes back what was appended since it had this size. */
void spool_cut(struct spool *spool, off_t size_bytes);

/* Reads up to `size_bytes` bytes at `offset`: how many, or a negative errno. */
ssize_t spool_read(const struct spool *spool, void *buffer, size_t size_bytes, off_t offset);

#endif
