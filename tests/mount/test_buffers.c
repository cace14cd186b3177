/* Reads with large buffers, which the kernel cuts into pieces: where a message ends at such a cut,
 * the read ends too. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    PAGE_BYTES = 4096,
    MIB = 1 << 20,
    BUFFER_BYTES = 4 * MIB,
};

/* Where a piece of the kernel's may end, or nearly. */
static const size_t sizes[] = {MIB,
                               MIB - 1,
                               MIB + 1,
                               MIB - PAGE_BYTES,
                               MIB - PAGE_BYTES + 1,
                               MIB - PAGE_BYTES + 17,
                               MIB - 17,
                               2 * MIB,
                               2 * MIB - 17,
                               2 * MIB - PAGE_BYTES + 17};
/* Of the buffer, from the start of a page. */
static const size_t shifts[] = {0, 1, 17, 16, PAGE_BYTES - 1};

enum {
    SIZES = sizeof(sizes) / sizeof(sizes[0]),
    SHIFTS = sizeof(shifts) / sizeof(shifts[0]),
};

/* What the children read into; and how. */
static uint8_t *pages;
static struct {
    size_t shift;
    size_t piece_bytes; /* of each read */
    size_t want_bytes;  /* altogether */
} plan;

static void make_pages(void)
{
    pages = mmap(NULL, BUFFER_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
}

/* Reads until all that is wanted is there: no read gets more than that, or waits for it. Whether
 * the bytes are right the text tells: the last of them. */
static void read_as_planned(int fd, struct through_answer *answer)
{
    size_t done = 0;

    while (done < plan.want_bytes) {
        size_t left_bytes = BUFFER_BYTES - done;

        answer->result = read(fd, pages + plan.shift + done,
                              left_bytes < plan.piece_bytes ? left_bytes : plan.piece_bytes);
        answer->error = errno;
        if (answer->result <= 0)
            return;
        done += (size_t)answer->result;
    }
    answer->result = (ssize_t)done;
    memcpy(answer->text, pages + plan.shift + done - 16, 16);
}

/* A child reads, so that one that hangs ends with its deadline. */
static void expect_read(struct mount *mount, const char *view, const uint8_t *expected,
                        size_t size_bytes)
{
    int fd = *view == '\0' ? through_open(mount, BOX, THROUGH_RECEIVE)
                           : through_open_view(mount, view, BOX, THROUGH_RECEIVE);
    struct through_waiter waiter = through_start(0, fd, read_as_planned);
    struct through_answer answer;

    assert_success(close(fd));
    answer = through_await(&waiter);
    if (answer.result != (ssize_t)size_bytes)
        fail_msg("%s: %zd bytes at once instead of %zu (%s), buffer at %zu", view, answer.result,
                 size_bytes, answer.result < 0 ? strerror(answer.error) : "no error", plan.shift);
    assert_memory_equal(answer.text, expected + size_bytes - 16, 16);
    through_await_open(mount, 0);
}

static void expect_whole_messages(struct mount *mount, const char *view, size_t size_bytes)
{
    const uint8_t *payload = through_payload(mount, size_bytes, (uint32_t)size_bytes);

    plan.piece_bytes = BUFFER_BYTES;
    plan.want_bytes = size_bytes;
    for (size_t i = 0; i < SHIFTS; i++) {
        plan.shift = shifts[i];
        /* Alone, and with another one behind it. */
        for (int others = 0; others < 2; others++) {
            assert_int_equal(behind_send(mount, BOX, 1, payload, size_bytes), 0);
            if (others > 0)
                behind_expect_sent(mount, BOX, 2, "the next one");
            expect_read(mount, view, payload, size_bytes);
            through_expect_size(mount, BOX, others > 0 ? 12 : 0);
            if (others > 0)
                through_expect_texts(mount, BOX, "the next one", NULL);
        }
    }
}

static void large_read_of_follow_ends_with_the_message(void **state)
{
    struct mount *mount = mount_of(state);

    make_pages();
    for (size_t i = 0; i < SIZES; i++)
        expect_whole_messages(mount, ".follow", sizes[i]);
}

static void large_read_of_a_mailbox_ends_with_the_message(void **state)
{
    struct mount *mount = mount_of(state);

    make_pages();
    for (size_t i = 0; i < SIZES; i++)
        expect_whole_messages(mount, "", sizes[i]);
}

/* The envelope counts: together with it the message ends at the cut. */
static void large_read_of_envelope_does_not_wait_for_more(void **state)
{
    static const size_t pieces[] = {MIB, BUFFER_BYTES};
    struct mount *mount = mount_of(state);

    make_pages();
    for (size_t i = 0; i < SIZES * SHIFTS; i++) {
        const size_t head_bytes = strlen("7 1048576\n");
        size_t size_bytes = sizes[i / SHIFTS] - head_bytes;
        uint8_t *expected = through_payload(mount, size_bytes + head_bytes, (uint32_t)i + 1);

        plan.shift = shifts[i % SHIFTS];
        assert_int_equal(snprintf((char *)expected, head_bytes + 1, "%d %zu\n",
                                  size_bytes < 1000000 ? 77 : 7, size_bytes),
                         head_bytes);
        expected[head_bytes] = 'x';
        for (size_t j = 0; j < sizeof(pieces) / sizeof(pieces[0]); j++) {
            assert_int_equal(behind_send(mount, BOX, size_bytes < 1000000 ? 77 : 7,
                                         expected + head_bytes, size_bytes),
                             0);
            plan.piece_bytes = pieces[j];
            plan.want_bytes = size_bytes + head_bytes;
            expect_read(mount, ".envelope", expected, size_bytes + head_bytes);
            through_expect_size(mount, BOX, 0);
        }
    }
}

static void mount_with_small_reads_ends_them_with_the_message_too(void **state)
{
    enum { CUT_BYTES = 65536 };
    struct mount *mount = mount_of(state);

    make_pages();
    expect_whole_messages(mount, ".follow", CUT_BYTES);
    expect_whole_messages(mount, "", CUT_BYTES);
}

/* --- As many as fit --------------------------------------------------------------------------- */

static void hundred_thousand_small_messages_fill_each_read_of_envelope(void **state)
{
    enum { MESSAGES = 100000, FRAME_BYTES = BEHIND_HEADER_BYTES + 1, SLACK_BYTES = 16 };
    static const char shown[] = "2147483647 1\nx";
    struct mount *mount = mount_of(state);
    uint8_t *frames = mount_keep(mount, malloc((size_t)MESSAGES * FRAME_BYTES));
    size_t total = 0;
    ssize_t got;
    int fd;

    make_pages();
    for (size_t i = 0; i < MESSAGES; i++) {
        behind_frame(frames + i * FRAME_BYTES, INT32_MAX, "x", 1);
        frames[i * FRAME_BYTES + BEHIND_HEADER_BYTES] = 'x';
    }
    assert_int_equal(behind_append(mount, BOX, frames, (size_t)MESSAGES * FRAME_BYTES), 0);
    fd = through_open_view(mount, ".envelope", BOX, THROUGH_RECEIVE | O_NONBLOCK);
    while ((got = read(fd, pages, MIB)) > 0) {
        size_t left = MESSAGES * strlen(shown) - total;

        for (size_t i = 0; i < (size_t)got; i += strlen(shown))
            assert_memory_equal(pages + i, shown, strlen(shown));
        if ((size_t)got < left)
            assert_in_range(got, MIB - SLACK_BYTES, MIB);
        total += (size_t)got;
    }
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(total, MESSAGES * strlen(shown));
    assert_success(close(fd));
    behind_expect_bytes(mount, BOX, NULL, 0);
}

int main(void)
{
    static const struct mount_options slow = {.seconds = 90};
    static const struct mount_options small_reads = {.options = "max_read=65536"};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(large_read_of_follow_ends_with_the_message, &slow),
        MOUNT_TEST_WITH(large_read_of_a_mailbox_ends_with_the_message, &slow),
        MOUNT_TEST_WITH(large_read_of_envelope_does_not_wait_for_more, &slow),
        MOUNT_TEST_WITH(mount_with_small_reads_ends_them_with_the_message_too, &small_reads),
        MOUNT_TEST_WITH(hundred_thousand_small_messages_fill_each_read_of_envelope, &slow),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("buffers", tests, NULL, NULL) == 0 ? 0 : 1;
}
