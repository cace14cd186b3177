/*
 * A segment is on disk what segment.h says, forgets nothing and tells nothing twice when it is
 * loaded again after any step, believes nothing that a file claims, and decides what became of a
 * move that was cut off.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mailbox.h"
#include "mailboxes.h"
#include "place.h"
#include "segment.h"
#include "temporary.h"

enum {
    PID = 4711,
    HEADER_BYTES = 64,
    FRAMES = 5,
};

struct fixture {
    const char *box, *file; /* the mailbox, the segment */
    struct gproc_place directory;
    struct gproc_mailbox mailbox;
    struct gproc_segment segment;
    uint8_t data[1024]; /* FRAMES frames, of other lengths and contents each */
    size_t data_bytes;
    size_t ends[FRAMES + 1]; /* ends[i] is where frame i begins, and i - 1 ends */
};

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->box = strdup(temporary_path(*state, "gproc/4711"));
    fixture->file = strdup(temporary_path(*state, "segment"));
    for (size_t i = 0; i < FRAMES; i++) {
        char text[64];
        int length = snprintf(text, sizeof(text), "%.*s%zu", (int)i * 3, "................", i);

        fixture->ends[i] = fixture->data_bytes;
        fixture->data_bytes +=
            temporary_frame(fixture->data + fixture->data_bytes, (int32_t)i, text, (size_t)length);
    }
    fixture->ends[FRAMES] = fixture->data_bytes;
    assert_int_equal(gproc_place_init(&fixture->directory, temporary_path(*state, "gproc"), 0777),
                     0);
    fixture->mailbox.fd = -1;
    fixture->segment.fd = -1;
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    gproc_segment_release(&fixture->segment);
    gproc_mailbox_close(&fixture->mailbox);
    gproc_place_release(&fixture->directory);
    free((void *)(uintptr_t)fixture->box);
    free((void *)(uintptr_t)fixture->file);
}

/* The mailbox holds these bytes, and is open. */
static void fill_mailbox(struct fixture *fixture, const void *bytes, size_t size_bytes)
{
    gproc_mailbox_close(&fixture->mailbox);
    temporary_write(fixture->box, bytes, size_bytes);
    assert_int_equal(gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, O_RDWR), 0);
}

