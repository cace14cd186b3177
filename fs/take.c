#include "take.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "access.h"
#include "box.h"
#include "gprocfs.h"
#include "hand.h"
#include "log.h"
#include "mailbox.h"
#include "move.h"
#include "picture.h"
#include "poller.h"
#include "scan.h"

enum {
    /* A mailbox up to this size whose only message fits the reader is served without a copy on
       disk. */
    DIRECT_MOST_BYTES = 64 * 1024,
    PAGE_BYTES = 4096,
    EARLY_MOST_MS = 20,
};

static bool waits(const struct job *job)
{
    return (job->handle->view_flags & TREE_WAITS) != 0;
}

/* ---- Taking from the mailbox */

/* What a small mailbox holds, as the reader is to see it. */
struct direct {
    const uint8_t *bytes; /* into what follows */
    size_t size_bytes;
    size_t messages_count;
    uint64_t payload_bytes;
    uint64_t damaged_bytes;
    uint8_t *packed; /* owned; NULL where payloads are handed over as they stand in the file */
    uint8_t file[DIRECT_MOST_BYTES];
};

/* Adds a message to the answer. False: then that is more than one answer can say. */
static bool add_directly(const struct job *job, struct direct *direct,
                         const struct gproc_message *message)
{
    char envelope[HAND_ENVELOPE_BYTES];
    size_t envelope_bytes;
    uint8_t *end;

    direct->messages_count++;
    if (!hand_shows_envelopes(job)) {
        bool first = direct->payload_bytes == 0;

        if (message->payload_bytes > 0) {
            direct->bytes = direct->file + message->payload_offset;
            direct->size_bytes = message->payload_bytes;
        }
        direct->payload_bytes += message->payload_bytes;
        return first; /* an empty one behind it is for the next who comes */
    }
    envelope_bytes = hand_write_envelope(envelope, message);
    end = direct->packed + direct->size_bytes;
    memcpy(end, envelope, envelope_bytes);
    memcpy(end + envelope_bytes, direct->file + message->payload_offset, message->payload_bytes);
    direct->bytes = direct->packed;
    direct->size_bytes += envelope_bytes + message->payload_bytes;
    direct->payload_bytes += message->payload_bytes;
    return true;
}

/* 1: all that the mailbox holds is in `direct`; 0: it is not for one answer; or a negative errno.
 */
static int read_directly(const struct job *job, const struct gproc_mailbox *mailbox,
                         struct direct *direct)
{
    struct gproc_source file = gproc_mailbox_source(mailbox);
    /* The file's bytes are written there before they are looked at. */
    /* cppcheck-suppress ctuuninitvar */
    struct gproc_source memory = {.data = direct->file, .fd = -1, .size_bytes = file.size_bytes};
    struct gproc_message message;
    struct gproc_scan scan;
    bool fits = true;
    int result;

    result = gproc_source_read(&file, direct->file, (size_t)file.size_bytes, 0);
    if (result < 0)
        return result;
    gproc_scan_init(&scan, &memory, 0);
    while (fits && (result = gproc_scan_next(&scan, &message)) == 1)
        fits = add_directly(job, direct, &message);
    direct->damaged_bytes = (uint64_t)scan.damaged_bytes;
    gproc_scan_release(&scan);
    if (result < 0)
        return result;
    return fits && direct->size_bytes <= job->size_bytes;
}

/* Hands over all that the mailbox held, and empties it. As take_directly(). */
static int answer_directly(struct job *job, struct gproc_mailbox *mailbox,
                           const struct direct *direct)
{
    bool answers = direct->size_bytes > 0 || !waits(job);
    int result;

    if (job_is_abandoned(job)) {
        (void)job_reply_error(job, -EINTR); /* nobody hears it: it stays where it is */
        return 1;
    }
    if (answers && job_reply_data(job, direct->bytes, direct->size_bytes) < 0)
        return 1; /* nobody got it: it stays where it is */
    job->handle->position += (off_t)direct->size_bytes;
    hand_count_received(job, direct->messages_count, direct->payload_bytes);
    hand_tell_damage(job->box, direct->damaged_bytes);
    pictures_emptied(job->box);
    result = gproc_mailbox_clear(mailbox);
    if (result == 0)
        mailbox->status.st_size = 0;
    else
        log_mailbox(job->box->pid, "cannot empty it: its messages will be seen again", result);
    return answers ? 1 : result;
}

