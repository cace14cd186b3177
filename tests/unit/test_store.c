/*
 * The directory of a mount: locked while it lives, left for the next mount of the same user when it
 * dies or cannot put all back, and taken from nobody else.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"
#include "process.h"
#include "store.h"
#include "temporary.h"

enum {
    PID = 4711,
    DEADLINE_MS = 20000,
    NOBODY = 65534,
};

struct fixture {
    struct temporary *temporary;
    const char *path, *common; /* gproc, gproc/.gprocfs */
    struct gproc_place directory;
    struct gproc_store store;
};

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->temporary = *state;
    fixture->path = strcpy(temporary_memory(*state, PATH_MAX), temporary_path(*state, "gproc"));
    fixture->common =
        strcpy(temporary_memory(*state, PATH_MAX), temporary_path(*state, "gproc/.gprocfs"));
    assert_int_equal(gproc_place_init(&fixture->directory, fixture->path, 0777), 0);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    gproc_place_release(&fixture->directory);
}

/* A path in the store's own directory. */
static const char *own(struct fixture *fixture, const struct gproc_store *store, const char *name)
{
    return temporary_path(fixture->temporary, "gproc/.gprocfs/%s/%s", store->name, name);
}

static const char *common(struct fixture *fixture, const char *name)
{
    return temporary_path(fixture->temporary, "gproc/.gprocfs/%s", name);
}

/* What a kill does: descriptors are gone, and with them the lock. */
static void die(struct gproc_store *store)
{
    close(store->fd);
    close(store->lock_fd);
    pthread_mutex_destroy(&store->renewing);
    store->fd = -1;
    store->lock_fd = -1;
}

/* A segment that holds `text`. */
static uint64_t put_segment(struct gproc_store *store, pid_t pid, const char *text)
{
    uint64_t serial = 0;
    int fd = gproc_store_create(store, pid, &serial);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return serial;
}

