/*
 * No form of the sieve loses a good frame, decides more than it may, or has its caller look at what
 * is not the sum it says; and the forms agree on what is too long and on what is decided.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "field.h"
#include "frame.h"
#include "mailboxes.h"
#include "sieve.h"
#include "sums.h"

enum {
    STEP = GPROC_SUMS_STEP_BYTES,
    NEIGHBOURS = 64, /* so many offsets are not always in order */
};

/* Sums of the bytes before each offset. */
static uint32_t *prefix_sums(const struct mailbox *mailbox)
{
    uint32_t *sums = calloc(mailbox->size_bytes + 1, sizeof(*sums));

    assert_non_null(sums);
    for (size_t i = 0; i < mailbox->size_bytes; i++) {
        sums[i + 1] = sums[i] + mailbox->data[i];
    }
    return sums;
}

/* What has to come of the load that begins at `at`, one offset after the other. */
struct wanted {
    size_t beyond;   /* first offset whose candidate ends beyond the samples, or count */
    size_t good;     /* first good offset before that, or count */
    size_t too_long; /* first one before either, or SIZE_MAX */
};

static struct wanted wanted_of(const struct gproc_sieve_load *load, const uint32_t *sums)
{
    struct wanted wanted = {load->count, load->count, SIZE_MAX};

    for (size_t i = 0; i < load->count; i++) {
        const int32_t length = (int32_t)gproc_field_get(load->bytes + i, GPROC_FIELD_LENGTH);

        if (length < GPROC_FRAME_HEADER_BYTES) {
            continue;
        }
        if (length > load->left - (off_t)i) {
            wanted.too_long = wanted.too_long < i ? wanted.too_long : i;
            continue;
        }
        if ((off_t)i + length > load->summed_bytes) {
            wanted.beyond = i;
            return wanted;
        }
        if (sums[i + (size_t)length] - sums[i + GPROC_FRAME_HEADER_BYTES] ==
            gproc_field_get(load->bytes + i, GPROC_FIELD_CHECKSUM)) {
            wanted.good = i;
            return wanted;
        }
    }
    return wanted;
}

/* `sums` are those before each of the load's offsets. */
static void assert_sieve(const struct gproc_sieve_form *form, const struct gproc_sieve_load *load,
                         const uint32_t *sums)
{
    const struct wanted wanted = wanted_of(load, sums);
    static struct gproc_sieve sieve;
    bool good_is_near = false;

    memset(&sieve, 0xff, sizeof(sieve));
    gproc_sieve_choose(form);
    gproc_sieve(load, &sieve);
    assert_true(!load->all_readable || sieve.near.count == 0);
    for (size_t i = 0; i < sieve.near.count; i++) {
        const size_t offset = sieve.near.offsets[i];
        const size_t length = gproc_field_get(load->bytes + offset, GPROC_FIELD_LENGTH);

        assert_in_range(offset, 0, sieve.decided_count - 1);
        if (i > 0) {
            assert_int_not_equal(offset, sieve.near.offsets[i - 1]);
            assert_true(offset + NEIGHBOURS > sieve.near.offsets[i - 1]);
        }
        assert_int_equal(sieve.near.ends[i], load->behind_bytes + offset + length);
        assert_int_equal(sieve.near.sums[i] - load->here,
                         sums[offset + GPROC_FRAME_HEADER_BYTES] - sums[0] +
                             gproc_field_get(load->bytes + offset, GPROC_FIELD_CHECKSUM));
        good_is_near |= offset == wanted.good;
    }
    assert_int_equal(sieve.passed_sum, sums[sieve.decided_count] - sums[0]);
    /* The first good frame is near, or is where it has stopped. That it has for want of room, too. */
    if (wanted.good < load->count && wanted.good <= sieve.decided_count) {
        assert_true(good_is_near || sieve.decided_count == wanted.good);
    } else if (sieve.near.count > GPROC_SIEVE_NEAR_COUNT / 2) {
        assert_in_range(sieve.decided_count, sieve.near.count, wanted.beyond);
    } else {
        assert_int_equal(sieve.decided_count, wanted.beyond);
    }
    if (wanted.too_long < wanted.good && wanted.too_long < sieve.decided_count) {
        assert_int_equal(sieve.too_long, wanted.too_long);
    } else if (sieve.too_long != SIZE_MAX) {
        assert_in_range(sieve.too_long, wanted.good, sieve.decided_count - 1);
    }
}

