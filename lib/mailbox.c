#include "mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "checksum.h"
#include "frame.h"
#include "paths.h"

enum {
    REPLACED_MOST_COUNT = 100,
    /* O_NONBLOCK: a planted fifo or device must not hold us before we have seen what it is.
     * O_APPEND, as the Go package opens it: an appender that takes no lock is then not overwritten.
     */
    OPEN_FLAGS = O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
};

static bool is_mailbox(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_nlink == 1;
}

/*
 * Whether open failed because of what is there: a link, a socket, a fifo without reader, a
 * directory; a device where there may be none, or any of these that we may not open.
 */
static bool is_no_mailbox(int error, struct gproc_place *directory, pid_t pid)
{
    struct stat status;

    if (error == -EACCES)
        return gproc_mailbox_stat(directory, pid, &status) == -ENOENT;
    return error == -ELOOP || error == -ENXIO || error == -EISDIR || error == -ENODEV;
}

/* One try. -ESTALE: the path leads elsewhere by now; renew the directory and try again. */
static int open_once(struct gproc_mailbox *mailbox, const struct gproc_place *directory,
                     const char *name, int flags, mode_t mode)
{
    int result;

    mailbox->access = flags & O_ACCMODE;
    mailbox->fd = openat(directory->fd, name, flags | OPEN_FLAGS, mode);
    if (mailbox->fd < 0)
        return -errno;
    if (fstat(mailbox->fd, &mailbox->status) < 0)
        result = -errno;
    else if (!S_ISREG(mailbox->status.st_mode) || mailbox->status.st_nlink > 1)
        result = -ELOOP;
    else if (mailbox->status.st_nlink == 0)
        result = -ESTALE;
    else
        result = gproc_place_names(directory, name, &mailbox->status);
    if (result == 1)
        return 0;
    gproc_mailbox_close(mailbox);
    return result == 0 ? -ESTALE : result;
}

int gproc_mailbox_open(struct gproc_mailbox *mailbox, struct gproc_place *directory, pid_t pid,
                       int access)
{
    char name[GPROC_NAME_BYTES];
    int attempt;

    gproc_mailbox_name(pid, name);
    mailbox->pid = pid;
    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        int result = open_once(mailbox, directory, name, access, 0);

        if (is_no_mailbox(result, directory, pid))
            return -ENOENT;
        if (result == -ENOENT && attempt == 0) {
            /* Missing, or missing in a directory that is not the one any more: a second look
             * decides. */
            struct stat unused = {0};

            if (gproc_place_names(directory, name, &unused) == 0)
                result = -ESTALE;
        }
        if (result != -ESTALE)
            return result;
        result = gproc_place_renew(directory);
        if (result < 0)
            return result;
    }
    return -EBUSY;
}

int gproc_mailbox_create(struct gproc_mailbox *mailbox, struct gproc_place *directory, pid_t pid,
                         int access, mode_t mode, struct gproc_creator creator)
{
    char name[GPROC_NAME_BYTES];
    int attempt;

    gproc_mailbox_name(pid, name);
    mailbox->pid = pid;
    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        int result = open_once(mailbox, directory, name, access, 0);

        if (is_no_mailbox(result, directory, pid))
            return -EEXIST;
        if (result == -ENOENT) {
            result = open_once(mailbox, directory, name, access | O_CREAT | O_EXCL, mode);
            if (result == -EEXIST) /* somebody was faster */
                continue;
            if (result == 0) {
                if (creator.uid == (uid_t)-1 || fchown(mailbox->fd, creator.uid, creator.gid) == 0)
                    return 1;
                result = -errno;
                (void)unlinkat(directory->fd, name, 0); /* it would shut out whom it was made for */
                gproc_mailbox_close(mailbox);
                return result;
            }
            if (result == -ENOENT) /* the directory itself is gone */
                result = -ESTALE;
        }
        if (result != -ESTALE)
            return result;
        result = gproc_place_renew(directory);
        if (result < 0)
            return result;
    }
    return -EBUSY;
}

void gproc_mailbox_init(struct gproc_mailbox *mailbox, pid_t pid)
{
    memset(mailbox, 0, sizeof(*mailbox));
    mailbox->fd = -1;
    mailbox->pid = pid;
}

bool gproc_mailbox_is_open(const struct gproc_mailbox *mailbox, const struct stat *status,
                           int access)
{
    struct gproc_identity identity = gproc_identity_of(&mailbox->status);

    return mailbox->fd >= 0 && (mailbox->access == access || mailbox->access == O_RDWR) &&
           gproc_identity_is(&identity, status);
}

/* Whether it is open already; if so its status is fresh, else it is closed. */
static bool is_kept(struct gproc_mailbox *mailbox, const struct gproc_place *directory, int access)
{
    struct stat status;

    if (mailbox->fd < 0)
        return false;
    if (gproc_mailbox_find(directory, mailbox->pid, &status) == 0 &&
        gproc_mailbox_is_open(mailbox, &status, access)) {
        mailbox->status = status;
        return true;
    }
    gproc_mailbox_close(mailbox);
    return false;
}

/* Whether less than reading and writing may do. */
static bool may_less(int error)
{
    return error == -EACCES || error == -EPERM || error == -EROFS;
}

