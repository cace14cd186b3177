/* One message of 64 bytes at a time, through the mount, and through one that does nothing. */
#include <fcntl.h>
#include <unistd.h>

#include "rows.h"
#include "sample.h"

enum {
    SENDS_COUNT = 1000,    /* in a sample */
    MAILBOXES_COUNT = 250, /* that are received from one after the other */
    PASSES_COUNT = 4,
    BOX = 1,
};

static const char payload[STAGE_MESSAGE_BYTES];

/* What a pair of samples is about: the same calls in two directories. */
struct exchange {
    const struct stage *stage;
    int ours_fd;
    int empty_fd;
    int calls_fd;
};

static void write_message(int fd)
{
    if (write(fd, payload, sizeof(payload)) != (ssize_t)sizeof(payload))
        give_up("write");
}

/* What `>` does. */
static double replace(const char *directory)
{
    double begin_s = sample_now_s();

    for (int i = 0; i < SENDS_COUNT; i++) {
        int fd = stage_open_number(directory, BOX, O_WRONLY | O_CREAT | O_TRUNC);

        write_message(fd);
        if (close(fd) != 0)
            give_up("close");
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

static double replace_ours(void *context)
{
    struct exchange *exchange = context;

    stage_fill(exchange->stage, BOX, 0, 0);
    return replace(exchange->stage->mnt);
}

static double replace_empty(void *context)
{
    struct exchange *exchange = context;

    return replace(exchange->stage->empty[STAGE_EMPTY]);
}

static double replace_strict(void *context)
{
    struct exchange *exchange = context;

    return replace(exchange->stage->empty[STAGE_STRICT]);
}

static double replace_calls(void *context)
{
    struct exchange *exchange = context;

    stage_fill(exchange->stage, BOX, 0, 0);
    return replace(exchange->stage->empty[STAGE_CALLS]);
}

static double replace_threads(void *context)
{
    struct exchange *exchange = context;

    return replace(exchange->stage->empty[STAGE_THREADS]);
}

static double replace_clones(void *context)
{
    struct exchange *exchange = context;

    return replace(exchange->stage->empty[STAGE_CLONES]);
}

/* What a program does that holds the file open. */
static double append(int fd)
{
    double begin_s = sample_now_s();

    for (int i = 0; i < SENDS_COUNT; i++)
        write_message(fd);
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

static double append_ours(void *context)
{
    struct exchange *exchange = context;

    stage_fill(exchange->stage, BOX, 0, 0);
    return append(exchange->ours_fd);
}

static double append_empty(void *context)
{
    struct exchange *exchange = context;

    return append(exchange->empty_fd);
}

static double append_calls(void *context)
{
    struct exchange *exchange = context;

    stage_fill(exchange->stage, BOX, 0, 0);
    return append(exchange->calls_fd);
}

/* What `cat` does, to mailboxes with one message each. */
static double receive_each(const char *directory)
{
    double begin_s = sample_now_s();

    for (int i = 1; i <= MAILBOXES_COUNT; i++) {
        char message[4096];
        int fd = stage_open_number(directory, i, O_RDONLY);

        if (read(fd, message, sizeof(message)) != STAGE_MESSAGE_BYTES ||
            read(fd, message, sizeof(message)) != 0)
            give_up("read");
        close(fd);
    }
    return (sample_now_s() - begin_s) / MAILBOXES_COUNT;
}

/* The messages come from behind between two passes. Of the empty one, too: it shall find the
 * processor's caches no better than ours does. */
static double receive(const struct exchange *exchange, const char *directory)
{
    double sum_s = 0;

    for (int pass = 0; pass < PASSES_COUNT; pass++) {
        for (int i = 1; i <= MAILBOXES_COUNT; i++)
            stage_fill(exchange->stage, i, 1, STAGE_MESSAGE_BYTES);
        sum_s += receive_each(directory);
    }
    return sum_s / PASSES_COUNT;
}

static double receive_ours(void *context)
{
    struct exchange *exchange = context;

    return receive(exchange, exchange->stage->mnt);
}

static double receive_empty(void *context)
{
    struct exchange *exchange = context;

    return receive(exchange, exchange->stage->empty[STAGE_EMPTY]);
}

static double receive_strict(void *context)
{
    struct exchange *exchange = context;

    return receive(exchange, exchange->stage->empty[STAGE_STRICT]);
}

static double receive_calls(void *context)
{
    struct exchange *exchange = context;

    return receive(exchange, exchange->stage->empty[STAGE_CALLS]);
}

static void compare(struct table *table, const char *name, double goal, struct exchange *exchange,
                    sample_run *ours, sample_run *empty)
{
    struct sample sample = sample_both(ours, empty, exchange);

    table_add(table, &(struct table_row){name, "us", sample.ours_s * 1e6, sample.baseline_s * 1e6,
                                         goal > 0 ? TABLE_RATIO_AT_MOST : TABLE_NO_GOAL, goal});
}

void rows_exchange(struct stage *stage, struct table *table)
{
    static const char calls[] = "    and the other makes the bare calls below";
    struct exchange exchange = {.stage = stage};

    stage_fill(stage, BOX, 0, 0);
    compare(table, "send: open O_TRUNC, write 64 B, close", 1.2, &exchange, replace_ours,
            replace_empty);
    compare(table, "    the kernel checks permissions in both", 0, &exchange, replace_ours,
            replace_strict);
    compare(table, calls, 0, &exchange, replace_ours, replace_calls);
    compare(table, "    empty by libfuse's threads, by one", 0, &exchange, replace_threads,
            replace_empty);
    compare(table, "    the same with clone_fd, by one", 0, &exchange, replace_clones,
            replace_empty);
    exchange.ours_fd = stage_open_number(stage->mnt, BOX, O_WRONLY | O_APPEND);
    exchange.empty_fd = stage_open_number(stage->empty[STAGE_EMPTY], BOX, O_WRONLY | O_APPEND);
    exchange.calls_fd = stage_open_number(stage->empty[STAGE_CALLS], BOX, O_WRONLY | O_APPEND);
    compare(table, "send: write 64 B, open O_APPEND", 1.3, &exchange, append_ours, append_empty);
    compare(table, calls, 0, &exchange, append_ours, append_calls);
    close(exchange.ours_fd);
    close(exchange.calls_fd);
    close(exchange.empty_fd);
    compare(table, "receive: open, read 64 B, read the end, close", 1.25, &exchange, receive_ours,
            receive_empty);
    compare(table, "    the kernel checks permissions in both", 0, &exchange, receive_ours,
            receive_strict);
    compare(table, calls, 0, &exchange, receive_ours, receive_calls);
}
