/*
 * Whatever call fails, a mailbox is byte for byte what it was, or what it was to become, and the
 * error is handed up; and where others replace it meanwhile, that is noticed, or given up.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "mailbox.h"
#include "stage.h"

enum {
    MODE = 0666,
};

static const char old_text[] = "was there";
static const char new_text[] = "is sent";

struct fixture {
    struct stage stage;
    const char *at;       /* others do it before calls of this name */
    unsigned calls_count; /* so many of them have been */
    unsigned until;       /* before so many of them */
};

/* ---- One call fails */

static void test_open_has_it_open_or_hands_up_the_error(void **state)
{
    struct fixture fixture = {0};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_mailbox mailbox;
        int result;

        stage_set(&fixture.stage);
        stage_put(&fixture.stage, old_text);
        fault_walk_start(&walk);
        result = gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(mailbox.fd >= 0, result == 0);
        gproc_mailbox_close(&mailbox);
        stage_expect(&fixture.stage, old_text, NULL);
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

static void walk_create(struct fixture *fixture, struct gproc_creator creator)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_mailbox mailbox;
        int result;

        stage_set(&fixture->stage);
        fault_walk_start(&walk);
        result = gproc_mailbox_create(&mailbox, &fixture->stage.gproc->mailboxes, STAGE_PID, O_RDWR,
                                      MODE, creator);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(mailbox.fd >= 0, result >= 0);
        assert_true(result <= 1);
        if (result == 1)
            stage_expect(&fixture->stage, NULL);
        /* It would shut out whom it was made for. */
        if (walk.failed != NULL && strcmp(walk.failed, "fchown") == 0 &&
            walk.then == FAULT_THEN_NOTHING)
            assert_false(temporary_exists(fixture->stage.box));
        gproc_mailbox_close(&mailbox);
        stage_clear(&fixture->stage);
    } while (fault_walk_next(&walk));
}

static void test_create_has_it_open_or_hands_up_the_error(void **state)
{
    struct fixture fixture = {0};
    const struct gproc_creator somebody = {geteuid(), getegid()};

    stage_init(&fixture.stage, *state);
    walk_create(&fixture, gproc_creator_self);
    walk_create(&fixture, somebody);
}

static void test_append_leaves_a_whole_frame_or_none(void **state)
{
    struct fixture fixture = {0};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_mailbox mailbox;
        int result;

        stage_set(&fixture.stage);
        stage_put(&fixture.stage, old_text);
        assert_int_equal(
            gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), 0);
        fault_walk_start(&walk);
        result = gproc_mailbox_append(&mailbox, STAGE_SENDER, new_text, sizeof(new_text) - 1);
        fault_walk_stop(&walk);
        /* Only where cutting off failed as well. */
        fault_walk_judge(&walk, result, walk.then == FAULT_THEN_ALL ? -EUCLEAN : 0);
        if (result != -EUCLEAN)
            stage_expect(&fixture.stage, old_text, result == 0 ? new_text : NULL, NULL);
        gproc_mailbox_close(&mailbox);
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

static void test_append_goes_on_after_a_signal_and_after_a_part(void **state)
{
    static const int passing[] = {-EINTR, FAULT_SHORT};
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        struct gproc_mailbox mailbox;

        stage_set(&fixture.stage);
        stage_put(&fixture.stage, old_text);
        assert_int_equal(
            gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), 0);
        fault_calls("writev", 1, 3, passing[i]);
        assert_int_equal(
            gproc_mailbox_append(&mailbox, STAGE_SENDER, new_text, sizeof(new_text) - 1), 0);
        fault_stop();
        stage_expect(&fixture.stage, old_text, new_text, NULL);
        gproc_mailbox_close(&mailbox);
        stage_clear(&fixture.stage);
    }
}

