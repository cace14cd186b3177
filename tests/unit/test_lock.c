/*
 * The lock of a mailbox: it excludes and is excluded by flock(2) on the same path, is taken again
 * where its file was deleted or replaced, tells its errors apart, and never hangs on what others
 * plant.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock.h"
#include "place.h"
#include "process.h"
#include "temporary.h"

enum {
    PID = 4711,
    DEADLINE_MS = 20000,
    NOBODY = 65534,
};

struct fixture {
    const char *directory, *file;
    struct gproc_place place;
    struct gproc_lock lock;
};

static struct fixture fixture_open(void **state)
{
    struct fixture fixture = {
        .directory = temporary_path(*state, "gflock"),
        .file = temporary_path(*state, "gflock/4711.lock"),
    };

    assert_int_equal(gproc_place_init(&fixture.place, fixture.directory, 0777), 0);
    return fixture;
}

static int take(struct fixture *fixture, int64_t wait_ms)
{
    return gproc_lock_take(&fixture->lock, &fixture->place, PID, gproc_creator_self, wait_ms);
}

/* As the Go package takes it, or would: whatever the path leads to now. */
static int go_lock(const char *file)
{
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    assert_int_equal(errno, EWOULDBLOCK);
    close(fd);
    return -1;
}

static void assert_free(const char *file)
{
    int fd = go_lock(file);

    assert_true(fd >= 0);
    close(fd);
}

static void assert_held(const char *file)
{
    assert_int_equal(go_lock(file), -1);
}

static void test_lock_excludes_the_reference_and_is_excluded_by_it(void **state)
{
    struct fixture fixture = fixture_open(state);
    int other;

    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    assert_held(fixture.file);
    gproc_lock_release(&fixture.lock);
    assert_free(fixture.file);
    gproc_lock_release(&fixture.lock); /* twice is harmless */

    other = go_lock(fixture.file);
    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), -EWOULDBLOCK);
    assert_int_equal(fixture.lock.fd, -1);
    close(other);
    assert_int_equal(take(&fixture, GPROC_WAIT_FOREVER), 0);
    gproc_lock_release(&fixture.lock);
    gproc_place_release(&fixture.place);
}

static void test_locks_of_two_mailboxes_are_independent(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct gproc_lock other;

    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    assert_int_equal(gproc_lock_take(&other, &fixture.place, PID + 1, gproc_creator_self, 0), 0);
    gproc_lock_release(&fixture.lock);
    gproc_lock_release(&other);
    gproc_place_release(&fixture.place);
}

static void test_file_is_0600_less_umask_and_not_inherited_and_stays(void **state)
{
    static const mode_t masks[] = {0, 022, 077, 0200};
    struct fixture fixture = fixture_open(state);
    struct stat status;

    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        umask(masks[i]);
        assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
        assert_int_equal(stat(fixture.file, &status), 0);
        assert_int_equal(status.st_mode, S_IFREG | (0600 & ~masks[i]));
        assert_int_equal(fcntl(fixture.lock.fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(fixture.lock.fd, F_GETFL) & O_ACCMODE, O_RDWR);
        gproc_lock_release(&fixture.lock);
        assert_true(temporary_exists(fixture.file));
        temporary_remove(fixture.file);
    }
    gproc_place_release(&fixture.place);
}

static void test_content_of_the_file_is_left_alone(void **state)
{
    struct fixture fixture = fixture_open(state);

    temporary_write(fixture.file, "whose?", 6);
    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    gproc_lock_release(&fixture.lock);
    assert_int_equal(gproc_lock_probe(&fixture.place, PID, gproc_creator_self), 0);
    temporary_expect(fixture.file, "whose?", 6);
    gproc_place_release(&fixture.place);
}

static void test_held_all_the_time_is_timed_out_not_before_and_not_long_after(void **state)
{
    static const int64_t waits_ms[] = {1, 7, 40, 120};
    struct fixture fixture = fixture_open(state);
    int other = go_lock(fixture.file);

    for (size_t i = 0; i < sizeof(waits_ms) / sizeof(waits_ms[0]); i++) {
        int64_t began_ms = process_clock_ms();
        int64_t took_ms;

        assert_int_equal(take(&fixture, waits_ms[i]), -ETIMEDOUT);
        took_ms = process_clock_ms() - began_ms;
        assert_int_equal(fixture.lock.fd, -1);
        assert_true(took_ms >= waits_ms[i]);
        assert_true(took_ms < waits_ms[i] + 5000); /* a machine may be busy */
    }
    close(other);
    assert_int_equal(take(&fixture, 1), 0);
    gproc_lock_release(&fixture.lock);
    gproc_place_release(&fixture.place);
}

