/*
 * A place finds its directory again after that was deleted, replaced or moved, tells whether a file
 * is the one that the path leads to, and is not led astray by what others plant in its stead.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"
#include "temporary.h"

static struct stat status_of(const char *path)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        fail_msg("%s: errno %d", path, errno);
    return status;
}

static void assert_leads_to(const struct gproc_place *place, const char *path)
{
    const struct stat there = status_of(path);
    struct stat ours;

    assert_int_equal(fstat(place->fd, &ours), 0);
    assert_int_equal(ours.st_dev, there.st_dev);
    assert_int_equal(ours.st_ino, there.st_ino);
}

static size_t open_descriptors(void)
{
    return temporary_count("/proc/self/fd");
}

static void test_missing_directory_is_made_with_its_mode_less_umask(void **state)
{
    static const struct {
        mode_t mode, mask, expected;
    } rows[] = {
        {0777, 0, 0777},   {0777, 022, 0755},  {0777, 077, 0700},
        {0700, 022, 0700}, {0755, 0002, 0755},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *path = temporary_path(*state, "place%zu", i);
        struct gproc_place place;

        umask(rows[i].mask);
        assert_int_equal(gproc_place_init(&place, path, rows[i].mode), 0);
        assert_int_equal(status_of(path).st_mode, S_IFDIR | rows[i].expected);
        assert_leads_to(&place, path);
        gproc_place_release(&place);
    }
}

static void test_existing_directory_keeps_its_mode(void **state)
{
    const char *path = temporary_path(*state, "place");
    struct gproc_place place;

    assert_int_equal(mkdir(path, 0711), 0);
    assert_int_equal(gproc_place_init(&place, path, 0777), 0);
    assert_int_equal(status_of(path).st_mode, S_IFDIR | 0711);
    gproc_place_release(&place);
}

static void test_descriptor_is_not_inherited(void **state)
{
    const char *path = temporary_path(*state, "place");
    struct gproc_place place;

    assert_int_equal(gproc_place_init(&place, path, 0777), 0);
    assert_int_equal(fcntl(place.fd, F_GETFD), FD_CLOEXEC);
    temporary_remove(path);
    assert_int_equal(gproc_place_renew(&place), 0);
    assert_int_equal(fcntl(place.fd, F_GETFD), FD_CLOEXEC);
    gproc_place_release(&place);
}

static void test_what_is_no_directory_is_refused_without_hanging_and_holds_nothing(void **state)
{
    static const struct {
        const char *name;
        int error, or_error;
    } rows[] = {
        {"file", -ENOTDIR, 0},       {"fifo", -ENOTDIR, 0},       {"dangling", -ENOTDIR, -ELOOP},
        {"link", -ENOTDIR, -ELOOP},  {"link/", -ENOTDIR, -ELOOP}, {"link//", -ENOTDIR, -ELOOP},
        {"file/below", -ENOTDIR, 0}, {"no/parent", -ENOENT, 0},   {"dangling/below", -ENOENT, 0},
    };
    struct gproc_place place;
    size_t before;

    temporary_write(temporary_path(*state, "file"), "x", 1);
    assert_int_equal(mkfifo(temporary_path(*state, "fifo"), 0666), 0);
    assert_int_equal(symlink("nowhere", temporary_path(*state, "dangling")), 0);
    assert_int_equal(symlink(".", temporary_path(*state, "link")), 0);
    before = open_descriptors();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int result = gproc_place_init(&place, temporary_path(*state, "%s", rows[i].name), 0777);

        if (result >= 0 || (result != rows[i].error && result != rows[i].or_error))
            fail_msg("\"%s\": %d", rows[i].name, result);
        gproc_place_release(&place);
        gproc_place_release(&place);
    }
    assert_int_equal(gproc_place_init(&place, "", 0777), -ENOENT);
    gproc_place_release(&place);
    assert_int_equal(open_descriptors(), before);
    assert_false(temporary_exists(temporary_path(*state, "nowhere")));
}

static void test_link_above_the_last_component_is_followed(void **state)
{
    const char *path = temporary_path(*state, "link/place");
    struct gproc_place place;

    temporary_mkdir(temporary_path(*state, "real"));
    assert_int_equal(symlink("real", temporary_path(*state, "link")), 0);
    assert_int_equal(gproc_place_init(&place, path, 0777), 0);
    assert_leads_to(&place, temporary_path(*state, "real/place"));
    gproc_place_release(&place);
}

static void test_slashes_at_the_end_mean_nothing(void **state)
{
    struct gproc_place place;

    assert_int_equal(gproc_place_init(&place, temporary_path(*state, "place///"), 0777), 0);
    assert_string_equal(place.path, temporary_path(*state, "place"));
    gproc_place_release(&place);
    assert_int_equal(gproc_place_init(&place, "///", 0777), 0);
    assert_string_equal(place.path, "/");
    assert_leads_to(&place, "/");
    gproc_place_release(&place);
}

static void test_names_tells_the_file_from_all_others(void **state)
{
    const char *directory = temporary_path(*state, "place");
    const char *file = temporary_path(*state, "place/7");
    struct gproc_place place;
    struct stat status, other;

    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    temporary_write(file, "x", 1);
    temporary_write(temporary_path(*state, "place/8"), "x", 1);
    status = status_of(file);
    other = status_of(temporary_path(*state, "place/8"));
    assert_int_equal(gproc_place_names(&place, "7", &status), 1);
    assert_int_equal(gproc_place_names(&place, "8", &status), 0);
    assert_int_equal(gproc_place_names(&place, "9", &status), 0);

    /* Another one of its name. */
    assert_int_equal(rename(temporary_path(*state, "place/8"), file), 0);
    assert_int_equal(gproc_place_names(&place, "7", &status), 0);
    assert_int_equal(gproc_place_names(&place, "7", &other), 1);

    /* A link to it is not it. */
    assert_int_equal(rename(file, temporary_path(*state, "moved")), 0);
    assert_int_equal(symlink("../moved", file), 0);
    assert_int_equal(gproc_place_names(&place, "7", &other), 0);

    gproc_place_release(&place);
}

