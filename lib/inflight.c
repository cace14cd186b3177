#include "inflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"
#include "step.h"

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
    struct gproc_step_damage damage;
    int result;

    do {
        result = gproc_step(&segment->scan, &segment->file, message, &damage);
        inflight->damaged_bytes += (uint64_t)damage.size_bytes;
    } while (result == GPROC_STEP_DELIVERED);
    return result;
}

/* A message that is to be taken; NULL: no memory. */
static struct gproc_taken *new_taken(void)
{
    struct gproc_taken *taken = malloc(sizeof(*taken));

    if (taken != NULL)
        taken->out = false;
    return taken;
}

/* Fills it in, and puts it in front of `behind`, one of those that are taken of the segment, or,
 * where that is NULL, behind them all. */
static void insert(struct gproc_inflight_segment *segment, struct gproc_taken *taken,
                   const struct gproc_message *message, struct gproc_taken *behind)
{
    struct gproc_taken *before = behind != NULL ? behind->previous : segment->last_taken;

    taken->message = *message;
    taken->messages_count = 1;
    taken->payload_bytes = message->payload_bytes;
    taken->end = message->payload_offset + (off_t)message->payload_bytes;
    taken->segment = segment;
    taken->previous = before;
    taken->next = behind;
    *(before != NULL ? &before->next : &segment->taken) = taken;
    *(behind != NULL ? &behind->previous : &segment->last_taken) = taken;
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

/*
 * Leaves only the first of them in `taken`, which was given back; the others are behind it, as one
 * that was given back. They are looked for where they lie: if somebody else has written to our file
 * they may not be there. 0 or a negative errno: then nothing has changed.
 */
static int split(struct gproc_taken *taken)
{
    struct gproc_inflight_segment *segment = taken->segment;
    struct gproc_scan *scan = &segment->again;
    struct gproc_taken *others = new_taken();
    off_t first_end = taken->message.payload_offset + (off_t)taken->message.payload_bytes;
    struct gproc_message message;
    int result;

    if (others == NULL)
        return -ENOMEM;
    if (scan->position != first_end || scan->source.size_bytes != taken->end) {
        gproc_step_begin(scan, &segment->file, first_end);
        scan->source.size_bytes = taken->end;
    }
    result = gproc_scan_next(scan, &message);
    if (result == 1) {
        insert(segment, others, &message, taken->next);
        others->messages_count = taken->messages_count - 1;
        others->payload_bytes = taken->payload_bytes - taken->message.payload_bytes;
        others->end = taken->end;
        segment->given_back_count++;
    } else {
        free(others);
    }
    if (result < 0)
        return result;
    taken->messages_count = 1;
    taken->payload_bytes = taken->message.payload_bytes;
    taken->end = first_end;
    return 0;
}

/* The first that was given back, of which there is one: 1 and `*taken`, or a negative errno. */
static int next_given_back(struct gproc_inflight_segment *segment, struct gproc_taken **taken)
{
    int result = 0;

    for (*taken = segment->taken; (*taken)->out;)
        *taken = (*taken)->next;
    if ((*taken)->messages_count > 1)
        result = split(*taken);
    if (result < 0)
        return result;
    segment->given_back_count--;
    return 1;
}

/* The next one of this segment: given back, or new. */
static int next_of(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_taken **taken)
{
    struct gproc_message message;
    struct gproc_taken *fresh;
    int result;

    if (segment->given_back_count > 0)
        return next_given_back(segment, taken);
    if (segment->scan_ended)
        return 0;
    fresh = new_taken();
    if (fresh == NULL)
        return -ENOMEM;
    result = scan_on(inflight, segment, &message);
    if (result != GPROC_STEP_MESSAGE) {
        segment->scan_ended = result == GPROC_STEP_END;
        free(fresh);
        return result;
    }
    insert(segment, fresh, &message, NULL);
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

/* Reads bytes of the segment's data. What was scanned just now is mostly in memory still, and does
 * not change. */
static int read_at(const struct gproc_inflight_segment *segment, void *buffer, size_t size_bytes,
                   off_t offset)
{
    struct gproc_source source;

    if (gproc_scan_copy(&segment->scan, buffer, size_bytes, offset))
        return 0;
    source = gproc_segment_source(&segment->file);
    return gproc_source_read(&source, buffer, size_bytes, offset);
}

/* Has `said` be what is said before the message. */
static void say_head(struct gproc_pack *pack, const struct gproc_message *message)
{
    if (pack->said_bytes > 0 && pack->said_sender == message->sender &&
        pack->said_payload_bytes == message->payload_bytes)
        return;
    pack->said_bytes = pack->head(pack->said, message);
    pack->said_sender = message->sender;
    pack->said_payload_bytes = message->payload_bytes;
}

/* 1: it is in the pack; 0: there is no room for it; or a negative errno. */
static int pack_one(struct gproc_pack *pack, const struct gproc_inflight_segment *segment,
                    const struct gproc_message *message)
{
    size_t room_bytes = pack->room_bytes - pack->used_bytes;
    uint8_t *to = pack->bytes + pack->used_bytes;
    int result;

    say_head(pack, message);
    if (message->payload_bytes > room_bytes ||
        pack->said_bytes > room_bytes - message->payload_bytes)
        return 0;
    memcpy(to, pack->said, pack->said_bytes);
    result =
        read_at(segment, to + pack->said_bytes, message->payload_bytes, message->payload_offset);
    if (result < 0)
        return result;
    pack->used_bytes += pack->said_bytes + message->payload_bytes;
    return 1;
}

int gproc_inflight_extend(struct gproc_inflight *inflight, struct gproc_taken *taken,
                          struct gproc_pack *pack)
{
    struct gproc_inflight_segment *segment = taken->segment;
    struct gproc_message message;
    struct gproc_taken *other;
    int result;

    if (segment->given_back_count > 0 || segment->last_taken != taken || segment->scan_ended)
        return 0;
    other = new_taken(); /* for one that is found and does not fit */
    if (other == NULL)
        return -ENOMEM;
    while ((result = scan_on(inflight, segment, &message)) == GPROC_STEP_MESSAGE) {
        result = message.frame_offset == taken->end ? pack_one(pack, segment, &message) : 0;
        if (result != 1) {
            insert(segment, other, &message, NULL);
            segment->given_back_count++;
            return result;
        }
        taken->messages_count++;
        taken->payload_bytes += message.payload_bytes;
        taken->end = message.payload_offset + (off_t)message.payload_bytes;
    }
    segment->scan_ended = result == GPROC_STEP_END;
    free(other);
    return result;
}

int gproc_inflight_read(const struct gproc_taken *taken, void *buffer, size_t size_bytes,
                        size_t offset)
{
    return read_at(taken->segment, buffer, size_bytes,
                   taken->message.payload_offset + (off_t)offset);
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
    int result;

    /* Nothing in front of it is left: damage before it goes with it. */
    if (first->previous == NULL)
        start = segment->file.cursor;
    result = gproc_segment_deliver(&segment->file, start, last->end);
    if (result < 0)
        return result;
    for (taken = first; taken != behind; taken = taken->next) {
        inflight->delivered_count += taken->messages_count;
        if (segment->payload_bytes >= 0) {
            segment->payload_bytes -= (int64_t)taken->payload_bytes;
            segment->messages_count -= taken->messages_count;
            inflight->messages_count -= taken->messages_count;
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