/* A thread that wants the lock. */
struct waiter {
    struct fixture *fixture;
    int64_t wait_ms;
    pthread_t thread;
    atomic_int id;
    int result;
};

static void *wait_for_lock(void *argument)
{
    struct waiter *waiter = argument;

    atomic_store(&waiter->id, gettid());
    waiter->result = take(waiter->fixture, waiter->wait_ms);
    return NULL;
}

static void waiter_start(struct waiter *waiter, struct fixture *fixture, int64_t wait_ms)
{
    *waiter = (struct waiter){.fixture = fixture, .wait_ms = wait_ms};
    assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_lock, waiter), 0);
    while (atomic_load(&waiter->id) == 0)
        sched_yield();
    if (wait_ms < 0)
        temporary_wait_for_waiter(atomic_load(&waiter->id));
}

static int waiter_join(struct waiter *waiter)
{
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += DEADLINE_MS / 1000;
    assert_int_equal(pthread_timedjoin_np(waiter->thread, NULL, &deadline), 0);
    return waiter->result;
}

static void test_waiters_get_it_when_it_is_released(void **state)
{
    static const int64_t waits_ms[] = {GPROC_WAIT_FOREVER, DEADLINE_MS, INT64_MAX, INT64_MAX - 1};

    for (size_t i = 0; i < sizeof(waits_ms) / sizeof(waits_ms[0]); i++) {
        struct fixture fixture = fixture_open(state);
        int other = go_lock(fixture.file);
        struct waiter waiter;

        waiter_start(&waiter, &fixture, waits_ms[i]);
        close(other);
        assert_int_equal(waiter_join(&waiter), 0);
        assert_held(fixture.file);
        gproc_lock_release(&fixture.lock);
        gproc_place_release(&fixture.place);
    }
}

static void on_signal(int number)
{
    (void)number;
}

/* Without SA_RESTART, as for who wants to be interrupted. */
static void catch_usr1(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
}

static void test_signal_ends_waiting_for_ever_with_eintr(void **state)
{
    struct fixture fixture = fixture_open(state);
    int other = go_lock(fixture.file);
    struct waiter waiter;

    catch_usr1();
    waiter_start(&waiter, &fixture, GPROC_WAIT_FOREVER);
    assert_int_equal(pthread_kill(waiter.thread, SIGUSR1), 0);
    assert_int_equal(waiter_join(&waiter), -EINTR);
    assert_int_equal(fixture.lock.fd, -1);
    close(other);
    assert_free(fixture.file);
    gproc_place_release(&fixture.place);
}

static void test_signals_do_not_lengthen_or_end_a_limited_wait(void **state)
{
    struct fixture fixture = fixture_open(state);
    int other = go_lock(fixture.file);
    int64_t began_ms = process_clock_ms();
    struct waiter waiter;

    catch_usr1();
    waiter_start(&waiter, &fixture, 100);
    while (process_clock_ms() - began_ms < 90) {
        (void)pthread_kill(waiter.thread, SIGUSR1);
        sched_yield();
    }
    assert_int_equal(waiter_join(&waiter), -ETIMEDOUT);
    close(other);
    gproc_place_release(&fixture.place);
}

static void delete_file(void **state)
{
    temporary_remove(temporary_path(*state, "gflock/4711.lock"));
}

static void replace_file(void **state)
{
    const char *other = temporary_path(*state, "other");

    temporary_write(other, "", 0);
    assert_int_equal(rename(other, temporary_path(*state, "gflock/4711.lock")), 0);
}

static void delete_directory(void **state)
{
    temporary_remove(temporary_path(*state, "gflock"));
}

static void move_directory(void **state)
{
    assert_int_equal(rename(temporary_path(*state, "gflock"), temporary_path(*state, "moved")), 0);
}

