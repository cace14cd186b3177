#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "choose.h"
#include "expected.h"
#include "mount.h"
#include "perform.h"

enum {
    MOUNT_SECONDS = 120,
};

/* Where steps come from: a list of them, or a seed. */
struct source {
    const struct steps *list; /* NULL: chosen */
    struct chooser chooser;
    size_t count;
    struct steps *chosen;
};

static bool next_step(struct source *source, const struct expected *expected, size_t which,
                      struct step *step)
{
    if (which == source->count)
        return false;
    if (source->list != NULL) {
        *step = source->list->list[which];
        return true;
    }
    if (which + 1 == source->count)
        *step = (struct step){.kind = STEP_REMOUNT};
    else
        *step = choose(&source->chooser, expected);
    steps_add(source->chosen, step);
    return true;
}

static bool may_close(enum step_kind kind)
{
    return kind == STEP_CLOSE || kind == STEP_READER || kind == STEP_WAIT || kind == STEP_UNWAIT;
}

/* Those who wait got what came, and nobody else got anything. */
static const char *check_waiters(struct performer *performer, struct expected *expected,
                                 bool *closed)
{
    const char *wrong = NULL;

    for (long i = 0; i < STEP_BOXES && wrong == NULL; i++) {
        struct outcome outcome = {0};

        if (expected_wakes(expected, i)) {
            wrong = perform_await_woken(performer, i, &outcome);
            if (wrong == NULL)
                wrong = expected_check_woken(expected, i, &outcome);
            *closed = true;
        } else if (perform_is_woken(performer, i)) {
            wrong = "who waits for a message got something, though there is none";
        }
        outcome_release(&outcome);
    }
    return wrong;
}

static const char *do_step(struct performer *performer, struct expected *expected,
                           const struct step *step)
{
    bool reads_first =
        step->kind == STEP_KILL && expected_reads_then_dies(expected, step->of[FIELD_FD]);
    struct outcome outcome = {0};
    bool closed = may_close(step->kind);
    const char *wrong = perform(performer, step, reads_first, &outcome);

    if (wrong == NULL)
        wrong = expected_check(expected, step, &outcome);
    outcome_release(&outcome);
    /* What one who was woken had in part goes to the next. */
    if (wrong == NULL)
        wrong = check_waiters(performer, expected, &closed);
    if (wrong == NULL && closed)
        wrong = perform_await_open(performer, expected_open_files(expected));
    if (wrong == NULL)
        wrong = check_waiters(performer, expected, &closed);
    return wrong;
}

static void do_all(struct source *source, struct mount *mount, struct run *run, long most_bytes)
{
    struct expected *expected = expected_new(most_bytes, getpid());
    struct performer performer;
    const char *wrong = performer_init(&performer, mount);
    struct step step;

    for (size_t i = 0; wrong == NULL && next_step(source, expected, i, &step); i++) {
        if (!expected_allows(expected, &step))
            continue;
        run->performed = i + 1;
        wrong = do_step(&performer, expected, &step);
    }
    if (wrong != NULL) {
        char text[STEP_TEXT_BYTES];

        run->failed = true;
        run->kind = step.kind;
        step_print(&step, text);
        snprintf(run->text, sizeof(run->text), "step %zu, %s: %s", run->performed, text, wrong);
    }
    performer_release(&performer);
    expected_free(expected);
}

static struct run run_source(struct source *source, long most_bytes)
{
    struct mount_options options = {.chatty = true, .seconds = MOUNT_SECONDS};
    char more[64];
    struct run run = {0};
    void *state = &options;
    struct mount *mount;

    snprintf(more, sizeof(more), "max_message=%ld", most_bytes);
    options.options = more;
    (void)mount_possible(); /* the time of the next one is counted from now on */
    if (mount_setup(&state) != 0) {
        run.failed = true;
        snprintf(run.text, sizeof(run.text), "nothing can be mounted");
        return run;
    }
    mount = state;
    do_all(source, mount, &run, most_bytes);
    if (mount_teardown(&state) != 0 && !run.failed) {
        run.failed = true;
        snprintf(run.text, sizeof(run.text), "the daemon did not end well");
    }
    return run;
}

struct run run_steps(const struct steps *steps)
{
    struct source source = {.list = steps, .count = steps->count};

    return run_source(&source, steps->most_bytes);
}

struct run run_random(uint64_t seed, size_t count, struct steps *steps)
{
    struct source source = {.count = count, .chosen = steps};

    chooser_init(&source.chooser, seed);
    steps->most_bytes = source.chooser.most_bytes;
    return run_source(&source, steps->most_bytes);
}
