/* Receiving through the mount: what one read takes, what goes back, and what is never lost. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "vectors.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    KIB = 1024,
    MIB = 1024 * KIB,
    PAGE_BYTES = 4096,
};

static void send_texts(struct mount *mount, const char *first, const char *second,
                       const char *third)
{
    const char *const texts[] = {first, second, third};

    for (size_t i = 0; i < 3 && texts[i] != NULL; i++)
        behind_expect_sent(mount, BOX, 100 + (int32_t)i, texts[i]);
}

/* One read(2) of at most `size_bytes` must return exactly this text. */
static void expect_small_read(int fd, size_t size_bytes, const char *text)
{
    char buffer[64];
    ssize_t got;

    assert_true(size_bytes < sizeof(buffer));
    got = read(fd, buffer, size_bytes);
    if (got < 0)
        fail_msg("read for \"%s\": %s", text, strerror(errno));
    buffer[got > 0 ? got : 0] = '\0';
    assert_string_equal(buffer, text);
}

/* --- What one read takes --------------------------------------------------------------------- */

static void one_read_takes_one_message(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "one", "two", "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    through_expect_size(mount, BOX, 3 + 5);
    through_expect_read(fd, "two");
    through_expect_size(mount, BOX, 5);
    through_expect_read(fd, "three");
    through_expect_size(mount, BOX, 0);
    through_expect_read(fd, "");
    assert_success(close(fd));
}

static void messages_from_both_sides_are_one_queue(void **state)
{
    struct mount *mount = mount_of(state);

    through_send(mount, BOX, "through");
    behind_expect_sent(mount, BOX, 1, "behind");
    through_send(mount, BOX, "through again");
    through_expect_texts(mount, BOX, "through", "behind", "through again", NULL);
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void small_buffer_gets_the_next_part_with_the_next_read(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "hello", "world", NULL);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(fd, 2, "he");
    expect_small_read(fd, 2, "ll");
    expect_small_read(fd, 2, "o");
    expect_small_read(fd, 5, "world");
    expect_small_read(fd, 5, "");
    assert_success(close(fd));
}

static void buffer_of_exactly_the_message_takes_it_whole(void **state)
{
    static const size_t sizes[] = {1, 4096, 8193, 128 * KIB, 512 * KIB, MIB};
    struct mount *mount = mount_of(state);
    char *buffer = mount_keep(mount, malloc(MIB));

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i);
        int fd = through_open(mount, BOX, O_RDONLY | O_CREAT | O_CLOEXEC);

        assert_int_equal(behind_send(mount, BOX, 1, payload, sizes[i]), 0);
        behind_expect_sent(mount, BOX, 1, "next");
        assert_int_equal(read(fd, buffer, sizes[i]), sizes[i]);
        assert_memory_equal(buffer, payload, sizes[i]);
        through_expect_read(fd, "next");
        through_expect_read(fd, "");
        assert_success(close(fd));
    }
}

/* The kernel cuts a read into requests: here each but the last is answered in full. */
static void large_buffer_takes_one_large_message(void **state)
{
    static const size_t sizes[] = {MIB + 1, 3 * MIB - 1, 5000000};
    struct mount *mount = mount_of(state);
    char *buffer = mount_keep(mount, malloc(8 * MIB));

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i);
        int fd;

        assert_int_equal(behind_send(mount, BOX, 1, payload, sizes[i]), 0);
        behind_expect_sent(mount, BOX, 1, "next");
        fd = through_open(mount, BOX, THROUGH_RECEIVE);
        assert_int_equal(read(fd, buffer, 8 * MIB), sizes[i]);
        assert_memory_equal(buffer, payload, sizes[i]);
        through_expect_read(fd, "next");
        assert_success(close(fd));
    }
}

static void message_of_any_size_comes_out_as_it_was(void **state)
{
    static const size_t sizes[] = {1, 8193, MIB, 5000000, 64 * MIB};
    struct mount *mount = mount_of(state);
    uint8_t *buffer = mount_keep(mount, malloc(128 * KIB));

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i);
        size_t done = 0;
        ssize_t got;
        int fd;

        assert_int_equal(behind_send(mount, BOX, 1, payload, sizes[i]), 0);
        fd = through_open(mount, BOX, THROUGH_RECEIVE);
        while ((got = read(fd, buffer, 128 * KIB)) > 0) {
            assert_true(done + (size_t)got <= sizes[i]);
            assert_memory_equal(buffer, payload + done, (size_t)got);
            done += (size_t)got;
        }
        assert_int_equal(got, 0);
        assert_int_equal(done, sizes[i]);
        assert_success(close(fd));
        through_expect_size(mount, BOX, 0);
    }
}