static void replace_directory(void **state)
{
    move_directory(state);
    temporary_mkdir(temporary_path(*state, "gflock"));
}

static void replace_directory_and_file(void **state)
{
    replace_directory(state);
    temporary_write(temporary_path(*state, "gflock/4711.lock"), "", 0);
}

static const struct {
    const char *what;
    void (*happen)(void **state);
} accidents[] = {
    {"file deleted", delete_file},
    {"file replaced", replace_file},
    {"directory deleted", delete_directory},
    {"directory moved", move_directory},
    {"directory replaced", replace_directory},
    {"directory and file new", replace_directory_and_file},
};

enum {
    ACCIDENTS = sizeof(accidents) / sizeof(accidents[0]),
};

static void clean(void **state)
{
    static const char *const names[] = {"gflock", "moved"};

    for (size_t i = 0; i < 2; i++)
        if (temporary_exists(temporary_path(*state, "%s", names[i])))
            temporary_remove(temporary_path(*state, "%s", names[i]));
}

static void test_lock_is_on_what_the_path_leads_to_whatever_happened_before(void **state)
{
    for (size_t i = 0; i < ACCIDENTS; i++) {
        struct fixture fixture = fixture_open(state);

        assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
        gproc_lock_release(&fixture.lock);
        accidents[i].happen(state);
        print_message("%s\n", accidents[i].what);
        assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
        assert_held(fixture.file);
        gproc_lock_release(&fixture.lock);
        assert_free(fixture.file);
        gproc_place_release(&fixture.place);
        clean(state);
    }
}

static void test_waiter_notices_that_what_it_waited_for_is_not_the_lock_any_more(void **state)
{
    static const int64_t waits_ms[] = {GPROC_WAIT_FOREVER, DEADLINE_MS};

    for (size_t i = 0; i < 2 * (size_t)ACCIDENTS; i++) {
        struct fixture fixture = fixture_open(state);
        int old = go_lock(fixture.file);
        struct waiter waiter;

        print_message("%s\n", accidents[i / 2].what);
        waiter_start(&waiter, &fixture, waits_ms[i % 2]);
        accidents[i / 2].happen(state);
        close(old);
        assert_int_equal(waiter_join(&waiter), 0);
        assert_held(fixture.file);
        gproc_lock_release(&fixture.lock);
        gproc_place_release(&fixture.place);
        clean(state);
    }
}

static void test_waiter_for_a_replaced_file_then_waits_for_the_new_one(void **state)
{
    struct fixture fixture = fixture_open(state);
    int old = go_lock(fixture.file);
    struct waiter waiter;
    int new;

    waiter_start(&waiter, &fixture, GPROC_WAIT_FOREVER);
    delete_file(state);
    new = go_lock(fixture.file);
    close(old);
    /* It is in flock() before and after; that it is still there when the new one is free is what
     * counts. */
    temporary_wait_for_waiter(atomic_load(&waiter.id));
    assert_int_equal(pthread_tryjoin_np(waiter.thread, NULL), EBUSY);
    close(new);
    assert_int_equal(waiter_join(&waiter), 0);
    assert_held(fixture.file);
    gproc_lock_release(&fixture.lock);
    gproc_place_release(&fixture.place);
}

static void test_limit_is_one_for_the_old_and_the_new_file_together(void **state)
{
    struct fixture fixture = fixture_open(state);
    int old = go_lock(fixture.file);
    int64_t began_ms = process_clock_ms();
    struct waiter waiter;
    int new;

    waiter_start(&waiter, &fixture, 150);
    delete_file(state);
    new = go_lock(fixture.file);
    close(old);
    assert_int_equal(waiter_join(&waiter), -ETIMEDOUT);
    assert_true(process_clock_ms() - began_ms < 5000);
    close(new);
    gproc_place_release(&fixture.place);
}

static void plant_link(const char *file)
{
    assert_int_equal(symlink("target", file), 0);
}

static void plant_dangling_link(const char *file)
{
    assert_int_equal(symlink("missing", file), 0);
}

static void plant_fifo(const char *file)
{
    assert_int_equal(mkfifo(file, 0666), 0);
}

static void plant_directory(const char *file)
{
    assert_int_equal(mkdir(file, 0777), 0);
}

