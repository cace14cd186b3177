/*
 * The command line is understood, or refused as a whole, also where there is no memory; and numbers are
 * numbers, and within bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fault.h"
#include "options.h"

enum {
    WORDS_MOST = 8,
};

/* Of words, of which NULL is behind the last. */
static enum options_result parse(struct options *options, const char *const words[])
{
    static char texts[WORDS_MOST][64];
    char *argv[WORDS_MOST + 1] = {NULL};
    int argc = 0;

    for (; words[argc] != NULL; argc++) {
        assert_true(argc < WORDS_MOST && strlen(words[argc]) < sizeof(texts[0]));
        argv[argc] = strcpy(texts[argc], words[argc]);
    }
    return options_parse(options, argc, argv);
}

static void test_command_line_without_memory_is_refused(void **state)
{
    static const char *const words[] = {"gprocfs", "mail", "mnt", NULL};
    struct fault_walk walk;

    (void)state;
    fault_walk_init(&walk);
    do {
        struct options options;
        enum options_result result;

        fault_walk_start(&walk);
        result = parse(&options, words);
        fault_walk_stop(&walk);
        assert_int_equal(result, walk.failed == NULL ? OPTIONS_RUN : OPTIONS_MISTAKEN);
        if (result == OPTIONS_RUN) {
            assert_string_equal(options.mailbox_directory, "mail");
            assert_string_equal(options.mountpoint, "mnt");
        }
        options_release(&options);
    } while (fault_walk_next(&walk));
}

static void test_what_the_kernel_is_to_be_told_of_is_not_forgotten(void **state)
{
    static const char *const words[] = {"gprocfs", "-o", "max_read=4096", "mail", "mnt", NULL};
    struct options options;

    (void)state;
    fault_calls("fuse_opt_add_arg", 1, 1, -ENOMEM);
    assert_int_equal(parse(&options, words), OPTIONS_MISTAKEN);
    fault_stop();
    options_release(&options);
    assert_int_equal(parse(&options, words), OPTIONS_RUN);
    assert_int_equal(options.read_most_bytes, 4096);
    assert_string_equal(options.fuse.argv[options.fuse.argc - 1], "-omax_read=4096");
    options_release(&options);
}

static void test_numbers_are_numbers_within_bounds(void **state)
{
    static const struct {
        const char *option;
        enum options_result result;
    } rows[] = {
        {"lock_timeout=0", OPTIONS_RUN},
        {"lock_timeout=4294967295", OPTIONS_RUN},
        {"lock_timeout=4294967296", OPTIONS_MISTAKEN},
        {"lock_timeout=", OPTIONS_MISTAKEN},
        {"lock_timeout= 1", OPTIONS_MISTAKEN},
        {"max_message=1", OPTIONS_RUN},
        {"max_message=0", OPTIONS_MISTAKEN},
        {"max_message=+1", OPTIONS_MISTAKEN},
        {"max_message=2147483635", OPTIONS_RUN},
        {"max_message=2147483636", OPTIONS_MISTAKEN},
        {"max_message=18446744073709551616", OPTIONS_MISTAKEN},
        {"max_message=99999999999999999999999", OPTIONS_MISTAKEN},
        {"max_read=0", OPTIONS_RUN},
        {"max_read=131072", OPTIONS_RUN},
        {"max_read=much", OPTIONS_MISTAKEN},
        {"max_read=4294967296", OPTIONS_MISTAKEN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const words[] = {"gprocfs", "-o", rows[i].option, "mail", "mnt", NULL};
        struct options options;
        enum options_result result = parse(&options, words);

        if (result != rows[i].result)
            fail_msg("-o %s: %d", rows[i].option, (int)result);
        options_release(&options);
    }
}

/* mount(8) runs it by a path; whoever is in that directory may do without. */
static void test_mount_helper_is_known_by_its_name(void **state)
{
    static const struct {
        const char *name;
        enum options_result result; /* of -f: all but to mount, or the foreground */
    } rows[] = {
        {"mount.gprocfs", OPTIONS_SHOWN},
        {"./mount.fuse.gprocfs", OPTIONS_SHOWN},
        {"gprocfs", OPTIONS_RUN},
        {"/mount.d/gprocfs", OPTIONS_RUN},
    };
    struct options options;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const words[] = {rows[i].name, "mail", "mnt", "-f", NULL};

        assert_int_equal(parse(&options, words), rows[i].result);
        assert_int_equal(options.foreground, rows[i].result == OPTIONS_RUN);
        options_release(&options);
    }
    /* Whoever runs a program may give it no name at all. */
    assert_int_equal(parse(&options, (const char *const[]){NULL}), OPTIONS_MISTAKEN);
    options_release(&options);
}

static void test_mount_helper_refuses_what_it_does_not_know(void **state)
{
    static const char *const words[] = {"mount.gprocfs", "mail", "mnt", "-t", NULL};
    struct options options;

    (void)state;
    assert_int_equal(parse(&options, words), OPTIONS_MISTAKEN);
    options_release(&options);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command_line_without_memory_is_refused),
        cmocka_unit_test(test_what_the_kernel_is_to_be_told_of_is_not_forgotten),
        cmocka_unit_test(test_numbers_are_numbers_within_bounds),
        cmocka_unit_test(test_mount_helper_is_known_by_its_name),
        cmocka_unit_test(test_mount_helper_refuses_what_it_does_not_know),
    };

    return cmocka_run_group_tests_name("options, faults", tests, NULL, NULL);
}
