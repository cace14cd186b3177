#include "report.h"

#include <errno.h>
#include <stdlib.h>

#include "stats.h"

struct report {
    char *text;
    size_t size_bytes;
};

int report_open(struct gprocfs *fs, struct report **report)
{
    struct report *made = calloc(1, sizeof(*made));
    int result;

    if (made == NULL)
        return -ENOMEM;
    stats_set(&fs->stats, STATS_COLLECTED_BYTES, (int64_t)atomic_load(&fs->collected_bytes));
    result = stats_print(&fs->stats, &made->text, &made->size_bytes);
    if (result < 0)
        free(made);
    else
        *report = made;
    return result;
}

void report_close(struct report *report)
{
    free(report->text);
    free(report);
}

void report_read(const struct report *report, fuse_req_t req, size_t size_bytes, off_t offset)
{
    size_t left = 0;

    if (offset >= 0 && (uint64_t)offset < report->size_bytes)
        left = report->size_bytes - (size_t)offset;
    /* Whoever has gone needs no answer. */
    (void)fuse_reply_buf(req, left > 0 ? report->text + offset : NULL,
                         left < size_bytes ? left : size_bytes);
}
