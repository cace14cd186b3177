/*
 * What a scan costs: an intact mailbox is read once; any mailbox takes time, reads and memory in
 * proportion to its size, also one made to be as dear as can be; and a large empty file is nothing
 * to be afraid of.
 */
#undef _FORTIFY_SOURCE /* it would make the pread() below an inline function */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mailboxes.h"
#include "scan.h"

/* Counted by the pread() below, which is the one that the library in this program calls. */
static struct {
    size_t calls;
    size_t bytes;
    size_t calls_to_interrupt; /* this many are answered with EINTR, every other with one byte */
    size_t call_to_fail;       /* the one after so many less one is answered with EIO; 0: none */
} reads;

ssize_t pread(int fd, void *buffer, size_t size_bytes, off_t offset)
{
    if (reads.call_to_fail > 0 && --reads.call_to_fail == 0) {
        errno = EIO;
        return -1;
    }
    if (reads.calls_to_interrupt > 0) {
        if (--reads.calls_to_interrupt % 2 == 0) {
            errno = EINTR;
            return -1;
        }
        size_bytes = 1;
    }

    const ssize_t count = syscall(SYS_pread64, fd, buffer, size_bytes, offset);

    reads.calls++;
    reads.bytes += count > 0 ? (size_t)count : 0;
    return count;
}

static bool under(const char *name)
{
    const char *tool = getenv("GPROC_TEST_TOOL");

    return tool != NULL && strcmp(tool, name) == 0;
}

/* Where each line costs many times what it does, less is enough. */
static bool is_slow(void)
{
    return under("valgrind") || under("coverage");
}

/* Mailboxes made to be dear. */
enum content {
    PERIOD_OF_LENGTHS, /* 0c 00 00 00 again and again: three offsets of four have a plausible length
                        */
    ALL_BYTES_ONE, /* every offset a plausible length and a checksum nearly right, from 16 MiB on */
    ZEROS_AND_ONES, /* the same, but every end somewhere else */
    TO_THE_END,     /* every 12 bytes a length that reaches the very end, the sum off by one */
    PAST_THE_END,   /* the same, but the length is too large by one */
    ANYWHERE,       /* every 12 bytes a length to some place after it, the sum off by one */
    GROWING,        /* every 64 bytes a candidate that ends 65 KiB after the one before */
    ALL_ZEROS,
    ALL_BYTES_255,
    CONTENTS,
};

static const char *const content_names[CONTENTS] = {
    "period of lengths", "all bytes one", "zeros and ones", "to the end",    "past the end",
    "anywhere",          "growing",       "all zeros",      "all bytes 255",
};

static void put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++, value >>= 8) {
        bytes[i] = (uint8_t)value;
    }
}

/* Headers from the last to the first, each with the sum of what follows it already there, and one
 * more. */
static void headers_fill(uint8_t *data, size_t size_bytes, enum content content,
                         struct random *random)
{
    /* sums[i]: of the last i headers; what is after them is zero. */
    const size_t count = size_bytes / 12;
    uint32_t *sums = calloc(count + 1, sizeof(*sums));

    assert_non_null(sums);
    for (size_t i = 1; i <= count; i++) {
        uint8_t *header = data + 12 * (count - i);
        const size_t inside = content == ANYWHERE ? random_below(random, i) : i - 1;
        const size_t rest = content == ANYWHERE ? 0 : size_bytes - 12 * count;

        put32(header, (uint32_t)(12 + 12 * inside + rest + (content == PAST_THE_END)));
        put32(header + 8, sums[i - 1] - sums[i - 1 - inside] + 1);
        sums[i] = sums[i - 1];
        for (int j = 0; j < 12; j++) {
            sums[i] += header[j];
        }
    }
    free(sums);
}