static void empty_mailbox_is_at_its_end_at_once(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "", ": > $M/%d; cat $M/%d", BOX, BOX);
    through_expect_texts(mount, BOX, NULL);
}

static void reader_at_the_end_gets_what_comes_later(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, O_RDONLY | O_CREAT | O_CLOEXEC);

    through_expect_read(fd, "");
    behind_expect_sent(mount, BOX, 1, "later");
    through_expect_read(fd, "later");
    through_expect_read(fd, "");
    through_send(mount, BOX, "and later");
    through_expect_read(fd, "and later");
    through_expect_read(fd, "");
    assert_success(close(fd));
}

static void opening_and_closing_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);

    send_texts(mount, "one", NULL, NULL);
    for (int i = 0; i < 3; i++)
        assert_success(close(through_open(mount, BOX, THROUGH_RECEIVE)));
    behind_expect_texts(mount, BOX, "one", NULL);
    through_expect_texts(mount, BOX, "one", NULL);
}

static void read_at_another_offset_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    char buffer[64];
    int fd;

    send_texts(mount, "hello", "world", NULL);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 5), 0);
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 1), 0);
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 1 << 30), 0);
    through_expect_size(mount, BOX, 10);
    expect_small_read(fd, 2, "he");
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 0), 0);
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 1), 0);
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 3), 0);
    expect_small_read(fd, 10, "llo");
    assert_int_equal(pread(fd, buffer, sizeof(buffer), 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(read(fd, buffer, sizeof(buffer)), 0);
    assert_int_equal(lseek(fd, 5, SEEK_SET), 5);
    through_expect_read(fd, "world");
    through_expect_read(fd, "");
    assert_success(close(fd));
}

/* --- What goes back -------------------------------------------------------------------------- */

static void fsync_of_who_only_reads_does_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_send(mount, BOX, "hello");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_success(fsync(fd));
    through_expect_read(fd, "hello");
    assert_success(fsync(fd));
    assert_success(close(fd));
}

static void message_partly_read_goes_back_whole_to_the_front(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "hello", "world", NULL);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(fd, 4, "hell");
    behind_expect_sent(mount, BOX, 1, "newer");
    assert_success(close(fd));
    through_expect_size(mount, BOX, 15);
    through_expect_texts(mount, BOX, "hello", "world", "newer", NULL);
}

static void messages_that_were_not_read_stay(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "one", "two", "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    assert_success(close(fd));
    behind_expect_sent(mount, BOX, 1, "four");
    through_expect_texts(mount, BOX, "two", "three", "four", NULL);
}

static void several_readers_share_the_messages_in_order(void **state)
{
    struct mount *mount = mount_of(state);
    int first;
    int second;

    send_texts(mount, "one", "two", "three");
    first = through_open(mount, BOX, THROUGH_RECEIVE);
    second = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(first, "one");
    through_expect_read(second, "two");
    through_expect_read(first, "three");
    through_expect_read(second, "");
    through_expect_read(first, "");
    assert_success(close(first));
    assert_success(close(second));
}

static void reader_of_a_part_keeps_its_message_from_others(void **state)
{
    struct mount *mount = mount_of(state);
    int first;
    int second;

    send_texts(mount, "hello", "two", "three");
    first = through_open(mount, BOX, THROUGH_RECEIVE);
    second = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(first, 2, "he");
    through_expect_read(second, "two");
    expect_small_read(first, 2, "ll");
    assert_success(close(first));
    through_expect_read(second, "hello");
    through_expect_read(second, "three");
    through_expect_read(second, "");
    assert_success(close(second));
}

