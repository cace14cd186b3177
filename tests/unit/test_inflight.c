/*
 * What is in flight: messages leave in the order in which they came, each once, also by way of
 * being given back, out of order deliveries, a restart and the way back into the mailbox.
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
#include <sys/syscall.h>
#include <unistd.h>

#include "inflight.h"
#include "segment.h"
#include "temporary.h"
#include "world.h"

enum {
    PID = 4711,
};

struct fixture {
    struct temporary *temporary;
    const char *box;
    struct world world;
};

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->temporary = *state;
    fixture->box = strcpy(temporary_memory(*state, PATH_MAX), temporary_path(*state, "gproc/4711"));
    assert_int_equal(world_open(&fixture->world, fixture->temporary->root, PID), 0);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    world_close(&fixture->world);
}

/* The mount ends and the next one begins. */
static void restart(struct fixture *fixture)
{
    world_close(&fixture->world);
    assert_int_equal(world_open(&fixture->world, fixture->temporary->root, PID), 0);
}

static void send(struct fixture *fixture, const char *text)
{
    temporary_append_text(fixture->box, (int32_t)strlen(text), text);
}

/* Sends each of the texts, and takes them. */
static void send_and_take(struct fixture *fixture, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        send(fixture, texts[i]);
    assert_int_equal(world_take(&fixture->world), 0);
    temporary_expect(fixture->box, "", 0);
}

static void assert_text(const struct gproc_taken *taken, const char *text)
{
    char found[256] = "";
    size_t length = strlen(text);

    assert_int_equal(taken->message.payload_bytes, length);
    assert_int_equal(gproc_inflight_read(taken, found, length, 0), 0);
    assert_string_equal(found, text);
    assert_int_equal(taken->message.sender, length);
    /* Piece by piece, and not a byte more. */
    for (size_t i = 0; i < length; i++) {
        char byte;

        assert_int_equal(gproc_inflight_read(taken, &byte, 1, i), 0);
        assert_int_equal(byte, text[i]);
    }
}

static struct gproc_taken *next(struct fixture *fixture, const char *text)
{
    struct gproc_taken *taken;

    if (gproc_inflight_next(&fixture->world.inflight, &taken) != 1)
        fail_msg("there is no %s", text);
    assert_text(taken, text);
    return taken;
}

static void assert_no_next(struct fixture *fixture)
{
    struct gproc_taken *taken;

    assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &taken), 0);
}

static void deliver(struct fixture *fixture, struct gproc_taken *taken)
{
    assert_int_equal(gproc_inflight_deliver(&fixture->world.inflight, taken), 0);
}

static void expect(struct fixture *fixture, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        deliver(fixture, next(fixture, texts[i]));
    assert_no_next(fixture);
}

static void assert_measure(struct fixture *fixture, uint64_t payload_bytes)
{
    uint64_t payload, disk;

    assert_int_equal(gproc_inflight_measure(&fixture->world.inflight, &payload, &disk), 0);
    assert_int_equal(payload, payload_bytes);
    assert_true(disk >= payload);
}

/* The files in the store of the mount. */
static int count_one(void *context, pid_t pid, uint64_t serial)
{
    (void)pid;
    (void)serial;
    ++*(size_t *)context;
    return 0;
}

static size_t files(struct fixture *fixture)
{
    size_t count = 0;

    assert_int_equal(gproc_store_list(&fixture->world.store, count_one, &count), 0);
    return count;
}

/* The library's writes, which this program makes: counted, and after so many good ones one fails.
 */
static size_t writes_count, writes_to_allow = SIZE_MAX;

ssize_t pwrite(int fd, const void *buffer, size_t size_bytes, off_t offset)
{
    if (writes_to_allow-- == 0) {
        errno = ENOSPC;
        return -1;
    }
    writes_count++;
    return syscall(SYS_pwrite64, fd, buffer, size_bytes, offset);
}

static const char *const abc[] = {"a", "bb", "ccc", "dddd", "eeeee"};

enum {
    ABC = sizeof(abc) / sizeof(abc[0]),
    ABC_BYTES = 1 + 2 + 3 + 4 + 5,
};

static void test_messages_leave_in_the_order_in_which_they_came_and_the_file_goes(void **state)
{
    struct fixture *fixture = fixture_open(state);

    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_no_next(fixture);
    send_and_take(fixture, abc, ABC);
    assert_false(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 1);
    expect(fixture, abc, ABC);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 0);
    fixture_close(fixture);
}

static void test_later_takes_go_behind_earlier_ones(void **state)
{
    struct fixture *fixture = fixture_open(state);

    for (size_t i = 0; i < ABC; i++)
        send_and_take(fixture, abc + i, 1);
    assert_int_equal(files(fixture), ABC);
    restart(fixture);
    expect(fixture, abc, ABC);
    assert_int_equal(files(fixture), 0);
    fixture_close(fixture);
}

static void test_empty_messages_are_messages(void **state)
{
    static const char *const texts[] = {"", "x", "", ""};
    struct fixture *fixture = fixture_open(state);

    send_and_take(fixture, texts, 4);
    assert_measure(fixture, 1);
    expect(fixture, texts, 4);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    fixture_close(fixture);
}

