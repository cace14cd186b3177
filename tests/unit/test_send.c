/*
 * What is collected for one message, and when it is refused: places that it does not have, more than
 * all files may collect, more than a message may hold; and writes that the kernel has cut, which are
 * one message still, of one sender, or none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gprocfs.h"
#include "inside.h"
#include "process.h"
#include "stage.h"

enum {
    MOST_BYTES = 400 * 1024, /* a message */
    MOST_MESSAGES = 16,      /* of this size all files may collect together */
    PIECE_BYTES = 128 * 1024,
    WHOLE_BYTES = 3 * PIECE_BYTES,
    WAIT_MS = 20000,
};

static const struct inside_options options = {.message_most_bytes = MOST_BYTES};
static const uint8_t bytes[MOST_BYTES + 1];

struct fixture {
    struct stage stage;
    struct inside *inside;
    uint64_t node;
    uint64_t handle;
};

static void mount_on(struct fixture *fixture, void **state)
{
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
    temporary_write(fixture->stage.box, NULL, 0);
    fixture->inside = inside_mount(fixture->stage.parent, &options);
    assert_int_equal(inside_look_up(fixture->inside, INSIDE_ROOT, "4711", &fixture->node), 0);
}

static void unmount(struct fixture *fixture)
{
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static void open_to(struct fixture *fixture, int how)
{
    assert_int_equal(inside_open(fixture->inside, fixture->node, O_WRONLY | how, &fixture->handle),
                     0);
}

static int write_at(struct fixture *fixture, const char *text, off_t offset)
{
    return inside_write(fixture->inside, fixture->node, fixture->handle, text, strlen(text),
                        offset);
}

static int flush(struct fixture *fixture)
{
    return inside_flush(fixture->inside, fixture->node, fixture->handle);
}

static int sync_file(struct fixture *fixture)
{
    struct fuse_fsync_in in = {.fh = fixture->handle};

    return inside_await(fixture->inside, inside_send(fixture->inside, FUSE_FSYNC, fixture->node,
                                                     &in, sizeof(in), NULL, 0));
}

static int set_size(struct fixture *fixture, int64_t size_bytes)
{
    struct fuse_setattr_in in = {
        .valid = FATTR_SIZE | FATTR_FH, .fh = fixture->handle, .size = (uint64_t)size_bytes};

    return inside_await(fixture->inside, inside_send(fixture->inside, FUSE_SETATTR, fixture->node,
                                                     &in, sizeof(in), NULL, 0));
}

static void release(struct fixture *fixture)
{
    assert_int_equal(inside_release(fixture->inside, fixture->node, fixture->handle), 0);
}

static size_t box_bytes(const struct fixture *fixture)
{
    struct stat status;

    assert_int_equal(stat(fixture->stage.box, &status), 0);
    return (size_t)status.st_size;
}

/* The one message, whoever sent it: then the mailbox is emptied. */
static void expect_sent(struct fixture *fixture, int32_t sender, const void *payload,
                        size_t payload_bytes)
{
    static uint8_t frame[TEMPORARY_HEADER_BYTES + MOST_BYTES];

    temporary_expect(fixture->stage.box, frame,
                     temporary_frame(frame, sender, payload, payload_bytes));
    temporary_write(fixture->stage.box, NULL, 0);
}

/* ---- Places in the message */

static void test_places_that_no_message_has_are_refused(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_to(&fixture, O_TRUNC);
    assert_int_equal(write_at(&fixture, "x", -1), -EINVAL);
    assert_int_equal(set_size(&fixture, -1), -EINVAL);
    assert_int_equal(write_at(&fixture, "x", (off_t)MOST_BYTES), -EFBIG);
    release(&fixture);
    assert_int_equal(box_bytes(&fixture), 0);
    open_to(&fixture, O_TRUNC);
    assert_int_equal(write_at(&fixture, "x", (off_t)MOST_BYTES + 1), -EFBIG);
    assert_int_equal(set_size(&fixture, 1), -EFBIG); /* it cannot become whole any more */
    assert_int_equal(flush(&fixture), -EFBIG);
    release(&fixture);
    assert_int_equal(box_bytes(&fixture), 0);
    unmount(&fixture);
}

/* fsync sends; what comes behind is another message, and what has been sent stays as it was. */
static void test_what_has_been_sent_is_not_written_to_any_more(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_to(&fixture, O_TRUNC);
    assert_int_equal(write_at(&fixture, "first", 0), 0);
    assert_int_equal(sync_file(&fixture), 0);
    expect_sent(&fixture, getpid(), "first", 5);
    assert_int_equal(write_at(&fixture, "second", 5), 0);
    assert_int_equal(write_at(&fixture, "x", 2), -EINVAL);
    assert_int_equal(flush(&fixture), 0);
    expect_sent(&fixture, getpid(), "second", 6);
    release(&fixture);
    unmount(&fixture);
}

/* A save after a save: the writer goes back to the start, with or without truncating. */
static void test_writer_that_begins_anew_begins_a_message(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_to(&fixture, O_TRUNC);
    assert_int_equal(write_at(&fixture, "first", 0), 0);
    assert_int_equal(flush(&fixture), 0);
    expect_sent(&fixture, getpid(), "first", 5);
    assert_int_equal(write_at(&fixture, "anew", 0), 0);
    assert_int_equal(flush(&fixture), 0);
    expect_sent(&fixture, getpid(), "anew", 4);
    assert_int_equal(set_size(&fixture, 0), 0);
    assert_int_equal(write_at(&fixture, "again", 0), 0);
    assert_int_equal(flush(&fixture), 0);
    expect_sent(&fixture, getpid(), "again", 5);
    release(&fixture);
    unmount(&fixture);
}

/* ftruncate on a descriptor whose mailbox is gone acts on what it collects. */
static void test_message_for_a_mailbox_that_is_gone_can_be_resized(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_to(&fixture, O_TRUNC);
    assert_int_equal(write_at(&fixture, "whole", 0), 0);
    temporary_remove(fixture.stage.box);
    assert_int_equal(set_size(&fixture, (int64_t)MOST_BYTES + 1), -EFBIG);
    assert_int_equal(set_size(&fixture, 3), 0);
    assert_int_equal(flush(&fixture), 0);
    expect_sent(&fixture, getpid(), "who", 3);
    release(&fixture);
    unmount(&fixture);
}

/* ---- What all of them may collect */

static void test_what_all_files_collect_is_bounded(void **state)
{
    struct fixture fixture;
    uint64_t handles[MOST_MESSAGES + 1];

    mount_on(&fixture, state);
    for (size_t i = 0; i <= MOST_MESSAGES; i++) {
        open_to(&fixture, O_TRUNC);
        handles[i] = fixture.handle;
        assert_int_equal(
            inside_write(fixture.inside, fixture.node, fixture.handle, bytes, MOST_BYTES, 0),
            i < MOST_MESSAGES ? 0 : -ENOSPC);
    }
    /* One that is given up makes room. */
    fixture.handle = handles[0];
    release(&fixture);
    fixture.handle = handles[MOST_MESSAGES];
    assert_int_equal(flush(&fixture), -ENOSPC); /* told once */
    assert_int_equal(
        inside_write(fixture.inside, fixture.node, fixture.handle, bytes, MOST_BYTES, 0), 0);
    for (size_t i = 1; i <= MOST_MESSAGES; i++) {
        fixture.handle = handles[i];
        release(&fixture);
    }
    assert_int_equal(atomic_load(&inside_fs(fixture.inside)->collected_bytes), 0);
    assert_int_equal(box_bytes(&fixture), 0);
    unmount(&fixture);
}

/* ---- Writes that the kernel has cut */

/* A process that is in the midst of a write of so many bytes, as /proc shows it: of one buffer, or of
 * two parts. It hangs at a pipe that is full. */
struct writer {
    pid_t pid;
    int pipe_fds[2];
};

static void be_writer(int fd, size_t whole_bytes, bool of_parts)
{
    void *memory = calloc(1, whole_bytes);
    struct iovec parts[2] = {{memory, whole_bytes / 2}, {memory, whole_bytes - whole_bytes / 2}};

    if (memory == NULL)
        _exit(1);
    if (of_parts)
        _exit(writev(fd, parts, 2) < 0);
    _exit(write(fd, memory, whole_bytes) < 0);
}

static struct writer start_writer(size_t whole_bytes, bool of_parts)
{
    struct writer writer;
    uint8_t byte;

    assert_int_equal(pipe(writer.pipe_fds), 0);
    writer.pid = process_fork(0);
    assert_true(writer.pid >= 0);
    if (writer.pid == 0)
        be_writer(writer.pipe_fds[1], whole_bytes, of_parts);
    assert_int_equal(read(writer.pipe_fds[0], &byte, 1), 1); /* it is at it */
    return writer;
}

static void stop_writer(struct writer *writer)
{
    assert_int_equal(kill(writer->pid, SIGKILL), 0);
    assert_int_equal(temporary_join(writer->pid, WAIT_MS), 128 + SIGKILL);
    (void)close(writer->pipe_fds[0]);
    (void)close(writer->pipe_fds[1]);
}

static int write_piece(struct fixture *fixture, const struct writer *writer, int number)
{
    inside_become(fixture->inside, getuid(), getgid(), writer->pid);
    return inside_write(fixture->inside, fixture->node, fixture->handle, bytes, PIECE_BYTES,
                        (off_t)number * PIECE_BYTES);
}

static void test_cut_write_is_one_message(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_to(&fixture, O_APPEND);
    for (int of_parts = 0; of_parts < 2; of_parts++) {
        struct writer writer = start_writer(WHOLE_BYTES, of_parts);

        assert_int_equal(write_piece(&fixture, &writer, 0), 0);
        assert_int_equal(write_piece(&fixture, &writer, 1), 0);
        assert_int_equal(box_bytes(&fixture), 0);
        assert_int_equal(write_piece(&fixture, &writer, 2), 0);
        expect_sent(&fixture, writer.pid, bytes, WHOLE_BYTES);
        stop_writer(&writer);
    }
    release(&fixture);
    unmount(&fixture);
}

static void test_cut_write_that_is_too_large_is_refused_at_its_first_piece(void **state)
{
    struct fixture fixture;
    struct writer writer;

    mount_on(&fixture, state);
    open_to(&fixture, O_APPEND);
    writer = start_writer(MOST_BYTES + 1, false);
    assert_int_equal(write_piece(&fixture, &writer, 0), -EFBIG);
    assert_int_equal(box_bytes(&fixture), 0);
    stop_writer(&writer);
    /* The next one is not of it. */
    inside_become(fixture.inside, getuid(), getgid(), gettid());
    assert_int_equal(write_at(&fixture, "next", 0), 0);
    expect_sent(&fixture, getpid(), "next", 4);
    release(&fixture);
    unmount(&fixture);
}

/* Of a writer that went away in the midst of his write: it is no part of the next one's. */
static void test_cut_write_of_another_is_forgotten(void **state)
{
    struct fixture fixture;
    struct writer writer;

    mount_on(&fixture, state);
    open_to(&fixture, O_APPEND);
    writer = start_writer(WHOLE_BYTES, false);
    assert_int_equal(write_piece(&fixture, &writer, 0), 0);
    inside_become(fixture.inside, getuid(), getgid(), gettid());
    assert_int_equal(write_at(&fixture, "mine", 0), 0);
    expect_sent(&fixture, getpid(), "mine", 4);
    /* Nor is it sent when the file is closed. */
    assert_int_equal(write_piece(&fixture, &writer, 0), 0);
    assert_int_equal(flush(&fixture), 0);
    assert_int_equal(box_bytes(&fixture), 0);
    stop_writer(&writer);
    release(&fixture);
    unmount(&fixture);
}

/* All pieces but the last have been answered with success, so the writer sees a short count, and offers
 * the rest: it hears of the failure then. */
static void test_failure_of_a_cut_write_is_told_to_who_offers_the_rest(void **state)
{
    struct fixture fixture;
    struct writer writer;
    struct stat status;

    mount_on(&fixture, state);
    open_to(&fixture, O_APPEND);
    writer = start_writer(WHOLE_BYTES, false);
    assert_int_equal(write_piece(&fixture, &writer, 0), 0);
    assert_int_equal(write_piece(&fixture, &writer, 1), 0);
    /* Something else has come in the mailbox's place. */
    assert_int_equal(unlink(fixture.stage.box), 0);
    temporary_mkdir(fixture.stage.box);
    assert_true(write_piece(&fixture, &writer, 2) < 0);
    assert_true(write_piece(&fixture, &writer, 2) < 0);
    assert_int_equal(rmdir(fixture.stage.box), 0);
    assert_int_equal(lstat(fixture.stage.box, &status), -1);
    stop_writer(&writer);
    release(&fixture);
    unmount(&fixture);
}

/* All files together have collected what they may: a piece is refused, and what was kept of it goes. */
static void test_piece_without_room_is_refused(void **state)
{
    struct fixture fixture;
    uint64_t handles[MOST_MESSAGES];
    uint64_t writers;
    struct writer writer;

    mount_on(&fixture, state);
    open_to(&fixture, O_APPEND);
    writers = fixture.handle;
    fixture.node = 0;
    assert_int_equal(inside_look_up(fixture.inside, INSIDE_ROOT, "4711", &fixture.node), 0);
    for (size_t i = 0; i < MOST_MESSAGES; i++) {
        open_to(&fixture, O_TRUNC);
        handles[i] = fixture.handle;
        assert_int_equal(
            inside_write(fixture.inside, fixture.node, fixture.handle, bytes, MOST_BYTES, 0), 0);
    }
    writer = start_writer(WHOLE_BYTES, false);
    fixture.handle = writers;
    assert_int_equal(write_piece(&fixture, &writer, 0), -ENOSPC);
    fixture.handle = handles[0];
    release(&fixture);
    fixture.handle = writers;
    assert_int_equal(write_piece(&fixture, &writer, 0), 0);
    for (size_t i = 1; i < MOST_MESSAGES; i++) {
        fixture.handle = handles[i];
        release(&fixture);
    }
    fixture.handle = writers;
    assert_int_equal(write_piece(&fixture, &writer, 1), 0);
    assert_int_equal(write_piece(&fixture, &writer, 2), 0);
    expect_sent(&fixture, writer.pid, bytes, WHOLE_BYTES);
    stop_writer(&writer);
    release(&fixture);
    unmount(&fixture);
}

/* ---- The lock is held by others */

static int hold_lock(const struct fixture *fixture)
{
    int fd = open(fixture->stage.lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    return fd;
}

static uint64_t send_flush(struct fixture *fixture)
{
    struct fuse_flush_in in = {.fh = fixture->handle};

    return inside_send(fixture->inside, FUSE_FLUSH, fixture->node, &in, sizeof(in), NULL, 0);
}

/* Messages that wait for a lock are sent in the order in which they came, but for those whose writers
 * are interrupted, and are counted as collected until then. */
static void test_messages_that_wait_for_the_lock_are_sent_in_order(void **state)
{
    static const char *const texts[] = {"one", "two", "three"};
    struct fixture fixture;
    uint64_t handles[3], numbers[3];
    uint8_t both[64];
    size_t used;
    int fd;

    mount_on(&fixture, state);
    for (size_t i = 0; i < 3; i++) {
        open_to(&fixture, O_TRUNC);
        handles[i] = fixture.handle;
        assert_int_equal(write_at(&fixture, texts[i], 0), 0);
    }
    fd = hold_lock(&fixture);
    for (size_t i = 0; i < 3; i++) {
        fixture.handle = handles[i];
        numbers[i] = send_flush(&fixture);
        assert_false(inside_is_answered(fixture.inside, numbers[i]));
    }
    assert_int_equal(atomic_load(&inside_fs(fixture.inside)->collected_bytes), 11);
    inside_interrupt(fixture.inside, numbers[1]);
    assert_int_equal(inside_await(fixture.inside, numbers[1]), -EINTR);
    assert_int_equal(box_bytes(&fixture), 0);
    (void)close(fd);
    assert_int_equal(inside_await(fixture.inside, numbers[0]), 0);
    assert_int_equal(inside_await(fixture.inside, numbers[2]), 0);
    used = temporary_frame(both, getpid(), "one", 3);
    used += temporary_frame(both + used, getpid(), "three", 5);
    temporary_expect(fixture.stage.box, both, used);
    for (size_t i = 0; i < 3; i++) {
        fixture.handle = handles[i];
        release(&fixture);
    }
    unmount(&fixture);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_places_that_no_message_has_are_refused),
        TEMPORARY_TEST(test_what_has_been_sent_is_not_written_to_any_more),
        TEMPORARY_TEST(test_writer_that_begins_anew_begins_a_message),
        TEMPORARY_TEST(test_message_for_a_mailbox_that_is_gone_can_be_resized),
        TEMPORARY_TEST(test_what_all_files_collect_is_bounded),
        TEMPORARY_TEST(test_cut_write_is_one_message),
        TEMPORARY_TEST(test_cut_write_that_is_too_large_is_refused_at_its_first_piece),
        TEMPORARY_TEST(test_cut_write_of_another_is_forgotten),
        TEMPORARY_TEST(test_failure_of_a_cut_write_is_told_to_who_offers_the_rest),
        TEMPORARY_TEST(test_piece_without_room_is_refused),
        TEMPORARY_TEST(test_messages_that_wait_for_the_lock_are_sent_in_order),
    };

    return cmocka_run_group_tests_name("send", tests, NULL, NULL);
}
