#include "send.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "access.h"
#include "box.h"
#include "frame.h"
#include "gprocfs.h"
#include "log.h"
#include "mailbox.h"
#include "reply.h"
#include "sender.h"

enum {
    COLLECTED_LEAST_BYTES = 4096,
    /* How much all open files may have collected, in messages of the greatest size. */
    COLLECTED_MOST_MESSAGES = 16,
    /*
     * The kernel cuts a write where a request is full: at 256 pages, of which each part of a writev
     * may waste two. From this size on it is worth looking whether there is more to come; a writev
     * of hundreds of tiny parts slips through.
     */
    MAYBE_CUT_BYTES = 128 * 1024,
};

static size_t allowed_bytes(const struct gprocfs *fs)
{
    return COLLECTED_MOST_MESSAGES * fs->message_most_bytes;
}

/* Call with the mutex held. */
static void forget(struct gprocfs *fs, struct collected *collected)
{
    atomic_fetch_sub(&fs->collected_bytes, collected->size_bytes);
    free(collected->data);
    memset(collected, 0, sizeof(*collected));
}

void send_forget(struct handle *handle)
{
    if (handle->outgoing == NULL)
        return;
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    forget(handle->box->fs, &handle->outgoing->collected);
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
}

/*
 * Whether the file system below has room for a message of that size. It is asked now because a
 * shell ignores what close says. What is left of the mailbox's last block costs nothing.
 */
static int check_room(const struct handle *handle, size_t payload_bytes)
{
    struct gprocfs *fs = handle->box->fs;
    uint64_t need_bytes = (uint64_t)payload_bytes + GPROC_FRAME_HEADER_BYTES;
    uint64_t free_bytes, slack_bytes = 0;
    struct statvfs below;
    struct stat status;

    if (fstatvfs(fs->mailboxes.fd, &below) < 0 || below.f_frsize == 0 || below.f_blocks == 0)
        return 0; /* it does not say (or says that it has no size): the append will find out */
    free_bytes = (uint64_t)below.f_bavail * below.f_frsize;
    if (need_bytes <= free_bytes)
        return 0;
    if (gproc_mailbox_stat(&fs->mailboxes, handle->box->pid, &status) == 0 && status.st_size > 0)
        slack_bytes = (below.f_frsize - (uint64_t)status.st_size % below.f_frsize) % below.f_frsize;
    return need_bytes <= free_bytes + slack_bytes ? 0 : -ENOSPC;
}

/* Makes the collected message `size_bytes` long, new bytes zero. Call with the mutex held. */
static int resize(const struct handle *handle, struct collected *collected, size_t size_bytes)
{
    struct gprocfs *fs = handle->box->fs;
    size_t old_bytes = collected->size_bytes;

    if (size_bytes > fs->message_most_bytes)
        return -EFBIG;
    if (size_bytes > old_bytes) {
        size_t more = size_bytes - old_bytes;
        int result = check_room(handle, size_bytes);

        if (result < 0)
            return result;
        if (atomic_fetch_add(&fs->collected_bytes, more) + more > allowed_bytes(fs)) {
            atomic_fetch_sub(&fs->collected_bytes, more);
            return -ENOSPC;
        }
        if (size_bytes > collected->room_bytes) {
            size_t room = collected->room_bytes * 2;
            uint8_t *data;

            if (room < COLLECTED_LEAST_BYTES)
                room = COLLECTED_LEAST_BYTES;
            if (room < size_bytes)
                room = size_bytes;
            data = realloc(collected->data, room);
            if (data == NULL) {
                atomic_fetch_sub(&fs->collected_bytes, more);
                return -ENOMEM;
            }
            collected->data = data;
            collected->room_bytes = room;
        }
        memset(collected->data + old_bytes, 0, more);
    } else {
        atomic_fetch_sub(&fs->collected_bytes, old_bytes - size_bytes);
    }
    collected->size_bytes = size_bytes;
    return 0;
}

/* The message cannot become whole any more. Call with the mutex held. */
static void spoil(const struct handle *handle, struct collected *collected, int failure)
{
    forget(handle->box->fs, collected);
    collected->failure = failure;
}

int send_resize(struct handle *handle, fuse_req_t req, off_t size_bytes)
{
    pid_t sender = sender_of_thread(fuse_req_ctx(req)->pid);
    struct collected *collected = &handle->outgoing->collected;
    int result;

    if (size_bytes < 0)
        return -EINVAL;
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    if ((size_t)size_bytes <= collected->begin) {
        forget(handle->box->fs, collected);
        collected->begin = (size_t)size_bytes;
    }
    result = collected->failure;
    if (result == 0)
        result = resize(handle, collected, (size_t)size_bytes - collected->begin);
    if (result == 0 && collected->size_bytes > 0 && collected->sender == 0)
        collected->sender = sender;
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
    return result;
}