int gproc_mailbox_reopen(struct gproc_mailbox *mailbox, struct gproc_place *directory, int access)
{
    int result;

    if (is_kept(mailbox, directory, access))
        return 0;
    result = gproc_mailbox_open(mailbox, directory, mailbox->pid, O_RDWR);
    if (may_less(result) && access != O_RDWR)
        result = gproc_mailbox_open(mailbox, directory, mailbox->pid, access);
    return result;
}

int gproc_mailbox_recreate(struct gproc_mailbox *mailbox, struct gproc_place *directory, int access,
                           mode_t mode, struct gproc_creator creator)
{
    int result;

    if (is_kept(mailbox, directory, access))
        return 0;
    result = gproc_mailbox_create(mailbox, directory, mailbox->pid, O_RDWR, mode, creator);
    if (may_less(result) && access != O_RDWR)
        result = gproc_mailbox_create(mailbox, directory, mailbox->pid, access, mode, creator);
    return result;
}

void gproc_mailbox_close(struct gproc_mailbox *mailbox)
{
    if (mailbox->fd >= 0)
        (void)close(mailbox->fd); /* every write was looked at already */
    mailbox->fd = -1;
}

int gproc_mailbox_stat(struct gproc_place *directory, pid_t pid, struct stat *status)
{
    char name[GPROC_NAME_BYTES];
    int result;

    gproc_mailbox_name(pid, name);
    if (fstatat(directory->fd, name, status, AT_SYMLINK_NOFOLLOW) == 0)
        return is_mailbox(status) ? 0 : -ENOENT;
    if (errno != ENOENT)
        return -errno;
    /* Missing, or missing in a directory that is not the one any more. */
    result = gproc_place_renew(directory);
    if (result < 0)
        return result;
    if (fstatat(directory->fd, name, status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return is_mailbox(status) ? 0 : -ENOENT;
}

int gproc_mailbox_find(const struct gproc_place *directory, pid_t pid, struct stat *status)
{
    char name[GPROC_NAME_BYTES];
    int result;

    gproc_mailbox_name(pid, name);
    result = gproc_place_stat(directory, name, status);
    if (result < 0)
        return result;
    return is_mailbox(status) ? 0 : -ENOENT;
}

int gproc_mailbox_refresh(struct gproc_mailbox *mailbox)
{
    return fstat(mailbox->fd, &mailbox->status) < 0 ? -errno : 0;
}

/* Writes all of the frame at the end of the file, or says why not; may leave a part, of
 * `*written_bytes`. */
static int write_frame(int fd, struct iovec parts[2], off_t *written_bytes)
{
    int first = 0;

    *written_bytes = 0;

    /* A write ends early at 2 GiB, at a full disk or at a signal: the next one tells which. */
    while (first < 2) {
        ssize_t written = writev(fd, parts + first, 2 - first);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        if (written == 0)
            return -EIO;
        *written_bytes += written;
        while (first < 2 && (size_t)written >= parts[first].iov_len) {
            written -= (ssize_t)parts[first].iov_len;
            first++;
        }
        if (first < 2) {
            parts[first].iov_base = (char *)parts[first].iov_base + written;
            parts[first].iov_len -= (size_t)written;
        }
    }
    return 0;
}

/* Takes the last bytes off the file again. */
static int cut_off(int fd, off_t size_bytes)
{
    off_t end = lseek(fd, 0, SEEK_END);

    return end < size_bytes ? -1 : ftruncate(fd, end - size_bytes);
}

int gproc_mailbox_append(struct gproc_mailbox *mailbox, int32_t sender, const void *payload,
                         size_t payload_bytes)
{
    uint8_t header[GPROC_FRAME_HEADER_BYTES];
    struct iovec parts[2] = {
        {header, sizeof(header)},
        {(void *)payload, payload_bytes}, /* writev does not write to it */
    };
    off_t written_bytes;
    int result;

    if (payload_bytes > GPROC_FRAME_PAYLOAD_MAX_BYTES)
        return -EMSGSIZE;
    /* It fits: that has been asked. */
    (void)gproc_frame_encode(header, sender, payload_bytes, gproc_checksum(payload, payload_bytes));
    result = write_frame(mailbox->fd, parts, &written_bytes);
    if (result < 0 && written_bytes > 0 && cut_off(mailbox->fd, written_bytes) < 0)
        return -EUCLEAN;
    return result;
}

int gproc_mailbox_clear(struct gproc_mailbox *mailbox)
{
    return ftruncate(mailbox->fd, 0) < 0 ? -errno : 0;
}

struct gproc_source gproc_mailbox_source(const struct gproc_mailbox *mailbox)
{
    struct gproc_source source = {
        .fd = mailbox->fd,
        .size_bytes = mailbox->status.st_size,
    };

    return source;
}

int gproc_mailbox_remove(struct gproc_place *directory, pid_t pid)
{
    char name[GPROC_NAME_BYTES];
    int attempt;

    gproc_mailbox_name(pid, name);
    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        struct stat status;
        int result = gproc_mailbox_stat(directory, pid, &status);

        if (result == 0)
            result = gproc_place_names(directory, name, &status);
        if (result == 1)
            return unlinkat(directory->fd, name, 0) < 0 ? -errno : 0;
        if (result < 0)
            return result;
        result = gproc_place_renew(directory);
        if (result < 0)
            return result;
    }
    return -EBUSY;
}
