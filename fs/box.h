/*
 * box - a mailbox as the daemon sees it: one thing at a time, and nobody waits for anybody.
 *
 * A thread that has a job for a box gives it in. If nobody is at work there, the thread does the
 * job, and all others that come in meanwhile, and goes away. If somebody is, the job is left for
 * him and the thread goes for its next request. So a box needs no lock around its work, and a slow
 * one holds one thread, not all.
 *
 * A job that finds the mailbox's lock held by another process is put aside, and with it every one
 * that comes after it and needs the lock, in order. The keeper tries the lock again at growing
 * intervals (flock has no event that could be waited for along with others), and after lock_timeout
 * they are all answered together. From then on the box counts as stuck and jobs fail at once where
 * the lock is still held, until somebody gets it.
 *
 * A job that finds no message, and waits for one, is put aside too. It is tried again when there is
 * news: something was sent or given back through this mount, or the lookout saw the file below
 * change. One at a time, in the order in which they came, for as long as there is something for the
 * first. Where there is mail but not the lock, the first waits for the lock, and the others behind
 * him still for mail.
 *
 * Interrupts: the kernel names a waiting request; its job is taken out of the queue and answered by
 * the keeper. A job at work is not disturbed: it is over in no time, or comes back to be put aside,
 * and is answered then.
 */
#ifndef GPROCFS_BOX_H
#define GPROCFS_BOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "boxes.h"
#include "inflight.h"
#include "job.h"
#include "job_queue.h"
#include "lock.h"
#include "mailbox.h"
#include "measure.h"

struct gprocfs;
struct picture;
struct poller;

/* What a box keeps open from one job to the next: opening costs more than what is done with it. */
struct box_files {
    /* His who is at work. */
    struct gproc_lock lock; /* rests in between */
    struct gproc_mailbox mailbox;
    /* Protected by the box's mutex: what was open last. While it is what it was, it can be opened. */
    struct gproc_identity known_lock;
    struct gproc_identity known_mailbox;
    int known_access; /* to the mailbox */
};

enum {
    BOX_TOLD_COUNT = 16,
};

/* The threads that were told to look the name up again, and have not opened it yet; see tree.h. */
struct box_told {
    pid_t threads[BOX_TOLD_COUNT]; /* or 0 */
    size_t next;
    int64_t until_ms;
};

struct box {
    pid_t pid;
    struct gprocfs *fs;

    /* Protected by boxes.mutex. */
    struct box *next;
    size_t users_count;
    struct box *next_resting; /* see boxes.h */
    struct box **link_resting;
    int64_t rests_since_ms;

    pthread_mutex_t mutex;
    /* Protected by mutex. */
    bool busy;            /* somebody is at work: only he touches what is his below */
    bool news;            /* the first that waits for mail is worth a try */
    bool returned;        /* also while the lock is held: something was given back */
    bool mail_is_watched; /* the lookout says `news` when the file below changes */
    bool base_is_taken;   /* one open file writes through the node that names have first */
    bool lock_is_held;    /* it was found held, and no try since has said otherwise */
    bool stuck;
    struct handle *handles; /* the open files */
    struct job_queue ready;
    struct job_queue later;       /* at work on something long, in slices */
    struct job_queue contended;   /* waiting for the lock, in order */
    struct job_queue waiting;     /* for mail, in order */
    struct poller *pollers;       /* who wants to hear of mail */
    size_t followers_count;       /* open files whose reads wait for mail */
    struct picture *pictures;     /* that open files show */
    size_t base_collectors_count; /* open files that collect, through that node */
    size_t base_clears_count;     /* requests to empty it through that node, which hold it, too */
    /* Somebody was told to look the name up again; see tree.h. */
    int64_t base_shunned_until_ms;
    struct box_told *told;    /* owned; NULL: nobody ever was */
    int64_t held_since_ms;    /* while lock_is_held */
    unsigned int turns_count; /* jobs that were begun */
    /* Whom a lock file belongs to that has to be made while they wait. */
    struct gproc_creator waiter;
    struct box_files *files; /* owned; or NULL. Changed by who is at work, or when nobody uses it */

    /* Protected by the keeper's mutex. */
    struct box *next_watched;
    bool watched;

    /* Protected by the lookout's mutex. */
    struct box *next_attended;
    bool attended;
    bool to_tell; /* the pollers, when attended */

