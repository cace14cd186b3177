/* The end of a mount, whatever waits in it: it is gone at once, and no message with it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "pile.h"
#include "process.h"
#include "through.h"
#include "view.h"

enum {
    LOCKED = 4711,   /* its lock is held */
    EMPTY = 4712,    /* where mail is waited for */
    HALF = 4713,     /* to which half a message has been written */
    PARTLY = 4714,   /* of which a message has been read in part */
    STRANDED = 4715, /* in flight, and its lock is held */
    EACH = 20,
    POLLERS = 10,
    UNMOUNT_MS = 1000,
    CHILD_MS = 15000,
};

/* What there is at the moment of the end. */
struct scene {
    struct mount *mount;
    struct pile lock;
    struct pile mail;
    pid_t holder;
    pid_t stranding;
    pid_t half; /* has written half a message, and waits for SIGUSR1 to close it */
    int partly;
    int stranded;
};

static void close_when_told(int signal_number)
{
    (void)signal_number;
}

/* Exits with the errno of its close; 0: that succeeded. */
static pid_t write_half(struct mount *mount)
{
    struct sigaction told = {.sa_handler = close_when_told};
    sigset_t usr1;
    sigset_t before;
    pid_t pid;
    int fd;

    (void)sigemptyset(&usr1);
    (void)sigaddset(&usr1, SIGUSR1);
    pid = process_fork(0);
    if (pid != 0)
        return pid;
    (void)sigprocmask(SIG_BLOCK, &usr1, &before);
    (void)sigaction(SIGUSR1, &told, NULL);
    fd = open(through_box(mount, HALF), THROUGH_REPLACE, 0666);
    if (fd < 0 || through_write(fd, "half", 4) != 0)
        _exit(255);
    (void)sigsuspend(&before);
    _exit(close(fd) == 0 ? 0 : errno);
}

