/*
 * Whatever call fails in the life of a mount - while it takes, hands over, looks, throws away, puts
 * back, ends - no message is lost, they stay in order, and what was delivered does not come again,
 * but for what was being handed over when it failed.
 *
 * Each life ends as its mount would; then another one, in which nothing fails, puts everything back
 * into the mailbox, where it is counted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "move.h"
#include "queue.h"
#include "segment.h"
#include "temporary.h"
#include "walk.h"
#include "world.h"

enum {
    PID = 4711,
    NOBODYS = 1, /* a pid that has no mailbox */
    FIRST_SENDER = 100,
    MESSAGES_MOST = 8,
    PAYLOAD_BYTES = 70, /* of the second; the third has twice as many ... */
    FRAME_MOST_BYTES = 1024,
    AT_OWNER = 56, /* of a segment's file; see segment.h */
    HELD_MOST_BYTES = MESSAGES_MOST * FRAME_MOST_BYTES,
};

struct fixture {
    struct temporary *temporary;
    char box[PATH_MAX];
    struct world world;
    /* Messages are numbered as they are sent. */
    unsigned sent_count;
    bool is_gone[MESSAGES_MOST];     /* delivered, and told so */
    bool may_be_gone[MESSAGES_MOST]; /* delivering it failed, or throwing it away */
    int error;                       /* the first that was handed up in this life; 0: none */
};

static void init(struct fixture *fixture, struct temporary *temporary)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture->temporary = temporary;
    strcpy(fixture->box, temporary_path(temporary, "gproc/%d", PID));
    temporary_mkdir(temporary_path(temporary, "gproc"));
    temporary_mkdir(temporary_path(temporary, "gflock"));
}

static void clear(struct fixture *fixture)
{
    temporary_remove(temporary_path(fixture->temporary, "gproc"));
    temporary_remove(temporary_path(fixture->temporary, "gflock"));
}

/* Message `which` in a frame; they are of other lengths each, and the first of them is empty. */
static size_t frame_of(unsigned which, uint8_t frame[FRAME_MOST_BYTES])
{
    static const uint8_t payload[FRAME_MOST_BYTES];

    return temporary_frame(frame, FIRST_SENDER + (int32_t)which, payload, PAYLOAD_BYTES * which);
}

static void send(struct fixture *fixture)
{
    uint8_t frame[FRAME_MOST_BYTES];
    const size_t size = frame_of(fixture->sent_count, frame);

    assert_true(fixture->sent_count < MESSAGES_MOST);
    fixture->sent_count++;
    fault_pause();
    temporary_append(fixture->box, frame, size);
    fault_go_on();
}

/* What was handed up. */
static int note(struct fixture *fixture, int result)
{
    if (fixture->error == 0 && result < 0)
        fixture->error = result;
    return result;
}

/* ---- A mount begins and ends */

static int load(void *context, pid_t pid, uint64_t serial)
{
    struct fixture *fixture = context;
    int result;

    assert_int_equal(pid, PID);
    result = note(fixture, gproc_inflight_load(&fixture->world.inflight, serial));
    return result == -ENOMEM ? result : 0; /* else it is unsettled, and settling tries again */
}

/* As world_open(), but goes on with what could not be loaded, as the daemon does. */
static int begin(struct fixture *fixture)
{
    int result = world_open(&fixture->world, fixture->temporary->root, NOBODYS);

    if (note(fixture, result) < 0)
        return result;
    fixture->world.pid = PID;
    gproc_inflight_init(&fixture->world.inflight, &fixture->world.store, PID);
    result = note(fixture, gproc_store_list(&fixture->world.store, load, fixture));
    if (result < 0)
        world_close(&fixture->world);
    return result;
}

/* What a kill does: descriptors are gone, and with them the lock. */
static void die(struct fixture *fixture)
{
    gproc_inflight_release(&fixture->world.inflight);
    close(fixture->world.store.fd);
    close(fixture->world.store.lock_fd);
    pthread_mutex_destroy(&fixture->world.store.renewing);
    gproc_place_release(&fixture->world.mailboxes);
    gproc_place_release(&fixture->world.locks);
}

/*
 * Another mount puts everything back: then the mailbox holds what was sent, without what is gone, and
 * with or without what may be.
 */
