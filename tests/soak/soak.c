/*
 * soak [-k KILL_EVERY_SECONDS] [-s SECONDS] REPORT - 32 processes do everything that can be done
 * with a mount, for as long as one likes, and the daemon is killed and mounted again every now and
 * then, and in every fifth of these times unmounted and mounted in between.
 *
 * What the crowd sends and receives is counted message for message (tally.h). The report goes to
 * the file REPORT, a line of it to standard output whenever one is done. SIGINT and SIGTERM end the
 * run early, with a report of what there was. Exit status 1: a promise was broken, or nothing could
 * be run; 2: usage.
 *
 * The load is easy: the machine stays usable.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "crowd.h"
#include "gauge.h"
#include "mount.h"
#include "process.h"
#include "report.h"
#include "rig.h"
#include "temporary.h"

enum {
    KILL_EVERY_S = 60,
    KILL_EVERY_MOST_S = 120, /* the keeper of a mount is not that patient */
    UNMOUNT_EVERY = 5,       /* in every fifth of these times */
    FIRST_OF = 6,            /* the first sample is after that part of it */
    PLACE_KIB = 1 << 18,
    STEP_MS = 1000,
    IDLE_MS = 15000,
};

struct soak {
    struct mount *mount;
    struct crowd crowd;
    struct report report;
    int gate; /* see crowd_gate() */
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* Sleeps until then, or until a signal ends it all. */
static void sleep_until(int64_t at_ms)
{
    int64_t left_ms;

    while (!interrupted && (left_ms = at_ms - process_clock_ms()) > 0) {
        /* Not at one go: a signal may come right before. */
        int64_t step_ms = left_ms < STEP_MS ? left_ms : STEP_MS;
        struct timespec wait = {step_ms / 1000, step_ms % 1000 * 1000000};

        (void)nanosleep(&wait, NULL);
    }
}

static bool begin_life(struct soak *soak)
{
    /* The program's time, that the keeper looks at, begins anew with this. */
    if (!mount_possible() || mount_start(soak->mount) != 0)
        return false;
    lives_begin(soak->crowd.lives);
    return true;
}

/* Ends the daemon's life, by a kill or by an unmount, and begins the next. */
static bool end_life(struct soak *soak, bool by_kill)
{
    bool goes_on;

    while (flock(soak->gate, LOCK_EX) != 0 && errno == EINTR)
        ;
    lives_end(soak->crowd.lives, by_kill);
    if (by_kill)
        mount_kill(soak->mount);
    else if (mount_stop(soak->mount) != 0)
        soak->report.ended_well = false;
    goes_on = begin_life(soak);
    (void)flock(soak->gate, LOCK_UN); /* it is held */
    return goes_on;
}

/* From one kill to the next. False: it could not be mounted again. */
static bool run_row(struct soak *soak, int64_t start_ms, struct report_row *row, int64_t begin_ms,
                    int64_t end_ms)
{
    const struct tally *tally = soak->crowd.tally;
    size_t number = (size_t)(row - soak->report.rows);
    bool goes_on = true;

    /* Until the end of the row these are what has been before it. */
    row->sent = atomic_load(&tally->sent);
    row->received = atomic_load(&tally->received);
    row->twice = atomic_load(&tally->twice);
    row->steady = number % UNMOUNT_EVERY != UNMOUNT_EVERY - 1;
    sleep_until(process_clock_ms() + (end_ms - begin_ms) / FIRST_OF);
    row->first = gauge_take(soak->mount);
    if (!row->steady) {
        sleep_until(begin_ms + (end_ms - begin_ms) / 2);
        goes_on = end_life(soak, false);
        row->unmounts++;
    }
    if (goes_on)
        sleep_until(end_ms);
    row->last = gauge_take(soak->mount);
    if (goes_on && !interrupted) {
        goes_on = end_life(soak, true);
        row->kills++;
    }
    crowd_look_after(&soak->crowd);
    for (unsigned i = 0; i < tally->senders_count; i++)
        row->next[i] = atomic_load(&soak->crowd.shared->next[i]);
    row->sent = atomic_load(&tally->sent) - row->sent;
    row->received = atomic_load(&tally->received) - row->received;
    row->twice = atomic_load(&tally->twice) - row->twice;
    row->end_s = (unsigned)((process_clock_ms() - start_ms) / 1000);
    return goes_on;
}

static bool run_rows(struct soak *soak)
{
    struct report *report = &soak->report;
    int64_t start_ms = process_clock_ms(), step_ms = (int64_t)report->kill_every_s * 1000;
    bool goes_on = true;
    unsigned shown = 0;

    report_print_heading(stdout);
    fflush(stdout);
    for (size_t i = 0; i < report->rows_most && goes_on && (i == 0 || !interrupted); i++) {
        goes_on = run_row(soak, start_ms, &report->rows[i], start_ms + (int64_t)i * step_ms,
                          start_ms + (int64_t)(i + 1) * step_ms);
        report->rows_count = i + 1;
        report_print_row(stdout, &report->rows[i]);
        shown = report_print_complaints(stdout, &soak->crowd, shown);
        fflush(stdout);
    }
    return goes_on;
}

/* What it uses when nobody is there. It keeps files open for a moment after they were used: that is
 * waited for, not for ever. */
static struct gauge take_idle(const struct soak *soak)
{
    int64_t deadline_ms = process_clock_ms() + IDLE_MS;
    const struct timespec pause = {0, 50000000};
    long usual = soak->report.idle_first.values[GAUGE_DESCRIPTORS];
    struct gauge gauge = gauge_take(soak->mount);