static void test_given_back_messages_come_first_in_their_old_order(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *a, *b, *c;

    send_and_take(fixture, abc, ABC);
    a = next(fixture, "a");
    b = next(fixture, "bb");
    c = next(fixture, "ccc");
    gproc_inflight_give_back(&fixture->world.inflight, c);
    gproc_inflight_give_back(&fixture->world.inflight, a);
    a = next(fixture, "a");
    c = next(fixture, "ccc");
    gproc_inflight_give_back(&fixture->world.inflight, b);
    gproc_inflight_give_back(&fixture->world.inflight, c);
    gproc_inflight_give_back(&fixture->world.inflight, a);
    expect(fixture, abc, ABC);
    fixture_close(fixture);
}

static void test_give_back_goes_in_front_of_later_segments_too(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *a;

    send_and_take(fixture, abc, 1);
    a = next(fixture, "a");
    assert_no_next(fixture);
    send_and_take(fixture, abc + 1, 2);
    deliver(fixture, next(fixture, "bb"));
    gproc_inflight_give_back(&fixture->world.inflight, a);
    deliver(fixture, next(fixture, "a"));
    deliver(fixture, next(fixture, "ccc"));
    assert_no_next(fixture);
    fixture_close(fixture);
}

static void
test_what_is_in_hand_at_a_restart_is_there_again_and_what_was_delivered_is_not(void **state)
{
    /* Every subset of five messages delivered, in two orders, all in hand before. */
    for (unsigned subset = 0; subset < 2U << ABC; subset++) {
        struct fixture *fixture = fixture_open(state);
        struct gproc_taken *taken[ABC];
        const char *left[ABC];
        uint64_t left_bytes = 0;
        size_t left_count = 0;

        send_and_take(fixture, abc, ABC);
        for (size_t i = 0; i < ABC; i++)
            taken[i] = next(fixture, abc[i]);
        for (size_t i = 0; i < ABC; i++) {
            size_t which = subset >> ABC & 1 ? i : ABC - 1 - i;

            if (subset >> which & 1)
                deliver(fixture, taken[which]);
        }
        for (size_t i = 0; i < ABC; i++) {
            if ((subset >> i & 1) == 0) {
                left[left_count++] = abc[i];
                left_bytes += strlen(abc[i]);
            }
        }
        assert_measure(fixture, left_bytes);
        restart(fixture);
        assert_false(gproc_inflight_is_unsettled(&fixture->world.inflight));
        assert_measure(fixture, left_bytes);
        expect(fixture, left, left_count);
        assert_int_equal(files(fixture), 0);
        fixture_close(fixture);
    }
}

static void test_restart_amid_a_mailbox_with_damage_goes_on_where_it_was(void **state)
{
    /* Any byte wrong, and a restart after each message. */
    for (size_t bad = 0; bad < 3 * 12 + 6; bad++) {
        struct fixture *fixture = fixture_open(state);
        uint8_t bytes[64];
        char found[2][8][8] = {{""}};
        size_t counts[2] = {0, 0};
        size_t size = 0;

        for (size_t i = 0; i < 3; i++)
            size += temporary_frame(bytes + size, (int32_t)i, abc[i], strlen(abc[i]));
        bytes[bad] ^= 0x41;
        for (int restarts = 0; restarts < 2; restarts++) {
            struct gproc_taken *taken;

            temporary_append(fixture->box, bytes, size);
            assert_int_equal(world_take(&fixture->world), 0);
            while (gproc_inflight_next(&fixture->world.inflight, &taken) == 1) {
                size_t length = taken->message.payload_bytes;

                assert_in_range(length, 0, 7);
                assert_int_equal(
                    gproc_inflight_read(taken, found[restarts][counts[restarts]++], length, 0), 0);
                deliver(fixture, taken);
                if (restarts == 1)
                    restart(fixture);
            }
        }
        assert_int_equal(counts[0], counts[1]);
        assert_memory_equal(found[0], found[1], sizeof(found[0]));
        fixture_close(fixture);
    }
}

/* Damage may take long to look through. */
static void test_search_for_a_message_ends_with_the_mount_and_can_be_taken_up_again(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *taken;

    temporary_append(fixture->box, "12345", 5);
    send(fixture, "a");
    assert_int_equal(world_take(&fixture->world), 0);
    atomic_store(&fixture->world.store.is_ending, true);
    assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &taken), -ECANCELED);
    atomic_store(&fixture->world.store.is_ending, false);
    deliver(fixture, next(fixture, "a"));
    fixture_close(fixture);
}

static void test_damaged_bytes_are_passed_over_and_counted_once(void **state)
{
    struct fixture *fixture = fixture_open(state);

    temporary_append(fixture->box, "123", 3);
    send(fixture, "a");
    temporary_append(fixture->box, "12345", 5);
    send(fixture, "bb");
    temporary_append(fixture->box, "1234567", 7);
    assert_int_equal(world_take(&fixture->world), 0);
    assert_measure(fixture, 3);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 0);
    gproc_inflight_give_back(&fixture->world.inflight, next(fixture, "a"));
    assert_int_equal(fixture->world.inflight.damaged_bytes, 3);
    deliver(fixture, next(fixture, "a"));
    assert_int_equal(fixture->world.inflight.damaged_bytes, 3);
    deliver(fixture, next(fixture, "bb"));
    assert_int_equal(fixture->world.inflight.damaged_bytes, 8);
    assert_no_next(fixture);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 15);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);

    /* Ever: also of the next one. And what was in front of a delivered message is gone with it. */
    temporary_append(fixture->box, "12", 2);
    send(fixture, "a");
    send(fixture, "bb");
    assert_int_equal(world_take(&fixture->world), 0);
    deliver(fixture, next(fixture, "a"));
    assert_int_equal(fixture->world.inflight.damaged_bytes, 17);
    restart(fixture);
    deliver(fixture, next(fixture, "bb"));
    assert_int_equal(fixture->world.inflight.damaged_bytes, 0);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));

    /* Nothing but damage. */
    temporary_append(fixture->box, "!", 1);
    assert_int_equal(world_take(&fixture->world), 0);
    assert_no_next(fixture);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 1);
    fixture_close(fixture);
}

