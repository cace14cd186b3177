#include "take.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

#include "access.h"
#include "box.h"
#include "gprocfs.h"
#include "log.h"
#include "mailbox.h"
#include "scan.h"

enum {
    /* A mailbox up to this size whose only message fits the reader is served without a copy on
       disk. */
    DIRECT_MOST_BYTES = 64 * 1024,
    STACK_BYTES = 64 * 1024,
};

static void tell_damage(struct box *box, uint64_t more_bytes)
{
    uint64_t passed = box->inflight.damaged_bytes - box->damage_told_bytes + more_bytes;

    if (passed > 0)
        log_mailbox_note(box->pid, "%" PRIu64 " damaged bytes passed over", passed);
    box->damage_told_bytes = box->inflight.damaged_bytes;
}

/* Answers with the next part of the message in hand; the message is delivered when that was all of
 * it. */
static void hand_over(struct job *job)
{
    struct handle *handle = job->handle;
    struct gproc_taken *taken = handle->taken;
    size_t left = taken->message.payload_bytes - handle->taken_offset_bytes;
    size_t part = left < job->size_bytes ? left : job->size_bytes;
    uint8_t small[STACK_BYTES];
    uint8_t *buffer = small;
    int result;

    if (part > sizeof(small))
        buffer = malloc(part);
    result = buffer == NULL ? -ENOMEM
                            : gproc_inflight_read(taken, buffer, part, handle->taken_offset_bytes);
    if (result < 0) {
        log_mailbox(job->box->pid, "cannot read what was taken", result);
        (void)job_reply_error(job, result); /* nothing has changed: it can be read again */
    } else if (job_reply_data(job, buffer, part) == 0) {
        handle->position += (off_t)part;
        handle->taken_offset_bytes += part;
        if (part == left) {
            result = gproc_inflight_deliver(&job->box->inflight, taken);
            if (result < 0) {
                log_mailbox(job->box->pid, "cannot note that a message was delivered", result);
                gproc_inflight_give_back(&job->box->inflight, taken);
            }
            handle->taken = NULL;
        }
    } else if (handle->taken_offset_bytes == 0) {
        /* The reader went away before the answer came. */
        gproc_inflight_give_back(&job->box->inflight, taken);
        handle->taken = NULL;
    }
    if (buffer != small)
        free(buffer);
}

/* Puts the next message in flight into the handle's hands: 1, 0 where there is none, or a negative
 * errno. */
static int pick_up(struct job *job)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct gproc_taken *taken;
    int result;

    while ((result = gproc_inflight_next(inflight, &taken)) == 1) {
        if (taken->message.payload_bytes > 0) {
            job->handle->taken = taken;
            job->handle->taken_offset_bytes = 0;
            return 1;
        }
        /* Empty, it would look like the end: it is taken and passed over. */
        result = gproc_inflight_deliver(inflight, taken);
        if (result < 0) {
            gproc_inflight_give_back(inflight, taken);
            break;
        }
    }
    tell_damage(job->box, 0);
    return result;
}

/*
 * The usual case, a mailbox with one message that the reader has room for: the answer comes from
 * the mailbox, and the mailbox is emptied when the reader has it, under one lock. Killed in
 * between, the message is seen twice, never lost. A mailbox in which there is nothing to hand over
 * is emptied too. 1: answered; 0: not that case; or a negative errno.
 */