static void plant_socket(const char *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(strlen(file) < sizeof(address.sun_path));
    memcpy(address.sun_path, file, strlen(file));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static void plant_device(const char *file)
{
    assert_int_equal(mknod(file, S_IFCHR | 0666, makedev(1, 3)), 0); /* null */
}

static void test_planted_things_are_refused_without_hanging(void **state)
{
    static const struct {
        const char *what;
        void (*plant)(const char *file);
        int error, or_error;
    } rows[] = {
        {"link", plant_link, -ELOOP, 0},
        {"dangling link", plant_dangling_link, -ELOOP, 0},
        {"fifo", plant_fifo, -EINVAL, 0},
        {"directory", plant_directory, -EISDIR, 0},
        {"socket", plant_socket, -ENXIO, 0},
        {"device", plant_device, -EINVAL, -EACCES}, /* the latter: mounted nodev */
    };
    static const int64_t waits_ms[] = {GPROC_WAIT_NONE, GPROC_WAIT_FOREVER, DEADLINE_MS};
    struct fixture fixture = fixture_open(state);

    temporary_write(temporary_path(*state, "gflock/target"), "x", 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].plant == plant_device && geteuid() != 0)
            continue;
        rows[i].plant(fixture.file);
        for (size_t j = 0; j < 4; j++) {
            int result = j < 3 ? take(&fixture, waits_ms[j])
                               : gproc_lock_probe(&fixture.place, PID, gproc_creator_self);

            if (result == 0 || (result != rows[i].error && result != rows[i].or_error))
                fail_msg("%s: %d", rows[i].what, result);
            assert_int_equal(fixture.lock.fd, -1);
        }
        temporary_remove(fixture.file);
    }
    assert_false(temporary_exists(temporary_path(*state, "gflock/missing")));
    gproc_place_release(&fixture.place);
}

static void test_probe_says_whether_we_may_and_takes_nothing(void **state)
{
    struct fixture fixture = fixture_open(state);
    int other;

    assert_int_equal(gproc_lock_probe(&fixture.place, PID, gproc_creator_self), 0);
    assert_true(temporary_exists(fixture.file));
    other = go_lock(fixture.file);
    assert_true(other >= 0);
    assert_int_equal(gproc_lock_probe(&fixture.place, PID, gproc_creator_self), 0); /* held */
    close(other);

    delete_directory(state);
    assert_int_equal(gproc_lock_probe(&fixture.place, PID, gproc_creator_self), 0);
    assert_true(temporary_exists(fixture.file));
    gproc_place_release(&fixture.place);
}

static void test_lock_that_we_may_not_open_is_an_error(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    temporary_write(fixture.file, "", 0);
    assert_int_equal(chmod(fixture.file, 0400), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0) {
        bool right = take(&fixture, GPROC_WAIT_NONE) == -EACCES &&
                     gproc_lock_probe(&fixture.place, PID, gproc_creator_self) == -EACCES;

        _exit(right ? 0 : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);

    temporary_remove(fixture.file);
    assert_int_equal(chmod(fixture.directory, 0555), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0)
        _exit(take(&fixture, GPROC_WAIT_NONE) == -EACCES ? 0 : 1);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    assert_int_equal(chmod(fixture.directory, 0777), 0);
    gproc_place_release(&fixture.place);
}

static void
test_created_file_belongs_to_the_creator_and_an_existing_one_stays_whose_it_is(void **state)
{
    struct gproc_creator creator = {NOBODY, NOBODY};
    struct fixture fixture = fixture_open(state);
    struct stat status;

    if (geteuid() != 0)
        skip();
    assert_int_equal(gproc_lock_take(&fixture.lock, &fixture.place, PID, creator, 0), 0);
    gproc_lock_release(&fixture.lock);
    assert_int_equal(stat(fixture.file, &status), 0);
    assert_int_equal(status.st_uid, NOBODY);
    assert_int_equal(status.st_gid, NOBODY);
    assert_int_equal(status.st_mode, S_IFREG | 0600);

    assert_int_equal(chown(fixture.file, 3, 4), 0);
    assert_int_equal(gproc_lock_take(&fixture.lock, &fixture.place, PID, creator, 0), 0);
    gproc_lock_release(&fixture.lock);
    assert_int_equal(stat(fixture.file, &status), 0);
    assert_int_equal(status.st_uid, 3);
    gproc_place_release(&fixture.place);
}

static void test_file_that_cannot_be_given_to_its_creator_is_not_left_behind(void **state)
{
    struct gproc_creator root = {0, 0};
    struct fixture fixture = fixture_open(state);
    pid_t child;

    assert_int_equal(chmod(fixture.directory, 0777), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0)
        _exit(gproc_lock_take(&fixture.lock, &fixture.place, PID, root, 0) == -EPERM ? 0 : 1);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    assert_false(temporary_exists(fixture.file));
    gproc_place_release(&fixture.place);
}

static void test_lock_goes_with_a_killed_holder(void **state)
{
    struct fixture fixture = fixture_open(state);
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    child = process_fork(0);
    if (child == 0) {
        if (take(&fixture, GPROC_WAIT_NONE) == 0)
            (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), -EWOULDBLOCK);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(take(&fixture, DEADLINE_MS), 0);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 128 + SIGKILL);
    gproc_lock_release(&fixture.lock);
    close(ready[0]);
    gproc_place_release(&fixture.place);
}