/*
 * The usual case, a mailbox that the reader has room for in one answer: the answer comes from the
 * mailbox, and the mailbox is emptied when the reader has it, under one lock. Killed in between,
 * the message is seen twice, never lost. A mailbox in which there is nothing to hand over is
 * emptied too. 1: answered; 0: not that case, or nothing to hand over; or a negative errno.
 */
static int take_directly(struct job *job, struct gproc_mailbox *mailbox)
{
    struct direct direct;
    int result;

    if (mailbox->status.st_size > (off_t)sizeof(direct.file))
        return 0;
    direct.bytes = direct.file;
    direct.size_bytes = 0;
    direct.messages_count = 0;
    direct.payload_bytes = 0;
    direct.packed = NULL;
    if (hand_shows_envelopes(job)) {
        /* What is said before a payload is less than twice as long as the frame's header. */
        direct.packed = malloc(2 * (size_t)mailbox->status.st_size);
        if (direct.packed == NULL)
            return -ENOMEM;
    }
    result = read_directly(job, mailbox, &direct);
    if (result == 1)
        result = answer_directly(job, mailbox, &direct);
    free(direct.packed);
    return result;
}

/* Moves all of it into flight. 0 or a negative errno. */
static int take_all(struct job *job, struct gproc_mailbox *mailbox)
{
    int result = gproc_inflight_take(&job->box->inflight, mailbox);

    if (result == 0)
        pictures_moved(job->box, gproc_inflight_newest(&job->box->inflight));
    return result;
}

/* With the lock: settles what a dead mount left, then takes what is there. As take_directly(). */
static int take_under_lock(struct job *job)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct gproc_mailbox *mailbox = &job->box->files->mailbox;
    int result = gproc_mailbox_reopen(mailbox, &job->fs->mailboxes, O_RDWR);

    if (gproc_inflight_is_unsettled(inflight) && (result == 0 || result == -ENOENT))
        return gproc_inflight_settle(inflight, result == 0 ? mailbox : NULL);
    if (result < 0)
        return result == -ENOENT ? 0 : result;
    if (mailbox->status.st_size > 0) {
        result = take_directly(job, mailbox);
        if (result == 0 && mailbox->status.st_size > 0)
            result = take_all(job, mailbox);
    }
    return result;
}

/*
 * Puts what is in flight aside, for the next mount to look at again: it was sent to the owner of a
 * mailbox that is gone, and whoever made the new one is not to have it.
 */
static void part_from_foreign(struct box *box)
{
    struct handle *handle;

    log_mailbox_note(box->pid, "it has another owner: what was in flight stays there");
    (void)pthread_mutex_lock(&box->mutex);
    for (handle = box->handles; handle != NULL; handle = handle->next)
        handle->hand.taken = NULL; /* it goes with the rest */
    (void)pthread_mutex_unlock(&box->mutex);
    gproc_inflight_release(&box->inflight);
    gproc_inflight_init(&box->inflight, &box->fs->store, box->pid);
    box->damage_told_bytes = 0;
}

/* Looks at the mailbox before anything is handed over. 1: there may be mail; 0: there is none;
 * -ESTALE: not for you. */
static int look_first(const struct job *job)
{
    struct stat status;
    int result = gproc_mailbox_stat(&job->fs->mailboxes, job->box->pid, &status);

    if (result < 0)
        return result == -ENOENT ? 0 : result;
    result = access_again(&job->handle->grant, job->req, &status, ACCESS_TAKE);
    if (result < 0)
        return result;
    if (gproc_inflight_is_foreign(&job->box->inflight, status.st_uid))
        part_from_foreign(job->box);
    return status.st_size > 0;
}

static enum job_result answer_error(struct job *job, int error)
{
    if (error == -ECANCELED) { /* the mount ends, and with it what was begun */
        (void)job_reply_error(job, -ENOTCONN);
        return JOB_DONE;
    }
    log_mailbox(job->box->pid, "cannot receive", error);
    (void)job_reply_error(job, error); /* whoever has gone does not miss it */
    return JOB_DONE;
}