static void expect_all(struct fixture *fixture, const struct fault_walk *walk)
{
    uint8_t held[HELD_MOST_BYTES];
    size_t size, at = 0;
    FILE *file;

    assert_int_equal(begin(fixture), 0);
    assert_int_equal(world_settle(&fixture->world), 0);
    assert_int_equal(world_return(&fixture->world), 0);
    world_close(&fixture->world);
    file = fopen(fixture->box, "re");
    assert_non_null(file);
    size = fread(held, 1, sizeof(held), file);
    fclose(file);
    for (unsigned which = 0; which < fixture->sent_count; which++) {
        uint8_t frame[FRAME_MOST_BYTES];
        const size_t frame_bytes = frame_of(which, frame);
        const bool is_there =
            at + frame_bytes <= size && memcmp(held + at, frame, frame_bytes) == 0;

        if (is_there && fixture->is_gone[which])
            fail_msg("%s: message %u comes again", fault_walk_say(walk), which);
        if (!is_there && !fixture->is_gone[which] && !fixture->may_be_gone[which])
            fail_msg("%s: message %u is lost", fault_walk_say(walk), which);
        if (is_there)
            at += frame_bytes;
    }
    if (at != size)
        fail_msg("%s: %zu bytes more than there should be", fault_walk_say(walk), size - at);
}

/* ---- What a dead mount left */

enum cut {
    NOTHING_LEFT,
    LEFT_IN_FLIGHT,       /* the first of three delivered */
    LEFT_BEFORE_EMPTYING, /* a move */
    LEFT_AFTER_EMPTYING,
    LEFT_RETURNING, /* a return, with nothing put back yet, and its original there still */
    LEFT_RETURNED_IN_PART,
    LEFT_RETURNED,   /* all of it, and sent to since */
    LEFT_UNFINISHED, /* a copy that never became a segment */
    LEFT_TWO,        /* after emptying, and what had come since, moved by another mount */
    CUTS_COUNT,
};

/* A file of the store, which is the segment's from now on. */
static struct gproc_segment segment_of(struct fixture *fixture, uint64_t *serial)
{
    const int fd = gproc_store_create(&fixture->world.store, PID, serial);

    assert_true(fd >= 0);
    return (struct gproc_segment){.fd = fd};
}

/* A move as far as the copy; the mailbox is open and locked. */
static struct gproc_segment copy_mailbox(struct fixture *fixture, uint64_t *serial)
{
    struct gproc_segment segment = segment_of(fixture, serial);

    assert_int_equal(gproc_segment_copy(&segment, segment.fd, &fixture->world.mailbox, 0, NULL), 0);
    return segment;
}

/* Moves the mailbox into a segment, and gathers that for its return. */
static struct gproc_segment gather(struct fixture *fixture)
{
    uint64_t serial = 0, copy_serial;
    struct gproc_segment segment = copy_mailbox(fixture, &serial);
    struct gproc_segment copy;

    assert_int_equal(gproc_mailbox_clear(&fixture->world.mailbox), 0);
    assert_int_equal(gproc_segment_ready(&segment), 0);
    copy_serial = serial;
    copy = segment_of(fixture, &copy_serial);
    assert_int_equal(gproc_segment_gather(&copy, &segment, serial), 0);
    assert_int_equal(gproc_segment_seal(&copy), 0);
    gproc_segment_release(&segment);
    return copy;
}

static void put_back(struct fixture *fixture, unsigned count)
{
    for (unsigned which = 0; which < count; which++) {
        uint8_t frame[FRAME_MOST_BYTES];

        temporary_append(fixture->box, frame, frame_of(which, frame));
    }
}

/* Three messages are sent, and that is how its mount dies. */
static void leave(struct fixture *fixture, enum cut cut)
{
    struct gproc_segment segment = {.fd = -1};
    uint64_t serial = 0;

    for (int i = 0; i < 3; i++)
        send(fixture);
    if (cut == NOTHING_LEFT)
        return;
    assert_int_equal(begin(fixture), 0);
    if (cut == LEFT_IN_FLIGHT) {
        struct gproc_taken *taken;

        assert_int_equal(world_take(&fixture->world), 0);
        assert_int_equal(gproc_inflight_next(&fixture->world.inflight, &taken), 1);
        assert_int_equal(gproc_inflight_deliver(&fixture->world.inflight, taken), 0);
        fixture->is_gone[0] = true;
    } else {
        assert_int_equal(world_lock(&fixture->world), 0);
        if (cut >= LEFT_RETURNING && cut <= LEFT_RETURNED)
            segment = gather(fixture);
        else if (cut == LEFT_UNFINISHED)
            segment = segment_of(fixture, &serial);
        else
            segment = copy_mailbox(fixture, &serial);
        if (cut == LEFT_AFTER_EMPTYING || cut == LEFT_TWO)
            assert_int_equal(gproc_mailbox_clear(&fixture->world.mailbox), 0);
        if (cut == LEFT_RETURNED_IN_PART || cut == LEFT_RETURNED)
            put_back(fixture, cut == LEFT_RETURNED ? 3 : 2);
        world_unlock(&fixture->world);
        gproc_segment_release(&segment);
        if (cut == LEFT_TWO) {
            send(fixture);
            assert_int_equal(world_take(&fixture->world), 0);
        }
    }
    die(fixture);
    if (cut != LEFT_BEFORE_EMPTYING)
        send(fixture);
}

