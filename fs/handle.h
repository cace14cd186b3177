/*
 * handle - an open file of a mailbox: what it has collected to send, what it has taken and not
 * handed over, the picture that it shows.
 *
 * A handle is made at open and freed after its release. In between the kernel keeps it alive for as
 * long as a request names it.
 */
#ifndef GPROCFS_HANDLE_H
#define GPROCFS_HANDLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "access.h"
#include "inflight.h"
#include "job.h"
#include "lock.h"
#include "tree.h"

struct box;
struct picture;
struct poller;

enum {
    HAND_ENVELOPE_BYTES = 40, /* "-2147483648 2147483635\n" and more */
};

/* What a handle has collected. */
struct collected {
    uint8_t *data; /* owned */
    size_t size_bytes;
    size_t room_bytes;
    size_t begin; /* the file offset of its first byte: what was written before has been sent */
    bool anew;    /* the next byte is the first, wherever it is written */
    pid_t sender; /* of its first byte */
    pid_t writer; /* of what was written last */
    int failure;  /* a write failed: nothing of this message is sent any more; or 0 */
    size_t whole_bytes; /* a write in pieces has this many bytes in all; 0: there is none */
};

/* What a handle that writes has besides: those that wait to receive are many. */
struct outgoing {
    pthread_mutex_t mutex;
    /* Protected by mutex. */
    struct collected collected;
    uint64_t sent_bytes; /* where it does not collect */
};

/* A message that is being handed over. His who is at work on the box. */
struct hand {
    struct gproc_taken *taken; /* or NULL */
    size_t envelope_bytes;     /* what is said before the payload; 0 where that is nothing */
    size_t offset_bytes;       /* how much of both has been handed over */
};

struct handle {
    struct box *box;         /* a reference of its own */
    unsigned int view_flags; /* enum tree_view_flags: what reading it means */
    bool reads;
    bool writes;
    bool collects;   /* one message at close; else one for each write */
    bool takes_base; /* see tree.h */
    struct gproc_creator creator;
    struct access_grant grant; /* what it was allowed for */

    /* The box's list of its open files. Protected by the box's mutex. */
    struct handle *next;
    struct handle **link;
    struct poller *poller;   /* or NULL */
    struct picture *picture; /* a share of it; NULL where there is none */

    struct outgoing *outgoing; /* part of the handle; NULL where it does not write */

    /* His who is at work on the box. */
    off_t position; /* where a reader that goes on reads next */
    struct hand hand;
};

/*
 * A handle for `box`, whose reference becomes the handle's, and of which it may be opened through
 * `node` (see tree.h) by `thread`. 0 and `*handle`; or, with the reference still the caller's, -ENOMEM, or
 * -ESTALE: that node is taken, look the name up again.
 */
int handle_new(struct box *box, struct tree_node node, int open_flags, pid_t thread,
               struct gproc_creator creator, struct access_grant grant, struct handle **handle);

/* Gives the reference back and frees. What was taken must have been given back before. */
void handle_free(struct handle *handle);

/* A job of this handle for a request, to be filled in further; on the stack of the caller. */
struct job handle_job(struct handle *handle, fuse_req_t req);

#endif