/* Puts bytes into the collected message. Call with the mutex held. */
static int collect(const struct handle *handle, struct collected *collected, pid_t sender,
                   const void *data, size_t size_bytes, size_t offset)
{
    size_t end;
    int result = collected->failure;

    if (collected->size_bytes == 0 && (collected->anew || offset < collected->begin))
        collected->begin = offset; /* nothing has been collected since: the writer begins anew */
    collected->anew = false;
    if (result == 0 && offset < collected->begin)
        return -EINVAL; /* that part has been sent */
    offset -= collected->begin;
    if (result == 0 && (offset > handle->box->fs->message_most_bytes ||
                        size_bytes > handle->box->fs->message_most_bytes - offset))
        result = -EFBIG;
    end = offset + size_bytes;
    if (result == 0 && end > collected->size_bytes)
        result = resize(handle, collected, end);
    if (result < 0) {
        spoil(handle, collected, result);
        return result;
    }
    if (collected->sender == 0)
        collected->sender = sender;
    collected->writer = sender;
    memcpy(collected->data + offset, data, size_bytes);
    return 0;
}

static void note_sent(const struct job *job)
{
    stats_add(&job->fs->stats, STATS_SENT_MESSAGES, 1);
    stats_add(&job->fs->stats, STATS_SENT_BYTES, (int64_t)job->size_bytes);
    box_has_news(job->box);
}

/* The append itself: at work on the box. */
static enum job_result append(struct job *job)
{
    int result = box_lock(job);

    if (result == -EWOULDBLOCK)
        return JOB_NEEDS_LOCK;
    if (result == 0) {
        struct gproc_mailbox *mailbox = &job->box->files->mailbox;

        /* It was there at open; if it has been deleted since, it is made again. */
        result =
            gproc_mailbox_recreate(mailbox, &job->fs->mailboxes, O_WRONLY, job->mode, job->creator);
        if (result == 0) /* not made just now: it may be another one than was opened */
            result = access_again(&job->handle->grant, job->req, &mailbox->status, ACCESS_SEND);
        if (result >= 0)
            result = gproc_mailbox_append(mailbox, job->sender, job->data, job->size_bytes);
        box_unlock(job->box);
    }
    if (result == 0)
        note_sent(job);
    if (result == 0 && !job->handle->collects) {
        (void)pthread_mutex_lock(&job->handle->outgoing->mutex);
        job->handle->outgoing->sent_bytes += job->size_bytes;
        (void)pthread_mutex_unlock(&job->handle->outgoing->mutex);
    }
    if (result < 0)
        log_mailbox(job->box->pid, "cannot send", result);
    if (result < 0 && (size_t)job->reply_size < job->size_bytes && job->reply_size > 0) {
        (void)pthread_mutex_lock(&job->handle->outgoing->mutex);
        job->handle->outgoing->collected.failure = result;
        (void)pthread_mutex_unlock(&job->handle->outgoing->mutex);
    }
    /* A caller that was killed meanwhile cannot be told: its message is sent, as with any write(2).
     */
    if (result == 0 && job->reply_size > 0)
        (void)job_reply_write(job, (size_t)job->reply_size);
    else
        (void)job_reply_error(job, result);
    return JOB_DONE;
}

static struct job append_job(struct handle *handle, fuse_req_t req)
{
    struct job job = handle_job(handle, req);

    job.run = append;
    job.takes_lock = true;
    job.mode = handle->grant.mode & 07777; /* as it was: a write does not tell the umask */
    return job;
}

/* Sends what has been collected: the job owns the bytes from now on. Call with the mutex held. */
static void hand_over(struct handle *handle, struct job *job)
{
    struct collected *collected = &handle->outgoing->collected;
    size_t end = collected->begin + collected->size_bytes;

    job->data = collected->data;
    job->size_bytes = collected->size_bytes;
    job->sender = collected->sender;
    job->owns_data = true;
    job->charged_bytes = collected->size_bytes; /* it is in memory until it has been sent */
    memset(collected, 0, sizeof(*collected));
    collected->begin = handle->collects ? end : 0;
}

/*
 * One piece of a write that the kernel has cut. All but the last are kept; a piece that does not
 * fit the others begins anew. 1: it has all been written and was handed over to `job`; 0: there is
 * more to come.
 */
static int add_piece(struct handle *handle, struct job *job, const void *data, size_t size_bytes,
                     size_t whole_bytes)
{
    struct collected *collected = &handle->outgoing->collected;
    bool first = collected->size_bytes == 0;
    int result;

    if (whole_bytes > job->fs->message_most_bytes)
        return -EFBIG;
    if (first)
        collected->whole_bytes = whole_bytes;
    result = collect(handle, collected, job->sender, data, size_bytes, collected->size_bytes);
    if (result < 0) {
        if (first) /* the writer is told, and that is all; else see write_message() */
            forget(job->fs, collected);
        return result;
    }
    if (collected->size_bytes < collected->whole_bytes)
        return 0;
    hand_over(handle, job);
    return 1;
}