static void test_measure_follows_takes_and_deliveries_and_counts_what_is_in_hand(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *a, *b;
    uint64_t payload, disk;

    assert_measure(fixture, 0);
    send_and_take(fixture, abc, ABC);
    assert_measure(fixture, ABC_BYTES);
    assert_int_equal(gproc_inflight_measure(&fixture->world.inflight, &payload, &disk), 0);
    assert_int_equal(disk, ABC_BYTES + 12 * ABC);
    a = next(fixture, "a");
    b = next(fixture, "bb");
    assert_measure(fixture, ABC_BYTES);
    deliver(fixture, b);
    assert_measure(fixture, ABC_BYTES - 2);
    gproc_inflight_give_back(&fixture->world.inflight, a);
    assert_measure(fixture, ABC_BYTES - 2);
    send_and_take(fixture, abc, 3);
    assert_measure(fixture, ABC_BYTES - 2 + 6);
    restart(fixture);
    assert_measure(fixture, ABC_BYTES - 2 + 6);
    deliver(fixture, next(fixture, "a"));
    assert_measure(fixture, ABC_BYTES - 3 + 6);
    fixture_close(fixture);
}

static void test_clear_spares_only_what_is_in_hand(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *b, *c;

    send_and_take(fixture, abc, ABC);
    gproc_inflight_give_back(&fixture->world.inflight, next(fixture, "a"));
    assert_int_equal(gproc_inflight_clear(&fixture->world.inflight), 0);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);

    send_and_take(fixture, abc, ABC);
    send_and_take(fixture, abc, ABC);
    gproc_inflight_give_back(&fixture->world.inflight, next(fixture, "a"));
    next(fixture, "a");
    b = next(fixture, "bb");
    c = next(fixture, "ccc");
    deliver(fixture, b);
    assert_int_equal(gproc_inflight_clear(&fixture->world.inflight), 0);
    assert_measure(fixture, 1 + 3);
    assert_no_next(fixture);
    assert_text(c, "ccc");
    restart(fixture);
    expect(fixture, (const char *const[]){"a", "ccc"}, 2);
    fixture_close(fixture);
}

static void assert_box(struct fixture *fixture, const char *const *texts, size_t count)
{
    uint8_t expected[1024];
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size +=
            temporary_frame(expected + size, (int32_t)strlen(texts[i]), texts[i], strlen(texts[i]));
    temporary_expect(fixture->box, expected, size);
}

static void test_return_puts_all_that_was_not_delivered_in_front_of_what_is_newer(void **state)
{
    static const char *const expected[] = {"a", "ccc", "eeeee", "one", "more", "newer"};
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *b, *d;

    send_and_take(fixture, abc, ABC);
    send_and_take(fixture, (const char *const[]){"one", "more"}, 2);
    next(fixture, "a");
    b = next(fixture, "bb");
    gproc_inflight_give_back(&fixture->world.inflight, next(fixture, "ccc"));
    next(fixture, "ccc");
    d = next(fixture, "dddd");
    deliver(fixture, d);
    deliver(fixture, b);
    send(fixture, "newer");
    assert_int_equal(world_return(&fixture->world), 0);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);
    assert_box(fixture, expected, 6);
    assert_no_next(fixture);
    assert_int_equal(world_take(&fixture->world), 0);
    expect(fixture, expected, 6);
    fixture_close(fixture);
}

/* Two halves of a message, with one in between that is delivered. */
static void test_return_joins_no_damage_to_a_message_that_nobody_sent(void **state)
{
    static const char *const expected[] = {"a", "ccc"};
    struct fixture *fixture = fixture_open(state);
    uint8_t frame[64];
    size_t size = temporary_frame(frame, 4, "halves", 6);

    send(fixture, "a");
    temporary_append(fixture->box, frame, size - 3);
    send(fixture, "bb");
    temporary_append(fixture->box, frame + size - 3, 3);
    send(fixture, "ccc");
    assert_int_equal(world_take(&fixture->world), 0);
    next(fixture, "a");
    deliver(fixture, next(fixture, "bb"));
    assert_int_equal(world_return(&fixture->world), 0);
    assert_box(fixture, expected, 2);
    fixture_close(fixture);
}

static void test_return_of_nothing_changes_nothing(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    assert_int_equal(world_take(&fixture->world), 0);
    deliver(fixture, next(fixture, "a"));
    assert_int_equal(world_return(&fixture->world), 0);
    temporary_expect(fixture->box, "", 0);
    send(fixture, "bb");
    assert_int_equal(world_return(&fixture->world), 0);
    assert_box(fixture, abc + 1, 1);
    assert_int_equal(files(fixture), 0);
    fixture_close(fixture);
}

static void limit_file_size(rlim_t size_bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_take_that_fails_moves_nothing(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < ABC; i++)
        send(fixture, abc[i]);
    for (rlim_t room = 0; room < ABC_BYTES + 12 * ABC; room += 5) {
        int result;

        limit_file_size(GPROC_SEGMENT_DATA_OFFSET + room);
        result = world_take(&fixture->world);
        limit_file_size(before.rlim_max);
        assert_int_equal(result, -EFBIG);
        assert_box(fixture, abc, ABC);
        assert_int_equal(files(fixture), 0);
        assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    }
    signal(SIGXFSZ, SIG_DFL);
    fixture_close(fixture);
}

