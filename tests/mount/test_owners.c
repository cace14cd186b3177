/* Mailboxes that change their owner, and the mounts of ordinary users: all the views there. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    ALICE = 1000,
    BOB = 65534,
    CHILD_MS = 15000, /* the usual is at once */
};

static const char follow[] = ".follow";

/* --- chown through a mount of root ------------------------------------------------------------ */

/* A private mailbox of Alice with these three. */
static void plant_three(struct mount *mount)
{
    behind_expect_sent(mount, BOX, 1, "one\n");
    behind_expect_sent(mount, BOX, 1, "two\n");
    behind_expect_sent(mount, BOX, 1, "three\n");
    assert_success(chown(behind_box(mount, BOX), ALICE, ALICE));
    assert_success(chmod(behind_box(mount, BOX), 0600));
}

/* Alice takes the first, which puts the others in flight; then it is Bob's. */
static void take_one_and_give_to_bob(struct mount *mount)
{
    struct process_result result;

    plant_three(mount);
    result = through_run_as(mount, ALICE, "sh", "head -n 1 $M/4711");
    assert_string_equal(result.out, "one\n");
    through_await_open(mount, 0);
    behind_expect_bytes(mount, BOX, NULL, 0);
    assert_success(chown(through_box(mount, BOX), BOB, BOB));
}

static void expect_bob_reads(struct mount *mount, const char *text)
{
    static const char *const mine[] = {"cat $M/.peek/4711", "cat $M/4711", "cat $M/.list/4711",
                                       "timeout 1 cat $M/.follow/4711"};
    struct process_result result;

    for (size_t i = 0; i < sizeof(mine) / sizeof(mine[0]); i++) {
        result = through_run_as(mount, ALICE, "sh", "%s", mine[i]);
        assert_string_equal(result.out, "");
        assert_true(result.status != 0);
    }
    result = through_run_as(mount, BOB, "sh", "cat $M/.peek/4711; cat $M/4711");
    assert_int_equal(strlen(result.out), 2 * strlen(text));
    assert_memory_equal(result.out, text, strlen(text));
    assert_string_equal(result.out + strlen(text), text);
    through_expect_size(mount, BOX, 0);
}

static void mail_in_flight_goes_to_the_new_owner(void **state)
{
    struct mount *mount = mount_of(state);

    take_one_and_give_to_bob(mount);
    behind_expect_sent(mount, BOX, 1, "four\n");
    expect_bob_reads(mount, "two\nthree\nfour\n");
}

static void mail_in_flight_is_the_new_owners_in_the_next_mount_too(void **state)
{
    struct mount *mount = mount_of(state);

    take_one_and_give_to_bob(mount);
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, "two\n", "three\n", NULL);
    assert_int_equal(mount_start(mount), 0);
    expect_bob_reads(mount, "two\nthree\n");
}

static void mail_in_flight_is_the_new_owners_after_a_kill_too(void **state)
{
    struct mount *mount = mount_of(state);

    take_one_and_give_to_bob(mount);
    mount_kill(mount);
    assert_int_equal(mount_start(mount), 0);
    expect_bob_reads(mount, "two\nthree\n");
}

static void read_a_part(int fd, struct through_answer *answer)
{
    char part[2];

    answer->result = read(fd, part, sizeof(part));
    answer->error = errno;
}

/* What the old owner has begun to read is whole for the new one. */
static void message_in_the_old_owners_hand_goes_to_the_new_one(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiter;
    int fd;

    plant_three(mount);
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    waiter = through_start(0, fd, read_a_part);
    assert_int_equal(through_await(&waiter).result, 2);
    assert_success(chown(through_box(mount, BOX), BOB, BOB));
    assert_success(close(fd));
    through_await_open(mount, 0);
    expect_bob_reads(mount, "one\ntwo\nthree\n");
}

/* Somebody who may read it anyway looks at the mailbox all the time, also between the change of
 * the file below and that of what is in flight. */
static void look_all_the_time(int fd, struct through_answer *answer)
{
    struct pollfd asked = {.fd = fd, .events = POLLIN};

    do {
        answer->result = poll(&asked, 1, 0);
    } while (answer->result >= 0);
    answer->error = errno;
}

static void nothing_is_lost_when_somebody_looks_during_the_change(void **state)
{
    enum { CHANGES = 300, LOOKERS = 2 };
    struct mount *mount = mount_of(state);
    struct through_waiter lookers[LOOKERS];
    struct through_waiter waiter;
    int changes = CHANGES / (int)(mount_scale() < 10 ? mount_scale() : 10);
    int lost = 0;
    int fd;

    plant_three(mount);
    for (int i = 0; i < LOOKERS; i++) {
        fd = through_open(mount, BOX, THROUGH_RECEIVE);
        lookers[i] = through_start(0, fd, look_all_the_time);
        assert_success(close(fd));
    }
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    waiter = through_start(0, fd, read_a_part); /* that puts all in flight */
    assert_int_equal(through_await(&waiter).result, 2);
    assert_success(close(fd));
    for (int i = 0; i < changes && lost == 0; i++) {
        uid_t uid = i % 2 == 0 ? BOB : ALICE;
        struct stat status;

        assert_success(chown(through_box(mount, BOX), uid, uid));
        assert_success(stat(through_box(mount, BOX), &status));
        if (status.st_size != 14) {
            print_message("after %d changes %lld bytes\n", i + 1, (long long)status.st_size);
            lost++;
        }
    }
    for (int i = 0; i < LOOKERS; i++)
        (void)through_kill_ms(&lookers[i]);
    assert_int_equal(lost, 0);
}