/* ---- A life, in which something fails */

static struct gproc_taken *next(struct fixture *fixture)
{
    struct gproc_taken *taken;

    return note(fixture, gproc_inflight_next(&fixture->world.inflight, &taken)) == 1 ? taken : NULL;
}

static void hand_over(struct fixture *fixture, struct gproc_taken *taken)
{
    const unsigned which = (unsigned)(taken->message.sender - FIRST_SENDER);
    char payload[FRAME_MOST_BYTES];
    int result =
        note(fixture, gproc_inflight_read(taken, payload, taken->message.payload_bytes, 0));

    assert_true(which < fixture->sent_count);
    if (result == 0) {
        result = note(fixture, gproc_inflight_deliver(&fixture->world.inflight, taken));
        fixture->is_gone[which] = result == 0;
        fixture->may_be_gone[which] = result < 0;
    }
    if (result < 0)
        gproc_inflight_give_back(&fixture->world.inflight, taken);
}

static int show(void *context, const struct gproc_source *source,
                const struct gproc_message *message)
{
    char payload[FRAME_MOST_BYTES];

    (void)context;
    return gproc_source_read(source, payload, message->payload_bytes, message->payload_offset);
}

static void look(struct fixture *fixture)
{
    const struct gproc_inflight_visitor visitor = {.message = show};
    struct gproc_inflight_mark mark = {0};
    uint64_t payload_bytes, disk_bytes;

    (void)note(fixture, gproc_inflight_walk(&fixture->world.inflight, &mark, &visitor));
    (void)note(fixture,
               gproc_inflight_measure(&fixture->world.inflight, &payload_bytes, &disk_bytes));
}

static size_t say_nothing(char *to, const struct gproc_message *message)
{
    (void)to;
    (void)message;
    return 0;
}

/* Several as one, which is given back: whoever comes next has the first of them alone. */
static void give_back_several(struct fixture *fixture)
{
    uint8_t bytes[2 * FRAME_MOST_BYTES];
    struct gproc_pack pack = {.bytes = bytes, .room_bytes = sizeof(bytes), .head = say_nothing};
    struct gproc_taken *several = next(fixture);

    if (several == NULL)
        return;
    (void)note(fixture, gproc_inflight_extend(&fixture->world.inflight, several, &pack));
    gproc_inflight_give_back(&fixture->world.inflight, several);
}

/* One out of order, the one before it given back. */
static void hand_over_some(struct fixture *fixture)
{
    struct gproc_taken *one = next(fixture);
    struct gproc_taken *two = next(fixture);

    if (two != NULL)
        hand_over(fixture, two);
    if (one != NULL)
        gproc_inflight_give_back(&fixture->world.inflight, one);
    one = next(fixture);
    if (one != NULL)
        hand_over(fixture, one);
}

/* In which of its parts calls fail; the others are done without. */
enum part {
    FAILS_BEGINNING, /* it picks up what was left, and settles that */
    FAILS_LIVING,    /* it takes, hands over, and puts the rest back */
    FAILS_CLEARING,  /* it throws away what it has */
};

static void part_is(enum part part, enum part failing)
{
    if (part == failing)
        fault_go_on();
    else
        fault_pause();
}

