/*
 * Whatever call fails, a message to a target is whole or not there, the error is handed up, and the
 * next one is sent.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fault.h"
#include "gproc.h"
#include "stage.h"

static int send_text(struct gproc_target *target, const char *text)
{
    return gproc_target_send_as(target, STAGE_SENDER, text, strlen(text), GPROC_NOW);
}

static bool is_free(const struct stage *stage)
{
    const int fd = open(stage->lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool got;

    assert_true(fd >= 0);
    got = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return got;
}

static void test_target_is_open_or_nothing_is_held(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_target *target = NULL;
        int result;

        stage_set(&stage);
        fault_walk_start(&walk);
        result = gproc_target_open(stage.gproc, STAGE_PID, &target);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(target != NULL, result == 0);
        gproc_target_close(target);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* What else an error may be: the second of two, or what a lock that could not be tried is taken for. */
static int also_of(const struct fault_walk *walk)
{
    return walk->then == FAULT_THEN_ALL && strcmp(walk->failed, "writev") == 0 ? -EUCLEAN
                                                                               : -EWOULDBLOCK;
}

/* The first message finds nothing, the second both files open, the third one of them deleted. */
static void walk_send(void **state, unsigned sent_count, bool lock_is_deleted)
{
    static const char *const texts[] = {"first", "second", "third"};
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        const char *expected[4] = {NULL};
        struct gproc_target *target = NULL;
        unsigned count = 0;
        int result;

        stage_set(&stage);
        assert_int_equal(gproc_target_open(stage.gproc, STAGE_PID, &target), 0);
        while (count < sent_count) {
            assert_int_equal(send_text(target, texts[count]), 0);
            expected[count] = texts[count];
            count++;
        }
        if (lock_is_deleted)
            temporary_remove(stage.lock_file);
        fault_walk_start(&walk);
        result = send_text(target, texts[count]);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, walk.failed != NULL ? also_of(&walk) : 0);
        if (result != -EUCLEAN) {
            if (result == 0)
                expected[count++] = texts[sent_count];
            assert_int_equal(send_text(target, "last"), 0);
            expected[count] = "last";
            stage_expect(&stage, expected[0], expected[1], expected[2], expected[3], NULL);
            assert_true(is_free(&stage));
        }
        gproc_target_close(target);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

static void test_message_is_sent_or_the_error_handed_up(void **state)
{
    walk_send(state, 0, false);
    walk_send(state, 1, false);
    walk_send(state, 2, true);
}

/* That is what it is for: both files stay open. */
static void test_second_message_opens_nothing(void **state)
{
    struct gproc_target *target = NULL;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_target_open(stage.gproc, STAGE_PID, &target), 0);
    assert_int_equal(send_text(target, "first"), 0);
    fault_calls("openat", 1, 100, -EMFILE);
    assert_int_equal(send_text(target, "second"), 0);
    fault_stop();
    stage_expect(&stage, "first", "second", NULL);
    gproc_target_close(target);
    stage_clear(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_target_is_open_or_nothing_is_held),
        TEMPORARY_TEST(test_message_is_sent_or_the_error_handed_up),
        TEMPORARY_TEST(test_second_message_opens_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
