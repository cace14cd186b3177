#include "batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Buffers up to this size are used again: a mailbox with a message at a time then costs no
       malloc. */
    KEPT_MOST_BYTES = 64 * 1024,
};

/* Has the scan begin with the frames there are. */
static void rewind_scan(struct gproc_batch *batch)
{
    const struct gproc_source source = {
        .data = batch->bytes,
        .fd = -1,
        .size_bytes = (off_t)batch->size_bytes,
    };

    gproc_scan_init(&batch->scan, &source, 0);
}

void gproc_batch_init(struct gproc_batch *batch)
{
    *batch = (struct gproc_batch){.bytes = NULL};
    rewind_scan(batch);
}

void gproc_batch_release(struct gproc_batch *batch)
{
    gproc_scan_release(&batch->scan);
    free(batch->bytes);
    gproc_batch_init(batch);
}

/* Has room for `size_bytes` bytes more. Doubles, so that many small runs are not many copies. */
static int reserve(struct gproc_batch *batch, size_t size_bytes)
{
    size_t capacity = batch->capacity_bytes;
    uint8_t *bytes;

    if (size_bytes <= capacity - batch->size_bytes)
        return 0;
    if (size_bytes > SIZE_MAX / 2 - batch->size_bytes)
        return -ENOMEM;
    capacity *= 2;
    if (capacity < batch->size_bytes + size_bytes)
        capacity = batch->size_bytes + size_bytes;
    bytes = realloc(batch->bytes, capacity);
    if (bytes == NULL)
        return -ENOMEM;
    batch->bytes = bytes;
    batch->capacity_bytes = capacity;
    return 0;
}

/* Copies [start, end) of the mailbox behind what the batch holds. */
static int add_run(struct gproc_batch *batch, const struct gproc_source *source, off_t start,
                   off_t end)
{
    int result;

    if (start == end)
        return 0;
    if ((uintmax_t)(end - start) > SIZE_MAX)
        return -ENOMEM;
    result = reserve(batch, (size_t)(end - start));
    if (result == 0)
        result = gproc_source_read(source, batch->bytes + batch->size_bytes, (size_t)(end - start),
                                   start);
    if (result == 0)
        batch->size_bytes += (size_t)(end - start);
    return result;
}

/* Frames that follow each other are read in one go: an intact mailbox in a single pread. */
static int add_runs(struct gproc_batch *batch, const struct gproc_source *source)
{
    struct gproc_message message;
    struct gproc_scan scan;
    off_t start = 0;
    off_t end = 0;
    int result;

    gproc_scan_init(&scan, source, 0);
    for (;;) {
        result = gproc_scan_next(&scan, &message);
        if (result <= 0)
            break;
        if (message.frame_offset != end) {
            result = add_run(batch, source, start, end);
            if (result < 0)
                break;
            start = message.frame_offset;
        }
        end = scan.position;
    }
    gproc_scan_release(&scan);
    return result < 0 ? result : add_run(batch, source, start, end);
}

int gproc_batch_fill(struct gproc_batch *batch, const struct gproc_mailbox *mailbox)
{
    const struct gproc_source source = gproc_mailbox_source(mailbox);
    int result;

    gproc_scan_release(&batch->scan);
    batch->size_bytes = 0;
    result = add_runs(batch, &source);
    if (result < 0)
        gproc_batch_release(batch);
    else
        rewind_scan(batch);
    return result;
}

int gproc_batch_next(struct gproc_batch *batch, struct gproc_mail *mail)
{
    struct gproc_message message;
    int result = gproc_scan_next(&batch->scan, &message);

    if (result == 1) {
        mail->sender = message.sender;
        mail->payload = batch->bytes + message.payload_offset;
        mail->payload_bytes = message.payload_bytes;
    }
    if (result == 0 && batch->capacity_bytes > KEPT_MOST_BYTES)
        gproc_batch_release(batch);
    return result;
}

size_t gproc_batch_rest(const struct gproc_batch *batch, const uint8_t **bytes)
{
    const size_t begin = (size_t)batch->scan.position;

    *bytes = batch->bytes == NULL ? NULL : batch->bytes + begin;
    return batch->size_bytes - begin;
}