static void go_on_living(struct fixture *fixture, enum part failing)
{
    send(fixture);
    part_is(FAILS_LIVING, failing);
    if (note(fixture, world_take(&fixture->world)) == 0) {
        give_back_several(fixture);
        hand_over_some(fixture);
    }
    look(fixture);
    if (failing == FAILS_CLEARING) {
        for (unsigned which = 0; which < fixture->sent_count; which++)
            fixture->may_be_gone[which] = true;
        part_is(FAILS_CLEARING, failing);
        (void)note(fixture, gproc_inflight_clear(&fixture->world.inflight));
    } else {
        send(fixture);
        part_is(FAILS_LIVING, failing);
        (void)note(fixture, world_return(&fixture->world));
    }
}

static void live(struct fixture *fixture, enum part failing)
{
    part_is(FAILS_BEGINNING, failing);
    if (begin(fixture) < 0)
        return;
    if (!gproc_inflight_is_unsettled(&fixture->world.inflight) ||
        note(fixture, world_settle(&fixture->world)) == 0) {
        look(fixture);
        if (failing != FAILS_BEGINNING)
            go_on_living(fixture, failing);
    }
    world_close(&fixture->world);
}

static void walk_lives(struct temporary *temporary, enum cut cut, enum part failing)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct fixture fixture;

        init(&fixture, temporary);
        leave(&fixture, cut);
        fault_walk_start(&walk);
        live(&fixture, failing);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, fixture.error, -EUCLEAN);
        expect_all(&fixture, &walk);
        clear(&fixture);
    } while (fault_walk_next(&walk));
}

static void test_nothing_is_lost_or_comes_again_whatever_fails_while_it_is_in_flight(void **state)
{
    walk_lives(*state, LEFT_IN_FLIGHT, FAILS_LIVING);
}

static void test_nor_whatever_fails_while_it_is_picked_up_from_a_dead_mount(void **state)
{
    static const enum cut cuts[] = {
        LEFT_IN_FLIGHT, LEFT_BEFORE_EMPTYING, LEFT_RETURNING, LEFT_RETURNED_IN_PART,
        LEFT_RETURNED,  LEFT_UNFINISHED,      LEFT_TWO,
    };

    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
        walk_lives(*state, cuts[i], FAILS_BEGINNING);
}

static void test_clearing_throws_away_the_oldest_first_as_far_as_it_came(void **state)
{
    walk_lives(*state, NOTHING_LEFT, FAILS_CLEARING);
}

/* ---- Odds and ends */

/* A mount begins on what that left. */
static void start(struct fixture *fixture, struct temporary *temporary, enum cut cut)
{
    init(fixture, temporary);
    leave(fixture, cut);
    assert_int_equal(begin(fixture), 0);
}

static void finish(struct fixture *fixture)
{
    static const struct fault_walk none;

    world_close(&fixture->world);
    expect_all(fixture, &none);
    clear(fixture);
}

/* More than is looked at in one go, so that it is read once more. */
static void test_message_that_cannot_be_packed_is_left_to_who_comes_next(void **state)
{
    enum { LARGE_BYTES = 4 * 1024 * 1024, ROOM_BYTES = 2 * LARGE_BYTES };
    uint8_t *frame = malloc(GPROC_FRAME_HEADER_BYTES + LARGE_BYTES);
    uint8_t *room = malloc(ROOM_BYTES);
    static const uint8_t small[1];
    uint8_t *large = calloc(1, LARGE_BYTES);
    struct fault_walk walk;

    assert_true(frame != NULL && room != NULL && large != NULL);
    fault_walk_init(&walk);
    do {
        struct gproc_pack pack = {.bytes = room, .room_bytes = ROOM_BYTES, .head = say_nothing};
        struct fixture fixture;
        struct gproc_taken *taken;
        int result;

        init(&fixture, *state);
        temporary_append(fixture.box, frame, temporary_frame(frame, 1, small, sizeof(small)));
        temporary_append(fixture.box, frame, temporary_frame(frame, 2, large, LARGE_BYTES));
        assert_int_equal(begin(&fixture), 0);
        assert_int_equal(world_take(&fixture.world), 0);
        taken = next(&fixture);
        fault_walk_start(&walk);
        result = gproc_inflight_extend(&fixture.world.inflight, taken, &pack);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(taken->messages_count, result == 0 ? 2 : 1);
        assert_int_equal(gproc_inflight_deliver(&fixture.world.inflight, taken), 0);
        if (result < 0) {
            taken = next(&fixture);
            assert_int_equal(taken->message.payload_bytes, LARGE_BYTES);
            assert_int_equal(gproc_inflight_deliver(&fixture.world.inflight, taken), 0);
        }
        assert_int_equal(fixture.world.inflight.messages_count, 0);
        world_close(&fixture.world);
        clear(&fixture);
    } while (fault_walk_next(&walk));
    free(frame);
    free(room);
    free(large);
}

