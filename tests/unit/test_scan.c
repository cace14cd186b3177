/*
 * The scanner finds what the resync rule says, no more and no less, whatever the mailbox holds and
 * wherever it is; and goes on after bytes were appended as if they had always been there. What it
 * costs is test_scan_cost.c's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frame.h"
#include "mailboxes.h"
#include "model.h"
#include "scan.h"
#include "sieve.h"
#include "vectors.h"

/* Any number will do; change it to see other mailboxes. */
static const uint64_t seed = 20180513;

/* A mailbox in memory, exactly as long as it says. */
static struct gproc_source in_memory(const uint8_t *data, size_t size_bytes)
{
    return (struct gproc_source){.data = data, .fd = -1, .size_bytes = (off_t)size_bytes};
}

/* A file without a name, in memory or on disk. */
static int file_new(void)
{
    const char *directory = getenv("TMPDIR");
    const int fd =
        open(directory != NULL ? directory : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    return fd >= 0 ? fd : memfd_create("mailbox", MFD_CLOEXEC);
}

/*
 * Puts the mailbox at `start` of the file `fd`, a good frame before it and one after it: what is
 * found outside of the mailbox shows.
 */
static struct gproc_source in_file(int fd, off_t start, const uint8_t *data, size_t size_bytes)
{
    static const uint8_t frame[GPROC_FRAME_HEADER_BYTES] = {12};
    const off_t end = start + (off_t)size_bytes;

    assert_int_equal(ftruncate(fd, 0), 0);
    if (start >= GPROC_FRAME_HEADER_BYTES) {
        assert_int_equal(pwrite(fd, frame, sizeof(frame), start - GPROC_FRAME_HEADER_BYTES),
                         sizeof(frame));
    }
    assert_int_equal(pwrite(fd, data, size_bytes, start), size_bytes);
    assert_int_equal(pwrite(fd, frame, sizeof(frame), end), sizeof(frame));
    return (struct gproc_source){.fd = fd, .start = start, .size_bytes = (off_t)size_bytes};
}

/* A scan of `source` from `position` on must tell what the model tells. With 0, windows are as
 * always. */
static void assert_scan(const struct gproc_source *source, off_t position, size_t window_bytes,
                        const struct model *model, const char *what)
{
    struct gproc_scan scan;

    gproc_scan_init(&scan, source, position);
    if (window_bytes > 0) {
        scan.window.capacity_bytes = window_bytes + GPROC_FRAME_HEADER_BYTES;
        scan.far.capacity_bytes = window_bytes;
    }
    const char *difference = model_differs(model, &scan);
    gproc_scan_release(&scan);
    if (difference != NULL) {
        fail_msg("%s, from %jd, windows of %zu: %s", what, (intmax_t)position, window_bytes,
                 difference);
    }
}

/* As assert_scan() for a mailbox in memory, of which the model tells what it must. */
static void assert_bytes(const uint8_t *data, size_t size_bytes, const char *what)
{
    const struct gproc_source source = in_memory(data, size_bytes);
    struct model model;

    model_init(&model, data, size_bytes, 0);
    assert_scan(&source, 0, 0, &model, what);
    model_release(&model);
}

/* What is found in `source` must be the messages of the vector, payloads and all. */
static void assert_vector(const struct gproc_source *source, const struct vector *vector)
{
    struct gproc_scan scan;
    struct gproc_message message;

    gproc_scan_init(&scan, source, 0);
    for (size_t i = 0; i < vector->message_count; i++) {
        const struct vector_message *wanted = &vector->messages[i];
        uint8_t *payload = malloc(wanted->payload_bytes);

        if (gproc_scan_next(&scan, &message) != 1 || message.sender != wanted->sender ||
            message.payload_bytes != wanted->payload_bytes) {
            fail_msg("case %d: message %zu is another", vector->number, i);
        }
        assert_int_equal(
            gproc_source_read(source, payload, message.payload_bytes, message.payload_offset), 0);
        if (message.payload_bytes > 0) {
            assert_memory_equal(payload, wanted->payload, message.payload_bytes);
        }
        free(payload);
    }
    if (gproc_scan_next(&scan, &message) != 0) {
        fail_msg("case %d: more than %zu messages", vector->number, vector->message_count);
    }
    assert_int_equal(scan.position, vector->mailbox_bytes);
    gproc_scan_release(&scan);
}

static void test_vectors_give_what_the_reference_gives(void **state)
{
    const int fd = file_new();
    struct vectors vectors;

    (void)state;
    assert_true(fd >= 0);
    vectors_init(&vectors, "resync.txt");
    assert_int_equal(vectors.count, 600);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *vector = &vectors.vectors[i];
        struct gproc_source source = in_memory(vector->mailbox, vector->mailbox_bytes);

        assert_vector(&source, vector);
        source = in_file(fd, 0, vector->mailbox, vector->mailbox_bytes);
        assert_vector(&source, vector);
        source = in_file(fd, 64, vector->mailbox, vector->mailbox_bytes);
        assert_vector(&source, vector);
    }
    vectors_release(&vectors);
    assert_int_equal(close(fd), 0);
}

