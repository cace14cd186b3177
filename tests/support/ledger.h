/*
 * ledger - which messages were sent and which came out, in memory that a test shares with its
 * children: what a child has written there is there, however it or the daemon ends.
 *
 * A message is known by its number, which its payload begins with; the rest of the payload follows
 * from number and length, so that one that was mixed or cut is not taken for any. Numbers grow in
 * the order in which the messages are sent.
 *
 * Functions may be used in any process, and fail no test. What one message's entry says is written
 * by one process at a time.
 */
#ifndef TEST_LEDGER_H
#define TEST_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount.h"

enum {
    LEDGER_MESSAGES_MOST = 64,
    LEDGER_PAYLOAD_LEAST_BYTES = 8,
    LEDGER_PAYLOAD_MOST_BYTES = 400000,
};

enum ledger_state {
    LEDGER_UNSENT, /* must not be seen */
    LEDGER_TRIED,  /* its sender got no answer: it may be seen, once */
    LEDGER_FAILED, /* he got an error */
    LEDGER_SENT,   /* must be seen */
};

struct ledger_entry {
    int box;
    size_t payload_bytes;
    volatile enum ledger_state state;
    volatile int error;       /* errno of a send that failed */
    volatile unsigned before; /* how often a client of the daemon under test got it */
    volatile unsigned answer; /* in which of its answers, counted from 1, for the last time */
    volatile unsigned after;  /* how often it was there afterwards */
    unsigned repeats;         /* how often it was being handed over when the daemon was killed */
};

struct ledger {
    volatile bool begun;        /* from here on calls of the daemon count */
    volatile bool over;         /* and no longer */
    volatile unsigned answers;  /* that a client got */
    volatile unsigned strange;  /* what came out and was no message of ours */
    volatile unsigned disorder; /* messages that came after a later one of their box */
    volatile unsigned errors;   /* that a client got */
    volatile bool cleared;      /* rm or truncate has begun: what was there may be gone */
    volatile bool emptied;      /* and has ended well: it must be gone */
    unsigned count;
    struct ledger_entry entries[LEDGER_MESSAGES_MOST];
};

/* What the circumstances allow. */
enum ledger_leave {
    LEDGER_ANY_TWICE = 1,   /* each may be seen again, not only what was in the last answer */
    LEDGER_FAILED_SEEN = 2, /* what its sender got an error for may have been sent */
};

struct ledger_totals {
    unsigned lost;
    unsigned twice;
};

/* Shared with all children that are made afterwards. NULL: no memory. */
struct ledger *ledger_new(void);
void ledger_free(struct ledger *ledger);

/* Forgets everything. */
void ledger_clear(struct ledger *ledger);

/* A new message, unsent: its number. */
int ledger_add(struct ledger *ledger, int box, size_t payload_bytes);

/* Its payload, good until the next call. */
const uint8_t *ledger_payload(const struct ledger *ledger, int which);

/* A new message, that is sent from behind. Its number, or a negative errno. */
int ledger_send_behind(struct ledger *ledger, struct mount *mount, int box, size_t payload_bytes);

/* The number of the message that has this payload, or -1. */
int ledger_identify(const struct ledger *ledger, const uint8_t *payload, size_t payload_bytes);

/* Sends a new message through the mount, by an open with these flags and `pieces` writes. */
void ledger_send(struct ledger *ledger, struct mount *mount, int box, size_t payload_bytes,
                 int flags, unsigned pieces);

/* Notes that this payload came out: of the daemon under test, or of the one `afterwards`. */
void ledger_see(struct ledger *ledger, int box, const uint8_t *payload, size_t payload_bytes,
                bool afterwards);

/*
 * Reads a mailbox through the mount up to its end, or `most` answers of it. How many answers, or
 * what open or read said (negative). `view` is "" or ".envelope/" and the like, which is read
 * without waiting.
 */
int ledger_receive(struct ledger *ledger, struct mount *mount, const char *view, int box, int most,
                   bool afterwards);

/* The daemon was killed, and its clients are gone: what the last answer had may be seen again. */
void ledger_killed(struct ledger *ledger);

/* What is wrong with the accounts: NULL where nothing is. `leave`: enum ledger_leave. The totals
 * are added to. */
const char *ledger_judge(const struct ledger *ledger, unsigned leave, struct ledger_totals *totals);

#endif