static void test_return_that_fails_leaves_all_in_flight(void **state)
{
    static const char *const expected[] = {"a", "ccc", "dddd", "eeeee", "newer"};
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    /* In the take, in the gathering; and, restarted or not, it is all there. */
    for (rlim_t room = 0; room < 2 * 90; room += 3) {
        struct fixture *fixture = fixture_open(state);
        struct gproc_taken *a;
        int result;

        send_and_take(fixture, abc, ABC);
        a = next(fixture, "a");
        deliver(fixture, next(fixture, "bb"));
        gproc_inflight_give_back(&fixture->world.inflight, a);
        send(fixture, "newer");
        limit_file_size(GPROC_SEGMENT_DATA_OFFSET + room / 2);
        result = world_return(&fixture->world);
        limit_file_size(before.rlim_max);
        assert_true(result == 0 || result == -EFBIG);
        if (room % 2 != 0)
            restart(fixture);
        if (gproc_inflight_is_unsettled(&fixture->world.inflight))
            assert_int_equal(world_settle(&fixture->world), 0);
        for (size_t i = 0; i < 5; i++) {
            if (gproc_inflight_is_empty(&fixture->world.inflight))
                assert_int_equal(world_take(&fixture->world), 0);
            deliver(fixture, next(fixture, expected[i]));
        }
        assert_no_next(fixture);
        temporary_expect(fixture->box, "", 0);
        fixture_close(fixture);
    }
    signal(SIGXFSZ, SIG_DFL);
}

static void test_file_that_never_became_a_segment_is_deleted(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint64_t serial = 0;
    int fd = gproc_store_create(&fixture->world.store, PID, &serial);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 5000), 0);
    close(fd);
    assert_int_equal(files(fixture), 1);
    restart(fixture);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);
    assert_int_equal(gproc_inflight_load(&fixture->world.inflight, 1), -ENOENT);
    fixture_close(fixture);
}

static void test_store_deleted_under_us_loses_nothing_while_we_live(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send_and_take(fixture, abc, 2);
    temporary_remove(temporary_path(*state, "gproc/.gprocfs"));
    deliver(fixture, next(fixture, "a"));
    send(fixture, "ccc");
    assert_int_equal(world_return(&fixture->world), 0);
    assert_box(fixture, abc + 1, 2);
    assert_int_equal(world_take(&fixture->world), 0);
    restart(fixture);
    expect(fixture, abc + 1, 2);
    fixture_close(fixture);
}

static int find_older(void *context, pid_t pid, uint64_t serial)
{
    uint64_t *older = context;

    (void)pid;
    if (serial < *older)
        *older = serial;
    return 0;
}

static void test_what_was_returned_by_one_dead_mount_does_not_void_what_another_had(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct world *other = temporary_memory(*state, sizeof(*other));
    struct gproc_segment returning = {.fd = -1}, old = {.fd = -1};
    uint64_t serial = 0, old_serial = UINT64_MAX;

    /* One mount has "a" in flight. */
    send_and_take(fixture, abc, 1);
    /* Another took "bb" later, and was killed when it had gathered it, before it put it back. */
    assert_int_equal(world_open(other, fixture->temporary->root, PID), 0);
    send(fixture, "bb");
    assert_int_equal(world_take(other), 0);
    returning.fd = gproc_store_create(&other->store, PID, &serial);
    assert_true(returning.fd >= 0);
    assert_int_equal(gproc_store_list(&other->store, find_older, &old_serial), 0);
    old.fd = gproc_store_open_segment(&other->store, PID, old_serial);
    assert_true(old.fd >= 0);
    assert_int_equal(gproc_segment_load(&old, old.fd), 0);
    assert_int_equal(gproc_segment_gather(&returning, &old, old_serial), 0);
    assert_int_equal(gproc_segment_seal(&returning), 0);
    gproc_segment_release(&old);
    gproc_segment_release(&returning);
    world_close(other);

    restart(fixture);
    assert_true(gproc_inflight_is_unsettled(&fixture->world.inflight));
    assert_int_equal(world_settle(&fixture->world), 0);
    assert_false(gproc_inflight_is_unsettled(&fixture->world.inflight));
    expect(fixture, abc, 2);
    fixture_close(fixture);
}

/*
 * As a mount leaves it that was killed on the way back: the store has all of `abc`, gathered, and
 * `poured` bytes of it were written to the mailbox. Then somebody else sent a message.
 */