static void append_to_mailbox(struct fixture *fixture, const void *bytes, size_t size_bytes)
{
    temporary_append(fixture->box, bytes, size_bytes);
    assert_int_equal(gproc_mailbox_refresh(&fixture->mailbox), 0);
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

/* The mailbox holds the data, and the segment a copy of it. */
static void copy(struct fixture *fixture)
{
    fill_mailbox(fixture, fixture->data, fixture->data_bytes);
    gproc_segment_release(&fixture->segment);
    temporary_write(fixture->file, "", 0);
    assert_int_equal(
        gproc_segment_copy(&fixture->segment, open_file(fixture->file), &fixture->mailbox, 0, NULL),
        0);
}

/* As the next mount finds it. */
static void reload(struct fixture *fixture)
{
    gproc_segment_release(&fixture->segment);
    assert_int_equal(gproc_segment_load(&fixture->segment, open_file(fixture->file)), 0);
}

/* A sealed copy of all that is left of the segment takes its place. */
static void gather(struct fixture *fixture, uint64_t serial)
{
    struct gproc_segment gathered = {.fd = -1};
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s.new", fixture->file);
    gathered.fd = open_file(path);
    assert_int_equal(gproc_segment_gather(&gathered, &fixture->segment, serial), 0);
    assert_int_equal(gproc_segment_seal(&gathered), 0);
    assert_int_equal(rename(path, fixture->file), 0);
    gproc_segment_release(&fixture->segment);
    fixture->segment = gathered;
}

/* What is left, one stretch after the other. */
static size_t left_over(struct fixture *fixture, const struct gproc_segment *segment,
                        uint8_t *bytes)
{
    struct gproc_segment gathered = {.fd = -1};
    char path[PATH_MAX];
    size_t size_bytes;

    snprintf(path, sizeof(path), "%s.left", fixture->file);
    gathered.fd = open_file(path);
    assert_int_equal(gproc_segment_gather(&gathered, segment, 1), 0);
    size_bytes = (size_t)gathered.size_bytes;
    assert_int_equal(pread(gathered.fd, bytes, size_bytes, GPROC_SEGMENT_DATA_OFFSET), size_bytes);
    gproc_segment_release(&gathered);
    temporary_remove(path);
    return size_bytes;
}

static uint64_t le(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;

    while (count-- > 0)
        value = value << 8 | bytes[count];
    return value;
}

static void put(uint8_t *bytes, uint64_t value)
{
    for (size_t i = 0; i < 8; i++, value >>= 8)
        bytes[i] = (uint8_t)value;
}

/* --- On disk ------------------------------------------------------------------------------------
 */

static void test_file_is_what_the_table_says(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t *header = temporary_memory(*state, GPROC_SEGMENT_DATA_OFFSET);
    struct stat status;
    uint8_t found[1024];

    copy(fixture);
    assert_int_equal(stat(fixture->box, &status), 0);
    for (uint64_t step = 1; step <= 4; step++) {
        int fd = fixture->segment.fd;

        assert_int_equal(pread(fd, header, GPROC_SEGMENT_DATA_OFFSET, 0),
                         GPROC_SEGMENT_DATA_OFFSET);
        assert_memory_equal(header, "gprocfs1", 8);
        assert_int_equal(le(header + 8, 4), step == 1 ? 1 : 2);
        assert_int_equal(le(header + 12, 4), 0);
        assert_int_equal(le(header + 16, 8), status.st_ino);
        assert_int_equal(le(header + 24, 8), fixture->data_bytes);
        assert_int_equal(le(header + 32, 8), status.st_mtim.tv_sec);
        assert_int_equal(le(header + 40, 8), status.st_mtim.tv_nsec);
        assert_int_equal(le(header + 48, 8), step < 3 ? 0 : fixture->ends[1]);
        assert_int_equal(le(header + 56, 8), (uint64_t)status.st_uid + 1);
        assert_int_equal(le(header + 64, 8), step < 4 ? 0 : fixture->ends[2]);
        assert_int_equal(le(header + 72, 8), step < 4 ? 0 : fixture->ends[3]);
        for (size_t i = 80; i < GPROC_SEGMENT_DATA_OFFSET; i++)
            assert_int_equal(header[i], 0);
        assert_int_equal(pread(fd, found, sizeof(found), GPROC_SEGMENT_DATA_OFFSET),
                         fixture->data_bytes);
        assert_memory_equal(found, fixture->data, fixture->data_bytes);
        if (step == 1)
            assert_int_equal(gproc_segment_ready(&fixture->segment), 0);
        if (step == 2)
            assert_int_equal(gproc_segment_deliver(&fixture->segment, 0, (off_t)fixture->ends[1]),
                             0);
        if (step == 3)
            assert_int_equal(gproc_segment_deliver(&fixture->segment, (off_t)fixture->ends[2],
                                                   (off_t)fixture->ends[3]),
                             0);
    }
    fixture_close(fixture);
}

static void test_segment_comes_back_from_disk_as_it_was(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_source source;

    copy(fixture);
    reload(fixture);
    assert_int_equal(fixture->segment.state, GPROC_SEGMENT_MOVING);
    assert_int_equal(fixture->segment.inode, fixture->mailbox.status.st_ino);
    assert_int_equal(fixture->segment.size_bytes, fixture->data_bytes);
    assert_int_equal(fixture->segment.cursor, 0);
    assert_false(gproc_segment_is_spent(&fixture->segment));
    source = gproc_segment_source(&fixture->segment);
    assert_int_equal(source.start, GPROC_SEGMENT_DATA_OFFSET);
    assert_int_equal(source.size_bytes, fixture->data_bytes);
    assert_int_equal(source.fd, fixture->segment.fd);

    assert_int_equal(gproc_segment_ready(&fixture->segment), 0);
    reload(fixture);
    assert_int_equal(fixture->segment.state, GPROC_SEGMENT_READY);

    gather(fixture, 77);
    reload(fixture);
    assert_int_equal(fixture->segment.state, GPROC_SEGMENT_RETURNING);
    assert_int_equal(fixture->segment.size_bytes, fixture->data_bytes);
    fixture_close(fixture);
}

static void test_copy_of_an_empty_mailbox_is_a_spent_segment(void **state)
{
    struct fixture *fixture = fixture_open(state);

    fixture->data_bytes = 0;
    copy(fixture);
    assert_true(gproc_segment_is_spent(&fixture->segment));
    reload(fixture);
    assert_true(gproc_segment_is_spent(&fixture->segment));
    assert_int_equal(fixture->segment.size_bytes, 0);
    fixture_close(fixture);
}

static void test_large_mailboxes_are_copied_whole(void **state)
{
    static const size_t sizes[] = {4095, 4096, 4097, 262143, 262144, 262145, 1000003};
    struct fixture *fixture = fixture_open(state);
    uint8_t *bytes = temporary_memory(*state, 1000003);
    uint8_t *found = temporary_memory(*state, 1000003);

    temporary_noise(bytes, 1000003, 5);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fill_mailbox(fixture, bytes, sizes[i]);
        temporary_write(fixture->file, "", 0);
        assert_int_equal(gproc_segment_copy(&fixture->segment, open_file(fixture->file),
                                            &fixture->mailbox, 0, NULL),
                         0);
        assert_int_equal(pread(fixture->segment.fd, found, sizes[i], GPROC_SEGMENT_DATA_OFFSET),
                         sizes[i]);
        assert_memory_equal(found, bytes, sizes[i]);
        gproc_segment_release(&fixture->segment);
    }
    fixture_close(fixture);
}

