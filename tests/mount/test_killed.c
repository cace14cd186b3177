/*
 * Whatever system call the daemon is killed at, no message that was sent is lost, at most what was
 * being handed over is seen twice, nothing is seen that was not sent, and the order stays.
 *
 * For each scenario the daemon is killed at the entry of every system call that it makes meanwhile,
 * in whichever thread, and at the exit of those that change something: one life for each. Then a
 * fresh daemon is mounted on what is left and everything is received from it.
 *
 * Longer than the house likes: most of it is the table of scenarios, told one by one.
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "leavings.h"
#include "ledger.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "rig.h"
#include "through.h"
#include "tracer.h"

enum {
    BOX = 4711,
    LEFT_BOX = 4720, /* the first of those for which a dead mount left something */
    SMALL = 20,
    LARGE = 100000, /* too large for an answer straight from the mailbox */
    HUGE = 300000,  /* copied in more than one piece */
    STOP_MS = 10000,
};

struct fixture;

/* What happens while the daemon is killed. */
struct scenario {
    const char *what;
    void (*prepare)(struct fixture *fixture); /* from behind, before there is a daemon; or NULL */
    void (*ready)(struct fixture *fixture);   /* by the client, before calls count; or NULL */
    void (*act)(struct fixture *fixture);     /* by the client, while they count */
    bool recovers;                            /* they count from the opening of the store on */
    bool ends;                                /* it is over when the daemon has ended by itself */
};

struct fixture {
    const struct scenario *scenario;
    struct rig rig;
    int held_fd; /* the client's, from `ready` on */
    bool counting;
    char at[64]; /* where it was killed */
};

/* A line of the table at the end. */
struct row {
    const char *what;
    unsigned calls;
    unsigned kills;
    struct ledger_totals totals;
};

static struct row rows[32];
static size_t rows_count;

/* --- A life ---------------------------------------------------------------------------------- */

/* Asks first for something, so that what belongs to the beginning of a mount is over. */
static void be_client(struct fixture *fixture)
{
    struct statvfs room;

    if (statvfs(fixture->rig.mount->mnt, &room) == 0) {
        if (fixture->scenario->ready != NULL)
            fixture->scenario->ready(fixture);
        fixture->rig.ledger->begun = true;
        fixture->scenario->act(fixture);
        fixture->rig.ledger->over = !fixture->scenario->ends;
    }
    _exit(0);
}

static bool counts(struct fixture *fixture, const struct tracer_stop *stop)
{
    const struct ledger *ledger = fixture->rig.ledger;

    if (!stop->is_call)
        return false;
    if (fixture->scenario->recovers)
        fixture->counting = fixture->counting || tracer_names(stop, ".gprocfs");
    else
        fixture->counting = ledger->begun && !ledger->over;
    return fixture->counting && (stop->is_entry || tracer_kind_of(stop->number) == TRACER_CHANGES);
}

/* Watches over the daemon up to stop number `last`, counted in `*stops`; what is wrong, or NULL.
 * `*over`: the scenario was over before. */
static const char *watch(struct fixture *fixture, unsigned last, unsigned *stops, bool *over)
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct tracer_stop stop = {0};
    bool has_client = false;

    for (;;) {
        enum tracer_event event = tracer_next(tracer, &stop, STOP_MS);

        *over = event == (fixture->scenario->ends ? TRACER_ENDED : TRACER_CLIENT);
        if (*over && event == TRACER_ENDED &&
            (!WIFEXITED(tracer->status) || WEXITSTATUS(tracer->status) != 0))
            return "the daemon failed";
        if (*over)
            return NULL;
        if (event == TRACER_ENDED)
            return "the daemon ended by itself";
        if (event == TRACER_LATE)
            return "nothing goes on";
        if (event != TRACER_STOP)
            continue;
        if (!has_client && tracer_is_waiting(tracer, &stop)) {
            has_client = true;
            tracer->client = process_fork(0);
            if (tracer->client == 0)
                be_client(fixture);
        }
        if (counts(fixture, &stop) && (*stops)++ == last) {
            snprintf(fixture->at, sizeof(fixture->at), "at stop %u, call %ld, %s", last,
                     stop.number, stop.is_entry ? "entry" : "exit");
            return NULL;
        }
        tracer_go_on(&stop);
    }
}