static void test_append_that_gets_nowhere_is_given_up(void **state)
{
    struct fixture fixture = {0};
    struct gproc_mailbox mailbox;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, old_text);
    assert_int_equal(
        gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), 0);
    fault_calls("writev", 1, 100, FAULT_NOTHING);
    assert_int_equal(gproc_mailbox_append(&mailbox, STAGE_SENDER, new_text, sizeof(new_text) - 1),
                     -EIO);
    fault_stop();
    stage_expect(&fixture.stage, old_text, NULL);
    gproc_mailbox_close(&mailbox);
    stage_clear(&fixture.stage);
}

static void test_clear_empties_it_or_leaves_it(void **state)
{
    struct fixture fixture = {0};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_mailbox mailbox;
        int result;

        stage_set(&fixture.stage);
        stage_put(&fixture.stage, old_text);
        assert_int_equal(
            gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), 0);
        fault_walk_start(&walk);
        result = gproc_mailbox_refresh(&mailbox);
        if (result == 0)
            result = gproc_mailbox_clear(&mailbox);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        stage_expect(&fixture.stage, result < 0 ? old_text : NULL, NULL);
        gproc_mailbox_close(&mailbox);
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

static void test_remove_removes_it_or_leaves_it(void **state)
{
    struct fixture fixture = {0};
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        int result;

        stage_set(&fixture.stage);
        stage_put(&fixture.stage, old_text);
        fault_walk_start(&walk);
        result = gproc_mailbox_remove(&fixture.stage.gproc->mailboxes, STAGE_PID);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result == 0)
            assert_false(temporary_exists(fixture.stage.box));
        else
            stage_expect(&fixture.stage, old_text, NULL);
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

/* With the directory replaced: it looks twice. */
static void test_stat_tells_the_mailbox_or_the_error(void **state)
{
    struct fixture fixture = {0};
    const char *away = temporary_path(*state, "parent/away");
    struct fault_walk walk;

    stage_init(&fixture.stage, *state);
    fault_walk_init(&walk);
    do {
        struct stat status;
        int result;

        stage_set(&fixture.stage);
        assert_int_equal(rename(fixture.stage.mailboxes, away), 0);
        temporary_mkdir(fixture.stage.mailboxes);
        stage_put(&fixture.stage, old_text);
        fault_walk_start(&walk);
        result = gproc_mailbox_stat(&fixture.stage.gproc->mailboxes, STAGE_PID, &status);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result == 0)
            assert_int_equal(status.st_size, TEMPORARY_HEADER_BYTES + sizeof(old_text) - 1);
        stage_expect(&fixture.stage, old_text, NULL);
        stage_clear(&fixture.stage);
    } while (fault_walk_next(&walk));
}

/* ---- A mailbox that is kept open */

static int again(struct fixture *fixture, struct gproc_mailbox *mailbox, bool creates, int access)
{
    struct gproc_place *directory = &fixture->stage.gproc->mailboxes;

    return creates ? gproc_mailbox_recreate(mailbox, directory, access, MODE, gproc_creator_self)
                   : gproc_mailbox_reopen(mailbox, directory, access);
}

/* Kept, or kept and deleted since. */
static void walk_again(struct fixture *fixture, bool creates, bool is_gone)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_mailbox mailbox;
        int result;

        stage_set(&fixture->stage);
        stage_put(&fixture->stage, old_text);
        gproc_mailbox_init(&mailbox, STAGE_PID);
        assert_int_equal(again(fixture, &mailbox, creates, O_WRONLY), 0);
        if (is_gone) {
            temporary_remove(fixture->stage.box);
            if (!creates)
                stage_put(&fixture->stage, old_text);
        }
        fault_walk_start(&walk);
        result = again(fixture, &mailbox, creates, O_WRONLY);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(mailbox.fd >= 0, result >= 0);
        if (result >= 0)
            stage_expect(&fixture->stage, is_gone && creates ? NULL : old_text, NULL);
        /* It may be tried again. */
        assert_true(again(fixture, &mailbox, creates, O_WRONLY) >= 0);
        gproc_mailbox_close(&mailbox);
        stage_clear(&fixture->stage);
    } while (fault_walk_next(&walk));
}

static void test_mailbox_that_was_kept_is_open_or_the_error_handed_up(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    for (int i = 0; i < 4; i++)
        walk_again(&fixture, i % 2 != 0, i / 2 != 0);
}

