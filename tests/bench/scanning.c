/*
 * Finding messages in memory: the scan of an intact mailbox against a plain sum of the same bytes,
 * and the scan of mailboxes made to be dear against that of an intact one.
 */
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mailboxes.h"
#include "rows.h"
#include "sample.h"
#include "scan.h"

enum {
    LARGE_BYTES = 64 * 1024 * 1024, /* beyond any cache, one hopes */
    SMALL_BYTES = 256 * 1024,       /* in the processor's own */
    SMALL_TIMES = 64,
    LARGE_PAYLOAD_BYTES = 64 * 1024,
    NEAR_MISS_BYTES = 0x01010101, /* what four bytes of 1 say as a length */
    MEMORY_SHARE = 8,             /* a scan takes at most so many times less than the mailbox */
};

/* Mailboxes made to be dear. */
enum content {
    NEAR_MISSES,  /* every offset a plausible length, every sum off by twelve */
    NESTED,       /* every twelve bytes a frame that reaches to the end, its sum off by one */
    ANYWHERE,     /* the same, but each ends somewhere else */
    PAST_THE_END, /* the same as NESTED, but one byte too long */
    ALL_ZEROS,
    ALL_255,
    CONTENTS,
};

static const char *const content_names[CONTENTS] = {
    "every offset plausible", "nested frames", "nested, any length",
    "just past the end",      "all zeros",     "all 0xFF",
};

/* Headers from the last to the first, each with the sum of what it holds already there, and one
 * more. */
static void fill_headers(uint8_t *data, size_t size_bytes, enum content content)
{
    size_t count = size_bytes / STAGE_HEADER_BYTES;
    size_t rest_bytes = size_bytes % STAGE_HEADER_BYTES; /* zeros */
    uint32_t *sums = calloc(count + 1, sizeof(*sums));   /* sums[i]: of the last i headers */
    struct random random = {content};

    if (sums == NULL)
        give_up("memory");
    for (size_t i = 0; i < count; i++) {
        uint8_t *header = data + STAGE_HEADER_BYTES * (count - 1 - i);
        size_t inside = content == ANYWHERE ? random_below(&random, i + 1) : i;
        uint32_t words[3];

        words[0] = (uint32_t)(STAGE_HEADER_BYTES * (1 + inside));
        if (content != ANYWHERE)
            words[0] += (uint32_t)rest_bytes + (content == PAST_THE_END);
        words[1] = STAGE_SENDER;
        words[2] = sums[i] - sums[i - inside] + 1;
        sums[i + 1] = sums[i];
        for (int byte = 0; byte < STAGE_HEADER_BYTES; byte++) {
            header[byte] = (uint8_t)(words[byte / 4] >> (byte % 4 * 8));
            sums[i + 1] += header[byte];
        }
    }
    free(sums);
}

static void fill_dear(uint8_t *data, size_t size_bytes, enum content content)
{
    switch (content) {
    case NEAR_MISSES:
        memset(data, 1, size_bytes); /* the sum is that of the length, not of the payload */
        break;
    case NESTED:
    case ANYWHERE:
    case PAST_THE_END:
        fill_headers(data, size_bytes, content);
        break;
    case ALL_255:
        memset(data, 255, size_bytes);
        break;
    case ALL_ZEROS:
    case CONTENTS:
        memset(data, 0, size_bytes);
        break;
    }
}

/* How large a mailbox is that has half as much of what is dear. */
static size_t half_bytes(enum content content)
{
    /* Of the one with every length the same, what is within that of the end is not dear. */
    return (LARGE_BYTES + (content == NEAR_MISSES ? NEAR_MISS_BYTES : 0)) / 2;
}

/* As many whole frames as fit: their bytes. */
static size_t fill_frames(uint8_t *data, size_t size_bytes, size_t payload_bytes)
{
    size_t frame_bytes = STAGE_HEADER_BYTES + payload_bytes;
    size_t used_bytes = 0;

    for (; size_bytes - used_bytes >= frame_bytes; used_bytes += frame_bytes)
        stage_frame(data + used_bytes, payload_bytes);
    return used_bytes;
}

struct scanning {
    uint8_t *data; /* owned; what is scanned */
    size_t size_bytes;
    uint8_t *half; /* owned; the same content, half as much of it */
    size_t half_bytes;
    uint8_t *other; /* owned; an intact mailbox, or what is copied to */
    size_t other_bytes;
    int times;             /* over and over, where once is too short */
    size_t messages_count; /* that the last scan found */
    size_t extra_bytes;    /* of memory, that the last scan held at its end */
};

