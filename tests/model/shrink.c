#include "shrink.h"

#include <string.h>

struct shrinker {
    struct steps *steps;
    shrink_fails *fails;
    void *context;
    unsigned left;
};

static bool still_fails(struct shrinker *shrinker, const struct steps *tried)
{
    if (shrinker->left == 0)
        return false;
    shrinker->left--;
    return shrinker->fails(tried, shrinker->context);
}

/* Whether it still fails without these; then they are gone. */
static bool go_without(struct shrinker *shrinker, size_t first, size_t count)
{
    struct steps *steps = shrinker->steps;
    struct steps tried;
    bool fails;

    steps_init(&tried, steps->most_bytes);
    for (size_t i = 0; i < steps->count; i++) {
        if (i < first || i >= first + count)
            steps_add(&tried, &steps->list[i]);
    }
    fails = still_fails(shrinker, &tried);
    if (fails) {
        memmove(steps->list + first, steps->list + first + count,
                (steps->count - first - count) * sizeof(*steps->list));
        steps->count -= count;
    }
    steps_release(&tried);
    return fails;
}

/* Pieces of this size, from the end on: what comes last depends on what comes first. True: some are
 * gone. */
static bool take_away(struct shrinker *shrinker, size_t size)
{
    size_t end = shrinker->steps->count;
    bool any = false;

    while (end > 0 && shrinker->left > 0) {
        size_t count = size < end ? size : end;

        if (go_without(shrinker, end - count, count))
            any = true;
        end -= count;
    }
    return any;
}

/* Whether it still fails with another value of an argument; then it has that. */
static bool try_value(struct shrinker *shrinker, long *value, long simpler)
{
    long before = *value;

    if (before <= simpler || simpler < 0)
        return false;
    *value = simpler;
    if (still_fails(shrinker, shrinker->steps))
        return true;
    *value = before;
    return false;
}

/* Small, then half, then one less: until none will do. */
static void simplify(struct shrinker *shrinker, long *value)
{
    bool changed = true;

    while (changed && shrinker->left > 0)
        changed = try_value(shrinker, value, 0) || try_value(shrinker, value, 1) ||
                  try_value(shrinker, value, *value / 2) || try_value(shrinker, value, *value - 1);
}

static void simplify_all(struct shrinker *shrinker)
{
    static const enum step_field numbers[] = {FIELD_BOX, FIELD_SIZE, FIELD_OFFSET, FIELD_SENDER};

    for (size_t i = 0; i < shrinker->steps->count; i++) {
        struct step *step = &shrinker->steps->list[i];

        for (size_t j = 0; j < sizeof(numbers) / sizeof(numbers[0]); j++) {
            if (step_has(step->kind, numbers[j]))
                simplify(shrinker, &step->of[numbers[j]]);
        }
    }
}

unsigned shrink(struct steps *steps, shrink_fails *fails, void *context, unsigned tries)
{
    struct shrinker shrinker = {steps, fails, context, tries};
    size_t size = steps->count / 2;
    bool any = true;

    while (size > 1 && shrinker.left > 0) {
        (void)take_away(&shrinker, size); /* smaller pieces follow in either case */
        size /= 2;
    }
    while (any && shrinker.left > 0)
        any = take_away(&shrinker, 1);
    simplify_all(&shrinker);
    do /* what has no meaning any more with its simple arguments */
        any = take_away(&shrinker, 1);
    while (any && shrinker.left > 0);
    return tries - shrinker.left;
}
