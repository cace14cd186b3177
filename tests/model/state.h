/*
 * state - what the model knows; for its own parts only.
 */
#ifndef MODEL_STATE_H
#define MODEL_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "expected.h"
#include "queue.h"

enum {
    STATE_ENVELOPE_BYTES = 40,
    STATE_OFFSET_UNKNOWN = -1,
    STATE_MODE_MADE = 0644, /* as the umask is */
};

/* What an open file has collected to send. */
struct collected {
    uint8_t *bytes; /* owned */
    size_t count;
    long begin;   /* the file offset of its first byte */
    bool is_new;  /* whatever is written next is the first */
    pid_t sender; /* of the first byte */
    pid_t writer; /* of what was written last */
    int failure;  /* errno: nothing of this message can be sent any more */
};

/* What an open file has shown of `.peek`. */
struct shown {
    uint8_t *bytes; /* owned */
    size_t count;
    bool has_looked;
    uint64_t next_position; /* all messages before it have been looked at */
};

struct opened {
    long box;
    enum step_view view;
    bool reads, writes, appends, collects;
    long mode;      /* of the mailbox when it was opened: it is made again as it was */
    unsigned users; /* descriptors */
    long offset;    /* of the file, that they share */
    long position;  /* from which it receives */
    struct collected collected;
    long sent_bytes; /* where it does not collect */
    struct shown shown;
    bool has_hand; /* a message of which it has handed over a part */
    uint64_t hand_position;
    size_t hand_offset;
};

/* What the last read took, should the daemon have been killed before it could note it. */
struct last {
    bool is_known;
    struct queue_message *list; /* owned */
    size_t count;
    uint8_t *file; /* owned: the mailbox as it was before */
    size_t file_bytes;
};

struct mailbox_state {
    bool exists;
    long mode;
    struct queue queue;
    bool has_waiter;
    struct opened waiter;
    long waiter_size;
    struct last last;
    uint64_t torn_end; /* where the first half of a frame ends; 0: no other half is to come */
};

struct expected {
    long most_bytes;
    pid_t self;
    struct mailbox_state boxes[STEP_BOXES];
    struct opened *fds[STEP_FDS]; /* owned by all who have it */
    long sent, received;          /* since the mount began */
};

/* What is wrong, as printf says it; good until the next call. */
const char *state_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The call must have returned this; or failed with this errno. */
const char *state_returned(const struct outcome *outcome, long result);
const char *state_failed(const struct outcome *outcome, int error);

const char *state_returned_or_failed(const struct outcome *outcome, int error);

/* Whether it is read as a pipe is. */
bool opened_streams(const struct opened *opened);

/* A descriptor less has it; the last one gives back what is in its hand, and frees it. */
void opened_leave(struct expected *expected, struct opened *opened);

/* --- Mailboxes */

/* Of a name, or of an open file. */
const char *mailbox_attributes(struct expected *expected, struct opened *opened, long which,
                               const struct outcome *outcome);
const char *mailbox_check(struct expected *expected, const struct step *step,
                          const struct outcome *outcome);

/* --- Sending */

const char *sending_write(struct expected *expected, struct opened *opened, const struct step *step,
                          const struct outcome *outcome);
const char *sending_truncate(struct expected *expected, struct opened *opened, long size,
                             const struct outcome *outcome);
/* What close and fsync do: `error` is what they say. */
void sending_flush(struct expected *expected, struct opened *opened, int *error);
void sending_spoil(struct opened *opened, int failure);

/* --- Receiving */

const char *receiving_read(struct expected *expected, struct opened *opened, long size, long offset,
                           const struct outcome *outcome);
bool receiving_is_ready(struct expected *expected, const struct opened *opened);
void receiving_give_back(struct expected *expected, struct opened *opened);

/* --- Looking */

const char *looking_read(struct expected *expected, struct opened *opened, long size, long offset,
                         const struct outcome *outcome);
void looking_look(struct expected *expected, struct opened *opened);
/* Whether `.list` says just what is in the box, perhaps with some that were received last in front. */
const char *looking_list(struct expected *expected, long box, const struct outcome_bytes *list);
const char *looking_names(const struct expected *expected, const struct outcome *outcome);
const char *looking_peek(const struct expected *expected, long box, const struct outcome *outcome);

/* --- Between two mounts */

void last_forget(struct last *last);
void last_remember(struct last *last, const struct queue *before);
const char *remounting_clean(struct expected *expected, const struct outcome *outcome);
const char *remounting_killed(struct expected *expected, const struct outcome *outcome);

#endif