static void leave_returning(struct fixture *fixture, size_t poured)
{
    struct gproc_segment returning = {.fd = -1}, taken = {.fd = -1};
    uint64_t serial = 0;
    uint8_t bytes[256];
    size_t size = 0;

    for (size_t i = 0; i < ABC; i++)
        size += temporary_frame(bytes + size, (int32_t)strlen(abc[i]), abc[i], strlen(abc[i]));
    temporary_write(fixture->box, bytes, size);
    assert_int_equal(world_lock(&fixture->world), 0);
    taken.fd =
        open(temporary_path(fixture->temporary, "x"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(gproc_segment_copy(&taken, taken.fd, &fixture->world.mailbox, 0, NULL), 0);
    world_unlock(&fixture->world);
    returning.fd = gproc_store_create(&fixture->world.store, PID, &serial);
    assert_int_equal(gproc_segment_gather(&returning, &taken, 1), 0);
    assert_int_equal(gproc_segment_seal(&returning), 0);
    gproc_segment_release(&returning);
    gproc_segment_release(&taken);
    temporary_write(fixture->box, bytes, poured);
    send(fixture, "one other, of others");
}

/* The next mount settles it, and finds each message once and in order. */
static void settle_and_expect_all(struct fixture *fixture)
{
    restart(fixture);
    assert_int_equal(world_settle(&fixture->world), 0);
    assert_false(gproc_inflight_is_unsettled(&fixture->world.inflight));
    for (size_t i = 0; i <= ABC; i++) {
        struct gproc_taken *message;

        if (gproc_inflight_next(&fixture->world.inflight, &message) == 0) {
            assert_int_equal(world_take(&fixture->world), 0);
            assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &message), 1);
        }
        assert_text(message, i < ABC ? abc[i] : "one other, of others");
        deliver(fixture, message);
    }
    assert_no_next(fixture);
    assert_int_equal(world_take(&fixture->world), 0);
    assert_no_next(fixture);
    assert_int_equal(files(fixture), 0);
}

static void test_return_cut_off_with_others_behind_it_settles_in_order_each_once(void **state)
{
    /* After every byte that could have been written. */
    for (size_t poured = 0; poured <= ABC_BYTES + 12 * ABC; poured++) {
        struct fixture *fixture = fixture_open(state);

        leave_returning(fixture, poured);
        settle_and_expect_all(fixture);
        fixture_close(fixture);
    }
}

static void test_settling_that_return_may_be_cut_off_as_well(void **state)
{
    /* Two whole messages and a piece were written; the mailbox is being taken from there on. */
    const size_t whole = 2 * 12 + 1 + 2, poured = whole + 5;

    for (int step = 0; step < 3; step++) {
        struct fixture *fixture = fixture_open(state);
        struct gproc_segment taken = {.fd = -1};
        uint64_t serial = 0;

        leave_returning(fixture, poured);
        assert_int_equal(world_lock(&fixture->world), 0);
        taken.fd = gproc_store_create(&fixture->world.store, PID, &serial);
        assert_int_equal(
            gproc_segment_copy(&taken, taken.fd, &fixture->world.mailbox, (off_t)whole, NULL), 0);
        if (step > 0)
            assert_int_equal(gproc_mailbox_clear(&fixture->world.mailbox), 0);
        if (step > 1)
            assert_int_equal(gproc_segment_ready(&taken), 0);
        gproc_segment_release(&taken);
        world_unlock(&fixture->world);
        settle_and_expect_all(fixture);
        fixture_close(fixture);
    }
}

/* ---- Many at once */

static int deliver_all(struct fixture *fixture, struct gproc_taken *const *taken, size_t count)
{
    writes_count = 0;
    return gproc_inflight_deliver_all(&fixture->world.inflight, taken, count);
}

static void test_messages_that_follow_each_other_are_delivered_by_one_write(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *taken[ABC];

    /* All; those behind one in hand; those in front of it; across segments, one for each. */
    send_and_take(fixture, abc, ABC);
    for (size_t i = 0; i < ABC; i++)
        taken[i] = next(fixture, abc[i]);
    assert_int_equal(deliver_all(fixture, taken, ABC), 0);
    assert_int_equal(writes_count, 1);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(files(fixture), 0);

    send_and_take(fixture, abc, 3);
    send_and_take(fixture, abc + 3, 2);
    for (size_t i = 0; i < ABC; i++)
        taken[i] = next(fixture, abc[i]);
    assert_int_equal(deliver_all(fixture, taken + 1, 3), 0);
    assert_int_equal(writes_count, 2);
    assert_int_equal(deliver_all(fixture, taken, 0), 0);
    assert_measure(fixture, 1 + 5);
    restart(fixture);
    expect(fixture, (const char *const[]){"a", "eeeee"}, 2);
    assert_int_equal(files(fixture), 0);
    fixture_close(fixture);
}

static void test_run_across_damage_takes_it_along(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *taken[3];

    send(fixture, "a");
    temporary_append(fixture->box, "12345", 5);
    send(fixture, "bb");
    temporary_append(fixture->box, "1234567", 7);
    send(fixture, "ccc");
    assert_int_equal(world_take(&fixture->world), 0);
    for (size_t i = 0; i < 3; i++)
        taken[i] = next(fixture, abc[i]);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 12);
    assert_int_equal(deliver_all(fixture, taken + 1, 2), 0);
    assert_int_equal(writes_count, 1);
    restart(fixture);
    expect(fixture, abc, 1);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 5);
    fixture_close(fixture);
}

static void test_what_lies_between_those_delivered_at_once_stays(void **state)
{
    /* Every subset of five given back, or delivered before, the others delivered at once. */
    for (unsigned subset = 0; subset < 1U << (ABC + 1); subset++) {
        struct fixture *fixture = fixture_open(state);
        bool before = subset >> ABC & 1;
        struct gproc_taken *taken[ABC], *rest[ABC];
        const char *left[ABC];
        uint64_t left_bytes = 0;
        size_t left_count = 0, count = 0;

        /* The first segment ends in the middle. */
        send_and_take(fixture, abc, 3);
        send_and_take(fixture, abc + 3, 2);
        for (size_t i = 0; i < ABC; i++)
            taken[i] = next(fixture, abc[i]);
        for (size_t i = 0; i < ABC; i++) {
            if ((subset >> i & 1) == 0) {
                rest[count++] = taken[i];
            } else if (before) {
                deliver(fixture, taken[i]);
            } else {
                gproc_inflight_give_back(&fixture->world.inflight, taken[i]);
                left[left_count++] = abc[i];
                left_bytes += strlen(abc[i]);
            }
        }
        assert_int_equal(deliver_all(fixture, rest, count), 0);
        assert_measure(fixture, left_bytes);
        assert_int_equal(fixture->world.inflight.messages_count, left_count);
        assert_int_equal(fixture->world.inflight.delivered_count, ABC - left_count);
        if (subset % 2 != 0)
            restart(fixture);
        assert_int_equal(fixture->world.inflight.messages_count, left_count);
        expect(fixture, left, left_count);
        assert_int_equal(fixture->world.inflight.messages_count, 0);
        assert_int_equal(files(fixture), 0);
        fixture_close(fixture);
    }
}

