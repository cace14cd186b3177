/*
 * steps - what a run of the model consists of, and its text, one step a line, which can be read
 * back:
 *
 *     open box=0 fd=1 view=mailbox flags=write+create+truncate
 *     write fd=1 size=20 seed=7
 *
 * What a step means is in the table in steps.c. `box` is one of a few mailboxes, `fd` one of a few
 * places for descriptors, `seed` what the bytes are made of. Pure, but for steps_read() and
 * steps_write().
 */
#ifndef MODEL_STEPS_H
#define MODEL_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    STEP_BOXES = 3,
    STEP_FDS = 7,
    STEP_TEXT_BYTES = 160,
};

enum step_kind {
    STEP_OPEN,
    STEP_CLOSE,
    STEP_DUP,
    STEP_READ,
    STEP_PREAD,
    STEP_SEEK,
    STEP_WRITE,
    STEP_PWRITE,
    STEP_FTRUNCATE,
    STEP_FSYNC,
    STEP_POLL,
    STEP_FSTAT,
    STEP_FORK,
    STEP_READER,
    STEP_WAIT,
    STEP_UNWAIT,
    STEP_UNLINK,
    STEP_TRUNCATE,
    STEP_CHMOD,
    STEP_STAT,
    STEP_PEEK,
    STEP_LIST,
    STEP_NAMES,
    STEP_REFUSED,
    STEP_STATS,
    STEP_SEND_BEHIND,
    STEP_DAMAGE,
    STEP_TEAR,
    STEP_MEND,
    STEP_DRAIN_BEHIND,
    STEP_ERASE_BEHIND,
    STEP_REMOUNT,
    STEP_KILL,
    STEP_KINDS,
};

/* The arguments that steps have, each at its place in `step.of`. */
enum step_field {
    FIELD_BOX,
    FIELD_FD,
    FIELD_TO,    /* another descriptor */
    FIELD_VIEW,  /* enum step_view */
    FIELD_FLAGS, /* enum step_flags */
    FIELD_MODE,
    FIELD_SIZE,
    FIELD_OFFSET,
    FIELD_SENDER,
    FIELD_SEED,
    FIELD_WHICH, /* which of several names or calls; of a child: how it ends */
    STEP_FIELDS,
};

enum step_view {
    VIEW_MAILBOX,
    VIEW_FOLLOW,
    VIEW_ENVELOPE,
    VIEW_PEEK,
    STEP_VIEWS,
};

enum step_flags {
    OPEN_READ = 1,
    OPEN_WRITE = 2,
    OPEN_CREATE = 4,
    OPEN_TRUNCATE = 8,
    OPEN_APPEND = 16,
    OPEN_EXCLUSIVE = 32,
    OPEN_NONBLOCK = 64,
};

/* How the child of STEP_FORK ends. */
enum step_end {
    END_EXITS,
    END_KILLED,
    STEP_ENDS,
};

struct step {
    enum step_kind kind;
    long of[STEP_FIELDS]; /* those that its kind does not have are 0 */
};

/* A list of steps, and what the daemon is mounted with. */
struct steps {
    long most_bytes;   /* -o max_message */
    struct step *list; /* owned */
    size_t count;
    size_t room;
};

void steps_init(struct steps *steps, long most_bytes);
void steps_release(struct steps *steps);
void steps_add(struct steps *steps, const struct step *step);

/* Whether steps of this kind have this argument. */
bool step_has(enum step_kind kind, enum step_field field);

/* Its line, without a newline. */
void step_print(const struct step *step, char text[STEP_TEXT_BYTES]);

/* Whether the line is a step. */
bool step_parse(const char *text, struct step *step);

/* All of them, with a first line for the options; and back: false where a line is no step. Lines
 * that begin with '#' are passed over. */
void steps_write(const struct steps *steps, FILE *file);
bool steps_read(struct steps *steps, FILE *file);

/* The directory of a view, with a slash; and the process id of a box. */
const char *step_view_path(enum step_view view);
int step_box_pid(long box);

/* Fills in bytes that tell their seed where there is room for it. */
void step_payload(uint8_t *bytes, size_t size_bytes, unsigned long seed);

#endif
