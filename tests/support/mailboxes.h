/*
 * mailboxes - makes mailboxes, intact and damaged in many ways, from a seed: the same seed, the
 * same bytes.
 *
 * Shares no code with lib/. For tests only: running out of memory ends the program.
 */
#ifndef GPROC_TESTS_MAILBOXES_H
#define GPROC_TESTS_MAILBOXES_H

#include <stddef.h>
#include <stdint.h>

/* Numbers that look random: splitmix64, of which any state is a good one. */
struct random {
    uint64_t state;
};

uint64_t random_next(struct random *random);

/* One of 0 .. limit - 1; 0 if `limit` is 0. */
size_t random_below(struct random *random, size_t limit);

enum mailbox_kind {
    MAILBOX_INTACT,
    MAILBOX_FLIPPED,    /* some bits are wrong */
    MAILBOX_CUT,        /* a piece is missing, from the midst or from the end */
    MAILBOX_GARBAGE,    /* noise between the frames */
    MAILBOX_NESTED,     /* payloads are frames; some outer frames are damaged */
    MAILBOX_ZEROS,      /* mostly zeros, some frames */
    MAILBOX_ONES,       /* mostly 0xff, some frames */
    MAILBOX_FEW_VALUES, /* noise of bytes that make plausible lengths */
    MAILBOX_PAST_END,   /* lengths about the number of bytes left, a few more or less */
    MAILBOX_NEAR_MISS,  /* headers upon headers, whose checksums are off by little, or right */
    MAILBOX_KINDS,
};

/* `kind` in words. */
const char *mailbox_kind_name(enum mailbox_kind kind);

struct mailbox {
    uint8_t *data; /* owned; exactly size_bytes long, so that overreads show */
    size_t size_bytes;
};

/* A mailbox of about `size_bytes` bytes, or less. */
void mailbox_init(struct mailbox *mailbox, enum mailbox_kind kind, size_t size_bytes,
                  struct random *random);
void mailbox_release(struct mailbox *mailbox);

/* Writes a frame for the `payload_bytes` bytes after the 12 at `frame`; its checksum is off by
 * `error`. */
void mailbox_frame(uint8_t *frame, uint32_t payload_bytes, uint32_t sender, uint32_t error);

#endif