static void test_any_order_of_what_is_delivered_at_once_is_right(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *taken[ABC], *backwards[4];

    send_and_take(fixture, abc, ABC);
    for (size_t i = 0; i < ABC; i++)
        taken[i] = next(fixture, abc[i]);
    for (size_t i = 0; i < 4; i++)
        backwards[i] = taken[4 - i];
    assert_int_equal(deliver_all(fixture, backwards, 4), 0);
    restart(fixture);
    expect(fixture, abc, 1);
    fixture_close(fixture);
}

static void test_error_amid_many_leaves_those_behind_it_in_hand(void **state)
{
    /* Runs of one: "a", "ccc", "eeeee"; the write of each fails. */
    for (size_t allowed = 0; allowed < 3; allowed++) {
        struct fixture *fixture = fixture_open(state);
        struct gproc_inflight *inflight = &fixture->world.inflight;
        struct gproc_taken *taken[ABC], *some[3];
        int result;

        send_and_take(fixture, abc, ABC);
        for (size_t i = 0; i < ABC; i++)
            taken[i] = next(fixture, abc[i]);
        for (size_t i = 0; i < 3; i++)
            some[i] = taken[2 * i];
        writes_to_allow = allowed;
        result = deliver_all(fixture, some, 3);
        writes_to_allow = SIZE_MAX;
        assert_int_equal(result, -ENOSPC);
        assert_int_equal(inflight->delivered_count, allowed);
        assert_int_equal(inflight->messages_count, ABC - allowed);
        assert_no_next(fixture);
        /* Another try. */
        assert_int_equal(deliver_all(fixture, some + allowed, 3 - allowed), 0);
        gproc_inflight_give_back(inflight, taken[3]);
        gproc_inflight_give_back(inflight, taken[1]);
        expect(fixture, (const char *const[]){"bb", "dddd"}, 2);
        assert_int_equal(files(fixture), 0);
        fixture_close(fixture);
    }
}

static void test_next_and_deliver_do_not_go_through_what_is_in_hand(void **state)
{
    enum {
        MANY = 3000,
    };
    struct fixture *fixture = fixture_open(state);
    struct gproc_inflight *inflight = &fixture->world.inflight;
    struct gproc_taken **taken = temporary_memory(*state, MANY * sizeof(struct gproc_taken *));
    struct gproc_taken *second;

    for (size_t i = 0; i < MANY; i++)
        send(fixture, abc[i % ABC]);
    assert_int_equal(world_take(&fixture->world), 0);
    for (size_t i = 0; i < MANY - 2; i++)
        taken[i] = next(fixture, abc[i % ABC]);
    /* Whoever goes through them from the first on finds an end there, and puts the next one at it.
     */
    second = taken[0]->next;
    assert_ptr_equal(second, taken[1]);
    taken[0]->next = NULL;
    for (size_t i = MANY - 2; i < MANY; i++)
        taken[i] = next(fixture, abc[i % ABC]);
    assert_no_next(fixture);
    assert_null(taken[0]->next);
    assert_ptr_equal(taken[MANY - 3]->next, taken[MANY - 2]);
    assert_int_equal(deliver_all(fixture, taken + MANY / 2, MANY / 2), 0);
    assert_int_equal(writes_count, 1);
    deliver(fixture, taken[MANY / 2 - 2]);
    assert_null(taken[0]->next);
    assert_ptr_equal(taken[MANY / 2 - 3]->next, taken[MANY / 2 - 1]);
    taken[0]->next = second;
    assert_int_equal(inflight->messages_count, MANY / 2 - 1);
    assert_int_equal(deliver_all(fixture, taken, MANY / 2 - 2), 0);
    assert_int_equal(deliver_all(fixture, taken + MANY / 2 - 1, 1), 0);
    assert_true(gproc_inflight_is_empty(inflight));
    fixture_close(fixture);
}

static void test_messages_are_counted_from_the_moment_they_are_taken_or_loaded(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const struct gproc_inflight *inflight = &fixture->world.inflight;
    struct gproc_taken *a, *b;

    assert_int_equal(inflight->messages_count, 0);
    assert_int_equal(gproc_inflight_newest(inflight), 0);
    temporary_append(fixture->box, "12345", 5);
    send_and_take(fixture, abc, ABC);
    assert_int_equal(inflight->messages_count, ABC);
    a = next(fixture, "a");
    b = next(fixture, "bb");
    assert_int_equal(inflight->messages_count, ABC);
    deliver(fixture, b);
    gproc_inflight_give_back(&fixture->world.inflight, a);
    assert_int_equal(inflight->messages_count, ABC - 1);
    send_and_take(fixture, abc, 2);
    assert_int_equal(inflight->messages_count, ABC + 1);
    restart(fixture);
    assert_int_equal(inflight->messages_count, ABC + 1);
    assert_true(gproc_inflight_newest(inflight) > 0);
    assert_measure(fixture, ABC_BYTES - 2 + 3);
    assert_int_equal(inflight->messages_count, ABC + 1);
    assert_int_equal(world_return(&fixture->world), 0);
    assert_int_equal(inflight->messages_count, 0);
    assert_int_equal(world_take(&fixture->world), 0);
    assert_int_equal(inflight->messages_count, ABC + 1);
    assert_int_equal(gproc_inflight_clear(&fixture->world.inflight), 0);
    assert_int_equal(inflight->messages_count, 0);
    fixture_close(fixture);
}

