/* What is counted, and the text that shows it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

/* Of each test; freed after it, also if it fails. */
struct context {
    struct stats stats;
    char *text;
    size_t size_bytes;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct context));
    return *state != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct context *context = *state;

    free(context->text);
    free(context);
    return 0;
}

/* The text as it is now; good until the next call. */
static const char *print(struct context *context)
{
    free(context->text);
    context->text = NULL;
    assert_int_equal(stats_print(&context->stats, &context->text, &context->size_bytes), 0);
    assert_non_null(context->text);
    assert_int_equal(strlen(context->text), context->size_bytes);
    assert_true(context->size_bytes < STATS_TEXT_MOST_BYTES);
    return context->text;
}

/* Whether the text has this line. */
static bool has_line(const char *text, const char *line)
{
    size_t length = strlen(line);

    while (text != NULL && *text != '\0') {
        if (strncmp(text, line, length) == 0 && text[length] == '\n')
            return true;
        text = strchr(text, '\n');
        text = text != NULL ? text + 1 : NULL;
    }
    return false;
}

static void expect_line(struct context *context, const char *line)
{
    if (!has_line(print(context), line))
        fail_msg("no line \"%s\" in:\n%s", line, context->text);
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;

    for (text = strstr(text, what); text != NULL; text = strstr(text + 1, what))
        count++;
    return count;
}

/* Every number, the sample that shows it, and the type of that. */
static const struct sample {
    enum stats_id id;
    const char *sample;
    const char *type;
} samples[] = {
    {STATS_SENT_MESSAGES, "gprocfs_messages_sent_total", "counter"},
    {STATS_RECEIVED_MESSAGES, "gprocfs_messages_received_total", "counter"},
    {STATS_SENT_BYTES, "gprocfs_sent_bytes_total", "counter"},
    {STATS_RECEIVED_BYTES, "gprocfs_received_bytes_total", "counter"},
    {STATS_DAMAGED_BYTES, "gprocfs_damaged_bytes_total", "counter"},
    {STATS_LOCK_WAITS, "gprocfs_lock_waits_total", "counter"},
    {STATS_LOCK_TIMEOUTS, "gprocfs_lock_timeouts_total", "counter"},
    {STATS_PARKED_LOCK, "gprocfs_parked_requests{kind=\"lock\"}", "gauge"},
    {STATS_PARKED_MESSAGE, "gprocfs_parked_requests{kind=\"message\"}", "gauge"},
    {STATS_PARKED_POLL, "gprocfs_parked_requests{kind=\"poll\"}", "gauge"},
    {STATS_INFLIGHT_MESSAGES, "gprocfs_inflight_messages", "gauge"},
    {STATS_COLLECTED_BYTES, "gprocfs_collected_bytes", "gauge"},
    {STATS_OPEN_FILES, "gprocfs_open_files", "gauge"},
};

enum {
    SAMPLES_COUNT = sizeof(samples) / sizeof(samples[0]),
};

static void expect_sample(struct context *context, const char *sample, long long value)
{
    char line[256];

    snprintf(line, sizeof(line), "%s %lld", sample, value);
    expect_line(context, line);
}

static void all_zero_shows_every_number_as_0(void **state)
{
    struct context *context = *state;

    assert_int_equal(SAMPLES_COUNT, STATS_COUNT);
    for (size_t i = 0; i < SAMPLES_COUNT; i++)
        expect_sample(context, samples[i].sample, 0);
}

static void each_number_is_shown_by_its_own_sample(void **state)
{
    struct context *context = *state;

    for (size_t i = 0; i < SAMPLES_COUNT; i++)
        stats_add(&context->stats, samples[i].id, (int64_t)(100 + i));
    for (size_t i = 0; i < SAMPLES_COUNT; i++)
        expect_sample(context, samples[i].sample, 100 + (long long)i);
}