static size_t allocated_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* What a scan allocates it keeps to its end, so that is when it is looked at. */
static void scan(struct scanning *scanning, const uint8_t *data, size_t size_bytes)
{
    struct gproc_source source = {.data = data, .fd = -1, .size_bytes = (off_t)size_bytes};
    size_t before_bytes = allocated_bytes();
    struct gproc_message message;
    struct gproc_scan state;
    size_t messages_count = 0;

    gproc_scan_init(&state, &source, 0);
    while (gproc_scan_next(&state, &message) == 1)
        messages_count++;
    scanning->messages_count = messages_count;
    scanning->extra_bytes = allocated_bytes() - before_bytes;
    gproc_scan_release(&state);
}

static double scan_data(void *context)
{
    struct scanning *scanning = context;
    double begin_s = sample_cpu_s();

    for (int i = 0; i < scanning->times; i++)
        scan(scanning, scanning->data, scanning->size_bytes);
    return (sample_cpu_s() - begin_s) / scanning->times;
}

static double scan_half(void *context)
{
    struct scanning *scanning = context;
    double begin_s = sample_cpu_s();

    scan(scanning, scanning->half, scanning->half_bytes);
    return sample_cpu_s() - begin_s;
}

static double scan_other(void *context)
{
    struct scanning *scanning = context;
    double begin_s = sample_cpu_s();

    scan(scanning, scanning->other, scanning->other_bytes);
    return sample_cpu_s() - begin_s;
}

/* The least that reads every byte: 64-bit words added up, eight vectors at a time. */
static uint64_t sum_words(const uint8_t *data, size_t size_bytes)
{
    /* Of any alignment, and whatever the bytes were written as. */
    typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias));
    vector a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
    const vector *from = (const void *)data;
    const vector *end = from + size_bytes / sizeof(vector) / 8 * 8;

    for (; from < end; from += 8) {
        a += from[0];
        b += from[1];
        c += from[2];
        d += from[3];
        e += from[4];
        f += from[5];
        g += from[6];
        h += from[7];
    }
    a += b + c + d + e + f + g + h;
    return a[0] + a[1];
}

static double sum_data(void *context)
{
    struct scanning *scanning = context;
    double begin_s = sample_cpu_s();
    static volatile uint64_t total; /* so that the sum is wanted */

    for (int i = 0; i < scanning->times; i++)
        total = sum_words(scanning->data, scanning->size_bytes);
    (void)total;
    return (sample_cpu_s() - begin_s) / scanning->times;
}

static double copy_data(void *context)
{
    struct scanning *scanning = context;
    double begin_s = sample_cpu_s();

    for (int i = 0; i < scanning->times; i++)
        memcpy(scanning->other, scanning->data, scanning->size_bytes);
    return (sample_cpu_s() - begin_s) / scanning->times;
}

/* The last byte of each frame that a header announces: the least that it takes to tell near misses. */
static double read_ends(const uint8_t *data, size_t size_bytes)
{
    double begin_s = sample_cpu_s();
    static volatile uint32_t total; /* so that the sum is wanted */
    uint32_t sum = 0;

    for (size_t at = 0; at + STAGE_HEADER_BYTES <= size_bytes; at += STAGE_HEADER_BYTES) {
        uint32_t length;

        memcpy(&length, data + at, sizeof(length));
        sum += data[at + length - 1];
    }
    total = sum;
    (void)total;
    return sample_cpu_s() - begin_s;
}

static double read_data_ends(void *context)
{
    struct scanning *scanning = context;

    return read_ends(scanning->data, scanning->size_bytes);
}

static double read_half_ends(void *context)
{
    struct scanning *scanning = context;

    return read_ends(scanning->half, scanning->half_bytes);
}

/* Both as bytes in a time. */
static void compare_bandwidth(struct scanning *scanning, struct table *table, const char *name,
                              double goal)
{
    struct sample sample = sample_both(scan_data, sum_data, scanning);
    double gigabytes = (double)scanning->size_bytes / 1e9;

    table_add(table,
              &(struct table_row){name, "GB/s", gigabytes / sample.ours_s,
                                  gigabytes / sample.baseline_s, TABLE_RATIO_AT_LEAST, goal});
}

