#include "picture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "access.h"
#include "box.h"
#include "checksum.h"
#include "gprocfs.h"
#include "log.h"
#include "mailbox.h"
#include "move.h"
#include "spool.h"
#include "table.h"
#include "trail.h"

enum {
    COPY_BYTES = 16 * 1024,
    STACK_BYTES = 64 * 1024,
    /* How much is copied before others have their turn, and of how much damage is told. */
    SLICE_BYTES = 4 * 1024 * 1024,
    ROOM_LEFT_PARTS = 10, /* a picture does not take the last tenth of a file system */
};

struct picture {
    struct box *box; /* not owned: the open files are its users */
    enum tree_view_id view;
    uint32_t number;

    /* Protected by the box's mutex. */
    struct picture *next;
    struct picture **link;
    size_t users_count;

    /* His who is at work on the box. */
    struct gproc_trail trail;
    struct spool spool;
    uint64_t shown_count; /* messages */
    bool is_taken;        /* all that waited has been looked at once */
    struct stat mailbox;  /* as it was when something was added last */
};

/* Call with the mutex held. */
static struct picture *find(struct box *box, enum tree_view_id view, uint32_t number)
{
    struct picture *picture = box->pictures;

    while (picture != NULL && (picture->view != view || picture->number != number))
        picture = picture->next;
    return picture;
}

struct picture *picture_share(struct box *box, struct tree_node node)
{
    struct picture *fresh = calloc(1, sizeof(*fresh));
    struct picture *picture;

    if (fresh == NULL)
        return NULL;
    fresh->box = box;
    fresh->view = node.view;
    fresh->number = node.picture;
    spool_init(&fresh->spool);
    gproc_trail_init(&fresh->trail);
    (void)pthread_mutex_lock(&box->mutex);
    picture = find(box, node.view, node.picture);
    if (picture == NULL) {
        picture = fresh;
        picture->next = box->pictures;
        picture->link = &box->pictures;
        if (picture->next != NULL)
            picture->next->link = &picture->next;
        box->pictures = picture;
    }
    picture->users_count++;
    (void)pthread_mutex_unlock(&box->mutex);
    if (picture != fresh)
        free(fresh);
    return picture;
}

void picture_leave(struct picture *picture)
{
    struct box *box = picture->box;
    bool last;

    (void)pthread_mutex_lock(&box->mutex);
    last = --picture->users_count == 0;
    if (last) {
        *picture->link = picture->next;
        if (picture->next != NULL)
            picture->next->link = picture->link;
    }
    (void)pthread_mutex_unlock(&box->mutex);
    if (last) {
        spool_release(&picture->spool);
        free(picture);
    }
}

/* ---- What is shown of the queue */

/* What is being shown to a picture. */
struct showing {
    struct picture *picture;
    int directory_fd;
    off_t slice_bytes; /* shown, of what may be before others have their turn */
    off_t room_bytes;  /* that may be filled, in a file */
};

/* 0; -EAGAIN: it is others' turn; -ENOSPC: so much would not leave the room that is to be left. */
static int take_turn(struct showing *showing, size_t size_bytes)
{
    const struct spool *spool = &showing->picture->spool;

    if (showing->slice_bytes >= SLICE_BYTES)
        return -EAGAIN;
    if (spool->size_bytes + (off_t)size_bytes > SPOOL_MEMORY_BYTES &&
        showing->slice_bytes + (off_t)size_bytes > showing->room_bytes)
        return -ENOSPC;
    showing->slice_bytes += (off_t)size_bytes;
    return 0;
}

static int add(const struct showing *showing, const void *data, size_t size_bytes)
{
    return spool_append(&showing->picture->spool, showing->directory_fd, data, size_bytes);
}

/* -ENODATA: the mailbox has become shorter than it was found. */
static int gone_is_stale(int result)
{
    return result == -ENODATA ? -ESTALE : result;
}

/* The payload; as it was when its sum was found right, or not at all. */
static int show_payload(void *context, const struct gproc_source *source,
                        const struct gproc_message *message)
{
    struct showing *showing = context;
    off_t size_before = showing->picture->spool.size_bytes;
    uint8_t bytes[COPY_BYTES];
    uint32_t sum = 0;
    size_t done = 0;
    int result = take_turn(showing, GPROC_FRAME_HEADER_BYTES + message->payload_bytes);

    while (result == 0 && done < message->payload_bytes) {
        size_t left = message->payload_bytes - done;
        size_t part = left < sizeof(bytes) ? left : sizeof(bytes);

        result = gone_is_stale(
            gproc_source_read(source, bytes, part, message->payload_offset + (off_t)done));
        if (result == 0) {
            sum += gproc_checksum(bytes, part);
            done += part;
            result = add(showing, bytes, part);
        }
    }
    if (result == 0 && sum != message->checksum)
        result = -ESTALE;
    if (result < 0)
        spool_cut(&showing->picture->spool, size_before);
    return result;
}