static void two_partly_read_messages_go_back_in_their_order(void **state)
{
    struct mount *mount = mount_of(state);
    int first;
    int second;

    send_texts(mount, "first", "second", "third");
    first = through_open(mount, BOX, THROUGH_RECEIVE);
    second = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(first, 1, "f");
    expect_small_read(second, 1, "s");
    assert_success(close(second));
    assert_success(close(first));
    through_expect_texts(mount, BOX, "first", "second", "third", NULL);
}

/* --- What is passed over --------------------------------------------------------------------- */

static void empty_message_is_passed_over(void **state)
{
    struct mount *mount = mount_of(state);

    send_texts(mount, "", "one", "");
    send_texts(mount, "", "two", "");
    through_expect_texts(mount, BOX, "one", "two", NULL);
    behind_expect_bytes(mount, BOX, NULL, 0);

    send_texts(mount, "", "", "");
    through_expect_texts(mount, BOX, NULL);
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void damaged_bytes_are_passed_over(void **state)
{
    static const uint8_t torn[] = {200, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 'x', 'y', 'z'};
    struct mount *mount = mount_of(state);

    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, torn, 5), 0);
    behind_expect_sent(mount, BOX, 1, "two");
    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    through_expect_size(mount, BOX, 6);
    through_expect_texts(mount, BOX, "one", "two", NULL);
    through_expect_size(mount, BOX, 0);
    through_send(mount, BOX, "three");
    through_expect_texts(mount, BOX, "three", NULL);
}

static void receive_vector(struct mount *mount, const struct vector *vector)
{
    static uint8_t buffer[1 << 16];
    off_t payload_bytes = 0;
    int fd;

    for (size_t i = 0; i < vector->message_count; i++)
        payload_bytes += (off_t)vector->messages[i].payload_bytes;
    assert_int_equal(behind_append(mount, BOX, vector->mailbox, vector->mailbox_bytes), 0);
    through_expect_size(mount, BOX, payload_bytes);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    for (size_t i = 0; i < vector->message_count; i++) {
        const struct vector_message *message = &vector->messages[i];
        ssize_t got;

        if (message->payload_bytes == 0)
            continue;
        got = read(fd, buffer, sizeof(buffer));
        if (got != (ssize_t)message->payload_bytes ||
            memcmp(buffer, message->payload, message->payload_bytes) != 0)
            fail_msg("case %d, message %zu: %zd bytes instead of %zu, or others", vector->number, i,
                     got, message->payload_bytes);
    }
    if (read(fd, buffer, sizeof(buffer)) != 0)
        fail_msg("case %d: more messages than %zu", vector->number, vector->message_count);
    assert_success(close(fd));
    through_expect_size(mount, BOX, 0);
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void every_vector_yields_exactly_its_messages(void **state)
{
    struct mount *mount = mount_of(state);
    struct vectors vectors;

    vectors_init(&vectors, "resync.txt");
    assert_true(vectors.count >= 600);
    for (size_t i = 0; i < vectors.count; i++)
        receive_vector(mount, &vectors.vectors[i]);
    vectors_release(&vectors);
}

/* --- What shells take ------------------------------------------------------------------------ */

static void tool_takes_no_more_than_it_uses(void **state)
{
    static const char *const lines[] = {
        "head -n1 $M/4711",
        "head -n1 < $M/4711",
        "dd if=$M/4711 count=1 bs=4096 status=none",
        "read line < $M/4711; echo \"$line\"",
        "sed -u q $M/4711",
    };
    static const char *const shells[] = {"bash", "dash", "zsh"};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        for (size_t j = 0; j < sizeof(shells) / sizeof(shells[0]); j++) {
            if (!process_has(shells[j]))
                continue;
            send_texts(mount, "first\n", "second\n", "third\n");
            through_expect_run(mount, shells[j], "first\n", "%s", lines[i]);
            through_expect_size(mount, BOX, 7 + 6);
            through_expect_run(mount, shells[j], "second\n", "%s", lines[i]);
            through_expect_run(mount, shells[j], "third\n", "cat $M/4711");
        }
    }
}

static void loop_of_reads_takes_all_lines(void **state)
{
    static const char *const shells[] = {"bash", "dash", "zsh"};
    struct mount *mount = mount_of(state);

    for (size_t j = 0; j < sizeof(shells) / sizeof(shells[0]); j++) {
        if (!process_has(shells[j]))
            continue;
        send_texts(mount, "first\n", "second\n", "third\n");
        through_expect_run(mount, shells[j], "<first><second><third>",
                           "while read line; do printf '<%%s>' $line; done < $M/4711");
    }
}

