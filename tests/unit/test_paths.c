/*
 * Which names are mailboxes and which are not, what mailboxes and locks are called, and where they
 * are for every setting of the environment variables.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "paths.h"
#include "temporary.h"

static void test_name_is_a_decimal_pid_without_leading_zeros(void **state)
{
    static const struct {
        const char *name;
        pid_t pid; /* 0: no mailbox */
    } rows[] = {
        {"1", 1},
        {"9", 9},
        {"10", 10},
        {"4711", 4711},
        {"999999999", 999999999},
        {"1000000000", 1000000000},
        {"2147483646", 2147483646},
        {"2147483647", 2147483647},
        {"2147483648", 0},
        {"2147483650", 0},
        {"2147483657", 0},
        {"4294967295", 0},
        {"4294967296", 0},
        {"4294967297", 0}, /* 1 in 32 bits */
        {"9999999999", 0},
        {"9223372036854775808", 0},
        {"18446744073709551617", 0}, /* 1 in 64 bits */
        {"340282366920938463463", 0},
        {"0", 0},
        {"00", 0},
        {"01", 0},
        {"-1", 0},
        {"+1", 0},
        {" 1", 0},
        {"1 ", 0},
        {"1\n", 0},
        {"1.", 0},
        {"1.lock", 0},
        {"0x1", 0},
        {"1e3", 0},
        {"1a", 0},
        {"a1", 0},
        {"1/", 0},
        {"/1", 0},
        {"1/2", 0},
        {"", 0},
        {".", 0},
        {"..", 0},
        {".gprocfs", 0},
        {"\xd9\xa1", 0}, /* an Arabic one */
        {"1\xff", 0},
        {"/", 0}, /* the byte before '0' */
        {":", 0}, /* the byte after '9' */
        {"1:", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        pid_t pid = -7;
        int result = gproc_pid_parse(rows[i].name, &pid);

        if (result != (rows[i].pid != 0 ? 0 : -EINVAL))
            fail_msg("\"%s\": %d", rows[i].name, result);
        assert_int_equal(pid, rows[i].pid != 0 ? rows[i].pid : -7);
    }
}

static void test_no_long_name_is_a_mailbox(void **state)
{
    static char name[100 * 1000];

    (void)state;
    memset(name, '1', sizeof(name) - 1);
    for (size_t length = 11; length < sizeof(name); length = length * 2 + 1) {
        pid_t pid;

        name[length] = '\0';
        assert_int_equal(gproc_pid_parse(name, &pid), -EINVAL);
        name[length] = '1';
    }
}

static void test_names_are_written_as_they_are_read(void **state)
{
    static const struct {
        pid_t pid;
        const char *mailbox, *lock;
    } rows[] = {
        {1, "1", "1.lock"},
        {9, "9", "9.lock"},
        {10, "10", "10.lock"},
        {100, "100", "100.lock"},
        {4711, "4711", "4711.lock"},
        {1000000000, "1000000000", "1000000000.lock"},
        {INT32_MAX, "2147483647", "2147483647.lock"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        /* Exactly as large as it must be, so that a write past the end shows. */
        char *name = malloc(GPROC_NAME_BYTES);
        pid_t pid;

        assert_non_null(name);
        gproc_mailbox_name(rows[i].pid, name);
        assert_string_equal(name, rows[i].mailbox);
        assert_int_equal(gproc_pid_parse(name, &pid), 0);
        assert_int_equal(pid, rows[i].pid);
        gproc_lock_name(rows[i].pid, name);
        assert_string_equal(name, rows[i].lock);
        free(name);
    }
}

/* NULL: not set. */
static void set(const char *variable, const char *value)
{
    assert_int_equal(value != NULL ? setenv(variable, value, 1) : unsetenv(variable), 0);
}

static void test_directories_follow_the_environment_and_empty_is_unset(void **state)
{
    static const struct {
        const char *gproc, *tmp;
        const char *mailboxes, *locks;
    } rows[] = {
        {NULL, NULL, "/tmp/gproc", "/tmp/gflock"},
        {NULL, "", "/tmp/gproc", "/tmp/gflock"},
        {NULL, "/t", "/t/gproc", "/t/gflock"},
        {"", NULL, "/tmp/gproc", "/tmp/gflock"},
        {"", "", "/tmp/gproc", "/tmp/gflock"},
        {"", "/t", "/t/gproc", "/t/gflock"},
        {"/g", NULL, "/g/gproc", "/tmp/gflock"},
        {"/g", "", "/g/gproc", "/tmp/gflock"},
        {"/g", "/t", "/g/gproc", "/t/gflock"},
        {"rel", "ative", "rel/gproc", "ative/gflock"},
        {" ", " ", " /gproc", " /gflock"},
        {"/g %s", "/t %n", "/g %s/gproc", "/t %n/gflock"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[PATH_MAX];

        set("gproc.tempdir", rows[i].gproc);
        set("TMPDIR", rows[i].tmp);
        assert_int_equal(gproc_mailbox_directory(path, sizeof(path)), 0);
        assert_string_equal(path, rows[i].mailboxes);
        assert_int_equal(gproc_lock_directory(path, sizeof(path)), 0);
        assert_string_equal(path, rows[i].locks);
    }
}

static void test_other_spellings_of_the_variable_are_not_read(void **state)
{
    static const char *const others[] = {"gproc_tempdir", "GPROC_TEMPDIR", "GPROC.TEMPDIR",
                                         "gproctempdir"};
    char path[PATH_MAX];

    (void)state;
    set("gproc.tempdir", NULL);
    set("TMPDIR", "/t");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        set(others[i], "/wrong");
        assert_int_equal(gproc_mailbox_directory(path, sizeof(path)), 0);
        set(others[i], NULL);
        assert_string_equal(path, "/t/gproc");
    }
}

static void test_environment_is_read_at_each_call(void **state)
{
    char path[PATH_MAX];

    (void)state;
    set("gproc.tempdir", "/one");
    assert_int_equal(gproc_mailbox_directory(path, sizeof(path)), 0);
    assert_string_equal(path, "/one/gproc");
    set("gproc.tempdir", "/two");
    assert_int_equal(gproc_mailbox_directory(path, sizeof(path)), 0);
    assert_string_equal(path, "/two/gproc");
}

static void test_path_that_does_not_fit_is_an_error_and_no_overrun(void **state)
{
    static const struct {
        int (*directory)(char *path, size_t size_bytes);
        const char *path;
    } rows[] = {
        {gproc_mailbox_directory, "/some/where/gproc"},
        {gproc_lock_directory, "/some/where/gflock"},
    };

    (void)state;
    set("gproc.tempdir", NULL);
    set("TMPDIR", "/some/where");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t size = 0; size <= strlen(rows[i].path) + 1; size++) {
            char *path = malloc(size); /* exactly as large as we say */
            int fits = size == strlen(rows[i].path) + 1;

            assert_int_equal(rows[i].directory(path, size), fits ? 0 : -ENAMETOOLONG);
            if (fits)
                assert_string_equal(path, rows[i].path);
            free(path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name_is_a_decimal_pid_without_leading_zeros),
        cmocka_unit_test(test_no_long_name_is_a_mailbox),
        cmocka_unit_test(test_names_are_written_as_they_are_read),
        TEMPORARY_TEST(test_directories_follow_the_environment_and_empty_is_unset),
        TEMPORARY_TEST(test_other_spellings_of_the_variable_are_not_read),
        TEMPORARY_TEST(test_environment_is_read_at_each_call),
        TEMPORARY_TEST(test_path_that_does_not_fit_is_an_error_and_no_overrun),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