/* Until stop number `last`; true: the scenario was over before, and it is killed when at rest. */
static bool live_and_die(struct fixture *fixture, unsigned last, unsigned *stops)
{
    const char *wrong = rig_start(&fixture->rig, fixture->scenario->recovers);
    const char *of_end;
    bool over = false;

    *stops = 0;
    fixture->counting = false;
    snprintf(fixture->at, sizeof(fixture->at), "at rest");
    if (wrong == NULL)
        wrong = watch(fixture, last, stops, &over);
    of_end = rig_bury(&fixture->rig);
    ledger_killed(fixture->rig.ledger);
    if (wrong == NULL)
        wrong = of_end;
    if (wrong != NULL)
        fail_msg("%s, killed %s: %s", fixture->scenario->what, fixture->at, wrong);
    return over;
}

static void look(struct fixture *fixture, struct row *row)
{
    const char *wrong = rig_look(&fixture->rig, LEDGER_FAILED_SEEN, &row->totals);

    if (wrong != NULL)
        fail_msg("%s, killed %s: %s", fixture->scenario->what, fixture->at, wrong);
}

/* --- Scenarios ------------------------------------------------------------------------------- */

static void sent_behind(struct fixture *fixture, int box, size_t payload_bytes, int count)
{
    for (int i = 0; i < count; i++)
        (void)ledger_send_behind(fixture->rig.ledger, fixture->rig.mount, box, payload_bytes);
}

static void one_waits(struct fixture *fixture)
{
    sent_behind(fixture, BOX, SMALL, 1);
}

static void several_wait(struct fixture *fixture)
{
    sent_behind(fixture, BOX, SMALL, 4);
}

static void large_ones_wait(struct fixture *fixture)
{
    sent_behind(fixture, BOX, LARGE, 2);
    sent_behind(fixture, BOX, HUGE, 1);
}

static void small_and_large_ones_wait(struct fixture *fixture)
{
    sent_behind(fixture, BOX, SMALL, 3);
    sent_behind(fixture, BOX, HUGE, 1);
}

static void send_collected(struct fixture *fixture)
{
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_REPLACE, 1);
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_REPLACE, 2);
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, HUGE, THROUGH_REPLACE, 3);
}

static void send_each(struct fixture *fixture)
{
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_APPEND, 1);
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_APPEND, 1);
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, HUGE, THROUGH_APPEND, 1);
}

static void take(struct fixture *fixture)
{
    (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount, "", BOX, INT_MAX, false);
}

static void take_following(struct fixture *fixture)
{
    (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount, ".follow/", BOX, INT_MAX, false);
}

static void take_envelopes(struct fixture *fixture)
{
    (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount, ".envelope/", BOX, INT_MAX,
                         false);
}

/* Takes the first; the others are in flight then, but one that comes behind them. */
static void take_one(struct fixture *fixture)
{
    (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount, "", BOX, 1, false);
    sent_behind(fixture, BOX, SMALL, 1);
}

static int open_through(struct fixture *fixture)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%d", fixture->rig.mount->mnt, BOX);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void read_part(int fd)
{
    char part[5];

    (void)!read(fd, part, sizeof(part)); /* of a daemon that may be dead */
}

static void put_back(struct fixture *fixture)
{
    const struct timespec pause = {0, 1000000};
    int first = open_through(fixture);
    int second = open_through(fixture);

    read_part(first);
    read_part(second);
    (void)close(first);
    (void)close(second);
    while (!rig_all_is_closed(fixture->rig.mount))
        (void)nanosleep(&pause, NULL);
    take(fixture);
}

