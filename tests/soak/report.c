#include "report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "gproc.h"

enum {
    ROWS_LEAST = 4,    /* fewer tell nothing of growth from one daemon to the next */
    LIFE_LEAST_S = 30, /* before, a daemon grows to its usual size */
};

int report_init(struct report *report, struct crowd *crowd, unsigned kill_every_s, size_t rows_most)
{
    *report = (struct report){
        .crowd = crowd,
        .started = time(NULL),
        .kill_every_s = kill_every_s,
        .rows = calloc(rows_most, sizeof(struct report_row)),
        .rows_most = rows_most,
    };
    return report->rows != NULL ? 0 : -1;
}

void report_release(struct report *report)
{
    free(report->rows);
}

void report_print_heading(FILE *to)
{
    fprintf(to, "%54s%-14s%-14s%s\n", "", "RSS KiB", "descriptors", "files");
    fprintf(to, "%8s%9s%9s%6s%6s%6s%9s  %-6s%-6s  %-6s%-6s  %-6s%s\n", "at s", "sent", "received",
            "twice", "lost", "kills", "unmounts", "first", "last", "first", "last", "first",
            "last");
}

/* But for what a daemon uses. */
static void print_counts(FILE *to, const struct report_row *row)
{
    fprintf(to, "%9lu%9lu%6lu%6lu%6u%9u", row->sent, row->received, row->twice, row->lost,
            row->kills, row->unmounts);
}

void report_print_row(FILE *to, const struct report_row *row)
{
    fprintf(to, "%8u", row->end_s);
    print_counts(to, row);
    for (enum gauge_id id = 0; id < GAUGES; id++)
        fprintf(to, "  %-6ld%-*ld", row->first.values[id], id + 1 < GAUGES ? 6 : 0,
                row->last.values[id]);
    fputc('\n', to);
}

unsigned report_print_complaints(FILE *to, const struct crowd *crowd, unsigned from)
{
    unsigned count = atomic_load(&crowd->shared->complaints_count);

    if (count > CROWD_COMPLAINTS_MOST)
        count = CROWD_COMPLAINTS_MOST; /* of more there is no text */
    for (; from < count; from++)
        fprintf(to, "         %s\n", crowd->shared->complaints[from]);
    return count;
}

/* --- Before the table -------------------------------------------------------------------------- */

/* What the daemon's allocator was told. */
static void write_setting(FILE *to, const char *name)
{
    const char *value = getenv(name);

    if (value != NULL)
        fprintf(to, "The daemon ran with %s=%s.\n", name, value);
}

static void write_head(const struct report *report, FILE *to)
{
    const char *what;
    unsigned count;
    unsigned long done;
    struct utsname kernel;
    char started[64] = "";
    struct tm utc;

    if (gmtime_r(&report->started, &utc) != NULL)
        (void)strftime(started, sizeof(started), "%Y-%m-%d %H:%M:%S UTC", &utc);
    fprintf(to, "gprocfs %s, a long run under mixed load\n\n", gproc_version());
    fprintf(to, "start      %s\n", started);
    fprintf(to, "duration   %u s, the daemon is killed every %u s\n",
            report->rows_count > 0 ? report->rows[report->rows_count - 1].end_s : 0,
            report->kill_every_s);
    if (uname(&kernel) == 0)
        fprintf(to, "kernel     %s %s, %ld processors\n", kernel.sysname, kernel.release,
                sysconf(_SC_NPROCESSORS_ONLN));
    fprintf(to, "mailboxes  %d, on %s\n\n", CROWD_BOXES,
            report->crowd->mount->options->place == MOUNT_ON_TMPFS ? "tmpfs" : "disk");
    fprintf(to, "%d processes:\n", CROWD_COUNT);
    for (unsigned i = 0; crowd_kind(report->crowd, i, &what, &count, &done); i++)
        fprintf(to, "  %2u %-50s %9lu\n", count, what, done);
    fprintf(to,
            "\nA line is the time from one kill to the next; messages of that time. Seen twice is\n"
            "what was in hand at a kill. RSS, open descriptors and files in .gprocfs: some time\n"
            "after it was mounted, and right before the kill.\n");
    /* Only what is so: who sets these himself measures something else. */
    write_setting(to, "GLIBC_TUNABLES");
    write_setting(to, "MALLOC_ARENA_MAX");
    fputc('\n', to);
}

/* --- What was promised ------------------------------------------------------------------------- */

