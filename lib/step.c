#include "step.h"

void gproc_step_begin(struct gproc_scan *scan, const struct gproc_segment *file, off_t position)
{
    struct gproc_source source = gproc_segment_source(file);

    gproc_scan_release(scan);
    gproc_scan_init(scan, &source, position);
}

int gproc_step(struct gproc_scan *scan, const struct gproc_segment *file,
               struct gproc_message *message, struct gproc_step_damage *damage)
{
    off_t start = gproc_segment_skip(file, scan->position);
    off_t end, after;
    int result;

    if (start != scan->position)
        gproc_step_begin(scan, file, start);
    result = gproc_scan_next(scan, message);
    end = result == GPROC_STEP_MESSAGE ? message->frame_offset : scan->position;
    damage->offset = start;
    damage->size_bytes = end - start;
    if (result != GPROC_STEP_MESSAGE)
        return result;
    after = gproc_segment_skip(file, end);
    if (after == end)
        return GPROC_STEP_MESSAGE;
    gproc_step_begin(scan, file, after);
    return GPROC_STEP_DELIVERED;
}
