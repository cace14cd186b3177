/*
 * Whatever system call of the daemon fails, its caller gets an error or success, never silence;
 * what was said to be sent is delivered, what was not is not; mailboxes stay whole; the daemon
 * serves the next request, loses no descriptor and ends well.
 *
 * For each scenario every call on files that the daemon makes meanwhile fails, in turn, with each
 * errno that fits it: the call is not done, and returns that. Reads and writes also do less than
 * they are asked to; and a disk is full in the midst of a frame.
 *
 * Left out are calls on the FUSE device, and some more: see plan.h.
 *
 * Longer than the house likes: the scenarios are most of it, told one by one.
 */
#include <errno.h>
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "leavings.h"
#include "ledger.h"
#include "mount.h"
#include "plan.h"
#include "process.h"
#include "rig.h"
#include "temporary.h"
#include "through.h"
#include "tracer.h"

enum {
    BOX = 4711,
    LEFT_BOX = 4720,
    SMALL = 20,
    LARGE = 100000, /* not answered straight from the mailbox */
    RUN_MS = 8000,  /* more than the daemon waits for a lock: the usual is at once */
    CLOSED_MS = 4000,
};

struct fixture;

struct scenario {
    const char *what;
    void (*prepare)(struct fixture *fixture);
    void (*ready)(struct fixture *fixture);
    void (*act)(struct fixture *fixture);
    bool takes_all; /* where no call of the client fails, it has everything */
};

struct fixture {
    const struct scenario *scenario;
    struct rig rig;
    struct plan plan;
    volatile unsigned *descriptors; /* shared: what the daemon has when it is at rest */
    bool of_threads;                /* only what threads need fails */
    unsigned failures;
};

struct row {
    const char *what;
    unsigned calls;
    unsigned faults;
    unsigned errors;
    struct ledger_totals totals;
    unsigned leaked;
};

static struct row rows[32];
static size_t rows_count;

/* --- The client ------------------------------------------------------------------------------ */

/* What a client came upon, as its exit status. */
enum verdict {
    GOOD = 0,
    TORN,     /* the mailbox holds something else than whole frames */
    REFUSED,  /* the next request was not served */
    UNCLOSED, /* the daemon has not heard of a close */
    LEAKED,   /* the daemon has more descriptors than before */
    UNCLEAN,  /* something is left in flight */
    SILENT,   /* no error, and not everything that was there */
};

static unsigned count_descriptors(pid_t daemon)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon);
    return (unsigned)temporary_count(path);
}

