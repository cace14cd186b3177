/* Samples of prefix sums are those of the bytes, however the bytes come, and the samples leave room
 * for the sum at every offset. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "mailboxes.h"
#include "sums.h"

enum {
    STEP = GPROC_SUMS_STEP_BYTES,
    BYTES = 10 * STEP,
};

/* P at every offset of the stretch must be what the samples allow, and P + 1 beyond the end not. */
static void assert_samples(const struct gproc_sums *sums, const uint8_t *bytes, size_t bytes_count)
{
    uint32_t sum = 0;

    assert_int_equal(sums->end - sums->begin, bytes_count);
    for (size_t i = 0; i <= bytes_count; i++) {
        const off_t at = sums->begin + (off_t)i - sums->offset;

        assert_true(gproc_sums_may_be(&sums->samples[at / STEP], sum));
        if (at % STEP == 0) {
            assert_int_equal(sums->samples[at / STEP], sum);
            assert_false(gproc_sums_may_be(&sums->samples[at / STEP], sum - 1));
        }
        sum += i < bytes_count ? bytes[i] : 0;
    }
    assert_int_equal(sums->last, sum);
    assert_false(gproc_sums_may_be(&sums->samples[(sums->end - sums->offset) / STEP], sum + 1));
}

static void test_samples_are_the_same_however_bytes_come(void **state)
{
    struct random random = {20180513};
    struct gproc_sums sums = {0};
    uint8_t bytes[BYTES];

    (void)state;
    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = (uint8_t)random_next(&random);
    }
    assert_int_equal(gproc_sums_begin(&sums, 0, 0, BYTES), 0);
    for (int round = 0; round < 2000; round++) {
        const size_t cut = random_below(&random, STEP);
        const size_t most = 1 + random_below(&random, 3 * STEP);

        assert_int_equal(gproc_sums_begin(&sums, 1000 + round, cut, BYTES), 0);
        assert_samples(&sums, bytes, 0);
        for (size_t at = 0; at < BYTES;) {
            const size_t count = random_below(&random, most + 1);
            const size_t used = count < BYTES - at ? count : BYTES - at;

            gproc_sums_append(&sums, bytes + at, used);
            at += used;
            assert_samples(&sums, bytes, at);
        }
    }
    gproc_sums_release(&sums);
    gproc_sums_release(&sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_are_the_same_however_bytes_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
