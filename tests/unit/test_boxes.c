/*
 * However many mailboxes are used, so many files are kept open and no more, by the descriptors that the
 * daemon may have; and of boxes that share a place each one goes alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gprocfs.h"
#include "inside.h"
#include "stage.h"

enum {
    BOXES_COUNT = 40,
    DESCRIPTORS_COUNT = 128, /* that the daemon may have, */
    KEPT_COUNT = 16,         /* and so many boxes' files of these */
};

struct fixture {
    struct stage stage;
    struct inside *inside;
};

static uint64_t open_box(struct fixture *fixture, uint64_t parent, long pid, int flags,
                         uint64_t *node)
{
    char name[16];
    uint64_t handle;

    (void)snprintf(name, sizeof(name), "%ld", pid);
    if ((flags & O_CREAT) != 0) {
        assert_int_equal(inside_create(fixture->inside, parent, name, flags, node, &handle), 0);
    } else {
        assert_int_equal(inside_look_up(fixture->inside, parent, name, node), 0);
        assert_int_equal(inside_open(fixture->inside, *node, flags, &handle), 0);
    }
    return handle;
}

static void send_to(struct fixture *fixture, long pid)
{
    uint64_t node;
    uint64_t handle = open_box(fixture, INSIDE_ROOT, pid, O_WRONLY | O_CREAT | O_APPEND, &node);

    assert_int_equal(inside_write(fixture->inside, node, handle, "x", 1, 0), 0);
    assert_int_equal(inside_release(fixture->inside, node, handle), 0);
}

static void test_files_that_are_kept_open_are_few(void **state)
{
    struct fixture fixture;
    struct rlimit before, few;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = DESCRIPTORS_COUNT;
    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    for (long pid = 1; pid <= BOXES_COUNT; pid++) {
        send_to(&fixture, pid);
        assert_in_range(atomic_load(&inside_fs(fixture.inside)->boxes.files_count), 0, KEPT_COUNT);
    }
    inside_unmount(fixture.inside);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    stage_clear(&fixture.stage);
}

/* As many as there may be, but no more than are of use. */
static void test_more_descriptors_do_not_mean_ever_more_files(void **state)
{
    struct rlimit before, many;
    struct boxes boxes;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    memset(&boxes, 0, sizeof(boxes));
    many = before;
    many.rlim_cur = many.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &many), 0);
    boxes_init(&boxes);
    assert_in_range(boxes.files_most_count, 1, many.rlim_max / 4);
    assert_in_range(boxes.files_most_count, 1, 1024);
    boxes_release(&boxes);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Three that are found in the same place; they come, and go in another order. */
static void test_boxes_in_one_place_come_and_go_alone(void **state)
{
    static const size_t orders[][3] = {{0, 1, 2}, {2, 0, 1}, {1, 0, 2}};
    struct fixture fixture;
    uint64_t follow;
    char path[PATH_MAX];

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    fixture.inside = inside_mount(fixture.stage.parent, NULL);
    assert_int_equal(inside_look_up(fixture.inside, INSIDE_ROOT, ".follow", &follow), 0);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%.*s/%d", PATH_MAX / 2, fixture.stage.mailboxes,
                       STAGE_PID + (int)i * BOXES_BUCKETS_COUNT);
        temporary_write(path, NULL, 0);
    }
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        uint64_t nodes[3], handles[3];

        for (size_t j = 0; j < 3; j++)
            handles[j] = open_box(&fixture, follow, STAGE_PID + (long)j * BOXES_BUCKETS_COUNT,
                                  O_RDONLY, &nodes[j]);
        for (size_t j = 0; j < 3; j++) {
            size_t which = orders[i][j];
            struct box *box;

            assert_int_equal(inside_release(fixture.inside, nodes[which], handles[which]), 0);
            for (size_t k = j + 1; k < 3; k++) {
                box = box_find(inside_fs(fixture.inside),
                               STAGE_PID + (pid_t)orders[i][k] * BOXES_BUCKETS_COUNT);
                assert_non_null(box);
                box_put(box);
            }
        }
    }
    inside_unmount(fixture.inside);
    stage_clear(&fixture.stage);
}

static struct box *rested(struct boxes *boxes, bool *more)
{
    struct box *box;

    for (box = boxes->resting; box != NULL; box = box->next_resting)
        box->rests_since_ms = 0; /* for long enough */
    return boxes_pop_rested(boxes, more);
}

/* Who was told to look the name up again finds it as it was, if he comes in time. */
static void test_box_that_somebody_was_told_of_stays_until_it_is_too_late_for_him(void **state)
{
    static const struct inside_options alone = {.alone = true};
    struct fixture fixture;
    struct boxes *boxes;
    struct box *box;
    uint64_t node;
    bool more;

    stage_init(&fixture.stage, *state);
    stage_set(&fixture.stage);
    fixture.inside = inside_mount(fixture.stage.parent, &alone);
    boxes = &inside_fs(fixture.inside)->boxes;
    box = box_get(inside_fs(fixture.inside), STAGE_PID);
    assert_non_null(box);
    (void)pthread_mutex_lock(&box->mutex);
    box_shun_base(box, getpid());
    (void)pthread_mutex_unlock(&box->mutex);
    box_put(box);
    assert_null(rested(boxes, &more));
    assert_true(more);
    assert_ptr_equal(boxes->resting, box);
    box->told->until_ms = 1;
    assert_ptr_equal(rested(boxes, &more), box);
    box_close_files(box);
    box_put(box);
    assert_null(box_find(inside_fs(fixture.inside), STAGE_PID));
    assert_null(rested(boxes, &more));
    assert_false(more);
    /* And at the end, with a file open. */
    (void)open_box(&fixture, INSIDE_ROOT, STAGE_PID, O_WRONLY | O_CREAT | O_APPEND, &node);
    box = box_get(inside_fs(fixture.inside), STAGE_PID);
    (void)pthread_mutex_lock(&box->mutex);
    box_shun_base(box, getpid());
    (void)pthread_mutex_unlock(&box->mutex);
    box_put(box);
    inside_unmount(fixture.inside);
    stage_clear(&fixture.stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_files_that_are_kept_open_are_few),
        TEMPORARY_TEST(test_more_descriptors_do_not_mean_ever_more_files),
        TEMPORARY_TEST(test_boxes_in_one_place_come_and_go_alone),
        TEMPORARY_TEST(test_box_that_somebody_was_told_of_stays_until_it_is_too_late_for_him),
    };

    return cmocka_run_group_tests_name("boxes", tests, NULL, NULL);
}
