/* Whatever call fails, those who watch over what waits start or say why not, and leave nothing open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "fault.h"
#include "gprocfs.h"
#include "stage.h"

static int keep(struct gprocfs *fs)
{
    int result = keeper_start(&fs->keeper, fs);

    if (result == 0) {
        fault_pause();
        keeper_stop(&fs->keeper);
        keeper_release(&fs->keeper);
    }
    return result;
}

static int look_out(struct gprocfs *fs)
{
    int result = lookout_start(&fs->lookout, fs);

    if (result == 0) {
        fault_pause();
        lookout_stop(&fs->lookout);
        lookout_release(&fs->lookout);
    }
    return result;
}

static void starts_or_leaves_nothing(void **state, int (*start_and_stop)(struct gprocfs *fs))
{
    static struct gprocfs fs;
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    memset(&fs, 0, sizeof(fs));
    boxes_init(&fs.boxes);
    crew_init(&fs.crew);
    assert_int_equal(gproc_place_init(&fs.mailboxes, stage.mailboxes, 0777), 0);
    fault_walk_init(&walk);
    do {
        int result;

        fault_walk_start(&walk);
        result = start_and_stop(&fs);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
    } while (fault_walk_next(&walk));
    crew_stop(&fs.crew);
    boxes_release(&fs.boxes);
    gproc_place_release(&fs.mailboxes);
    stage_clear(&stage);
}

static void test_keeper_starts_or_leaves_nothing(void **state)
{
    starts_or_leaves_nothing(state, keep);
}

static void test_lookout_starts_or_leaves_nothing(void **state)
{
    starts_or_leaves_nothing(state, look_out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_keeper_starts_or_leaves_nothing),
        TEMPORARY_TEST(test_lookout_starts_or_leaves_nothing),
    };

    return cmocka_run_group_tests_name("keeper, faults", tests, NULL, NULL);
}
