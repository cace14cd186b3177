#include "move.h"

#include <errno.h>

#include "queue.h"
#include "step.h"

/* 0, or what open and gproc_segment_load() say: then it is not loaded, as before. */
static int load_file(const struct gproc_inflight *inflight, struct gproc_inflight_segment *segment)
{
    int fd = gproc_store_open_segment(inflight->store, inflight->pid, segment->serial);
    int result = fd < 0 ? fd : gproc_segment_load(&segment->file, fd);

    if (result < 0) {
        gproc_segment_release(&segment->file);
        segment->file = (struct gproc_segment){.fd = -1};
    }
    segment->file.stop = &inflight->store->is_ending;
    return result;
}

int gproc_inflight_load(struct gproc_inflight *inflight, uint64_t serial)
{
    struct gproc_inflight_segment *segment = gproc_queue_new(serial);
    int result;

    if (segment == NULL)
        return -ENOMEM;
    result = load_file(inflight, segment);
    if (result == -EILSEQ) {
        gproc_queue_free(segment);
        return gproc_store_delete(inflight->store, inflight->pid, serial);
    }
    if (result == 0)
        gproc_queue_insert(inflight, segment);
    else
        gproc_queue_insert_uncounted(inflight,
                                     segment); /* what is behind it must not overtake it */
    return result;
}

/* Those that could not be loaded. */
static int load_rest(struct gproc_inflight *inflight)
{
    struct gproc_inflight_segment *segment, *next;

    for (segment = inflight->first; segment != NULL; segment = next) {
        int result;

        next = segment->next;
        if (gproc_queue_is_loaded(segment))
            continue;
        result = load_file(inflight, segment);
        if (result == -EILSEQ) {
            result = gproc_queue_drop(inflight, segment);
        } else if (result == 0) {
            gproc_step_begin(&segment->scan, &segment->file, segment->file.cursor);
            (void)gproc_queue_count(inflight, segment); /* measuring tries again */
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

/* What a segment on its way back was gathered from is void, and only had not been deleted yet. */
static int drop_superseded(struct gproc_inflight *inflight)
{
    struct gproc_inflight_segment *segment, *next;

    for (segment = inflight->first; segment != NULL; segment = next) {
        int result = 0;

        next = segment->next;
        if (gproc_queue_is_superseded(inflight, segment))
            result = gproc_queue_drop(inflight, segment);
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

    segment = gproc_queue_new(0);
    if (segment == NULL)
        return -ENOMEM;
    fd = gproc_store_create(inflight->store, inflight->pid, &serial);
    if (fd < 0) {
        gproc_queue_free(segment);
        return fd;
    }
    segment->serial = serial;
    result = gproc_segment_copy(&segment->file, fd, mailbox, cursor, &inflight->store->is_ending);
    if (result == 0)
        result = gproc_mailbox_clear(mailbox);
    if (result < 0) {
        (void)gproc_store_delete(inflight->store, inflight->pid, serial);
        gproc_queue_free(segment);
        return result;
    }
    /* It is READY for us whatever the disk says; a later mount that finds it MOVING can tell by the
     * mailbox. */
    (void)gproc_segment_ready(&segment->file);
    segment->file.state = GPROC_SEGMENT_READY;
    gproc_queue_insert(inflight, segment);
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
        return gproc_queue_drop(inflight, segment);
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
    copy = gproc_queue_new(0);
    if (copy == NULL)
        return -ENOMEM;
    result = gather(inflight, copy);
    if (result < 0) {
        if (copy->file.fd >= 0)
            (void)gproc_store_delete(inflight->store, inflight->pid, copy->serial);
        gproc_queue_free(copy);
        return result;
    }
    gproc_queue_insert_uncounted(inflight, copy); /* where all goes well it is gone at once */
    result = drop_superseded(inflight);
    if (result == 0) {
        result = gproc_segment_pour(&copy->file, mailbox);
        if (result == 0)
            return gproc_queue_drop(inflight, copy);
        if (result != -EUCLEAN) /* else a part of it is in the mailbox, which settling finds */
            (void)gproc_segment_ready(&copy->file);
    } /* else copy and originals are both there: settling goes on with it */
    (void)gproc_queue_count(inflight, copy); /* measuring tries again */
    return result;
}