static bool await(bool (*is_so)(struct fixture *fixture), struct fixture *fixture)
{
    const struct timespec pause = {0, 1000000};
    int64_t deadline_ms = process_clock_ms() + CLOSED_MS;

    while (!is_so(fixture)) {
        if (process_clock_ms() > deadline_ms)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static bool is_closed(struct fixture *fixture)
{
    return rig_all_is_closed(fixture->rig.mount);
}

static bool is_as_before(struct fixture *fixture)
{
    unsigned now = count_descriptors(fixture->rig.daemon);

    if (*fixture->descriptors == 0)
        *fixture->descriptors = now; /* the first run, without a fault */
    return now <= *fixture->descriptors;
}

static bool is_whole(struct mount *mount, int box)
{
    struct behind_message message;
    uint8_t *bytes;
    ssize_t left = behind_read(mount, box, &bytes);
    const uint8_t *at = bytes;
    ssize_t frame_bytes = 0;

    while (left > 0 && (frame_bytes = behind_parse(at, (size_t)left, &message)) > 0) {
        at += frame_bytes;
        left -= frame_bytes;
    }
    free(bytes);
    return frame_bytes >= 0;
}

static bool has_everything(const struct ledger *ledger)
{
    for (unsigned i = 0; i < ledger->count; i++) {
        if (ledger->entries[i].state == LEDGER_SENT && ledger->entries[i].before == 0)
            return false;
    }
    return true;
}

/* After the fault: is everything as it should be? */
static enum verdict look_around(struct fixture *fixture)
{
    const struct ledger *ledger = fixture->rig.ledger;
    struct mount *mount = fixture->rig.mount;
    bool silent = fixture->scenario->takes_all && ledger->errors == 0 && !has_everything(ledger);
    bool whole = is_whole(mount, BOX);

    if (!await(is_closed, fixture))
        return UNCLOSED;
    if (rig_receive_all(&fixture->rig) != NULL)
        return REFUSED;
    if (!await(is_closed, fixture))
        return UNCLOSED;
    if (!await(is_as_before, fixture))
        return LEAKED;
    if (!rig_store_is_clean(mount))
        return UNCLEAN;
    if (!whole)
        return TORN;
    return silent ? SILENT : GOOD;
}

/* A daemon starts more threads, and opens what it keeps open, when it is first asked. */
static void be_client(struct fixture *fixture)
{
    struct statvfs room;

    (void)statvfs(fixture->rig.mount->mnt, &room);
    if (fixture->scenario->ready != NULL)
        fixture->scenario->ready(fixture);
    fixture->rig.ledger->begun = true;
    fixture->scenario->act(fixture);
    fixture->rig.ledger->over = true;
    _exit((int)look_around(fixture));
}

static const char *say(int status)
{
    static const char *const texts[] = {
        [TORN] = "the mailbox is not whole",
        [REFUSED] = "the next request is not served",
        [UNCLOSED] = "a close never arrives",
        [LEAKED] = "a descriptor is leaked",
        [UNCLEAN] = "something is left in flight",
        [SILENT] = "no error, and not everything that was there",
    };

    if (!WIFEXITED(status) || (size_t)WEXITSTATUS(status) >= sizeof(texts) / sizeof(texts[0]))
        return "a client failed";
    return texts[WEXITSTATUS(status)];
}

/* --- A run ----------------------------------------------------------------------------------- */

static void say_where(const struct fixture *fixture, const char *wrong)
{
    const struct plan *plan = &fixture->plan;
    print_error("%s: call %ld, number %u of them, %s: %s: %s\n", fixture->scenario->what,
                plan->number, plan->which, plan_say(plan),
                plan->fault.error != 0 ? strerror(plan->fault.error) : "-", wrong);
}

/* What may be twice or torn after this fault. */
static unsigned leave_for(const struct plan *plan)
{
    /* What notes that a message has been handed over has failed, which the log says. */
    return plan->number == SYS_ftruncate || plan->number == SYS_pwrite64 ? LEDGER_ANY_TWICE : 0;
}

/* Serves the daemon until the client has ended; what is wrong, or NULL. */
static const char *serve_client(struct fixture *fixture)
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct ledger *ledger = fixture->rig.ledger;
    int64_t deadline_ms = process_clock_ms() + RUN_MS * 2;
    struct tracer_stop stop = {0};

    tracer->client = process_fork(0);
    if (tracer->client == 0)
        be_client(fixture);
    while (process_clock_ms() < deadline_ms) {
        enum tracer_event event = tracer_next(tracer, &stop, RUN_MS);

        if (event == TRACER_CLIENT)
            return say(tracer->status);
        if (event == TRACER_ENDED)
            return "the daemon is gone";
        if (event == TRACER_LATE)
            return "silence";
        if (!plan_follow(&fixture->plan, tracer, &stop,
                         ledger->begun && !ledger->over &&
                             (!fixture->of_threads || plan_is_of_threads(&stop))))
            return "the fault cannot be had";
        tracer_go_on(&stop);
    }
    return "no end";
}

/* Counts what came of a run. */
static void enter(struct fixture *fixture, struct row *row, const char *wrong)
{
    const struct plan *plan = &fixture->plan;

    row->calls = plan->seen > row->calls ? plan->seen : row->calls;
    row->faults += plan->fault.how != NO_FAULT;
    row->errors += fixture->rig.ledger->errors > 0;
    if (wrong == NULL)
        return;
    say_where(fixture, wrong);
    row->leaked += strcmp(wrong, say(LEAKED << 8)) == 0;
    fixture->failures++;
}

/* Until the daemon waits for its first request. */
static const char *await_mounted(struct fixture *fixture)
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct tracer_stop stop = {0};
    bool waiting = false;

    while (!waiting) {
        if (tracer_next(tracer, &stop, RUN_MS) != TRACER_STOP)
            return "the daemon does not mount";
        waiting = tracer_is_waiting(tracer, &stop);
        tracer_go_on(&stop);
    }
    return NULL;
}