/* Some stretch of the mailbox, with samples from and to somewhere. */
static void assert_random_load(const struct mailbox *mailbox, const uint32_t *sums,
                               struct random *random)
{
    const size_t begin = random_below(random, mailbox->size_bytes - GPROC_FRAME_HEADER_BYTES);
    const size_t at =
        begin + random_below(random, mailbox->size_bytes - GPROC_FRAME_HEADER_BYTES - begin + 1);
    const size_t end = at + random_below(random, mailbox->size_bytes - at + 1);
    const size_t most = mailbox->size_bytes - at - (GPROC_FRAME_HEADER_BYTES - 1);
    const size_t count =
        1 + random_below(random, most < GPROC_SIEVE_MAX_COUNT ? most : GPROC_SIEVE_MAX_COUNT);
    const bool all_readable = random_below(random, 4) != 0;
    struct gproc_sums samples = {0};
    size_t forms_count;
    const struct gproc_sieve_form *forms = gproc_sieve_forms(&forms_count);

    assert_int_equal(gproc_sums_begin(&samples, (off_t)begin, random_below(random, STEP),
                                      (off_t)(mailbox->size_bytes - begin)),
                     0);
    gproc_sums_append(&samples, mailbox->data + begin, end - begin);

    /* Bytes that may not be read are not there. */
    const size_t bytes_count = count + GPROC_FRAME_HEADER_BYTES - 1;
    uint8_t *exact = malloc(bytes_count);
    assert_non_null(exact);
    memcpy(exact, mailbox->data + at, bytes_count);

    const off_t behind = (off_t)at - samples.offset;
    const struct gproc_sieve_load load = {
        .bytes = all_readable ? mailbox->data + at : exact,
        .bytes_count = all_readable ? mailbox->size_bytes - at : bytes_count,
        .count = count,
        .left = (off_t)(mailbox->size_bytes - at),
        .all_readable = all_readable,
        .here = sums[at] - sums[begin],
        .samples = samples.samples + behind / STEP,
        .behind_bytes = (uint32_t)(behind % STEP),
        .passed_bytes = (off_t)(at - begin),
        .summed_bytes = (off_t)(end - at),
    };
    for (size_t i = 0; i < forms_count; i++) {
        if (forms[i].is_usable()) {
            assert_sieve(&forms[i], &load, sums + at);
        }
    }
    free(exact);
    gproc_sums_release(&samples);
}

static void test_forms_find_what_one_offset_after_the_other_finds(void **state)
{
    const char *tool = getenv("GPROC_TEST_TOOL");
    const int rounds = tool != NULL && strcmp(tool, "valgrind") == 0 ? 50 : 2000;

    (void)state;
    for (enum mailbox_kind kind = 0; kind < MAILBOX_KINDS; kind++) {
        struct random random = {20180513 + kind};

        for (int i = 0; i < rounds; i++) {
            struct mailbox mailbox;

            mailbox_init(&mailbox, kind, 30 + random_below(&random, 4000), &random);
            if (mailbox.size_bytes > GPROC_FRAME_HEADER_BYTES) {
                uint32_t *sums = prefix_sums(&mailbox);

                for (int load = 0; load < 4; load++) {
                    assert_random_load(&mailbox, sums, &random);
                }
                free(sums);
            }
            mailbox_release(&mailbox);
        }
    }
}