static int count_opens(void *context, const char *name)
{
    struct fixture *fixture = context;

    fixture->calls_count += strcmp(name, "openat") == 0;
    return FAULT_NONE;
}

/* That is what it is kept for. One look at its path tells: where that cannot be looked at, or it was
 * given another mode, it is opened anew. */
static void test_mailbox_that_is_kept_is_not_opened_again(void **state)
{
    struct fixture fixture = {0};
    struct gproc_mailbox mailbox;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, old_text);
    gproc_mailbox_init(&mailbox, STAGE_PID);
    for (unsigned opens_count = 1; opens_count <= 2; opens_count++) {
        fault_start(count_opens, &fixture);
        for (int i = 0; i < 4; i++)
            assert_int_equal(again(&fixture, &mailbox, i % 2 != 0, i / 2 ? O_RDONLY : O_WRONLY), 0);
        fault_stop();
        assert_int_equal(fixture.calls_count, opens_count);
        assert_int_equal(chmod(fixture.stage.box, 0640), 0);
    }
    assert_int_equal(again(&fixture, &mailbox, false, O_RDWR), 0);
    fault_calls("lstat", 1, 1, -ENOTDIR);
    assert_int_equal(again(&fixture, &mailbox, false, O_RDWR), 0);
    fault_stop();
    gproc_mailbox_close(&mailbox);
    stage_clear(&fixture.stage);
}

/* Refused for reading and writing it is opened for what is wanted; whatever else is wrong stays so. */
static void test_mailbox_is_opened_for_less_where_all_is_refused(void **state)
{
    static const struct {
        int error;
        bool is_refusal;
    } rows[] = {{-EACCES, true}, {-EPERM, true}, {-EROFS, true}, {-EMFILE, false}, {-EIO, false}};
    struct fixture fixture = {0};
    struct gproc_mailbox mailbox;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, old_text);
    for (size_t i = 0; i < 6 * sizeof(rows) / sizeof(rows[0]); i++) {
        const bool creates = i % 2 != 0;
        const int access = (int)(i / 2 % 3);
        const bool does = rows[i / 6].is_refusal && access != O_RDWR;

        gproc_mailbox_init(&mailbox, STAGE_PID);
        fault_calls("openat", 1, 1, rows[i / 6].error);
        assert_int_equal(again(&fixture, &mailbox, creates, access), does ? 0 : rows[i / 6].error);
        fault_calls("openat", 1, 2, rows[i / 6].error);
        assert_int_equal(mailbox.fd >= 0, does);
        if (does) {
            assert_int_equal(mailbox.access, access);
            assert_int_equal(again(&fixture, &mailbox, creates, access), 0);
        }
        fault_stop();
        gproc_mailbox_close(&mailbox);
    }
    stage_expect(&fixture.stage, old_text, NULL);
    stage_clear(&fixture.stage);
}

/* ---- What is no mailbox */

static void test_what_is_no_mailbox_is_none_in_a_directory_that_was_replaced(void **state)
{
    struct fixture fixture = {0};
    struct stat status;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    temporary_remove(fixture.stage.mailboxes);
    temporary_mkdir(fixture.stage.mailboxes);
    assert_int_equal(mkfifo(fixture.stage.box, 0666), 0);
    assert_int_equal(gproc_mailbox_stat(&fixture.stage.gproc->mailboxes, STAGE_PID, &status),
                     -ENOENT);
    stage_clear(&fixture.stage);
}

/* A device where there may be none; what may not be opened, and is a mailbox or is none. */
static void test_what_cannot_be_opened_is_told_from_what_is_no_mailbox(void **state)
{
    struct fixture fixture = {0};
    struct gproc_mailbox mailbox;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    stage_put(&fixture.stage, old_text);
    fault_calls("openat", 1, 1, -ENODEV);
    assert_int_equal(
        gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), -ENOENT);
    fault_calls("openat", 1, 1, -EACCES);
    assert_int_equal(
        gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), -EACCES);
    fault_stop();
    assert_int_equal(unlink(fixture.stage.box), 0);
    assert_int_equal(mkfifo(fixture.stage.box, 0000), 0);
    fault_calls("openat", 1, 1, -EACCES);
    assert_int_equal(
        gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), -ENOENT);
    fault_calls("openat", 1, 1, -EACCES);
    assert_int_equal(gproc_mailbox_create(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID,
                                          O_RDWR, MODE, gproc_creator_self),
                     -EEXIST);
    fault_stop();
    stage_clear(&fixture.stage);
}

