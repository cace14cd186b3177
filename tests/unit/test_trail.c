/*
 * A trail shows all that waits, in flight and in the mailbox, the oldest first and each once, and
 * takes nothing; whatever is sent, moved, delivered and emptied between two looks.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "segment.h"
#include "temporary.h"
#include "trail.h"
#include "world.h"

enum {
    PID = 4711,
    HEADER = TEMPORARY_HEADER_BYTES,
    LARGE_BYTES = 5000,
};

struct fixture {
    struct temporary *temporary;
    const char *box;
    struct world world;
    struct gproc_trail trail;
    time_t clock;     /* of modifications; see tick() */
    char shown[4096]; /* since the last expect_shown() */
    int answer;       /* of the visitor, from message `answer_from` on; 0: it is shown */
    int answer_from;
    int asked_count;
};

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->temporary = *state;
    fixture->box = strcpy(temporary_memory(*state, PATH_MAX), temporary_path(*state, "gproc/4711"));
    fixture->clock = 1000;
    assert_int_equal(world_open(&fixture->world, fixture->temporary->root, PID), 0);
    temporary_write(fixture->box, "", 0);
    gproc_trail_init(&fixture->trail);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    world_close(&fixture->world);
}

/* Gives the mailbox a time of modification that it never had: the clock's ticks may be too long. */
static void tick(struct fixture *fixture)
{
    const struct timespec times[2] = {{++fixture->clock, 0}, {fixture->clock, 0}};

    assert_int_equal(utimensat(AT_FDCWD, fixture->box, times, 0), 0);
}

static void send(struct fixture *fixture, const char *text)
{
    temporary_append_text(fixture->box, 1, text);
    tick(fixture);
}

static void damage(struct fixture *fixture, const char *text)
{
    temporary_append(fixture->box, text, strlen(text));
    tick(fixture);
}

/* As others drain it. */
static void drain(struct fixture *fixture)
{
    assert_int_equal(truncate(fixture->box, 0), 0);
    tick(fixture);
}

/* Moves it into flight, and tells the trail. */
static void take(struct fixture *fixture)
{
    assert_int_equal(world_take(&fixture->world), 0);
    gproc_trail_moved(&fixture->trail, gproc_inflight_newest(&fixture->world.inflight));
    tick(fixture);
}

static struct gproc_taken *next(struct fixture *fixture)
{
    struct gproc_taken *taken;

    assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &taken), 1);
    return taken;
}

static void deliver(struct fixture *fixture, struct gproc_taken *taken)
{
    assert_int_equal(gproc_inflight_deliver(&fixture->world.inflight, taken), 0);
}

__attribute__((format(printf, 2, 3))) static void add(struct fixture *fixture, const char *format,
                                                      ...)
{
    size_t length = strlen(fixture->shown);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(fixture->shown + length, sizeof(fixture->shown) - length, format, arguments);
    va_end(arguments);
}

static int show_message(void *context, const struct gproc_source *source,
                        const struct gproc_message *message)
{
    struct fixture *fixture = context;
    char text[256] = "";

    if (fixture->asked_count++ >= fixture->answer_from && fixture->answer != 0)
        return fixture->answer;
    if (message->payload_bytes < sizeof(text))
        assert_int_equal(
            gproc_source_read(source, text, message->payload_bytes, message->payload_offset), 0);
    add(fixture, "%s ", message->payload_bytes < sizeof(text) ? text : "large");
    return 0;
}

static int show_damage(void *context, bool in_flight, off_t offset, off_t size_bytes)
{
    add(context, "%s%lld+%lld ", in_flight ? "flight" : "box", (long long)offset,
        (long long)size_bytes);
    return 0;
}

static int go_on(struct fixture *fixture, bool certain)
{
    const struct gproc_trail_visitor visitor = {show_message, show_damage, fixture};
    struct gproc_mailbox mailbox;
    int result;

    fixture->asked_count = 0;
    assert_int_equal(gproc_mailbox_open(&mailbox, &fixture->world.mailboxes, PID, O_RDONLY), 0);
    result = gproc_trail_go(&fixture->trail, &fixture->world.inflight, &mailbox, certain, &visitor);
    gproc_mailbox_close(&mailbox);
    return result;
}

/* What has been shown since the last time. */
static void expect_shown(struct fixture *fixture, const char *texts)
{
    assert_string_equal(fixture->shown, texts);
    fixture->shown[0] = '\0';
}

