/*
 * batch - the messages of a mailbox, copied to memory all at once and handed out one by one.
 *
 * Only whole and good frames are copied, as they stood in the file: a damaged or sparse mailbox of
 * any size costs no more than its messages. What has been copied is not trusted (somebody may have
 * written without the lock) but found again by the same rule.
 *
 * Memory: the frames, and while they are copied that of a scan (see scan.h). A batch is used by one
 * thread at a time.
 */
#ifndef GPROC_BATCH_H
#define GPROC_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "gproc.h"
#include "mailbox.h"
#include "scan.h"

struct gproc_batch {
    uint8_t *bytes; /* owned; frames one after the other */
    size_t size_bytes;
    size_t capacity_bytes;
    struct gproc_scan scan; /* of `bytes`: what is before its position has been handed out */
};

/* An empty batch: allocates nothing. */
void gproc_batch_init(struct gproc_batch *batch);

/* Frees the memory; the batch is empty then, and may be filled again. */
void gproc_batch_release(struct gproc_batch *batch);

/*
 * Replaces what the batch holds by the messages of `mailbox`, which is open for reading, its status
 * fresh and its lock held; it is not changed. 0, or -ENOMEM, -EIO or what pread says: then the
 * batch is empty.
 */
int gproc_batch_fill(struct gproc_batch *batch, const struct gproc_mailbox *mailbox);

/*
 * Hands out the next message: 1 and `*mail`, whose payload is valid until the next call of this, of
 * fill or of release; 0 where there is none left, and a large buffer has been freed; -ENOMEM, after
 * which it may be tried again.
 */
int gproc_batch_next(struct gproc_batch *batch, struct gproc_mail *mail);

/* The frames that were not handed out. They are the batch's. Their bytes, 0 for none. */
size_t gproc_batch_rest(const struct gproc_batch *batch, const uint8_t **bytes);

#endif
