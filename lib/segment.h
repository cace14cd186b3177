/*
 * segment - a file that holds messages taken from a mailbox and not delivered yet, through any
 * crash.
 *
 *   offset  bytes  field
 *   0       8      magic "gprocfs1"
 *   8       4      state: 1 MOVING, 2 READY, 3 RETURNING
 *   12      4      zero
 *   16      8      inode of the mailbox when it was moved
 *   24      8      bytes of data
 *   32      8      mailbox's mtime, seconds
 *   40      8      mailbox's mtime, nanoseconds
 *   48      8      cursor: all data before it has been delivered
 *   56      8      the mailbox's owner + 1; 0: not known
 *   64      4032   252 holes of 16 bytes: start, end: delivered out of order; end 0: unused.
 *                  While RETURNING: serial, 0: a segment whose data this one holds too, which
 *                  is void
 *   4096    ...    data: frames, as they stood in the mailbox
 *
 * All little-endian. The header is written after the data, so a file without the magic is a copy
 * that never became one: the mailbox still has it all.
 *
 * A move cannot be one step on two files, so it is three: the copy (MOVING), emptying the mailbox,
 * READY. Killed in between, gproc_segment_resolve() tells by the mailbox itself whether it had been
 * emptied. The way back is the same in reverse (RETURNING).
 *
 * The mailbox does not tell who emptied it. If we were killed right between two of those steps, and
 * then, before the next mount, somebody else drained it, what he got is delivered again; and if
 * somebody sent it all over again, byte for byte, and then more, that is taken for the old.
 *
 * Killing is what this survives, not a power failure: nothing is synced, as nothing is in a
 * mailbox. Nothing in such a file is trusted: what contradicts itself is delivered again rather
 * than lost. A segment is used by one thread at a time. Nothing here waits but for the file system.
 */
#ifndef GPROC_SEGMENT_H
#define GPROC_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mailbox.h"
#include "scan.h"

enum {
    GPROC_SEGMENT_HOLES_COUNT = 252,
    GPROC_SEGMENT_DATA_OFFSET = 4096,
};

enum gproc_segment_state {
    GPROC_SEGMENT_MOVING = 1,
    GPROC_SEGMENT_READY = 2,
    GPROC_SEGMENT_RETURNING = 3,
};

struct gproc_hole {
    off_t start; /* of an unused one: 0, or a serial; see above */
    off_t end;   /* 0: unused */
};

struct gproc_segment {
    int fd; /* owned */
    enum gproc_segment_state state;
    ino_t inode;
    uint64_t owner; /* the mailbox's, + 1; 0: not known */
    struct timespec modified;
    const atomic_bool *stop; /* ends whatever reads the data; or NULL */
    off_t size_bytes;        /* of the data */
    off_t cursor;
    size_t holes_count;       /* slots in use are below this */
    struct gproc_hole *holes; /* owned, GPROC_SEGMENT_HOLES_COUNT; NULL until one is needed */
    /* What gproc_segment_copy() counted, if it could: a mailbox with damage or holes it could not.
     */
    bool is_counted;
    uint64_t messages_count;
    int64_t payload_bytes;
};

/*
 * Copies all that `mailbox` (fresh status) holds into the new file `fd`, which is the segment's
 * from now on, also after an error. The segment is MOVING then, and what is before `cursor` counts
 * as delivered. Lock held. 0, or -ENOSPC and the like, or -ECANCELED, because `stop` (NULL: nobody
 * stops it) became true: the mailbox is untouched.
 */
int gproc_segment_copy(struct gproc_segment *segment, int fd, const struct gproc_mailbox *mailbox,
                       off_t cursor, const atomic_bool *stop);

/* The mailbox has been emptied: READY. 0, or what pwrite says (it is MOVING still, and resolvable).
 */
int gproc_segment_ready(struct gproc_segment *segment);

/*
 * Reads a segment that somebody left. `fd` is the segment's, also after an error. 0, or -EILSEQ: it
 * never became one and may be deleted; -ENOMEM; what pread says.
 */
int gproc_segment_load(struct gproc_segment *segment, int fd);

/*
 * Decides what became of a move or a return that was cut off. Lock held; `mailbox` is the mailbox
 * as it is now, open for reading and writing, status fresh, or NULL where there is none. 1: the
 * segment is READY, its messages are nowhere else. 0: the mailbox has them; delete the segment.
 * Negative: could not be looked at; try later.
 */
int gproc_segment_resolve(struct gproc_segment *segment, struct gproc_mailbox *mailbox);

/*
 * Of a segment that is RETURNING, where its return was cut off and others have appended to the
 * mailbox since (lock held, status fresh): where in the mailbox the last message ends that had been
 * returned. 0: there is no such thing. Else the mailbox must be taken from there on before the
 * segment can be resolved. Or a negative errno.
 */
off_t gproc_segment_returned(const struct gproc_segment *segment,
                             const struct gproc_mailbox *mailbox);

/* The data, for a scan that begins at the cursor. Borrows the descriptor. */
struct gproc_source gproc_segment_source(const struct gproc_segment *segment);

/* Where `position` has been delivered, before the cursor or in a hole: where that ends; else
 * `position`. */
off_t gproc_segment_skip(const struct gproc_segment *segment, off_t position);

/*
 * Remembers, on disk first, that [start, end) has been delivered. 0, or -ENOBUFS: too many holes;
 * deliver what is in front first; -ENOMEM; what pwrite says: then it counts as not delivered.
 */
int gproc_segment_deliver(struct gproc_segment *segment, off_t start, off_t end);

/* Whether nothing is left in it. */
bool gproc_segment_is_spent(const struct gproc_segment *segment);

/*
 * Writes the messages that are left of `segment`, which has this serial, at the end of `copy`'s data. `copy` is
 * under construction: its fd is open and all else zero at first. 0, or -ENOBUFS: it has
 * GPROC_SEGMENT_HOLES_COUNT already; -ENOMEM; -ENOSPC and the like.
 */
int gproc_segment_gather(struct gproc_segment *copy, const struct gproc_segment *segment,
                         uint64_t serial);

/* Makes a gathered copy one that is RETURNING: what it was gathered from is void. 0, or what pwrite
 * says. */
int gproc_segment_seal(struct gproc_segment *copy);

/* Whether the segment is RETURNING and was gathered from the one with this serial. */
bool gproc_segment_supersedes(const struct gproc_segment *segment, uint64_t serial);

/*
 * Appends the data to an empty mailbox. Lock held. 0, or what write says: the mailbox is empty
 * again then, unless emptying it failed as well, which is -EUCLEAN.
 */
int gproc_segment_pour(const struct gproc_segment *segment, struct gproc_mailbox *mailbox);

/* The mailbox that it was moved from has another owner. 0, or what pwrite says: the old one's, then.
 */
int gproc_segment_own(struct gproc_segment *segment, uid_t uid);

/* Closes the file and frees the rest. */
void gproc_segment_release(struct gproc_segment *segment);

#endif
