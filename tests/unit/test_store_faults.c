/*
 * Whatever call fails, a store is open and its own, or nothing is held; every segment is in exactly
 * one place, and what could not be moved or read is not passed over in silence.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "stage.h"
#include "store.h"

enum {
    NOBODY = 65534,
    TRIES_MOST = 1000,
};

static struct gproc_place *place_of(struct stage *stage)
{
    return &stage->gproc->mailboxes;
}

static const char *common_of(struct stage *stage)
{
    return temporary_path(stage->temporary, "parent/gproc/.gprocfs");
}

/* What a kill does. */
static void die(struct gproc_store *store)
{
    close(store->fd);
    close(store->lock_fd);
    pthread_mutex_destroy(&store->renewing);
}

static uint64_t put_segment(struct gproc_store *store, pid_t pid)
{
    uint64_t serial = 0;
    int fd = gproc_store_create(store, pid, &serial);

    assert_true(fd >= 0);
    close(fd);
    return serial;
}

static int count_one(void *context, pid_t pid, uint64_t serial)
{
    unsigned *count = context;

    (void)pid;
    (void)serial;
    ++*count;
    return 0;
}

static unsigned segments_count(const struct gproc_store *store)
{
    unsigned count = 0;

    assert_int_equal(gproc_store_list(store, count_one, &count), 0);
    return count;
}

/* ---- Opening */

static void test_store_is_open_or_nothing_is_held(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_store store, next;
        int result;

        stage_set(&stage);
        fault_walk_start(&walk);
        result = gproc_store_open(&store, place_of(&stage));
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(store.fd >= 0, result == 0);
        assert_int_equal(store.lock_fd >= 0, result == 0);
        if (result == 0)
            put_segment(&store, STAGE_PID);
        /* What it made, and left, is in nobody's way: the next one tidies it away. */
        assert_int_equal(gproc_store_open(&next, place_of(&stage)), 0);
        assert_int_equal(gproc_store_adopt(&next), 0);
        assert_int_equal(temporary_count(common_of(&stage)), result == 0 ? 2 : 1);
        gproc_store_close(&next);
        gproc_store_close(&store);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* Calls in the order of opening where the common directory is there: it, our own, its lock. */
static void test_what_others_tidy_away_meanwhile_is_made_again(void **state)
{
    static const struct {
        const char *name;
        unsigned which;
        int verdict;
    } rows[] = {
        {"openat", 1, -ENOENT}, {"mkdirat", 1, -ENOENT}, {"mkdirat", 1, -EEXIST},
        {"openat", 2, -ENOENT}, {"openat", 3, -ENOENT},  {"flock", 1, -EWOULDBLOCK},
    };
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gproc_store first, store;

        stage_set(&stage);
        assert_int_equal(gproc_store_open(&first, place_of(&stage)), 0);
        fault_calls(rows[i].name, rows[i].which, rows[i].which, rows[i].verdict);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
        fault_stop();
        put_segment(&store, STAGE_PID);
        gproc_store_close(&store);
        gproc_store_close(&first);
        stage_clear(&stage);
    }
}

static void test_what_is_tidied_away_without_end_is_given_up(void **state)
{
    static const struct {
        const char *name;
        int verdict;
    } rows[] = {
        {"mkdirat", -EEXIST},
        {"flock", -EWOULDBLOCK},
    };
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gproc_store store;

        stage_set(&stage);
        fault_calls(rows[i].name, 1, TRIES_MOST, rows[i].verdict);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), -EAGAIN);
        fault_stop();
        assert_int_equal(store.fd, -1);
        gproc_store_close(&store);
        stage_clear(&stage);
    }
}

static void test_mailbox_directory_that_cannot_be_made_again_is_an_error(void **state)
{
    struct gproc_store store;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    temporary_remove(stage.parent);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), -ENOENT);
    stage_clear(&stage);
}

struct others {
    struct stage *stage;
    struct gproc_store *store;
    unsigned calls_count;
    unsigned locks_count;
};

static int delete_lock(void *context, const char *name)
{
    struct others *others = context;

    if (strcmp(name, "flock") == 0 && others->calls_count++ == 0)
        assert_int_equal(
            unlink(temporary_path(others->stage->temporary, "parent/gproc/.gprocfs/%s/lock",
                                  others->store->name)),
            0);
    return FAULT_NONE;
}

/* Its holder would be taken for a dead one. */
static void test_lock_that_was_deleted_while_it_was_taken_is_none(void **state)
{
    struct gproc_store store;
    struct stage stage;
    struct others others = {.stage = &stage, .store = &store};

    stage_init(&stage, *state);
    stage_set(&stage);
    fault_start(delete_lock, &others);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    fault_stop();
    assert_true(
        temporary_exists(temporary_path(*state, "parent/gproc/.gprocfs/%s/lock", store.name)));
    gproc_store_close(&store);
    stage_clear(&stage);
}

