/* A window tells what it holds, holds no more than it may, and is empty after an error. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "window.h"

static const uint8_t bytes[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
static const struct gproc_source source = {.data = bytes, .fd = -1, .size_bytes = sizeof(bytes)};

static void test_holds_as_much_as_it_may(void **state)
{
    struct gproc_window window = {.capacity_bytes = 4};

    (void)state;
    assert_int_equal(gproc_window_holds(&window, 0), 0);
    assert_int_equal(gproc_window_load(&window, &source, 3, 7, 10), 0);
    assert_int_equal(window.size_bytes, 4);
    assert_memory_equal(window.bytes, bytes + 3, 4);
    assert_int_equal(gproc_window_holds(&window, 2), 0);
    assert_int_equal(gproc_window_holds(&window, 3), 4);
    assert_int_equal(gproc_window_holds(&window, 6), 1);
    assert_int_equal(gproc_window_holds(&window, 7), 0);
    assert_int_equal(gproc_window_load(&window, &source, 7, 2, 10), 0);
    assert_int_equal(gproc_window_holds(&window, 7), 2);
    gproc_window_release(&window);
    gproc_window_release(&window);
}

static void test_allocates_no_more_than_is_left(void **state)
{
    struct gproc_window window = {.capacity_bytes = 1000};

    (void)state;
    assert_int_equal(gproc_window_load(&window, &source, 0, 10, 10), 0);
    assert_int_equal(window.capacity_bytes, 10);
    assert_int_equal(window.size_bytes, 10);
    gproc_window_release(&window);
}

static void test_error_leaves_it_empty(void **state)
{
    struct gproc_window window = {.capacity_bytes = 4};

    (void)state;
    assert_int_equal(gproc_window_load(&window, &source, 0, 4, 10), 0);
    assert_int_equal(gproc_window_load(&window, &source, 8, 4, 10), -EIO);
    assert_int_equal(gproc_window_holds(&window, 0), 0);
    gproc_window_release(&window);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holds_as_much_as_it_may),
        cmocka_unit_test(test_allocates_no_more_than_is_left),
        cmocka_unit_test(test_error_leaves_it_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
