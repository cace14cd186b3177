/*
 * A source gives exactly the bytes that were asked for, or says why not, and gives nothing of a file
 * any more once it is stopped.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "source.h"
#include "temporary.h"

enum {
    SIZE = 20,
    START = 5, /* of the mailbox's first byte in the file */
};

static const uint8_t content[START + SIZE] = "#####the bytes of a mail";

/* In memory, or in a file, whose descriptor is the caller's. */
static struct gproc_source source_of(void **state, bool in_file)
{
    struct gproc_source source = {.data = content + START, .fd = -1, .size_bytes = SIZE};
    const char *path = temporary_path(*state, "mailbox");

    if (in_file) {
        temporary_write(path, content, sizeof(content));
        source = (struct gproc_source){.start = START, .size_bytes = SIZE};
        source.fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(source.fd >= 0);
    }
    return source;
}

static void source_close(const struct gproc_source *source)
{
    if (source->fd >= 0)
        assert_int_equal(close(source->fd), 0);
}

static void test_any_part_is_read_and_nothing_beyond_the_end(void **state)
{
    for (int in_file = 0; in_file < 2; in_file++) {
        const struct gproc_source source = source_of(state, in_file);
        uint8_t found[SIZE];

        for (off_t offset = -1; offset <= SIZE + 1; offset++) {
            for (size_t size = 0; size <= SIZE; size++) {
                const bool is_inside = offset >= 0 && offset + (off_t)size <= SIZE;

                assert_int_equal(gproc_source_read(&source, found, size, offset),
                                 is_inside ? 0 : -EIO);
                if (is_inside && size > 0)
                    assert_memory_equal(found, content + START + offset, size);
            }
        }
        assert_int_equal(gproc_source_read(&source, found, SIZE_MAX, 1), -EIO);
        source_close(&source);
    }
}

static void test_file_that_is_shorter_than_was_said_is_told_from_other_errors(void **state)
{
    struct gproc_source source = source_of(state, true);
    uint8_t found[SIZE + 1];

    source.size_bytes = SIZE + 1;
    assert_int_equal(gproc_source_read(&source, found, SIZE + 1, 0), -ENODATA);
    assert_int_equal(gproc_source_read(&source, found, SIZE, 0), 0);
    source_close(&source);
    source.fd = -1;
    assert_int_equal(gproc_source_read(&source, found, SIZE, 0), -EBADF);
}

static void test_stop_ends_the_reading_of_a_file_and_of_nothing_else(void **state)
{
    for (int in_file = 0; in_file < 2; in_file++) {
        struct gproc_source source = source_of(state, in_file);
        atomic_bool stop = false;
        uint8_t found[SIZE];

        source.stop = &stop;
        assert_int_equal(gproc_source_read(&source, found, SIZE, 0), 0);
        assert_memory_equal(found, content + START, SIZE);
        atomic_store(&stop, true);
        assert_int_equal(gproc_source_read(&source, found, SIZE, 0), in_file ? -ECANCELED : 0);
        assert_int_equal(gproc_source_read(&source, found, 0, 0), 0);
        source_close(&source);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_any_part_is_read_and_nothing_beyond_the_end),
        TEMPORARY_TEST(test_file_that_is_shorter_than_was_said_is_told_from_other_errors),
        TEMPORARY_TEST(test_stop_ends_the_reading_of_a_file_and_of_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
