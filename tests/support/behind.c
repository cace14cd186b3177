#include "behind.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

const char *behind_box(struct mount *mount, int pid)
{
    return mount_path(mount, "%s/%d", mount->mail, pid);
}

const char *behind_lock_file(struct mount *mount, int pid)
{
    return mount_path(mount, "%s/%d.lock", mount->locks, pid);
}

/* Without O_CREAT first: where fs.protected_regular is set, that fails on another user's file. */
static int open_or_create(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags | O_CLOEXEC);

    return fd >= 0 || errno != ENOENT ? fd : open(path, flags | O_CREAT | O_CLOEXEC, mode);
}

int behind_lock(struct mount *mount, int pid)
{
    const char *path = behind_lock_file(mount, pid);

    for (;;) {
        struct stat locked;
        struct stat named;
        int error = 0;
        int fd = open_or_create(path, O_RDWR, 0600);

        if (fd < 0)
            return -errno;
        while (flock(fd, LOCK_EX) != 0 && errno == EINTR)
            ;
        if (fstat(fd, &locked) != 0)
            error = -errno;
        else if (stat(path, &named) == 0 && named.st_ino == locked.st_ino)
            return fd;
        close(fd);
        if (error != 0)
            return error;
        /* Another file has its name now. */
    }
}

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

static uint32_t sum(const uint8_t *bytes, size_t size_bytes)
{
    uint32_t total = 0;

    for (size_t i = 0; i < size_bytes; i++)
        total += bytes[i];
    return total;
}

void behind_frame(uint8_t header[BEHIND_HEADER_BYTES], int32_t sender, const void *payload,
                  size_t payload_bytes)
{
    put32(header, (uint32_t)(payload_bytes + BEHIND_HEADER_BYTES));
    put32(header + 4, (uint32_t)sender);
    put32(header + 8, sum(payload, payload_bytes));
}

static int write_all(int fd, const uint8_t *bytes, size_t size_bytes)
{
    while (size_bytes > 0) {
        ssize_t wrote = write(fd, bytes, size_bytes);

        if (wrote < 0 && errno != EINTR)
            return -errno;
        if (wrote > 0) {
            bytes += wrote;
            size_bytes -= (size_t)wrote;
        }
    }
    return 0;
}

static int append(struct mount *mount, int pid, const uint8_t *head, size_t head_bytes,
                  const uint8_t *rest, size_t rest_bytes)
{
    const char *path = behind_box(mount, pid);
    int lock = behind_lock(mount, pid);
    int error = 0;
    int fd;

    if (lock < 0)
        return lock;
    fd = open_or_create(path, O_WRONLY | O_APPEND, 0666);
    if (fd < 0)
        error = -errno;
    if (error == 0)
        error = write_all(fd, head, head_bytes);
    if (error == 0)
        error = write_all(fd, rest, rest_bytes);
    if (fd >= 0)
        close(fd);
    close(lock);
    return error;
}

int behind_append(struct mount *mount, int pid, const void *bytes, size_t size_bytes)
{
    return append(mount, pid, bytes, size_bytes, NULL, 0);
}

int behind_send(struct mount *mount, int pid, int32_t sender, const void *payload,
                size_t payload_bytes)
{
    uint8_t header[BEHIND_HEADER_BYTES];

    behind_frame(header, sender, payload, payload_bytes);
    return append(mount, pid, header, sizeof(header), payload, payload_bytes);
}

void behind_fill(struct mount *mount, int pid, size_t payload_bytes, int messages)
{
    size_t frame_bytes = BEHIND_HEADER_BYTES + payload_bytes;
    uint8_t *frame = mount_keep(mount, malloc(frame_bytes));
    int fd = open(behind_box(mount, pid), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    memset(frame + BEHIND_HEADER_BYTES, 'x', payload_bytes);
    behind_frame(frame, 1, frame + BEHIND_HEADER_BYTES, payload_bytes);
    for (int i = 0; i < messages; i++)
        assert_int_equal(write(fd, frame, frame_bytes), frame_bytes);
    assert_int_equal(close(fd), 0);
}

/* All of a file that has this many bytes and is locked. */
static ssize_t read_file(int fd, uint8_t **bytes)
{
    struct stat status;
    size_t done = 0;
    size_t size_bytes;

    if (fstat(fd, &status) != 0)
        return -errno;
    size_bytes = (size_t)status.st_size;
    *bytes = malloc(size_bytes + 1);
    if (*bytes == NULL)
        return -ENOMEM;
    while (done < size_bytes) {
        ssize_t got = read(fd, *bytes + done, size_bytes - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            free(*bytes);
            *bytes = NULL;
            return got < 0 ? -errno : -EIO;
        }
        done += (size_t)got;
    }
    return (ssize_t)size_bytes;
}

static ssize_t take(struct mount *mount, int pid, bool drain, uint8_t **bytes)
{
    const char *path = behind_box(mount, pid);
    int lock = behind_lock(mount, pid);
    ssize_t result;
    int fd;

    *bytes = NULL;
    if (lock < 0)
        return lock;
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        result = -errno;
    } else {
        result = read_file(fd, bytes);
        if (result > 0 && drain && ftruncate(fd, 0) != 0)
            result = -errno;
        close(fd);
    }
    close(lock);
    return result;
}