/* --- What a file claims -------------------------------------------------------------------------
 */

/* Whatever was loaded, it stays within the file, and what is done with it ends. */
static void use(struct gproc_segment *segment)
{
    struct gproc_source source = gproc_segment_source(segment);
    struct gproc_message message;
    struct gproc_scan scan;
    struct stat status;
    int result;

    assert_int_equal(fstat(segment->fd, &status), 0);
    assert_true(segment->size_bytes >= 0);
    assert_true(segment->size_bytes == 0 ||
                segment->size_bytes + GPROC_SEGMENT_DATA_OFFSET <= status.st_size);
    assert_true(segment->cursor >= 0 && segment->cursor <= segment->size_bytes);
    assert_true(segment->holes_count <= GPROC_SEGMENT_HOLES_COUNT);
    for (off_t at = 0; at <= segment->size_bytes; at++) {
        off_t after = gproc_segment_skip(segment, at);

        assert_true(after >= at && after >= segment->cursor && after <= segment->size_bytes);
    }
    gproc_scan_init(&scan, &source, segment->cursor);
    while ((result = gproc_scan_next(&scan, &message)) == 1)
        ;
    assert_int_equal(result, 0);
    gproc_scan_release(&scan);
}

static void load_and_use(struct fixture *fixture, int expected, const char *what)
{
    uint8_t bytes[2048];
    int result;

    gproc_segment_release(&fixture->segment);
    result = gproc_segment_load(&fixture->segment, open_file(fixture->file));
    if (expected != 1 && result != expected)
        fail_msg("%s: %d", what, result);
    if (result == 0) {
        use(&fixture->segment);
        assert_true(left_over(fixture, &fixture->segment, bytes) <=
                    (size_t)fixture->segment.size_bytes);
    } else {
        assert_int_equal(result, -EILSEQ);
    }
}

static void test_every_truncation_is_loaded_or_refused(void **state)
{
    struct fixture *fixture = fixture_open(state);
    off_t size;

    copy(fixture);
    assert_int_equal(gproc_segment_ready(&fixture->segment), 0);
    assert_int_equal(
        gproc_segment_deliver(&fixture->segment, (off_t)fixture->ends[2], (off_t)fixture->ends[3]),
        0);
    size = GPROC_SEGMENT_DATA_OFFSET + (off_t)fixture->data_bytes;
    while (size-- > 0) {
        assert_int_equal(truncate(fixture->file, size), 0);
        load_and_use(fixture, size < HEADER_BYTES ? -EILSEQ : 0, "truncated");
        assert_int_equal(fixture->segment.size_bytes,
                         size > GPROC_SEGMENT_DATA_OFFSET ? size - GPROC_SEGMENT_DATA_OFFSET : 0);
    }
    fixture_close(fixture);
}