static int hide_and_shut(void *context, const char *name)
{
    (void)context;
    return strcmp(name, "lstat") == 0 ? -EACCES : FAULT_NONE;
}

static void test_mailbox_that_is_missing_is_missing_where_its_path_cannot_be_looked_at(void **state)
{
    struct fixture fixture = {0};
    struct gproc_mailbox mailbox;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    fault_start(hide_and_shut, NULL);
    assert_int_equal(
        gproc_mailbox_open(&mailbox, &fixture.stage.gproc->mailboxes, STAGE_PID, O_RDWR), -ENOENT);
    fault_stop();
    stage_clear(&fixture.stage);
}

/* ---- What others do meanwhile */

/* Whether now is the time. */
static bool is_at(struct fixture *fixture, const char *name)
{
    return strcmp(name, fixture->at) == 0 && fixture->calls_count++ < fixture->until;
}

static int delete_it(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (is_at(fixture, name))
        (void)unlink(fixture->stage.box);
    return FAULT_NONE;
}

static int replace_it(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (is_at(fixture, name)) {
        /* Made first, as a deleted file's inode may be the new one's. */
        const char *other = temporary_path(fixture->stage.temporary, "parent/gproc/other");

        temporary_append_text(other, STAGE_SENDER, old_text);
        assert_int_equal(rename(other, fixture->stage.box), 0);
    }
    return FAULT_NONE;
}

static int make_it(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (is_at(fixture, name) && fixture->calls_count == 2)
        stage_put(&fixture->stage, old_text);
    return FAULT_NONE;
}

static int delete_all(void *context, const char *name)
{
    struct fixture *fixture = context;

    if (is_at(fixture, name) && temporary_exists(fixture->stage.parent))
        temporary_remove(fixture->stage.parent);
    return FAULT_NONE;
}

enum how {
    OPENS,
    CREATES,
    REMOVES,
    LOOKS,
};

/* What comes of it where others do that before the first `until` calls named `at`. */
static int with_others(struct fixture *fixture, enum how how, bool with_mailbox, const char *at,
                       unsigned until, int (*others)(void *context, const char *name))
{
    struct gproc_mailbox mailbox = {.fd = -1};
    struct stat status;
    int result;

    stage_set(&fixture->stage);
    if (with_mailbox)
        stage_put(&fixture->stage, old_text);
    fixture->calls_count = 0;
    fixture->at = at;
    fixture->until = until;
    fault_start(others, fixture);
    if (how == OPENS)
        result = gproc_mailbox_open(&mailbox, &fixture->stage.gproc->mailboxes, STAGE_PID, O_RDWR);
    else if (how == CREATES)
        result = gproc_mailbox_create(&mailbox, &fixture->stage.gproc->mailboxes, STAGE_PID, O_RDWR,
                                      MODE, gproc_creator_self);
    else if (how == REMOVES)
        result = gproc_mailbox_remove(&fixture->stage.gproc->mailboxes, STAGE_PID);
    else
        result = gproc_mailbox_stat(&fixture->stage.gproc->mailboxes, STAGE_PID, &status);
    fault_stop();
    assert_int_equal(mailbox.fd >= 0, result >= 0 && (how == OPENS || how == CREATES));
    if (mailbox.fd >= 0) {
        struct stat there;

        assert_int_equal(lstat(fixture->stage.box, &there), 0);
        assert_int_equal(there.st_ino, mailbox.status.st_ino);
    }
    gproc_mailbox_close(&mailbox);
    stage_clear(&fixture->stage);
    return result;
}

