/*
 * Whatever call fails, bytes are appended whole or not at all, and what was there before can still be
 * read and added to; where one directory cannot hold a file without a name another one does, and where
 * none can that is tried with a name that is gone at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"
#include "spool.h"
#include "temporary.h"

enum {
    FIRST_BYTES = 1000,
    REST_BYTES = SPOOL_MEMORY_BYTES, /* with the first it is more than stays in memory */
    ALL_BYTES = FIRST_BYTES + REST_BYTES,
};

struct fixture {
    struct temporary *temporary;
    uint8_t *bytes;
    uint8_t *room;
    int directory_fd;
};

static void open_fixture(struct fixture *fixture, void **state)
{
    fixture->temporary = *state;
    fixture->bytes = temporary_memory(fixture->temporary, ALL_BYTES);
    fixture->room = temporary_memory(fixture->temporary, ALL_BYTES);
    temporary_noise(fixture->bytes, ALL_BYTES, 1);
    fixture->directory_fd = open(fixture->temporary->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture->directory_fd >= 0);
    temporary_mkdir(temporary_path(fixture->temporary, "tmp"));
    assert_int_equal(setenv("TMPDIR", temporary_path(fixture->temporary, "tmp"), 1), 0);
}

static void close_fixture(struct fixture *fixture)
{
    (void)close(fixture->directory_fd);
    assert_int_equal(temporary_count(temporary_path(fixture->temporary, "tmp")), 0);
    assert_int_equal(temporary_count(fixture->temporary->root), 1);
}

static void expect_holds(const struct fixture *fixture, const struct spool *spool,
                         size_t size_bytes)
{
    assert_int_equal(spool->size_bytes, size_bytes);
    assert_int_equal(spool_read(spool, fixture->room, ALL_BYTES, 0), size_bytes);
    assert_memory_equal(fixture->room, fixture->bytes, size_bytes);
}

static int append_all(const struct fixture *fixture, struct spool *spool, int directory_fd)
{
    const uint8_t *bytes = fixture->bytes;
    int result = spool_append(spool, directory_fd, bytes, FIRST_BYTES);

    if (result == 0)
        result = spool_append(spool, directory_fd, bytes + FIRST_BYTES, REST_BYTES);
    return result;
}

static void walk_append(const struct fixture *fixture, int directory_fd)
{
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct spool spool;
        int result;

        spool_init(&spool);
        fault_walk_start(&walk);
        result = append_all(fixture, &spool, directory_fd);
        fault_walk_stop(&walk);
        /* A write of nothing is written again. */
        fault_walk_judge(&walk, result, 0);
        if (result < 0) { /* whole or not at all, and it goes on */
            size_t there = (size_t)spool.size_bytes;

            assert_true(there == 0 || there == FIRST_BYTES);
            expect_holds(fixture, &spool, there);
            assert_int_equal(spool_append(&spool, directory_fd, fixture->bytes + there,
                                          (there == 0 ? ALL_BYTES : REST_BYTES)),
                             0);
        }
        expect_holds(fixture, &spool, ALL_BYTES);
        spool_release(&spool);
    } while (fault_walk_next(&walk));
}

static void test_bytes_are_appended_whole_or_not_at_all(void **state)
{
    struct fixture fixture;

    open_fixture(&fixture, state);
    walk_append(&fixture, fixture.directory_fd);
    walk_append(&fixture, -1);
    close_fixture(&fixture);
}

static void test_reading_says_what_failed_and_goes_on_after_a_signal(void **state)
{
    struct fixture fixture;
    struct fault_walk walk;
    struct spool spool;

    open_fixture(&fixture, state);
    spool_init(&spool);
    assert_int_equal(append_all(&fixture, &spool, fixture.directory_fd), 0);
    fault_walk_init(&walk);
    do {
        ssize_t result;

        memset(fixture.room, 0, ALL_BYTES);
        fault_walk_start(&walk);
        result = spool_read(&spool, fixture.room, ALL_BYTES, 0);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result < 0 ? (int)result : 0, 0);
        if (walk.verdict == -EINTR || walk.verdict == FAULT_SHORT)
            assert_true(result > 0 || walk.then != FAULT_THEN_NOTHING);
        if (result > 0) {
            assert_int_equal(result, ALL_BYTES);
            assert_memory_equal(fixture.room, fixture.bytes, ALL_BYTES);
        }
    } while (fault_walk_next(&walk));
    /* Cut by others. */
    assert_int_equal(ftruncate(spool.fd, FIRST_BYTES), 0);
    assert_int_equal(spool_read(&spool, fixture.room, ALL_BYTES, 0), -EIO);
    spool_release(&spool);
    close_fixture(&fixture);
}