static void test_hostile_headers_are_not_believed(void **state)
{
    enum {
        FILE_BYTES = GPROC_SEGMENT_DATA_OFFSET + 100,
    };
    static const struct {
        const char *what;
        int expected;
        off_t size_bytes, cursor; /* that must come out of it */
        size_t at;
        uint64_t value;
        size_t at_too;
        uint64_t value_too;
    } rows[] = {
        {"as it is", 0, 100, 0, 8, 2, 0, 0},
        {"no magic", -EILSEQ, 0, 0, 0, 0, 8, 2},
        {"another version", -EILSEQ, 0, 0, 0, 0x3273666f637270, 8, 2},
        {"state 0", -EILSEQ, 0, 0, 8, 0, 0, 0},
        {"state 4", -EILSEQ, 0, 0, 8, 4, 0, 0},
        {"state 255", -EILSEQ, 0, 0, 8, 255, 0, 0},
        {"size less", 0, 99, 0, 24, 99, 0, 0},
        {"size none", 0, 0, 0, 24, 0, 0, 0},
        {"size one more", 0, 100, 0, 24, 101, 0, 0},
        {"size largest", 0, 100, 0, 24, INT64_MAX, 0, 0},
        {"size negative", 0, 100, 0, 24, UINT64_MAX, 0, 0},
        {"size most negative", 0, 100, 0, 24, (uint64_t)1 << 63, 0, 0},
        {"cursor inside", 0, 100, 50, 48, 50, 0, 0},
        {"cursor at the end", 0, 100, 100, 48, 100, 0, 0},
        {"cursor past it", 0, 100, 0, 48, 101, 0, 0},
        {"cursor largest", 0, 100, 0, 48, INT64_MAX, 0, 0},
        {"cursor negative", 0, 100, 0, 48, UINT64_MAX, 0, 0},
        {"cursor past size", 0, 50, 0, 48, 51, 24, 50},
        {"hole of all", 0, 100, 0, 64, 0, 72, 100},
        {"hole past the end", 0, 100, 0, 64, 0, 72, 101},
        {"hole backwards", 0, 100, 0, 64, 50, 72, 40},
        {"hole negative", 0, 100, 0, 64, UINT64_MAX, 72, UINT64_MAX},
        {"hole to infinity", 0, 100, 0, 64, 10, 72, INT64_MAX},
        {"hole empty", 0, 100, 0, 64, 10, 72, 10},
        {"last hole", 0, 100, 0, 4080, 10, 4088, 20},
    };
    struct fixture *fixture = fixture_open(state);
    uint8_t file[FILE_BYTES];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memset(file, 0, sizeof(file));
        memcpy(file, "gprocfs1", 8);
        file[8] = 2;
        put(file + 24, 100);
        put(file + rows[i].at, rows[i].value);
        if (rows[i].at_too != 0)
            put(file + rows[i].at_too, rows[i].value_too);
        temporary_write(fixture->file, file, sizeof(file));
        load_and_use(fixture, rows[i].expected, rows[i].what);
        if (rows[i].expected == 0) {
            assert_int_equal(fixture->segment.size_bytes, rows[i].size_bytes);
            assert_int_equal(fixture->segment.cursor, rows[i].cursor);
        }
    }
    assert_int_equal(gproc_segment_skip(&fixture->segment, 10), 20); /* the last row's */

    /* Holes that overlap, in an order that helps nobody. */
    put(file + 64, 55);
    put(file + 72, 70);
    put(file + 80, 10);
    put(file + 88, 60);
    temporary_write(fixture->file, file, sizeof(file));
    load_and_use(fixture, 0, "overlapping");
    assert_int_equal(gproc_segment_skip(&fixture->segment, 9), 9);
    assert_int_equal(gproc_segment_skip(&fixture->segment, 15), 70);
    fixture_close(fixture);
}

static void test_noise_is_loaded_or_refused(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct random random = {6};
    uint8_t *file = temporary_memory(*state, GPROC_SEGMENT_DATA_OFFSET + 300);

    for (int round = 0; round < 300; round++) {
        size_t size = GPROC_SEGMENT_DATA_OFFSET + random_below(&random, 300);

        temporary_noise(file, size, random_next(&random));
        if (round % 4 != 0) {
            memcpy(file, "gprocfs1", 8);
            file[8] = (uint8_t)(1 + random_below(&random, 3));
        }
        /* Small numbers are the ones that do something. */
        for (size_t at = 24; round % 4 > 1 && at < GPROC_SEGMENT_DATA_OFFSET; at += 8)
            put(file + at, random_below(&random, round % 8 > 3 ? 310 : 3));
        temporary_write(fixture->file, file, size);
        load_and_use(fixture, 1, "noise");
    }
    fixture_close(fixture);
}

/* --- Delivering ---------------------------------------------------------------------------------
 */