/* One has been taken, and of the next one a part. */
static void take_one_and_a_part(struct fixture *fixture)
{
    take_one(fixture);
    fixture->held_fd = open_through(fixture);
    read_part(fixture->held_fd);
}

static void end_daemon(struct fixture *fixture)
{
    (void)kill(fixture->rig.daemon, SIGTERM);
}

static void throw_away(struct fixture *fixture, int (*how)(const char *path))
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%d", fixture->rig.mount->mnt, BOX);
    fixture->rig.ledger->cleared = true;
    if (how(path) == 0)
        fixture->rig.ledger->emptied = true;
}

static int truncate_to_nothing(const char *path)
{
    return truncate(path, 0);
}

static void remove_box(struct fixture *fixture)
{
    throw_away(fixture, unlink);
}

static void truncate_box(struct fixture *fixture)
{
    throw_away(fixture, truncate_to_nothing);
}

static void look_at(struct fixture *fixture, const char *view)
{
    static char buffer[1 << 20];
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s/%d", fixture->rig.mount->mnt, view, BOX);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && read(fd, buffer, sizeof(buffer)) > 0)
        ;
    if (fd >= 0)
        (void)close(fd);
}

static void peek(struct fixture *fixture)
{
    look_at(fixture, ".peek");
}

static void list(struct fixture *fixture)
{
    look_at(fixture, ".list");
}

static void dead_mounts_left_something(struct fixture *fixture)
{
    leavings_make(fixture->rig.ledger, fixture->rig.mount, LEFT_BOX);
}

static void take_from_all(struct fixture *fixture)
{
    for (int box = LEFT_BOX; box < LEFT_BOX + LEAVINGS_BOXES; box++)
        (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount,
                             box % 2 == 0 ? "" : ".envelope/", box, INT_MAX, false);
}

/* --- Tests ----------------------------------------------------------------------------------- */

static const struct scenario sending[] = {
    {.what = "send by >", .act = send_collected},
    {.what = "send by >>", .act = send_each},
};

static const struct scenario taking[] = {
    {.what = "take the only one", .prepare = one_waits, .act = take},
    {.what = "take several", .prepare = several_wait, .act = take},
    {.what = "take large ones", .prepare = large_ones_wait, .act = take},
    {.what = "take from .follow", .prepare = several_wait, .act = take_following},
    {.what = "take from .envelope", .prepare = several_wait, .act = take_envelopes},
    {.what = "take large ones from .envelope", .prepare = large_ones_wait, .act = take_envelopes},
    {.what = "put back what was read in part", .prepare = several_wait, .act = put_back},
};

static const struct scenario unmounting[] = {
    {.what = "unmount, all is in flight",
     .prepare = small_and_large_ones_wait,
     .ready = take_one_and_a_part,
     .act = end_daemon,
     .ends = true},
};

static const struct scenario recovering[] = {
    {.what = "recover what dead mounts left",
     .prepare = dead_mounts_left_something,
     .act = take_from_all,
     .recovers = true},
};

static const struct scenario others[] = {
    {.what = "rm", .prepare = several_wait, .ready = take_one, .act = remove_box},
    {.what = "truncate", .prepare = several_wait, .ready = take_one, .act = truncate_box},
    {.what = ".peek", .prepare = several_wait, .ready = take_one, .act = peek},
    {.what = ".list", .prepare = several_wait, .ready = take_one, .act = list},
};

/* As it comes after each of these. */
static const struct scenario again = {
    .what = "recover, and be killed again",
    .act = take,
    .recovers = true,
};

static void begin(struct fixture *fixture, const struct scenario *scenario)
{
    rig_begin(&fixture->rig);
    fixture->scenario = scenario;
    if (scenario->prepare != NULL)
        scenario->prepare(fixture);
}

