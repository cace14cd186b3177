#include "remains.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FIELDS_BYTES = 64,
    HEADER_BYTES = 4096,
    FRAME_BYTES = 12,
    HOLES = 252,
};

static void *allocate(size_t count, size_t each_bytes)
{
    void *memory = calloc(count + 1, each_bytes);

    if (memory == NULL)
        abort();
    return memory;
}

static uint64_t number(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;

    while (count > 0)
        value = value << 8 | bytes[--count];
    return value;
}

/* The file's bytes, owned by the caller, or NULL where it is not there. */
static uint8_t *read_file(const char *path, size_t *size_bytes)
{
    struct stat status;
    uint8_t *bytes;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return NULL;
    if (fstat(fileno(file), &status) < 0)
        abort();
    *size_bytes = (size_t)status.st_size;
    bytes = allocate(*size_bytes, 1);
    if (fread(bytes, 1, *size_bytes, file) != *size_bytes)
        abort();
    (void)fclose(file); /* it was read only */
    return bytes;
}

static void go(struct remains_file *file, uint64_t start, uint64_t end)
{
    for (; start < end; start++) {
        file->is_gone[start] = true;
        file->has_gone = true;
    }
}

static void parse_holes(struct remains_file *file)
{
    if (file->state == REMAINS_RETURNING)
        file->voids = allocate(HOLES, sizeof(file->voids[0]));
    for (size_t i = 0; i < HOLES; i++) {
        const uint8_t *hole = file->bytes + FIELDS_BYTES + 16 * i;
        uint64_t start = number(hole, 8);
        uint64_t end = number(hole + 8, 8);

        if (end == 0 && start > 0 && start <= INT64_MAX && file->state == REMAINS_RETURNING)
            file->voids[file->voids_count++] = start;
        if (end <= file->data_bytes)
            go(file, start, end);
    }
}

/* False: it is no segment. */
static bool parse_segment(struct remains_file *file, size_t size_bytes)
{
    uint64_t data_bytes, cursor;

    if (size_bytes < FIELDS_BYTES || memcmp(file->bytes, "gprocfs1", 8) != 0 ||
        file->bytes[8] < REMAINS_MOVING || file->bytes[8] > REMAINS_RETURNING)
        return false;
    file->state = (enum remains_state)file->bytes[8];
    data_bytes = number(file->bytes + 24, 8);
    cursor = number(file->bytes + 48, 8);
    file->data_bytes = size_bytes > HEADER_BYTES ? size_bytes - HEADER_BYTES : 0;
    if (data_bytes < file->data_bytes)
        file->data_bytes = (size_t)data_bytes;
    file->data = file->bytes + (file->data_bytes > 0 ? HEADER_BYTES : 0);
    file->is_gone = allocate(file->data_bytes, sizeof(bool));
    if (cursor <= file->data_bytes)
        go(file, 0, cursor);
    if (size_bytes >= HEADER_BYTES)
        parse_holes(file);
    return true;
}

static void add_segment(struct remains *remains, const char *path, uint64_t serial)
{
    struct remains_file *file = &remains->files[remains->files_count];
    size_t size_bytes;

    if (remains->files_count == REMAINS_FILES)
        abort();
    file->serial = serial;
    file->bytes = read_file(path, &size_bytes);
    if (file->bytes != NULL && parse_segment(file, size_bytes)) {
        remains->files_count++;
        return;
    }
    free(file->bytes);
    memset(file, 0, sizeof(*file));
}

static void add_mailbox(struct remains *remains, const char *path)
{
    struct remains_file *file = &remains->files[remains->files_count];

    file->serial = UINT64_MAX;
    file->bytes = read_file(path, &file->data_bytes);
    if (file->bytes == NULL)
        return;
    file->data = file->bytes;
    file->is_gone = allocate(file->data_bytes, sizeof(bool));
    remains->files_count++;
}

static int compare_files(const void *one, const void *other)
{
    uint64_t left = ((const struct remains_file *)one)->serial;
    uint64_t right = ((const struct remains_file *)other)->serial;

    return left < right ? -1 : left > right;
}

