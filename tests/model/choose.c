#include "choose.h"

#include <string.h>

enum {
    SMALL_MOST_BYTES = 600,
    LARGE_MOST_BYTES = 300000,
    TRIES = 1000,
};

/* How often each is chosen, of the sum of all. */
static const unsigned weights[STEP_KINDS] = {
    [STEP_OPEN] = 110,     [STEP_CLOSE] = 70,        [STEP_DUP] = 12,         [STEP_READ] = 130,
    [STEP_PREAD] = 30,     [STEP_SEEK] = 15,         [STEP_WRITE] = 120,      [STEP_PWRITE] = 40,
    [STEP_FTRUNCATE] = 25, [STEP_FSYNC] = 25,        [STEP_POLL] = 25,        [STEP_FSTAT] = 25,
    [STEP_FORK] = 15,      [STEP_READER] = 20,       [STEP_WAIT] = 20,        [STEP_UNWAIT] = 5,
    [STEP_UNLINK] = 12,    [STEP_TRUNCATE] = 8,      [STEP_CHMOD] = 8,        [STEP_STAT] = 30,
    [STEP_PEEK] = 20,      [STEP_LIST] = 20,         [STEP_NAMES] = 5,        [STEP_REFUSED] = 8,
    [STEP_STATS] = 8,      [STEP_SEND_BEHIND] = 80,  [STEP_DAMAGE] = 12,      [STEP_TEAR] = 12,
    [STEP_MEND] = 12,      [STEP_DRAIN_BEHIND] = 12, [STEP_ERASE_BEHIND] = 5, [STEP_REMOUNT] = 4,
    [STEP_KILL] = 6,
};

static size_t below(struct chooser *chooser, size_t limit)
{
    return random_below(&chooser->random, limit);
}

void chooser_init(struct chooser *chooser, uint64_t seed)
{
    memset(chooser, 0, sizeof(*chooser));
    chooser->random.state = seed;
    chooser->most_bytes = below(chooser, 3) == 0 ? LARGE_MOST_BYTES : SMALL_MOST_BYTES;
}

static enum step_kind choose_kind(struct chooser *chooser)
{
    unsigned total = 0;
    unsigned kind = 0;
    size_t at;

    for (unsigned i = 0; i < STEP_KINDS; i++)
        total += weights[i];
    at = below(chooser, total);
    while (at >= weights[kind])
        at -= weights[kind++];
    return kind;
}

/* Mostly small ones; of a large mount, those at which the daemon does something else. */
static long choose_size(struct chooser *chooser)
{
    static const long edges[] = {4096, 65524, 65536, 65537, 131072, 200000};
    size_t which = below(chooser, 40);

    if (which == 0)
        return 0;
    if (which == 1)
        return chooser->most_bytes;
    if (which == 2)
        return chooser->most_bytes + 1;
    if (which < 8 && chooser->most_bytes == LARGE_MOST_BYTES)
        return edges[below(chooser, sizeof(edges) / sizeof(edges[0]))];
    return 1 + (long)below(chooser, which < 20 ? 12 : 200);
}

static long choose_read_size(struct chooser *chooser)
{
    static const long sizes[] = {0, 1, 5, 20, 60, 200, 500, 4096, 65536, 400000};

    return sizes[below(chooser, sizeof(sizes) / sizeof(sizes[0]))];
}

static long choose_flags(struct chooser *chooser, enum step_view view)
{
    static const long ways[] = {
        OPEN_READ,
        OPEN_READ,
        OPEN_READ | OPEN_CREATE,
        OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE,
        OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE,
        OPEN_WRITE | OPEN_CREATE | OPEN_APPEND,
        OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE,
        OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE | OPEN_APPEND,
        OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE | OPEN_APPEND,
        OPEN_READ | OPEN_WRITE | OPEN_CREATE,
        OPEN_READ | OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE,
        OPEN_READ | OPEN_WRITE | OPEN_APPEND,
        OPEN_WRITE,
        OPEN_WRITE | OPEN_TRUNCATE,
    };
    long flags = OPEN_READ;

    if (view == VIEW_MAILBOX || below(chooser, 12) == 0)
        flags = ways[below(chooser, sizeof(ways) / sizeof(ways[0]))];
    if (view == VIEW_FOLLOW || view == VIEW_ENVELOPE || below(chooser, 8) == 0)
        flags |= OPEN_NONBLOCK;
    return flags;
}

static long choose_offset(struct chooser *chooser, const struct expected *expected, long fd)
{
    long next = expected_offset(expected, fd);

    if (next >= 0 && below(chooser, 2) == 0)
        return next;
    return (long)below(chooser, below(chooser, 2) == 0 ? 8 : 300);
}

static long choose_mode(struct chooser *chooser)
{
    static const long modes[] = {0600, 0640, 0644, 0666, 0755};

    return modes[below(chooser, sizeof(modes) / sizeof(modes[0]))];
}

static long choose_argument(struct chooser *chooser, const struct expected *expected,
                            const struct step *step, enum step_field field)
{
    bool reads = step->kind == STEP_READ || step->kind == STEP_PREAD || step->kind == STEP_READER ||
                 step->kind == STEP_WAIT || step->kind == STEP_KILL;

    switch (field) {
    case FIELD_BOX:
        return below(chooser, 4) == 0 ? (long)below(chooser, STEP_BOXES) : 0;
    case FIELD_FD:
    case FIELD_TO:
        return (long)below(chooser, STEP_FDS);
    case FIELD_VIEW:
        return below(chooser, 2) == 0 ? VIEW_MAILBOX : (long)below(chooser, STEP_VIEWS);
    case FIELD_FLAGS:
        return choose_flags(chooser, (enum step_view)step->of[FIELD_VIEW]);
    case FIELD_MODE:
        return choose_mode(chooser);
    case FIELD_SIZE:
        if (step->kind == STEP_TRUNCATE || step->kind == STEP_FTRUNCATE)
            return below(chooser, 3) == 0 ? 0 : (long)below(chooser, 300);
        return reads ? choose_read_size(chooser) : choose_size(chooser);
    case FIELD_OFFSET:
        return choose_offset(chooser, expected, step->of[FIELD_FD]);
    case FIELD_SENDER:
        return 1 + (long)below(chooser, 100000);
    case FIELD_SEED:
        return (long)++chooser->seed;
    default:
        return (long)below(chooser, step->kind == STEP_FORK ? STEP_ENDS : 32);
    }
}

struct step choose(struct chooser *chooser, const struct expected *expected)
{
    struct step step = {.kind = STEP_STATS};

    for (unsigned i = 0; i < TRIES; i++) {
        memset(&step, 0, sizeof(step));
        step.kind = choose_kind(chooser);
        for (unsigned field = 0; field < STEP_FIELDS; field++) {
            if (step_has(step.kind, field))
                step.of[field] = choose_argument(chooser, expected, &step, field);
        }
        if (expected_allows(expected, &step))
            return step;
    }
    return (struct step){.kind = STEP_STATS};
}