/* A line. What it shows of the payload is looked at between two looks at the frame. */
static int show_line(void *context, const struct gproc_source *source,
                     const struct gproc_message *message)
{
    struct showing *showing = context;
    uint8_t start[TABLE_PREVIEW_BYTES];
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
    char line[TABLE_LINE_BYTES];
    size_t part = message->payload_bytes < sizeof(start) ? message->payload_bytes : sizeof(start);
    struct gproc_frame frame;
    int result = take_turn(showing, GPROC_FRAME_HEADER_BYTES + message->payload_bytes);

    if (result == 0)
        result = gproc_source_read(source, start, part, message->payload_offset);
    if (result == 0)
        result = gproc_source_read(source, header, sizeof(header), message->frame_offset);
    if (result < 0)
        return gone_is_stale(result);
    frame = gproc_frame_decode(header);
    if (frame.checksum != message->checksum || frame.sender != message->sender ||
        (part == message->payload_bytes && gproc_checksum(start, part) != frame.checksum))
        return -ESTALE;
    result =
        add(showing, line, table_message(line, showing->picture->shown_count + 1, message, start));
    if (result == 0)
        showing->picture->shown_count++;
    return result;
}

static int show_damage(void *context, bool in_flight, off_t offset, off_t size_bytes)
{
    char line[TABLE_LINE_BYTES];

    return add(context, line, table_damage(line, in_flight, offset, size_bytes));
}

/* ---- Looking */

/* Goes on with the certainty of the lock, if nobody holds it; what dead mounts left is settled. */
static int look_with_lock(struct job *job, struct picture *picture,
                          const struct gproc_trail_visitor *visitor)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct gproc_mailbox *mailbox;
    int result;

    if (job->fs->read_only || box_lock(job) < 0)
        return 0; /* another time */
    mailbox = &job->box->files->mailbox;
    result = gproc_mailbox_reopen(mailbox, &job->fs->mailboxes,
                                  gproc_inflight_is_unsettled(inflight) ? O_RDWR : O_RDONLY);
    if (result == 0 && gproc_inflight_is_unsettled(inflight)) {
        result = gproc_inflight_settle(inflight, mailbox);
        if (result == 0)
            result = gproc_mailbox_refresh(mailbox);
    }
    if (result == 0)
        result = gproc_trail_go(&picture->trail, inflight, mailbox, true, visitor);
    box_unlock(job->box);
    return result < 0 && result != -ENOENT ? result : 0;
}

/* What may be filled of a file system: all but its last tenth. */
static off_t spare_bytes(const struct statvfs *room)
{
    uint64_t left = room->f_blocks / ROOM_LEFT_PARTS;

    if (room->f_bavail <= left)
        return 0;
    return (off_t)((room->f_bavail - left) * room->f_frsize);
}

/*
 * Pictures live as long as somebody has them open, and what senders need is not theirs to fill. How
 * much of the file's file system they may; where there is no file yet, of the one that it is to be
 * on: the store's, if all that waits fits there.
 */
static void find_room(struct showing *showing, const struct gprocfs *fs, off_t need_bytes)
{
    const struct spool *spool = &showing->picture->spool;
    struct statvfs room;

    showing->directory_fd = fs->store.fd;
    showing->room_bytes = 0;
    if (spool->fd >= 0) {
        if (fstatvfs(spool->fd, &room) == 0)
            showing->room_bytes = spare_bytes(&room);
        return;
    }
    if (fs->store.fd >= 0 && fstatvfs(fs->store.fd, &room) == 0)
        showing->room_bytes = spare_bytes(&room);
    if (showing->room_bytes > need_bytes)
        return;
    showing->directory_fd = -1;
    showing->room_bytes = statvfs(spool_temporary(), &room) == 0 ? spare_bytes(&room) : 0;
}

static off_t inflight_bytes(struct gproc_inflight *inflight)
{
    uint64_t payload_bytes = 0, disk_bytes = 0;

    (void)gproc_inflight_measure(inflight, &payload_bytes, &disk_bytes); /* less, then */
    return (off_t)payload_bytes;
}

/* Adds what has come since to the picture: by whoever is at work. -EAGAIN: there is more to add, but
 * others have their turn. */
