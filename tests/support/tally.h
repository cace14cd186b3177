/*
 * tally - what became of each of very many messages, in memory that a test shares with its
 * children: what a child has written there is there, however it or the daemon ends.
 *
 * As ledger, but for millions: a message is known by its sender's number, from 0, and as which of
 * his it was sent, from 0, and costs three bytes. Its payload begins with these and with its
 * length; the rest of it follows from them, so that one that was mixed or cut is not taken for any.
 *
 * Functions may be used in any process, and fail no test. What a message's fate is says one process
 * at a time.
 */
#ifndef TEST_TALLY_H
#define TEST_TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TALLY_SENDERS_MOST = 64,
    TALLY_PAYLOAD_LEAST_BYTES = 40,
    TALLY_PAYLOAD_MOST_BYTES = 1 << 18,
    TALLY_HAND_MOST = 1 << 16,
};

enum tally_fate {
    TALLY_UNTRIED = 0, /* must not be seen */
    TALLY_TRIED,       /* its sender got no answer, or an error: it may be seen, once */
    TALLY_SENT,        /* must be seen */
    TALLY_WITHDRAWN,   /* its sender was killed before its end: must not be seen */
};

struct tally_entry {
    atomic_uchar fate; /* enum tally_fate */
    atomic_uchar seen;
    atomic_uchar repeats; /* how often it may have been in hand when the daemon was killed */
};

struct tally {
    unsigned senders_count;
    unsigned each_most; /* messages of one sender */
    size_t map_bytes;
    atomic_ulong sent, received, twice; /* messages */
    atomic_uint strange;                /* what came out and was no message of ours */
    atomic_uint disorder;               /* messages that came after a later one of their sender */
    struct tally_entry entries[];
};

/* Which message. */
struct tally_id {
    unsigned sender;
    unsigned which;
};

/* What one reader knows, in his own memory; all zero is a valid start, but for `ordered`. */
struct tally_reader {
    bool ordered;                          /* each sender's messages must come in order */
    unsigned next[TALLY_SENDERS_MOST];     /* of each sender, what may come */
    struct tally_id hand[TALLY_HAND_MOST]; /* the last answer */
    size_t hand_count;
};

struct tally_account {
    unsigned long sent, unanswered, withdrawn;
    unsigned long lost;
    unsigned long twice;   /* seen more than once */
    unsigned long doubled; /* of these, those for which no kill is a reason */
    unsigned long forged;  /* seen, and never sent or withdrawn */
};

/* Shared with all children that are made afterwards. Memory is used as messages are sent. NULL: no
 * memory. */
struct tally *tally_new(unsigned senders_count, unsigned each_most);
void tally_free(struct tally *tally);

/* A message's fate. TALLY_SENT is counted. */
void tally_set(struct tally *tally, struct tally_id id, enum tally_fate fate);

/* Writes its payload: as many bytes as asked for, but what is possible. How many. */
size_t tally_payload(struct tally_id id, size_t payload_bytes, uint8_t *to);

/* The message that has this payload at its start, and so many bytes; false where none has. */
bool tally_identify(const struct tally *tally, const uint8_t *bytes, size_t size_bytes,
                    struct tally_id *id, size_t *payload_bytes);

/* A new open file: what it gives is in order by itself. */
void tally_open(struct tally_reader *reader);

/* A new answer: what came with the last one is no longer in hand. */
void tally_answer(struct tally_reader *reader);

/* This payload came out, in the present answer. */
void tally_see(struct tally *tally, struct tally_reader *reader, const uint8_t *payload,
               size_t payload_bytes);

/* An answer of `.envelope`, a zero behind it. */
void tally_see_envelopes(struct tally *tally, struct tally_reader *reader, const char *bytes,
                         size_t size_bytes);

/* The daemon that gave the reader his last answer was killed: he may see it again. */
void tally_killed(struct tally *tally, struct tally_reader *reader);

/* Adds up what became of each sender's messages from `from` up to, not with, `to`; NULL: from the
 * first one, to the last one. */
struct tally_account tally_account(const struct tally *tally, const unsigned from[],
                                   const unsigned to[]);

#endif
