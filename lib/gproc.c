#include "gproc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "batch.h"
#include "context.h"
#include "frame.h"
#include "lock.h"
#include "mailbox.h"
#include "paths.h"
#include "scan.h"

#ifndef GPROC_VERSION
#define GPROC_VERSION "0.1.0" /* for who builds without the Makefile, which knows */
#endif

enum {
    DIRECTORY_MODE = 0777,
    /* How often a mailbox may shrink while it is counted, before it is told as it is then: not to
       be read. */
    COUNTS_MOST = 10,
};

/* The public header repeats these, to include none of the internal ones. */
_Static_assert((int)GPROC_NOW == (int)GPROC_WAIT_NONE, "waiting times");
_Static_assert((int)GPROC_FOREVER == (int)GPROC_WAIT_FOREVER, "waiting times");
_Static_assert(GPROC_PAYLOAD_MAX_BYTES == GPROC_FRAME_PAYLOAD_MAX_BYTES, "payload limit");

const char *gproc_version(void)
{
    return GPROC_VERSION;
}

/* Opens one of the directories: `path`, or where that is NULL what the environment says. */
static int open_place(struct gproc_place *place, const char *path,
                      int (*by_default)(char *path, size_t size_bytes))
{
    char buffer[PATH_MAX];

    if (path == NULL) {
        int result = by_default(buffer, sizeof(buffer));

        if (result < 0)
            return result;
        path = buffer;
    }
    return gproc_place_init(place, path, DIRECTORY_MODE);
}

int gproc_open(const struct gproc_options *options, struct gproc **gproc)
{
    static const struct gproc_options defaults = {NULL, NULL};
    struct gproc *opened = malloc(sizeof(*opened));
    int result;

    if (opened == NULL)
        return -ENOMEM;
    if (options == NULL)
        options = &defaults;
    result = open_place(&opened->mailboxes, options->mailbox_directory, gproc_mailbox_directory);
    if (result < 0)
        goto free_it;
    result = open_place(&opened->locks, options->lock_directory, gproc_lock_directory);
    if (result < 0)
        goto release_mailboxes;
    *gproc = opened;
    return 0;

release_mailboxes:
    gproc_place_release(&opened->mailboxes);
free_it:
    free(opened);
    return result;
}

void gproc_close(struct gproc *gproc)
{
    if (gproc == NULL)
        return;
    gproc_place_release(&gproc->locks);
    gproc_place_release(&gproc->mailboxes);
    free(gproc);
}

int gproc_send(struct gproc *gproc, pid_t to, const void *payload, size_t payload_bytes,
               int wait_ms)
{
    return gproc_send_as(gproc, to, getpid(), payload, payload_bytes, wait_ms);
}

int gproc_send_as(struct gproc *gproc, pid_t to, int32_t sender, const void *payload,
                  size_t payload_bytes, int wait_ms)
{
    struct gproc_mailbox mailbox;
    struct gproc_lock lock;
    int result;

    if (to <= 0)
        return -EINVAL;
    if (payload_bytes > GPROC_PAYLOAD_MAX_BYTES) /* before anything is created for it */
        return -EMSGSIZE;
    result = gproc_lock_take(&lock, &gproc->locks, to, gproc_creator_self, wait_ms);
    if (result < 0)
        return result;
    result = gproc_mailbox_create(&mailbox, &gproc->mailboxes, to, O_WRONLY, GPROC_MAILBOX_MODE,
                                  gproc_creator_self);
    if (result >= 0) {
        result = gproc_mailbox_append(&mailbox, sender, payload, payload_bytes);
        gproc_mailbox_close(&mailbox);
    }
    gproc_lock_release(&lock);
    return result;
}

/* Copies the messages of `pid` under its lock. */
static int copy_messages(struct gproc *gproc, pid_t pid, int wait_ms, struct gproc_batch *batch)
{
    struct gproc_mailbox mailbox;
    struct gproc_lock lock;
    int result = gproc_lock_take(&lock, &gproc->locks, pid, gproc_creator_self, wait_ms);

    if (result < 0)
        return result;
    result = gproc_mailbox_open(&mailbox, &gproc->mailboxes, pid, O_RDONLY);
    if (result == 0) {
        result = gproc_batch_fill(batch, &mailbox);
        gproc_mailbox_close(&mailbox);
    }
    gproc_lock_release(&lock);
    return result;
}