/* SIGTERM, and what comes of it. `counts`: now is when the fault is to be. */
static const char *end_well(struct fixture *fixture, bool counts)
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct tracer_stop stop = {0};

    (void)kill(tracer->daemon, SIGTERM);
    for (;;) {
        enum tracer_event event = tracer_next(tracer, &stop, RUN_MS);

        if (event == TRACER_ENDED)
            return WIFEXITED(tracer->status) && WEXITSTATUS(tracer->status) == 0
                       ? NULL
                       : "it does not end well";
        if (event == TRACER_LATE)
            return "it does not end";
        if (!plan_follow(&fixture->plan, tracer, &stop, counts))
            return "the fault cannot be had";
        tracer_go_on(&stop);
    }
}

static void start_daemon(struct fixture *fixture)
{
    const char *wrong;

    rig_begin(&fixture->rig);
    wrong = rig_start(&fixture->rig, false);
    if (wrong == NULL)
        wrong = await_mounted(fixture);
    if (wrong == NULL)
        return;
    (void)rig_bury(&fixture->rig);
    fail_msg("%s: %s", fixture->scenario->what, wrong);
}

/* With the daemon that there is. Whether the plan came to its call. */
static bool run(struct fixture *fixture, struct row *row, unsigned which, unsigned variant)
{
    const struct plan *plan = &fixture->plan;
    const char *wrong, *of_account;

    ledger_clear(fixture->rig.ledger);
    fixture->plan = (struct plan){.which = which, .variant = variant};
    temporary_write(behind_box(fixture->rig.mount, BOX), NULL, 0);
    if (fixture->scenario->prepare != NULL)
        fixture->scenario->prepare(fixture);
    wrong = serve_client(fixture);
    of_account = ledger_judge(fixture->rig.ledger, leave_for(plan), &row->totals);
    if (wrong != NULL && plan->fault.how == IS_FULL_TORN && strcmp(wrong, say(TORN << 8)) == 0)
        wrong = NULL; /* what would have repaired it failed as well */
    if (wrong != NULL && plan->number == SYS_flock && strcmp(wrong, say(SILENT << 8)) == 0)
        wrong = NULL; /* the lock seemed held: who does not wait was told to come again */
    if (wrong == NULL)
        wrong = of_account;
    enter(fixture, row, wrong);
    if (wrong != NULL) { /* the next fault is to find a daemon that is well */
        (void)rig_bury(&fixture->rig);
        start_daemon(fixture);
    }
    return plan->variants > 0;
}

static struct row *new_row(const char *what)
{
    struct row *row = &rows[rows_count++];

    assert_true(rows_count <= sizeof(rows) / sizeof(rows[0]));
    row->what = what;
    return row;
}

/* The runs of a scenario, all with one daemon. */
static void fail_everywhere(struct fixture *fixture, const struct scenario *scenario)
{
    struct row *row = new_row(scenario->what);
    const char *wrong;
    bool came = true;

    fixture->scenario = scenario;
    *fixture->descriptors = 0;
    start_daemon(fixture);
    (void)run(fixture, row, UINT_MAX, 0); /* none fails: this is how it is */
    for (unsigned which = 0; came; which += mount_scale()) {
        came = run(fixture, row, which, 0);
        for (unsigned variant = 1; variant < fixture->plan.variants; variant++)
            (void)run(fixture, row, which, variant);
    }
    wrong = end_well(fixture, false);
    (void)rig_bury(&fixture->rig);
    if (wrong != NULL)
        fail_msg("%s: %s", scenario->what, wrong);
    assert_true(row->faults > 0);
}

/* --- Scenarios ------------------------------------------------------------------------------- */

static void sent_behind(struct fixture *fixture, size_t payload_bytes, int count)
{
    for (int i = 0; i < count; i++)
        (void)ledger_send_behind(fixture->rig.ledger, fixture->rig.mount, BOX, payload_bytes);
}

static void one_waits(struct fixture *fixture)
{
    sent_behind(fixture, SMALL, 1);
}

static void several_wait(struct fixture *fixture)
{
    sent_behind(fixture, SMALL, 3);
}