static void test_deliveries_in_any_order_are_remembered_on_disk(void **state)
{
    enum {
        COUNT = 40,
        FRAME = 13,
    };
    struct fixture *fixture = fixture_open(state);
    struct random random = {7};
    uint8_t data[COUNT * FRAME], expected[COUNT * FRAME], found[COUNT * FRAME];

    for (size_t i = 0; i < COUNT; i++)
        temporary_frame(data + i * FRAME, (int32_t)i,
                        &"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"[i], 1);
    for (int round = 0; round < 20; round++) {
        bool delivered[COUNT] = {false};

        fill_mailbox(fixture, data, sizeof(data));
        gproc_segment_release(&fixture->segment);
        temporary_write(fixture->file, "", 0);
        assert_int_equal(gproc_segment_copy(&fixture->segment, open_file(fixture->file),
                                            &fixture->mailbox, 0, NULL),
                         0);
        for (size_t left = COUNT; left > 0; left--) {
            size_t which = random_below(&random, left);
            size_t expected_bytes = 0;
            size_t i;

            for (i = 0; delivered[i] || which > 0; i++)
                which -= delivered[i] ? 0 : 1;
            delivered[i] = true;
            assert_int_equal(gproc_segment_deliver(&fixture->segment, (off_t)(i * FRAME),
                                                   (off_t)((i + 1) * FRAME)),
                             0);
            if (round % 2 == 0)
                reload(fixture);
            for (i = 0; i < COUNT; i++) {
                if (delivered[i])
                    continue;
                memcpy(expected + expected_bytes, data + i * FRAME, FRAME);
                expected_bytes += FRAME;
            }
            assert_int_equal(left_over(fixture, &fixture->segment, found), expected_bytes);
            assert_memory_equal(found, expected, expected_bytes);
            assert_int_equal(gproc_segment_is_spent(&fixture->segment), expected_bytes == 0);
        }
    }
    fixture_close(fixture);
}

/* A segment of `size_bytes` bytes that nobody looks at. */
static void copy_noise(struct fixture *fixture, size_t size_bytes)
{
    uint8_t *bytes = calloc(1, size_bytes);

    fill_mailbox(fixture, bytes, size_bytes);
    free(bytes);
    temporary_write(fixture->file, "", 0);
    assert_int_equal(
        gproc_segment_copy(&fixture->segment, open_file(fixture->file), &fixture->mailbox, 0, NULL),
        0);
}

static size_t holes_in_use(const struct gproc_segment *segment)
{
    size_t count = 0;

    for (size_t i = 0; i < segment->holes_count; i++)
        count += segment->holes[i].end != 0;
    return count;
}

static void test_neighbouring_holes_become_one(void **state)
{
    static const struct {
        off_t starts[4]; /* of holes of ten bytes, in the order in which they come; 0: no more */
        size_t holes;
    } rows[] = {
        {{10, 20, 0, 0}, 1},   {{20, 10, 0, 0}, 1},   {{10, 30, 0, 0}, 2},   {{10, 30, 20, 0}, 1},
        {{30, 10, 20, 0}, 1},  {{10, 20, 30, 40}, 1}, {{40, 30, 20, 10}, 1}, {{10, 40, 20, 30}, 1},
        {{40, 10, 20, 30}, 1}, {{10, 40, 30, 20}, 1}, {{20, 40, 10, 30}, 1}, {{10, 30, 50, 0}, 3},
        {{10, 30, 50, 20}, 2}, {{50, 30, 10, 40}, 2},
    };
    struct fixture *fixture = fixture_open(state);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        copy_noise(fixture, 100);
        for (size_t j = 0; j < 4 && rows[i].starts[j] != 0; j++)
            assert_int_equal(
                gproc_segment_deliver(&fixture->segment, rows[i].starts[j], rows[i].starts[j] + 10),
                0);
        if (holes_in_use(&fixture->segment) != rows[i].holes)
            fail_msg("row %zu: %zu holes", i, holes_in_use(&fixture->segment));
        reload(fixture);
        assert_int_equal(holes_in_use(&fixture->segment), rows[i].holes);
        gproc_segment_release(&fixture->segment);
    }
    fixture_close(fixture);
}

static void test_readers_that_overtake_each_other_for_ever_use_up_nothing(void **state)
{
    struct fixture *fixture = fixture_open(state);

    copy_noise(fixture, 40000);
    /* The first is in somebody's hands all the time; the others go two by two, the second first. */
    for (off_t at = 10; at + 20 <= 40000; at += 20) {
        assert_int_equal(gproc_segment_deliver(&fixture->segment, at + 10, at + 20), 0);
        assert_int_equal(gproc_segment_deliver(&fixture->segment, at, at + 10), 0);
    }
    assert_int_equal(holes_in_use(&fixture->segment), 1);
    assert_int_equal(gproc_segment_deliver(&fixture->segment, 0, 10), 0);
    assert_int_equal(fixture->segment.cursor, 39990);
    assert_int_equal(holes_in_use(&fixture->segment), 0);
    fixture_close(fixture);
}

