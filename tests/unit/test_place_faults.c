/*
 * Whatever call fails, a place says so, holds nothing that it did not hold before, and still has the
 * directory that it had; and it gives up on a directory that goes as fast as it is made.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "place.h"
#include "temporary.h"

static void expect_same(const struct stat *one, int fd)
{
    struct stat other;

    assert_int_equal(fstat(fd, &other), 0);
    assert_int_equal(one->st_ino, other.st_ino);
    assert_int_equal(one->st_dev, other.st_dev);
}

static void test_init_has_the_directory_or_holds_nothing(void **state)
{
    const char *path = temporary_path(*state, "place");
    struct gproc_place place;
    struct fault_walk walk;
    int result;

    fault_walk_init(&walk);
    do {
        fault_walk_start(&walk);
        result = gproc_place_init(&place, path, 0777);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(place.fd >= 0, result == 0);
        if (result < 0)
            assert_null(place.path);
        gproc_place_release(&place);
        if (temporary_exists(path))
            temporary_remove(path);
    } while (fault_walk_next(&walk));
}

/* Deleted before: so it is made and opened, and put in the old one's place. */
static void test_renew_that_fails_leaves_the_old_directory(void **state)
{
    const char *path = temporary_path(*state, "place");
    struct fault_walk walk;

    fault_walk_init(&walk);
    do {
        struct gproc_place place;
        struct stat before, there;
        int result, number;

        assert_int_equal(gproc_place_init(&place, path, 0777), 0);
        assert_int_equal(fstat(place.fd, &before), 0);
        number = place.fd;
        temporary_remove(path);
        fault_walk_start(&walk);
        result = gproc_place_renew(&place);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(place.fd, number);
        if (result == 0)
            assert_int_equal(lstat(path, &there), 0);
        expect_same(result == 0 ? &there : &before, place.fd);
        assert_int_equal(gproc_place_renew(&place), 0);
        gproc_place_release(&place);
        temporary_remove(path);
    } while (fault_walk_next(&walk));
}

/* A number that another thread is about to get, or a signal: neither is the caller's concern. */
static void test_what_passes_while_renewing_is_waited_for(void **state)
{
    static const int passing[] = {-EBUSY, -EINTR};
    struct gproc_place place;

    assert_int_equal(gproc_place_init(&place, temporary_path(*state, "place"), 0777), 0);
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        fault_calls("dup3", 1, 3, passing[i]);
        assert_int_equal(gproc_place_renew(&place), 0);
        fault_stop();
    }
    gproc_place_release(&place);
}

static int delete_it(void *context, const char *name)
{
    if (strcmp(name, "open") == 0)
        (void)rmdir(context); /* not there the first time */
    return FAULT_NONE;
}

static void test_directory_that_goes_as_fast_as_it_is_made_is_given_up(void **state)
{
    const char *path = temporary_path(*state, "place");
    const struct fault_held before = fault_held();
    struct gproc_place place;

    fault_start(delete_it, (void *)path);
    assert_int_equal(gproc_place_init(&place, path, 0777), -EBUSY);
    fault_stop();
    gproc_place_release(&place);
    assert_int_equal(fault_held().descriptors_count, before.descriptors_count);
    assert_int_equal(fault_held().blocks_count, before.blocks_count);
}

static int make_it(void *context, const char *name)
{
    if (strcmp(name, "mkdir") == 0)
        (void)mkdir(context, 0711);
    return FAULT_NONE;
}

static void test_directory_that_somebody_else_makes_first_is_his(void **state)
{
    const char *path = temporary_path(*state, "place");
    struct gproc_place place;
    struct stat status;

    fault_start(make_it, (void *)path);
    assert_int_equal(gproc_place_init(&place, path, 0777), 0);
    fault_stop();
    assert_int_equal(fstat(place.fd, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0711);
    gproc_place_release(&place);
}

static void test_names_says_what_lstat_says(void **state)
{
    struct temporary *temporary = *state;
    struct gproc_place place;
    struct stat status;

    assert_int_equal(gproc_place_init(&place, temporary->root, 0777), 0);
    assert_int_equal(fstat(place.fd, &status), 0);
    fault_calls("lstat", 1, 1, -EACCES);
    assert_int_equal(gproc_place_names(&place, ".", &status), -EACCES);
    assert_int_equal(gproc_place_names(&place, ".", &status), 1);
    fault_stop();
    gproc_place_release(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_init_has_the_directory_or_holds_nothing),
        TEMPORARY_TEST(test_renew_that_fails_leaves_the_old_directory),
        TEMPORARY_TEST(test_what_passes_while_renewing_is_waited_for),
        TEMPORARY_TEST(test_directory_that_goes_as_fast_as_it_is_made_is_given_up),
        TEMPORARY_TEST(test_directory_that_somebody_else_makes_first_is_his),
        TEMPORARY_TEST(test_names_says_what_lstat_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
