/*
 * remains - what the files of a store and a mailbox say is left of the messages of one process, read
 * as plainly as can be, to hold lib/inflight.c against.
 *
 * Shares no code with lib/: it knows the format of segments (lib/segment.h) and the resync rule
 * (lib/scan.h) by itself. Quadratic, so for small files. For tests only: whatever goes wrong ends
 * the program.
 */
#ifndef TEST_REMAINS_H
#define TEST_REMAINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    REMAINS_FILES = 64,
};

enum remains_state {
    REMAINS_MAILBOX, /* it is no segment */
    REMAINS_MOVING,
    REMAINS_READY,
    REMAINS_RETURNING,
};

struct remains_file {
    uint64_t serial; /* UINT64_MAX: the mailbox, which comes last */
    enum remains_state state;
    uint8_t *bytes; /* owned: the file */
    uint8_t *data;  /* in it */
    size_t data_bytes;
    bool *is_gone;   /* owned, one for each byte of data: it has been delivered */
    bool has_gone;   /* whether there is one */
    uint64_t *voids; /* owned: serials that it says are void */
    size_t voids_count;
};

struct remains_message {
    const struct remains_file *file; /* not owned */
    off_t offset;                    /* of the frame */
    int32_t sender;
    const uint8_t *payload; /* not owned */
    size_t payload_bytes;
};

struct remains {
    struct remains_file files[REMAINS_FILES];
    size_t files_count;
    struct remains_message *messages; /* owned; in order */
    size_t messages_count;
    uint64_t payload_bytes;
};

/* Reads the segments of `pid` in `directory`, and the mailbox's file. NULL: without that. Where one
 * of them is not there, there is nothing in it. */
void remains_init(struct remains *remains, const char *directory, const char *mailbox, pid_t pid);
void remains_release(struct remains *remains);

/* Whether one of the files says that the one with this serial is void. */
bool remains_is_void(const struct remains *remains, uint64_t serial);

/* Whether one of the files has such a message at this place. */
bool remains_has(const struct remains *remains, off_t offset, int32_t sender,
                 const uint8_t *payload, size_t payload_bytes);

/* All messages, one frame after the other. Freed by the caller. */
uint8_t *remains_frames(const struct remains *remains, size_t *size_bytes);

/* All bytes that are not gone, one file after the other. Freed by the caller. */
uint8_t *remains_bytes(const struct remains *remains, size_t *size_bytes);

#endif
