/* A million messages of 64 bytes that wait in one mailbox. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "rows.h"
#include "sample.h"

enum {
    MESSAGES_COUNT = 1000000,
    ENVELOPE_BYTES = sizeof("4711 64\n") - 1, /* of STAGE_SENDER and STAGE_MESSAGE_BYTES */
    BUFFER_BYTES = 1 << 20,
    PIECE_BYTES = 256 * 1024,
    READS_COUNT = 10000, /* of a message each, in a sample */
    BOX = 20001,         /* no other row's */
};

struct drain {
    const struct stage *stage;
    char *buffer; /* owned, BUFFER_BYTES */
    int ours_fd;
    int empty_fd;
    int calls_fd;
};

/* Reads on until there were so many bytes. */
static double read_bytes(struct drain *drain, int fd, size_t left_bytes)
{
    double begin_s = sample_now_s();

    while (left_bytes > 0) {
        size_t room_bytes = left_bytes < BUFFER_BYTES ? left_bytes : BUFFER_BYTES;
        ssize_t count = read(fd, drain->buffer, room_bytes);

        if (count <= 0)
            give_up("read");
        left_bytes -= (size_t)count;
    }
    return sample_now_s() - begin_s;
}

/* With the move into flight, which the first read does. */
static double envelopes_ours(void *context)
{
    struct drain *drain = context;
    double time_s;
    int fd;

    stage_fill(drain->stage, BOX, MESSAGES_COUNT, STAGE_MESSAGE_BYTES);
    fd = stage_open_number(drain->stage->mnt, BOX, O_RDONLY);
    close(fd); /* the way is known by now */
    fd = stage_open(drain->stage->mnt, ".envelope/20001", O_RDONLY);
    time_s = read_bytes(drain, fd, (ENVELOPE_BYTES + STAGE_MESSAGE_BYTES) * (size_t)MESSAGES_COUNT);
    close(fd);
    return time_s;
}

static double envelopes_empty(void *context)
{
    struct drain *drain = context;
    int fd = stage_open(drain->stage->empty[STAGE_EMPTY], "bytes", O_RDONLY);
    double time_s =
        read_bytes(drain, fd, (ENVELOPE_BYTES + STAGE_MESSAGE_BYTES) * (size_t)MESSAGES_COUNT);

    close(fd);
    return time_s;
}

/*
 * What a drain has to do below: all goes to another file before the first byte is handed over, so
 * that none is lost if the daemon is killed, and is read from there. Pieces as large as ours.
 */
static double move_bare(void *context)
{
    struct drain *drain = context;
    off_t offset = 0;
    double begin_s;
    ssize_t count;
    int from, to;

    stage_fill(drain->stage, BOX, MESSAGES_COUNT, STAGE_MESSAGE_BYTES);
    begin_s = sample_now_s();
    from = stage_open_number(drain->stage->mail, BOX, O_RDWR);
    to = stage_open(drain->stage->mail, ".", O_RDWR | O_TMPFILE);
    for (; (count = pread(from, drain->buffer, PIECE_BYTES, offset)) > 0; offset += count) {
        if (pwrite(to, drain->buffer, (size_t)count, offset) != count)
            give_up("pwrite");
    }
    if (count < 0 || ftruncate(from, 0) != 0)
        give_up("move");
    for (offset = 0; (count = pread(to, drain->buffer, PIECE_BYTES, offset)) > 0;)
        offset += count;
    close(to);
    close(from);
    return sample_now_s() - begin_s;
}

/* As cat does: a large buffer, and one message comes. */
static double read_messages(struct drain *drain, int fd)
{
    double begin_s = sample_now_s();

    for (int i = 0; i < READS_COUNT; i++) {
        if (read(fd, drain->buffer, 128 * 1024) != STAGE_MESSAGE_BYTES)
            give_up("read");
    }
    return (sample_now_s() - begin_s) / READS_COUNT;
}

static double messages_ours(void *context)
{
    struct drain *drain = context;

    return read_messages(drain, drain->ours_fd);
}

static double messages_empty(void *context)
{
    struct drain *drain = context;

    return read_messages(drain, drain->empty_fd);
}

static double messages_calls(void *context)
{
    struct drain *drain = context;

    return read_messages(drain, drain->calls_fd);
}

/* What was not read, here and in flight. */
static void discard(const struct stage *stage)
{
    int fd = stage_open_number(stage->mnt, BOX, O_WRONLY);

    if (ftruncate(fd, 0) != 0)
        give_up("ftruncate");
    close(fd);
}

void rows_drain(struct stage *stage, struct table *table)
{
    struct drain drain = {.stage = stage, .buffer = malloc(BUFFER_BYTES)};
    struct sample sample;

    if (drain.buffer == NULL)
        give_up("memory");
    sample = sample_both(envelopes_ours, envelopes_empty, &drain);
    table_add(table, &(struct table_row){"drain 1,000,000 messages by .envelope", "ms",
                                         sample.ours_s * 1e3, sample.baseline_s * 1e3,
                                         TABLE_RATIO_AT_MOST, 3});

    table_add(table, &(struct table_row){"    for comparison: move all, read it back, bare", "ms",
                                         TABLE_NOT_THERE, sample_one(move_bare, &drain) * 1e3,
                                         TABLE_NO_GOAL, 0});

    /* A part of the million is measured, as it lies there; the move into flight is not. */
    stage_fill(stage, BOX, MESSAGES_COUNT, STAGE_MESSAGE_BYTES);
    drain.ours_fd = stage_open_number(stage->mnt, BOX, O_RDONLY);
    drain.empty_fd = stage_open(stage->empty[STAGE_EMPTY], "messages", O_RDONLY);
    drain.calls_fd = stage_open(stage->empty[STAGE_CALLS], "messages", O_RDONLY);
    sample = sample_both(messages_ours, messages_empty, &drain);
    table_add(table, &(struct table_row){"cat 1,000,000 messages: each", "us", sample.ours_s * 1e6,
                                         sample.baseline_s * 1e6, TABLE_RATIO_AT_MOST, 1.3});
    sample = sample_both(messages_ours, messages_calls, &drain);
    table_add(table,
              &(struct table_row){"    and the other makes the bare calls below", "us",
                                  sample.ours_s * 1e6, sample.baseline_s * 1e6, TABLE_NO_GOAL, 0});
    close(drain.ours_fd);
    close(drain.empty_fd);
    close(drain.calls_fd);
    free(drain.buffer);
    discard(stage);
}