static void test_mailbox_that_goes_while_it_is_opened_is_missing_or_made_again(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    assert_int_equal(with_others(&fixture, OPENS, true, "fstat", 1, delete_it), -ENOENT);
    assert_int_equal(with_others(&fixture, OPENS, true, "lstat", 1, delete_it), -ENOENT);
    assert_int_equal(with_others(&fixture, CREATES, true, "fstat", 1, delete_it), 1);
}

static void test_mailbox_that_is_replaced_while_it_is_opened_is_the_new_one(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    assert_int_equal(with_others(&fixture, OPENS, true, "fstat", 3, replace_it), 0);
    assert_int_equal(with_others(&fixture, OPENS, true, "lstat", 3, replace_it), 0);
    assert_int_equal(with_others(&fixture, CREATES, true, "lstat", 3, replace_it), 0);
    assert_int_equal(with_others(&fixture, REMOVES, true, "lstat", 3, replace_it), 0);
}

static void test_mailbox_that_somebody_else_makes_first_is_opened(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    assert_int_equal(with_others(&fixture, CREATES, false, "openat", 2, make_it), 0);
}

static void test_mailbox_that_is_replaced_without_end_is_given_up(void **state)
{
    struct fixture fixture = {0};
    const unsigned always = (unsigned)-1;

    stage_init(&fixture.stage, *state);
    assert_int_equal(with_others(&fixture, OPENS, true, "lstat", always, replace_it), -EBUSY);
    assert_int_equal(with_others(&fixture, CREATES, true, "lstat", always, replace_it), -EBUSY);
    assert_int_equal(with_others(&fixture, REMOVES, true, "lstat", always, replace_it), -EBUSY);
}

static void test_directory_that_cannot_be_made_again_is_an_error(void **state)
{
    struct fixture fixture = {0};

    stage_init(&fixture.stage, *state);
    assert_int_equal(with_others(&fixture, OPENS, true, "lstat", 1, delete_all), -ENOENT);
    assert_int_equal(with_others(&fixture, CREATES, true, "lstat", 1, delete_all), -ENOENT);
    assert_int_equal(with_others(&fixture, REMOVES, true, "lstat", 1, delete_all), -ENOENT);
    assert_int_equal(with_others(&fixture, LOOKS, true, "fstatat", 1, delete_all), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_open_has_it_open_or_hands_up_the_error),
        TEMPORARY_TEST(test_create_has_it_open_or_hands_up_the_error),
        TEMPORARY_TEST(test_mailbox_that_was_kept_is_open_or_the_error_handed_up),
        TEMPORARY_TEST(test_mailbox_that_is_kept_is_not_opened_again),
        TEMPORARY_TEST(test_mailbox_is_opened_for_less_where_all_is_refused),
        TEMPORARY_TEST(test_append_leaves_a_whole_frame_or_none),
        TEMPORARY_TEST(test_append_goes_on_after_a_signal_and_after_a_part),
        TEMPORARY_TEST(test_append_that_gets_nowhere_is_given_up),
        TEMPORARY_TEST(test_clear_empties_it_or_leaves_it),
        TEMPORARY_TEST(test_remove_removes_it_or_leaves_it),
        TEMPORARY_TEST(test_stat_tells_the_mailbox_or_the_error),
        TEMPORARY_TEST(test_what_is_no_mailbox_is_none_in_a_directory_that_was_replaced),
        TEMPORARY_TEST(test_what_cannot_be_opened_is_told_from_what_is_no_mailbox),
        TEMPORARY_TEST(test_mailbox_that_is_missing_is_missing_where_its_path_cannot_be_looked_at),
        TEMPORARY_TEST(test_mailbox_that_goes_while_it_is_opened_is_missing_or_made_again),
        TEMPORARY_TEST(test_mailbox_that_is_replaced_while_it_is_opened_is_the_new_one),
        TEMPORARY_TEST(test_mailbox_that_somebody_else_makes_first_is_opened),
        TEMPORARY_TEST(test_mailbox_that_is_replaced_without_end_is_given_up),
        TEMPORARY_TEST(test_directory_that_cannot_be_made_again_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