static int take_directly(struct job *job, struct gproc_mailbox *mailbox)
{
    uint8_t bytes[DIRECT_MOST_BYTES];
    struct gproc_source file = gproc_mailbox_source(mailbox);
    struct gproc_source memory = {.data = bytes, .fd = -1, .size_bytes = file.size_bytes};
    struct gproc_message message, only = {0};
    struct gproc_scan scan;
    int result;

    if (file.size_bytes > (off_t)sizeof(bytes))
        return 0;
    result = gproc_source_read(&file, bytes, (size_t)file.size_bytes, 0);
    if (result < 0)
        return result;
    gproc_scan_init(&scan, &memory, 0);
    while ((result = gproc_scan_next(&scan, &message)) == 1 && only.payload_bytes == 0)
        only = message;
    gproc_scan_release(&scan);
    if (result != 0 || only.payload_bytes > job->size_bytes)
        return result < 0 ? result : 0;
    if (job_reply_data(job, bytes + only.payload_offset, only.payload_bytes) < 0)
        return 1; /* nobody got it: it stays where it is */
    job->handle->position += (off_t)only.payload_bytes;
    tell_damage(job->box, (uint64_t)scan.damaged_bytes);
    result = gproc_mailbox_clear(mailbox);
    if (result < 0)
        log_mailbox(job->box->pid, "cannot empty it: its message will be seen again", result);
    return 1;
}

/* With the lock: settles what a dead mount left, then takes what is there. As take_directly(). */
static int take_under_lock(struct job *job)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct gproc_mailbox mailbox;
    int result = gproc_mailbox_open(&mailbox, &job->fs->mailboxes, job->box->pid, O_RDWR);

    if (gproc_inflight_is_unsettled(inflight) && (result == 0 || result == -ENOENT)) {
        int settled = gproc_inflight_settle(inflight, result == 0 ? &mailbox : NULL);

        if (result == 0)
            gproc_mailbox_close(&mailbox);
        return settled;
    }
    if (result < 0)
        return result == -ENOENT ? 0 : result;
    if (mailbox.status.st_size > 0) {
        result = take_directly(job, &mailbox);
        if (result == 0)
            result = gproc_inflight_take(inflight, &mailbox);
    }
    gproc_mailbox_close(&mailbox);
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
        handle->taken = NULL; /* it goes with the rest */
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
    result = access_again(&job->handle->grant, job->req, &status, true);
    if (result < 0)
        return result;
    if (gproc_inflight_is_foreign(&job->box->inflight, status.st_uid))
        part_from_foreign(job->box);
    return status.st_size > 0;
}

static enum job_result answer_read(struct job *job, int result)
{
    if (result == 1 && job->handle->taken != NULL) {
        hand_over(job);
    } else if (result < 0) {
        log_mailbox(job->box->pid, "cannot receive", result);
        (void)job_reply_error(job, result);
    } else {
        (void)job_reply_data(job, NULL, 0); /* the end: nobody minds who does not hear it */
    }
    return JOB_DONE;
}

static enum job_result read_next(struct job *job)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct handle *handle = job->handle;
    int has_mail, result;

    if (job->offset != handle->position || job->size_bytes == 0)
        return answer_read(job, 0);
    for (;;) {
        struct gproc_lock lock;
        bool unsettled;

        has_mail = look_first(job);
        if (has_mail < 0 || handle->taken != NULL)
            return answer_read(job, has_mail < 0 ? has_mail : 1);
        unsettled = gproc_inflight_is_unsettled(inflight);
        result = unsettled ? 0 : pick_up(job);
        if (result != 0)
            return answer_read(job, result);
        if (!unsettled && !has_mail)
            return answer_read(job, 0);
        result = box_lock(job, &lock);
        if (result == -EWOULDBLOCK)
            return JOB_NEEDS_LOCK;
        if (result == 0) {
            result = take_under_lock(job);
            gproc_lock_release(&lock);
        }
        if (result == 1)
            return JOB_DONE;
        if (result < 0)
            return answer_read(job, result);
    }
}

void take_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset)
{
    struct job job = handle_job(handle, req);

    job.run = read_next;
    job.takes_lock =
        false; /* it needs the lock only where nothing is in flight, and asks for it then */
    job.size_bytes = size_bytes;
    job.offset = offset;
    box_submit(&job);
}

static enum job_result give_back(struct job *job)
{
    struct handle *handle = job->handle;

    if (handle->taken != NULL)
        gproc_inflight_give_back(&job->box->inflight, handle->taken);
    handle_free(handle);           /* the job keeps the box */
    (void)job_reply_error(job, 0); /* nobody waits for it */
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
    struct gproc_lock lock;
    int result;

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
