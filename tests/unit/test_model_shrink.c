/* The shrinker and the text of steps, without any mount. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mailboxes.h"
#include "shrink.h"
#include "steps.h"

enum {
    MANY = 300,
    TRIES = 5000,
};

static struct step random_step(struct random *random)
{
    struct step step = {.kind = (enum step_kind)random_below(random, STEP_KINDS)};

    for (unsigned field = 0; field < STEP_FIELDS; field++) {
        static const size_t limits[STEP_FIELDS] = {
            [FIELD_BOX] = STEP_BOXES,  [FIELD_FD] = STEP_FDS, [FIELD_TO] = STEP_FDS,
            [FIELD_VIEW] = STEP_VIEWS, [FIELD_FLAGS] = 128,
        };

        if (step_has(step.kind, field))
            step.of[field] =
                (long)random_below(random, limits[field] != 0 ? limits[field] : 100000);
    }
    return step;
}

static void fill(struct steps *steps, uint64_t seed)
{
    struct random random = {seed};

    steps_init(steps, 600);
    for (size_t i = 0; i < MANY; i++) {
        struct step step = random_step(&random);

        steps_add(steps, &step);
    }
}

static void put(struct steps *steps, size_t at, enum step_kind kind, enum step_field field,
                long value)
{
    memset(&steps->list[at], 0, sizeof(steps->list[at]));
    steps->list[at].kind = kind;
    steps->list[at].of[field] = value;
}

/* The defect that is looked for: a large message, later a chmod, and later still a stat. */
static bool has_three_in_order(const struct steps *steps, void *context)
{
    unsigned *tries = context;
    unsigned found = 0;

    ++*tries;
    for (size_t i = 0; i < steps->count; i++) {
        const struct step *step = &steps->list[i];

        if (found == 0 && step->kind == STEP_WRITE && step->of[FIELD_SIZE] >= 37)
            found = 1;
        else if (found == 1 && step->kind == STEP_CHMOD)
            found = 2;
        else if (found == 2 && step->kind == STEP_STAT)
            found = 3;
    }
    return found == 3;
}

static void failing_run_shrinks_to_the_steps_that_matter(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct steps steps;
        unsigned tries = 0;

        fill(&steps, seed);
        put(&steps, 40, STEP_WRITE, FIELD_SIZE, 90000);
        put(&steps, 41, STEP_CHMOD, FIELD_MODE, 0600);
        put(&steps, MANY - 1, STEP_STAT, FIELD_BOX, 2);
        assert_true(shrink(&steps, has_three_in_order, &tries, TRIES) <= TRIES);
        assert_int_equal(steps.count, 3);
        assert_int_equal(steps.list[0].kind, STEP_WRITE);
        assert_int_equal(steps.list[0].of[FIELD_SIZE], 37);
        assert_int_equal(steps.list[1].kind, STEP_CHMOD);
        assert_int_equal(steps.list[2].kind, STEP_STAT);
        assert_int_equal(steps.list[2].of[FIELD_BOX], 0);
        assert_true(tries < 1000);
        steps_release(&steps);
    }
}

static void what_is_left_fails_even_where_the_tries_run_out(void **state)
{
    (void)state;
    for (unsigned most = 0; most < 60; most++) {
        struct steps steps;
        unsigned tries = 0;

        fill(&steps, 7);
        put(&steps, 100, STEP_WRITE, FIELD_SIZE, 40);
        put(&steps, 200, STEP_CHMOD, FIELD_MODE, 0600);
        put(&steps, 250, STEP_STAT, FIELD_BOX, 1);
        assert_true(shrink(&steps, has_three_in_order, &tries, most) <= most);
        assert_true(tries <= most);
        assert_true(has_three_in_order(&steps, &tries));
        steps_release(&steps);
    }
}

static void every_step_reads_back_as_it_was_written(void **state)
{
    struct steps steps, back;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    (void)state;
    assert_non_null(file);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        fill(&steps, seed);
        rewind(file);
        steps_write(&steps, file);
        assert_int_equal(fflush(file), 0);
        FILE *again = fmemopen(text, size, "r");
        assert_non_null(again);
        assert_true(steps_read(&back, again));
        fclose(again);
        assert_int_equal(back.most_bytes, steps.most_bytes);
        assert_int_equal(back.count, steps.count);
        for (size_t i = 0; i < steps.count; i++) {
            assert_int_equal(back.list[i].kind, steps.list[i].kind);
            assert_memory_equal(back.list[i].of, steps.list[i].of, sizeof(steps.list[i].of));
        }
        steps_release(&steps);
        steps_release(&back);
    }
    fclose(file);
    free(text);
}

static void line_that_is_no_step_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "fly",
        "read",
        "read fd=7 size=1 wings=2",
        "read fd=-1 size=1",
        "read fd=x",
        "stat box=3",
        "stat fd=1",
        "open view=heap",
        "open flags=read+fly",
        "stat box",
        "read fd=1size",
        "chmod mode=08",
    };
    struct step step;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        bool good = step_parse(lines[i], &step);

        /* Without arguments they are 0. */
        if (good != (strcmp(lines[i], "read") == 0))
            fail_msg("\"%s\" is %s", lines[i], good ? "a step" : "no step");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_run_shrinks_to_the_steps_that_matter),
        cmocka_unit_test(what_is_left_fails_even_where_the_tries_run_out),
        cmocka_unit_test(every_step_reads_back_as_it_was_written),
        cmocka_unit_test(line_that_is_no_step_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