static void numbers_add_up_and_gauges_go_down(void **state)
{
    struct context *context = *state;

    stats_add(&context->stats, STATS_SENT_BYTES, 5);
    stats_add(&context->stats, STATS_SENT_BYTES, 0);
    stats_add(&context->stats, STATS_SENT_BYTES, INT64_C(1) << 40);
    expect_sample(context, "gprocfs_sent_bytes_total", (INT64_C(1) << 40) + 5);
    stats_add(&context->stats, STATS_OPEN_FILES, 3);
    stats_add(&context->stats, STATS_OPEN_FILES, -2);
    expect_sample(context, "gprocfs_open_files", 1);
    stats_add(&context->stats, STATS_OPEN_FILES, -1);
    expect_sample(context, "gprocfs_open_files", 0);
}

static void gauge_can_be_set_to_what_it_is(void **state)
{
    struct context *context = *state;

    stats_add(&context->stats, STATS_COLLECTED_BYTES, 7);
    stats_set(&context->stats, STATS_COLLECTED_BYTES, 5);
    expect_sample(context, "gprocfs_collected_bytes", 5);
    stats_set(&context->stats, STATS_COLLECTED_BYTES, 0);
    expect_sample(context, "gprocfs_collected_bytes", 0);
}

static void every_family_has_help_and_type_once_and_before_its_samples(void **state)
{
    struct context *context = *state;
    char line[256];

    stats_error(&context->stats, -EACCES);
    for (size_t i = 0; i < SAMPLES_COUNT; i++) {
        const char *text = print(context);
        int name_bytes = (int)strcspn(samples[i].sample, "{");
        const char *sample;

        snprintf(line, sizeof(line), "\n%s ", samples[i].sample);
        assert_int_equal(count_of(text, line), 1);
        sample = strstr(text, line);
        snprintf(line, sizeof(line), "# TYPE %.*s %s\n", name_bytes, samples[i].sample,
                 samples[i].type);
        assert_int_equal(count_of(text, line), 1);
        assert_true(strstr(text, line) < sample);
        snprintf(line, sizeof(line), "# HELP %.*s ", name_bytes, samples[i].sample);
        assert_int_equal(count_of(text, line), 1);
    }
    expect_line(context, "# TYPE gprocfs_errors_total counter");
    expect_line(context, "# TYPE gprocfs_info gauge");
}

static void errors_show_by_name_and_only_those_that_occurred(void **state)
{
    /* All that a user may meet, and some more. */
    static const struct {
        int error;
        const char *kind;
    } kinds[] = {
        {EINVAL, "EINVAL"},   {ENOENT, "ENOENT"},     {EEXIST, "EEXIST"},
        {EFBIG, "EFBIG"},     {ENOSPC, "ENOSPC"},     {EDQUOT, "EDQUOT"},
        {EACCES, "EACCES"},   {EINTR, "EINTR"},       {ETIMEDOUT, "ETIMEDOUT"},
        {EAGAIN, "EAGAIN"},   {ESRCH, "ESRCH"},       {EPERM, "EPERM"},
        {EROFS, "EROFS"},     {ESTALE, "ESTALE"},     {ELOOP, "ELOOP"},
        {EISDIR, "EISDIR"},   {ENOTCONN, "ENOTCONN"}, {ENOMEM, "ENOMEM"},
        {EIO, "EIO"},         {ENOSYS, "ENOSYS"},     {EMFILE, "EMFILE"},
        {ENOTDIR, "ENOTDIR"}, {ENXIO, "ENXIO"},       {ENAMETOOLONG, "ENAMETOOLONG"},
    };
    enum { COUNT = sizeof(kinds) / sizeof(kinds[0]) };
    struct context *context = *state;
    char sample[128];

    assert_int_equal(count_of(print(context), "gprocfs_errors_total{"), 0);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = 0; j <= i; j++)
            stats_error(&context->stats, -kinds[i].error);
        assert_int_equal(count_of(print(context), "gprocfs_errors_total{"), i + 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(sample, sizeof(sample), "gprocfs_errors_total{kind=\"%s\"}", kinds[i].kind);
        expect_sample(context, sample, (long long)i + 1);
    }
}