static int look_again(struct job *job, struct picture *picture, const struct access_grant *grant)
{
    bool payloads = picture->view == TREE_PEEK;
    struct showing showing = {.picture = picture};
    struct gproc_trail_visitor visitor = {
        .message = payloads ? show_payload : show_line,
        .damage = payloads ? NULL : show_damage,
        .context = &showing,
    };
    struct gproc_inflight *inflight = &job->box->inflight;
    struct gproc_mailbox mailbox;
    char line[TABLE_LINE_BYTES];
    off_t size_before = picture->spool.size_bytes;
    int result = gproc_mailbox_open(&mailbox, &job->fs->mailboxes, job->box->pid, O_RDONLY);

    if (result < 0)
        return result == -ENOENT ? 0 : result;
    result = access_again(grant, job->req, &mailbox.status, ACCESS_LOOK);
    if (result == 0)
        find_room(&showing, job->fs, mailbox.status.st_size + inflight_bytes(inflight));
    if (result == 0 && gproc_inflight_is_foreign(inflight, mailbox.status.st_uid))
        inflight = NULL; /* it was sent to somebody else */
    if (result == 0 && !payloads && picture->spool.size_bytes == 0)
        result = add(&showing, line, table_head(line));
    if (result == 0)
        result = gproc_trail_go(&picture->trail, inflight, &mailbox, false, &visitor);
    gproc_mailbox_close(&mailbox);
    if (result == GPROC_TRAIL_DOUBT && inflight != NULL)
        result = look_with_lock(job, picture, &visitor);
    /* What has not grown has not changed either, whatever became of the mailbox: tar asks. */
    if (picture->spool.size_bytes > size_before || picture->mailbox.st_ino == 0)
        picture->mailbox = mailbox.status;
    picture->is_taken = picture->is_taken || result != -EAGAIN;
    return result;
}

/* One of the open files that show this picture, for what it was allowed. */
static const struct handle *a_user(struct box *box, const struct picture *picture)
{
    const struct handle *handle;

    (void)pthread_mutex_lock(&box->mutex);
    for (handle = box->handles; handle != NULL && handle->picture != picture;)
        handle = handle->next;
    (void)pthread_mutex_unlock(&box->mutex);
    return handle;
}

int picture_measure(struct job *job, struct stat *attributes)
{
    struct picture *picture;
    const struct handle *user;
    int result;

    (void)pthread_mutex_lock(&job->box->mutex);
    picture = find(job->box, job->node.view, job->node.picture);
    (void)pthread_mutex_unlock(&job->box->mutex);
    /* Files are closed by whoever is at work: neither goes away while we are. */
    user = picture != NULL ? a_user(job->box, picture) : NULL;
    if (user == NULL)
        return -ENOENT;
    result = look_again(job, picture, &user->grant);
    /* Not allowed any more, or no room for more: what it has shown it may show. */
    if (result < 0 && result != -ESTALE && (result != -ENOSPC || picture->spool.size_bytes == 0))
        return result;
    attributes->st_mode = user->grant.mode;
    attributes->st_uid = user->grant.uid;
    attributes->st_gid = user->grant.gid;
    attributes->st_nlink = 1;
    attributes->st_size = picture->spool.size_bytes;
    attributes->st_atim = picture->mailbox.st_atim;
    attributes->st_mtim = picture->mailbox.st_mtim;
    attributes->st_ctim = picture->mailbox.st_ctim;
    return 0;
}

static enum job_result answer_read(struct job *job)
{
    struct picture *picture = job->handle->picture;
    uint8_t small[STACK_BYTES];
    uint8_t *buffer = small;
    ssize_t got = 0;

    if (job_is_abandoned(job))
        got = -EINTR;
    else if (!picture->is_taken || job->offset + (off_t)job->size_bytes > picture->spool.size_bytes)
        got = look_again(job, picture, &job->handle->grant);
    if (got == -EAGAIN)
        return JOB_AGAIN;
    if (got == -ESTALE)
        got = 0; /* as in picture_measure() */
    if (got >= 0 && job->size_bytes > sizeof(small)) {
        buffer = malloc(job->size_bytes);
        got = buffer == NULL ? -ENOMEM : 0;
    }
    if (got >= 0)
        got = spool_read(&picture->spool, buffer, job->size_bytes, job->offset);
    if (got < 0) {
        if (got != -EINTR)
            log_mailbox(job->box->pid, "cannot be looked at", (int)got);
        (void)job_reply_error(job, (int)got);
    } else {
        (void)job_reply_data(job, buffer, (size_t)got); /* whoever has gone needs no answer */
    }
    if (buffer != small)
        free(buffer);
    return JOB_DONE;
}

void picture_read(struct handle *handle, fuse_req_t req, size_t size_bytes, off_t offset)
{
    struct job job = handle_job(handle, req);

    job.run = answer_read;
    job.size_bytes = size_bytes;
    job.offset = offset;
    box_submit(&job);
}

/* ---- What others do to the queue */

void pictures_moved(struct box *box, uint64_t serial)
{
    struct picture *picture;

    (void)pthread_mutex_lock(&box->mutex);
    for (picture = box->pictures; picture != NULL; picture = picture->next)
        gproc_trail_moved(&picture->trail, serial);
    (void)pthread_mutex_unlock(&box->mutex);
}

void pictures_emptied(struct box *box)
{
    struct picture *picture;

    (void)pthread_mutex_lock(&box->mutex);
    for (picture = box->pictures; picture != NULL; picture = picture->next)
        gproc_trail_emptied(&picture->trail);
    (void)pthread_mutex_unlock(&box->mutex);
}