/* Five messages: the first has been read, the second in part. The file stays open. */
static int read_in_part(struct mount *mount, int box)
{
    static const char *const texts[] = {"one", "two", "three", "four", "five"};
    char buffer[2];
    int fd;

    for (size_t i = 0; i < 5; i++)
        behind_expect_sent(mount, box, 1, texts[i]);
    fd = through_open(mount, box, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    assert_int_equal(read(fd, buffer, 2), 2);
    return fd;
}

static void scene_set(struct scene *scene, struct mount *mount)
{
    int64_t collected_bytes;

    *scene = (struct scene){.mount = mount};
    behind_expect_sent(mount, LOCKED, 1, "seed");
    assert_int_equal(behind_append(mount, EMPTY, NULL, 0), 0);
    scene->stranded = read_in_part(mount, STRANDED);
    scene->partly = read_in_part(mount, PARTLY);
    scene->holder = pile_hold_lock(mount, LOCKED);
    scene->stranding = pile_hold_lock(mount, STRANDED);
    pile_init(&scene->lock, mount, LOCKED, false);
    pile_init(&scene->mail, mount, EMPTY, false);
    for (int i = 0; i < EACH; i++) {
        pile_add(&scene->lock, (enum pile_kind)(i % (PILE_ENVELOPE + 1)));
        through_await_parked(mount, "lock", i + 1);
        pile_add(&scene->mail, i % 2 == 0 ? PILE_FOLLOW : PILE_ENVELOPE);
    }
    pile_add(&scene->lock, PILE_TRUNCATE);
    through_await_parked(mount, "lock", EACH + 1);
    for (int i = 0; i < POLLERS; i++)
        pile_add(&scene->mail, PILE_POLL);
    through_await_parked(mount, "message", EACH);
    through_await_parked(mount, "poll", POLLERS);
    collected_bytes = view_sample(mount, "gprocfs_collected_bytes");
    scene->half = write_half(mount);
    assert_true(scene->half > 0);
    view_await_sample(mount, "gprocfs_collected_bytes", collected_bytes + 4);
}

/* Each that waited is told that it is over. */
static void expect_all_failed(struct pile *pile)
{
    for (int i = 0; i < pile->count; i++) {
        int error = pile_await(pile, i, CHILD_MS);

        if (error <= 0)
            fail_msg("number %d of kind %d: %s", i, (int)pile->waiters[i].kind,
                     error == 0 ? "no error" : "still there");
    }
}

static void expect_scene_over(struct scene *scene)
{
    struct mount *mount = scene->mount;
    int closed;

    expect_all_failed(&scene->lock);
    expect_all_failed(&scene->mail);
    assert_success(kill(scene->half, SIGUSR1));
    closed = process_wait(scene->half, CHILD_MS);
    print_message("close of half a message afterwards: errno %d\n", closed);
    assert_true(closed > 0 && closed < 128);
    (void)close(scene->partly); /* there is nobody left who could say anything */
    (void)close(scene->stranded);
    pile_let_go(&scene->holder);
    pile_let_go(&scene->stranding);
    behind_expect_texts(mount, LOCKED, "seed", NULL);
    behind_expect_texts(mount, EMPTY, NULL);
    behind_expect_texts(mount, HALF, NULL);
    behind_expect_texts(mount, PARTLY, "two", "three", "four", "five", NULL);
    behind_expect_texts(mount, STRANDED, NULL);
}

/* The lock was held at the end: the next mount has it. */
static void expect_next_mount_has_the_rest(struct mount *mount)
{
    assert_int_equal(mount_start(mount), 0);
    behind_expect_sent(mount, STRANDED, 1, "six");
    through_expect_texts(mount, STRANDED, "two", "three", "four", "five", "six", NULL);
    assert_int_equal(mount_stop(mount), 0);
}

static void expect_clean_end(struct mount *mount, int signal_number)
{
    struct scene scene;
    int64_t begin_ms;
    int64_t unmounted_ms;
    int64_t ended_ms;

    scene_set(&scene, mount);
    begin_ms = process_clock_ms();
    assert_success(kill(mount->daemon, signal_number));
    unmounted_ms = pile_await_unmounted_ms(mount, CHILD_MS);
    assert_int_equal(mount_stop(mount), 0); /* it has ended, or does: with status 0 */
    ended_ms = process_clock_ms() - begin_ms;
    print_message("signal %d: unmounted after %lld ms, ended after %lld ms\n", signal_number,
                  (long long)unmounted_ms, (long long)ended_ms);
    expect_scene_over(&scene);
    expect_next_mount_has_the_rest(mount);
    if (!mount_is_sanitized())
        assert_in_range(unmounted_ms, 0, UNMOUNT_MS);
}

static void sigterm_ends_all_waits_and_loses_nothing(void **state)
{
    expect_clean_end(mount_of(state), SIGTERM);
}

static void sigint_ends_all_waits_and_loses_nothing(void **state)
{
    expect_clean_end(mount_of(state), SIGINT);
}

static void sighup_ends_all_waits_and_loses_nothing(void **state)
{
    expect_clean_end(mount_of(state), SIGHUP);
}

/* As for any file system: it is busy while files are open. */
static void unmount_while_files_are_open_is_refused_and_disturbs_nobody(void **state)
{
    struct mount *mount = mount_of(state);
    struct process_result refused;
    struct scene scene;

    scene_set(&scene, mount);
    refused = through_run_as(mount, 0, "sh", "fusermount3 -u $M");
    print_message("fusermount3 -u: status %d, %s", refused.status, refused.err);
    assert_int_not_equal(refused.status, 0);
    through_await_parked(mount, "lock", EACH + 1);
    through_await_parked(mount, "message", EACH);
    through_await_parked(mount, "poll", POLLERS);
    assert_int_equal(mount_stop(mount), 0);
    expect_scene_over(&scene);
}

/* -z takes it out of sight at once; those who are in it go on, and the last one ends the daemon. */
static void lazy_unmount_is_at_once_and_the_last_who_leaves_ends_the_daemon(void **state)
{
    struct mount *mount = mount_of(state);
    struct scene scene;
    struct pollfd daemon = {.fd = mount->daemon_pidfd, .events = POLLIN};
    int64_t unmounted_ms;
    int64_t begin_ms;

    scene_set(&scene, mount);
    begin_ms = process_clock_ms();
    through_expect_run(mount, "sh", "", "fusermount3 -u -z $M");
    unmounted_ms = pile_await_unmounted_ms(mount, CHILD_MS);
    assert_true(unmounted_ms >= 0);
    assert_true(process_clock_ms() - begin_ms <= UNMOUNT_MS * (mount_is_sanitized() ? 10 : 1));
    behind_expect_sent(mount, EMPTY, 1, "still");
    pile_end(&scene.lock);
    pile_end(&scene.mail);
    pile_let_go(&scene.stranding);
    pile_let_go(&scene.holder); /* it has the open files of the scene, too */
    assert_success(kill(scene.half, SIGUSR1));
    assert_int_equal(process_wait(scene.half, CHILD_MS), 0);
    assert_success(close(scene.partly));
    begin_ms = process_clock_ms();
    assert_success(close(scene.stranded));
    assert_int_equal(poll(&daemon, 1, CHILD_MS), 1);
    print_message("ended %lld ms after the last file was closed\n",
                  (long long)(process_clock_ms() - begin_ms));
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, LOCKED, "seed", NULL);
    behind_expect_texts(mount, HALF, "half", NULL);
    behind_expect_texts(mount, PARTLY, "two", "three", "four", "five", NULL);
    behind_expect_texts(mount, STRANDED, "two", "three", "four", "five", NULL);
}

/* --- A daemon that is killed -------------------------------------------------------------------
 */

static void auto_unmount_leaves_no_mount_of_a_killed_daemon(void **state)
{
    struct mount *mount = mount_of(state);
    int64_t took_ms;

    through_send(mount, EMPTY, "kept");
    assert_success(kill(mount->daemon, SIGKILL));
    took_ms = pile_await_unmounted_ms(mount, CHILD_MS / 3);
    mount_kill(mount); /* reaps it */
    if (took_ms < 0) {
        print_message("skipped: fusermount3 does not clean up here\n");
        skip();
    }
    print_message("the mount of a killed daemon was gone after %lld ms\n", (long long)took_ms);
    behind_expect_texts(mount, EMPTY, "kept", NULL);
}

int main(void)
{
    static const struct mount_options patient = {
        .options = "lock_timeout=0", .seconds = 60, .chatty = true};
    static const struct mount_options automatic = {
        .options = "auto_unmount", .seconds = 60, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(sigterm_ends_all_waits_and_loses_nothing, &patient),
        MOUNT_TEST_WITH(sigint_ends_all_waits_and_loses_nothing, &patient),
        MOUNT_TEST_WITH(sighup_ends_all_waits_and_loses_nothing, &patient),
        MOUNT_TEST_WITH(unmount_while_files_are_open_is_refused_and_disturbs_nobody, &patient),
        MOUNT_TEST_WITH(lazy_unmount_is_at_once_and_the_last_who_leaves_ends_the_daemon, &patient),
        MOUNT_TEST_WITH(auto_unmount_leaves_no_mount_of_a_killed_daemon, &automatic),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("ending", tests, NULL, NULL) == 0 ? 0 : 1;
}
