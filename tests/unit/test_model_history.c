/* The judge of histories: one that can be explained, and each way to spoil it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "history.h"

enum {
    SENDER = 1,
    READER = 2,
    OTHER = 3,
    BYTES = 10,
};

/* Event `kind` of message `number`, or of `BYTES` bytes, in the time from `begun` to `done`. */
static void add(struct history *history, unsigned actor, enum history_kind kind, unsigned number,
                int64_t begun, int64_t done)
{
    const struct history_event event = {.kind = kind,
                                        .state = HISTORY_DONE,
                                        .actor = actor,
                                        .sender = SENDER,
                                        .number = number,
                                        .count = BYTES,
                                        .begun_ns = begun,
                                        .done_ns = done};

    history_add(history, &event);
}

static void judge(struct history *history, const char *wrong)
{
    const char *found = history_judge(history);

    if (wrong == NULL && found != NULL)
        fail_msg("not explained: %s", found);
    if (wrong != NULL && (found == NULL || strstr(found, wrong) == NULL))
        fail_msg("\"%s\" where \"%s\" is to be found", found != NULL ? found : "nothing", wrong);
    history_release(history);
}

/* Three messages, sent one after the other and taken in order. */
static void tell(struct history *history)
{
    history_init(history);
    add(history, SENDER, HISTORY_SEND, 0, 10, 11);
    add(history, SENDER, HISTORY_SEND, 1, 20, 21);
    add(history, SENDER, HISTORY_SEND, 2, 30, 31);
}

static void plain_history_is_explained(void **state)
{
    struct history history;

    (void)state;
    tell(&history);
    add(&history, READER, HISTORY_TAKE, 0, 40, 41);
    add(&history, READER, HISTORY_TAKE, 1, 50, 51);
    add(&history, READER, HISTORY_TAKE, 2, 60, 61);
    add(&history, READER, HISTORY_EMPTY, 0, 62, 63);
    add(&history, OTHER, HISTORY_EMPTY, 0, 5, 12);
    add(&history, OTHER, HISTORY_SIZE, 0, 15, 16);
    add(&history, OTHER, HISTORY_SIZE, 0, 52, 53);
    judge(&history, NULL);
}

static void each_message_is_taken_once(void **state)
{
    struct history history;

    (void)state;
    tell(&history);
    add(&history, READER, HISTORY_TAKE, 0, 40, 41);
    add(&history, READER, HISTORY_TAKE, 1, 50, 51);
    judge(&history, "lost");

    tell(&history);
    history.swallowed = 1;
    add(&history, READER, HISTORY_TAKE, 0, 40, 41);
    add(&history, READER, HISTORY_TAKE, 1, 50, 51);
    judge(&history, NULL);

    tell(&history);
    for (unsigned i = 0; i < 3; i++)
        add(&history, READER, HISTORY_TAKE, i, 40 + 10 * i, 41 + 10 * i);
    add(&history, OTHER, HISTORY_DRAIN, 1, 90, 91);
    judge(&history, "2 times");

    tell(&history);
    add(&history, READER, HISTORY_TAKE, 7, 40, 41);
    judge(&history, "not sent");

    tell(&history);
    add(&history, READER, HISTORY_TAKE, 1, 18, 19);
    judge(&history, "before it was sent");
}

static void message_is_seen_twice_only_if_it_was_in_hand_at_a_kill(void **state)
{
    struct history history;

    (void)state;
    for (int answered = 0; answered < 2; answered++) {
        tell(&history);
        for (unsigned i = 0; i < 3; i++)
            add(&history, READER, HISTORY_TAKE, i, 40 + 10 * i, 41 + 10 * i);
        if (answered)
            add(&history, OTHER, HISTORY_EMPTY, 0, 62, 63);
        add(&history, OTHER, HISTORY_KILL, 0, 70, 71);
        add(&history, READER, HISTORY_TAKE, 2, 80, 81);
        judge(&history, answered ? "2 times" : NULL);
    }
    tell(&history);
    for (unsigned i = 0; i < 3; i++)
        add(&history, READER, HISTORY_TAKE, i, 40 + 10 * i, 41 + 10 * i);
    add(&history, OTHER, HISTORY_RETURN, 0, 70, 71);
    add(&history, READER, HISTORY_TAKE, 2, 80, 81);
    judge(&history, "2 times");
}

