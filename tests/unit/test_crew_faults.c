/*
 * What the crew is given is done by a thread of it, later and once; or, where there is no memory or no
 * thread, it is not given: that is said, and what is given next is done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fault.h"
#include "gprocfs.h"

enum {
    PID = 4711,
};

static atomic_uint done_count;

static void count(struct box *box)
{
    assert(box->pid == PID);
    (void)atomic_fetch_add(&done_count, 1);
}

static void test_task_is_done_once_or_not_given(void **state)
{
    static struct gprocfs fs;
    struct fault_walk walk;

    (void)state;
    memset(&fs, 0, sizeof(fs));
    boxes_init(&fs.boxes);
    fs.store.fd = -1;
    fs.keeper.bell = -1;
    fault_walk_init(&walk);
    do {
        struct box *box = box_get(&fs, PID);
        int result;

        assert_non_null(box);
        crew_init(&fs.crew);
        atomic_store(&done_count, 0);
        fault_walk_start(&walk);
        result = crew_give(&fs.crew, box_again(box), count);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result < 0)
            box_put(box); /* it is the giver's still */
        assert_int_equal(crew_give(&fs.crew, box_again(box), count), 0);
        crew_stop(&fs.crew);
        assert_int_equal(atomic_load(&done_count), result == 0 ? 2 : 1);
        box_put(box);
        walk.held.blocks_count = fault_held().blocks_count; /* tasks are freed by who does them */
    } while (fault_walk_next(&walk));
    boxes_release(&fs.boxes);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_is_done_once_or_not_given),
    };

    return cmocka_run_group_tests_name("crew, faults", tests, NULL, NULL);
}