static void test_nothing_is_added_or_read_where_nothing_is(void **state)
{
    struct fixture fixture;
    struct spool spool;

    open_fixture(&fixture, state);
    spool_init(&spool);
    assert_int_equal(spool_append(&spool, -1, fixture.bytes, 0), 0);
    assert_int_equal(spool_read(&spool, fixture.room, ALL_BYTES, 0), 0);
    assert_int_equal(spool_append(&spool, -1, fixture.bytes, FIRST_BYTES), 0);
    assert_int_equal(spool_read(&spool, fixture.room, ALL_BYTES, -1), 0);
    assert_int_equal(spool_read(&spool, fixture.room, ALL_BYTES, FIRST_BYTES), 0);
    spool_release(&spool);
    close_fixture(&fixture);
}

/* ---- File systems that know no file without a name */

static int no_unnamed(void *context, const char *name)
{
    const int *error = context;

    return strcmp(name, "openat") == 0 ? *error : FAULT_NONE;
}

static int no_file(void *context, const char *name)
{
    (void)context;
    if (strcmp(name, "openat") == 0)
        return -EOPNOTSUPP;
    return strcmp(name, "mkostemp") == 0 ? -EROFS : FAULT_NONE;
}

static void test_file_has_a_name_for_a_moment_where_it_must(void **state)
{
    static const int errors[] = {-EOPNOTSUPP, -EISDIR};
    struct fixture fixture;
    struct spool spool;

    open_fixture(&fixture, state);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        int error = errors[i];
        int result;

        spool_init(&spool);
        fault_start(no_unnamed, &error);
        result = append_all(&fixture, &spool, fixture.directory_fd);
        fault_stop();
        assert_int_equal(result, 0);
        assert_int_equal(temporary_count(temporary_path(fixture.temporary, "tmp")), 0);
        expect_holds(&fixture, &spool, ALL_BYTES);
        spool_release(&spool);
    }
    close_fixture(&fixture);
}

static void test_no_file_at_all_is_an_error(void **state)
{
    struct fixture fixture;
    struct spool spool;
    char path[PATH_MAX];
    int error = -EOPNOTSUPP;
    int result;

    open_fixture(&fixture, state);
    spool_init(&spool);
    fault_start(no_file, NULL);
    result = append_all(&fixture, &spool, fixture.directory_fd);
    fault_stop();
    assert_int_equal(result, -EROFS);
    expect_holds(&fixture, &spool, FIRST_BYTES);
    /* A name that is too long to be tried. */
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(setenv("TMPDIR", path, 1), 0);
    fault_start(no_unnamed, &error);
    result = append_all(&fixture, &spool, fixture.directory_fd);
    fault_stop();
    assert_int_equal(result, -ENAMETOOLONG);
    spool_release(&spool);
    assert_int_equal(setenv("TMPDIR", temporary_path(fixture.temporary, "tmp"), 1), 0);
    close_fixture(&fixture);
}

static void test_directory_for_it_is_the_environments(void **state)
{
    (void)state;
    assert_int_equal(setenv("TMPDIR", "/somewhere", 1), 0);
    assert_string_equal(spool_temporary(), "/somewhere");
    assert_int_equal(setenv("TMPDIR", "", 1), 0);
    assert_string_equal(spool_temporary(), "/tmp");
    assert_int_equal(unsetenv("TMPDIR"), 0);
    assert_string_equal(spool_temporary(), "/tmp");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_bytes_are_appended_whole_or_not_at_all),
        TEMPORARY_TEST(test_reading_says_what_failed_and_goes_on_after_a_signal),
        TEMPORARY_TEST(test_nothing_is_added_or_read_where_nothing_is),
        TEMPORARY_TEST(test_file_has_a_name_for_a_moment_where_it_must),
        TEMPORARY_TEST(test_no_file_at_all_is_an_error),
        TEMPORARY_TEST(test_directory_for_it_is_the_environments),
    };

    return cmocka_run_group_tests_name("spool, faults", tests, NULL, NULL);
}