static void test_too_many_holes_is_enobufs_and_what_is_in_front_still_goes(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const off_t last = 20 * GPROC_SEGMENT_HOLES_COUNT;

    copy_noise(fixture, 20000);
    for (off_t at = 10; at < last; at += 20)
        assert_int_equal(gproc_segment_deliver(&fixture->segment, at, at + 10), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(gproc_segment_deliver(&fixture->segment, 10000, 10010), -ENOBUFS);
        assert_int_equal(gproc_segment_skip(&fixture->segment, 10000), 10000);
        reload(fixture);
        assert_int_equal(holes_in_use(&fixture->segment), GPROC_SEGMENT_HOLES_COUNT);
    }
    /* A neighbour needs no slot. */
    assert_int_equal(gproc_segment_deliver(&fixture->segment, last, last + 10), 0);
    /* What is in front goes, and makes room. */
    assert_int_equal(gproc_segment_deliver(&fixture->segment, 0, 10), 0);
    assert_int_equal(fixture->segment.cursor, 20);
    assert_int_equal(gproc_segment_deliver(&fixture->segment, 10000, 10010), 0);
    fixture_close(fixture);
}

static void test_delivery_that_cannot_be_written_counts_as_none(void **state)
{
    struct fixture *fixture = fixture_open(state);
    int fd;

    copy(fixture);
    fd = open(fixture->file, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(dup3(fd, fixture->segment.fd, O_CLOEXEC), fixture->segment.fd);
    close(fd);
    assert_int_equal(gproc_segment_deliver(&fixture->segment, 0, (off_t)fixture->ends[1]), -EBADF);
    assert_int_equal(fixture->segment.cursor, 0);
    assert_int_equal(
        gproc_segment_deliver(&fixture->segment, (off_t)fixture->ends[1], (off_t)fixture->ends[2]),
        -EBADF);
    assert_int_equal(gproc_segment_skip(&fixture->segment, (off_t)fixture->ends[1]),
                     fixture->ends[1]);
    assert_int_equal(gproc_segment_ready(&fixture->segment), -EBADF);
    assert_int_equal(fixture->segment.state, GPROC_SEGMENT_MOVING);
    fixture_close(fixture);
}

/* --- A move that was cut off --------------------------------------------------------------------
 */

static int resolve(struct fixture *fixture)
{
    assert_int_equal(gproc_mailbox_refresh(&fixture->mailbox), 0);
    return gproc_segment_resolve(&fixture->segment, &fixture->mailbox);
}

static void test_killed_before_the_mailbox_was_emptied_it_still_has_all(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t more[32];
    size_t more_bytes = temporary_frame(more, 9, "more", 4);

    copy(fixture);
    reload(fixture);
    assert_int_equal(resolve(fixture), 0);
    assert_int_equal(resolve(fixture), 0); /* as often as one asks */
    temporary_expect(fixture->box, fixture->data, fixture->data_bytes);

    append_to_mailbox(fixture, more, more_bytes);
    assert_int_equal(resolve(fixture), 0);
    fixture_close(fixture);
}

static void test_killed_after_the_mailbox_was_emptied_the_segment_has_all(void **state)
{
    enum {
        EMPTY,
        OTHER,
        SAME_AGAIN,
        BEGINS_THE_SAME,
        REMOVED,
        NEW_FILE,
        CASES,
    };
    struct fixture *fixture = fixture_open(state);
    uint8_t other[1200];
    size_t other_bytes = temporary_frame(other, 9, "other", 5);

    for (int which = EMPTY; which < CASES; which++) {
        copy(fixture);
        reload(fixture);
        assert_int_equal(gproc_mailbox_clear(&fixture->mailbox), 0);
        if (which == OTHER)
            append_to_mailbox(fixture, other, other_bytes);
        if (which == BEGINS_THE_SAME)
            append_to_mailbox(fixture, fixture->data, fixture->ends[2]);
        if (which == SAME_AGAIN) {
            const struct timespec times[2] = {{0, UTIME_OMIT}, {5, 5}};

            append_to_mailbox(fixture, fixture->data, fixture->data_bytes);
            assert_int_equal(futimens(fixture->mailbox.fd, times), 0);
        }
        if (which == REMOVED) {
            assert_int_equal(gproc_segment_resolve(&fixture->segment, NULL), 1);
        } else {
            if (which == NEW_FILE) {
                /* Alike in all but the inode. */
                const struct timespec times[2] = {{0, UTIME_OMIT}, fixture->segment.modified};
                const char *other_file = temporary_path(*state, "other");

                temporary_write(other_file, fixture->data, fixture->data_bytes);
                assert_int_equal(utimensat(AT_FDCWD, other_file, times, 0), 0);
                assert_int_equal(rename(other_file, fixture->box), 0);
                gproc_mailbox_close(&fixture->mailbox);
                assert_int_equal(
                    gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, O_RDWR), 0);
            }
            if (resolve(fixture) != 1)
                fail_msg("case %d", which);
        }
        assert_int_equal(fixture->segment.state, GPROC_SEGMENT_READY);
        reload(fixture);
        assert_int_equal(fixture->segment.state, GPROC_SEGMENT_READY);
        assert_int_equal(fixture->segment.size_bytes, fixture->data_bytes);
    }
    fixture_close(fixture);
}