static void test_released_lock_is_free_though_a_child_was_forked_meanwhile(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    child = process_fork(0);
    if (child == 0)
        for (;;)
            pause();
    gproc_lock_release(&fixture.lock);
    assert_free(fixture.file);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 128 + SIGKILL);
    gproc_place_release(&fixture.place);
}

/* ---- A lock that rests */

static int retake(struct fixture *fixture, int64_t wait_ms)
{
    return gproc_lock_retake(&fixture->lock, &fixture->place, PID, gproc_creator_self, wait_ms);
}

static void test_lock_that_rests_is_everybodys_and_found_held_by_whoever_holds_it(void **state)
{
    struct fixture fixture = fixture_open(state);
    int other, fd;

    gproc_lock_init(&fixture.lock);
    gproc_lock_rest(&fixture.lock); /* not held: left alone */
    gproc_lock_abandon(&fixture.lock);
    assert_int_equal(retake(&fixture, GPROC_WAIT_NONE), 0);
    assert_held(fixture.file);
    fd = fixture.lock.fd;
    for (int i = 0; i < 3; i++) {
        gproc_lock_rest(&fixture.lock);
        gproc_lock_rest(&fixture.lock); /* twice is harmless */
        assert_int_equal(fixture.lock.fd, fd);
        other = go_lock(fixture.file);
        assert_true(other >= 0);
        assert_int_equal(retake(&fixture, GPROC_WAIT_NONE), -EWOULDBLOCK);
        close(other);
        assert_int_equal(retake(&fixture, GPROC_WAIT_NONE), 0);
        assert_held(fixture.file);
    }
    gproc_lock_release(&fixture.lock);
    assert_free(fixture.file);
    gproc_place_release(&fixture.place);
}

static void *wait_again_for_lock(void *argument)
{
    struct waiter *waiter = argument;

    atomic_store(&waiter->id, gettid());
    waiter->result = retake(waiter->fixture, waiter->wait_ms);
    return NULL;
}

static void test_lock_that_rests_is_waited_for_as_any_other(void **state)
{
    static const int64_t waits_ms[] = {GPROC_WAIT_FOREVER, DEADLINE_MS};

    for (size_t i = 0; i < sizeof(waits_ms) / sizeof(waits_ms[0]); i++) {
        struct fixture fixture = fixture_open(state);
        struct waiter waiter = {.fixture = &fixture, .wait_ms = waits_ms[i]};
        int64_t began_ms;
        int other;

        assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
        gproc_lock_rest(&fixture.lock);
        other = go_lock(fixture.file);
        began_ms = process_clock_ms();
        assert_int_equal(retake(&fixture, 50), -ETIMEDOUT);
        assert_true(process_clock_ms() - began_ms >= 50);

        assert_int_equal(pthread_create(&waiter.thread, NULL, wait_again_for_lock, &waiter), 0);
        while (atomic_load(&waiter.id) == 0)
            sched_yield();
        close(other);
        assert_int_equal(waiter_join(&waiter), 0);
        assert_held(fixture.file);
        gproc_lock_release(&fixture.lock);
        gproc_place_release(&fixture.place);
    }
}

