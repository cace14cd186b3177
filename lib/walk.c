#include "walk.h"

#include "queue.h"
#include "step.h"

/* Whether its messages are surely in flight and nowhere else. */
static bool is_settled(const struct gproc_inflight *inflight,
                       const struct gproc_inflight_segment *segment)
{
    return segment->file.state == GPROC_SEGMENT_READY &&
           !gproc_queue_is_superseded(inflight, segment);
}

static int tell(const struct gproc_inflight_visitor *visitor, struct gproc_inflight_mark *mark,
                const struct gproc_step_damage *damage)
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
    struct gproc_step_damage damage;
    int found, result;

    gproc_step_begin(&scan, file, mark->partial_offset);
    do {
        result = found = gproc_step(&scan, file, &message, &damage);
        if (found >= 0)
            result = tell(visitor, mark, &damage);
        if (result == 0 && found == GPROC_STEP_MESSAGE)
            result = visitor->message(visitor->context, &source, &message);
        if (result == 0)
            mark->partial_offset = scan.position;
    } while (result == 0 && found != GPROC_STEP_END);
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