/* Small mailboxes written out, to see to it that the model is no more wrong than the scanner. */
static void test_boundaries_of_the_rule(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[32];
        size_t size_bytes;
        size_t message_count;
        off_t unresolved;
        off_t damaged_bytes;
    } rows[] = {
        {"nothing", {0}, 0, 0, -1, 0},
        {"one byte", {12}, 1, 0, 0, 1},
        {"eleven bytes", {12}, 11, 0, 0, 11},
        {"an empty message", {12}, 12, 1, -1, 0},
        {"two of them", {12, [12] = 12}, 24, 2, -1, 0},
        {"an empty message and a byte", {12}, 13, 1, 12, 1},
        {"a byte and an empty message", {0, 12}, 13, 1, 0, 1},
        {"a negative length, an empty message", {[3] = 0x80, [4] = 12}, 16, 1, 1, 4},
        {"a wrong sum of nothing", {12, [8] = 1}, 12, 0, 1, 12},
        {"length 11", {11}, 12, 0, 1, 12},
        {"length 13, one byte too long", {13}, 12, 0, 0, 12},
        {"length 13, just fits", {13, [8] = 9, [12] = 9}, 13, 1, -1, 0},
        {"length 13, sum too small", {13, [8] = 8, [12] = 9}, 13, 0, 2, 13},
        {"length 13, sum too large", {13, [8] = 10, [12] = 9}, 13, 0, 2, 13},
        {"largest length", {0xff, 0xff, 0xff, 0x7f}, 12, 0, 0, 12},
        {"smallest length", {0, 0, 0, 0x80}, 12, 0, 1, 12},
        {"largest length behind zeros", {[15] = 255, 255, 255, 127}, 32, 0, 15, 32},
        {"length -1", {0xff, 0xff, 0xff, 0xff}, 12, 0, 1, 12},
        {"length 0, then a message", {[12] = 12}, 24, 1, 9, 12},
        {"a damaged frame around a good one", {24, [8] = 7, [12] = 12}, 24, 1, 5, 12},
        {"a frame around a frame", {24, [8] = 12, [12] = 12}, 24, 1, -1, 0},
        {"too long a frame around a good one", {25, [8] = 12, [12] = 12}, 24, 1, 0, 12},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct model model;

        model_init(&model, rows[i].bytes, rows[i].size_bytes, 0);
        if (model.message_count != rows[i].message_count ||
            model.unresolved != rows[i].unresolved ||
            model.damaged_bytes != rows[i].damaged_bytes) {
            fail_msg("%s: the model itself is wrong: unresolved %jd", rows[i].what,
                     (intmax_t)model.unresolved);
        }
        model_release(&model);

        uint8_t *exact = malloc(rows[i].size_bytes);
        memcpy(exact, rows[i].bytes, rows[i].size_bytes);
        assert_bytes(exact, rows[i].size_bytes, rows[i].what);
        free(exact);
    }
}

/* Every part of a mailbox, from any offset to any other, right between two pages that may not be
 * touched. */