static void large_ones_wait(struct fixture *fixture)
{
    sent_behind(fixture, LARGE, 2);
}

static void send_collected(struct fixture *fixture)
{
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_REPLACE, 2);
}

static void send_large_collected(struct fixture *fixture)
{
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, LARGE, THROUGH_REPLACE, 2);
}

static void send_at_once(struct fixture *fixture)
{
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, SMALL, THROUGH_APPEND, 1);
    ledger_send(fixture->rig.ledger, fixture->rig.mount, BOX, 2 * LARGE, THROUGH_APPEND, 1);
}

/* There is no mailbox and no lock yet. */
static void nothing_is_there(struct fixture *fixture)
{
    (void)unlink(behind_box(fixture->rig.mount, BOX));
    (void)unlink(behind_lock_file(fixture->rig.mount, BOX));
}

static void receive(struct fixture *fixture, const char *view, int most)
{
    struct ledger *ledger = fixture->rig.ledger;

    if (ledger_receive(ledger, fixture->rig.mount, view, BOX, most, false) < 0)
        ledger->errors++;
}

static void take(struct fixture *fixture)
{
    receive(fixture, "", INT_MAX);
}

static void take_following(struct fixture *fixture)
{
    receive(fixture, ".follow/", INT_MAX);
}

static void take_envelopes(struct fixture *fixture)
{
    receive(fixture, ".envelope/", INT_MAX);
}

/* Takes the first; the others are in flight then, but one that comes behind them. */
static void take_one(struct fixture *fixture)
{
    receive(fixture, "", 1);
    (void)await(is_closed, fixture);
    sent_behind(fixture, SMALL, 1);
}

static void put_back(struct fixture *fixture)
{
    char path[PATH_MAX], part[5];
    int fd;

    snprintf(path, sizeof(path), "%s/%d", fixture->rig.mount->mnt, BOX);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, part, sizeof(part)) < 0)
        fixture->rig.ledger->errors++;
    if (fd >= 0)
        (void)close(fd);
    (void)await(is_closed, fixture);
    take(fixture);
}

static void throw_away(struct fixture *fixture, int (*how)(const char *path))
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%d", fixture->rig.mount->mnt, BOX);
    fixture->rig.ledger->cleared = true;
    if (how(path) == 0)
        fixture->rig.ledger->emptied = true;
    else
        fixture->rig.ledger->errors++;
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

/* Reads a view to its end: how many bytes, or -1. */
static ssize_t read_view(struct fixture *fixture, const char *view, char *text, size_t room_bytes)
{
    char path[PATH_MAX];
    size_t done = 0;
    ssize_t got;
    int fd;

    snprintf(path, sizeof(path), "%s/%s/%d", fixture->rig.mount->mnt, view, BOX);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    while ((got = read(fd, text + done, room_bytes - done)) > 0)
        done += (size_t)got;
    (void)close(fd);
    return got < 0 ? -1 : (ssize_t)done;
}

/* Without an error, everything that waits must be there. */
static void peek(struct fixture *fixture)
{
    static char text[1 << 20];
    struct ledger *ledger = fixture->rig.ledger;
    ssize_t left = read_view(fixture, ".peek", text, sizeof(text));
    const char *at = text;

    if (left < 0) {
        ledger->errors++;
        return;
    }
    for (unsigned i = 0; i < ledger->count; i++) {
        const struct ledger_entry *entry = &ledger->entries[i];

        if (entry->before > 0)
            continue;
        if (left < (ssize_t)entry->payload_bytes ||
            memcmp(at, ledger_payload(ledger, (int)i), entry->payload_bytes) != 0) {
            ledger->strange++;
            return;
        }
        at += entry->payload_bytes;
        left -= (ssize_t)entry->payload_bytes;
    }
    ledger->strange += left != 0;
}

static void list(struct fixture *fixture)
{
    static char text[1 << 16];
    struct ledger *ledger = fixture->rig.ledger;
    ssize_t got = read_view(fixture, ".list", text, sizeof(text));
    unsigned lines = 0, expected = 1; /* the head */

    for (ssize_t i = 0; i < got; i++)
        lines += text[i] == '\n';
    for (unsigned i = 0; i < ledger->count; i++)
        expected += ledger->entries[i].before == 0;
    if (got < 0)
        ledger->errors++;
    else
        ledger->strange += lines != expected;
}