/* Killed after it was emptied by somebody, the daemon cannot have been at that. */
static void message_that_somebody_drained_is_seen_again_only_after_a_kill_before(void **state)
{
    struct history history;

    (void)state;
    for (int late = 0; late < 2; late++) {
        tell(&history);
        add(&history, OTHER, HISTORY_KILL, 0, late ? 70 : 35, late ? 71 : 36);
        for (unsigned i = 0; i < 3; i++)
            add(&history, OTHER, HISTORY_DRAIN, i, 40, 41);
        add(&history, READER, HISTORY_TAKE, 2, 80, 81);
        judge(&history, late ? "2 times" : NULL);
    }
}

static void messages_are_taken_in_order(void **state)
{
    struct history history;

    (void)state;
    for (int held = 0; held < 2; held++) {
        tell(&history);
        add(&history, READER, HISTORY_TAKE, 1, 40, 41);
        add(&history, OTHER, HISTORY_TAKE, 0, 50, 51);
        add(&history, OTHER, HISTORY_TAKE, 2, 60, 61);
        if (held)
            add(&history, OTHER, HISTORY_PART, 0, 35, 36);
        judge(&history, held ? NULL : "sent first");
    }
    /* At the same time, either may have been first. */
    tell(&history);
    add(&history, READER, HISTORY_TAKE, 1, 40, 49);
    add(&history, OTHER, HISTORY_TAKE, 0, 45, 51);
    add(&history, OTHER, HISTORY_TAKE, 2, 60, 61);
    judge(&history, NULL);
    /* Within one answer. */
    tell(&history);
    add(&history, READER, HISTORY_DRAIN, 1, 40, 41);
    add(&history, READER, HISTORY_DRAIN, 0, 40, 41);
    add(&history, READER, HISTORY_DRAIN, 2, 40, 41);
    judge(&history, "after number 1");
}

static void mailbox_with_a_message_is_not_empty(void **state)
{
    struct history history;

    (void)state;
    tell(&history);
    add(&history, READER, HISTORY_TAKE, 0, 40, 41);
    add(&history, READER, HISTORY_TAKE, 1, 50, 51);
    add(&history, READER, HISTORY_TAKE, 2, 60, 61);
    add(&history, OTHER, HISTORY_EMPTY, 0, 54, 55);
    judge(&history, "empty");
}

static void size_is_what_is_there(void **state)
{
    static const struct {
        int64_t begun, done;
        const char *wrong;
    } looks[] = {
        {25, 26, "from 20 to 20"}, /* two are there */
        {42, 43, "from 20 to 20"},
        {52, 53, NULL}, /* one */
        {32, 70, NULL}, /* between none and three */
        {70, 71, "from 0 to 0"},
    };
    struct history history;

    (void)state;
    for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
        tell(&history);
        for (unsigned j = 0; j < 3; j++)
            add(&history, READER, HISTORY_TAKE, j, 40 + 10 * j, 41 + 10 * j);
        add(&history, OTHER, HISTORY_SIZE, 0, looks[i].begun, looks[i].done);
        judge(&history, looks[i].wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_history_is_explained),
        cmocka_unit_test(each_message_is_taken_once),
        cmocka_unit_test(message_is_seen_twice_only_if_it_was_in_hand_at_a_kill),
        cmocka_unit_test(message_that_somebody_drained_is_seen_again_only_after_a_kill_before),
        cmocka_unit_test(messages_are_taken_in_order),
        cmocka_unit_test(mailbox_with_a_message_is_not_empty),
        cmocka_unit_test(size_is_what_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