static void test_every_truncation_is_scanned_and_no_byte_beside_it_read(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_READ | PROT_WRITE), 0);
    for (enum mailbox_kind kind = 0; kind < MAILBOX_KINDS; kind++) {
        struct random random = {seed + kind};
        struct mailbox mailbox;

        mailbox_init(&mailbox, kind, 700, &random);
        for (size_t cut = 0; cut <= mailbox.size_bytes; cut++) {
            uint8_t *to_the_end = pages + 2 * page - cut;
            uint8_t *from_the_start = pages + page;

            memcpy(to_the_end, mailbox.data, cut);
            assert_bytes(to_the_end, cut, mailbox_kind_name(kind));
            memmove(from_the_start, mailbox.data + (mailbox.size_bytes - cut), cut);
            assert_bytes(from_the_start, cut, mailbox_kind_name(kind));
        }
        mailbox_release(&mailbox);
    }
    assert_int_equal(munmap(pages, 3 * page), 0);
}

/*
 * A scan of the first `cut` bytes, and one of the whole that begins where that one says, must find
 * together what one scan of the whole finds.
 */
static void assert_incremental(const struct mailbox *mailbox, size_t cut, const char *what)
{
    const struct gproc_source part = in_memory(mailbox->data, cut);
    const struct gproc_source whole = in_memory(mailbox->data, mailbox->size_bytes);
    struct gproc_scan scan;
    struct gproc_message message;
    struct model model;
    size_t decided = 0;

    model_init(&model, mailbox->data, mailbox->size_bytes, 0);
    gproc_scan_init(&scan, &part, 0);
    while (gproc_scan_next(&scan, &message) == 1) {
        if (scan.unresolved < 0 || message.frame_offset < scan.unresolved) {
            assert_true(decided < model.message_count);
            assert_memory_equal(&message, &model.messages[decided], sizeof(message));
            decided++;
        }
    }
    const off_t restart = scan.unresolved >= 0 ? scan.unresolved : scan.position;
    gproc_scan_release(&scan);

    struct model rest;
    model_init(&rest, mailbox->data, mailbox->size_bytes, (size_t)restart);
    assert_int_equal(decided + rest.message_count, model.message_count);
    for (size_t i = 0; i < rest.message_count; i++) {
        assert_memory_equal(&rest.messages[i], &model.messages[decided + i], sizeof(message));
    }
    assert_scan(&whole, restart, 0, &rest, what);
    model_release(&rest);
    model_release(&model);
}

static void test_incremental_scans_equal_a_full_one(void **state)
{
    (void)state;
    for (enum mailbox_kind kind = 0; kind < MAILBOX_KINDS; kind++) {
        struct random random = {seed + kind};

        for (int i = 0; i < 4; i++) {
            struct mailbox mailbox;

            mailbox_init(&mailbox, kind, 60 + random_below(&random, 700), &random);
            for (size_t cut = 0; cut <= mailbox.size_bytes; cut++) {
                assert_incremental(&mailbox, cut, mailbox_kind_name(kind));
            }
            mailbox_release(&mailbox);
        }
    }
}

/* Has one form of the sieve after the other be used, of those that can be. */
static void form_choose(int number)
{
    size_t count;
    const struct gproc_sieve_form *forms = gproc_sieve_forms(&count);
    const struct gproc_sieve_form *form = &forms[(size_t)number % count];

    if (form->is_usable()) {
        gproc_sieve_choose(form);
    }
}

/* 100,000 mailboxes: each from memory, from a file through windows of all sizes, and in two parts.
 */