/* ---- Many as one */

/* "LENGTH:" before each. */
static size_t say_length(char *to, const struct gproc_message *message)
{
    return (size_t)sprintf(to, "%zu:", message->payload_bytes); /* it fits: see GPROC_PACK_... */
}

/* Extends `taken`, for which there is room for so many bytes: these are packed. */
static void extend(struct fixture *fixture, struct gproc_taken *taken, size_t room_bytes,
                   const char *expected)
{
    /* Its own, so that an overrun shows. */
    uint8_t *bytes = temporary_memory(fixture->temporary, room_bytes + 1);
    struct gproc_pack pack = {.bytes = bytes, .room_bytes = room_bytes, .head = say_length};

    assert_int_equal(gproc_inflight_extend(&fixture->world.inflight, taken, &pack), 0);
    assert_int_equal(pack.used_bytes, strlen(expected));
    assert_string_equal((const char *)bytes, expected);
}

static void give_back(struct fixture *fixture, struct gproc_taken *taken)
{
    gproc_inflight_give_back(&fixture->world.inflight, taken);
}

static void test_what_follows_is_packed_as_far_as_there_is_room(void **state)
{
    static const struct {
        size_t room_bytes;
        const char *packed;
        size_t more_count;
    } rows[] = {
        {0, "", 0},
        {3, "", 0},
        {4, "2:bb", 1},
        {8, "2:bb", 1},
        {9, "2:bb3:ccc", 2},
        {15, "2:bb3:ccc4:dddd", 3},
        {21, "2:bb3:ccc4:dddd", 3},
        {22, "2:bb3:ccc4:dddd5:eeeee", 4},
        {99, "2:bb3:ccc4:dddd5:eeeee", 4},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct fixture *fixture = fixture_open(state);
        size_t left_count = ABC - 1 - rows[i].more_count;
        struct gproc_taken *taken;

        send_and_take(fixture, abc, ABC);
        taken = next(fixture, "a");
        extend(fixture, taken, rows[i].room_bytes, rows[i].packed);
        assert_int_equal(taken->messages_count, 1 + rows[i].more_count);
        writes_count = 0;
        deliver(fixture, taken);
        assert_int_equal(writes_count, 1);
        assert_int_equal(fixture->world.inflight.delivered_count, 1 + rows[i].more_count);
        assert_int_equal(fixture->world.inflight.messages_count, left_count);
        if (i % 2 == 0)
            restart(fixture);
        assert_int_equal(fixture->world.inflight.messages_count, left_count);
        expect(fixture, abc + 1 + rows[i].more_count, left_count);
        assert_int_equal(files(fixture), 0);
        fixture_close(fixture);
    }
}

static void test_each_is_said_as_it_is_though_one_has_sent_them_all(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *taken;

    for (size_t i = 0; i < 3; i++)
        temporary_append_text(fixture->box, 7, abc[i]);
    assert_int_equal(world_take(&fixture->world), 0);
    assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &taken), 1);
    extend(fixture, taken, 99, "2:bb3:ccc");
    deliver(fixture, taken);
    fixture_close(fixture);
}

static void test_several_given_back_as_one_come_one_by_one_in_their_order(void **state)
{
    /* With those behind them: nobody has taken them; somebody has and gives them back before, or
     * after; or has had them delivered. */
    for (int way = 0; way < 4; way++) {
        struct fixture *fixture = fixture_open(state);
        struct gproc_taken *several, *behind = NULL;
        struct gproc_taken *first;

        send_and_take(fixture, abc, ABC);
        several = next(fixture, "a");
        extend(fixture, several, 9, "2:bb3:ccc");
        if (way > 0)
            behind = next(fixture, "dddd");
        if (way > 1)
            extend(fixture, behind, 7, "5:eeeee");
        if (way == 1 || way == 2)
            give_back(fixture, behind);
        if (way == 3)
            deliver(fixture, behind);
        give_back(fixture, several);
        assert_measure(fixture, way == 3 ? 6 : 15);
        /* Each again, in other ways: given back alone; held while the next is taken. */
        first = next(fixture, "a");
        give_back(fixture, first);
        first = next(fixture, "a");
        deliver(fixture, next(fixture, "bb"));
        assert_measure(fixture, way == 3 ? 4 : 13);
        assert_int_equal(fixture->world.inflight.messages_count, way == 3 ? 2 : 4);
        give_back(fixture, first);
        expect(fixture, (const char *const[]){"a", "ccc", "dddd", "eeeee"}, way == 3 ? 2 : 4);
        assert_int_equal(files(fixture), 0);
        assert_int_equal(fixture->world.inflight.messages_count, 0);
        fixture_close(fixture);
    }
}