static uint8_t *content_new(enum content content, size_t size_bytes)
{
    uint8_t *data = calloc(size_bytes, 1);
    struct random random = {content};

    assert_non_null(data);
    switch (content) {
    case PERIOD_OF_LENGTHS:
        for (size_t i = 0; i < size_bytes; i += 4) {
            data[i] = 12;
        }
        break;
    case ALL_BYTES_ONE:
        memset(data, 1, size_bytes);
        break;
    case ZEROS_AND_ONES:
        for (size_t i = 0; i < size_bytes; i++) {
            data[i] = random_next(&random) & 1;
        }
        break;
    case TO_THE_END:
    case PAST_THE_END:
    case ANYWHERE:
        headers_fill(data, size_bytes, content, &random);
        break;
    case GROWING:
        for (size_t at = 0, length = 64; at + length <= size_bytes; at += 64, length += 65 * 1024) {
            put32(data + at, (uint32_t)length);
        }
        break;
    case ALL_BYTES_255:
        memset(data, 255, size_bytes);
        break;
    case ALL_ZEROS:
    case CONTENTS:
        break;
    }
    return data;
}

static int file_new(const char *directory)
{
    const int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    return fd >= 0 ? fd : memfd_create("mailbox", MFD_CLOEXEC);
}

static struct gproc_source in_file(int fd, const uint8_t *data, size_t size_bytes)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, data, size_bytes, 0), size_bytes);
    return (struct gproc_source){.fd = fd, .size_bytes = (off_t)size_bytes};
}

struct cost {
    size_t messages;
    size_t calls;
    size_t bytes;
    double seconds; /* of this thread */
    bool sums;      /* whether prefix sums were needed */
};

static double thread_seconds(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct cost cost_of(const struct gproc_source *source)
{
    struct cost cost = {0};
    struct gproc_scan scan;
    struct gproc_message message;
    int status;

    reads.calls = 0;
    reads.bytes = 0;
    const double begin = thread_seconds();
    gproc_scan_init(&scan, source, 0);
    while ((status = gproc_scan_next(&scan, &message)) == 1) {
        cost.messages++;
    }
    cost.seconds = thread_seconds() - begin;
    cost.calls = reads.calls;
    cost.bytes = reads.bytes;
    cost.sums = scan.sums.samples != NULL;
    assert_int_equal(status, 0);
    assert_int_equal(scan.position, source->size_bytes);
    gproc_scan_release(&scan);
    return cost;
}

/* A mailbox of `count` frames of `payload_bytes` bytes. */
static uint8_t *frames_new(size_t payload_bytes, size_t count, size_t *size_bytes)
{
    const size_t frame_bytes = 12 + payload_bytes;
    uint8_t *data = malloc(count * frame_bytes);

    assert_non_null(data);
    for (size_t i = 0; i < count; i++) {
        memset(data + i * frame_bytes, (int)i, frame_bytes);
        mailbox_frame(data + i * frame_bytes, (uint32_t)payload_bytes, 1, 0);
    }
    *size_bytes = count * frame_bytes;
    return data;
}

static void test_intact_mailbox_is_read_once(void **state)
{
    static const size_t payloads[] = {0, 1, 64, 1000, 65536, 262144 - 12, 262144, 1 << 20, 3000000};
    const int fd = file_new("/tmp");

    (void)state;
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof(payloads) / sizeof(*payloads); i++) {
        const size_t count = 1 + 4000000 / (payloads[i] + 12);
        size_t size_bytes;
        uint8_t *data = frames_new(payloads[i], count, &size_bytes);
        const struct gproc_source source = in_file(fd, data, size_bytes);
        const struct cost cost = cost_of(&source);

        assert_int_equal(cost.messages, count);
        assert_false(cost.sums);
        /* A header that a window's end divides is read again: up to 11 bytes in 256 KiB. */
        assert_in_range(cost.bytes, size_bytes, size_bytes + 11 * (size_bytes / (256 * 1024)));
        assert_in_range(cost.calls, 1, 4 + size_bytes / (32 * 1024));
        free(data);
    }
    assert_int_equal(close(fd), 0);
}

/* One wrong bit must not make the rest of a large mailbox dear: the samples end soon after it. */
static void test_one_damaged_frame_costs_no_more_than_its_surroundings(void **state)
{
    const int fd = file_new("/tmp");
    size_t size_bytes;
    uint8_t *data = frames_new(1000, 8000, &size_bytes);

    (void)state;
    assert_true(fd >= 0);
    data[100 * (12 + 1000) + 600] ^= 1;

    const struct gproc_source source = in_file(fd, data, size_bytes);
    const struct cost cost = cost_of(&source);

    assert_int_equal(cost.messages, 7999);
    assert_true(cost.sums);
    assert_in_range(cost.bytes, size_bytes, size_bytes + 512 * 1024);
    free(data);
    assert_int_equal(close(fd), 0);
}

