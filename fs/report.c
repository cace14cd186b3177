#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

struct report {
    struct opened opened;
    struct gprocfs *fs;
    char *text;
    size_t size_bytes;
};

static void close_report(struct opened *opened)
{
    struct report *report = (struct report *)opened; /* its first field */

    free(report->text);
    free(report);
}

int report_open(struct gprocfs *fs, struct report **report)
{
    struct report *made = calloc(1, sizeof(*made));
    int result;

    if (made == NULL)
        return -ENOMEM;
    stats_set(&fs->stats, STATS_COLLECTED_BYTES, (int64_t)atomic_load(&fs->collected_bytes));
    result = stats_print(&fs->stats, &made->text, &made->size_bytes);
    if (result < 0) {
        free(made);
        return result;
    }
    made->fs = fs;
    opened_add(&fs->opened, &made->opened, close_report);
    *report = made;
    return 0;
}

void report_close(struct report *report)
{
    opened_remove(&report->fs->opened, &report->opened);
}

void report_read(const struct report *report, fuse_req_t req, size_t size_bytes, off_t offset)
{
    char text[STATS_TEXT_MOST_BYTES];
    size_t part = 0;

    if (offset >= 0 && (uint64_t)offset < report->size_bytes)
        part = report->size_bytes - (size_t)offset;
    if (part > size_bytes)
        part = size_bytes;
    /* A copy: with the answer the file may be closed, by another thread, before this one is back.
     */
    if (part > 0)
        memcpy(text, report->text + offset, part);
    (void)fuse_reply_buf(req, text, part); /* whoever has gone needs no answer */
}