static void test_move_from_a_mailbox_that_is_gone_is_settled(void **state)
{
    struct fixture fixture;

    init(&fixture, *state);
    leave(&fixture, LEFT_AFTER_EMPTYING);
    assert_int_equal(unlink(fixture.box), 0);
    fixture.is_gone[--fixture.sent_count] = false; /* the one that was in it */
    assert_int_equal(begin(&fixture), 0);
    assert_true(gproc_inflight_is_unsettled(&fixture.world.inflight));
    assert_int_equal(world_settle(&fixture.world), 0);
    assert_false(gproc_inflight_is_unsettled(&fixture.world.inflight));
    assert_int_equal(fixture.world.inflight.messages_count, 3);
    finish(&fixture);
}

static void test_message_that_is_given_back_twice_is_given_back_once(void **state)
{
    struct gproc_taken *one, *again;
    struct fixture fixture;

    start(&fixture, *state, NOTHING_LEFT);
    assert_int_equal(world_take(&fixture.world), 0);
    one = next(&fixture);
    assert_non_null(one);
    gproc_inflight_give_back(&fixture.world.inflight, one);
    gproc_inflight_give_back(&fixture.world.inflight, one);
    again = next(&fixture);
    assert_ptr_equal(again, one);
    again = next(&fixture);
    assert_non_null(again);
    assert_int_equal(again->message.sender, FIRST_SENDER + 1);
    finish(&fixture);
}

/* What could not be opened is not counted, and no error; then it is. */
static void test_measure_counts_what_is_loaded_and_the_rest_when_it_is(void **state)
{
    uint64_t payload_bytes, disk_bytes;
    struct fixture fixture;

    init(&fixture, *state);
    leave(&fixture, LEFT_IN_FLIGHT);
    assert_int_equal(world_open(&fixture.world, fixture.temporary->root, NOBODYS), 0);
    fixture.world.pid = PID;
    gproc_inflight_init(&fixture.world.inflight, &fixture.world.store, PID);
    fault_calls("fstat", 1, 1, -EIO);
    assert_int_equal(gproc_store_list(&fixture.world.store, load, &fixture), 0);
    fault_stop();
    assert_int_equal(fixture.error, -EIO);
    assert_int_equal(gproc_inflight_measure(&fixture.world.inflight, &payload_bytes, &disk_bytes),
                     0);
    assert_int_equal(payload_bytes, 0);
    assert_int_equal(world_settle(&fixture.world), 0);
    assert_int_equal(gproc_inflight_measure(&fixture.world.inflight, &payload_bytes, &disk_bytes),
                     0);
    assert_int_equal(payload_bytes, PAYLOAD_BYTES * (1 + 2));
    finish(&fixture);
}

/* What could not be counted is delivered all the same; what is left of it is counted later. */
static void test_what_could_not_be_counted_is_delivered_and_the_rest_counted_later(void **state)
{
    uint64_t payload_bytes, disk_bytes;
    struct gproc_taken *taken;
    struct fixture fixture;

    start(&fixture, *state, NOTHING_LEFT);
    temporary_append(fixture.box, "???", 3); /* what is intact is counted while it is copied */
    fault_calls("pread", 2, 9, -EIO);        /* the first is the copy's */
    assert_int_equal(world_take(&fixture.world), 0);
    assert_int_equal(gproc_inflight_measure(&fixture.world.inflight, &payload_bytes, &disk_bytes),
                     -EIO);
    fault_stop();
    assert_int_equal(fixture.world.inflight.messages_count, 0);
    taken = next(&fixture);
    assert_non_null(taken);
    hand_over(&fixture, taken);
    taken = next(&fixture);
    assert_non_null(taken);
    hand_over(&fixture, taken);
    assert_int_equal(fixture.world.inflight.delivered_count, 2);
    assert_int_equal(gproc_inflight_measure(&fixture.world.inflight, &payload_bytes, &disk_bytes),
                     0);
    assert_int_equal(payload_bytes, 2 * PAYLOAD_BYTES);
    assert_int_equal(fixture.world.inflight.messages_count, 1);
    world_close(&fixture.world); /* the damage is there still */
    clear(&fixture);
}

static int count_damage(void *context, off_t offset, off_t size_bytes)
{
    (void)offset;
    *(off_t *)context += size_bytes;
    return 0;
}