/* Costs that rise with the square would be four times what is allowed. Reads are counted, not
 * timed. */
static void test_reads_of_any_file_are_linear_in_its_size(void **state)
{
    const size_t small = 1 << 20; /* several windows */
    const size_t ratio = is_slow() ? 2 : 8;
    const int fd = file_new("/tmp");

    (void)state;
    assert_true(fd >= 0);
    for (enum content content = 0; content < CONTENTS; content++) {
        struct cost costs[2];

        for (int i = 0; i < 2; i++) {
            const size_t size_bytes = i == 0 ? small : ratio * small;
            uint8_t *data = content_new(content, size_bytes);
            const struct gproc_source source = in_file(fd, data, size_bytes);

            costs[i] = cost_of(&source);
            free(data);
            printf("%s: %zu KiB: %zu reads of %zu KiB\n", content_names[content], size_bytes / 1024,
                   costs[i].calls, costs[i].bytes / 1024);
            /* At most one read for each header that is a near miss. */
            assert_in_range(costs[i].calls, 1, size_bytes / 12 + 100);
        }
        assert_in_range(costs[1].bytes, 0, 2 * ratio * costs[0].bytes + (1 << 20));
        assert_in_range(costs[1].calls, 0, 2 * ratio * costs[0].calls + 100);
    }
    assert_int_equal(close(fd), 0);
}

/* The best of some scans, up to one that is quick enough: what a busy machine adds to the time of
 * the processor (other programs in the caches, another clock rate) it does not add each time. */
static double best_seconds(enum content content, size_t size_bytes, double enough_seconds)
{
    uint8_t *data = content_new(content, size_bytes);
    const struct gproc_source source = {.data = data, .size_bytes = (off_t)size_bytes};
    double best = cost_of(&source).seconds;

    for (int again = 0; again < 4 && best > enough_seconds; again++) {
        const double other = cost_of(&source).seconds;
        best = other < best ? other : best;
    }
    free(data);
    printf("%s: %zu KiB: %.3f ms, %.0f MB/s\n", content_names[content], size_bytes / 1024,
           best * 1e3, (double)size_bytes / best / 1e6);
    return best;
}

/*
 * Sizes in a ratio of 16 to 20, times in one of 256 to 400 if the scan were quadratic. 64 is far
 * from what caches do to 20. It is 64 times what the dearest of the smaller ones costs, so that no
 * limit depends on the machine and on what slows it down (some contents become dear only where they
 * are large); and it is the time of this thread, which others at work do not take.
 */
static void test_time_for_any_memory_is_linear_in_its_size(void **state)
{
    const size_t small = is_slow() ? 1 << 16 : 1 << 20;
    const size_t large = 16 * small + (is_slow() ? 0 : 4 * (size_t)(1 << 20));
    double most = 0;

    (void)state;
    for (enum content content = 0; content < CONTENTS; content++) {
        const double seconds = best_seconds(content, small, 0);
        most = seconds > most ? seconds : most;
    }
    for (enum content content = 0; content < CONTENTS; content++) {
        const double seconds = best_seconds(content, large, 64 * most);

        if (seconds > 64 * most) {
            fail_msg("%s: %.3f s, where %zu KiB of the dearest take %.3f s", content_names[content],
                     seconds, small / 1024, most);
        }
    }
}

/* The dearest contents right before a page that may not be touched. */
static void test_dear_mailboxes_are_not_read_beyond_their_end(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = 64 * page;
    uint8_t *pages =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + room, page, PROT_NONE), 0);
    for (enum content content = 0; content < CONTENTS; content++) {
        for (size_t less = 0; less < 20; less++) {
            const size_t size_bytes = room - less;
            uint8_t *data = content_new(content, size_bytes);
            const struct gproc_source source = {.data = pages + less,
                                                .size_bytes = (off_t)size_bytes};

            memcpy(pages + less, data, size_bytes);
            cost_of(&source);
            free(data);
        }
    }
    assert_int_equal(munmap(pages, room + page), 0);
}