/* --- What outlives the daemon ---------------------------------------------------------------- */

static void unmount_puts_unread_messages_back_before_newer_ones(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "one", "two", "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    expect_small_read(fd, 2, "tw");
    behind_expect_sent(mount, BOX, 7, "newer");
    assert_success(close(fd));
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, "two", "three", "newer", NULL);
    assert_int_equal(mount_start(mount), 0);
    through_expect_size(mount, BOX, 3 + 5 + 5);
    through_expect_texts(mount, BOX, "two", "three", "newer", NULL);
}

static void unmount_with_a_reader_puts_its_part_back_too(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    send_texts(mount, "one", "two", "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(fd, 2, "on");
    behind_expect_sent(mount, BOX, 7, "newer");
    assert_int_equal(mount_stop(mount), 0);
    (void)close(fd);
    behind_expect_texts(mount, BOX, "one", "two", "three", "newer", NULL);
}

static void unmount_leaves_every_mailbox_as_the_reference_knows_it(void **state)
{
    enum { BOXES = 50 };
    struct mount *mount = mount_of(state);

    for (int i = 0; i < BOXES; i++) {
        int fd;

        behind_expect_sent(mount, BOX + i, 1, "one");
        behind_expect_sent(mount, BOX + i, 2, "two");
        fd = through_open(mount, BOX + i, THROUGH_RECEIVE);
        through_expect_read(fd, "one");
        assert_success(close(fd));
    }
    assert_int_equal(mount_stop(mount), 0);
    for (int i = 0; i < BOXES; i++)
        behind_expect_frame(mount, BOX + i, 2, "two", 3);
}

/* A sender's id, and an empty message, are kept on the way to the in-flight store and back. */
static void what_goes_back_is_byte_for_byte_what_was_taken(void **state)
{
    struct mount *mount = mount_of(state);
    uint8_t *before;
    ssize_t before_bytes;
    int fd;

    behind_expect_sent(mount, BOX, 1234567, "first");
    behind_expect_sent(mount, BOX, -1, "second");
    behind_expect_sent(mount, BOX, 0, "");
    behind_expect_sent(mount, BOX, 2147483647, "third");
    before_bytes = behind_read(mount, BOX, &before);
    mount_keep(mount, before);
    assert_true(before_bytes > 0);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    expect_small_read(fd, 1, "f");
    assert_success(close(fd));
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_bytes(mount, BOX, before, (size_t)before_bytes);
}

/* Taking several messages moves them, which needs as much room again: without it nothing is taken,
 * and nothing lost. */
static void full_file_system_refuses_to_take_what_it_cannot_keep(void **state)
{
    struct mount *mount = mount_of(state);
    const char *filler = mount_keep(mount, strdup(mount_path(mount, "%s/filler", mount->mail)));
    size_t payload_bytes = 8 * PAGE_BYTES - BEHIND_HEADER_BYTES;
    const uint8_t *payload = through_payload(mount, payload_bytes, 1);
    char *buffer = mount_keep(mount, malloc(MIB));
    uint8_t *before;
    ssize_t before_bytes;
    int fd;

    for (int i = 0; i < 4; i++)
        assert_int_equal(behind_send(mount, BOX, 1, payload, payload_bytes), 0);
    before_bytes = behind_read(mount, BOX, &before);
    mount_keep(mount, before);
    through_expect_run(mount, "sh", NULL, "cat /dev/zero > %s; true", filler);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_errno((int)read(fd, buffer, MIB), ENOSPC);
    behind_expect_bytes(mount, BOX, before, (size_t)before_bytes);
    assert_success(unlink(filler));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(read(fd, buffer, MIB), payload_bytes);
        assert_memory_equal(buffer, payload, payload_bytes);
    }
    through_expect_read(fd, "");
    assert_success(close(fd));
}

/* The only message of a mailbox is handed over from where it is. */
static void full_file_system_still_hands_over_an_only_message(void **state)
{
    struct mount *mount = mount_of(state);
    const char *filler = mount_keep(mount, strdup(mount_path(mount, "%s/filler", mount->mail)));

    assert_int_equal(behind_send(mount, BOX, 1, "only", 4), 0);
    through_expect_run(mount, "sh", NULL, "cat /dev/zero > %s; true", filler);
    through_expect_texts(mount, BOX, "only", NULL);
    assert_success(unlink(filler));
}