/* Lengths all the same: ends that go from step to step; near misses all of them, and one good. */
static void test_ends_that_move_on_are_judged_for_good(void **state)
{
    enum { SIZE = 4096, LENGTH = 0x101 };
    struct random random = {1};
    struct mailbox mailbox = {.size_bytes = SIZE};

    (void)state;
    mailbox.data = calloc(SIZE, 1);
    assert_non_null(mailbox.data);
    for (size_t i = 0; i < SIZE; i += 4) {
        mailbox.data[i] = 1;
        mailbox.data[i + 1] = 1;
    }
    for (int round = 0; round < 2000; round++) {
        uint32_t *sums;

        if (round == 1000) {
            mailbox_frame(mailbox.data + SIZE / 2, LENGTH - GPROC_FRAME_HEADER_BYTES, 1, 0);
        }
        sums = prefix_sums(&mailbox);
        assert_random_load(&mailbox, sums, &random);
        free(sums);
    }
    free(mailbox.data);
}

static void test_samples_that_begin_or_end_within_a_step_are_enough(void **state)
{
    enum { SIZE = 1024 };
    struct random random = {2};
    struct mailbox mailbox = {.size_bytes = SIZE};
    uint32_t *sums;

    (void)state;
    mailbox.data = calloc(SIZE, 1);
    assert_non_null(mailbox.data);
    /* All end in the same place, and miss by little. */
    for (size_t at = SIZE / 12 * 12; at >= 12; at -= 12) {
        mailbox_frame(mailbox.data + at - 12, (uint32_t)(SIZE - at - at / 12 % 4), 1, 3);
    }
    sums = prefix_sums(&mailbox);
    for (int round = 0; round < 5000; round++) {
        assert_random_load(&mailbox, sums, &random);
    }
    free(sums);
    free(mailbox.data);
}

/* More near misses than there is room for, each with another end: they are judged in between, and
 * the good frame among them, if there is one, is found. */
static void test_near_misses_anywhere_are_judged_though_there_are_many(void **state)
{
    enum { SIZE = 16 * 1024, HEADERS = SIZE / GPROC_FRAME_HEADER_BYTES };
    struct random random = {3};
    struct mailbox mailbox = {.size_bytes = SIZE};

    (void)state;
    mailbox.data = calloc(SIZE, 1);
    assert_non_null(mailbox.data);
    for (int round = 0; round < 200; round++) {
        const size_t good = random_below(&random, 2 * HEADERS);
        uint32_t *sums;

        for (size_t i = HEADERS; i-- > 0;) {
            const size_t at = i * GPROC_FRAME_HEADER_BYTES;
            const size_t payload_bytes =
                random_below(&random, SIZE - GPROC_FRAME_HEADER_BYTES - at + 1);

            mailbox_frame(mailbox.data + at, (uint32_t)payload_bytes, 1, i == good ? 0 : 1);
        }
        sums = prefix_sums(&mailbox);
        for (int load = 0; load < 20; load++) {
            assert_random_load(&mailbox, sums, &random);
        }
        free(sums);
    }
    free(mailbox.data);
}

/* More than 32 bits can count is left: no length is too long, and those beyond the samples stop it. */
static void test_more_is_left_than_a_length_can_say(void **state)
{
    static const uint8_t bytes[64] = {[20] = 0xff, 0xff, 0xff, 0x7f};
    const uint32_t samples[3] = {0};
    const struct gproc_sieve_load load = {
        .bytes = bytes,
        .bytes_count = sizeof(bytes),
        .count = sizeof(bytes) - GPROC_FRAME_HEADER_BYTES,
        .left = (off_t)1 << 40,
        .samples = samples,
        .summed_bytes = sizeof(bytes),
    };
    size_t count;
    const struct gproc_sieve_form *forms = gproc_sieve_forms(&count);
    static struct gproc_sieve sieve;

    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (forms[i].is_usable()) {
            gproc_sieve_choose(&forms[i]);
            gproc_sieve(&load, &sieve);
            assert_int_equal(sieve.too_long, SIZE_MAX);
            assert_int_equal(sieve.decided_count, 20);
        }
    }
}

