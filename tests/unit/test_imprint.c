/*
 * A mailbox file is known again by what was seen in it: grown, it is gone on with; emptied and
 * filled, replaced or shorter, it is not. And a measure, which goes by that, stays right.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "imprint.h"
#include "mailbox.h"
#include "measure.h"
#include "temporary.h"

enum {
    PID = 4711,
    HEADER = TEMPORARY_HEADER_BYTES,
};

struct fixture {
    const char *file;
    struct gproc_place directory;
    struct gproc_imprint imprint;
};

static struct fixture fixture_open(void **state)
{
    struct fixture fixture = {.file = temporary_path(*state, "gproc/4711")};

    assert_int_equal(gproc_place_init(&fixture.directory, temporary_path(*state, "gproc"), 0777),
                     0);
    gproc_imprint_init(&fixture.imprint);
    return fixture;
}

/* Gives the file a time of modification of its own, as the clock's ticks may not. */
static void modified_at(const char *file, time_t seconds)
{
    const struct timespec times[2] = {{seconds, 0}, {seconds, 0}};

    assert_int_equal(utimensat(AT_FDCWD, file, times, 0), 0);
}

static void send(const char *file, const char *text)
{
    temporary_append_text(file, 1, text);
}

static enum gproc_imprint_change compare(struct fixture *fixture)
{
    struct gproc_mailbox mailbox;
    struct gproc_source source;
    enum gproc_imprint_change change;

    assert_int_equal(gproc_mailbox_open(&mailbox, &fixture->directory, PID, O_RDONLY), 0);
    source = gproc_mailbox_source(&mailbox);
    change = gproc_imprint_compare(&fixture->imprint, &mailbox.status, &source);
    assert_int_equal(gproc_imprint_is_unchanged(&fixture->imprint, &mailbox.status),
                     change == GPROC_IMPRINT_NONE);
    gproc_mailbox_close(&mailbox);
    return change;
}

/* Looks at all that there is. */
static void look(struct fixture *fixture)
{
    struct gproc_mailbox mailbox;
    struct gproc_source source;
    struct gproc_message message;
    struct gproc_scan scan;

    gproc_imprint_init(&fixture->imprint);
    assert_int_equal(gproc_mailbox_open(&mailbox, &fixture->directory, PID, O_RDONLY), 0);
    source = gproc_mailbox_source(&mailbox);
    gproc_scan_init(&scan, &source, 0);
    while (gproc_scan_next(&scan, &message) == 1)
        gproc_imprint_note(&fixture->imprint, &message);
    gproc_scan_release(&scan);
    fixture->imprint.status = mailbox.status;
    gproc_mailbox_close(&mailbox);
}

static void fill(struct fixture *fixture, const char *one, const char *two, const char *three)
{
    assert_int_equal(truncate(fixture->file, 0), 0);
    send(fixture->file, one);
    send(fixture->file, two);
    send(fixture->file, three);
}

static void begin(struct fixture *fixture)
{
    temporary_write(fixture->file, "", 0);
    fill(fixture, "first", "second", "third");
    modified_at(fixture->file, 1000);
    look(fixture);
    assert_int_equal(fixture->imprint.messages_count, 3);
    assert_int_equal(fixture->imprint.resume, 3 * HEADER + 5 + 6 + 5);
    assert_int_equal(compare(fixture), GPROC_IMPRINT_NONE);
}

static void test_bytes_added_are_growth(void **state)
{
    struct fixture fixture = fixture_open(state);

    begin(&fixture);
    temporary_append(fixture.file, "x", 1);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_GROWN);
    send(fixture.file, "fourth");
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_GROWN);
    gproc_place_release(&fixture.directory);
}

static void test_other_messages_are_not_growth_however_many(void **state)
{
    static const char *const rows[][3] = {
        {"First", "second", "third"},           /* the first is another */
        {"first", "second", "thirD"},           /* the last is */
        {"first", "seconds", "third"},          /* it is elsewhere */
        {"first", "second", "and a longer one"} /* it is longer */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture fixture = fixture_open(state);

        begin(&fixture);
        fill(&fixture, rows[i][0], rows[i][1], rows[i][2]);
        modified_at(fixture.file, 2000);
        assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
        send(fixture.file, "more");
        assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
        gproc_place_release(&fixture.directory);
    }
}