/* Going on without the lock shows exactly these, and is sure of it; the next time nothing more. */
static void expect(struct fixture *fixture, const char *texts)
{
    assert_int_equal(go_on(fixture, false), GPROC_TRAIL_ALL);
    expect_shown(fixture, texts);
    assert_int_equal(go_on(fixture, false), GPROC_TRAIL_ALL);
    expect_shown(fixture, "");
}

static void expect_doubt(struct fixture *fixture, const char *texts)
{
    assert_int_equal(go_on(fixture, false), GPROC_TRAIL_DOUBT);
    expect_shown(fixture, texts);
}

static void expect_certain(struct fixture *fixture, const char *texts)
{
    assert_int_equal(go_on(fixture, true), GPROC_TRAIL_ALL);
    expect_shown(fixture, texts);
    assert_int_equal(go_on(fixture, true), GPROC_TRAIL_ALL);
    expect_shown(fixture, "");
}

static void test_segments_and_mailbox_are_one_queue_in_order(void **state)
{
    struct fixture *fixture = fixture_open(state);

    expect(fixture, "");
    send(fixture, "a");
    send(fixture, "b");
    take(fixture);
    send(fixture, "c");
    take(fixture);
    send(fixture, "d");
    send(fixture, "e");
    expect(fixture, "a b c d e ");
    /* It took nothing. */
    assert_int_equal(fixture->world.inflight.messages_count, 3);
    gproc_trail_init(&fixture->trail);
    expect(fixture, "a b c d e ");
    fixture_close(fixture);
}

static void test_what_is_sent_later_is_shown_once(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    expect(fixture, "a ");
    send(fixture, "b");
    send(fixture, "c");
    expect(fixture, "b c ");
    send(fixture, "");
    expect(fixture, " ");
    fixture_close(fixture);
}

static void test_what_was_shown_is_not_shown_again_when_it_is_moved_into_flight(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    send(fixture, "b");
    expect(fixture, "a b ");
    send(fixture, "c");
    take(fixture);
    send(fixture, "d");
    take(fixture);
    send(fixture, "e");
    expect(fixture, "c d e ");
    take(fixture);
    expect(fixture, "");
    fixture_close(fixture);
}

static void test_damage_that_was_told_is_not_told_again_when_it_is_moved(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    damage(fixture, "!!!!");
    expect_certain(fixture, "a box13+4 ");
    damage(fixture, "???");
    send(fixture, "b");
    take(fixture);
    expect(fixture, "flight17+3 b ");
    /* Nothing but damage. */
    damage(fixture, "!!!!!");
    expect_certain(fixture, "box0+5 ");
    take(fixture);
    expect(fixture, "");
    fixture_close(fixture);
}

static void test_what_is_sent_after_this_mount_emptied_it_is_new(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    expect(fixture, "a ");
    assert_int_equal(truncate(fixture->box, 0), 0);
    gproc_trail_emptied(&fixture->trail);
    /* The same, byte for byte, and more: the file itself would not tell. */
    send(fixture, "a");
    send(fixture, "b");
    expect(fixture, "a b ");
    fixture_close(fixture);
}

static void test_what_is_sent_after_others_emptied_it_is_new(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    send(fixture, "b");
    expect(fixture, "a b ");
    drain(fixture);
    expect(fixture, "");
    send(fixture, "a");
    expect(fixture, "a ");
    send(fixture, "b");
    expect(fixture, "b ");
    /* Filled with more than was there, not seen empty. */
    drain(fixture);
    send(fixture, "x");
    send(fixture, "y");
    send(fixture, "z");
    expect(fixture, "x y z ");
    /* With less. */
    drain(fixture);
    send(fixture, "x");
    expect(fixture, "x ");
    fixture_close(fixture);
}

static void test_what_others_filled_again_is_new_in_flight_too(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    send(fixture, "b");
    expect(fixture, "a b ");
    drain(fixture);
    send(fixture, "x");
    send(fixture, "y");
    send(fixture, "z");
    take(fixture);
    expect(fixture, "x y z ");
    send(fixture, "a");
    expect(fixture, "a ");
    drain(fixture);
    send(fixture, "a"); /* the same again */
    take(fixture);
    expect(fixture, "a ");
    fixture_close(fixture);
}