/* The length of the good frame here, or 0. */
static size_t frame_at(const struct remains_file *file, size_t at)
{
    const uint8_t *frame = file->data + at;
    size_t left = file->data_bytes - at;
    uint64_t length;
    uint32_t sum = 0;

    if (left < FRAME_BYTES)
        return 0;
    length = number(frame, 4);
    if (length < FRAME_BYTES || length > left || length > INT32_MAX)
        return 0;
    for (size_t i = FRAME_BYTES; i < length; i++)
        sum += frame[i];
    return sum == number(frame + 8, 4) ? (size_t)length : 0;
}

static void add_messages(struct remains *remains, const struct remains_file *file)
{
    size_t length;

    for (size_t at = 0; at < file->data_bytes; at += length) {
        length = file->is_gone[at] ? 0 : frame_at(file, at);
        if (length == 0) {
            length = 1;
            continue;
        }
        remains->messages[remains->messages_count++] = (struct remains_message){
            .file = file,
            .offset = (off_t)at,
            .sender = (int32_t)number(file->data + at + 4, 4),
            .payload = file->data + at + FRAME_BYTES,
            .payload_bytes = length - FRAME_BYTES,
        };
        remains->payload_bytes += length - FRAME_BYTES;
    }
}

void remains_init(struct remains *remains, const char *directory, const char *mailbox, pid_t pid)
{
    DIR *stream = directory != NULL ? opendir(directory) : NULL;
    struct dirent *entry;
    size_t most = 0;

    memset(remains, 0, sizeof(*remains));
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        char path[1024];
        uint64_t serial;
        long whose;

        (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (sscanf(entry->d_name, "%ld.%" SCNu64, &whose, &serial) == 2 && whose == pid)
            add_segment(remains, path, serial);
    }
    if (stream != NULL)
        (void)closedir(stream);
    qsort(remains->files, remains->files_count, sizeof(remains->files[0]), compare_files);
    if (mailbox != NULL)
        add_mailbox(remains, mailbox);
    for (size_t i = 0; i < remains->files_count; i++)
        most += remains->files[i].data_bytes / FRAME_BYTES;
    remains->messages = allocate(most, sizeof(remains->messages[0]));
    for (size_t i = 0; i < remains->files_count; i++)
        add_messages(remains, &remains->files[i]);
}

void remains_release(struct remains *remains)
{
    for (size_t i = 0; i < remains->files_count; i++) {
        free(remains->files[i].bytes);
        free(remains->files[i].is_gone);
        free(remains->files[i].voids);
    }
    free(remains->messages);
    memset(remains, 0, sizeof(*remains));
}

bool remains_is_void(const struct remains *remains, uint64_t serial)
{
    for (size_t i = 0; i < remains->files_count; i++)
        for (size_t j = 0; j < remains->files[i].voids_count; j++)
            if (remains->files[i].voids[j] == serial && remains->files[i].serial != serial)
                return true;
    return false;
}

bool remains_has(const struct remains *remains, off_t offset, int32_t sender,
                 const uint8_t *payload, size_t payload_bytes)
{
    for (size_t i = 0; i < remains->messages_count; i++) {
        const struct remains_message *message = &remains->messages[i];

        if (message->offset == offset && message->sender == sender &&
            message->payload_bytes == payload_bytes &&
            memcmp(message->payload, payload, payload_bytes) == 0)
            return true;
    }
    return false;
}

uint8_t *remains_frames(const struct remains *remains, size_t *size_bytes)
{
    enum { FRAME_HEADER_BYTES = 12 };
    uint8_t *bytes =
        allocate(remains->messages_count * FRAME_HEADER_BYTES + remains->payload_bytes, 1);

    *size_bytes = 0;
    for (size_t i = 0; i < remains->messages_count; i++) {
        const struct remains_message *message = &remains->messages[i];
        size_t frame_bytes = FRAME_HEADER_BYTES + message->payload_bytes;

        memcpy(bytes + *size_bytes, message->file->data + message->offset, frame_bytes);
        *size_bytes += frame_bytes;
    }
    return bytes;
}

uint8_t *remains_bytes(const struct remains *remains, size_t *size_bytes)
{
    uint8_t *bytes;
    size_t count = 0;

    for (size_t i = 0; i < remains->files_count; i++)
        count += remains->files[i].data_bytes;
    bytes = allocate(count, 1);
    *size_bytes = 0;
    for (size_t i = 0; i < remains->files_count; i++)
        for (size_t at = 0; at < remains->files[i].data_bytes; at++)
            if (!remains->files[i].is_gone[at])
                bytes[(*size_bytes)++] = remains->files[i].data[at];
    return bytes;
}