/* The same of what was summed: nothing is beyond it, and what is good is near. */
static void test_more_is_summed_than_a_length_can_say(void **state)
{
    static const uint8_t bytes[64] = {[0] = GPROC_FRAME_HEADER_BYTES};
    const uint32_t samples[3] = {0, GPROC_FRAME_HEADER_BYTES, GPROC_FRAME_HEADER_BYTES};
    const struct gproc_sieve_load load = {
        .bytes = bytes,
        .bytes_count = sizeof(bytes),
        .count = sizeof(bytes) - GPROC_FRAME_HEADER_BYTES,
        .left = (off_t)1 << 40,
        .samples = samples,
        .summed_bytes = (off_t)1 << 40,
    };
    size_t count;
    const struct gproc_sieve_form *forms = gproc_sieve_forms(&count);
    static struct gproc_sieve sieve;

    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (forms[i].is_usable()) {
            gproc_sieve_choose(&forms[i]);
            gproc_sieve(&load, &sieve);
            assert_int_equal(sieve.too_long, SIZE_MAX);
            assert_int_equal(sieve.decided_count, load.count);
            assert_int_equal(sieve.near.count, 1);
            assert_int_equal(sieve.near.offsets[0], 0);
            assert_int_equal(sieve.near.ends[0], GPROC_FRAME_HEADER_BYTES);
            assert_int_equal(sieve.near.sums[0], GPROC_FRAME_HEADER_BYTES);
        }
    }
}

/* Every offset is near, by samples that refuse nothing. None is lost, and none is put where there is
 * no room. */
static void test_it_stops_when_there_is_no_room_among_the_near(void **state)
{
    enum { LONGEST = GPROC_FRAME_HEADER_BYTES << 24 }; /* what its four bytes say, turned about */
    static uint8_t bytes[GPROC_SIEVE_MAX_COUNT + GPROC_FRAME_HEADER_BYTES - 1];
    const size_t samples_count = (LONGEST + sizeof(bytes)) / STEP + 2;
    uint32_t *samples = calloc(samples_count, sizeof(*samples));
    struct random random = {4};
    static struct gproc_sieve sieve;
    size_t count;
    const struct gproc_sieve_form *forms = gproc_sieve_forms(&count);

    (void)state;
    assert_non_null(samples);
    for (size_t i = 0; i < sizeof(bytes); i += 4) {
        bytes[i] = GPROC_FRAME_HEADER_BYTES;
    }
    for (size_t i = 0; i < samples_count; i++) {
        samples[i] = -(uint32_t)i; /* from one to the next, it is all there is */
    }
    for (size_t i = 0; i < count; i++) {
        if (!forms[i].is_usable()) {
            continue;
        }
        gproc_sieve_choose(&forms[i]);
        for (size_t at = 0; at < GPROC_SIEVE_MAX_COUNT; at += sieve.decided_count) {
            const size_t left = GPROC_SIEVE_MAX_COUNT - at;
            const size_t count_most = 1 + random_below(&random, 2 * (size_t)GPROC_SIEVE_NEAR_COUNT);
            const struct gproc_sieve_load load = {
                .bytes = bytes + at,
                .bytes_count = sizeof(bytes) - at,
                .count = left < count_most ? left : count_most,
                .left = (off_t)1 << 40,
                .samples = samples,
                .summed_bytes = (off_t)1 << 40,
            };
            bool is_there[GPROC_SIEVE_NEAR_COUNT] = {false};

            gproc_sieve(&load, &sieve);
            assert_in_range(sieve.near.count, 1, GPROC_SIEVE_NEAR_COUNT);
            assert_int_equal(sieve.decided_count, sieve.near.count);
            for (size_t near = 0; near < sieve.near.count; near++) {
                assert_in_range(sieve.near.offsets[near], 0, sieve.near.count - 1);
                is_there[sieve.near.offsets[near]] = true;
            }
            for (size_t near = 0; near < sieve.near.count; near++) {
                assert_true(is_there[near]);
            }
        }
    }
    free(samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_find_what_one_offset_after_the_other_finds),
        cmocka_unit_test(test_ends_that_move_on_are_judged_for_good),
        cmocka_unit_test(test_it_stops_when_there_is_no_room_among_the_near),
        cmocka_unit_test(test_near_misses_anywhere_are_judged_though_there_are_many),
        cmocka_unit_test(test_more_is_left_than_a_length_can_say),
        cmocka_unit_test(test_more_is_summed_than_a_length_can_say),
        cmocka_unit_test(test_samples_that_begin_or_end_within_a_step_are_enough),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