static void test_what_is_one_is_there_again_after_a_restart_unless_delivered(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *several;

    send_and_take(fixture, abc, ABC);
    several = next(fixture, "a");
    extend(fixture, several, 9, "2:bb3:ccc");
    several = next(fixture, "dddd");
    extend(fixture, several, 9, "5:eeeee");
    deliver(fixture, several); /* a hole behind what is in hand */
    restart(fixture);
    assert_measure(fixture, 6);
    expect(fixture, abc, 3);
    fixture_close(fixture);
}

static void test_only_what_follows_directly_is_one_with_it(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *a, *b, *c;

    /* Not over damage, */
    send(fixture, "a");
    send(fixture, "bb");
    temporary_append(fixture->box, "12345", 5);
    send(fixture, "ccc");
    assert_int_equal(world_take(&fixture->world), 0);
    a = next(fixture, "a");
    extend(fixture, a, 99, "2:bb");
    /* not what was given back, nor what is behind somebody else's, */
    c = next(fixture, "ccc");
    extend(fixture, a, 99, "");
    give_back(fixture, c);
    extend(fixture, a, 99, "");
    c = next(fixture, "ccc");
    /* nor of another segment. */
    send_and_take(fixture, abc + 3, 2);
    extend(fixture, c, 99, "");
    deliver(fixture, c);
    deliver(fixture, a);
    expect(fixture, abc + 3, 2);
    /* What was given back in front of it comes first. */
    send_and_take(fixture, abc, 3);
    a = next(fixture, "a");
    b = next(fixture, "bb");
    give_back(fixture, a);
    extend(fixture, b, 99, "");
    deliver(fixture, b);
    expect(fixture, (const char *const[]){"a", "ccc"}, 2);
    assert_int_equal(fixture->world.inflight.damaged_bytes, 5);
    fixture_close(fixture);
}

static void test_return_takes_what_is_one_in_somebodys_hands_along(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *several;

    send_and_take(fixture, abc, ABC);
    deliver(fixture, next(fixture, "a"));
    several = next(fixture, "bb");
    extend(fixture, several, 5, "3:ccc");
    assert_int_equal(world_return(&fixture->world), 0);
    assert_true(gproc_inflight_is_empty(&fixture->world.inflight));
    assert_int_equal(world_take(&fixture->world), 0);
    expect(fixture, abc + 1, ABC - 1);
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_messages_leave_in_the_order_in_which_they_came_and_the_file_goes),
        TEMPORARY_TEST(test_later_takes_go_behind_earlier_ones),
        TEMPORARY_TEST(test_empty_messages_are_messages),
        TEMPORARY_TEST(test_given_back_messages_come_first_in_their_old_order),
        TEMPORARY_TEST(test_give_back_goes_in_front_of_later_segments_too),
        TEMPORARY_TEST(
            test_what_is_in_hand_at_a_restart_is_there_again_and_what_was_delivered_is_not),
        TEMPORARY_TEST(test_restart_amid_a_mailbox_with_damage_goes_on_where_it_was),
        TEMPORARY_TEST(test_search_for_a_message_ends_with_the_mount_and_can_be_taken_up_again),
        TEMPORARY_TEST(test_damaged_bytes_are_passed_over_and_counted_once),
        TEMPORARY_TEST(test_measure_follows_takes_and_deliveries_and_counts_what_is_in_hand),
        TEMPORARY_TEST(test_clear_spares_only_what_is_in_hand),
        TEMPORARY_TEST(test_return_puts_all_that_was_not_delivered_in_front_of_what_is_newer),
        TEMPORARY_TEST(test_return_joins_no_damage_to_a_message_that_nobody_sent),
        TEMPORARY_TEST(test_return_of_nothing_changes_nothing),
        TEMPORARY_TEST(test_take_that_fails_moves_nothing),
        TEMPORARY_TEST(test_return_that_fails_leaves_all_in_flight),
        TEMPORARY_TEST(test_file_that_never_became_a_segment_is_deleted),
        TEMPORARY_TEST(test_store_deleted_under_us_loses_nothing_while_we_live),
        TEMPORARY_TEST(test_what_was_returned_by_one_dead_mount_does_not_void_what_another_had),
        TEMPORARY_TEST(test_return_cut_off_with_others_behind_it_settles_in_order_each_once),
        TEMPORARY_TEST(test_settling_that_return_may_be_cut_off_as_well),
        TEMPORARY_TEST(test_messages_that_follow_each_other_are_delivered_by_one_write),
        TEMPORARY_TEST(test_run_across_damage_takes_it_along),
        TEMPORARY_TEST(test_what_lies_between_those_delivered_at_once_stays),
        TEMPORARY_TEST(test_any_order_of_what_is_delivered_at_once_is_right),
        TEMPORARY_TEST(test_error_amid_many_leaves_those_behind_it_in_hand),
        TEMPORARY_TEST(test_next_and_deliver_do_not_go_through_what_is_in_hand),
        TEMPORARY_TEST(test_what_follows_is_packed_as_far_as_there_is_room),
        TEMPORARY_TEST(test_each_is_said_as_it_is_though_one_has_sent_them_all),
        TEMPORARY_TEST(test_several_given_back_as_one_come_one_by_one_in_their_order),
        TEMPORARY_TEST(test_what_is_one_is_there_again_after_a_restart_unless_delivered),
        TEMPORARY_TEST(test_only_what_follows_directly_is_one_with_it),
        TEMPORARY_TEST(test_return_takes_what_is_one_in_somebodys_hands_along),
        TEMPORARY_TEST(test_messages_are_counted_from_the_moment_they_are_taken_or_loaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
