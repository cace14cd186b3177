#include "seen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

const char seen_late[] = "the daemon does not answer in time";

const char *seen_path(struct performer *performer, long box, enum step_view view)
{
    return mount_path(performer->mount, "%s/%s%d", performer->mount->mnt, step_view_path(view),
                      step_box_pid(box));
}

void seen(struct outcome *outcome, long result)
{
    outcome->result = result;
    outcome->error = errno;
}

/* `bytes` may be NULL where there are none. */
void seen_bytes(struct outcome_bytes *to, const uint8_t *bytes, size_t count)
{
    free(to->bytes);
    to->there = true;
    to->count = count;
    to->bytes = calloc(1, count + 1);
    if (to->bytes == NULL)
        abort();
    if (count > 0)
        memcpy(to->bytes, bytes, count);
}

/* What an open file has from its start, or what open or read said. */
long seen_file(const char *path, struct outcome_bytes *to)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = NULL;
    size_t count = 0, room = 0;
    ssize_t got;
    int error;

    if (fd < 0)
        return -1;
    do {
        if (room - count < ERRANDS_READ_BYTES) {
            room = room * 2 + ERRANDS_READ_BYTES;
            bytes = realloc(bytes, room);
            if (bytes == NULL)
                abort();
        }
        got = read(fd, bytes + count, room - count);
        count += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    error = errno;
    close(fd);
    if (got == 0)
        seen_bytes(to, bytes, count);
    free(bytes);
    errno = error;
    return got;
}

/* A sample of `.stats`, 0 where there is none, or -1. */
long seen_sample(struct performer *performer, const char *name)
{
    struct outcome_bytes text = {0};
    size_t length = strlen(name);
    const char *line;
    long value = 0;

    if (seen_file(mount_path(performer->mount, "%s/.stats", performer->mount->mnt), &text) < 0)
        return -1;
    line = (const char *)text.bytes;
    while (line != NULL && (strncmp(line, name, length) != 0 || line[length] != ' ')) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    if (line != NULL)
        value = strtol(line + length, NULL, 10);
    free(text.bytes);
    return value;
}

void seen_pause(void)
{
    static const struct timespec moment = {.tv_nsec = 500000};

    nanosleep(&moment, NULL);
}

/* Looking at a box comes after all that the daemon has to do for it. */
void seen_finish(struct performer *performer)
{
    struct stat status;

    for (long i = 0; i < STEP_BOXES; i++)
        (void)stat(seen_path(performer, i, VIEW_MAILBOX), &status); /* whether it is there or not */
}

const char *perform_await_open(struct performer *performer, long open_files)
{
    int64_t deadline_ms = process_clock_ms() + SEEN_DEADLINE_MS;

    while (seen_sample(performer, "gprocfs_open_files") != open_files) {
        if (process_clock_ms() > deadline_ms)
            return "the daemon has other files open than there are";
        seen_pause();
    }
    seen_finish(performer);
    return NULL;
}

size_t seen_read_size(const struct step *step)
{
    size_t size = (size_t)step->of[FIELD_SIZE];

    return size < ERRANDS_READ_BYTES ? size : ERRANDS_READ_BYTES;
}

void seen_attributes(struct outcome *outcome, long result, const struct stat *status)
{
    seen(outcome, result);
    outcome->size = status->st_size;
    outcome->mode = status->st_mode & 07777;
}
