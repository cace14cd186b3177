#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "scan.h"

void gproc_measure_init(struct gproc_measure *measure)
{
    memset(measure, 0, sizeof(*measure));
}

enum {
    SLICE_BYTES = 64 * 1024 * 1024, /* some tens of milliseconds */
};

/*
 * Counts from `resume` on, not much more than a slice. What comes before anything undecided becomes
 * the new `resume`. 0, -EAGAIN, or another negative errno.
 */
static int count(struct gproc_measure *measure, const struct gproc_source *source)
{
    const off_t begin = measure->imprint.resume;
    struct gproc_message message;
    struct gproc_scan scan;
    int result;

    measure->payload_bytes = measure->resume_payload_bytes;
    measure->messages_count = measure->imprint.messages_count;
    measure->is_partial = false;
    gproc_scan_init(&scan, source, begin);
    while ((result = gproc_scan_next(&scan, &message)) == 1) {
        measure->payload_bytes += message.payload_bytes;
        measure->messages_count++;
        if (scan.unresolved >= 0)
            continue;
        gproc_imprint_note(&measure->imprint, &message);
        measure->resume_payload_bytes = measure->payload_bytes;
        if (scan.position - begin >= SLICE_BYTES && scan.position < source->size_bytes) {
            measure->is_partial = true;
            result = -EAGAIN;
            break;
        }
    }
    gproc_scan_release(&scan);
    return result;
}

int gproc_measure_update(struct gproc_measure *measure, struct gproc_place *directory,
                         const struct gproc_mailbox *kept, const atomic_bool *stop,
                         struct stat *status)
{
    struct gproc_mailbox mailbox = *kept;
    bool is_kept;
    struct gproc_source source;
    enum gproc_imprint_change change;
    int result = gproc_mailbox_stat(directory, kept->pid, status);

    if (result < 0) {
        gproc_measure_init(measure);
        return result;
    }
    if (!measure->is_partial && gproc_imprint_is_unchanged(&measure->imprint, status))
        return 0;
    if (status->st_size == 0) {
        gproc_measure_init(measure);
        measure->imprint.status = *status;
        return 0;
    }
    is_kept = gproc_mailbox_is_open(kept, status, O_RDONLY);
    if (is_kept)
        mailbox.status = *status;
    else
        result = gproc_mailbox_open(&mailbox, directory, kept->pid, O_RDONLY);
    if (result < 0) {
        gproc_measure_init(measure);
        return result;
    }
    *status = mailbox.status;
    source = gproc_mailbox_source(&mailbox);
    source.stop = stop;
    change = gproc_imprint_compare(&measure->imprint, status, &source);
    if (change == GPROC_IMPRINT_OTHER || change == GPROC_IMPRINT_REFILLED)
        gproc_measure_init(measure);
    result = count(measure, &source);
    if (result < 0 && result != -EAGAIN)
        gproc_measure_init(measure);
    else
        measure->imprint.status = *status;
    if (!is_kept)
        gproc_mailbox_close(&mailbox);
    return result == -ENODATA
               ? 0
               : result; /* emptied while it was read: what is left will be counted next time */
}