static void errors_without_a_name_show_by_number(void **state)
{
    struct context *context = *state;

    stats_error(&context->stats, -250);
    expect_sample(context, "gprocfs_errors_total{kind=\"errno 250\"}", 1);
    stats_error(&context->stats, -255);
    expect_sample(context, "gprocfs_errors_total{kind=\"errno 255\"}", 1);
}

static void success_is_no_error_and_what_is_no_errno_is_counted_all_the_same(void **state)
{
    static const int others[] = {-256, -512, INT_MIN, INT_MIN + 1, 1, INT_MAX};
    enum { COUNT = sizeof(others) / sizeof(others[0]) };
    struct context *context = *state;

    stats_error(&context->stats, 0);
    assert_int_equal(count_of(print(context), "gprocfs_errors_total{"), 0);
    for (size_t i = 0; i < COUNT; i++)
        stats_error(&context->stats, others[i]);
    expect_sample(context, "gprocfs_errors_total{kind=\"other\"}", COUNT);
    assert_int_equal(count_of(print(context), "gprocfs_errors_total{"), 1);
}

static void info_tells_the_version(void **state)
{
    expect_line(*state, "gprocfs_info{version=\"" GPROC_VERSION "\"} 1");
}

/* print() checks the bound. */
static void text_fits_its_bound_with_everything_at_its_largest(void **state)
{
    struct context *context = *state;

    for (size_t i = 0; i < STATS_COUNT; i++)
        stats_add(&context->stats, (enum stats_id)i, INT64_MIN); /* a character more than the max */
    for (size_t i = 0; i < STATS_ERRNOS_COUNT; i++)
        atomic_store(&context->stats.errors[i], INT64_MIN);
    assert_int_equal(count_of(print(context), "gprocfs_errors_total{"), STATS_ERRNOS_COUNT);
    assert_int_equal(context->text[context->size_bytes - 1], '\n');
}

enum {
    THREADS_COUNT = 8,
    ADDS_COUNT = 20000,
};

static void *count_much(void *argument)
{
    struct stats *stats = argument;

    for (int i = 0; i < ADDS_COUNT; i++) {
        stats_add(stats, STATS_SENT_MESSAGES, 1);
        stats_add(stats, STATS_PARKED_LOCK, 1);
        stats_error(stats, -EINTR);
        stats_add(stats, STATS_PARKED_LOCK, -1);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    struct context *context = *state;
    pthread_t threads[THREADS_COUNT];

    for (size_t i = 0; i < THREADS_COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, &context->stats), 0);
    (void)print(context); /* while they count */
    for (size_t i = 0; i < THREADS_COUNT; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    expect_sample(context, "gprocfs_messages_sent_total", THREADS_COUNT * ADDS_COUNT);
    expect_sample(context, "gprocfs_parked_requests{kind=\"lock\"}", 0);
    expect_sample(context, "gprocfs_errors_total{kind=\"EINTR\"}", THREADS_COUNT * ADDS_COUNT);
}

#define STATS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STATS_TEST(all_zero_shows_every_number_as_0),
        STATS_TEST(each_number_is_shown_by_its_own_sample),
        STATS_TEST(numbers_add_up_and_gauges_go_down),
        STATS_TEST(gauge_can_be_set_to_what_it_is),
        STATS_TEST(every_family_has_help_and_type_once_and_before_its_samples),
        STATS_TEST(errors_show_by_name_and_only_those_that_occurred),
        STATS_TEST(errors_without_a_name_show_by_number),
        STATS_TEST(success_is_no_error_and_what_is_no_errno_is_counted_all_the_same),
        STATS_TEST(info_tells_the_version),
        STATS_TEST(text_fits_its_bound_with_everything_at_its_largest),
        STATS_TEST(nothing_is_lost_between_threads),
    };

    return cmocka_run_group_tests_name("stats", tests, NULL, NULL) == 0 ? 0 : 1;
}