static void test_agrees_with_the_model_on_random_mailboxes(void **state)
{
    const char *tool = getenv("GPROC_TEST_TOOL");
    const int count = tool != NULL && strcmp(tool, "valgrind") == 0 ? 2000 : 100000;
    const int fd = memfd_create("mailbox", MFD_CLOEXEC);
    struct random random = {seed};

    (void)state;
    assert_true(fd >= 0);
    printf("seed %" PRIu64 ", %d mailboxes\n", seed, count);
    for (int i = 0; i < count; i++) {
        const enum mailbox_kind kind = (enum mailbox_kind)(i % MAILBOX_KINDS);
        const size_t size_bytes = random_below(&random, i % 16 == 0 ? 6000 : 500);
        struct mailbox mailbox;
        struct model model;
        char what[64];

        snprintf(what, sizeof(what), "mailbox %d (%s)", i, mailbox_kind_name(kind));
        mailbox_init(&mailbox, kind, size_bytes, &random);
        model_init(&model, mailbox.data, mailbox.size_bytes, 0);

        struct gproc_source source = in_memory(mailbox.data, mailbox.size_bytes);
        form_choose(i / MAILBOX_KINDS);
        assert_scan(&source, 0, 0, &model, what);
        if (i % 4 == 0) {
            source =
                in_file(fd, (off_t)random_below(&random, 100), mailbox.data, mailbox.size_bytes);
            assert_scan(&source, 0, 1 + random_below(&random, 300), &model, what);
        }
        if (i % 8 == 1) {
            assert_incremental(&mailbox, random_below(&random, mailbox.size_bytes + 1), what);
        }
        model_release(&model);
        mailbox_release(&mailbox);
    }
    assert_int_equal(close(fd), 0);
}

/* Mailboxes of several windows, from a file as it is read outside of tests: as from memory. */
static void test_large_files_give_what_memory_gives(void **state)
{
    const int fd = file_new();

    (void)state;
    assert_true(fd >= 0);
    for (enum mailbox_kind kind = 0; kind < MAILBOX_KINDS; kind++) {
        struct random random = {seed + kind};
        struct mailbox mailbox;
        struct gproc_scan memory, file;
        struct gproc_message wanted, found;
        int status;

        mailbox_init(&mailbox, kind, 1200 * 1000, &random);
        const struct gproc_source in_heap = in_memory(mailbox.data, mailbox.size_bytes);
        const struct gproc_source on_disk = in_file(fd, 64, mailbox.data, mailbox.size_bytes);
        gproc_scan_init(&memory, &in_heap, 0);
        gproc_scan_init(&file, &on_disk, 0);
        do {
            status = gproc_scan_next(&memory, &wanted);
            assert_int_equal(gproc_scan_next(&file, &found), status);
            assert_int_equal(file.position, memory.position);
            if (status == 1) {
                assert_memory_equal(&found, &wanted, sizeof(found));
            }
        } while (status == 1);
        assert_int_equal(status, 0);
        assert_int_equal(file.unresolved, memory.unresolved);
        assert_int_equal(file.damaged_bytes, memory.damaged_bytes);
        gproc_scan_release(&memory);
        gproc_scan_release(&file);
        mailbox_release(&mailbox);
    }
    assert_int_equal(close(fd), 0);
}

/* What was found stays found; after the file has got its bytes back the scan goes on where it
 * stood. */
static void test_file_that_shrank_is_an_error_and_the_scan_can_go_on(void **state)
{
    const int fd = file_new();
    uint8_t bytes[400] = {0};
    struct gproc_scan scan;
    struct gproc_message message;

    (void)state;
    assert_true(fd >= 0);
    mailbox_frame(bytes, 88, 1, 0);
    mailbox_frame(bytes + 100, 288, 2, 0);

    const struct gproc_source source = in_file(fd, 0, bytes, sizeof(bytes));
    gproc_scan_init(&scan, &source, 0);
    scan.window.capacity_bytes = 40;
    assert_int_equal(gproc_scan_next(&scan, &message), 1);
    for (off_t size = 350; size >= 50; size -= 50) {
        assert_int_equal(ftruncate(fd, size), 0);
        assert_int_equal(gproc_scan_next(&scan, &message), -ENODATA);
        assert_int_equal(scan.position, 100);
    }
    in_file(fd, 0, bytes, sizeof(bytes));
    assert_int_equal(gproc_scan_next(&scan, &message), 1);
    assert_int_equal(message.sender, 2);
    assert_int_equal(gproc_scan_next(&scan, &message), 0);
    assert_int_equal(gproc_scan_next(&scan, &message), 0);
    gproc_scan_release(&scan);
    gproc_scan_release(&scan);
    assert_int_equal(close(fd), 0);
}

