#include "inflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid)
{
    memset(inflight, 0, sizeof(*inflight));
    inflight->store = store;
    inflight->pid = pid;
}

void gproc_inflight_release(struct gproc_inflight *inflight)
{
    while (inflight->first != NULL) {
        struct gproc_inflight_segment *segment = inflight->first;

        inflight->first = segment->next;
        gproc_queue_free(segment);
    }
    inflight->messages_count = 0;
}

uint64_t gproc_inflight_newest(const struct gproc_inflight *inflight)
{
    const struct gproc_inflight_segment *segment;
    uint64_t serial = 0;

    for (segment = inflight->first; segment != NULL; segment = segment->next)
        serial = segment->serial;
    return serial;
}

/* The scan's next message that has not been delivered. */
static int scan_on(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_message *message)
{
    struct gproc_queue_damage damage;
    int result;

    do {
        result = gproc_queue_step(&segment->scan, &segment->file, message, &damage);
        inflight->damaged_bytes += (uint64_t)damage.size_bytes;
    } while (result == GPROC_QUEUE_DELIVERED);
    return result;
}

/* Puts it behind those that are taken of its segment. */
static void append(struct gproc_inflight_segment *segment, struct gproc_taken *taken)
{
    taken->segment = segment;
    taken->previous = segment->last_taken;
    if (taken->previous != NULL)
        taken->previous->next = taken;
    else
        segment->taken = taken;
    segment->last_taken = taken;
}

/* Takes `first` to `last`, which follow each other, away from those that are taken, and frees them.
 */
static void forget(struct gproc_inflight_segment *segment, struct gproc_taken *first,
                   struct gproc_taken *last)
{
    struct gproc_taken *behind = last->next;

    if (first->previous != NULL)
        first->previous->next = behind;
    else
        segment->taken = behind;
    if (behind != NULL)
        behind->previous = first->previous;
    else
        segment->last_taken = first->previous;
    while (first != behind) {
        struct gproc_taken *gone = first;

        first = first->next;
        free(gone);
    }
}

/* The next one of this segment: given back, or new. */
static int next_of(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_taken **taken)
{
    struct gproc_taken *fresh;
    int result;

    if (segment->given_back_count > 0) {
        for (*taken = segment->taken; (*taken)->out;)
            *taken = (*taken)->next;
        segment->given_back_count--;
        return 1;
    }
    if (segment->scan_ended)
        return 0;
    fresh = calloc(1, sizeof(*fresh));
    if (fresh == NULL)
        return -ENOMEM;
    result = scan_on(inflight, segment, &fresh->message);
    if (result != GPROC_QUEUE_MESSAGE) {
        segment->scan_ended = result == GPROC_QUEUE_END;
        free(fresh);
        return result;
    }
    append(segment, fresh);
    *taken = fresh;
    return 1;
}

int gproc_inflight_next(struct gproc_inflight *inflight, struct gproc_taken **taken)
{
    struct gproc_inflight_segment *segment, *next;

    for (segment = inflight->first; segment != NULL; segment = next) {
        int result;

        next = segment->next;
        result = next_of(inflight, segment, taken);
        if (result == 1)
            (*taken)->out = true;
        if (result == 0 && segment->taken == NULL)
            result = gproc_queue_drop(inflight, segment);
        if (result != 0)
            return result;
    }
    return 0;
}

int gproc_inflight_read(const struct gproc_taken *taken, void *buffer, size_t size_bytes,
                        size_t offset)
{
    struct gproc_source source = gproc_segment_source(&taken->segment->file);
    off_t start = taken->message.payload_offset + (off_t)offset;

    /* What was scanned just now is mostly in memory still, and does not change. */
    if (gproc_scan_copy(&taken->segment->scan, buffer, size_bytes, start))
        return 0;
    return gproc_source_read(&source, buffer, size_bytes, start);
}

/* Notes that `first` to `last` have been delivered, between which nothing of their segment is left.
 */