    while (gauge.values[GAUGE_DESCRIPTORS] > usual && process_clock_ms() < deadline_ms) {
        (void)nanosleep(&pause, NULL);
        gauge = gauge_take(soak->mount);
    }
    return gauge;
}

/* The crowd goes home, and what it has left is received. */
static void finish(struct soak *soak)
{
    struct report *report = &soak->report;
    struct report_row *last = &report->rows[report->rows_count - 1];

    lives_end(soak->crowd.lives, false);
    /* Readers that wait hear of it by the end of the mount. */
    if (mount_stop(soak->mount) != 0)
        report->ended_well = false;
    lives_finish(soak->crowd.lives);
    crowd_join(&soak->crowd);
    for (unsigned i = 0; i < soak->crowd.tally->senders_count; i++)
        last->next[i] = atomic_load(&soak->crowd.shared->next[i]);
    atomic_store(&soak->crowd.lives->over, false);
    if (!begin_life(soak)) {
        report->ended_well = false;
        return;
    }
    crowd_receive_rest(&soak->crowd);
    report->store_clean = rig_store_is_clean(soak->mount);
    report->idle_last = take_idle(soak);
    if (mount_stop(soak->mount) != 0)
        report->ended_well = false;
    report->store_clean =
        report->store_clean &&
        !temporary_exists(mount_path(soak->mount, "%s/.gprocfs", soak->mount->mail));
}

/* Nothing of what is done here is worth a line in it. */
static bool log_is_empty(const struct mount *mount)
{
    struct stat status;

    return stat(mount->log, &status) == 0 && status.st_size == 0;
}

static bool write_report(struct soak *soak, const char *path)
{
    FILE *to = fopen(path, "we");
    bool kept = to != NULL && report_write(&soak->report, to);

    if (to == NULL || fclose(to) != 0) {
        perror(path);
        return false;
    }
    return kept;
}

/* All but the mount is there. False: a promise was broken. */
static bool run(struct soak *soak, const char *path)
{
    struct crowd *crowd = &soak->crowd;
    struct statvfs answer;
    bool kept = false;

    lives_begin(crowd->lives);
    /* It is mounted before it has opened all that it needs, and answers after that. */
    if (statvfs(soak->mount->mnt, &answer) != 0) {
        perror("soak: the mount");
        return false;
    }
    soak->report.idle_first = gauge_take(soak->mount);
    soak->report.ended_well = true;
    if (crowd_start(crowd) != 0) {
        perror("soak: the crowd does not start");
        return false;
    }
    soak->gate = open(crowd_gate(soak->mount), O_RDONLY | O_CLOEXEC);
    if (soak->gate < 0) {
        perror("soak: the gate");
        return false;
    }
    soak->report.ended_well = run_rows(soak) && soak->report.ended_well;
    finish(soak);
    soak->report.log_empty = log_is_empty(soak->mount);
    kept = write_report(soak, path);
    close(soak->gate);
    return kept;
}

static void usage(void)
{
    fprintf(stderr, "usage: soak [-k KILL_EVERY_SECONDS] [-s SECONDS] REPORT\n");
    exit(2);
}

static unsigned number_of(const char *text, unsigned most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || value == 0 || value > most)
        usage();
    return (unsigned)value;
}

int main(int argc, char *argv[])
{
    static struct mount_options options = {.place_kib = PLACE_KIB};
    unsigned kill_every_s = KILL_EVERY_S, seconds = 3600;
    struct soak soak = {.gate = -1};
    void *state = &options;
    bool kept = false;
    int option;

    while ((option = getopt(argc, argv, "k:s:")) != -1) {
        if (option == 'k')
            kill_every_s = number_of(optarg, KILL_EVERY_MOST_S);
        else if (option == 's')
            seconds = number_of(optarg, 10000000);
        else
            usage();
    }
    if (optind + 1 != argc)
        usage();
    if (!mount_possible())
        return EXIT_FAILURE;
    if (kill_every_s > seconds)
        kill_every_s = seconds;
    (void)signal(SIGINT, interrupt); /* cannot fail for signals that exist */
    (void)signal(SIGTERM, interrupt);
    /*
     * The allocator's caches, one for each of many threads, fill up so slowly that they would hide
     * a leak of the daemon's.
     */
    (void)setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 0);
    (void)setenv("MALLOC_ARENA_MAX", "1", 0);
    rig_isolate();
    options.seconds = 2 * kill_every_s;
    if (geteuid() == 0)
        options.place = MOUNT_ON_TMPFS;
    soak.crowd.lives = lives_new();
    soak.crowd.tally = tally_new(crowd_senders(), crowd_each_most(seconds));
    if (soak.crowd.lives == NULL || soak.crowd.tally == NULL ||
        report_init(&soak.report, &soak.crowd, kill_every_s, seconds / kill_every_s) != 0 ||
        mount_setup(&state) != 0) {
        fprintf(stderr, "soak: nothing can be run here\n");
        return EXIT_FAILURE;
    }
    soak.mount = soak.crowd.mount = state;
    kept = run(&soak, argv[optind]);
    /* It says so where the log was not empty. */
    if (mount_teardown(&state) != 0)
        kept = false;
    report_release(&soak.report);
    return kept ? EXIT_SUCCESS : EXIT_FAILURE;
}
