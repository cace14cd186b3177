/* Random operations on a real mount against the model (see tests/model). `make model` goes on. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "load.h"
#include "mount.h"
#include "process.h"
#include "run.h"

enum {
    STEPS = 300,
    RUNS = 20,
    LOAD_MS = 1000,
};

/* Fails with the steps that can be replayed; the last of them is the wrong one. */
static void expect_right(uint64_t seed)
{
    struct steps steps;
    struct run run;

    steps_init(&steps, 0);
    run = run_random(seed, STEPS, &steps);
    if (run.failed) {
        steps.count = run.performed;
        steps_write(&steps, stderr);
    }
    steps_release(&steps);
    if (run.failed)
        fail_msg("seed %llu: %s (build/tests/model/model --seed %llu makes it short)",
                 (unsigned long long)seed, run.text, (unsigned long long)seed);
}

static const char ending[] = ".steps";

static void every_answer_is_right(void **state)
{
    unsigned runs = RUNS / mount_scale();

    (void)state;
    for (uint64_t seed = 1; seed <= (runs > 4 ? runs : 4); seed++)
        expect_right(seed);
}

static bool is_list_of_steps(const char *name)
{
    size_t length = strlen(name);

    return length > sizeof(ending) - 1 && strcmp(name + length + 1 - sizeof(ending), ending) == 0;
}

/* Each of them was a run that failed, made short. */
static void what_failed_once_does_not_any_more(void **state)
{
    const char *data = getenv("GPROC_TEST_DATA");
    char path[512];
    DIR *directory;
    const struct dirent *entry;
    unsigned count = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/model", data != NULL ? data : "tests/data");
    directory = opendir(path);
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        struct steps steps;
        struct run run;
        FILE *file;

        if (!is_list_of_steps(entry->d_name))
            continue;
        snprintf(path, sizeof(path), "%s/model/%s", data != NULL ? data : "tests/data",
                 entry->d_name);
        file = fopen(path, "re");
        assert_non_null(file);
        assert_true(steps_read(&steps, file));
        fclose(file);
        run = run_steps(&steps);
        steps_release(&steps);
        if (run.failed)
            fail_msg("%s: %s", path, run.text);
        count++;
    }
    closedir(directory);
    assert_true(count > 0);
}

/* Not those of the last time: that a run fails which nobody has seen yet is what it is for. */
static void every_answer_is_right_of_a_seed_of_today(void **state)
{
    uint64_t seed = 1000000 + (uint64_t)process_clock_ms() % 1000000;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    expect_right(seed);
}

static void expect_explained(uint64_t seed, unsigned trouble)
{
    struct load load = load_run(seed, trouble, LOAD_MS);

    print_message("%zu messages, %zu events, %zu processes and %zu daemons ended\n",
                  load.messages_count, load.events_count, load.kills_count, load.ends_count);
    if (load.failed)
        fail_msg("seed %llu, trouble %u: %s", (unsigned long long)seed, trouble, load.text);
    assert_true(load.messages_count > 0);
}

static void what_many_processes_see_can_be_explained(void **state)
{
    (void)state;
    expect_explained(1, LOAD_PARTS);
    expect_explained(2, LOAD_DRAINS);
}

static void what_those_see_who_are_not_killed_can_be_explained(void **state)
{
    (void)state;
    expect_explained(3, LOAD_KILLS_READERS | LOAD_KILLS_SENDERS | LOAD_DRAINS);
}

static void what_is_seen_when_the_daemon_ends_can_be_explained(void **state)
{
    (void)state;
    expect_explained(4, LOAD_KILLS_DAEMON | LOAD_REMOUNTS | LOAD_DRAINS | LOAD_PARTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_failed_once_does_not_any_more),
        cmocka_unit_test(every_answer_is_right),
        cmocka_unit_test(every_answer_is_right_of_a_seed_of_today),
        cmocka_unit_test(what_many_processes_see_can_be_explained),
        cmocka_unit_test(what_those_see_who_are_not_killed_can_be_explained),
        cmocka_unit_test(what_is_seen_when_the_daemon_ends_can_be_explained),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