static void test_ready_segment_stays_ready_whatever_the_mailbox_holds(void **state)
{
    struct fixture *fixture = fixture_open(state);

    copy(fixture);
    assert_int_equal(gproc_segment_ready(&fixture->segment), 0);
    reload(fixture);
    assert_int_equal(resolve(fixture), 1);
    assert_int_equal(gproc_segment_resolve(&fixture->segment, NULL), 1);
    temporary_expect(fixture->box, fixture->data, fixture->data_bytes);
    fixture_close(fixture);
}

static void test_return_cut_off_after_any_byte_is_undone_or_done(void **state)
{
    struct fixture *fixture = fixture_open(state);

    for (size_t poured = 0; poured <= fixture->data_bytes; poured++) {
        copy(fixture);
        gather(fixture, 77);
        reload(fixture);
        fill_mailbox(fixture, fixture->data, poured);
        assert_int_equal(gproc_segment_returned(&fixture->segment, &fixture->mailbox), 0);
        if (poured < fixture->data_bytes) {
            assert_int_equal(resolve(fixture), 1);
            assert_int_equal(fixture->segment.state, GPROC_SEGMENT_READY);
            temporary_expect(fixture->box, "", 0);
        } else {
            assert_int_equal(resolve(fixture), 0);
            temporary_expect(fixture->box, fixture->data, fixture->data_bytes);
        }
    }
    assert_int_equal(gproc_segment_resolve(&fixture->segment, NULL), 1);
    fixture_close(fixture);
}

static void test_return_cut_off_with_others_messages_behind_tells_how_far_it_came(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t other[64];
    /* Begins like none of ours. */
    size_t other_bytes = temporary_frame(other, 9, "a message of another length", 27);

    for (size_t poured = 0; poured <= fixture->data_bytes; poured++) {
        size_t whole = FRAMES;

        while (fixture->ends[whole] > poured)
            whole--;
        copy(fixture);
        gather(fixture, 77);
        reload(fixture);
        fill_mailbox(fixture, fixture->data, poured);
        append_to_mailbox(fixture, other, other_bytes);
        assert_int_equal(gproc_segment_returned(&fixture->segment, &fixture->mailbox),
                         poured == fixture->data_bytes ? 0 : fixture->ends[whole]);
        if (poured == fixture->data_bytes)
            assert_int_equal(resolve(fixture), 0);
        if (whole == 0) {
            assert_int_equal(resolve(fixture), 1);
            assert_int_equal(fixture->mailbox.status.st_size, poured + other_bytes);
        }
    }
    fixture_close(fixture);
}

static void test_only_a_returning_segment_replaces_those_it_was_gathered_from(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_segment gathered = {.fd = open_file(temporary_path(*state, "gathered"))};
    static const uint64_t serials[] = {1, 77, 1234567890123456789, INT64_MAX};

    copy(fixture);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(gproc_segment_gather(&gathered, &fixture->segment, serials[i]), 0);
    assert_int_equal(gathered.size_bytes, 4 * fixture->data_bytes);
    assert_int_equal(gproc_segment_seal(&gathered), 0);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 4; i++) {
            assert_true(gproc_segment_supersedes(&gathered, serials[i]));
            assert_false(gproc_segment_supersedes(&gathered, serials[i] - 1));
        }
        assert_false(gproc_segment_supersedes(&gathered, 0));
        gproc_segment_release(&gathered);
        assert_int_equal(
            gproc_segment_load(&gathered, open_file(temporary_path(*state, "gathered"))), 0);
    }
    use(&gathered);
    assert_int_equal(gproc_segment_ready(&gathered), 0);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 4; i++)
            assert_false(gproc_segment_supersedes(&gathered, serials[i]));
        gproc_segment_release(&gathered);
        assert_int_equal(
            gproc_segment_load(&gathered, open_file(temporary_path(*state, "gathered"))), 0);
    }
    /* And their slots are there for holes. */
    for (off_t at = 10; at < 50; at += 20)
        assert_int_equal(gproc_segment_deliver(&gathered, at, at + 10), 0);
    assert_int_equal(holes_in_use(&gathered), 2);
    gproc_segment_release(&gathered);
    fixture_close(fixture);
}