static void test_filled_again_to_the_same_size_is_new_once_that_is_certain(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "ping");
    expect(fixture, "ping ");
    drain(fixture);
    send(fixture, "ping");
    expect_doubt(fixture, ""); /* it might be an append that has just begun */
    expect_certain(fixture, "ping ");
    expect(fixture, "");
    /* Other messages of the same size leave no doubt. */
    drain(fixture);
    send(fixture, "pong");
    expect(fixture, "pong ");
    fixture_close(fixture);
}

static void test_change_of_mode_shows_nothing_again(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    expect(fixture, "a ");
    assert_int_equal(chmod(fixture->box, 0600), 0);
    expect(fixture, "");
    fixture_close(fixture);
}

static void test_what_was_delivered_before_it_was_shown_is_passed_over(void **state)
{
    struct fixture *fixture = fixture_open(state);
    static const char *const texts[] = {"a", "b", "c", "d", "e"};
    struct gproc_taken *b;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        send(fixture, texts[i]);
    take(fixture);
    deliver(fixture, next(fixture));
    b = next(fixture);
    deliver(fixture, next(fixture));
    expect(fixture, "b d e ");
    deliver(fixture, b);
    deliver(fixture, next(fixture));
    deliver(fixture, next(fixture));
    expect(fixture, "");
    /* The whole of a segment, shown in part. */
    send(fixture, "f");
    expect(fixture, "f ");
    send(fixture, "g");
    take(fixture);
    deliver(fixture, next(fixture));
    deliver(fixture, next(fixture));
    send(fixture, "h");
    expect(fixture, "h ");
    fixture_close(fixture);
}

static void test_what_is_in_hand_and_what_was_given_back_is_shown_once(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_taken *a, *b;

    send(fixture, "a");
    send(fixture, "b");
    send(fixture, "c");
    take(fixture);
    a = next(fixture);
    b = next(fixture);
    gproc_inflight_give_back(&fixture->world.inflight, b);
    expect(fixture, "a b c ");
    gproc_inflight_give_back(&fixture->world.inflight, a);
    expect(fixture, "");
    fixture_close(fixture);
}

static void test_half_an_append_shows_nothing_that_nobody_sent(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t inner[64] = {0}, whole[128];
    size_t inner_bytes = temporary_frame(inner, 2, "forged", 6);
    size_t whole_bytes;

    inner_bytes += temporary_frame(inner + inner_bytes, 2, "twice", 5);
    whole_bytes = temporary_frame(whole, 1, inner, inner_bytes);
    send(fixture, "a");
    /* Every part of it that may be there. */
    for (size_t part = 1; part < whole_bytes; part++) {
        temporary_append(fixture->box, whole + part - 1, 1);
        expect_doubt(fixture, part == 1 ? "a " : "");
    }
    temporary_append(fixture->box, whole + whole_bytes - 1, 1);
    assert_int_equal(go_on(fixture, false), GPROC_TRAIL_ALL);
    assert_memory_equal(fixture->shown, inner, 1);
    fixture->shown[0] = '\0';
    fixture_close(fixture);
}

static void test_half_an_append_is_damage_with_what_is_in_it_once_that_is_certain(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t inner[64] = {0}, whole[128];
    size_t inner_bytes = temporary_frame(inner, 2, "inner", 5);

    (void)temporary_frame(whole, 1, inner, inner_bytes + 10);
    send(fixture, "a");
    temporary_append(fixture->box, whole, HEADER + inner_bytes);
    tick(fixture);
    expect_doubt(fixture, "a ");
    expect_certain(fixture, "box13+12 inner ");
    expect(fixture, "");
    send(fixture, "b");
    expect(fixture, "b ");
    fixture_close(fixture);
}

static void test_damage_is_told_once_with_its_place_and_length(void **state)
{
    struct fixture *fixture = fixture_open(state);

    damage(fixture, "123");
    send(fixture, "a");
    damage(fixture, "12345");
    send(fixture, "b");
    damage(fixture, "1234567");
    expect_doubt(fixture, ""); /* it might be the length of a message that is still to come */
    expect_certain(fixture, "box0+3 a box16+5 b box34+7 ");
    expect(fixture, "");
    damage(fixture, "12");
    expect_certain(fixture, "box41+2 ");
    send(fixture, "c");
    expect_certain(fixture, "c ");
    /* In flight: also around what was delivered. */
    gproc_trail_init(&fixture->trail);
    take(fixture);
    (void)next(fixture);
    deliver(fixture, next(fixture));
    expect(fixture, "flight0+3 a flight16+5 flight34+9 c ");
    fixture_close(fixture);
}