static void ask_for_size(struct fixture *fixture)
{
    struct ledger *ledger = fixture->rig.ledger;
    struct stat status;
    char path[PATH_MAX];
    off_t expected = 0;

    for (unsigned i = 0; i < ledger->count; i++)
        expected += ledger->entries[i].before == 0 ? (off_t)ledger->entries[i].payload_bytes : 0;
    snprintf(path, sizeof(path), "%s/%d", fixture->rig.mount->mnt, BOX);
    if (stat(path, &status) != 0)
        ledger->errors++;
    else
        ledger->strange += status.st_size != expected;
}

/* --- Tests ----------------------------------------------------------------------------------- */

static const struct scenario sending[] = {
    {.what = "send by >", .act = send_collected},
    {.what = "send a large one by >", .act = send_large_collected},
    {.what = "send by >>", .act = send_at_once},
    {.what = "send by >, nothing is there", .ready = nothing_is_there, .act = send_collected},
};

static const struct scenario taking[] = {
    {.what = "take the only one", .prepare = one_waits, .act = take, .takes_all = true},
    {.what = "take several", .prepare = several_wait, .act = take, .takes_all = true},
    {.what = "take large ones", .prepare = large_ones_wait, .act = take, .takes_all = true},
    {.what = "take from .follow",
     .prepare = several_wait,
     .act = take_following,
     .takes_all = true},
    {.what = "take from .envelope",
     .prepare = several_wait,
     .act = take_envelopes,
     .takes_all = true},
    {.what = "take large ones from .envelope",
     .prepare = large_ones_wait,
     .act = take_envelopes,
     .takes_all = true},
    {.what = "put back what was read in part",
     .prepare = several_wait,
     .act = put_back,
     .takes_all = true},
};

static const struct scenario others[] = {
    {.what = "rm", .prepare = several_wait, .ready = take_one, .act = remove_box},
    {.what = "truncate", .prepare = several_wait, .ready = take_one, .act = truncate_box},
    {.what = ".peek", .prepare = several_wait, .ready = take_one, .act = peek},
    {.what = ".peek at large ones", .prepare = large_ones_wait, .act = peek},
    {.what = ".list", .prepare = several_wait, .ready = take_one, .act = list},
    {.what = "stat", .prepare = several_wait, .ready = take_one, .act = ask_for_size},
};

static void open_fixture(struct fixture *fixture, void **state)
{
    *fixture = (struct fixture){.scenario = NULL};
    if (!tracer_can_change())
        skip();
    if (mount_is_sanitized() && !mount_is_measured())
        skip(); /* a sanitizer's run-time does not survive that its own calls fail */
    rig_open(&fixture->rig, state);
    fixture->descriptors = mmap(NULL, sizeof(*fixture->descriptors), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(fixture->descriptors, MAP_FAILED);
}

static void close_fixture(struct fixture *fixture)
{
    munmap((void *)(uintptr_t)fixture->descriptors, sizeof(*fixture->descriptors));
    rig_close(&fixture->rig);
    assert_int_equal(fixture->failures, 0);
}

static void fail_in_each(void **state, const struct scenario scenarios[], size_t count)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    for (size_t i = 0; i < count; i++)
        fail_everywhere(&fixture, &scenarios[i]);
    close_fixture(&fixture);
}

static void sending_says_whether_it_has_sent(void **state)
{
    fail_in_each(state, sending, sizeof(sending) / sizeof(sending[0]));
}

static void taking_loses_nothing(void **state)
{
    fail_in_each(state, taking, sizeof(taking) / sizeof(taking[0]));
}

static void throwing_away_and_looking_say_what_they_could_not(void **state)
{
    fail_in_each(state, others, sizeof(others) / sizeof(others[0]));
}

/* --- The beginning and the end: a daemon for each fault -------------------------------------- */

static void take_one_and_leave(struct fixture *fixture)
{
    take_one(fixture);
}