static void test_common_directory_of_another_user_is_left_as_it_is(void **state)
{
    struct gproc_store store;
    struct stat status;
    struct stage stage;

    if (geteuid() != 0)
        skip();
    stage_init(&stage, *state);
    stage_set(&stage);
    temporary_mkdir(common_of(&stage));
    assert_int_equal(chmod(common_of(&stage), 0500), 0);
    assert_int_equal(chown(common_of(&stage), NOBODY, NOBODY), 0);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    assert_int_equal(stat(common_of(&stage), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0500);
    gproc_store_close(&store);
    stage_clear(&stage);
}

/* ---- Segments */

static void move_away(struct stage *stage)
{
    assert_int_equal(
        rename(stage->mailboxes, temporary_path(stage->temporary, "parent/gproc.away")), 0);
    assert_int_equal(gproc_place_renew(place_of(stage)), 0);
}

/* With the directory deleted, or moved away: in a new one. */
static void test_segment_is_made_or_the_error_handed_up(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    for (int gone = 0; gone < 3; gone++) {
        fault_walk_init(&walk);
        do {
            struct gproc_store store;
            uint64_t serial = 0;
            int fd;

            stage_set(&stage);
            assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
            if (gone == 1)
                temporary_remove(stage.mailboxes);
            if (gone == 2)
                move_away(&stage);
            fault_walk_start(&walk);
            fd = gproc_store_create(&store, STAGE_PID, &serial);
            fault_walk_stop(&walk);
            fault_walk_judge(&walk, fd, 0);
            if (fd >= 0) {
                close(fd);
                assert_int_equal(segments_count(&store), 1);
            }
            /* It may be tried again. */
            put_segment(&store, STAGE_PID);
            gproc_store_close(&store);
            if (gone == 2)
                temporary_remove(temporary_path(stage.temporary, "parent/gproc.away"));
            stage_clear(&stage);
        } while (fault_walk_next(&walk));
    }
}

/* Gone when we look, and there when we look again: another thread has made it. */
static void test_store_that_another_thread_renewed_is_not_renewed_again(void **state)
{
    struct gproc_store store;
    struct stage stage;
    uint64_t serial = 0;
    char name[GPROC_STORE_NAME_BYTES];
    int fd;

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    memcpy(name, store.name, sizeof(name));
    fault_calls("openat", 1, 1, -ENOENT);
    fd = gproc_store_create(&store, STAGE_PID, &serial);
    fault_stop();
    assert_true(fd >= 0);
    close(fd);
    assert_string_equal(store.name, name);
    gproc_store_close(&store);
    stage_clear(&stage);
}

static void test_serials_that_are_taken_without_end_are_given_up(void **state)
{
    struct gproc_store store;
    struct stage stage;
    uint64_t serial = 0;

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    fault_calls("openat", 1, TRIES_MOST, -EEXIST);
    assert_int_equal(gproc_store_create(&store, STAGE_PID, &serial), -EEXIST);
    fault_stop();
    gproc_store_close(&store);
    stage_clear(&stage);
}

static void test_store_without_its_directories_can_be_closed(void **state)
{
    const struct fault_held before = fault_held();
    struct gproc_store store;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    temporary_remove(stage.mailboxes);
    gproc_store_close(&store);
    stage_clear(&stage);
    assert_int_equal(fault_held().descriptors_count, before.descriptors_count);
}

static void test_names_that_are_no_segments_are_not_listed(void **state)
{
    static const char *const names[] = {
        "4711.", "4711.x", "4711.!", "4711.~", "4711", "x.1", "4711.1", "notes",
    };
    struct gproc_store store;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        temporary_write(temporary_path(*state, "parent/gproc/.gprocfs/%s/%s", store.name, names[i]),
                        "", 0);
    }
    put_segment(&store, STAGE_PID);
    assert_int_equal(segments_count(&store), 1);
    gproc_store_close(&store);
    stage_clear(&stage);
}

static void test_segments_are_listed_all_or_the_error_is_handed_up(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_store store;
        unsigned count = 0;
        int result;

        stage_set(&stage);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
        put_segment(&store, STAGE_PID);
        put_segment(&store, STAGE_PID + 1);
        fault_walk_start(&walk);
        result = gproc_store_list(&store, count_one, &count);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result == 0)
            assert_int_equal(count, 2);
        gproc_store_close(&store);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* ---- What dead mounts left */

