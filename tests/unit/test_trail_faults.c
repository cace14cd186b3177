/*
 * Whatever call fails, a trail shows each message once, in order: in this look, or, where the error
 * was handed up, in this one and the next. So it does where who is shown a thing refuses it.
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

#include "fault.h"
#include "temporary.h"
#include "trail.h"
#include "world.h"

enum {
    PID = 4711,
};

struct fixture {
    struct world world;
    const char *box;
    struct gproc_trail trail;
    char shown[256];
    int answer_to_damage;
};

static void set(struct fixture *fixture, struct temporary *temporary)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture->box = temporary_path(temporary, "gproc/4711");
    assert_int_equal(world_open(&fixture->world, temporary->root, PID), 0);
    gproc_trail_init(&fixture->trail);
}

static void clear(struct fixture *fixture, struct temporary *temporary)
{
    world_close(&fixture->world);
    temporary_remove(temporary_path(temporary, "gproc"));
    temporary_remove(temporary_path(temporary, "gflock"));
}

static int show_message(void *context, const struct gproc_source *source,
                        const struct gproc_message *message)
{
    struct fixture *fixture = context;
    size_t length = strlen(fixture->shown);
    int result;

    assert_true(length + message->payload_bytes + 1 < sizeof(fixture->shown));
    result = gproc_source_read(source, fixture->shown + length, message->payload_bytes,
                               message->payload_offset);
    if (result < 0) {
        fixture->shown[length] = '\0';
        return result;
    }
    memcpy(fixture->shown + length + message->payload_bytes, " ", 2);
    return 0;
}

static int show_damage(void *context, bool in_flight, off_t offset, off_t size_bytes)
{
    struct fixture *fixture = context;
    size_t length = strlen(fixture->shown);

    (void)in_flight;
    (void)offset;
    if (fixture->answer_to_damage != 0)
        return fixture->answer_to_damage;
    snprintf(fixture->shown + length, sizeof(fixture->shown) - length, "(%lld) ",
             (long long)size_bytes);
    return 0;
}

/* With the lock. */
static int look(struct fixture *fixture, bool with_damage)
{
    const struct gproc_trail_visitor visitor = {
        .message = show_message,
        .damage = with_damage ? show_damage : NULL,
        .context = fixture,
    };
    int result = world_lock(&fixture->world);

    if (result < 0)
        return result;
    result =
        gproc_trail_go(&fixture->trail, &fixture->world.inflight,
                       fixture->world.has_mailbox ? &fixture->world.mailbox : NULL, true, &visitor);
    world_unlock(&fixture->world);
    return result;
}

/* Two messages in flight and two in the mailbox; damage
 * in both. */
static void fill(struct fixture *fixture)
{
    temporary_append_text(fixture->box, 1, "a");
    temporary_append(fixture->box, "?", 1);
    temporary_append_text(fixture->box, 1, "b");
    assert_int_equal(world_take(&fixture->world), 0);
    temporary_append_text(fixture->box, 1, "c");
    temporary_append(fixture->box, "??", 2);
    temporary_append_text(fixture->box, 1, "d");
}

static void test_each_message_is_shown_once_whatever_fails(void **state)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct fixture fixture;
        int result;

        set(&fixture, *state);
        fill(&fixture);
        fault_walk_start(&walk);
        result = look(&fixture, true);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result < 0)
            result = look(&fixture, true);
        assert_int_equal(result, GPROC_TRAIL_ALL);
        assert_string_equal(fixture.shown, "a (1) b c (2) d ");
        clear(&fixture, *state);
    } while (fault_walk_next(&walk));
}

static void test_damage_is_refused_without_being_lost(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    fill(&fixture);
    fixture.answer_to_damage = -ENOSPC;
    assert_int_equal(look(&fixture, true), -ENOSPC);
    assert_string_equal(fixture.shown, "a ");
    fixture.answer_to_damage = 0;
    assert_int_equal(world_take(&fixture.world), 0); /* nobody told the trail */
    assert_int_equal(look(&fixture, true), GPROC_TRAIL_ALL);
    assert_string_equal(fixture.shown, "a (1) b c (2) d ");

    temporary_append(fixture.box, "???", 3);
    fixture.answer_to_damage = -ENOSPC;
    assert_int_equal(look(&fixture, true), -ENOSPC);
    fixture.answer_to_damage = 0;
    assert_int_equal(look(&fixture, true), GPROC_TRAIL_ALL);
    assert_string_equal(fixture.shown, "a (1) b c (2) d (3) ");
    clear(&fixture, *state);
}

static void test_who_does_not_ask_for_damage_is_shown_the_messages(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    fill(&fixture);
    assert_int_equal(look(&fixture, false), GPROC_TRAIL_ALL);
    assert_string_equal(fixture.shown, "a b c d ");
    clear(&fixture, *state);
}

/* Told of a move that is over, and shown: nothing of it is shown again. */
static void test_move_that_was_shown_already_is_not_gone_into_again(void **state)
{
    struct fixture fixture;

    set(&fixture, *state);
    fill(&fixture);
    assert_int_equal(look(&fixture, true), GPROC_TRAIL_ALL);
    gproc_trail_moved(&fixture.trail, gproc_inflight_newest(&fixture.world.inflight));
    fixture.shown[0] = '\0';
    assert_int_equal(look(&fixture, true), GPROC_TRAIL_ALL);
    assert_string_equal(fixture.shown,
                        "c (2) d "); /* of the mailbox, which is another one by that */
    clear(&fixture, *state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_each_message_is_shown_once_whatever_fails),
        TEMPORARY_TEST(test_damage_is_refused_without_being_lost),
        TEMPORARY_TEST(test_who_does_not_ask_for_damage_is_shown_the_messages),
        TEMPORARY_TEST(test_move_that_was_shown_already_is_not_gone_into_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
