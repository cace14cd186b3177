/*
 * source - where the bytes of a mailbox are.
 *
 * Borrows; never allocates, never writes. Any thread.
 */
#ifndef GPROC_SOURCE_H
#define GPROC_SOURCE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Where the bytes are: in memory (`data`), or in a file (`data` is NULL: `fd`, from `start` on).
 * Borrowed: neither the memory nor the descriptor is freed or closed by the scan, and both must
 * outlive it. Where the descriptor's own offset stands afterwards is not said: holes are asked for.
 */
struct gproc_source {
    const uint8_t *data;
    int fd;
    off_t start;      /* of the mailbox's first byte in the file; 0 for memory */
    off_t size_bytes; /* how many bytes are the mailbox */
    const atomic_bool
        *stop; /* true, from any thread: nothing more is read of a file. NULL: nobody says so */
};

/*
 * Reads exactly `size_bytes` bytes at `offset` of the source. 0, or -EIO where it is shorter;
 * -ENODATA where the file is, of which the source said more; -ECANCELED: `stop`; what pread says. EINTR is handled
 * here.
 */
int gproc_source_read(const struct gproc_source *source, void *buffer, size_t size_bytes,
                      off_t offset);

#endif