static struct row *new_row(const char *what)
{
    struct row *row = &rows[rows_count++];

    assert_true(rows_count <= sizeof(rows) / sizeof(rows[0]));
    row->what = what;
    return row;
}

static void kill_everywhere(void **state, const struct scenario scenarios[], size_t count)
{
    struct fixture fixture = {.held_fd = -1};

    rig_open(&fixture.rig, state);
    for (size_t i = 0; i < count; i++) {
        struct row *row = new_row(scenarios[i].what);
        bool over = false;

        for (unsigned stop = 0; !over; stop += mount_scale()) {
            begin(&fixture, &scenarios[i]);
            over = live_and_die(&fixture, stop, &row->calls);
            look(&fixture, row);
            row->kills++;
        }
        assert_true(row->calls > 5);
    }
    rig_close(&fixture.rig);
}

#define KILL_EVERYWHERE(state, scenarios)                                                          \
    kill_everywhere(state, scenarios, sizeof(scenarios) / sizeof((scenarios)[0]))

static void sending_loses_nothing_that_was_acknowledged(void **state)
{
    KILL_EVERYWHERE(state, sending);
}

static void taking_loses_nothing_and_repeats_one_at_most(void **state)
{
    KILL_EVERYWHERE(state, taking);
}

static void unmounting_loses_nothing(void **state)
{
    KILL_EVERYWHERE(state, unmounting);
}

static void recovering_what_dead_mounts_left_loses_nothing(void **state)
{
    KILL_EVERYWHERE(state, recovering);
}

static void throwing_away_and_looking_leave_the_rest_whole(void **state)
{
    KILL_EVERYWHERE(state, others);
}

/* The one that recovers is killed as well, at a call drawn by lot. */
static void killed_again_while_recovering_it_loses_nothing(void **state)
{
    struct fixture fixture = {.held_fd = -1};
    const struct scenario *const firsts[] = {&taking[1], &taking[6], &unmounting[0]};
    struct row *row = new_row(again.what);
    struct random random = {8};

    rig_open(&fixture.rig, state);
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        unsigned step = 3 * mount_scale();
        bool over = false;

        for (unsigned stop = 0; !over; stop += step) {
            unsigned stops;

            begin(&fixture, firsts[i]);
            over = live_and_die(&fixture, stop, &stops);
            fixture.scenario = &again;
            (void)live_and_die(&fixture, (unsigned)random_below(&random, 150), &row->calls);
            look(&fixture, row);
            row->kills += 2;
        }
    }
    rig_close(&fixture.rig);
}

static void print_rows(void)
{
    print_message("%-36s %6s %6s %5s %6s\n", "killed while it was to", "stops", "kills", "lost",
                  "twice");
    for (size_t i = 0; i < rows_count; i++)
        print_message("%-36s %6u %6u %5u %6u\n", rows[i].what, rows[i].calls, rows[i].kills,
                      rows[i].totals.lost, rows[i].totals.twice);
}

int main(void)
{
    static struct mount_options options = {.place_kib = 65536};
    /* A part of what was just being written may be there still. */
    static struct mount_options torn = {.place_kib = 65536, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(sending_loses_nothing_that_was_acknowledged, &torn),
        MOUNT_TEST_WITH(taking_loses_nothing_and_repeats_one_at_most, &options),
        MOUNT_TEST_WITH(unmounting_loses_nothing, &options),
        MOUNT_TEST_WITH(recovering_what_dead_mounts_left_loses_nothing, &torn),
        MOUNT_TEST_WITH(throwing_away_and_looking_leave_the_rest_whole, &options),
        MOUNT_TEST_WITH(killed_again_while_recovering_it_loses_nothing, &options),
    };
    int failed;

    if (!mount_possible())
        return MOUNT_SKIPPED;
    rig_isolate();
    if (geteuid() == 0)
        options.place = torn.place = MOUNT_ON_TMPFS;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_rows();
    return failed;
}