/* There is nothing to receive. */
static enum job_result answer_nothing(struct job *job)
{
    if (!waits(job))
        (void)job_reply_data(job, NULL, 0); /* the end: nobody minds who does not hear it */
    else if ((job->open_flags & O_NONBLOCK) != 0)
        (void)job_reply_error(job, -EAGAIN); /* likewise */
    else
        return JOB_NEEDS_MAIL;
    return JOB_DONE;
}

/* There may be something, but somebody holds the lock. */
static enum job_result answer_locked(struct job *job)
{
    if ((job->open_flags & O_NONBLOCK) == 0)
        return JOB_NEEDS_LOCK;
    box_lock_is_held(job);
    (void)job_reply_error(job, -EAGAIN); /* whoever has gone does not miss it */
    return JOB_DONE;
}

/* Whether there is a message for the hand: 1, and it is there; 0; or a negative errno. Takes no
 * lock. `*look_below`: the mailbox below must be looked at, too, with the lock. */
static int pick_up_first(struct job *job, bool *look_below)
{
    bool unsettled;
    int has_mail = look_first(job);

    *look_below = false;
    if (has_mail < 0)
        return has_mail;
    if (job->handle->hand.taken != NULL)
        return 1;
    unsettled = gproc_inflight_is_unsettled(&job->box->inflight);
    *look_below = unsettled || has_mail == 1;
    return unsettled ? 0 : hand_pick_up(job);
}

/*
 * sendfile(2) and splice(2) read through the page cache, whatever open said, and so ahead: several
 * requests at a time, which two threads of ours may bring here in the wrong order. Such a one waits
 * for a moment for the one before it.
 */
static bool may_be_early(struct job *job)
{
    if (job->offset < job->handle->position || job->offset % PAGE_BYTES != 0 ||
        job->size_bytes % PAGE_BYTES != 0)
        return false;
    if (job->until_ms == 0)
        job->until_ms = keeper_now_ms() + EARLY_MOST_MS;
    return keeper_now_ms() < job->until_ms;
}

static enum job_result read_next(struct job *job)
{
    bool in_order = waits(job) || job->offset == job->handle->position;

    if (job->size_bytes > 0 && !in_order && may_be_early(job)) {
        (void)sched_yield();
        return JOB_AGAIN;
    }
    /* Where reads wait there is no position: it is read as a pipe is. */
    if (job->size_bytes == 0 || !in_order) {
        (void)job_reply_data(job, NULL, 0); /* nothing was asked for, or nothing is there */
        return JOB_DONE;
    }
    for (;;) {
        bool look_below;
        int result = pick_up_first(job, &look_below);

        if (result < 0)
            return answer_error(job, result);
        if (result == 1) {
            hand_over(job);
            return JOB_DONE;
        }
        if (!look_below)
            return answer_nothing(job);
        result = box_lock(job);
        if (result == -EWOULDBLOCK)
            return answer_locked(job);
        if (result == 0) {
            result = take_under_lock(job);
            box_unlock(job->box);
        }
        if (result == 1)
            return JOB_DONE;
        if (result < 0)
            return answer_error(job, result);
    }
}

void take_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset,
               int open_flags)
{
    struct job job = handle_job(handle, req);

    job.run = read_next;
    job.takes_lock =
        false; /* it needs the lock only where nothing is in flight, and asks for it then */
    job.size_bytes = size_bytes;
    job.offset = offset;
    job.open_flags = open_flags;
    box_submit(&job);
}

/* ---- Waiting for several at once */

/*
 * Whether a read would get something, without waiting for the lock if that is known to be held: 1,
 * 0, or a negative errno.
 */
static int is_readable(struct job *job)
{
    const struct gproc_measure *measure;
    struct stat status;
    bool look_below;
    int result = pick_up_first(job, &look_below);

    if (result == 1 && job->handle->hand.offset_bytes == 0)
        hand_put_down(job); /* a read takes it up again */
    if (result != 0 || !look_below)
        return result;
    if (box_knows_lock_held(job->box))
        return 0; /* nobody can have it; when it is free it will be told */
    result = box_measure(job->box, &status, &measure);
    if (result < 0)
        return result == -ENOENT ? 0 : result;
    return hand_shows_envelopes(job) ? measure->messages_count > 0 : measure->payload_bytes > 0;
}

