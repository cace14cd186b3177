/* Whatever call fails, the lookout starts or says why not, and leaves nothing open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "fault.h"
#include "gprocfs.h"
#include "stage.h"

static void test_lookout_starts_or_leaves_nothing(void **state)
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
        result = lookout_start(&fs.lookout, &fs);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result == 0) {
            lookout_stop(&fs.lookout);
            lookout_release(&fs.lookout);
        }
    } while (fault_walk_next(&walk));
    crew_stop(&fs.crew);
    boxes_release(&fs.boxes);
    gproc_place_release(&fs.mailboxes);
    stage_clear(&stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_lookout_starts_or_leaves_nothing),
    };

    return cmocka_run_group_tests_name("lookout, faults", tests, NULL, NULL);
}