int gproc_peek(struct gproc *gproc, pid_t pid, int wait_ms,
               int (*found)(void *context, const struct gproc_mail *mail), void *context)
{
    struct gproc_batch batch;
    struct gproc_mail mail;
    int result;

    if (pid <= 0)
        return -EINVAL;
    gproc_batch_init(&batch);
    result = copy_messages(gproc, pid, wait_ms, &batch);
    while (result == 0) {
        result = gproc_batch_next(&batch, &mail);
        if (result <= 0)
            break;
        result = found(context, &mail);
    }
    gproc_batch_release(&batch);
    return result;
}

/* Counts what waits in an open mailbox. -ENODATA: it has shrunk meanwhile. */
static int count_messages(const struct gproc_mailbox *mailbox, struct gproc_mailbox_info *info)
{
    const struct gproc_source source = gproc_mailbox_source(mailbox);
    struct gproc_message message;
    struct gproc_scan scan;
    int result;

    info->payload_bytes = 0;
    info->message_count = 0;
    gproc_scan_init(&scan, &source, 0);
    while ((result = gproc_scan_next(&scan, &message)) == 1) {
        info->payload_bytes += message.payload_bytes;
        info->message_count++;
    }
    gproc_scan_release(&scan);
    return result;
}

static void describe(struct gproc_mailbox_info *info, const struct stat *status)
{
    info->file_bytes = (uint64_t)status->st_size;
    info->modified_s = status->st_mtim.tv_sec;
    info->modified_ns = (int32_t)status->st_mtim.tv_nsec;
}

/* All about one mailbox. -ENOENT where it is none, or has gone; what is wrong inside is
 * info->error. */
static int inspect(struct gproc *gproc, pid_t pid, struct gproc_mailbox_info *info)
{
    struct gproc_mailbox mailbox;
    struct stat status;
    int result;
    int i;

    /* First without opening: who lists a directory should set off nothing that was planted there.
     */
    result = gproc_mailbox_stat(&gproc->mailboxes, pid, &status);
    if (result < 0)
        return result;
    *info = (struct gproc_mailbox_info){.pid = pid};
    describe(info, &status);
    result = gproc_mailbox_open(&mailbox, &gproc->mailboxes, pid, O_RDONLY);
    if (result == -ENOENT)
        return result;
    if (result < 0) {
        info->error = result;
        return 0;
    }
    for (i = 0; i < COUNTS_MOST; i++) {
        describe(info, &mailbox.status);
        result = count_messages(&mailbox, info);
        if (result != -ENODATA || gproc_mailbox_refresh(&mailbox) < 0)
            break;
    }
    gproc_mailbox_close(&mailbox);
    if (result < 0) {
        info->error = result;
        info->payload_bytes = 0;
        info->message_count = 0;
    }
    return 0;
}

/* The mailbox directory as it is now, to be closed by the caller. */
static int open_stream(struct gproc *gproc, DIR **stream)
{
    struct gproc_place *place = &gproc->mailboxes;
    struct stat status;
    int fd;
    int result = fstat(place->fd, &status) < 0 ? -errno : gproc_place_names(place, ".", &status);

    if (result == 0)
        result = gproc_place_renew(place);
    if (result < 0)
        return result;
    fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* fdopendir takes it away */
    if (fd < 0)
        return -errno;
    *stream = fdopendir(fd);
    if (*stream == NULL) {
        result = -errno;
        (void)close(fd);
        return result;
    }
    return 0;
}

int gproc_list(struct gproc *gproc,
               int (*found)(void *context, const struct gproc_mailbox_info *info), void *context)
{
    struct gproc_mailbox_info info;
    struct dirent *entry;
    DIR *stream;
    pid_t pid;
    int result = open_stream(gproc, &stream);

    if (result < 0)
        return result;
    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (gproc_pid_parse(entry->d_name, &pid) < 0)
            continue;
        result = inspect(gproc, pid, &info);
        if (result == -ENOENT) /* nothing to show is no error */
            continue;
        if (result == 0)
            result = found(context, &info);
        if (result != 0)
            break;
    }
    (void)closedir(stream); /* read only: nothing to lose */
    return result;
}