/* Of two of them, two segments and one. */
static void leave(struct stage *stage)
{
    struct gproc_store dead[2];

    for (size_t i = 0; i < 2; i++)
        assert_int_equal(gproc_store_open(&dead[i], place_of(stage)), 0);
    put_segment(&dead[0], STAGE_PID);
    put_segment(&dead[0], STAGE_PID + 1);
    put_segment(&dead[1], STAGE_PID);
    for (size_t i = 0; i < 2; i++)
        die(&dead[i]);
}

static void test_all_segments_are_adopted_or_the_error_is_handed_up(void **state)
{
    struct fault_walk walk;
    struct stage stage;

    stage_init(&stage, *state);
    fault_walk_init(&walk);
    do {
        struct gproc_store store;
        int result;

        stage_set(&stage);
        leave(&stage);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
        fault_walk_start(&walk);
        result = gproc_store_adopt(&store);
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        if (result >= 0)
            assert_int_equal(result, 3);
        /* They stay for another time. */
        assert_true(gproc_store_adopt(&store) >= 0);
        assert_int_equal(segments_count(&store), 3);
        gproc_store_close(&store);
        stage_clear(&stage);
    } while (fault_walk_next(&walk));
}

/* Ours, and the machine's, are handed up; what the thing itself is to blame for is passed over. */
static void test_failures_are_told_from_what_is_not_ours(void **state)
{
    static const char *const calls[] = {"renameat2", "fstatat", "openat", "flock"};
    /* How many of them are for others before the one for something that was left. */
    static const unsigned before[] = {0, 0, 2, 0};
    static const struct {
        int error;
        bool is_failure;
    } rows[] = {
        {-EMFILE, true}, {-ENFILE, true}, {-ENOMEM, true}, {-EIO, true},    {-ENOSPC, true},
        {-EDQUOT, true}, {-ENOLCK, true}, {-EINTR, true},  {-EPERM, false}, {-EACCES, false},
    };
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t call = 0; call < sizeof(calls) / sizeof(calls[0]); call++) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct gproc_store store;
            int result;

            stage_set(&stage);
            leave(&stage);
            assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
            fault_calls(calls[call], before[call] + 1, TRIES_MOST, rows[i].error);
            result = gproc_store_adopt(&store);
            fault_stop();
            assert_int_equal(result, rows[i].is_failure ? rows[i].error : 0);
            assert_int_equal(gproc_store_adopt(&store), 3);
            gproc_store_close(&store);
            stage_clear(&stage);
        }
    }
}

/* What fails beside the renaming with flags; and what adopting then returns. */
struct without_flags {
    const char *call; /* NULL: nothing */
    unsigned which;
    int error;
    int result;
    unsigned calls_count;
};

static int refuse_flags(void *context, const char *name)
{
    struct without_flags *without = context;

    if (strcmp(name, "renameat2") == 0)
        return -EINVAL;
    if (without->call == NULL || strcmp(name, without->call) != 0)
        return FAULT_NONE;
    return ++without->calls_count == without->which ? without->error : FAULT_NONE;
}

/* Adopts where renaming over nothing is not to be had, as on NFS. */
static int adopt_without_flags(struct gproc_store *store, struct without_flags *without)
{
    int result;

    fault_start(refuse_flags, without);
    result = gproc_store_adopt(store);
    fault_stop();
    return result;
}

static void test_segments_are_adopted_where_renaming_knows_no_flags(void **state)
{
    struct gproc_store store;
    struct stage stage;

    stage_init(&stage, *state);
    stage_set(&stage);
    leave(&stage);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    assert_int_equal(adopt_without_flags(&store, &(struct without_flags){0}), 3);
    assert_int_equal(segments_count(&store), 3);
    assert_int_equal(temporary_count(common_of(&stage)), 1);
    gproc_store_close(&store);
    stage_clear(&stage);
}

/* With flags and without: what is ours stays, and what has its name stays where it is. */
static void test_segment_is_adopted_over_none_that_is_there(void **state)
{
    struct stage stage;

    stage_init(&stage, *state);
    for (int flags = 0; flags < 2; flags++) {
        const char *ours, *theirs;
        struct gproc_store dead, store;

        stage_set(&stage);
        assert_int_equal(gproc_store_open(&dead, place_of(&stage)), 0);
        theirs = temporary_path(*state, "parent/gproc/.gprocfs/%s/7.%020d", dead.name, 5);
        temporary_write(theirs, "theirs", 6);
        put_segment(&dead, STAGE_PID);
        die(&dead);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
        ours = temporary_path(*state, "parent/gproc/.gprocfs/%s/7.%020d", store.name, 5);
        temporary_write(ours, "ours", 4);
        assert_int_equal(flags ? gproc_store_adopt(&store)
                               : adopt_without_flags(&store, &(struct without_flags){0}),
                         1);
        temporary_expect(ours, "ours", 4);
        temporary_expect(theirs, "theirs", 6);
        assert_int_equal(segments_count(&store), 2);
        gproc_store_close(&store);
        stage_clear(&stage);
    }
}