static void read_only_mount_refuses_to_take_and_to_send(void **state)
{
    struct mount *mount = mount_of(state);
    char buffer[64];
    int fd;

    send_texts(mount, "one", NULL, NULL);
    through_expect_size(mount, BOX, 3);
    assert_errno(open(through_box(mount, BOX), THROUGH_REPLACE, 0666), EROFS);
    assert_errno(open(through_box(mount, BOX), THROUGH_APPEND, 0666), EROFS);
    assert_errno(open(through_box(mount, OTHER), THROUGH_REPLACE, 0666), EROFS);
    assert_errno(unlink(through_box(mount, BOX)), EROFS);
    /* At the open or at the read. */
    errno = 0;
    fd = open(through_box(mount, BOX), THROUGH_RECEIVE);
    if (fd >= 0)
        assert_int_equal(read(fd, buffer, sizeof(buffer)), -1);
    assert_int_equal(errno, EROFS);
    if (fd >= 0)
        close(fd);
    behind_expect_texts(mount, BOX, "one", NULL);
}

int main(void)
{
    static const struct mount_options large = {.seconds = 30};
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options read_only = {.options = "ro"};
    static const struct mount_options tmpfs = {
        .place = MOUNT_ON_TMPFS, .place_kib = 512, .chatty = true};
    static const struct mount_options ext4 = {
        .place = MOUNT_ON_EXT4, .place_kib = 2048, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(one_read_takes_one_message),
        MOUNT_TEST(messages_from_both_sides_are_one_queue),
        MOUNT_TEST(small_buffer_gets_the_next_part_with_the_next_read),
        MOUNT_TEST(buffer_of_exactly_the_message_takes_it_whole),
        MOUNT_TEST(large_buffer_takes_one_large_message),
        MOUNT_TEST_WITH(message_of_any_size_comes_out_as_it_was, &large),
        MOUNT_TEST(empty_mailbox_is_at_its_end_at_once),
        MOUNT_TEST(reader_at_the_end_gets_what_comes_later),
        MOUNT_TEST(opening_and_closing_takes_nothing),
        MOUNT_TEST(read_at_another_offset_takes_nothing),
        MOUNT_TEST(fsync_of_who_only_reads_does_nothing),
        MOUNT_TEST(message_partly_read_goes_back_whole_to_the_front),
        MOUNT_TEST(messages_that_were_not_read_stay),
        MOUNT_TEST(several_readers_share_the_messages_in_order),
        MOUNT_TEST(reader_of_a_part_keeps_its_message_from_others),
        MOUNT_TEST(two_partly_read_messages_go_back_in_their_order),
        MOUNT_TEST(empty_message_is_passed_over),
        MOUNT_TEST_WITH(damaged_bytes_are_passed_over, &chatty),
        MOUNT_TEST_WITH(every_vector_yields_exactly_its_messages, &chatty),
        MOUNT_TEST(tool_takes_no_more_than_it_uses),
        MOUNT_TEST(loop_of_reads_takes_all_lines),
        MOUNT_TEST(unmount_puts_unread_messages_back_before_newer_ones),
        MOUNT_TEST(unmount_with_a_reader_puts_its_part_back_too),
        MOUNT_TEST(unmount_leaves_every_mailbox_as_the_reference_knows_it),
        MOUNT_TEST(what_goes_back_is_byte_for_byte_what_was_taken),
        MOUNT_TEST_WITH(full_file_system_refuses_to_take_what_it_cannot_keep, &tmpfs),
        MOUNT_TEST_WITH(full_file_system_refuses_to_take_what_it_cannot_keep, &ext4),
        MOUNT_TEST_WITH(full_file_system_still_hands_over_an_only_message, &tmpfs),
        MOUNT_TEST_WITH(full_file_system_still_hands_over_an_only_message, &ext4),
        MOUNT_TEST_WITH(read_only_mount_refuses_to_take_and_to_send, &read_only),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("receive", tests, NULL, NULL) == 0 ? 0 : 1;
}