static void move_file(void **state)
{
    assert_int_equal(rename(temporary_path(*state, "gflock/4711.lock"),
                            temporary_path(*state, "gflock/elsewhere")),
                     0);
}

static void shut_file(void **state)
{
    assert_int_equal(chmod(temporary_path(*state, "gflock/4711.lock"), 0640), 0);
}

/* Beside the accidents of above. */
static void test_lock_that_rested_is_on_what_the_path_leads_to_by_now(void **state)
{
    static void (*const more[])(void **state) = {move_file, shut_file};

    for (size_t i = 0; i < ACCIDENTS + sizeof(more) / sizeof(more[0]); i++) {
        struct fixture fixture = fixture_open(state);
        struct stat status;

        assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
        gproc_lock_rest(&fixture.lock);
        (i < ACCIDENTS ? accidents[i].happen : more[i - ACCIDENTS])(state);
        assert_int_equal(retake(&fixture, GPROC_WAIT_NONE), 0);
        assert_held(fixture.file);
        assert_int_equal(stat(fixture.file, &status), 0);
        assert_true(gproc_identity_is(&fixture.lock.file, &status));
        gproc_lock_rest(&fixture.lock);
        assert_free(fixture.file);
        gproc_lock_abandon(&fixture.lock);
        gproc_place_release(&fixture.place);
        clean(state);
    }
}

/* It is the deleted file's that is held by others, not the one that counts. */
static void test_lock_that_rested_on_a_file_that_is_gone_is_not_waited_for(void **state)
{
    struct fixture fixture = fixture_open(state);
    int old;

    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    gproc_lock_rest(&fixture.lock);
    old = go_lock(fixture.file);
    assert_true(old >= 0);
    delete_file(state);
    assert_int_equal(retake(&fixture, GPROC_WAIT_NONE), 0);
    assert_held(fixture.file);
    gproc_lock_release(&fixture.lock);
    close(old);
    gproc_place_release(&fixture.place);
}