ssize_t behind_read(struct mount *mount, int pid, uint8_t **bytes)
{
    return take(mount, pid, false, bytes);
}

ssize_t behind_drain(struct mount *mount, int pid, uint8_t **bytes)
{
    return take(mount, pid, true, bytes);
}

ssize_t behind_parse(const uint8_t *bytes, size_t size_bytes, struct behind_message *message)
{
    uint32_t length;

    if (size_bytes == 0)
        return 0;
    if (size_bytes < BEHIND_HEADER_BYTES)
        return -EBADMSG;
    length = get32(bytes);
    if (length < BEHIND_HEADER_BYTES || length > size_bytes)
        return -EBADMSG;
    message->sender = (int32_t)get32(bytes + 4);
    message->payload = bytes + BEHIND_HEADER_BYTES;
    message->payload_bytes = length - BEHIND_HEADER_BYTES;
    if (get32(bytes + 8) != sum(message->payload, message->payload_bytes))
        return -EBADMSG;
    return (ssize_t)length;
}

void behind_expect_sent(struct mount *mount, int pid, int32_t sender, const char *text)
{
    assert_int_equal(behind_send(mount, pid, sender, text, strlen(text)), 0);
}

/* The file's bytes, freed with the mount; none where there is no file. */
static const uint8_t *expect_read(struct mount *mount, int pid, size_t *size_bytes)
{
    uint8_t *bytes;
    ssize_t got = behind_read(mount, pid, &bytes);

    mount_keep(mount, bytes);
    if (got == -ENOENT)
        got = 0;
    if (got < 0)
        fail_msg("cannot read mailbox %d: %s", pid, strerror((int)-got));
    *size_bytes = (size_t)got;
    return bytes;
}

void behind_expect_list(struct mount *mount, int pid, const char *const texts[])
{
    size_t left;
    const uint8_t *bytes = expect_read(mount, pid, &left);
    struct behind_message message;
    ssize_t frame_bytes;

    for (size_t i = 0; texts[i] != NULL; i++) {
        const char *text = texts[i];

        frame_bytes = behind_parse(bytes, left, &message);
        if (frame_bytes <= 0)
            fail_msg("mailbox %d: \"%s\" is missing (%zu bytes left)", pid, text, left);
        if (message.payload_bytes != strlen(text) ||
            memcmp(message.payload, text, message.payload_bytes) != 0)
            fail_msg("mailbox %d: %zu bytes \"%.*s\" instead of \"%s\"", pid, message.payload_bytes,
                     (int)message.payload_bytes, (const char *)message.payload, text);
        bytes += frame_bytes;
        left -= (size_t)frame_bytes;
    }
    frame_bytes = behind_parse(bytes, left, &message);
    if (frame_bytes > 0)
        fail_msg("mailbox %d: and \"%.*s\"", pid, (int)message.payload_bytes,
                 (const char *)message.payload);
    if (frame_bytes < 0)
        fail_msg("mailbox %d: and %zu bytes that are no frame", pid, left);
}

void behind_expect_frame(struct mount *mount, int pid, int32_t sender, const void *payload,
                         size_t payload_bytes)
{
    uint8_t header[BEHIND_HEADER_BYTES];
    size_t size_bytes;
    const uint8_t *bytes = expect_read(mount, pid, &size_bytes);

    behind_frame(header, sender, payload, payload_bytes);
    assert_int_equal(size_bytes, payload_bytes + sizeof(header));
    assert_memory_equal(bytes, header, sizeof(header));
    assert_memory_equal(bytes + sizeof(header), payload, payload_bytes);
}

void behind_expect_bytes(struct mount *mount, int pid, const void *bytes, size_t size_bytes)
{
    size_t found_bytes;
    const uint8_t *found = expect_read(mount, pid, &found_bytes);

    assert_int_equal(found_bytes, size_bytes);
    if (size_bytes > 0)
        assert_memory_equal(found, bytes, size_bytes);
}