static void test_names_says_no_when_the_directory_is_gone_moved_or_something_else(void **state)
{
    const char *directory = temporary_path(*state, "place");
    const char *moved = temporary_path(*state, "moved");
    struct gproc_place place;
    struct stat status;

    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    temporary_write(temporary_path(*state, "place/7"), "x", 1);
    status = status_of(temporary_path(*state, "place/7"));

    assert_int_equal(rename(directory, moved), 0);
    assert_int_equal(gproc_place_names(&place, "7", &status), 0);
    temporary_write(directory, "a file", 6);
    assert_int_equal(gproc_place_names(&place, "7", &status), 0);
    temporary_remove(directory);
    temporary_mkdir(directory);
    temporary_write(temporary_path(*state, "place/7"), "x", 1);
    assert_int_equal(gproc_place_names(&place, "7", &status), 0);
    temporary_remove(directory);
    assert_int_equal(rename(moved, directory), 0);
    assert_int_equal(gproc_place_names(&place, "7", &status), 1);

    gproc_place_release(&place);
}

static void test_names_refuses_what_makes_no_path(void **state)
{
    struct temporary *temporary = *state;
    char *name = temporary_memory(temporary, PATH_MAX);
    struct stat status = {0};
    struct gproc_place place;

    assert_int_equal(gproc_place_init(&place, temporary->root, 0777), 0);
    memset(name, 'a', PATH_MAX - 1);
    for (size_t room = 0; room < PATH_MAX; room++) {
        /* Longer than the path may be, or than a name may be, or just not there. */
        name[PATH_MAX - 1 - room] = '\0';
        int result = gproc_place_names(&place, name, &status);

        assert_int_equal(result, PATH_MAX - 1 - room > NAME_MAX ? -ENAMETOOLONG : 0);
    }
    gproc_place_release(&place);
}

static void test_renew_finds_the_directory_that_the_path_leads_to_by_now(void **state)
{
    const char *directory = temporary_path(*state, "place");
    const char *moved = temporary_path(*state, "moved");
    struct gproc_place place;
    size_t before;
    int number;

    umask(0);
    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    number = place.fd;
    before = open_descriptors();

    /* The same one. */
    assert_int_equal(gproc_place_renew(&place), 0);
    assert_leads_to(&place, directory);

    /* Deleted: made again. */
    assert_int_equal(rmdir(directory), 0);
    assert_int_equal(gproc_place_renew(&place), 0);
    assert_leads_to(&place, directory);
    assert_int_equal(status_of(directory).st_mode, S_IFDIR | 0777);

    /* Moved: made again. */
    assert_int_equal(rename(directory, moved), 0);
    assert_int_equal(gproc_place_renew(&place), 0);
    assert_leads_to(&place, directory);
    assert_int_not_equal(status_of(directory).st_ino, status_of(moved).st_ino);

    /* Replaced. */
    assert_int_equal(rmdir(directory), 0);
    assert_int_equal(rename(moved, directory), 0);
    assert_int_equal(gproc_place_renew(&place), 0);
    assert_leads_to(&place, directory);

    assert_int_equal(place.fd, number);
    assert_int_equal(open_descriptors(), before);
    gproc_place_release(&place);
    assert_int_equal(open_descriptors(), before - 1);
}

static void test_renew_that_fails_leaves_all_as_it_was(void **state)
{
    const char *directory = temporary_path(*state, "place");
    const char *moved = temporary_path(*state, "moved");
    struct gproc_place place;
    size_t before;

    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    before = open_descriptors();
    assert_int_equal(rename(directory, moved), 0);

    temporary_write(directory, "x", 1);
    assert_int_equal(gproc_place_renew(&place), -ENOTDIR);
    assert_leads_to(&place, moved);
    temporary_remove(directory);

    assert_int_equal(symlink(moved, directory), 0); /* even to our own */
    assert_true(gproc_place_renew(&place) < 0);
    assert_leads_to(&place, moved);
    temporary_remove(directory);

    assert_int_equal(mkfifo(directory, 0666), 0);
    assert_int_equal(gproc_place_renew(&place), -ENOTDIR);
    assert_leads_to(&place, moved);

    assert_int_equal(open_descriptors(), before);
    gproc_place_release(&place);
}