static void test_lock_that_rested_is_taken_again_only_by_who_may_open_it_now(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    assert_int_equal(chmod(fixture.directory, 0777), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0) {
        bool right = take(&fixture, GPROC_WAIT_NONE) == 0;

        gproc_lock_rest(&fixture.lock);
        right = right && chmod(fixture.file, 0400) == 0 &&
                retake(&fixture, GPROC_WAIT_NONE) == -EACCES && fixture.lock.fd == -1;
        _exit(right ? 0 : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    gproc_place_release(&fixture.place);
}

static void test_lock_that_a_child_abandons_stays_the_parents(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    child = process_fork(0);
    if (child == 0) {
        int fd = fixture.lock.fd;

        gproc_lock_abandon(&fixture.lock);
        /* Nothing is left of it here, and it is held by somebody else. */
        _exit(fixture.lock.fd == -1 && fcntl(fd, F_GETFD) == -1 &&
                      retake(&fixture, GPROC_WAIT_NONE) == -EWOULDBLOCK
                  ? 0
                  : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    assert_held(fixture.file);
    gproc_lock_release(&fixture.lock);
    assert_free(fixture.file);
    gproc_place_release(&fixture.place);
}

static void test_lock_file_is_looked_at_by_its_path(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct stat status, there;

    assert_int_equal(gproc_lock_stat(&fixture.place, PID, &status), -ENOENT);
    assert_int_equal(take(&fixture, GPROC_WAIT_NONE), 0);
    assert_int_equal(gproc_lock_stat(&fixture.place, PID, &status), 0);
    assert_int_equal(lstat(fixture.file, &there), 0);
    assert_int_equal(status.st_ino, there.st_ino);
    gproc_lock_release(&fixture.lock);
    delete_directory(state);
    assert_int_equal(gproc_lock_stat(&fixture.place, PID, &status), -ENOENT);
    assert_false(temporary_exists(fixture.directory)); /* looking makes nothing */
    gproc_place_release(&fixture.place);
}

/* What the lock protects: a number that is read, and written again after others had their chance.
 */
struct shared {
    volatile int number;
};

static int count_under_lock(struct fixture *fixture, struct shared *shared, int rounds)
{
    int i;

    for (i = 0; i < rounds; i++) {
        int number;
        int result = take(fixture, i % 2 == 0 ? GPROC_WAIT_FOREVER : DEADLINE_MS);

        if (result != 0)
            return 1;
        number = shared->number;
        sched_yield();
        shared->number = number + 1;
        gproc_lock_release(&fixture->lock);
    }
    return 0;
}

static void
test_processes_exclude_each_other_while_the_free_file_is_deleted_now_and_then(void **state)
{
    enum {
        CHILDREN = 4,
        ROUNDS = 150,
    };
    struct fixture fixture = fixture_open(state);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[CHILDREN];

    assert_ptr_not_equal(shared, MAP_FAILED);
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = process_fork(0);
        if (children[i] == 0)
            _exit(count_under_lock(&fixture, shared, ROUNDS));
    }
    /* Deleted by who holds it: nobody else is in there then, and those who wait must notice. */
    for (int i = 0; i < 50; i++) {
        struct gproc_lock lock;

        assert_int_equal(
            gproc_lock_take(&lock, &fixture.place, PID, gproc_creator_self, DEADLINE_MS), 0);
        temporary_remove(fixture.file);
        gproc_lock_release(&lock);
    }
    for (int i = 0; i < CHILDREN; i++)
        assert_int_equal(temporary_join(children[i], 3 * DEADLINE_MS), 0);
    assert_int_equal(shared->number, CHILDREN * ROUNDS);
    munmap(shared, sizeof(*shared));
    gproc_place_release(&fixture.place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_lock_excludes_the_reference_and_is_excluded_by_it),
        TEMPORARY_TEST(test_locks_of_two_mailboxes_are_independent),
        TEMPORARY_TEST(test_file_is_0600_less_umask_and_not_inherited_and_stays),
        TEMPORARY_TEST(test_content_of_the_file_is_left_alone),
        TEMPORARY_TEST(test_held_all_the_time_is_timed_out_not_before_and_not_long_after),
        TEMPORARY_TEST(test_waiters_get_it_when_it_is_released),
        TEMPORARY_TEST(test_signal_ends_waiting_for_ever_with_eintr),
        TEMPORARY_TEST(test_signals_do_not_lengthen_or_end_a_limited_wait),
        TEMPORARY_TEST(test_lock_is_on_what_the_path_leads_to_whatever_happened_before),
        TEMPORARY_TEST(test_waiter_notices_that_what_it_waited_for_is_not_the_lock_any_more),
        TEMPORARY_TEST(test_waiter_for_a_replaced_file_then_waits_for_the_new_one),
        TEMPORARY_TEST(test_limit_is_one_for_the_old_and_the_new_file_together),
        TEMPORARY_TEST(test_planted_things_are_refused_without_hanging),
        TEMPORARY_TEST(test_probe_says_whether_we_may_and_takes_nothing),
        TEMPORARY_TEST(test_lock_that_we_may_not_open_is_an_error),
        TEMPORARY_TEST(
            test_created_file_belongs_to_the_creator_and_an_existing_one_stays_whose_it_is),
        TEMPORARY_TEST(test_file_that_cannot_be_given_to_its_creator_is_not_left_behind),
        TEMPORARY_TEST(test_lock_goes_with_a_killed_holder),
        TEMPORARY_TEST(test_released_lock_is_free_though_a_child_was_forked_meanwhile),
        TEMPORARY_TEST(test_lock_that_rests_is_everybodys_and_found_held_by_whoever_holds_it),
        TEMPORARY_TEST(test_lock_that_rests_is_waited_for_as_any_other),
        TEMPORARY_TEST(test_lock_that_rested_is_on_what_the_path_leads_to_by_now),
        TEMPORARY_TEST(test_lock_that_rested_on_a_file_that_is_gone_is_not_waited_for),
        TEMPORARY_TEST(test_lock_that_rested_is_taken_again_only_by_who_may_open_it_now),
        TEMPORARY_TEST(test_lock_that_a_child_abandons_stays_the_parents),
        TEMPORARY_TEST(test_lock_file_is_looked_at_by_its_path),
        TEMPORARY_TEST(
            test_processes_exclude_each_other_while_the_free_file_is_deleted_now_and_then),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