/* One promise. Returns whether it was kept. */
static bool promise(FILE *to, bool kept, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool promise(FILE *to, bool kept, const char *format, ...)
{
    va_list arguments;

    fprintf(to, "  %-7s", kept ? "kept" : "BROKEN");
    va_start(arguments, format);
    vfprintf(to, format, arguments);
    va_end(arguments);
    fputc('\n', to);
    return kept;
}

/* How much the lives' last values, or their growth from first to last, are. */
static long median_of(const struct report *report, enum gauge_id id, size_t from, size_t to,
                      bool growth)
{
    long *numbers = calloc(to - from + 1, sizeof(*numbers));
    size_t count = 0;
    long median = -1;

    for (size_t i = from; numbers != NULL && i < to; i++) {
        const struct report_row *row = &report->rows[i];

        if (!row->steady || row->first.values[id] < 0 || row->last.values[id] < 0)
            continue;
        numbers[count++] = growth ? labs(row->last.values[id] - row->first.values[id]) *
                                        (row->last.values[id] > row->first.values[id])
                                  : row->last.values[id];
    }
    if (count > 0)
        median = gauge_median(numbers, count);
    free(numbers);
    return median;
}

static bool judge_growth(const struct report *report, FILE *to)
{
    /* Under a sanitizer memory tells nothing. */
    enum gauge_id first = mount_is_sanitized() ? GAUGE_DESCRIPTORS : GAUGE_RESIDENT_KIB;
    size_t count = report->rows_count;
    bool kept = true;

    for (enum gauge_id id = first; report->kill_every_s >= LIFE_LEAST_S && id < GAUGES; id++) {
        long within = median_of(report, id, 0, count, true);

        kept &= promise(to, within >= 0 && within <= gauge_slack(id),
                        "%s: grow by %ld from first to last in one daemon's life (median)",
                        gauge_name(id), within);
    }
    for (enum gauge_id id = first; count >= ROWS_LEAST && id < GAUGES; id++) {
        long before = median_of(report, id, 0, count / 2, false);
        long after = median_of(report, id, count / 2, count, false);

        kept &= promise(to, before >= 0 && after >= 0 && after - before <= gauge_slack(id),
                        "%s: %ld at the end of a life in the first half of the run, %ld in the "
                        "second",
                        gauge_name(id), before, after);
    }
    for (enum gauge_id id = GAUGE_DESCRIPTORS; id < GAUGES; id++)
        kept &= promise(to, report->idle_last.values[id] <= report->idle_first.values[id],
                        "%s: %ld without anybody before it all, %ld after it", gauge_name(id),
                        report->idle_first.values[id], report->idle_last.values[id]);
    return kept;
}

static bool judge_messages(const struct report *report, FILE *to, unsigned kills)
{
    const struct crowd *crowd = report->crowd;
    const struct tally *tally = crowd->tally;
    const unsigned *end = report->rows[report->rows_count - 1].next;
    struct tally_account all = tally_account(tally, NULL, end);
    unsigned strange = atomic_load(&tally->strange), disorder = atomic_load(&tally->disorder);
    bool kept = true;

    fprintf(
        to,
        "%lu messages sent, %lu without an answer, %lu given up by a killed sender; %u kills\n\n",
        all.sent, all.unanswered, all.withdrawn, kills);
    kept &= promise(to, all.lost == 0, "%lu lost", all.lost);
    kept &= promise(to, all.doubled == 0,
                    "%lu seen twice without having been in hand at a kill (%lu that had)",
                    all.doubled, all.twice - all.doubled);
    kept &= promise(to, all.forged == 0, "%lu seen of those that were never sent", all.forged);
    kept &= promise(to, strange == 0, "%u seen that are no message of anybody", strange);
    kept &= promise(to, disorder == 0, "%u out of order", disorder);
    return kept;
}

static bool judge_rest(const struct report *report, FILE *to)
{
    const struct crowd_shared *shared = report->crowd->shared;
    unsigned complaints = atomic_load(&shared->complaints_count);
    const char *what;
    unsigned count;
    unsigned long done;
    bool all_worked = true, kept = true;

    for (unsigned i = 0; crowd_kind(report->crowd, i, &what, &count, &done); i++)
        all_worked = all_worked && done > 0;
    kept &= promise(to, all_worked, "every kind of process did something");
    kept &= promise(to, report->store_clean, "nothing is left in flight at the end");
    kept &= promise(to, report->ended_well, "every mount and clean unmount went well");
    kept &= promise(to, report->log_empty, "the daemon's log is empty");
    kept &= promise(to, complaints == 0, "%u errors and wrong answers while the daemon lived",
                    complaints);
    (void)report_print_complaints(to, report->crowd, 0);
    return kept;
}

/* What was sent in a row's time is known to be lost only now. */
static void find_losses(struct report *report)
{
    const unsigned *from = NULL;

    for (size_t i = 0; i < report->rows_count; i++) {
        report->rows[i].lost = tally_account(report->crowd->tally, from, report->rows[i].next).lost;
        from = report->rows[i].next;
    }
}

bool report_write(struct report *report, FILE *to)
{
    struct report_row total = {.end_s = 0};
    bool kept = true;

    find_losses(report);
    write_head(report, to);
    report_print_heading(to);
    for (size_t i = 0; i < report->rows_count; i++) {
        const struct report_row *row = &report->rows[i];

        report_print_row(to, row);
        total.sent += row->sent;
        total.received += row->received;
        total.twice += row->twice;
        total.lost += row->lost;
        total.kills += row->kills;
        total.unmounts += row->unmounts;
    }
    fprintf(to, "%8s", "total");
    print_counts(to, &total);
    fputs("\n\n", to);
    kept &= judge_messages(report, to, total.kills);
    kept &= judge_growth(report, to);
    kept &= judge_rest(report, to);
    fprintf(to, "\nverdict: %s\n", kept ? "every promise was kept" : "A PROMISE WAS BROKEN");
    return kept;
}