static void assert_segment(const struct gproc_store *store, pid_t pid, uint64_t serial,
                           const char *text)
{
    char found[64] = "";
    int fd = gproc_store_open_segment(store, pid, serial);

    if (fd < 0)
        fail_msg("%s: %d", text, fd);
    assert_int_equal(read(fd, found, sizeof(found)), strlen(text));
    assert_memory_equal(found, text, strlen(text));
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

static int count_one(void *context, pid_t pid, uint64_t serial)
{
    size_t *count = context;

    (void)pid;
    (void)serial;
    ++*count;
    return 0;
}

static size_t segments(const struct gproc_store *store)
{
    size_t count = 0;

    assert_int_equal(gproc_store_list(store, count_one, &count), 0);
    return count;
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        fail_msg("%s: errno %d", path, errno);
    return status.st_mode & 07777;
}

/* --- Opening and closing ------------------------------------------------------------------------
 */

static void test_directories_and_files_have_their_modes_whatever_the_umask(void **state)
{
    static const mode_t masks[] = {0, 022, 077};
    struct fixture *fixture = fixture_open(state);

    for (size_t i = 0; i < 3; i++) {
        uint64_t serial = 0;
        int fd;

        umask(masks[i]);
        assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
        assert_int_equal(mode_of(fixture->common), 01777);
        assert_int_equal(mode_of(common(fixture, fixture->store.name)), 0700);
        assert_int_equal(mode_of(own(fixture, &fixture->store, "lock")), 0600);
        fd = gproc_store_create(&fixture->store, PID, &serial);
        assert_true(fd >= 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(fixture->store.fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(fixture->store.lock_fd, F_GETFD), FD_CLOEXEC);
        close(fd);
        assert_int_equal(gproc_store_delete(&fixture->store, PID, serial), 0);
        gproc_store_close(&fixture->store);
    }
    fixture_close(fixture);
}

static void test_close_leaves_nothing_behind_and_nothing_of_others_away(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store other;
    size_t before = temporary_count("/proc/self/fd");

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_open(&other, &fixture->directory), 0);
    assert_int_equal(temporary_count(fixture->common), 2);
    gproc_store_close(&fixture->store);
    assert_int_equal(temporary_count(fixture->common), 1);
    assert_true(temporary_exists(own(fixture, &other, "lock")));
    gproc_store_close(&other);
    assert_int_equal(temporary_count(fixture->path), 0);
    gproc_store_close(&other); /* twice is harmless */
    assert_int_equal(temporary_count("/proc/self/fd"), before);
    fixture_close(fixture);
}

static void test_directory_that_a_killed_mount_did_not_finish_is_finished(void **state)
{
    struct fixture *fixture = fixture_open(state);

    temporary_mkdir(fixture->common);
    assert_int_equal(chmod(fixture->common, 0500), 0);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(mode_of(fixture->common), 01777);
    gproc_store_close(&fixture->store);

    /* What its owner made of it stays. */
    temporary_mkdir(fixture->common);
    assert_int_equal(chmod(fixture->common, 0700), 0);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(mode_of(fixture->common), 0700);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_planted_common_directory_is_refused_without_hanging(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const char *elsewhere = temporary_path(*state, "elsewhere");
    size_t before;

    temporary_mkdir(elsewhere);
    before = temporary_count("/proc/self/fd");
    for (int i = 0; i < 4; i++) {
        int result;

        if (i == 0)
            assert_int_equal(symlink(elsewhere, fixture->common), 0);
        if (i == 1)
            assert_int_equal(symlink("dangling", fixture->common), 0);
        if (i == 2)
            assert_int_equal(mkfifo(fixture->common, 0666), 0);
        if (i == 3)
            temporary_write(fixture->common, "x", 1);
        result = gproc_store_open(&fixture->store, &fixture->directory);
        if (result != -ENOTDIR && result != -ELOOP)
            fail_msg("%d: %d", i, result);
        temporary_remove(fixture->common);
    }
    assert_int_equal(temporary_count(elsewhere), 0);
    assert_int_equal(temporary_count("/proc/self/fd"), before);
    fixture_close(fixture);
}

static void test_directory_that_was_deleted_is_made_again_under_the_same_numbers(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store other;
    size_t before;
    int fd, lock_fd;

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    fd = fixture->store.fd;
    lock_fd = fixture->store.lock_fd;
    before = temporary_count("/proc/self/fd");
    for (int i = 0; i < 3; i++) {
        uint64_t serial;

        if (i == 0)
            temporary_remove(common(fixture, fixture->store.name));
        if (i == 1)
            temporary_remove(fixture->common);
        if (i == 2)
            temporary_remove(fixture->path);
        serial = put_segment(&fixture->store, PID, "hello");
        assert_segment(&fixture->store, PID, serial, "hello");
        assert_true(temporary_exists(own(fixture, &fixture->store, "lock")));
        assert_int_equal(temporary_count(common(fixture, fixture->store.name)), 2);
        assert_int_equal(fixture->store.fd, fd);
        assert_int_equal(fixture->store.lock_fd, lock_fd);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(temporary_count("/proc/self/fd"), before);

        /* It is locked. */
        assert_int_equal(gproc_store_open(&other, &fixture->directory), 0);
        assert_int_equal(gproc_store_adopt(&other), 0);
        gproc_store_close(&other);
        assert_segment(&fixture->store, PID, serial, "hello");
        assert_int_equal(gproc_store_delete(&fixture->store, PID, serial), 0);
    }
    gproc_store_close(&fixture->store);
    assert_int_equal(temporary_count(fixture->path), 0);
    fixture_close(fixture);
}

/* What is taken from the new one must be found there, should we be killed. */
static void test_directory_that_was_moved_away_keeps_what_it_has_and_gets_no_more(void **state)
{
    struct fixture *fixture = fixture_open(state);
    char away[PATH_MAX + 8];
    uint64_t serial;

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    serial = put_segment(&fixture->store, PID, "old");
    (void)snprintf(away, sizeof(away), "%s.away", fixture->path);
    assert_int_equal(rename(fixture->path, away), 0);
    assert_int_equal(gproc_place_renew(&fixture->directory), 0);
    serial = put_segment(&fixture->store, PID, "new");
    assert_segment(&fixture->store, PID, serial, "new");
    assert_true(temporary_exists(own(fixture, &fixture->store, "lock")));
    assert_int_equal(gproc_store_delete(&fixture->store, PID, serial), 0);
    gproc_store_close(&fixture->store);
    temporary_remove(away);
    fixture_close(fixture);
}

/* --- Segments -----------------------------------------------------------------------------------
 */

static void test_serials_grow_whatever_the_clock_does(void **state)
{
    static const uint64_t newest[] = {0, 1, (uint64_t)1 << 62, INT64_MAX - 2};
    struct fixture *fixture = fixture_open(state);

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    for (size_t i = 0; i < 4; i++) {
        uint64_t serial = newest[i], first;
        int fd = gproc_store_create(&fixture->store, PID, &serial);

        assert_true(fd >= 0);
        close(fd);
        assert_true(serial > newest[i]);
        first = serial;
        serial = newest[i]; /* once more: the name may be taken by now */
        fd = gproc_store_create(&fixture->store, PID, &serial);
        assert_true(fd >= 0);
        close(fd);
        assert_true(serial > first);
        assert_int_equal(gproc_store_delete(&fixture->store, PID, first), 0);
        assert_int_equal(gproc_store_delete(&fixture->store, PID, serial), 0);
    }
    /* One that would not be found again is not made. */
    assert_int_equal(gproc_store_create(&fixture->store, PID, &(uint64_t){INT64_MAX}), -EOVERFLOW);
    assert_int_equal(segments(&fixture->store), 0);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_missing_segment_is_enoent_and_not_made(void **state)
{
    struct fixture *fixture = fixture_open(state);

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_open_segment(&fixture->store, PID, 5), -ENOENT);
    assert_int_equal(gproc_store_delete(&fixture->store, PID, 5), -ENOENT);
    assert_int_equal(segments(&fixture->store), 0);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

struct found {
    pid_t pids[16];
    uint64_t serials[16];
    size_t count, most_count;
};

static int find(void *context, pid_t pid, uint64_t serial)
{
    struct found *found = context;

    found->pids[found->count] = pid;
    found->serials[found->count] = serial;
    found->count++;
    return found->count == found->most_count ? 42 : 0;
}

static void test_list_tells_segments_and_nothing_else_and_stops_when_told(void **state)
{
    static const char *const others[] = {
        "0.00000000000000000001",
        "1.1",
        "01.00000000000000000001",
        "1.0000000000000000001",
        "1.000000000000000000001",
        "1.+0000000000000000001",
        "1.-0000000000000000001",
        "1. 0000000000000000001",
        "1.0000000000000000000x",
        "2147483648.00000000000000000001",
        "1.",
        "1",
        ".00000000000000000001",
        "x.00000000000000000001",
        "1.18446744073709551615",
        "1.18446744073709551617",
        "1.09223372036854775808",
        "1.99999999999999999999",
        "1.00000000000000000001.00000001",
        "99999999999999999999.00000000000000000001",
    };
    struct fixture *fixture = fixture_open(state);
    struct found found = {.most_count = 16};

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        temporary_write(own(fixture, &fixture->store, others[i]), "x", 1);
    assert_int_equal(gproc_store_list(&fixture->store, find, &found), 0);
    if (found.count != 0)
        fail_msg("%d.%ju", (int)found.pids[0], (uintmax_t)found.serials[0]);

    temporary_write(own(fixture, &fixture->store, "1.00000000000000000001"), "x", 1);
    temporary_write(own(fixture, &fixture->store, "2147483647.09223372036854775807"), "x", 1);
    assert_int_equal(gproc_store_list(&fixture->store, find, &found), 0);
    assert_int_equal(found.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(found.pids[i] == 1
                        ? found.serials[i] == 1
                        : found.pids[i] == INT32_MAX && found.serials[i] == INT64_MAX);
        assert_segment(&fixture->store, found.pids[i], found.serials[i], "x");
    }
    found = (struct found){.most_count = 1};
    assert_int_equal(gproc_store_list(&fixture->store, find, &found), 42);
    assert_int_equal(found.count, 1);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

/* --- Adopting -----------------------------------------------------------------------------------
 */

static void test_segments_of_the_dead_move_over_and_their_directories_go(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store dead[3];
    uint64_t serials[3][2];

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(gproc_store_open(&dead[i], &fixture->directory), 0);
        serials[i][0] = put_segment(&dead[i], PID, "one");
        serials[i][1] = put_segment(&dead[i], PID + 1, "two");
    }
    for (size_t i = 0; i < 3; i++)
        die(&dead[i]);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 6);
    for (size_t i = 0; i < 3; i++) {
        assert_segment(&fixture->store, PID, serials[i][0], "one");
        assert_segment(&fixture->store, PID + 1, serials[i][1], "two");
    }
    assert_int_equal(temporary_count(fixture->common), 1);
    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_int_equal(segments(&fixture->store), 6);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void
test_segments_of_a_killed_process_are_adopted_and_those_of_a_live_one_are_not(void **state)
{
    struct fixture *fixture = fixture_open(state);
    int ready[2];
    uint64_t serial = 0;
    pid_t child;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    child = process_fork(0);
    if (child == 0) {
        int fd = -1;

        if (gproc_store_open(&fixture->store, &fixture->directory) == 0)
            fd = gproc_store_create(&fixture->store, PID, &serial);
        if (fd >= 0 && write(fd, "hello", 5) == 5)
            (void)!write(ready[1], &serial, sizeof(serial));
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &serial, sizeof(serial)), sizeof(serial));
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_int_equal(temporary_count(fixture->common), 2);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 128 + SIGKILL);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    assert_segment(&fixture->store, PID, serial, "hello");
    gproc_store_close(&fixture->store);
    close(ready[0]);
    fixture_close(fixture);
}

static void test_what_could_not_be_put_back_at_a_clean_end_waits_for_the_next_mount(void **state)
{
    struct fixture *fixture = fixture_open(state);
    uint64_t serial;

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    serial = put_segment(&fixture->store, PID, "hello");
    gproc_store_close(&fixture->store);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    assert_segment(&fixture->store, PID, serial, "hello");
    assert_int_equal(temporary_count(fixture->common), 1);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_directory_of_one_that_died_before_it_had_a_lock_is_tidied_away(void **state)
{
    struct fixture *fixture = fixture_open(state);

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    temporary_mkdir(common(fixture, "0123456789abcdef"));
    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_int_equal(temporary_count(fixture->common), 1);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_things_that_are_no_segment_stay_and_so_does_their_directory(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store dead;
    const char *precious = temporary_path(*state, "precious");
    char name[GPROC_STORE_NAME_BYTES];
    uint64_t serial;

    temporary_write(precious, "precious", 8);
    assert_int_equal(gproc_store_open(&dead, &fixture->directory), 0);
    serial = put_segment(&dead, PID, "hello");
    assert_int_equal(symlink(precious, own(fixture, &dead, "1.00000000000000000001")), 0);
    assert_int_equal(link(precious, own(fixture, &dead, "1.00000000000000000002")), 0);
    assert_int_equal(mkfifo(own(fixture, &dead, "1.00000000000000000003"), 0666), 0);
    assert_int_equal(mkdir(own(fixture, &dead, "1.00000000000000000004"), 0777), 0);
    temporary_write(own(fixture, &dead, "1.5"), "x", 1);
    temporary_write(own(fixture, &dead, "notes"), "x", 1);
    memcpy(name, dead.name, sizeof(name));
    die(&dead);

    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    assert_segment(&fixture->store, PID, serial, "hello");
    assert_int_equal(segments(&fixture->store), 1);
    assert_int_equal(temporary_count(common(fixture, name)), 6);
    temporary_expect(precious, "precious", 8);

    /* What is put there later is found. */
    temporary_write(temporary_path(*state, "gproc/.gprocfs/%s/2.00000000000000000009", name),
                    "later", 5);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    assert_segment(&fixture->store, 2, 9, "later");
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_segment_whose_name_is_taken_stays_for_another_time(void **state)
{
    struct fixture *fixture = fixture_open(state);
    struct gproc_store dead;

    assert_int_equal(gproc_store_open(&dead, &fixture->directory), 0);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    temporary_write(own(fixture, &dead, "1.00000000000000000001"), "theirs", 6);
    temporary_write(own(fixture, &fixture->store, "1.00000000000000000001"), "ours", 4);
    die(&dead);
    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_segment(&fixture->store, 1, 1, "ours");
    assert_int_equal(gproc_store_delete(&fixture->store, 1, 1), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    assert_segment(&fixture->store, 1, 1, "theirs");
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_planted_directories_and_locks_are_passed_over_without_hanging(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const char *elsewhere = temporary_path(*state, "elsewhere");
    const char *in_elsewhere = temporary_path(*state, "elsewhere/1.00000000000000000001");

    temporary_mkdir(elsewhere);
    temporary_write(temporary_path(*state, "elsewhere/lock"), "", 0);
    temporary_write(in_elsewhere, "precious", 8);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(symlink(elsewhere, common(fixture, "link")), 0);
    temporary_write(common(fixture, "file"), "x", 1);
    assert_int_equal(mkfifo(common(fixture, "fifo"), 0666), 0);
    temporary_mkdir(common(fixture, "lock-is-link"));
    assert_int_equal(symlink(in_elsewhere, common(fixture, "lock-is-link/lock")), 0);
    temporary_mkdir(common(fixture, "lock-is-directory"));
    temporary_mkdir(common(fixture, "lock-is-directory/lock"));

    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_int_equal(temporary_count(fixture->common), 6);
    temporary_expect(in_elsewhere, "precious", 8);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_what_belongs_to_another_user_is_not_touched(void **state)
{
    struct fixture *fixture = fixture_open(state);
    const char *segment;
    pid_t child;
    DIR *stream;
    struct dirent *entry;

    if (geteuid() != 0)
        skip();
    /* A dead mount of another user, and a file of another user in a dead one of ours. */
    assert_int_equal(chmod(fixture->path, 0777), 0);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    child = process_fork(NOBODY);
    if (child == 0) {
        struct gproc_store store;
        uint64_t serial = 0;

        _exit(gproc_store_open(&store, &fixture->directory) == 0 &&
                      gproc_store_create(&store, PID, &serial) >= 0
                  ? 0
                  : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    temporary_mkdir(common(fixture, "ours"));
    segment = common(fixture, "ours/1.00000000000000000001");
    temporary_write(segment, "x", 1);
    assert_int_equal(chown(segment, NOBODY, NOBODY), 0);
    assert_int_equal(temporary_count(fixture->common), 3);

    assert_int_equal(gproc_store_adopt(&fixture->store), 0);
    assert_int_equal(temporary_count(fixture->common), 3);
    assert_true(temporary_exists(segment));
    stream = opendir(fixture->common);
    assert_non_null(stream);
    while ((entry = readdir(stream)) != NULL)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, fixture->store.name) != 0 &&
            strcmp(entry->d_name, "ours") != 0)
            assert_int_equal(temporary_count(common(fixture, entry->d_name)), 2);
    closedir(stream);

    /* Nor does the other user touch ours. */
    put_segment(&fixture->store, PID, "root's");
    die(&fixture->store);
    child = process_fork(NOBODY);
    if (child == 0) {
        struct gproc_store store;

        _exit(gproc_store_open(&store, &fixture->directory) == 0 && gproc_store_adopt(&store) == 1
                  ? 0
                  : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), 1);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

static void test_each_segment_is_adopted_once_by_many_at_a_time(void **state)
{
    enum {
        SEGMENTS = 200,
        CHILDREN = 4,
    };
    struct fixture *fixture = fixture_open(state);
    struct gproc_store dead[4];
    pid_t children[CHILDREN];
    size_t sum = 0;

    for (size_t i = 0; i < 4; i++)
        assert_int_equal(gproc_store_open(&dead[i], &fixture->directory), 0);
    for (int i = 0; i < SEGMENTS; i++)
        put_segment(&dead[i % 4], 1 + i, "x");
    for (size_t i = 0; i < 4; i++)
        die(&dead[i]);
    for (size_t i = 0; i < CHILDREN; i++) {
        children[i] = process_fork(0);
        if (children[i] == 0) {
            int count = gproc_store_open(&fixture->store, &fixture->directory);

            if (count == 0)
                count = gproc_store_adopt(&fixture->store);
            if (count >= 0)
                gproc_store_close(&fixture->store); /* leaves them */
            _exit(count >= 0 && count <= SEGMENTS ? count : 255);
        }
    }
    for (size_t i = 0; i < CHILDREN; i++) {
        int count = temporary_join(children[i], DEADLINE_MS);

        assert_in_range(count, 0, SEGMENTS);
        sum += (size_t)count;
    }
    /* Some may have been adopted again from a mount that ended; none is lost or there twice. */
    assert_in_range(sum, 0, CHILDREN * SEGMENTS);
    assert_int_equal(gproc_store_open(&fixture->store, &fixture->directory), 0);
    assert_int_equal(gproc_store_adopt(&fixture->store), SEGMENTS);
    assert_int_equal(segments(&fixture->store), SEGMENTS);
    assert_int_equal(temporary_count(fixture->common), 1);
    gproc_store_close(&fixture->store);
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_directories_and_files_have_their_modes_whatever_the_umask),
        TEMPORARY_TEST(test_close_leaves_nothing_behind_and_nothing_of_others_away),
        TEMPORARY_TEST(test_directory_that_a_killed_mount_did_not_finish_is_finished),
        TEMPORARY_TEST(test_planted_common_directory_is_refused_without_hanging),
        TEMPORARY_TEST(test_directory_that_was_deleted_is_made_again_under_the_same_numbers),
        TEMPORARY_TEST(test_directory_that_was_moved_away_keeps_what_it_has_and_gets_no_more),
        TEMPORARY_TEST(test_serials_grow_whatever_the_clock_does),
        TEMPORARY_TEST(test_missing_segment_is_enoent_and_not_made),
        TEMPORARY_TEST(test_list_tells_segments_and_nothing_else_and_stops_when_told),
        TEMPORARY_TEST(test_segments_of_the_dead_move_over_and_their_directories_go),
        TEMPORARY_TEST(
            test_segments_of_a_killed_process_are_adopted_and_those_of_a_live_one_are_not),
        TEMPORARY_TEST(test_what_could_not_be_put_back_at_a_clean_end_waits_for_the_next_mount),
        TEMPORARY_TEST(test_directory_of_one_that_died_before_it_had_a_lock_is_tidied_away),
        TEMPORARY_TEST(test_things_that_are_no_segment_stay_and_so_does_their_directory),
        TEMPORARY_TEST(test_segment_whose_name_is_taken_stays_for_another_time),
        TEMPORARY_TEST(test_planted_directories_and_locks_are_passed_over_without_hanging),
        TEMPORARY_TEST(test_what_belongs_to_another_user_is_not_touched),
        TEMPORARY_TEST(test_each_segment_is_adopted_once_by_many_at_a_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
