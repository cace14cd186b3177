/*
 * model - runs of random operations on a real mount, against a model of what a mount must answer.
 *
 *   model [--seconds N] [--seed N] [--steps N] [--only steps|loads]
 *                          runs for so long, from that seed on: of so many steps one after the other,
 *                          and, every few of these, of many processes at once
 *   model --replay FILE    the steps of a file
 *
 * It ends with the first that fails, or with --failures N. A run that fails is made as short as it still fails, and printed in a form that --replay reads.
 * Exit status: 0 nothing failed, 1 something did, 2 wrong usage, 77 nothing can be mounted here.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "load.h"
#include "mount.h"
#include "process.h"
#include "run.h"
#include "shrink.h"

enum {
    USUAL_SECONDS = 60,
    USUAL_STEPS = 300,
    SHRINK_TRIES = 600,
    PROGRESS_MS = 10000,
    LOAD_EVERY = 20, /* runs of steps */
    LOAD_MS = 3000,
    SEEDS = 1000000000,
};

struct orders {
    int64_t seconds;
    size_t count;
    uint64_t seed;
    unsigned failures; /* after so many it ends */
    bool steps, loads;
};

/* Whether it fails at a step of the same kind: another defect is for another run. */
static bool fails(const struct steps *steps, void *context)
{
    const struct run *first = context;
    struct run run = run_steps(steps);

    return run.failed && run.kind == first->kind;
}

/* A failure that does not come again is told all the same. */
static void report(const struct run *run, struct steps *steps)
{
    struct run again;
    unsigned tries;

    printf("failed: %s\n", run->text);
    steps->count = run->performed;
    again = run_steps(steps);
    if (!again.failed) {
        printf("the same steps do not fail again:\n");
        steps_write(steps, stdout);
        return;
    }
    tries = shrink(steps, fails, &again, SHRINK_TRIES);
    again = run_steps(steps);
    printf("shrunk to %zu steps in %u tries: %s\n", steps->count, tries, again.text);
    steps_write(steps, stdout);
}

static int replay(const char *path)
{
    FILE *file = fopen(path, "re");
    struct steps steps;
    struct run run;
    bool good;

    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 2;
    }
    good = steps_read(&steps, file);
    fclose(file);
    if (!good) {
        fprintf(stderr, "%s: after %zu steps there is something else\n", path, steps.count);
        steps_release(&steps);
        return 2;
    }
    run = run_steps(&steps);
    printf("%zu steps: %s\n", run.performed, run.failed ? run.text : "nothing is wrong");
    steps_release(&steps);
    return run.failed;
}

/* How much has been done. */
struct tally {
    size_t runs, steps, loads, messages, events, kills, ends;
};

static bool explore_steps(uint64_t seed, size_t count, struct tally *tally)
{
    struct steps steps;
    struct run run;

    steps_init(&steps, 0);
    run = run_random(seed, count, &steps);
    tally->runs++;
    tally->steps += run.performed;
    if (run.failed) {
        printf("seed %" PRIu64 " ", seed);
        report(&run, &steps);
    }
    steps_release(&steps);
    return run.failed;
}

static bool explore_load(uint64_t seed, struct tally *tally)
{
    unsigned trouble = (unsigned)(seed % LOAD_TROUBLES);
    struct load load = load_run(seed, trouble, LOAD_MS);

    tally->loads++;
    tally->messages += load.messages_count;
    tally->events += load.events_count;
    tally->kills += load.kills_count;
    tally->ends += load.ends_count;
    if (load.failed)
        printf("seed %" PRIu64 ", many processes, trouble %u: %s\n", seed, trouble, load.text);
    return load.failed;
}

static void tell(const struct tally *tally, int64_t begun_ms, const char *what)
{
    printf(
        "%zu runs of %zu steps; %zu loads of %zu messages and %zu events, %zu kills, %zu ends of "
        "the daemon; %.1f s: %s\n",
        tally->runs, tally->steps, tally->loads, tally->messages, tally->events, tally->kills,
        tally->ends, (double)(process_clock_ms() - begun_ms) / 1000, what);
}

static int explore(const struct orders *orders)
{
    int64_t begun_ms = process_clock_ms();
    int64_t said_ms = begun_ms;
    struct tally tally = {0};
    uint64_t seed = orders->seed;
    unsigned failed = 0;

    printf("seed %" PRIu64 "\n", seed);
    for (; failed < orders->failures && process_clock_ms() - begun_ms < orders->seconds * 1000;
         seed++) {
        bool load = orders->loads && (!orders->steps || seed % LOAD_EVERY == 0);

        failed += load ? explore_load(seed / (orders->steps ? LOAD_EVERY : 1), &tally)
                       : explore_steps(seed, orders->count, &tally);
        if (process_clock_ms() - said_ms > PROGRESS_MS) {
            said_ms = process_clock_ms();
            tell(&tally, begun_ms, "so far");
        }
    }
    tell(&tally, begun_ms, failed > 0 ? "FAILED" : "nothing failed");
    return failed > 0;
}

int main(int argc, char *argv[])
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                            {"seed", required_argument, NULL, 'n'},
                                            {"steps", required_argument, NULL, 'c'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"failures", required_argument, NULL, 'f'},
                                            {"replay", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct orders orders = {USUAL_SECONDS, USUAL_STEPS, 0, 1, true, true};
    const char *file = NULL;
    int option;

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (getrandom(&orders.seed, sizeof(orders.seed), 0) < 0)
        orders.seed = (uint64_t)process_clock_ms();
    orders.seed %= SEEDS;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (option == 's')
            orders.seconds = strtol(optarg, NULL, 10);
        else if (option == 'n')
            orders.seed = strtoull(optarg, NULL, 10);
        else if (option == 'c')
            orders.count = strtoul(optarg, NULL, 10);
        else if (option == 'f')
            orders.failures = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'o')
            *(strcmp(optarg, "steps") == 0 ? &orders.loads : &orders.steps) = false;
        else if (option == 'r')
            file = optarg;
        else
            return 2;
    }
    if (optind < argc)
        return 2;
    if (!mount_possible())
        return MOUNT_SKIPPED;
    return file != NULL ? replay(file) : explore(&orders);
}
