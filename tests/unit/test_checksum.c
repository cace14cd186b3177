/* The checksum is the sum of the bytes modulo 2^32, at every length and alignment, in every form
 * that this processor can run, and reads no other bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checksum.h"

static uint32_t plain_sum(const uint8_t *bytes, size_t size_bytes)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < size_bytes; i++) {
        sum += bytes[i];
    }
    return sum;
}

/* By whatever is chosen, and by each form alone. */
static void assert_sum(const uint8_t *bytes, size_t size_bytes, uint32_t sum)
{
    size_t count;
    const struct gproc_checksum_form *forms = gproc_checksum_forms(&count);

    assert_int_equal(gproc_checksum(bytes, size_bytes), sum);
    for (size_t i = 0; i < count; i++) {
        if (forms[i].is_usable() && forms[i].sum(bytes, size_bytes) != sum) {
            fail_msg("%s: another sum of %zu bytes", forms[i].name, size_bytes);
        }
    }
}

static void test_forms_are_many_and_one_is_for_any_processor(void **state)
{
    size_t count;
    const struct gproc_checksum_form *forms = gproc_checksum_forms(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        printf("%s: %s\n", forms[i].name,
               forms[i].is_wanted()   ? "wanted"
               : forms[i].is_usable() ? "usable"
                                      : "not on this processor");
        assert_true(forms[i].is_usable() || !forms[i].is_wanted());
    }
    assert_true(forms[count - 1].is_wanted());
}

static void test_known_sums(void **state)
{
    static const struct {
        const char *text;
        uint32_t sum;
    } rows[] = {
        {"", 0},           {"a", 97},
        {"reload", 631},   {"\xff", 255},
        {"\x80\x80", 256}, {"\xfd\xe6\xf1", 0x2d4}, /* the first of the reference's mailboxes */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_sum((const uint8_t *)rows[i].text, strlen(rows[i].text), rows[i].sum);
    }
}

static void test_no_bytes_need_no_address(void **state)
{
    (void)state;
    assert_sum(NULL, 0, 0);
}

/* Every alignment within a cache line, every length up to several strides of any form there may be.
 */
static void test_every_length_and_alignment(void **state)
{
    enum { ALIGNMENTS = 64, LENGTHS = 1100 };
    uint8_t bytes[ALIGNMENTS + LENGTHS];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * i * 31 + i * 7 + 200);
    }
    for (size_t at = 0; at < ALIGNMENTS; at++) {
        uint32_t sum = 0;

        for (size_t length = 0; length < LENGTHS; length++) {
            assert_sum(bytes + at, length, sum);
            sum += bytes[at + length];
        }
    }
}

/* What is inline, for few bytes: likewise. */
static void test_inline_sums_are_the_same(void **state)
{
    enum { ALIGNMENTS = 64, LENGTHS = 128 };
    uint8_t bytes[ALIGNMENTS + GPROC_CHECKSUM_BEFORE_BYTES + LENGTHS];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * i * 31 + i * 7 + 200);
    }
    for (size_t at = 0; at < ALIGNMENTS; at++) {
        const uint8_t *after = bytes + at + GPROC_CHECKSUM_BEFORE_BYTES;

        for (size_t length = 0; length < LENGTHS; length++) {
            assert_int_equal(gproc_checksum_after(after, length), plain_sum(after, length));
        }
        for (size_t length = 0; length <= GPROC_CHECKSUM_BLOCK_BYTES; length++) {
            assert_int_equal(gproc_checksum_part(bytes + at, length),
                             plain_sum(bytes + at, length));
        }
        assert_int_equal(gproc_checksum_block(bytes + at),
                         plain_sum(bytes + at, GPROC_CHECKSUM_BLOCK_BYTES));
    }
}

/* The largest bytes there are fill every narrow counter on the way; they must be emptied in time.
 */
static void test_largest_bytes_do_not_overflow(void **state)
{
    const size_t size_bytes = (size_t)1 << 20;
    uint8_t *bytes = malloc(size_bytes);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 0xff, size_bytes);
    for (size_t length = size_bytes - 40; length <= size_bytes; length++) {
        assert_sum(bytes, length, (uint32_t)(255 * length));
    }
    free(bytes);
}

/* 2^32 / 255 bytes of 255 are about 17 MB: the sum goes past 2^32 and begins again. */
static void test_sum_is_modulo_2_32(void **state)
{
    const size_t size_bytes = (size_t)UINT32_MAX / 255 + 2;
    uint8_t *bytes = malloc(size_bytes);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 0xff, size_bytes);
    assert_sum(bytes, size_bytes - 2, UINT32_MAX);
    assert_sum(bytes, size_bytes - 1, 254);
    assert_sum(bytes, size_bytes, 509);
    free(bytes);
}

/* Between two pages that may not be touched, at every distance from either. */
static void test_reads_nothing_else(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_READ | PROT_WRITE), 0);
    for (size_t i = 0; i < page; i++) {
        pages[page + i] = (uint8_t)(i * 13 + 5);
    }
    for (size_t length = 0; length <= page; length += length < 600 ? 1 : 61) {
        assert_sum(pages + page, length, plain_sum(pages + page, length));
        assert_sum(pages + 2 * page - length, length, plain_sum(pages + 2 * page - length, length));
    }
    /* After a header, which may be read. */
    for (size_t length = 0; length < 128; length++) {
        const uint8_t *last = pages + 2 * page - length;
        const uint8_t *first = pages + page + GPROC_CHECKSUM_BEFORE_BYTES;

        assert_int_equal(gproc_checksum_after(last, length), plain_sum(last, length));
        assert_int_equal(gproc_checksum_after(first, length), plain_sum(first, length));
    }
    assert_int_equal(gproc_checksum_part(pages + 2 * page - GPROC_CHECKSUM_BLOCK_BYTES, 1),
                     pages[2 * page - GPROC_CHECKSUM_BLOCK_BYTES]);
    assert_int_equal(munmap(pages, 3 * page), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_are_many_and_one_is_for_any_processor),
        cmocka_unit_test(test_known_sums),
        cmocka_unit_test(test_no_bytes_need_no_address),
        cmocka_unit_test(test_every_length_and_alignment),
        cmocka_unit_test(test_inline_sums_are_the_same),
        cmocka_unit_test(test_largest_bytes_do_not_overflow),
        cmocka_unit_test(test_sum_is_modulo_2_32),
        cmocka_unit_test(test_reads_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