static void test_more_than_a_segment_can_replace_is_enobufs(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_segment gathered = {.fd = open_file(temporary_path(*state, "gathered"))};

    copy(fixture);
    for (uint64_t i = 1; i <= GPROC_SEGMENT_HOLES_COUNT; i++)
        assert_int_equal(gproc_segment_gather(&gathered, &fixture->segment, i), 0);
    assert_int_equal(gproc_segment_gather(&gathered, &fixture->segment, 1000), -ENOBUFS);
    assert_int_equal(gproc_segment_seal(&gathered), 0);
    assert_true(gproc_segment_supersedes(&gathered, GPROC_SEGMENT_HOLES_COUNT));
    gproc_segment_release(&gathered);
    fixture_close(fixture);
}

/* --- No room ------------------------------------------------------------------------------------
 */

static void limit_file_size(rlim_t size_bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_pour_that_fails_after_any_number_of_bytes_leaves_the_mailbox_empty(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    copy(fixture);
    gather(fixture, 77);
    for (size_t room = 0; room < fixture->data_bytes; room++) {
        int result;

        fill_mailbox(fixture, "", 0);
        limit_file_size(room);
        result = gproc_segment_pour(&fixture->segment, &fixture->mailbox);
        limit_file_size(before.rlim_max);
        assert_int_equal(result, -EFBIG);
        temporary_expect(fixture->box, "", 0);
    }
    assert_int_equal(gproc_segment_pour(&fixture->segment, &fixture->mailbox), 0);
    temporary_expect(fixture->box, fixture->data, fixture->data_bytes);
    signal(SIGXFSZ, SIG_DFL);
    fixture_close(fixture);
}

static void test_copy_that_fails_after_any_number_of_bytes_never_became_a_segment(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t room = 0; room < fixture->data_bytes; room++) {
        int result;

        fill_mailbox(fixture, fixture->data, fixture->data_bytes);
        temporary_write(fixture->file, "", 0);
        limit_file_size(GPROC_SEGMENT_DATA_OFFSET + room);
        result = gproc_segment_copy(&fixture->segment, open_file(fixture->file), &fixture->mailbox,
                                    0, NULL);
        limit_file_size(before.rlim_max);
        assert_int_equal(result, -EFBIG);
        gproc_segment_release(&fixture->segment);
        temporary_expect(fixture->box, fixture->data, fixture->data_bytes);
        assert_int_equal(gproc_segment_load(&fixture->segment, open_file(fixture->file)), -EILSEQ);
        gproc_segment_release(&fixture->segment);
    }
    signal(SIGXFSZ, SIG_DFL);
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_file_is_what_the_table_says),
        TEMPORARY_TEST(test_segment_comes_back_from_disk_as_it_was),
        TEMPORARY_TEST(test_copy_of_an_empty_mailbox_is_a_spent_segment),
        TEMPORARY_TEST(test_large_mailboxes_are_copied_whole),
        TEMPORARY_TEST(test_every_truncation_is_loaded_or_refused),
        TEMPORARY_TEST(test_hostile_headers_are_not_believed),
        TEMPORARY_TEST(test_noise_is_loaded_or_refused),
        TEMPORARY_TEST(test_deliveries_in_any_order_are_remembered_on_disk),
        TEMPORARY_TEST(test_neighbouring_holes_become_one),
        TEMPORARY_TEST(test_readers_that_overtake_each_other_for_ever_use_up_nothing),
        TEMPORARY_TEST(test_too_many_holes_is_enobufs_and_what_is_in_front_still_goes),
        TEMPORARY_TEST(test_delivery_that_cannot_be_written_counts_as_none),
        TEMPORARY_TEST(test_killed_before_the_mailbox_was_emptied_it_still_has_all),
        TEMPORARY_TEST(test_killed_after_the_mailbox_was_emptied_the_segment_has_all),
        TEMPORARY_TEST(test_ready_segment_stays_ready_whatever_the_mailbox_holds),
        TEMPORARY_TEST(test_return_cut_off_after_any_byte_is_undone_or_done),
        TEMPORARY_TEST(test_return_cut_off_with_others_messages_behind_tells_how_far_it_came),
        TEMPORARY_TEST(test_only_a_returning_segment_replaces_those_it_was_gathered_from),
        TEMPORARY_TEST(test_more_than_a_segment_can_replace_is_enobufs),
        TEMPORARY_TEST(test_pour_that_fails_after_any_number_of_bytes_leaves_the_mailbox_empty),
        TEMPORARY_TEST(test_copy_that_fails_after_any_number_of_bytes_never_became_a_segment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