static int show_nothing(void *context, const struct gproc_source *source,
                        const struct gproc_message *message)
{
    (void)context;
    (void)source;
    (void)message;
    return 0;
}

static void test_damage_is_shown_to_who_asks_for_it(void **state)
{
    off_t damaged_bytes = 0;
    struct gproc_inflight_visitor visitor = {.message = show_nothing, .context = &damaged_bytes};
    struct gproc_inflight_mark mark = {0};
    struct fixture fixture;

    start(&fixture, *state, NOTHING_LEFT);
    temporary_append(fixture.box, "???", 3);
    assert_int_equal(world_take(&fixture.world), 0);
    assert_int_equal(gproc_inflight_walk(&fixture.world.inflight, &mark, &visitor), 0);
    assert_int_equal(damaged_bytes, 0);
    visitor.damage = count_damage;
    mark = (struct gproc_inflight_mark){0};
    assert_int_equal(gproc_inflight_walk(&fixture.world.inflight, &mark, &visitor), 0);
    assert_int_equal(damaged_bytes, 3);
    world_close(&fixture.world);
    clear(&fixture);
}

/* What was sent to the owner of a mailbox is not the next one's; where he was given it, it is. */
static void test_messages_are_another_owners_until_the_mailbox_is_given_to_him(void **state)
{
    const uid_t other = geteuid() + 1;
    struct fixture fixture;

    start(&fixture, *state, NOTHING_LEFT);
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, other));
    assert_int_equal(world_take(&fixture.world), 0);
    send(&fixture);
    assert_int_equal(world_take(&fixture.world), 0);
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, geteuid()));
    assert_true(gproc_inflight_is_foreign(&fixture.world.inflight, other));
    /* The first segment, then the second. */
    for (unsigned which = 1; which <= 2; which++) {
        fault_calls("pwrite", which, which, -EIO);
        assert_int_equal(gproc_inflight_own(&fixture.world.inflight, other), -EIO);
        fault_stop();
        assert_true(gproc_inflight_is_foreign(&fixture.world.inflight, other));
    }
    assert_int_equal(gproc_inflight_own(&fixture.world.inflight, other), 0);
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, other));
    world_close(&fixture.world);
    assert_int_equal(begin(&fixture), 0);
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, other));
    assert_true(gproc_inflight_is_foreign(&fixture.world.inflight, geteuid()));
    finish(&fixture);
}

/* A segment of whose owner the file does not tell. */
static void test_messages_of_an_unknown_owner_are_everybodys(void **state)
{
    const uint8_t unknown[8] = {0};
    struct fixture fixture;
    uint64_t serial;
    int fd;

    start(&fixture, *state, NOTHING_LEFT);
    assert_int_equal(world_take(&fixture.world), 0);
    serial = gproc_inflight_newest(&fixture.world.inflight);
    fd = gproc_store_open_segment(&fixture.world.store, PID, serial);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, unknown, sizeof(unknown), AT_OWNER), sizeof(unknown));
    close(fd);
    world_close(&fixture.world);
    assert_int_equal(begin(&fixture), 0);
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, geteuid()));
    assert_false(gproc_inflight_is_foreign(&fixture.world.inflight, geteuid() + 1));
    finish(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_nothing_is_lost_or_comes_again_whatever_fails_while_it_is_in_flight),
        TEMPORARY_TEST(test_nor_whatever_fails_while_it_is_picked_up_from_a_dead_mount),
        TEMPORARY_TEST(test_clearing_throws_away_the_oldest_first_as_far_as_it_came),
        TEMPORARY_TEST(test_message_that_cannot_be_packed_is_left_to_who_comes_next),
        TEMPORARY_TEST(test_move_from_a_mailbox_that_is_gone_is_settled),
        TEMPORARY_TEST(test_message_that_is_given_back_twice_is_given_back_once),
        TEMPORARY_TEST(test_measure_counts_what_is_loaded_and_the_rest_when_it_is),
        TEMPORARY_TEST(test_what_could_not_be_counted_is_delivered_and_the_rest_counted_later),
        TEMPORARY_TEST(test_damage_is_shown_to_who_asks_for_it),
        TEMPORARY_TEST(test_messages_are_another_owners_until_the_mailbox_is_given_to_him),
        TEMPORARY_TEST(test_messages_of_an_unknown_owner_are_everybodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
