#include "steps.h"

#include <stdlib.h>
#include <string.h>

#define HAS(field) (1U << FIELD_##field)

/* What they do on the mount; "behind" is what a Go program does. */
static const struct {
    const char *name;
    unsigned fields;
} kinds[STEP_KINDS] = {
    [STEP_OPEN] = {"open", HAS(BOX) | HAS(FD) | HAS(VIEW) | HAS(FLAGS)},
    [STEP_CLOSE] = {"close", HAS(FD)},
    [STEP_DUP] = {"dup", HAS(FD) | HAS(TO)},
    [STEP_READ] = {"read", HAS(FD) | HAS(SIZE)},
    [STEP_PREAD] = {"pread", HAS(FD) | HAS(SIZE) | HAS(OFFSET)},
    [STEP_SEEK] = {"seek", HAS(FD) | HAS(OFFSET)},
    [STEP_WRITE] = {"write", HAS(FD) | HAS(SIZE) | HAS(SEED)},
    [STEP_PWRITE] = {"pwrite", HAS(FD) | HAS(SIZE) | HAS(OFFSET) | HAS(SEED)},
    [STEP_FTRUNCATE] = {"ftruncate", HAS(FD) | HAS(SIZE)},
    [STEP_FSYNC] = {"fsync", HAS(FD)},
    [STEP_POLL] = {"poll", HAS(FD)},
    [STEP_FSTAT] = {"fstat", HAS(FD)},
    /* A child with all descriptors writes to one of them, and ends. */
    [STEP_FORK] = {"fork", HAS(FD) | HAS(SIZE) | HAS(SEED) | HAS(WHICH)},
    /* A process opens, reads once, and is killed. */
    [STEP_READER] = {"reader", HAS(BOX) | HAS(VIEW) | HAS(SIZE)},
    /* A process opens and reads once, for as long as that takes; or is killed while it waits. */
    [STEP_WAIT] = {"wait", HAS(BOX) | HAS(VIEW) | HAS(SIZE)},
    [STEP_UNWAIT] = {"unwait", HAS(BOX)},
    [STEP_UNLINK] = {"unlink", HAS(BOX)},
    [STEP_TRUNCATE] = {"truncate", HAS(BOX) | HAS(SIZE)},
    [STEP_CHMOD] = {"chmod", HAS(BOX) | HAS(MODE)},
    [STEP_STAT] = {"stat", HAS(BOX)},
    [STEP_PEEK] = {"peek", HAS(BOX)},
    [STEP_LIST] = {"list", HAS(BOX)},
    [STEP_NAMES] = {"names", 0},
    /* A call that is not for mailboxes, or a name that is none. */
    [STEP_REFUSED] = {"refused", HAS(WHICH)},
    [STEP_STATS] = {"stats", 0},
    [STEP_SEND_BEHIND] = {"send-behind", HAS(BOX) | HAS(SIZE) | HAS(SENDER) | HAS(SEED)},
    /* Bytes that never become a message; the first half of a frame, and its other half. */
    [STEP_DAMAGE] = {"damage", HAS(BOX) | HAS(SIZE)},
    [STEP_TEAR] = {"tear", HAS(BOX) | HAS(SIZE) | HAS(SEED)},
    [STEP_MEND] = {"mend", HAS(BOX)},
    [STEP_DRAIN_BEHIND] = {"drain-behind", HAS(BOX)},
    [STEP_ERASE_BEHIND] = {"erase-behind", HAS(BOX)},
    [STEP_REMOUNT] = {"remount", 0},
    /* Reads, where that descriptor is one to read from, and kills the daemon at once. */
    [STEP_KILL] = {"kill", HAS(FD) | HAS(SIZE)},
};

static const char *const fields[STEP_FIELDS] = {
    [FIELD_BOX] = "box",   [FIELD_FD] = "fd",         [FIELD_TO] = "to",
    [FIELD_VIEW] = "view", [FIELD_FLAGS] = "flags",   [FIELD_MODE] = "mode",
    [FIELD_SIZE] = "size", [FIELD_OFFSET] = "offset", [FIELD_SENDER] = "sender",
    [FIELD_SEED] = "seed", [FIELD_WHICH] = "which",
};

static const char *const views[STEP_VIEWS] = {"mailbox", "follow", "envelope", "peek"};
static const char *const view_paths[STEP_VIEWS] = {"", ".follow/", ".envelope/", ".peek/"};

static const char *const flags[] = {"read",   "write",     "create",  "truncate",
                                    "append", "exclusive", "nonblock"};

enum {
    FLAGS_COUNT = sizeof(flags) / sizeof(flags[0]),
    MODE_BASE = 8,
    LINE_BYTES = 512,
};

static const char options_line[] = "mounted with max_message=%ld\n";

void steps_init(struct steps *steps, long most_bytes)
{
    memset(steps, 0, sizeof(*steps));
    steps->most_bytes = most_bytes;
}

void steps_release(struct steps *steps)
{
    free(steps->list);
    steps_init(steps, steps->most_bytes);
}

