/*
 * crowd - the 32 processes of a soak, and what they share.
 *
 * Each does one kind of thing until there is no next life (lives.h), at an easy pace, and says so
 * where the mount breaks a promise. An error is none where the daemon has been killed or told to
 * end; any other is.
 *
 * Messages go to BOXES mailboxes, in turn. The first of these are calm: nobody lets go of a message
 * there that he has begun to read, so each reader sees each sender's messages in order.
 */
#ifndef SOAK_CROWD_H
#define SOAK_CROWD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "lives.h"
#include "mailboxes.h"
#include "mount.h"
#include "tally.h"

enum {
    CROWD_COUNT = 32,
    CROWD_BOXES = 6,
    CROWD_CALM_BOXES = 4,
    CROWD_FIRST_BOX = 101,
    CROWD_SPARE_BOX = 9000, /* and its next ones: for those that remove them again */
    CROWD_COMPLAINTS_MOST = 32,
    CROWD_COMPLAINT_BYTES = 200,
    CROWD_MESSAGE_MOST_BYTES = 100000,
    CROWD_READ_BYTES = 1 << 18,
};

/* In memory that all share. */
struct crowd_shared {
    atomic_uint complaints_count;
    char complaints[CROWD_COMPLAINTS_MOST][CROWD_COMPLAINT_BYTES];
    atomic_ulong done[CROWD_COUNT];       /* what each has done, counted in what it does */
    atomic_uint next[TALLY_SENDERS_MOST]; /* of each sender, the number of the next message */
};

struct crowd {
    struct mount *mount;
    struct lives *lives;
    struct tally *tally;
    struct crowd_shared *shared;
    pid_t pids[CROWD_COUNT]; /* 0: has been reaped */
};

/* One process of it, in its own memory. */
struct crowd_member {
    struct crowd *crowd;
    unsigned number; /* in the crowd */
    unsigned which;  /* of its kind; of the senders, counted over all kinds of them */
    struct random random;
    unsigned life; /* the present one, as far as it has noticed */
    int root;      /* the mount of this life; -1: none */
};

/* What a member does; returns when all is over. */
typedef void crowd_act(struct crowd_member *member);

crowd_act crowd_send, crowd_send_behind, crowd_send_killed;
crowd_act crowd_receive, crowd_follow, crowd_envelope, crowd_poll, crowd_drain,
    crowd_receive_killed;
crowd_act crowd_look, crowd_change;

/* How many messages each sender has room for in the tally when it runs so long. */
unsigned crowd_each_most(unsigned seconds);
unsigned crowd_senders(void);

/* Makes the mailboxes and starts all. 0, or -1. To be called while it is mounted. */
int crowd_start(struct crowd *crowd);

/* Complains of those that have ended too soon. */
void crowd_look_after(struct crowd *crowd);

/* After lives_finish(): waits for all; complains of those that do not end well. */
void crowd_join(struct crowd *crowd);

/* Receives all that waits, from the daemon that lives. */
void crowd_receive_rest(struct crowd *crowd);

/* Kinds, for the report: what `number` stands for, how many there are of it and what they have
 * done; false: there is no such kind. */
bool crowd_kind(const struct crowd *crowd, unsigned number, const char **what, unsigned *count,
                unsigned long *done);

/* The name of the file that who takes messages behind the mount locks meanwhile. What somebody
 * takes while the daemon is dead, of what that was just moving, comes again (segment.h). */
const char *crowd_gate(struct mount *mount);

/* --- For members ------------------------------------------------------------------------------ */

/* Waits for the next life and opens its root. False: all is over. */
bool crowd_enter(struct crowd_member *member);

/* Leaves the present one, which need not have ended. Whether it ended by a kill. */
bool crowd_leave(struct crowd_member *member);

/* Whether there is a reason for an error. */
bool crowd_is_excused(const struct crowd_member *member);

/* Says what went wrong. */
void crowd_complain(struct crowd *crowd, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Something went wrong, errno says what: complains unless it is excused. Returns false. */
bool crowd_failed(const struct crowd_member *member, const char *what);

/* Sleeps for a time that is `mean_ms` on average. */
void crowd_pause(struct crowd_member *member, unsigned mean_ms);

/* Counts something done. */
void crowd_count(const struct crowd_member *member);

/* The mailbox that a message is for. */
int crowd_box_of(struct tally_id id);

/* Sees an answer, of `.envelope` or not, with a zero behind it; complains where it is of another
 * mailbox than `box`. */
void crowd_see(const struct crowd_member *member, struct tally_reader *reader, int box,
               bool of_envelope, const char *bytes, size_t size_bytes);

#endif