static int deliver_run(struct gproc_inflight *inflight, struct gproc_taken *first,
                       struct gproc_taken *last)
{
    struct gproc_inflight_segment *segment = first->segment;
    const struct gproc_taken *behind = last->next;
    const struct gproc_taken *taken;
    off_t start = first->message.frame_offset;
    off_t end = last->message.payload_offset + (off_t)last->message.payload_bytes;
    int result;

    /* Nothing in front of it is left: damage before it goes with it. */
    if (first->previous == NULL)
        start = segment->file.cursor;
    result = gproc_segment_deliver(&segment->file, start, end);
    if (result < 0)
        return result;
    for (taken = first; taken != behind; taken = taken->next) {
        inflight->delivered_count++;
        if (segment->payload_bytes >= 0) {
            segment->payload_bytes -= (int64_t)taken->message.payload_bytes;
            segment->messages_count--;
            inflight->messages_count--;
        }
    }
    forget(segment, first, last);
    if (segment->taken == NULL && gproc_segment_is_spent(&segment->file))
        (void)gproc_queue_drop(inflight,
                               segment); /* spent on disk too: gproc_inflight_next() tries again */
    return 0;
}

int gproc_inflight_deliver(struct gproc_inflight *inflight, struct gproc_taken *taken)
{
    return deliver_run(inflight, taken, taken);
}

int gproc_inflight_deliver_all(struct gproc_inflight *inflight, struct gproc_taken *const *taken,
                               size_t count)
{
    size_t start, end;
    int result = 0;

    for (start = 0; start < count && result == 0; start = end) {
        for (end = start + 1; end < count && taken[end] == taken[end - 1]->next;)
            end++;
        result = deliver_run(inflight, taken[start], taken[end - 1]);
    }
    return result;
}

void gproc_inflight_give_back(struct gproc_inflight *inflight, struct gproc_taken *taken)
{
    (void)inflight;
    if (taken->out)
        taken->segment->given_back_count++;
    taken->out = false;
}

int gproc_inflight_clear(struct gproc_inflight *inflight)
{
    struct gproc_taken *taken;
    int result;

    while ((result = gproc_inflight_next(inflight, &taken)) == 1) {
        result = gproc_inflight_deliver(inflight, taken);
        if (result < 0) {
            gproc_inflight_give_back(inflight, taken);
            break;
        }
    }
    return result;
}

bool gproc_inflight_is_foreign(const struct gproc_inflight *inflight, uid_t uid)
{
    const struct gproc_inflight_segment *segment;

    for (segment = inflight->first; segment != NULL; segment = segment->next) {
        if (segment->file.owner != 0 && segment->file.owner != (uint64_t)uid + 1)
            return true;
    }
    return false;
}

int gproc_inflight_own(struct gproc_inflight *inflight, uid_t uid)
{
    struct gproc_inflight_segment *segment;
    int result = 0;

    for (segment = inflight->first; segment != NULL && result == 0; segment = segment->next)
        result = gproc_segment_own(&segment->file, uid);
    return result;
}

bool gproc_inflight_is_empty(const struct gproc_inflight *inflight)
{
    return inflight->first == NULL;
}

int gproc_inflight_measure(struct gproc_inflight *inflight, uint64_t *payload_bytes,
                           uint64_t *disk_bytes)
{
    struct gproc_inflight_segment *segment;

    *payload_bytes = 0;
    *disk_bytes = 0;
    for (segment = inflight->first; segment != NULL; segment = segment->next) {
        if (segment->payload_bytes < 0 && gproc_queue_is_loaded(segment)) {
            int result = gproc_queue_count(inflight, segment);

            if (result < 0)
                return result;
        }
        if (segment->payload_bytes > 0)
            *payload_bytes += (uint64_t)segment->payload_bytes;
        *disk_bytes += (uint64_t)segment->file.size_bytes;
    }
    return 0;
}
