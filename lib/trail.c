#include "trail.h"

#include <errno.h>
#include <string.h>

void gproc_trail_init(struct gproc_trail *trail)
{
    memset(trail, 0, sizeof(*trail));
}

void gproc_trail_emptied(struct gproc_trail *trail)
{
    gproc_imprint_init(&trail->imprint);
    trail->damage_told = 0;
    trail->is_complete = false;
}

void gproc_trail_moved(struct gproc_trail *trail, uint64_t serial)
{
    /* Whether what was seen is what was moved is looked at when there is a segment to look at. */
    if (trail->imprint.resume > 0 || trail->damage_told > 0) {
        trail->moved_serial = serial;
        trail->moved = trail->imprint;
        trail->moved_damage_told = trail->damage_told;
    }
    gproc_trail_emptied(trail);
}

/* What was seen in the mailbox need not be shown again in the segment that it became. */
static void follow_move(struct gproc_trail *trail, const struct gproc_inflight *inflight)
{
    if (trail->moved_serial > trail->mark.serial &&
        gproc_inflight_continues(inflight, trail->moved_serial, &trail->moved)) {
        trail->mark.partial_serial = trail->moved_serial;
        trail->mark.partial_offset = trail->moved.resume;
        trail->mark.damage_told = trail->moved_damage_told;
    }
    trail->moved_serial = 0;
}

static int show_message(void *context, const struct gproc_source *source,
                        const struct gproc_message *message)
{
    const struct gproc_trail_visitor *visitor = context;

    return visitor->message(visitor->context, source, message);
}

static int show_damage(void *context, off_t offset, off_t size_bytes)
{
    const struct gproc_trail_visitor *visitor = context;

    return visitor->damage != NULL ? visitor->damage(visitor->context, true, offset, size_bytes)
                                   : 0;
}

/* 0, 1: there is something unsettled, or a negative errno. */
static int go_in_flight(struct gproc_trail *trail, const struct gproc_inflight *inflight,
                        const struct gproc_trail_visitor *visitor)
{
    const struct gproc_inflight_visitor inner = {
        .message = show_message,
        .damage = show_damage,
        .context = (void *)visitor, /* nobody writes to it */
    };

    if (trail->moved_serial != 0)
        follow_move(trail, inflight);
    return gproc_inflight_walk(inflight, &trail->mark, &inner);
}

/* Shows the damage of the mailbox behind the last message, up to `end`. */
static int tell_damage(struct gproc_trail *trail, off_t end,
                       const struct gproc_trail_visitor *visitor)
{
    off_t start = trail->imprint.resume;
    int result = 0;

    if (start < trail->damage_told)
        start = trail->damage_told;
    if (start >= end)
        return 0;
    if (visitor->damage != NULL)
        result = visitor->damage(visitor->context, false, start, end - start);
    if (result == 0)
        trail->damage_told = end;
    return result;
}

/* Shows the mailbox from where the trail stopped. As gproc_trail_go(), but -ESTALE as it is. */
static int show_mailbox(struct gproc_trail *trail, const struct gproc_source *source, bool certain,
                        const struct gproc_trail_visitor *visitor)
{
    struct gproc_message message;
    struct gproc_scan scan;
    int found, result;

    gproc_scan_init(&scan, source, trail->imprint.resume);
    do {
        found = gproc_scan_next(&scan, &message);
        if (found < 0)
            result = found == -ENODATA ? -ESTALE : found; /* it is shorter by now */
        else if (!certain && scan.unresolved >= 0)
            result = GPROC_TRAIL_DOUBT;
        else
            result = tell_damage(trail, found == 1 ? message.frame_offset : scan.position, visitor);
        if (result == 0 && found == 1) {
            result = visitor->message(visitor->context, source, &message);
            if (result == 0)
                gproc_imprint_note(&trail->imprint, &message);
        }
    } while (result == 0 && found == 1);
    gproc_scan_release(&scan);
    return result;
}

static int go_mailbox(struct gproc_trail *trail, const struct gproc_mailbox *mailbox, bool certain,
                      const struct gproc_trail_visitor *visitor)
{
    struct gproc_source source = gproc_mailbox_source(mailbox);
    enum gproc_imprint_change change;
    int result;

    if (trail->is_complete && gproc_imprint_is_unchanged(&trail->imprint, &mailbox->status))
        return GPROC_TRAIL_ALL;
    change = gproc_imprint_compare(&trail->imprint, &mailbox->status, &source);
    if (change == GPROC_IMPRINT_REFILLED && !certain)
        return GPROC_TRAIL_DOUBT;
    if (change == GPROC_IMPRINT_REFILLED || change == GPROC_IMPRINT_OTHER)
        gproc_trail_emptied(trail);
    trail->imprint.status = mailbox->status;
    result = show_mailbox(trail, &source, certain, visitor);
    trail->is_complete = result == GPROC_TRAIL_ALL;
    return result;
}

int gproc_trail_go(struct gproc_trail *trail, struct gproc_inflight *inflight,
                   struct gproc_mailbox *mailbox, bool certain,
                   const struct gproc_trail_visitor *visitor)
{
    int result = 0;

    if (inflight != NULL)
        result = go_in_flight(trail, inflight, visitor);
    if (result == 0 && mailbox != NULL)
        result = go_mailbox(trail, mailbox, certain, visitor);
    else if (result == 0)
        gproc_trail_emptied(trail);
    if (result == 1)
        return GPROC_TRAIL_DOUBT;
    return result == -ESTALE ? GPROC_TRAIL_ALL : result;
}