/* Three gigabytes of nothing: no message, no prefix sums, no memory but the window. */
static void test_sparse_file_of_zeros_yields_nothing(void **state)
{
    const off_t size = (off_t)3 << 30;
    const int fd = file_new("/tmp");

    (void)state;
    assert_true(fd >= 0);
    if (under("valgrind") || ftruncate(fd, size) != 0) {
        close(fd);
        skip();
    }

    const struct gproc_source source = {.fd = fd, .size_bytes = size};
    const struct cost cost = cost_of(&source);

    printf("%.2f s for 3 GiB of zeros\n", cost.seconds);
    assert_int_equal(cost.messages, 0);
    assert_false(cost.sums);
    assert_in_range(cost.calls, 0, 2); /* the hole is passed over unread */
    assert_int_equal(close(fd), 0);
}

/* EINTR and short counts are no errors. */
static void test_interrupted_and_short_reads_are_gone_on_with(void **state)
{
    const int fd = file_new("/tmp");
    uint8_t bytes[200], found[200];

    (void)state;
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)i;
    }

    const struct gproc_source source = in_file(fd, bytes, sizeof(bytes));
    reads.calls_to_interrupt = 50;
    assert_int_equal(gproc_source_read(&source, found, sizeof(found), 0), 0);
    assert_int_equal(reads.calls_to_interrupt, 0);
    assert_memory_equal(found, bytes, sizeof(bytes));
    assert_int_equal(close(fd), 0);
}

/* Whichever read fails, the error is handed on, and the scan finds what it would have found. */
static void test_any_read_may_fail_once(void **state)
{
    const int fd = file_new("/tmp");
    size_t errors = 0;

    (void)state;
    assert_true(fd >= 0);
    for (enum mailbox_kind kind = 0; kind < MAILBOX_KINDS; kind++) {
        struct random random = {kind};
        struct mailbox mailbox;

        mailbox_init(&mailbox, kind, 3000, &random);
        const struct gproc_source memory = {.data = mailbox.data,
                                            .size_bytes = (off_t)mailbox.size_bytes};
        const struct gproc_source file = in_file(fd, mailbox.data, mailbox.size_bytes);
        bool failed = true;

        for (size_t failing = 1; failed; failing++) {
            struct gproc_scan scans[2];
            struct gproc_message wanted, found;
            int status;

            failed = false;
            gproc_scan_init(&scans[0], &memory, 0);
            gproc_scan_init(&scans[1], &file, 0);
            scans[1].window.capacity_bytes = 50;
            scans[1].far.capacity_bytes = 70;
            reads.call_to_fail = failing;
            do {
                status = gproc_scan_next(&scans[1], &found);
                if (status < 0) {
                    assert_int_equal(status, -EIO);
                    assert_false(failed);
                    failed = true;
                    errors++;
                    continue;
                }
                assert_int_equal(gproc_scan_next(&scans[0], &wanted), status);
                assert_int_equal(scans[1].position, scans[0].position);
                if (status == 1) {
                    assert_memory_equal(&found, &wanted, sizeof(found));
                }
            } while (status != 0);
            reads.call_to_fail = 0;
            assert_int_equal(scans[1].unresolved, scans[0].unresolved);
            assert_int_equal(scans[1].damaged_bytes, scans[0].damaged_bytes);
            gproc_scan_release(&scans[0]);
            gproc_scan_release(&scans[1]);
        }
        mailbox_release(&mailbox);
    }
    assert_true(errors > 100);
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intact_mailbox_is_read_once),
        cmocka_unit_test(test_one_damaged_frame_costs_no_more_than_its_surroundings),
        cmocka_unit_test(test_reads_of_any_file_are_linear_in_its_size),
        cmocka_unit_test(test_time_for_any_memory_is_linear_in_its_size),
        cmocka_unit_test(test_dear_mailboxes_are_not_read_beyond_their_end),
        cmocka_unit_test(test_sparse_file_of_zeros_yields_nothing),
        cmocka_unit_test(test_interrupted_and_short_reads_are_gone_on_with),
        cmocka_unit_test(test_any_read_may_fail_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