static void take_what_was_left(struct fixture *fixture)
{
    for (int box = LEFT_BOX; box < LEFT_BOX + LEAVINGS_BOXES; box++)
        (void)ledger_receive(fixture->rig.ledger, fixture->rig.mount, "", box, INT_MAX, false);
}

/* A client that only does something. */
static const char *do_by_client(struct fixture *fixture, void (*act)(struct fixture *fixture))
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct tracer_stop stop = {0};

    tracer->client = process_fork(0);
    if (tracer->client == 0) {
        act(fixture);
        _exit(0);
    }
    for (;;) {
        enum tracer_event event = tracer_next(tracer, &stop, RUN_MS);

        if (event == TRACER_CLIENT)
            return NULL;
        if (event != TRACER_STOP)
            return "the daemon does not serve";
        tracer_go_on(&stop);
    }
}

/* Starts it with the fault; false: it said no, and exited with 1. */
static const char *begin_badly(struct fixture *fixture, bool *runs)
{
    struct tracer *tracer = &fixture->rig.tracer;
    struct tracer_stop stop = {0};
    bool counts = false;

    for (;;) {
        enum tracer_event event = tracer_next(tracer, &stop, RUN_MS);

        *runs = event == TRACER_STOP && tracer_is_waiting(tracer, &stop);
        if (event == TRACER_ENDED)
            return WIFEXITED(tracer->status) && WEXITSTATUS(tracer->status) == 1
                       ? NULL
                       : "it neither starts nor refuses to";
        if (event == TRACER_LATE)
            return "silence";
        counts = counts || tracer_names(&stop, "/mail");
        if (!plan_follow(&fixture->plan, tracer, &stop, counts))
            return "the fault cannot be had";
        tracer_go_on(&stop);
        if (*runs)
            return NULL;
    }
}

static const char *start_with_fault(struct fixture *fixture)
{
    const char *wrong;
    bool runs = false;

    leavings_make(fixture->rig.ledger, fixture->rig.mount, LEFT_BOX);
    wrong = rig_start(&fixture->rig, true);
    if (wrong == NULL)
        wrong = begin_badly(fixture, &runs);
    if (wrong == NULL && runs)
        wrong = do_by_client(fixture, take_what_was_left);
    if (wrong == NULL && runs)
        wrong = end_well(fixture, false);
    fixture->rig.ledger->errors += !runs;
    return wrong;
}

static const char *end_with_fault(struct fixture *fixture)
{
    const char *wrong;

    several_wait(fixture);
    large_ones_wait(fixture);
    wrong = rig_start(&fixture->rig, false);
    if (wrong == NULL)
        wrong = await_mounted(fixture);
    if (wrong == NULL)
        wrong = do_by_client(fixture, take_one_and_leave);
    return wrong == NULL ? end_well(fixture, true) : wrong;
}

/* Waits for a message, and reads it. */
static void follow_one(struct fixture *fixture)
{
    struct ledger *ledger = fixture->rig.ledger;
    uint8_t payload[2 * SMALL];
    char path[PATH_MAX];
    ssize_t got = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/.follow/%d", fixture->rig.mount->mnt, BOX);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        got = read(fd, payload, sizeof(payload));
    if (got < 0)
        ledger->errors++;
    else
        ledger_see(ledger, BOX, payload, (size_t)got, false);
}

/* Whether somebody waits for a message. */
static bool is_awaited(struct fixture *fixture)
{
    static const char sample[] = "gprocfs_parked_requests{kind=\"message\"} 1\n";
    char path[PATH_MAX], text[16384];
    ssize_t got = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/.stats", fixture->rig.mount->mnt);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = read(fd, text, sizeof(text) - 1);
        (void)close(fd);
    }
    text[got > 0 ? got : 0] = '\0';
    return strstr(text, sample) != NULL;
}

/* Two, one after the other: for the first one the daemon makes what it needs to be told. */
static void await_messages(struct fixture *fixture)
{
    for (int i = 0; i < 2; i++) {
        pid_t reader = process_fork(0);

        if (reader == 0) {
            follow_one(fixture);
            _exit(0);
        }
        (void)await(is_awaited, fixture);
        sent_behind(fixture, SMALL, 1);
        if (process_wait(reader, CLOSED_MS) != 0)
            fixture->rig.ledger->strange++; /* he was not told */
    }
}