/* A write on a handle that does not collect: a message, or a piece of a large one. */
static void write_message(struct handle *handle, fuse_req_t req, const void *data,
                          size_t size_bytes)
{
    struct job job = append_job(handle, req);
    pid_t thread = fuse_req_ctx(req)->pid;
    size_t whole_bytes = 0;
    int result = 1;

    job.data = data;
    job.size_bytes = size_bytes;
    job.sender = sender_of_thread(thread);
    job.reply_size = (int)size_bytes;
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    if (handle->outgoing->collected.size_bytes > 0 &&
        handle->outgoing->collected.sender != job.sender)
        forget(job.fs, &handle->outgoing->collected); /* another's, cut off in the midst of it */
    if (handle->outgoing->collected.failure != 0) {
        /* The writer saw a short count where the message as a whole had failed, and offers the
         * rest. */
        result = handle->outgoing->collected.failure;
        forget(job.fs, &handle->outgoing->collected);
    } else if (handle->outgoing->collected.size_bytes > 0) {
        whole_bytes = handle->outgoing->collected.whole_bytes;
    } else if (size_bytes >= MAYBE_CUT_BYTES) {
        whole_bytes = sender_write_bytes(thread);
    }
    if (result == 1 && whole_bytes > size_bytes)
        result = add_piece(handle, &job, data, size_bytes, whole_bytes);
    else if (result == 1 && size_bytes > job.fs->message_most_bytes)
        result = -EFBIG;
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
    if (result == 1) {
        box_submit(&job);
        return;
    }
    if (result == 0)
        (void)job_reply_write(&job, size_bytes); /* the writer goes on in any case */
    else
        (void)job_reply_error(&job, result);
    job_end(&job);
}

void send_write(struct handle *handle, fuse_req_t req, const void *data, size_t size_bytes,
                off_t offset, bool appends)
{
    pid_t sender;
    int result;

    if (!handle->collects) {
        write_message(handle, req, data, size_bytes);
        return;
    }
    sender = sender_of_thread(fuse_req_ctx(req)->pid);
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    if (appends)
        offset =
            (off_t)(handle->outgoing->collected.begin + handle->outgoing->collected.size_bytes);
    result = offset < 0 ? -EINVAL
                        : collect(handle, &handle->outgoing->collected, sender, data, size_bytes,
                                  (size_t)offset);
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
    if (result < 0)
        (void)reply_error(req, result); /* the writer may be gone: so is its message then */
    else
        (void)fuse_reply_write(req, size_bytes);
}

bool send_has_sent(struct handle *handle, off_t size_bytes)
{
    bool has;

    if (handle->outgoing == NULL)
        return false;
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    has = size_bytes > 0 && handle->outgoing->sent_bytes == (uint64_t)size_bytes;
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
    return has;
}

/* Whether somebody who was killed has written some of it. Who has only a copy of the descriptor has
 * not: the message is others', and they live. */
static bool is_writer(const struct collected *collected, pid_t thread)
{
    pid_t process = sender_of_thread(thread);

    return process == collected->sender || process == collected->writer;
}

void send_flush(struct handle *handle, fuse_req_t req, bool syncs)
{
    pid_t thread = fuse_req_ctx(req)->pid;
    struct collected *collected;
    struct job job;
    bool killed;
    int failure;

    if (handle->outgoing == NULL) {
        (void)reply_error(req, 0); /* an fsync(2) by who reads; he may be gone */
        return;
    }
    collected = &handle->outgoing->collected;
    (void)pthread_mutex_lock(&handle->outgoing->mutex);
    failure = collected->failure;
    killed = collected->size_bytes > 0 && handle->collects && sender_was_killed(thread);
    if ((collected->size_bytes == 0 && failure == 0) || (killed && !is_writer(collected, thread))) {
        (void)pthread_mutex_unlock(&handle->outgoing->mutex);
        (void)reply_error(req, 0); /* whoever closes may be gone */
        return;
    }
    if (collected->size_bytes == 0 || !handle->collects || killed) {
        forget(handle->box->fs, collected);
        collected->anew = true; /* whatever is written next is the beginning of another message */
        (void)pthread_mutex_unlock(&handle->outgoing->mutex);
        (void)reply_error(req, failure); /* whoever closes may be gone */
        return;
    }
    job = append_job(handle, req);
    job.holds_inode = syncs && handle->takes_base;
    hand_over(handle, &job);
    (void)pthread_mutex_unlock(&handle->outgoing->mutex);
    box_submit(&job);
}
