#include "inflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "segment.h"

struct gproc_inflight_segment {
    struct gproc_inflight_segment *next;
    uint64_t serial;
    struct gproc_segment file;
    struct gproc_scan scan; /* over what has not been taken out yet */
    bool scan_ended;
    off_t damaged_bytes;       /* how many of the scan's are counted already */
    struct gproc_taken *taken; /* owned, in order: in hand, or given back */
    int64_t payload_bytes;     /* not delivered; -1: not counted yet */
};

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid)
{
    inflight->store = store;
    inflight->pid = pid;
    inflight->first = NULL;
    inflight->damaged_bytes = 0;
}

static void free_segment(struct gproc_inflight_segment *segment)
{
    while (segment->taken != NULL) {
        struct gproc_taken *taken = segment->taken;

        segment->taken = taken->next;
        free(taken);
    }
    gproc_scan_release(&segment->scan);
    gproc_segment_release(&segment->file);
    free(segment);
}

void gproc_inflight_release(struct gproc_inflight *inflight)
{
    while (inflight->first != NULL) {
        struct gproc_inflight_segment *segment = inflight->first;

        inflight->first = segment->next;
        free_segment(segment);
    }
}

/* Takes the segment off the queue and its file out of the store. */
static int drop(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    struct gproc_inflight_segment **link = &inflight->first;
    int result = gproc_store_delete(inflight->store, inflight->pid, segment->serial);

    if (result < 0 && result != -ENOENT)
        return result;
    while (*link != segment)
        link = &(*link)->next;
    *link = segment->next;
    free_segment(segment);
    return 0;
}

static struct gproc_inflight_segment *new_segment(uint64_t serial)
{
    struct gproc_inflight_segment *segment = calloc(1, sizeof(*segment));

    if (segment != NULL) {
        segment->serial = serial;
        segment->file.fd = -1;
        segment->payload_bytes = -1;
    }
    return segment;
}

static void begin_scan(struct gproc_inflight_segment *segment, off_t position)
{
    struct gproc_source source = gproc_segment_source(&segment->file);

    gproc_scan_release(&segment->scan);
    gproc_scan_init(&segment->scan, &source, position);
    segment->damaged_bytes = 0;
}

static void insert(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    struct gproc_inflight_segment **link = &inflight->first;

    while (*link != NULL && (*link)->serial < segment->serial)
        link = &(*link)->next;
    segment->next = *link;
    *link = segment;
    begin_scan(segment, segment->file.cursor);
}

static uint64_t newest_serial(const struct gproc_inflight *inflight)
{
    const struct gproc_inflight_segment *segment;
    uint64_t serial = 0;

    for (segment = inflight->first; segment != NULL; segment = segment->next)
        serial = segment->serial;
    return serial;
}

int gproc_inflight_load(struct gproc_inflight *inflight, uint64_t serial)
{
    struct gproc_inflight_segment *segment;
    int fd = gproc_store_open_segment(inflight->store, inflight->pid, serial);
    int result;

    if (fd < 0)
        return fd;
    segment = new_segment(serial);
    if (segment == NULL) {
        struct gproc_segment orphan = {.fd = fd};

        gproc_segment_release(&orphan);
        return -ENOMEM;
    }
    result = gproc_segment_load(&segment->file, fd);
    if (result == 0) {
        insert(inflight, segment);
        return 0;
    }
    free_segment(segment);
    return result == -EILSEQ ? gproc_store_delete(inflight->store, inflight->pid, serial) : result;
}

bool gproc_inflight_is_unsettled(const struct gproc_inflight *inflight)
{
    const struct gproc_inflight_segment *segment;

    for (segment = inflight->first; segment != NULL; segment = segment->next)
        if (segment->file.state != GPROC_SEGMENT_READY)
            return true;
    return false;
}

static bool is_superseded(const struct gproc_inflight *inflight,
                          const struct gproc_inflight_segment *segment)
{
    const struct gproc_inflight_segment *other;

    for (other = inflight->first; other != NULL; other = other->next)
        if (other != segment && gproc_segment_supersedes(&other->file, segment->serial))
            return true;
    return false;
}

/* What a segment on its way back was gathered from is void, and only had not been deleted yet. */
static int drop_superseded(struct gproc_inflight *inflight)
{
    struct gproc_inflight_segment *segment, *next;

    for (segment = inflight->first; segment != NULL; segment = next) {
        int result = 0;

        next = segment->next;
        if (is_superseded(inflight, segment))
            result = drop(inflight, segment);
        if (result < 0)
            return result;
    }
    return 0;
}