static const char *follow_with_fault(struct fixture *fixture)
{
    const char *wrong = rig_start(&fixture->rig, false);

    temporary_write(behind_box(fixture->rig.mount, BOX), NULL, 0);
    *fixture->descriptors = 0; /* of another life */
    if (wrong == NULL)
        wrong = await_mounted(fixture);
    if (wrong == NULL)
        wrong = serve_client(fixture);
    return wrong == NULL ? end_well(fixture, false) : wrong;
}

/* Whether the plan came to its call. */
static bool live(struct fixture *fixture, struct row *row, const char *(*how)(struct fixture *),
                 unsigned which, unsigned variant)
{
    const char *wrong, *later;

    rig_begin(&fixture->rig);
    fixture->plan = (struct plan){.which = which, .variant = variant, .alone = true};
    wrong = how(fixture);
    later = rig_bury(&fixture->rig);
    if (wrong == NULL)
        wrong = later;
    later = rig_look(&fixture->rig, 0, &row->totals);
    enter(fixture, row, wrong == NULL ? later : wrong);
    return fixture->plan.variants > 0;
}

static void fail_in_each_life_of(struct fixture *fixture, void **state,
                                 const struct scenario *scenario,
                                 const char *(*how)(struct fixture *))
{
    struct row *row = new_row(scenario->what);
    bool of_threads = fixture->of_threads;
    bool came = true;

    open_fixture(fixture, state);
    fixture->of_threads = of_threads;
    fixture->scenario = scenario;
    for (unsigned which = 0; came; which += of_threads ? 1 : mount_scale()) {
        came = live(fixture, row, how, which, 0);
        for (unsigned variant = 1; variant < fixture->plan.variants; variant++)
            (void)live(fixture, row, how, which, variant);
    }
    close_fixture(fixture);
    assert_true(row->faults > 0);
}

static void fail_in_each_life(void **state, const struct scenario *scenario,
                              const char *(*how)(struct fixture *))
{
    struct fixture fixture = {.of_threads = false};

    fail_in_each_life_of(&fixture, state, scenario, how);
}

static void starting_refuses_or_works(void **state)
{
    static const struct scenario scenario = {.what = "start, dead mounts left something"};

    fail_in_each_life(state, &scenario, start_with_fault);
}

static void unmounting_loses_nothing(void **state)
{
    static const struct scenario scenario = {.what = "unmount, all is in flight"};

    fail_in_each_life(state, &scenario, end_with_fault);
}

/* Without a thread, a watch or the memory for them, at once, the daemon looks again in a moment. */
static void follower_is_told_in_the_end(void **state)
{
    static const struct scenario scenario = {
        .what = "follow, in a new daemon",
        .act = await_messages,
    };
    struct fixture fixture = {.of_threads = true};

    fail_in_each_life_of(&fixture, state, &scenario, follow_with_fault);
}

static void print_rows(void)
{
    print_message("%-36s %5s %6s %6s %5s %5s %6s\n", "made to fail while it was to", "calls",
                  "faults", "errors", "lost", "twice", "leaked");
    for (size_t i = 0; i < rows_count; i++)
        print_message("%-36s %5u %6u %6u %5u %5u %6u\n", rows[i].what, rows[i].calls,
                      rows[i].faults, rows[i].errors, rows[i].totals.lost, rows[i].totals.twice,
                      rows[i].leaked);
}

int main(void)
{
    static struct mount_options options = {.place_kib = 65536, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(sending_says_whether_it_has_sent, &options),
        MOUNT_TEST_WITH(taking_loses_nothing, &options),
        MOUNT_TEST_WITH(throwing_away_and_looking_say_what_they_could_not, &options),
        MOUNT_TEST_WITH(starting_refuses_or_works, &options),
        MOUNT_TEST_WITH(unmounting_loses_nothing, &options),
        MOUNT_TEST_WITH(follower_is_told_in_the_end, &options),
    };
    int failed;

    if (!mount_possible())
        return MOUNT_SKIPPED;
    rig_isolate();
    if (geteuid() == 0)
        options.place = MOUNT_ON_TMPFS;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_rows();
    return failed;
}
