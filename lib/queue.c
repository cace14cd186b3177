#include "queue.h"

#include <errno.h>
#include <stdlib.h>

#include "step.h"

struct gproc_inflight_segment *gproc_queue_new(uint64_t serial)
{
    struct gproc_inflight_segment *segment = calloc(1, sizeof(*segment));

    if (segment != NULL) {
        segment->serial = serial;
        segment->file.fd = -1;
        segment->payload_bytes = -1;
    }
    return segment;
}

void gproc_queue_free(struct gproc_inflight_segment *segment)
{
    while (segment->taken != NULL) {
        struct gproc_taken *taken = segment->taken;

        segment->taken = taken->next;
        free(taken);
    }
    gproc_scan_release(&segment->scan);
    gproc_scan_release(&segment->again);
    gproc_segment_release(&segment->file);
    free(segment);
}

int gproc_queue_drop(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    struct gproc_inflight_segment **link = &inflight->first;
    int result = gproc_store_delete(inflight->store, inflight->pid, segment->serial);

    if (result < 0 && result != -ENOENT)
        return result;
    while (*link != segment)
        link = &(*link)->next;
    *link = segment->next;
    inflight->messages_count -= segment->messages_count;
    gproc_queue_free(segment);
    return 0;
}

static void set_count(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                      uint64_t messages_count, int64_t payload_bytes)
{
    segment->payload_bytes = payload_bytes;
    segment->messages_count = messages_count;
    inflight->messages_count += messages_count;
}

int gproc_queue_count(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    struct gproc_message message;
    struct gproc_scan scan = {0};
    struct gproc_step_damage damage;
    int64_t payload_bytes = 0;
    uint64_t messages_count = 0;
    int result;

    gproc_step_begin(&scan, &segment->file, segment->file.cursor);
    while ((result = gproc_step(&scan, &segment->file, &message, &damage)) > 0) {
        if (result == GPROC_STEP_MESSAGE) {
            payload_bytes += (int64_t)message.payload_bytes;
            messages_count++;
        }
    }
    gproc_scan_release(&scan);
    if (result < 0)
        return result;
    set_count(inflight, segment, messages_count, payload_bytes);
    return 0;
}

void gproc_queue_insert_uncounted(struct gproc_inflight *inflight,
                                  struct gproc_inflight_segment *segment)
{
    struct gproc_inflight_segment **link = &inflight->first;

    while (*link != NULL && (*link)->serial < segment->serial)
        link = &(*link)->next;
    segment->next = *link;
    *link = segment;
    gproc_step_begin(&segment->scan, &segment->file, segment->file.cursor);
}

void gproc_queue_insert(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    gproc_queue_insert_uncounted(inflight, segment);
    if (segment->file.is_counted)
        set_count(inflight, segment, segment->file.messages_count, segment->file.payload_bytes);
    else
        (void)gproc_queue_count(inflight, segment); /* measuring tries again */
}

bool gproc_queue_is_loaded(const struct gproc_inflight_segment *segment)
{
    return segment->file.fd >= 0;
}

bool gproc_queue_is_superseded(const struct gproc_inflight *inflight,
                               const struct gproc_inflight_segment *segment)
{
    const struct gproc_inflight_segment *other;

    for (other = inflight->first; other != NULL; other = other->next)
        if (other != segment && gproc_segment_supersedes(&other->file, segment->serial))
            return true;
    return false;
}