/* Takes what the mailbox holds from `cursor` on, and throws away what is before that. */
static int take_from(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox, off_t cursor)
{
    uint64_t serial = newest_serial(inflight);
    struct gproc_inflight_segment *segment;
    int fd, result;

    segment = new_segment(0);
    if (segment == NULL)
        return -ENOMEM;
    fd = gproc_store_create(inflight->store, inflight->pid, &serial);
    if (fd < 0) {
        free_segment(segment);
        return fd;
    }
    segment->serial = serial;
    result = gproc_segment_copy(&segment->file, fd, mailbox, cursor);
    if (result == 0)
        result = gproc_mailbox_clear(mailbox);
    if (result < 0) {
        (void)gproc_store_delete(inflight->store, inflight->pid, serial);
        free_segment(segment);
        return result;
    }
    /* It is READY for us whatever the disk says; a later mount that finds it MOVING can tell by the
     * mailbox. */
    (void)gproc_segment_ready(&segment->file);
    segment->file.state = GPROC_SEGMENT_READY;
    insert(inflight, segment);
    return 0;
}

int gproc_inflight_take(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox)
{
    return take_from(inflight, mailbox, 0);
}

static int settle_one(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                      struct gproc_mailbox *mailbox)
{
    int result = 0;

    if (mailbox != NULL) {
        off_t returned = gproc_segment_returned(&segment->file, mailbox);

        if (returned < 0)
            return (int)returned;
        if (returned > 0)
            result = take_from(inflight, mailbox, returned);
        if (result == 0)
            result = gproc_mailbox_refresh(mailbox);
        if (result < 0)
            return result;
    }
    result = gproc_segment_resolve(&segment->file, mailbox);
    if (result == 0)
        return drop(inflight, segment);
    if (result == 1 && mailbox != NULL)
        result = gproc_mailbox_refresh(mailbox);
    return result < 0 ? result : 0;
}

int gproc_inflight_settle(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox)
{
    /* Moves first: one may have been begun, and cut off, to settle a return. */
    static const enum gproc_segment_state order[] = {
        GPROC_SEGMENT_MOVING,
        GPROC_SEGMENT_RETURNING,
    };
    struct gproc_inflight_segment *segment, *next;
    size_t i;
    int result = drop_superseded(inflight);

    for (i = 0; i < sizeof(order) / sizeof(order[0]) && result == 0; i++) {
        for (segment = inflight->first; segment != NULL && result == 0; segment = next) {
            next = segment->next;
            if (segment->file.state == order[i])
                result = settle_one(inflight, segment, mailbox);
        }
    }
    return result;
}

static void count_damage(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    inflight->damaged_bytes += (uint64_t)(segment->scan.damaged_bytes - segment->damaged_bytes);
    segment->damaged_bytes = segment->scan.damaged_bytes;
}

/* The scan's next message that is not in a hole. */
static int scan_on(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_message *message)
{
    for (;;) {
        off_t after = gproc_segment_skip(&segment->file, segment->scan.position);
        int result;

        if (after != segment->scan.position)
            begin_scan(segment, after);
        result = gproc_scan_next(&segment->scan, message);
        count_damage(inflight, segment);
        if (result != 1)
            return result;
        after = gproc_segment_skip(&segment->file, message->frame_offset);
        if (after == message->frame_offset)
            return 1;
        begin_scan(segment, after);
    }
}

/* The next one of this segment: given back, or new. */
static int next_of(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_taken **taken)
{
    struct gproc_taken **link = &segment->taken;
    struct gproc_taken *fresh;
    int result;

    for (; *link != NULL; link = &(*link)->next) {
        if (!(*link)->out) {
            *taken = *link;
            return 1;
        }
    }
    if (segment->scan_ended)
        return 0;
    fresh = calloc(1, sizeof(*fresh));
    if (fresh == NULL)
        return -ENOMEM;
    result = scan_on(inflight, segment, &fresh->message);
    if (result != 1) {
        segment->scan_ended = result == 0;
        free(fresh);
        return result;
    }
    fresh->segment = segment;
    *link = fresh;
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
            result = drop(inflight, segment);
        if (result != 0)
            return result;
    }
    return 0;
}

int gproc_inflight_read(const struct gproc_taken *taken, void *buffer, size_t size_bytes,
                        size_t offset)
{
    struct gproc_source source = gproc_segment_source(&taken->segment->file);

    return gproc_source_read(&source, buffer, size_bytes,
                             taken->message.payload_offset + (off_t)offset);
}