static void test_damage_that_went_with_a_delivery_is_not_told(void **state)
{
    struct fixture *fixture = fixture_open(state);

    damage(fixture, "123");
    send(fixture, "a");
    damage(fixture, "12");
    take(fixture);
    deliver(fixture, next(fixture));
    expect(fixture, "flight16+2 ");
    fixture_close(fixture);
}

static void test_damage_that_nothing_can_make_good_is_no_doubt(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint8_t *large = temporary_memory(*state, LARGE_BYTES);
    uint8_t *frame = temporary_memory(*state, LARGE_BYTES + HEADER);

    send(fixture, "a");
    damage(fixture, "\1"); /* with what follows, a length that ends in the large one */
    send(fixture, "b");
    memset(large, 'x', LARGE_BYTES);
    temporary_append(fixture->box, frame, temporary_frame(frame, 1, large, LARGE_BYTES));
    tick(fixture);
    expect(fixture, "a box13+1 b large ");
    fixture_close(fixture);
}

static void test_unsettled_segment_and_what_is_behind_it_is_in_doubt(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_segment moving = {.fd = -1};
    uint64_t serial;

    send(fixture, "a");
    take(fixture);
    send(fixture, "b");
    serial = gproc_inflight_newest(&fixture->world.inflight);
    /* As a mount leaves it that was killed before it emptied the mailbox. */
    assert_int_equal(world_lock(&fixture->world), 0);
    moving.fd = gproc_store_create(&fixture->world.store, PID, &serial);
    assert_int_equal(gproc_segment_copy(&moving, moving.fd, &fixture->world.mailbox, 0, NULL), 0);
    gproc_segment_release(&moving);
    world_unlock(&fixture->world);
    assert_int_equal(gproc_inflight_load(&fixture->world.inflight, serial), 0);
    send(fixture, "c");
    expect_doubt(fixture, "a ");
    assert_int_equal(go_on(fixture, true), GPROC_TRAIL_DOUBT);
    expect_shown(fixture, "");
    assert_int_equal(world_settle(&fixture->world), 0);
    expect(fixture, "b c ");
    fixture_close(fixture);
}

static void test_what_was_gathered_for_the_way_back_is_not_shown_twice(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store *store = &fixture->world.store;
    struct gproc_segment old = {.fd = -1}, returning = {.fd = -1};
    uint64_t old_serial, serial;

    send(fixture, "a");
    take(fixture);
    old_serial = serial = gproc_inflight_newest(&fixture->world.inflight);
    /* As a mount leaves it that was killed before it put it back. */
    returning.fd = gproc_store_create(store, PID, &serial);
    assert_int_equal(gproc_segment_load(&old, gproc_store_open_segment(store, PID, old_serial)), 0);
    assert_int_equal(gproc_segment_gather(&returning, &old, old_serial), 0);
    assert_int_equal(gproc_segment_seal(&returning), 0);
    gproc_segment_release(&old);
    gproc_segment_release(&returning);
    assert_int_equal(gproc_inflight_load(&fixture->world.inflight, serial), 0);
    expect_doubt(fixture, "");
    assert_int_equal(world_settle(&fixture->world), 0);
    expect(fixture, "a ");
    fixture_close(fixture);
}

static void test_visitor_that_finds_it_gone_ends_it_without_error(void **state)
{
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    send(fixture, "b");
    take(fixture);
    send(fixture, "c");
    send(fixture, "d");
    for (int i = 0; i < 4; i++) { /* one each time */
        fixture->answer = -ESTALE;
        fixture->answer_from = 1;
        assert_int_equal(go_on(fixture, false), GPROC_TRAIL_ALL);
        fixture->answer = 0;
    }
    expect_shown(fixture, "a b c d ");
    expect(fixture, "");
    fixture_close(fixture);
}