static void test_stat_is_of_what_the_path_leads_to(void **state)
{
    const char *directory = temporary_path(*state, "place");
    const char *file = temporary_path(*state, "place/7");
    struct gproc_place place;
    struct stat status;

    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    assert_int_equal(gproc_place_stat(&place, "7", &status), -ENOENT);
    temporary_write(file, "x", 1);
    assert_int_equal(gproc_place_stat(&place, "7", &status), 0);
    assert_int_equal(status.st_ino, status_of(file).st_ino);
    assert_int_equal(status.st_size, 1);
    temporary_remove(file);
    assert_int_equal(symlink("nowhere", file), 0); /* itself, not what it points to */
    assert_int_equal(gproc_place_stat(&place, "7", &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    temporary_remove(directory);
    assert_int_equal(gproc_place_stat(&place, "7", &status), -ENOENT);
    temporary_write(directory, "x", 1);
    assert_int_equal(gproc_place_stat(&place, "7", &status), -ENOENT);
    gproc_place_release(&place);
}

static void test_identity_is_of_the_file_and_of_who_may_open_it(void **state)
{
    const char *file = temporary_path(*state, "file");
    struct gproc_identity identity;
    struct stat status;

    temporary_write(file, "x", 1);
    status = status_of(file);
    identity = gproc_identity_of(&status);
    assert_true(gproc_identity_is(&identity, &status));

    temporary_append(file, "y", 1);
    assert_int_equal(link(file, temporary_path(*state, "link")), 0);
    status = status_of(file);
    assert_true(gproc_identity_is(&identity, &status));

    assert_int_equal(chmod(file, 0600), 0);
    status = status_of(file);
    assert_false(gproc_identity_is(&identity, &status));
    identity = gproc_identity_of(&status);

    /* What it takes another user, or another file system, to change. */
    status.st_uid++;
    assert_false(gproc_identity_is(&identity, &status));
    status.st_uid--;
    status.st_gid++;
    assert_false(gproc_identity_is(&identity, &status));
    status.st_gid--;
    status.st_dev++;
    assert_false(gproc_identity_is(&identity, &status));
    status.st_dev--;
    status.st_ino++;
    assert_false(gproc_identity_is(&identity, &status));
    status.st_ino--;
    assert_true(gproc_identity_is(&identity, &status));
}

enum {
    RENEWALS_COUNT = 300,
};

/* Two threads in step: neither begins a round before the other does, however they are scheduled. */
struct user {
    const struct gproc_place *place;
    pthread_barrier_t round;
    atomic_uint failures;
};

static void *use(void *argument)
{
    struct user *user = argument;

    for (int i = 0; i < RENEWALS_COUNT; i++) {
        (void)pthread_barrier_wait(&user->round); /* it has no other error than a wrong barrier */
        for (int j = 0; j < 20; j++) {
            struct stat status;

            /* There is a directory under the number at every moment. */
            if (fstatat(user->place->fd, ".", &status, 0) != 0)
                atomic_fetch_add(&user->failures, 1);
        }
    }
    return NULL;
}

static void test_descriptor_is_usable_while_another_thread_renews(void **state)
{
    const char *directory = temporary_path(*state, "place");
    struct gproc_place place;
    struct user user = {.place = &place};
    pthread_t thread;

    assert_int_equal(gproc_place_init(&place, directory, 0777), 0);
    assert_int_equal(pthread_barrier_init(&user.round, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, use, &user), 0);
    for (int i = 0; i < RENEWALS_COUNT; i++) {
        (void)pthread_barrier_wait(&user.round);
        (void)rmdir(directory);
        if (gproc_place_renew(&place) != 0)
            atomic_fetch_add(&user.failures, 1);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_barrier_destroy(&user.round), 0);
    assert_int_equal(atomic_load(&user.failures), 0);
    gproc_place_release(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_missing_directory_is_made_with_its_mode_less_umask),
        TEMPORARY_TEST(test_existing_directory_keeps_its_mode),
        TEMPORARY_TEST(test_descriptor_is_not_inherited),
        TEMPORARY_TEST(test_what_is_no_directory_is_refused_without_hanging_and_holds_nothing),
        TEMPORARY_TEST(test_link_above_the_last_component_is_followed),
        TEMPORARY_TEST(test_slashes_at_the_end_mean_nothing),
        TEMPORARY_TEST(test_names_tells_the_file_from_all_others),
        TEMPORARY_TEST(test_names_says_no_when_the_directory_is_gone_moved_or_something_else),
        TEMPORARY_TEST(test_names_refuses_what_makes_no_path),
        TEMPORARY_TEST(test_renew_finds_the_directory_that_the_path_leads_to_by_now),
        TEMPORARY_TEST(test_renew_that_fails_leaves_all_as_it_was),
        TEMPORARY_TEST(test_stat_is_of_what_the_path_leads_to),
        TEMPORARY_TEST(test_identity_is_of_the_file_and_of_who_may_open_it),
        TEMPORARY_TEST(test_descriptor_is_usable_while_another_thread_renews),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