static void test_shorter_or_another_file_is_not_known_again(void **state)
{
    struct fixture fixture = fixture_open(state);
    const char *other = temporary_path(*state, "gproc/4712");

    begin(&fixture);
    assert_int_equal(truncate(fixture.file, fixture.imprint.resume - 1), 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
    assert_int_equal(truncate(fixture.file, 0), 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);

    begin(&fixture);
    send(other, "first");
    send(other, "second");
    send(other, "third");
    send(other, "fourth");
    assert_int_equal(rename(other, fixture.file), 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
    gproc_place_release(&fixture.directory);
}

static void test_same_size_but_modified_is_filled_again(void **state)
{
    struct fixture fixture = fixture_open(state);

    begin(&fixture);
    fill(&fixture, "first", "SECOND", "third"); /* between the landmarks, only the time tells */
    modified_at(fixture.file, 1001);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_REFILLED);
    gproc_place_release(&fixture.directory);
}

static void test_change_of_mode_alone_is_nothing_new(void **state)
{
    struct fixture fixture = fixture_open(state);
    const struct timespec pause = {0, 50 * 1000 * 1000}; /* longer than a tick of the clock */

    begin(&fixture);
    assert_int_equal(nanosleep(&pause, NULL), 0);
    assert_int_equal(chmod(fixture.file, 0600), 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_GROWN);
    gproc_place_release(&fixture.directory);
}

static void test_file_without_messages_is_known_by_its_size(void **state)
{
    struct fixture fixture = fixture_open(state);

    temporary_write(fixture.file, "damage", 6);
    modified_at(fixture.file, 1000);
    look(&fixture);
    assert_int_equal(fixture.imprint.resume, 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_NONE);
    temporary_append(fixture.file, "more", 4);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_GROWN);
    assert_int_equal(truncate(fixture.file, 5), 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
    gproc_place_release(&fixture.directory);
}

static void test_imprint_of_no_file_is_that_of_no_file(void **state)
{
    struct fixture fixture = fixture_open(state);

    temporary_write(fixture.file, "", 0);
    assert_int_equal(compare(&fixture), GPROC_IMPRINT_OTHER);
    gproc_place_release(&fixture.directory);
}

static void expect_measure(struct fixture *fixture, struct gproc_measure *measure,
                           uint64_t messages_count, uint64_t payload_bytes)
{
    struct gproc_mailbox none;
    struct stat status;

    gproc_mailbox_init(&none, PID);
    assert_int_equal(gproc_measure_update(measure, &fixture->directory, &none, NULL, &status), 0);
    assert_int_equal(measure->messages_count, messages_count);
    assert_int_equal(measure->payload_bytes, payload_bytes);
    assert_int_equal(measure->imprint.status.st_size, status.st_size);
}

static void test_measure_is_right_after_growth_damage_emptying_and_filling_again(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct gproc_measure measure;
    uint8_t frame[64];
    size_t size = temporary_frame(frame, 1, "cut in two", 10);

    gproc_measure_init(&measure);
    begin(&fixture);
    expect_measure(&fixture, &measure, 3, 16);
    temporary_append(fixture.file, frame, 15);
    expect_measure(&fixture, &measure, 3, 16);
    temporary_append(fixture.file, frame + 15, size - 15);
    expect_measure(&fixture, &measure, 4, 26);
    send(fixture.file, "");
    expect_measure(&fixture, &measure, 5, 26);
    assert_int_equal(truncate(fixture.file, 0), 0);
    expect_measure(&fixture, &measure, 0, 0);
    begin(&fixture);
    expect_measure(&fixture, &measure, 3, 16);
    /* As large, and the same at both ends. */
    assert_int_equal(truncate(fixture.file, 0), 0);
    send(fixture.file, "first");
    temporary_append(fixture.file, "xxxxxxxxxxxxxxxxxx", HEADER + 6);
    send(fixture.file, "third");
    modified_at(fixture.file, 1001);
    expect_measure(&fixture, &measure, 2, 10);
    gproc_place_release(&fixture.directory);
}

static void test_measure_forgets_what_it_found_in_half_an_append(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct gproc_measure measure;
    uint8_t inner[32], whole[64];
    size_t inner_bytes = temporary_frame(inner, 2, "inner", 5);
    size_t whole_bytes;

    inner[inner_bytes++] = 'x';
    whole_bytes = temporary_frame(whole, 1, inner, inner_bytes);
    gproc_measure_init(&measure);
    begin(&fixture);
    temporary_append(fixture.file, whole, whole_bytes - 1);
    expect_measure(&fixture, &measure, 4, 16 + 5); /* without the lock, it cannot know better */
    temporary_append(fixture.file, whole + whole_bytes - 1, 1);
    expect_measure(&fixture, &measure, 4, 16 + inner_bytes);
    gproc_place_release(&fixture.directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_bytes_added_are_growth),
        TEMPORARY_TEST(test_other_messages_are_not_growth_however_many),
        TEMPORARY_TEST(test_shorter_or_another_file_is_not_known_again),
        TEMPORARY_TEST(test_same_size_but_modified_is_filled_again),
        TEMPORARY_TEST(test_change_of_mode_alone_is_nothing_new),
        TEMPORARY_TEST(test_file_without_messages_is_known_by_its_size),
        TEMPORARY_TEST(test_imprint_of_no_file_is_that_of_no_file),
        TEMPORARY_TEST(test_measure_is_right_after_growth_damage_emptying_and_filling_again),
        TEMPORARY_TEST(test_measure_forgets_what_it_found_in_half_an_append),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