static enum job_result answer_poll(struct job *job)
{
    struct handle *handle = job->handle;
    struct box *box = job->box;
    unsigned int events = handle->writes ? POLLOUT | POLLWRNORM : 0;
    bool attend = false;

    if (job->poller != NULL) {
        struct poller *old;

        (void)pthread_mutex_lock(&box->mutex);
        old = poller_put(handle, job->poller);
        job->poller = NULL;
        attend = !box->mail_is_watched;
        (void)pthread_mutex_unlock(&box->mutex);
        poller_free(old);
    }
    /* Looked at after the poller is there: what comes from now on is told. */
    if (handle->reads) {
        int readable = is_readable(job);

        if (readable == -EAGAIN)
            return JOB_AGAIN;
        if (readable != 0)
            events |= POLLIN | POLLRDNORM; /* an error is for read to tell */
    }
    (void)job_reply_poll(job, events); /* whoever has gone needs no answer */
    if (attend && handle->reads)
        lookout_attend(&box->fs->lookout, box, false);
    return JOB_DONE;
}

void take_poll(struct handle *handle, fuse_req_t req, struct poller *poller)
{
    struct job job = handle_job(handle, req);

    job.run = answer_poll;
    job.poller = poller;
    box_submit(&job);
}

/* ---- The end */

static enum job_result give_back(struct job *job)
{
    struct handle *handle = job->handle;
    struct box *box = job->box;
    bool attend;

    if (handle->hand.taken != NULL) {
        hand_put_down(job);
        box_has_returned(box);
    }
    handle_free(handle);           /* the job keeps the box */
    (void)job_reply_error(job, 0); /* nobody waits for it */
    (void)pthread_mutex_lock(&box->mutex);
    attend = box->mail_is_watched && box->followers_count == 0;
    (void)pthread_mutex_unlock(&box->mutex);
    if (attend)
        lookout_attend(&box->fs->lookout, box, false);
    return JOB_DONE;
}

void take_release(struct handle *handle, fuse_req_t req)
{
    struct job job = handle_job(handle, req);

    job.run = give_back;
    box_submit(&job);
}

static int return_under_lock(struct box *box)
{
    struct gproc_mailbox mailbox;
    /* Deleted meanwhile, it is made again for nobody but us: who was to read it is not known. */
    int result = gproc_mailbox_create(&mailbox, &box->fs->mailboxes, box->pid, O_RDWR,
                                      S_IRUSR | S_IWUSR, gproc_creator_self);

    if (result < 0)
        return result;
    if (gproc_inflight_is_foreign(&box->inflight, mailbox.status.st_uid)) {
        gproc_mailbox_close(&mailbox);
        return -EPERM;
    }
    result = gproc_inflight_is_unsettled(&box->inflight)
                 ? gproc_inflight_settle(&box->inflight, &mailbox)
                 : 0;
    if (result == 0)
        result = gproc_mailbox_refresh(&mailbox); /* settling may have changed it */
    if (result == 0)
        result = gproc_inflight_return(&box->inflight, &mailbox);
    gproc_mailbox_close(&mailbox);
    return result;
}

void take_return(struct box *box)
{
    int64_t wait_ms = box->fs->return_until_ms - keeper_now_ms();
    struct gproc_taken *taken;
    struct gproc_lock lock;
    int result;

    /* Where nothing but damage is left, that is found out, and dropped, here. */
    if (!gproc_inflight_is_unsettled(&box->inflight) &&
        gproc_inflight_next(&box->inflight, &taken) == 1)
        gproc_inflight_give_back(&box->inflight, taken);
    if (gproc_inflight_is_empty(&box->inflight))
        return;
    result = gproc_lock_take(&lock, &box->fs->locks, box->pid, gproc_creator_self,
                             wait_ms > 0 ? wait_ms : GPROC_WAIT_NONE);
    if (result == 0) {
        result = return_under_lock(box);
        gproc_lock_release(&lock);
    }
    if (result < 0)
        log_mailbox(box->pid, "unread messages stay in flight for the next mount", result);
}