void steps_add(struct steps *steps, const struct step *step)
{
    if (steps->count == steps->room) {
        steps->room = steps->room * 2 + 64;
        steps->list = reallocarray(steps->list, steps->room, sizeof(*steps->list));
        if (steps->list == NULL)
            abort();
    }
    steps->list[steps->count++] = *step;
}

bool step_has(enum step_kind kind, enum step_field field)
{
    return (kinds[kind].fields & 1U << field) != 0;
}

static void print_flags(long value, char text[STEP_TEXT_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < FLAGS_COUNT; i++) {
        if ((value & 1L << i) == 0)
            continue;
        if (text[0] != '\0')
            strcat(text, "+");
        strcat(text, flags[i]);
    }
}

void step_print(const struct step *step, char text[STEP_TEXT_BYTES])
{
    size_t used = (size_t)snprintf(text, STEP_TEXT_BYTES, "%s", kinds[step->kind].name);

    for (unsigned i = 0; i < STEP_FIELDS; i++) {
        char value[STEP_TEXT_BYTES];

        if (!step_has(step->kind, i))
            continue;
        if (i == FIELD_VIEW)
            snprintf(value, sizeof(value), "%s", views[step->of[i]]);
        else if (i == FIELD_FLAGS)
            print_flags(step->of[i], value);
        else
            snprintf(value, sizeof(value), i == FIELD_MODE ? "0%lo" : "%ld", step->of[i]);
        used += (size_t)snprintf(text + used, STEP_TEXT_BYTES - used, " %s=%s", fields[i], value);
    }
}

/* Which of the words it is, or -1. */
static int word_of(const char *text, size_t length, const char *const words[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(words[i]) == length && strncmp(words[i], text, length) == 0)
            return (int)i;
    }
    return -1;
}

static bool parse_flags(const char *text, long *value)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "+");
        int which = word_of(text, length, flags, FLAGS_COUNT);

        if (which < 0)
            return false;
        *value |= 1L << which;
        text += length + (text[length] == '+');
    }
    return true;
}

static bool in_range(unsigned field, long value)
{
    static const long limits[STEP_FIELDS] = {
        [FIELD_BOX] = STEP_BOXES, [FIELD_FD] = STEP_FDS, [FIELD_TO] = STEP_FDS};

    return value >= 0 && (limits[field] == 0 || value < limits[field]);
}

/* A word such as "size=3". */
static bool parse_field(const char *word, struct step *step)
{
    size_t length = strcspn(word, "=");
    int field = word_of(word, length, fields, STEP_FIELDS);
    const char *text = word + length + 1;
    char *end;
    int view;

    if (word[length] != '=' || field < 0 || !step_has(step->kind, (enum step_field)field))
        return false;
    if (field == FIELD_FLAGS)
        return parse_flags(text, &step->of[field]);
    if (field == FIELD_VIEW) {
        view = word_of(text, strlen(text), views, STEP_VIEWS);
        step->of[field] = view;
        return view >= 0;
    }
    step->of[field] = strtol(text, &end, field == FIELD_MODE ? MODE_BASE : 10);
    return end != text && *end == '\0' && in_range((unsigned)field, step->of[field]);
}

bool step_parse(const char *text, struct step *step)
{
    char line[LINE_BYTES];
    char *rest = line;
    const char *word;
    bool good = strlen(text) < sizeof(line);
    unsigned kind = 0;

    memset(step, 0, sizeof(*step));
    if (!good)
        return false;
    strcpy(line, text);
    word = strsep(&rest, " \n");
    while (kind < STEP_KINDS && strcmp(kinds[kind].name, word) != 0)
        kind++;
    if (kind == STEP_KINDS)
        return false;
    step->kind = kind;
    while (good && (word = strsep(&rest, " \n")) != NULL) {
        if (*word != '\0')
            good = parse_field(word, step);
    }
    return good;
}

void steps_write(const struct steps *steps, FILE *file)
{
    char text[STEP_TEXT_BYTES];

    fprintf(file, options_line, steps->most_bytes);
    for (size_t i = 0; i < steps->count; i++) {
        step_print(&steps->list[i], text);
        fprintf(file, "%s\n", text);
    }
}

bool steps_read(struct steps *steps, FILE *file)
{
    char line[LINE_BYTES];
    struct step step;
    bool good = true;

    steps_init(steps, 0);
    while (good && fgets(line, sizeof(line), file) != NULL) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        if (steps->most_bytes == 0) {
            good = sscanf(line, options_line, &steps->most_bytes) == 1 && steps->most_bytes > 0;
            continue;
        }
        good = step_parse(line, &step);
        if (good)
            steps_add(steps, &step);
    }
    return good && steps->most_bytes > 0;
}

const char *step_view_path(enum step_view view)
{
    return view_paths[view];
}

int step_box_pid(long box)
{
    static const int pids[STEP_BOXES] = {1, 2147483647, 4711};

    return pids[box];
}

void step_payload(uint8_t *bytes, size_t size_bytes, unsigned long seed)
{
    char head[32];
    size_t length = (size_t)snprintf(head, sizeof(head), "%lu.", seed);

    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = i < length ? (uint8_t)head[i] : (uint8_t)('a' + (i + seed) % 26);
}
