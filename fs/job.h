/*
 * job - a request on its way through a mailbox, which may have to wait there.
 *
 * A job begins on the stack of the thread that got the request. Most are answered there and never
 * cost an allocation. One that must wait is kept: moved to the heap with what it points to, and
 * made interruptible.
 *
 * Whoever holds a job answers its request exactly once, with job_reply_*(), and then ends it.
 */
#ifndef GPROCFS_JOB_H
#define GPROCFS_JOB_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lock.h"
#include "tree.h"

struct box;
struct gprocfs;
struct handle;
struct job;
struct job_queue;
struct poller;

enum job_result {
    JOB_DONE,       /* answered */
    JOB_NEEDS_LOCK, /* the mailbox's lock is held by somebody else: nothing has happened yet */
    JOB_AGAIN,      /* it is not done: others first, then the rest */
    JOB_NEEDS_MAIL, /* there is no message to be had: nothing has happened yet */
};

/* Those that wait are many: what is small stands together, and what no job uses at once in one
 * place. */
struct job {
    fuse_req_t req; /* NULL for a job that nobody waits for */
    struct gprocfs *fs;
    struct box *box; /* a reference of its own */
    struct handle
        *handle; /* not owned: the kernel keeps it open while the request is there; or NULL */
    /* Does the work; called again from the start after it said that it needs something. */
    enum job_result (*run)(struct job *job);
    bool holds_base;      /* the kernel holds the inode of the box's first node for it */
    bool takes_lock;      /* it will need the lock, so it queues behind those that wait for it */
    bool holds_directory; /* the kernel holds its lock on the directory for it: it must not wait for
                             long */
    bool holds_inode;     /* ... on the inode of the first node, for a file that collects */
    bool owns_data;

    /* Where it waits: protected by the box's mutex. */
    bool on_heap;
    bool has_waited; /* for mail */
    bool interrupted;
    struct job_queue *queue; /* NULL: in none */
    struct job *next;
    struct job **link; /* what points to it there */

    /* What the request asks: each kind of job uses some. */
    off_t offset;
    size_t size_bytes;
    const void *
        data; /* size_bytes of payload; borrowed on the stack, owned once kept or where owns_data */
    size_t charged_bytes;  /* how much of what all have collected is this job's */
    struct poller *poller; /* who wants to hear of mail; owned until the box has it; or NULL */
    int64_t until_ms;      /* how long it is tried again; 0: not yet */
    struct gproc_creator creator;
    int open_flags; /* of the open file, as they are now */
    union {
        struct { /* of one that sends */
            pid_t sender;
            mode_t mode;
            int reply_size; /* not 0: what a write answers */
        };
        struct tree_node node; /* what is looked at */
    };
};

/*
 * The same job on the heap, with a copy of its data, and with `interrupted` called (see
 * fuse_req_interrupt_func) if the caller is. NULL: no memory; the request has been answered and the
 * job ended.
 */
struct job *job_keep(const struct job *job, fuse_interrupt_func_t interrupted);

/* Answers. 0, or what libfuse says: -ENOENT where the caller went away before the answer came. */
int job_reply_error(struct job *job, int error); /* a negative errno, or 0 for success */
int job_reply_write(struct job *job, size_t count_bytes);
int job_reply_data(struct job *job, const void *data, size_t size_bytes);
int job_reply_attr(struct job *job, const struct stat *attributes, double timeout_s);
int job_reply_poll(struct job *job, unsigned int events);

/* Whether the caller wants no answer any more: what was to be his should stay here. */
bool job_is_abandoned(const struct job *job);

/* Frees what the job owns, and the job, and its reference to the box. It has been answered. */
void job_end(struct job *job);

#endif