static void compare_intact(struct scanning *scanning, struct table *table)
{
    struct sample sample;

    scanning->times = SMALL_TIMES;
    scanning->size_bytes = fill_frames(scanning->data, SMALL_BYTES, STAGE_MESSAGE_BYTES);
    sample = sample_both(scan_data, sum_data, scanning);
    table_add(table, &(struct table_row){"intact, 64 B, 256 KiB in cache: scan, sum", "M/s",
                                         (double)scanning->messages_count / sample.ours_s / 1e6,
                                         (double)scanning->messages_count / sample.baseline_s / 1e6,
                                         TABLE_VALUE_AT_LEAST, 100});
    scanning->size_bytes = fill_frames(scanning->data, SMALL_BYTES, LARGE_PAYLOAD_BYTES);
    compare_bandwidth(scanning, table, "intact, 64 KiB, 256 KiB in cache: scan, sum", 0.9);
    scanning->times = 1;
    scanning->size_bytes = fill_frames(scanning->data, LARGE_BYTES, STAGE_MESSAGE_BYTES);
    compare_bandwidth(scanning, table, "intact, 64 B, 64 MiB: scan, sum", 0.7);
    scanning->size_bytes = fill_frames(scanning->data, LARGE_BYTES, LARGE_PAYLOAD_BYTES);
    compare_bandwidth(scanning, table, "intact, 64 KiB, 64 MiB: scan, sum", 0.9);
    scanning->size_bytes = fill_frames(scanning->data, LARGE_BYTES, 16 * LARGE_PAYLOAD_BYTES);
    compare_bandwidth(scanning, table, "intact, 1 MiB, 64 MiB: scan, sum", 0.9);
    table_add(table, &(struct table_row){
                         "for comparison: memcpy of 64 MiB", "GB/s", TABLE_NOT_THERE,
                         LARGE_BYTES / 1e9 / sample_one(copy_data, scanning), TABLE_NO_GOAL, 0});
}

/* What memory alone takes where no two frames end in the same place. */
static void compare_ends(struct scanning *scanning, struct table *table)
{
    struct sample sample = sample_both(read_data_ends, scan_other, scanning);

    table_add(table,
              &(struct table_row){"    for comparison: a byte at each end", "ms",
                                  sample.ours_s * 1e3, sample.baseline_s * 1e3, TABLE_NO_GOAL, 0});
    sample = sample_both(read_data_ends, read_half_ends, scanning);
    table_add(table,
              &(struct table_row){"    for comparison: twice as many", "ms", sample.ours_s * 1e3,
                                  sample.baseline_s * 1e3, TABLE_NO_GOAL, 0});
}

/* Against the intact mailbox, and against half as much of the same. */
static void compare_dear(struct scanning *scanning, struct table *table, enum content content)
{
    struct sample sample;
    char name[128];

    scanning->size_bytes = LARGE_BYTES;
    fill_dear(scanning->data, LARGE_BYTES, content);
    scanning->half_bytes = half_bytes(content);
    fill_dear(scanning->half, scanning->half_bytes, content);
    sample = sample_both(scan_data, scan_other, scanning);
    snprintf(name, sizeof(name), "%s, 64 MiB: scan, intact", content_names[content]);
    table_add(table, &(struct table_row){name, "ms", sample.ours_s * 1e3, sample.baseline_s * 1e3,
                                         TABLE_RATIO_AT_MOST, 20});
    sample = sample_both(scan_data, scan_half, scanning);
    table_add(table, &(struct table_row){"    twice as much", "ms", sample.ours_s * 1e3,
                                         sample.baseline_s * 1e3, TABLE_RATIO_AT_MOST, 2.5});
    (void)scan_data(scanning);
    table_add(table,
              &(struct table_row){"    memory, the mailbox's size", "MiB",
                                  (double)scanning->extra_bytes / 1048576, LARGE_BYTES / 1048576.0,
                                  TABLE_RATIO_AT_MOST, 1.0 / MEMORY_SHARE});
    if (content == ANYWHERE)
        compare_ends(scanning, table);
}

void rows_scan(struct stage *stage, struct table *table)
{
    struct scanning scanning = {.times = 1};

    scanning.data = calloc(LARGE_BYTES, 1);
    scanning.half = calloc(LARGE_BYTES, 1);
    scanning.other = calloc(LARGE_BYTES, 1);
    if (scanning.data == NULL || scanning.half == NULL || scanning.other == NULL)
        give_up("memory");
    stage_pin(stage, 1);
    compare_intact(&scanning, table);
    scanning.other_bytes = fill_frames(scanning.other, LARGE_BYTES, LARGE_PAYLOAD_BYTES);
    for (enum content content = 0; content < CONTENTS; content++)
        compare_dear(&scanning, table, content);
    stage_pin(stage, 0);
    free(scanning.data);
    free(scanning.half);
    free(scanning.other);
}