int gproc_inflight_deliver(struct gproc_inflight *inflight, struct gproc_taken *taken)
{
    struct gproc_inflight_segment *segment = taken->segment;
    struct gproc_taken **link = &segment->taken;
    off_t start = taken->message.frame_offset;
    off_t end = taken->message.payload_offset + (off_t)taken->message.payload_bytes;
    int result;

    /* Nothing in front of it is left: damage before it goes with it. */
    if (segment->taken == taken)
        start = segment->file.cursor;
    result = gproc_segment_deliver(&segment->file, start, end);
    if (result < 0)
        return result;
    if (segment->payload_bytes >= 0)
        segment->payload_bytes -= (int64_t)taken->message.payload_bytes;
    while (*link != taken)
        link = &(*link)->next;
    *link = taken->next;
    free(taken);
    if (segment->taken == NULL && gproc_segment_is_spent(&segment->file))
        (void)drop(inflight, segment); /* spent on disk too: gproc_inflight_next() tries again */
    return 0;
}

void gproc_inflight_give_back(struct gproc_inflight *inflight, struct gproc_taken *taken)
{
    (void)inflight;
    taken->out = false;
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

bool gproc_inflight_is_empty(const struct gproc_inflight *inflight)
{
    return inflight->first == NULL;
}

static int count_payload(struct gproc_inflight_segment *segment)
{
    struct gproc_source source = gproc_segment_source(&segment->file);
    struct gproc_message message;
    struct gproc_scan scan;
    int64_t payload_bytes = 0;
    int result;

    gproc_scan_init(&scan, &source, segment->file.cursor);
    while ((result = gproc_scan_next(&scan, &message)) == 1) {
        off_t after = gproc_segment_skip(&segment->file, message.frame_offset);

        if (after == message.frame_offset) {
            payload_bytes += (int64_t)message.payload_bytes;
        } else {
            gproc_scan_release(&scan);
            gproc_scan_init(&scan, &source, after);
        }
    }
    gproc_scan_release(&scan);
    if (result == 0)
        segment->payload_bytes = payload_bytes;
    return result;
}

int gproc_inflight_measure(struct gproc_inflight *inflight, uint64_t *payload_bytes,
                           uint64_t *disk_bytes)
{
    struct gproc_inflight_segment *segment;

    *payload_bytes = 0;
    *disk_bytes = 0;
    for (segment = inflight->first; segment != NULL; segment = segment->next) {
        if (segment->payload_bytes < 0) {
            int result = count_payload(segment);

            if (result < 0)
                return result;
        }
        *payload_bytes += (uint64_t)segment->payload_bytes;
        *disk_bytes += (uint64_t)segment->file.size_bytes;
    }
    return 0;
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

/* One new segment with all that is left of the others, which it supersedes. */
static int gather(struct gproc_inflight *inflight, struct gproc_inflight_segment *copy)
{
    struct gproc_inflight_segment *segment;
    int result;

    copy->serial = newest_serial(inflight);
    copy->file.owner = inflight->first->file.owner;
    copy->file.fd = gproc_store_create(inflight->store, inflight->pid, &copy->serial);
    if (copy->file.fd < 0)
        return copy->file.fd;
    for (segment = inflight->first; segment != NULL; segment = segment->next) {
        result = gproc_segment_gather(&copy->file, &segment->file, segment->serial);
        if (result < 0)
            return result;
    }
    return gproc_segment_seal(&copy->file);
}

int gproc_inflight_return(struct gproc_inflight *inflight, struct gproc_mailbox *mailbox)
{
    struct gproc_inflight_segment *copy;
    int result = 0;

    if (mailbox->status.st_size > 0)
        result = gproc_inflight_take(inflight, mailbox);
    if (result < 0 || inflight->first == NULL)
        return result;
    copy = new_segment(0);
    if (copy == NULL)
        return -ENOMEM;
    result = gather(inflight, copy);
    if (result < 0) {
        if (copy->file.fd >= 0)
            (void)gproc_store_delete(inflight->store, inflight->pid, copy->serial);
        free_segment(copy);
        return result;
    }
    insert(inflight, copy);
    result = drop_superseded(inflight);
    if (result < 0)
        return result; /* copy and originals are both there: settling goes on with it */
    result = gproc_segment_pour(&copy->file, mailbox);
    if (result == 0)
        return drop(inflight, copy);
    if (result != -EUCLEAN) /* else a part of it is in the mailbox, which settling finds */
        (void)gproc_segment_ready(&copy->file);
    return result;
}
