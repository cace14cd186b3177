/*
 * Longer than a module should be: all of it, taking, handing out, looking and the way back, goes
 * over the same list of segments, which nobody else is to see.
 */
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
    struct gproc_taken *taken; /* owned, in order: in hand, or given back */
    struct gproc_taken *last_taken;
    size_t given_back_count; /* of those */
    int64_t payload_bytes;   /* not delivered; -1: could not be counted yet */
    uint64_t messages_count; /* not delivered; 0 where they could not be counted */
};

/* Bytes that are no message's. */
struct damage {
    off_t offset;
    off_t size_bytes;
};

enum step {
    STEP_END = 0,
    STEP_MESSAGE = 1,
    STEP_DELIVERED = 2, /* something that was delivered already has been passed over */
};

void gproc_inflight_init(struct gproc_inflight *inflight, struct gproc_store *store, pid_t pid)
{
    memset(inflight, 0, sizeof(*inflight));
    inflight->store = store;
    inflight->pid = pid;
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
    inflight->messages_count = 0;
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
    inflight->messages_count -= segment->messages_count;
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

static void begin_scan(struct gproc_scan *scan, const struct gproc_segment *file, off_t position)
{
    struct gproc_source source = gproc_segment_source(file);

    gproc_scan_release(scan);
    gproc_scan_init(scan, &source, position);
}

/*
 * Goes on in a scan of a segment, but not through what has been delivered of it. An enum step, and
 * the message there is where it says so; or a negative errno. `*damage`: what was passed before it,
 * in any case.
 */
static int step(struct gproc_scan *scan, const struct gproc_segment *file,
                struct gproc_message *message, struct damage *damage)
{
    off_t start = gproc_segment_skip(file, scan->position);
    off_t end, after;
    int result;

    if (start != scan->position)
        begin_scan(scan, file, start);
    result = gproc_scan_next(scan, message);
    end = result == STEP_MESSAGE ? message->frame_offset : scan->position;
    damage->offset = start;
    damage->size_bytes = end - start;
    if (result != STEP_MESSAGE)
        return result;
    after = gproc_segment_skip(file, end);
    if (after == end)
        return STEP_MESSAGE;
    begin_scan(scan, file, after);
    return STEP_DELIVERED;
}

/* Counts what has not been delivered of a segment that has not been counted. 0 or a negative errno.
 */
static int count_waiting(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    struct gproc_message message;
    struct gproc_scan scan = {0};
    struct damage damage;
    int64_t payload_bytes = 0;
    uint64_t messages_count = 0;
    int result;

    begin_scan(&scan, &segment->file, segment->file.cursor);
    while ((result = step(&scan, &segment->file, &message, &damage)) > 0) {
        if (result == STEP_MESSAGE) {
            payload_bytes += (int64_t)message.payload_bytes;
            messages_count++;
        }
    }
    gproc_scan_release(&scan);
    if (result < 0)
        return result;
    segment->payload_bytes = payload_bytes;
    segment->messages_count = messages_count;
    inflight->messages_count += messages_count;
    return 0;
}

static void insert_uncounted(struct gproc_inflight *inflight,
                             struct gproc_inflight_segment *segment)
{
    struct gproc_inflight_segment **link = &inflight->first;

    while (*link != NULL && (*link)->serial < segment->serial)
        link = &(*link)->next;
    segment->next = *link;
    *link = segment;
    begin_scan(&segment->scan, &segment->file, segment->file.cursor);
}

static void insert(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    insert_uncounted(inflight, segment);
    (void)count_waiting(inflight, segment); /* measuring tries again */
}

uint64_t gproc_inflight_newest(const struct gproc_inflight *inflight)
{
    const struct gproc_inflight_segment *segment;
    uint64_t serial = 0;

    for (segment = inflight->first; segment != NULL; segment = segment->next)
        serial = segment->serial;
    return serial;
}

static bool is_loaded(const struct gproc_inflight_segment *segment)
{
    return segment->file.fd >= 0;
}

/* 0, or what open and gproc_segment_load() say: then it is not loaded, as before. */
static int load_file(const struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    int fd = gproc_store_open_segment(inflight->store, inflight->pid, segment->serial);
    int result = fd < 0 ? fd : gproc_segment_load(&segment->file, fd);

    if (result < 0) {
        gproc_segment_release(&segment->file);
        segment->file = (struct gproc_segment){.fd = -1};
    }
    return result;
}

int gproc_inflight_load(struct gproc_inflight *inflight, uint64_t serial)
{
    struct gproc_inflight_segment *segment = new_segment(serial);
    int result;

    if (segment == NULL)
        return -ENOMEM;
    result = load_file(inflight, segment);
    if (result == -EILSEQ) {
        free_segment(segment);
        return gproc_store_delete(inflight->store, inflight->pid, serial);
    }
    if (result == 0)
        insert(inflight, segment);
    else
        insert_uncounted(inflight, segment); /* what is behind it must not overtake it */
    return result;
}

/* Those that could not be loaded. */
static int load_rest(struct gproc_inflight *inflight)
{
    struct gproc_inflight_segment *segment, *next;

    for (segment = inflight->first; segment != NULL; segment = next) {
        int result;

        next = segment->next;
        if (is_loaded(segment))
            continue;
        result = load_file(inflight, segment);
        if (result == -EILSEQ) {
            result = drop(inflight, segment);
        } else if (result == 0) {
            begin_scan(&segment->scan, &segment->file, segment->file.cursor);
            (void)count_waiting(inflight, segment); /* measuring tries again */
        }
        if (result < 0)
            return result;
    }
    return 0;
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
    uint64_t serial = gproc_inflight_newest(inflight);
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
    result = gproc_segment_copy(&segment->file, fd, mailbox, cursor, &inflight->store->is_ending);
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
    int result = load_rest(inflight);

    if (result == 0)
        result = drop_superseded(inflight);
    for (i = 0; i < sizeof(order) / sizeof(order[0]) && result == 0; i++) {
        for (segment = inflight->first; segment != NULL && result == 0; segment = next) {
            next = segment->next;
            if (segment->file.state == order[i])
                result = settle_one(inflight, segment, mailbox);
        }
    }
    return result;
}

/* The scan's next message that has not been delivered. */
static int scan_on(struct gproc_inflight *inflight, struct gproc_inflight_segment *segment,
                   struct gproc_message *message)
{
    struct damage damage;
    int result;

    do {
        result = step(&segment->scan, &segment->file, message, &damage);
        inflight->damaged_bytes += (uint64_t)damage.size_bytes;
    } while (result == STEP_DELIVERED);
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
    if (result != STEP_MESSAGE) {
        segment->scan_ended = result == STEP_END;
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
        (void)drop(inflight, segment); /* spent on disk too: gproc_inflight_next() tries again */
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
        if (segment->payload_bytes < 0 && is_loaded(segment)) {
            int result = count_waiting(inflight, segment);

            if (result < 0)
                return result;
        }
        if (segment->payload_bytes > 0)
            *payload_bytes += (uint64_t)segment->payload_bytes;
        *disk_bytes += (uint64_t)segment->file.size_bytes;
    }
    return 0;
}

/* ---- Looking */

/* Whether its messages are surely in flight and nowhere else. */
static bool is_settled(const struct gproc_inflight *inflight,
                       const struct gproc_inflight_segment *segment)
{
    return segment->file.state == GPROC_SEGMENT_READY && !is_superseded(inflight, segment);
}

static int tell(const struct gproc_inflight_visitor *visitor, struct gproc_inflight_mark *mark,
                const struct damage *damage)
{
    off_t start = damage->offset > mark->damage_told ? damage->offset : mark->damage_told;
    off_t end = damage->offset + damage->size_bytes;
    int result = 0;

    if (start >= end)
        return 0;
    if (visitor->damage != NULL)
        result = visitor->damage(visitor->context, start, end - start);
    if (result == 0)
        mark->damage_told = end;
    return result;
}

/* Shows what has not been shown of the segment that the mark is in. */
static int walk_one(const struct gproc_segment *file, struct gproc_inflight_mark *mark,
                    const struct gproc_inflight_visitor *visitor)
{
    struct gproc_source source = gproc_segment_source(file);
    struct gproc_scan scan = {0};
    struct gproc_message message;
    struct damage damage;
    int found, result;

    begin_scan(&scan, file, mark->partial_offset);
    do {
        result = found = step(&scan, file, &message, &damage);
        if (found >= 0)
            result = tell(visitor, mark, &damage);
        if (result == 0 && found == STEP_MESSAGE)
            result = visitor->message(visitor->context, &source, &message);
        if (result == 0)
            mark->partial_offset = scan.position;
    } while (result == 0 && found != STEP_END);
    gproc_scan_release(&scan);
    return result;
}

int gproc_inflight_walk(const struct gproc_inflight *inflight, struct gproc_inflight_mark *mark,
                        const struct gproc_inflight_visitor *visitor)
{
    const struct gproc_inflight_segment *segment;

    for (segment = inflight->first; segment != NULL; segment = segment->next) {
        int result;

        if (!is_settled(inflight, segment))
            return 1;
        if (segment->serial <= mark->serial)
            continue;
        if (segment->serial != mark->partial_serial) {
            mark->partial_serial = segment->serial;
            mark->partial_offset = 0;
            mark->damage_told = 0;
        }
        result = walk_one(&segment->file, mark, visitor);
        if (result != 0)
            return result;
        mark->serial = segment->serial;
        mark->partial_serial = 0;
    }
    return 0;
}

bool gproc_inflight_continues(const struct gproc_inflight *inflight, uint64_t serial,
                              const struct gproc_imprint *imprint)
{
    const struct gproc_inflight_segment *segment = inflight->first;
    struct gproc_source source;
    struct stat status = imprint->status;
    enum gproc_imprint_change change;

    while (segment != NULL && segment->serial != serial)
        segment = segment->next;
    if (segment == NULL)
        return false;
    /* As the mailbox was when it was moved. */
    source = gproc_segment_source(&segment->file);
    status.st_ino = segment->file.inode;
    status.st_size = segment->file.size_bytes;
    status.st_mtim = segment->file.modified;
    change = gproc_imprint_compare(imprint, &status, &source);
    return change == GPROC_IMPRINT_NONE || change == GPROC_IMPRINT_GROWN;
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

    copy->serial = gproc_inflight_newest(inflight);
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
    insert_uncounted(inflight, copy); /* where all goes well it is gone at once */
    result = drop_superseded(inflight);
    if (result == 0) {
        result = gproc_segment_pour(&copy->file, mailbox);
        if (result == 0)
            return drop(inflight, copy);
        if (result != -EUCLEAN) /* else a part of it is in the mailbox, which settling finds */
            (void)gproc_segment_ready(&copy->file);
    } /* else copy and originals are both there: settling goes on with it */
    (void)count_waiting(inflight, copy); /* measuring tries again */
    return result;
}