static void test_other_error_of_the_visitor_ends_it_and_nothing_is_lost(void **state)
{
    static const int errors[] = {-EIO, -ENOSPC, -ENOMEM};
    struct fixture *fixture = fixture_open(state);

    send(fixture, "a");
    send(fixture, "b");
    take(fixture);
    send(fixture, "c");
    send(fixture, "d");
    for (int i = 0; i < 3; i++) {
        fixture->answer = errors[i];
        fixture->answer_from = 1;
        assert_int_equal(go_on(fixture, i % 2 != 0), errors[i]);
    }
    expect_shown(fixture, "a b c ");
    fixture->answer = 0;
    expect(fixture, "d ");
    fixture_close(fixture);
}

static int show_and_empty(void *context, const struct gproc_source *source,
                          const struct gproc_message *message)
{
    struct fixture *fixture = context;
    int result = show_message(context, source, message);

    drain(fixture);
    return result;
}

static void test_mailbox_emptied_while_it_is_read_is_no_error(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const struct gproc_trail_visitor visitor = {show_and_empty, show_damage, fixture};
    const size_t large_bytes = 300 * 1024; /* more than is read ahead */
    uint8_t *large = temporary_memory(*state, large_bytes);
    struct gproc_mailbox mailbox;

    send(fixture, "a");
    memset(large, 'x', large_bytes);
    temporary_append(fixture->box, large, large_bytes);
    assert_int_equal(gproc_mailbox_open(&mailbox, &fixture->world.mailboxes, PID, O_RDONLY), 0);
    assert_int_equal(gproc_trail_go(&fixture->trail, NULL, &mailbox, false, &visitor),
                     GPROC_TRAIL_ALL);
    gproc_mailbox_close(&mailbox);
    expect_shown(fixture, "a ");
    send(fixture, "b");
    expect(fixture, "b ");
    fixture_close(fixture);
}

static void test_no_mailbox_and_nothing_in_flight_is_nothing(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const struct gproc_trail_visitor visitor = {show_message, NULL, fixture};

    send(fixture, "a");
    damage(fixture, "1234567890123456");
    assert_int_equal(gproc_trail_go(&fixture->trail, NULL, NULL, false, &visitor), GPROC_TRAIL_ALL);
    expect_shown(fixture, "");
    take(fixture);
    assert_int_equal(
        gproc_trail_go(&fixture->trail, &fixture->world.inflight, NULL, false, &visitor),
        GPROC_TRAIL_ALL);
    expect_shown(fixture, "a "); /* nobody wanted the damage */
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_segments_and_mailbox_are_one_queue_in_order),
        TEMPORARY_TEST(test_what_is_sent_later_is_shown_once),
        TEMPORARY_TEST(test_what_was_shown_is_not_shown_again_when_it_is_moved_into_flight),
        TEMPORARY_TEST(test_damage_that_was_told_is_not_told_again_when_it_is_moved),
        TEMPORARY_TEST(test_what_is_sent_after_this_mount_emptied_it_is_new),
        TEMPORARY_TEST(test_what_is_sent_after_others_emptied_it_is_new),
        TEMPORARY_TEST(test_what_others_filled_again_is_new_in_flight_too),
        TEMPORARY_TEST(test_filled_again_to_the_same_size_is_new_once_that_is_certain),
        TEMPORARY_TEST(test_change_of_mode_shows_nothing_again),
        TEMPORARY_TEST(test_what_was_delivered_before_it_was_shown_is_passed_over),
        TEMPORARY_TEST(test_what_is_in_hand_and_what_was_given_back_is_shown_once),
        TEMPORARY_TEST(test_half_an_append_shows_nothing_that_nobody_sent),
        TEMPORARY_TEST(test_half_an_append_is_damage_with_what_is_in_it_once_that_is_certain),
        TEMPORARY_TEST(test_damage_is_told_once_with_its_place_and_length),
        TEMPORARY_TEST(test_damage_that_went_with_a_delivery_is_not_told),
        TEMPORARY_TEST(test_damage_that_nothing_can_make_good_is_no_doubt),
        TEMPORARY_TEST(test_unsettled_segment_and_what_is_behind_it_is_in_doubt),
        TEMPORARY_TEST(test_what_was_gathered_for_the_way_back_is_not_shown_twice),
        TEMPORARY_TEST(test_visitor_that_finds_it_gone_ends_it_without_error),
        TEMPORARY_TEST(test_other_error_of_the_visitor_ends_it_and_nothing_is_lost),
        TEMPORARY_TEST(test_mailbox_emptied_while_it_is_read_is_no_error),
        TEMPORARY_TEST(test_no_mailbox_and_nothing_in_flight_is_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
