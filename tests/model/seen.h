/*
 * seen - what the parts of perform.h share: how outcomes are noted, and what they do.
 */
#ifndef MODEL_SEEN_H
#define MODEL_SEEN_H

#include <sys/stat.h>

#include "perform.h"

enum {
    SEEN_DEADLINE_MS = 20000,
};

extern const char seen_late[];

/* Where a box is in a view; good as mount_path() is. */
const char *seen_path(struct performer *performer, long box, enum step_view view);

/* What a call returned, and errno; bytes, which may be NULL where there are none. */
void seen(struct outcome *outcome, long result);
void seen_bytes(struct outcome_bytes *to, const uint8_t *bytes, size_t count);

/* What stat returned, and what it said. */
void seen_attributes(struct outcome *outcome, long result, const struct stat *status);

/* All of a file: 0, or -1 and errno. */
long seen_file(const char *path, struct outcome_bytes *to);

/* A sample of `.stats`, 0 where there is none, or -1. */
long seen_sample(struct performer *performer, const char *name);

void seen_pause(void);

/* Looks at each box, which comes after all that the daemon has to do for it. */
void seen_finish(struct performer *performer);

/* How much a step reads, or has of bytes: no more than there is room for. */
size_t seen_read_size(const struct step *step);

/* Steps of descriptors. */
void descriptor_open(struct performer *performer, const struct step *step, struct outcome *outcome);
void descriptor_read(struct performer *performer, const struct step *step, struct outcome *outcome);
const char *descriptor_do(struct performer *performer, const struct step *step,
                          struct outcome *outcome);
void descriptor_close_all(struct performer *performer);

/* Steps of processes that read. */
const char *reader_do(struct performer *performer, const struct step *step,
                      struct outcome *outcome);
const char *reader_wait(struct performer *performer, const struct step *step,
                        struct outcome *outcome);
const char *reader_unwait(struct performer *performer, long box);

/* Steps of mailboxes, through the mount and behind it. */
const char *mailbox_names(struct performer *performer, struct outcome *outcome);
const char *mailbox_stats(struct performer *performer, struct outcome *outcome);
const char *mailbox_do(struct performer *performer, const struct step *step,
                       struct outcome *outcome);
const char *behind_do(struct performer *performer, const struct step *step,
                      struct outcome *outcome);

#endif