static void test_error_of_pread_is_handed_on(void **state)
{
    static const off_t sizes[] = {100, 1 << 30}; /* the larger is asked for holes first */

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const struct gproc_source source = {.fd = -1, .size_bytes = sizes[i]};
        struct gproc_scan scan;
        struct gproc_message message;

        gproc_scan_init(&scan, &source, 0);
        assert_int_equal(gproc_scan_next(&scan, &message), -EBADF);
        assert_int_equal(scan.position, 0);
        gproc_scan_release(&scan);
    }
}

/* Good frames among damaged ones, long and short: what is looked for the quick way and what is not
 * must take turns, within the samples and beyond them. */
static void test_short_frames_about_damage_in_memory(void **state)
{
    struct random random = {seed};
    uint8_t *data = calloc(4000, 1);

    (void)state;
    assert_non_null(data);
    for (int round = 0; round < 20000; round++) {
        const size_t size_bytes = 1000 + random_below(&random, 3000);
        const size_t usual = random_below(&random, 140);
        size_t at = 0;

        for (;;) {
            const size_t payload =
                random_below(&random, 8) != 0 ? usual : random_below(&random, 700);

            if (at + GPROC_FRAME_HEADER_BYTES + payload > size_bytes) {
                break;
            }
            memset(data + at, (int)random_below(&random, 3) * 127,
                   GPROC_FRAME_HEADER_BYTES + payload);
            mailbox_frame(data + at, (uint32_t)payload, 7, random_below(&random, 9) == 0);
            at += GPROC_FRAME_HEADER_BYTES + payload;
        }
        memset(data + at, 0, size_bytes - at);
        assert_bytes(data, size_bytes, "short frames about damage");
    }
    free(data);
}

static void test_source_read_reads_all_or_says_eio(void **state)
{
    static const struct {
        off_t offset;
        size_t size_bytes;
        int status;
    } rows[] = {
        {0, 0, 0},
        {0, 5, 0},
        {4, 1, 0},
        {5, 0, 0},
        {0, 6, -EIO},
        {5, 1, -EIO},
        {6, 0, -EIO},
        {-1, 1, -EIO},
        {1, SIZE_MAX, -EIO},
        {0, SIZE_MAX, -EIO},
        {INT64_MAX, 1, -EIO},
        {INT64_MIN, 0, -EIO},
    };
    const uint8_t bytes[5] = {1, 2, 3, 4, 5};
    const int fd = file_new();

    (void)state;
    assert_true(fd >= 0);

    const struct gproc_source sources[] = {
        in_memory(bytes, sizeof(bytes)),
        in_file(fd, 64, bytes, sizeof(bytes)),
    };
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(*rows); i++) {
        uint8_t found[6] = {0};

        assert_int_equal(
            gproc_source_read(&sources[i % 2], found, rows[i / 2].size_bytes, rows[i / 2].offset),
            rows[i / 2].status);
        if (rows[i / 2].status == 0) {
            assert_memory_equal(found, bytes + rows[i / 2].offset, rows[i / 2].size_bytes);
            assert_int_equal(found[rows[i / 2].size_bytes], 0);
        }
    }
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_give_what_the_reference_gives),
        cmocka_unit_test(test_boundaries_of_the_rule),
        cmocka_unit_test(test_every_truncation_is_scanned_and_no_byte_beside_it_read),
        cmocka_unit_test(test_incremental_scans_equal_a_full_one),
        cmocka_unit_test(test_agrees_with_the_model_on_random_mailboxes),
        cmocka_unit_test(test_large_files_give_what_memory_gives),
        cmocka_unit_test(test_file_that_shrank_is_an_error_and_the_scan_can_go_on),
        cmocka_unit_test(test_error_of_pread_is_handed_on),
        cmocka_unit_test(test_short_frames_about_damage_in_memory),
        cmocka_unit_test(test_source_read_reads_all_or_says_eio),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