/* Whether something is there cannot be told, or it cannot be moved: as with flags. */
static void test_failures_are_told_where_renaming_knows_no_flags_too(void **state)
{
    static const struct without_flags rows[] = {
        /* The first fstatat is of the segment that was left, the second of what is to be none. */
        {.call = "fstatat", .which = 2, .error = -EIO, .result = -EIO},
        {.call = "fstatat", .which = 2, .error = -EACCES, .result = 2},
        {.call = "renameat", .which = 1, .error = -EIO, .result = -EIO},
        {.call = "renameat", .which = 1, .error = -EPERM, .result = 2},
    };
    struct stage stage;

    stage_init(&stage, *state);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct without_flags without = rows[i];
        struct gproc_store store;

        stage_set(&stage);
        leave(&stage);
        assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
        assert_int_equal(adopt_without_flags(&store, &without), rows[i].result);
        assert_true(gproc_store_adopt(&store) > 0);
        assert_int_equal(segments_count(&store), 3);
        gproc_store_close(&store);
        stage_clear(&stage);
    }
}

/* The descriptors of this process that a lock file is open at. */
static unsigned locks_open_count(void)
{
    unsigned count = 0;
    char path[64], target[PATH_MAX];

    for (int fd = 0; fd < 256; fd++) {
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        count += strstr(target, "/.gprocfs/") != NULL && strstr(target, "/lock") != NULL;
    }
    return count;
}

/* NFS keeps a name for a file that is open, and a directory that has one cannot be removed. */
static int look_for_open_locks(void *context, const char *name)
{
    struct others *others = context;

    /* The lock's name goes first, then its directory. */
    if (strcmp(name, "unlinkat") == 0 && others->calls_count++ % 3 == 1)
        assert_int_equal(locks_open_count(), others->locks_count);
    return FAULT_NONE;
}

static void test_lock_is_closed_before_its_directory_goes(void **state)
{
    struct gproc_store dead, store;
    struct stage stage;
    struct others others = {.stage = &stage, .store = &store};

    stage_init(&stage, *state);
    stage_set(&stage);
    assert_int_equal(gproc_store_open(&dead, place_of(&stage)), 0);
    put_segment(&dead, STAGE_PID);
    die(&dead);
    assert_int_equal(gproc_store_open(&store, place_of(&stage)), 0);
    others.locks_count = 1; /* our own */
    fault_start(look_for_open_locks, &others);
    assert_int_equal(gproc_store_adopt(&store), 1);
    fault_stop();
    assert_int_equal(others.calls_count, 2);
    others.locks_count = others.calls_count = 0;
    fault_start(look_for_open_locks, &others);
    gproc_store_close(&store);
    fault_stop();
    assert_int_equal(others.calls_count, 3);
    stage_clear(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_store_is_open_or_nothing_is_held),
        TEMPORARY_TEST(test_what_others_tidy_away_meanwhile_is_made_again),
        TEMPORARY_TEST(test_what_is_tidied_away_without_end_is_given_up),
        TEMPORARY_TEST(test_mailbox_directory_that_cannot_be_made_again_is_an_error),
        TEMPORARY_TEST(test_lock_that_was_deleted_while_it_was_taken_is_none),
        TEMPORARY_TEST(test_common_directory_of_another_user_is_left_as_it_is),
        TEMPORARY_TEST(test_segment_is_made_or_the_error_handed_up),
        TEMPORARY_TEST(test_store_that_another_thread_renewed_is_not_renewed_again),
        TEMPORARY_TEST(test_serials_that_are_taken_without_end_are_given_up),
        TEMPORARY_TEST(test_store_without_its_directories_can_be_closed),
        TEMPORARY_TEST(test_names_that_are_no_segments_are_not_listed),
        TEMPORARY_TEST(test_segments_are_listed_all_or_the_error_is_handed_up),
        TEMPORARY_TEST(test_all_segments_are_adopted_or_the_error_is_handed_up),
        TEMPORARY_TEST(test_failures_are_told_from_what_is_not_ours),
        TEMPORARY_TEST(test_segments_are_adopted_where_renaming_knows_no_flags),
        TEMPORARY_TEST(test_segment_is_adopted_over_none_that_is_there),
        TEMPORARY_TEST(test_failures_are_told_where_renaming_knows_no_flags_too),
        TEMPORARY_TEST(test_lock_is_closed_before_its_directory_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