    /* The lookout's alone. */
    struct box *next_polled;

    /* His who is at work. */
    struct gproc_inflight inflight;
    struct gproc_measure *measure; /* owned; NULL: of an empty mailbox, or of none */
    uint64_t damage_told_bytes;    /* how much of the damage has been logged */
    uint64_t counted_messages;     /* how many of those in flight have been counted */
};

/* Gives a job in; it is done, put aside or left for another thread when this returns. `job` may be
 * on the stack. */
void box_submit(struct job *job);

/*
 * Takes the mailbox's lock for the job at work. 0, or -EWOULDBLOCK: return JOB_NEEDS_LOCK, or call
 * box_lock_is_held(); or the error to answer. From then on `box->files` is there.
 */
int box_lock(struct job *job);
void box_unlock(struct box *box);

/*
 * Whether somebody holds the lock, without waiting: 0, -EWOULDBLOCK, or why it cannot be had. By
 * anybody; where another is at work, he will find out. `creator` as for gproc_lock_take().
 */
int box_try_lock(struct box *box, struct gproc_creator creator);

/* Brings the measure up to date, as gproc_measure_update(), and shows it; also -ENOMEM. By whoever
 * is at work. `*measure` is the box's, until the next time. */
int box_measure(struct box *box, struct stat *status, const struct gproc_measure **measure);

/* There is nothing to be known of the mailbox any more. By whoever is at work. */
void box_forget_measure(struct box *box);

/* Whether a file with this status has been open here, just as it is. Looked at by anybody. */
bool box_knows_mailbox(struct box *box, const struct stat *status, int access);
bool box_knows_lock(struct box *box, const struct stat *status);

/* The job at work could not have the lock, and does not wait for it. Whoever polls is told when it is
 * free. */
void box_lock_is_held(const struct job *job);

/* Whether its lock was found held, and no try since has said otherwise. */
bool box_knows_lock_held(struct box *box);

/* Whether its lock has been held for longer than anybody is to wait, and still is as far as we
 * know. */
bool box_is_stuck(struct box *box);

/* Whether the kernel may hold the inode of the first node for as long as somebody waits for the
 * lock. Call with the mutex held. */
bool box_base_is_taken(const struct box *box);

/*
 * The thread was told so, and looks the name up again, only once: he gets a node of his own, however
 * late he comes; and for a while everybody does, so that he does not meet the next one. Call with the
 * mutex held.
 */
void box_shun_base(struct box *box, pid_t thread);

/* He has opened it (the kernel may ask for the name more than once before). Call with the mutex held.
 */
void box_has_come(struct box *box, pid_t thread);

/* Whether somebody who was told may come still. Call with the mutex held, or where nobody uses the
 * box. */
bool box_expects_lookup(const struct box *box);

/* Whether this thread, who looks the name up, is to get a node of his own. */
bool box_base_is_shunned(struct box *box, pid_t thread);

/* There may be something to receive. By whoever is at work. */
void box_has_news(struct box *box);

/* The same for what is in flight: whoever waits for it needs no lock. By whoever is at work. */
void box_has_returned(struct box *box);

/* The same, for the lookout, who saw the file below change: those that wait are tried. */
void box_take_up(struct box *box);

/* For the crew: closes what is open, unless somebody has come back to it. May take as long as the
 * file system below does. */
void box_close_files(struct box *box);

/* Brings the count of what all boxes have in flight up to date. By whoever is at work. */
void box_count_inflight(struct box *box);

/* Whether somebody waits for mail, or is about to. The first with the mutex held. */
bool box_needs_watch(const struct box *box);
bool box_is_followed(struct box *box);

/* At the end of the mount: all that wait, for the lock or for mail, are answered `error`. */
void box_end_parked(struct box *box, int error);

/* For the keeper: the lock looks free: those that wait for it go on. */
void box_lock_is_free(struct box *box);

/* For the keeper: the lock has been held for too long. All that wait are answered `error`, and the
 * box is stuck. */
void box_lock_timed_out(struct box *box, int error);

/* For the keeper: it has been held too long for those that hold the directory meanwhile, or, where
 * several collect through the first node, its inode (fsync). They are answered -ETIMEDOUT. */
void box_let_others_pass(struct box *box);

/* Answers an interrupted job that has been taken out of its queue. */
void box_abandon(struct job *job);

#endif