/* --- The mount of an ordinary user ------------------------------------------------------------ */

static void expect_own(struct mount *mount, const char *output, const char *line)
{
    struct process_result result = through_run_as(mount, mount->options->uid, "bash", "%s", line);

    if (result.status != 0 || strcmp(result.out, output) != 0)
        fail_msg("%s\nexit status %d, printed \"%s\" instead of \"%s\"; %s", line, result.status,
                 result.out, output, result.err);
}

static void every_view_works_in_a_mount_of_ones_own(void **state)
{
    struct mount *mount = mount_of(state);

    expect_own(mount, "one\ntwo\n",
               ": >> $M/4711; head -n1 $M/.follow/4711 > a & "
               "until grep -q 'kind=\"message\"} 1$' $M/.stats; do :; done\n"
               "echo one > $M/4711; wait; cat a; echo two >> $M/4711; head -n1 $M/.follow/4711");
    expect_own(mount, "yes\n",
               "echo one > $M/4711; read -r a b < $M/.envelope/4711; [ \"$a $b\" = \"$$ 4\" ] && "
               "echo yes");
    expect_own(mount, "one\n4\none\n0\n",
               "until grep -q '^gprocfs_open_files 0$' $M/.stats; do :; done\n"
               "cat $M/.peek/4711; stat -c %s $M/.peek/4711; cat $M/4711; stat -c %s $M/4711");
    expect_own(mount, "1\n",
               "echo listed > $M/4711; grep -c listed $M/.list/4711; cat $M/4711 > /dev/null");
    expect_own(mount, "gprocfs_messages_received_total 4\n",
               "grep '^gprocfs_messages_received_total' $M/.stats");
}

static char path_to_open[PATH_MAX];

static void open_and_poll(int fd, struct through_answer *answer)
{
    struct pollfd asked = {.events = POLLIN};

    asked.fd = fd = open(path_to_open, THROUGH_RECEIVE);
    answer->result = poll(&asked, 1, CHILD_MS);
    answer->error = errno;
    if (answer->result == 1 && (asked.revents & POLLIN) != 0)
        through_read_once(fd, answer);
}

static void poll_is_woken_in_a_mount_of_ones_own(void **state)
{
    static const char *const views[] = {".follow", "."};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        struct through_waiter waiter;

        expect_own(mount, "", ": >> $M/4711");
        snprintf(path_to_open, sizeof(path_to_open), "%s", view_path(mount, views[i], BOX));
        waiter = through_start(mount->options->uid, -1, open_and_poll);
        expect_own(mount, "",
                   "until grep -q 'kind=\"poll\"} 1$' $M/.stats; do :; done; echo hi >> $M/4711");
        through_expect_answer(&waiter, "hi\n");
    }
}

/* --- Other file systems ----------------------------------------------------------------------- */

static void follow_and_peek_work_on_other_file_systems(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiter;
    int fd;

    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    for (int i = 0; i < 5; i++) {
        waiter = through_start_reader(mount, follow, BOX);
        through_await_parked(mount, "message", 1);
        behind_expect_sent(mount, BOX, 1, "from behind");
        through_expect_answer(&waiter, "from behind");
        waiter = through_start_reader(mount, follow, BOX);
        through_await_parked(mount, "message", 1);
        through_send(mount, BOX, "through");
        through_expect_answer(&waiter, "through");
    }
    behind_expect_sent(mount, BOX, 1, "one");
    through_send(mount, BOX, "two");
    fd = view_open(mount, ".peek", BOX);
    view_expect_more(mount, fd, "onetwo");
    through_expect_texts(mount, BOX, "one", "two", NULL);
    behind_expect_sent(mount, BOX, 1, "three");
    view_expect_more(mount, fd, "three");
    view_expect_stays(fd, "onetwothree", 11);
    assert_success(close(fd));
}

int main(void)
{
    static const struct mount_options for_all = {.options = "allow_other",
                                                 .needs_root = true,
                                                 .for_all = true,
                                                 .chatty = true,
                                                 .seconds = 60};
    static const struct mount_options alice = {.uid = ALICE};
    static const struct mount_options alice_on_tmpfs = {
        .uid = ALICE, .place = MOUNT_ON_TMPFS, .place_kib = 4096};
    static const struct mount_options tmpfs = {.place = MOUNT_ON_TMPFS, .place_kib = 4096};
    static const struct mount_options ext4 = {.place = MOUNT_ON_EXT4, .place_kib = 8192};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(mail_in_flight_goes_to_the_new_owner, &for_all),
        MOUNT_TEST_WITH(mail_in_flight_is_the_new_owners_in_the_next_mount_too, &for_all),
        MOUNT_TEST_WITH(mail_in_flight_is_the_new_owners_after_a_kill_too, &for_all),
        MOUNT_TEST_WITH(message_in_the_old_owners_hand_goes_to_the_new_one, &for_all),
        MOUNT_TEST_WITH(nothing_is_lost_when_somebody_looks_during_the_change, &for_all),
        MOUNT_TEST_WITH(every_view_works_in_a_mount_of_ones_own, &alice),
        MOUNT_TEST_WITH(every_view_works_in_a_mount_of_ones_own, &alice_on_tmpfs),
        MOUNT_TEST_WITH(poll_is_woken_in_a_mount_of_ones_own, &alice),
        MOUNT_TEST_WITH(follow_and_peek_work_on_other_file_systems, &tmpfs),
        MOUNT_TEST_WITH(follow_and_peek_work_on_other_file_systems, &ext4),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("owners", tests, NULL, NULL) == 0 ? 0 : 1;
}
