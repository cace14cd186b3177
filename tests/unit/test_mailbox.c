/*
 * The file below: what is no mailbox is never opened, waited for or touched; a mailbox is made as
 * the protocol says and where the path leads; an append is whole or not at all.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "frame.h"
#include "mailbox.h"
#include "process.h"
#include "temporary.h"

enum {
    PID = 4711,
    SENDER = 99,
    DEADLINE_MS = 20000,
    NOBODY = 65534,
};

struct fixture {
    const char *path, *file;
    struct gproc_place directory;
    struct gproc_mailbox mailbox;
};

static struct fixture fixture_open(void **state)
{
    struct fixture fixture = {
        .path = temporary_path(*state, "gproc"),
        .file = temporary_path(*state, "gproc/4711"),
    };

    assert_int_equal(gproc_place_init(&fixture.directory, fixture.path, 0777), 0);
    return fixture;
}

static int open_mailbox(struct fixture *fixture, int access)
{
    return gproc_mailbox_open(&fixture->mailbox, &fixture->directory, PID, access);
}

static int create_mailbox(struct fixture *fixture, int access)
{
    return gproc_mailbox_create(&fixture->mailbox, &fixture->directory, PID, access,
                                GPROC_MAILBOX_MODE, gproc_creator_self);
}

static int append(struct fixture *fixture, const void *payload, size_t payload_bytes)
{
    return gproc_mailbox_append(&fixture->mailbox, SENDER, payload, payload_bytes);
}

/* --- What is a mailbox --------------------------------------------------------------------------
 */

static void plant_link(const char *file)
{
    assert_int_equal(symlink("target", file), 0);
}

static void plant_dangling_link(const char *file)
{
    assert_int_equal(symlink("missing", file), 0);
}

static void plant_hard_link(const char *file)
{
    char target[PATH_MAX];

    snprintf(target, sizeof(target), "%.*s/target", (int)(strrchr(file, '/') - file), file);
    assert_int_equal(link(target, file), 0);
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

static void plant_null(const char *file)
{
    assert_int_equal(mknod(file, S_IFCHR | 0666, makedev(1, 3)), 0);
}

static void plant_block_device(const char *file)
{
    assert_int_equal(mknod(file, S_IFBLK | 0666, makedev(250, 250)), 0); /* there is none */
}

static const struct {
    const char *what;
    void (*plant)(const char *file);
    bool needs_root;
} planted[] = {
    {"link", plant_link, false},
    {"dangling link", plant_dangling_link, false},
    {"hard link", plant_hard_link, false},
    {"fifo", plant_fifo, false},
    {"directory", plant_directory, false},
    {"socket", plant_socket, false},
    {"null", plant_null, true},
    {"block device", plant_block_device, true},
};

static void expect_no_mailbox(struct fixture *fixture, const char *what)
{
    static const int accesses[] = {O_RDONLY, O_WRONLY, O_RDWR};
    struct stat status;

    for (size_t i = 0; i < 3; i++) {
        int opened = open_mailbox(fixture, accesses[i]);
        int created;

        if (opened != -ENOENT)
            fail_msg("%s, open %d: %d", what, accesses[i], opened);
        assert_int_equal(fixture->mailbox.fd, -1);
        created = create_mailbox(fixture, accesses[i]);
        if (created != -EEXIST)
            fail_msg("%s, create %d: %d", what, accesses[i], created);
        assert_int_equal(fixture->mailbox.fd, -1);
    }
    assert_int_equal(gproc_mailbox_stat(&fixture->directory, PID, &status), -ENOENT);
    assert_int_equal(gproc_mailbox_remove(&fixture->directory, PID), -ENOENT);
}

static void test_planted_things_are_no_mailbox_and_never_hang_and_are_not_touched(void **state)
{
    struct fixture fixture = fixture_open(state);
    const char *target = temporary_path(*state, "gproc/target");

    temporary_write(target, "precious", 8);
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
        struct stat before, after;

        if (planted[i].needs_root && geteuid() != 0)
            continue;
        planted[i].plant(fixture.file);
        assert_int_equal(lstat(fixture.file, &before), 0);
        expect_no_mailbox(&fixture, planted[i].what);
        assert_int_equal(lstat(fixture.file, &after), 0);
        assert_int_equal(after.st_ino, before.st_ino);
        assert_int_equal(after.st_mode, before.st_mode);
        temporary_remove(fixture.file);
    }
    temporary_expect(target, "precious", 8);
    assert_int_equal(temporary_count(fixture.path), 1);
    gproc_place_release(&fixture.directory);
}

static int expect_no_mailbox_as_nobody(struct fixture *fixture)
{
    int access;

    for (access = O_RDONLY; access <= O_RDWR; access++)
        if (open_mailbox(fixture, access) != -ENOENT || create_mailbox(fixture, access) != -EEXIST)
            return 1;
    return 0;
}

static void test_planted_things_that_we_may_not_open_are_no_mailbox_either(void **state)
{
    struct fixture fixture = fixture_open(state);

    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
        pid_t child;

        if (planted[i].plant == plant_hard_link)
            temporary_write(temporary_path(*state, "gproc/target"), "precious", 8);
        planted[i].plant(fixture.file);
        if (planted[i].plant != plant_link && planted[i].plant != plant_dangling_link)
            assert_int_equal(chmod(fixture.file, 0), 0);
        child = process_fork(NOBODY);
        if (child == 0)
            _exit(expect_no_mailbox_as_nobody(&fixture));
        if (temporary_join(child, DEADLINE_MS) != 0)
            fail_msg("%s", planted[i].what);
        temporary_remove(fixture.file);
    }
    gproc_place_release(&fixture.directory);
}

static void test_fifo_with_both_ends_open_is_no_mailbox_and_gets_nothing(void **state)
{
    struct fixture fixture = fixture_open(state);
    char byte;
    int fd;

    plant_fifo(fixture.file);
    fd = open(fixture.file, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
    expect_no_mailbox(&fixture, "fifo");
    assert_int_equal(read(fd, &byte, 1), -1);
    close(fd);
    gproc_place_release(&fixture.directory);
}

static void test_missing_mailbox_is_enoent_and_not_made_by_looking(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct stat status;

    assert_int_equal(open_mailbox(&fixture, O_RDWR), -ENOENT);
    assert_int_equal(fixture.mailbox.fd, -1);
    gproc_mailbox_close(&fixture.mailbox);
    assert_int_equal(gproc_mailbox_stat(&fixture.directory, PID, &status), -ENOENT);
    assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), -ENOENT);
    assert_int_equal(temporary_count(fixture.path), 0);
    gproc_place_release(&fixture.directory);
}

static void test_mode_of_the_file_is_obeyed(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    temporary_write(fixture.file, "", 0);
    assert_int_equal(chmod(fixture.file, 0444), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0) {
        bool right = open_mailbox(&fixture, O_RDONLY) == 0 &&
                     open_mailbox(&fixture, O_WRONLY) == -EACCES &&
                     open_mailbox(&fixture, O_RDWR) == -EACCES &&
                     create_mailbox(&fixture, O_WRONLY) == -EACCES;

        _exit(right ? 0 : 1);
    }
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    gproc_place_release(&fixture.directory);
}

static void test_descriptor_is_not_inherited_and_tells_what_the_file_is(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct gproc_source source;
    struct stat status;

    temporary_append_text(fixture.file, SENDER, "hello");
    assert_int_equal(open_mailbox(&fixture, O_RDONLY), 0);
    assert_int_equal(fcntl(fixture.mailbox.fd, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(fixture.mailbox.fd, F_GETFL) & O_APPEND); /* nobody is ever overwritten */
    assert_int_equal(fixture.mailbox.pid, PID);
    assert_int_equal(stat(fixture.file, &status), 0);
    assert_int_equal(fixture.mailbox.status.st_ino, status.st_ino);
    assert_int_equal(fixture.mailbox.status.st_size, 17);
    source = gproc_mailbox_source(&fixture.mailbox);
    assert_int_equal(source.size_bytes, 17);
    assert_int_equal(source.fd, fixture.mailbox.fd);
    assert_int_equal(source.start, 0);
    assert_null(source.data);

    temporary_append_text(fixture.file, SENDER, "hello");
    assert_int_equal(fixture.mailbox.status.st_size, 17);
    assert_int_equal(gproc_mailbox_refresh(&fixture.mailbox), 0);
    assert_int_equal(fixture.mailbox.status.st_size, 34);
    gproc_mailbox_close(&fixture.mailbox);
    gproc_mailbox_close(&fixture.mailbox); /* twice is harmless */

    assert_int_equal(gproc_mailbox_stat(&fixture.directory, PID, &status), 0);
    assert_int_equal(status.st_size, 34);
    gproc_place_release(&fixture.directory);
}

/* --- Making, clearing, removing -----------------------------------------------------------------
 */

static void test_mailbox_is_made_0666_less_umask_and_says_so_once(void **state)
{
    static const mode_t masks[] = {0, 022, 002, 077, 0666};
    struct fixture fixture = fixture_open(state);

    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        struct stat status;

        umask(masks[i]);
        assert_int_equal(create_mailbox(&fixture, O_WRONLY), 1);
        assert_int_equal(fcntl(fixture.mailbox.fd, F_GETFD), FD_CLOEXEC);
        gproc_mailbox_close(&fixture.mailbox);
        assert_int_equal(stat(fixture.file, &status), 0);
        assert_int_equal(status.st_mode, S_IFREG | (0666 & ~masks[i]));
        assert_int_equal(status.st_size, 0);
        if (geteuid() == 0 || masks[i] < 0200) {
            assert_int_equal(create_mailbox(&fixture, O_WRONLY), 0);
            gproc_mailbox_close(&fixture.mailbox);
        }
        assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), 0);
    }
    gproc_place_release(&fixture.directory);
}

static void test_mailbox_belongs_to_its_creator_or_is_not_left_behind(void **state)
{
    struct gproc_creator nobody = {NOBODY, NOBODY}, root = {0, 0};
    struct fixture fixture = fixture_open(state);
    struct stat status;
    pid_t child;

    assert_int_equal(chmod(fixture.path, 0777), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0)
        _exit(gproc_mailbox_create(&fixture.mailbox, &fixture.directory, PID, O_WRONLY, 0666,
                                   root) == -EPERM
                  ? 0
                  : 1);
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    assert_int_equal(temporary_count(fixture.path), 0);

    if (geteuid() == 0) {
        assert_int_equal(
            gproc_mailbox_create(&fixture.mailbox, &fixture.directory, PID, O_WRONLY, 0666, nobody),
            1);
        gproc_mailbox_close(&fixture.mailbox);
        assert_int_equal(stat(fixture.file, &status), 0);
        assert_int_equal(status.st_uid, NOBODY);
        assert_int_equal(status.st_gid, NOBODY);
    }
    gproc_place_release(&fixture.directory);
}

static void test_clear_empties_and_remove_deletes(void **state)
{
    struct fixture fixture = fixture_open(state);

    temporary_append_text(fixture.file, SENDER, "hello");
    assert_int_equal(open_mailbox(&fixture, O_WRONLY), 0);
    assert_int_equal(gproc_mailbox_clear(&fixture.mailbox), 0);
    temporary_expect(fixture.file, "", 0);
    gproc_mailbox_close(&fixture.mailbox);
    assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), 0);
    assert_false(temporary_exists(fixture.file));
    assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), -ENOENT);
    gproc_place_release(&fixture.directory);
}

/* --- Directories that change under us -----------------------------------------------------------
 */

static void delete_directory(void **state)
{
    temporary_remove(temporary_path(*state, "gproc"));
}

static void move_directory(void **state)
{
    assert_int_equal(rename(temporary_path(*state, "gproc"), temporary_path(*state, "moved")), 0);
}

static void replace_directory(void **state)
{
    move_directory(state);
    temporary_mkdir(temporary_path(*state, "gproc"));
}

static void replace_directory_and_mailbox(void **state)
{
    replace_directory(state);
    temporary_append_text(temporary_path(*state, "gproc/4711"), 1, "new");
}

static const struct {
    const char *what;
    void (*happen)(void **state);
    bool has_mailbox;
} accidents[] = {
    {"deleted", delete_directory, false},
    {"moved", move_directory, false},
    {"replaced", replace_directory, false},
    {"replaced by one with a mailbox", replace_directory_and_mailbox, true},
};

enum {
    ACCIDENTS = sizeof(accidents) / sizeof(accidents[0]),
};

static void clean(void **state)
{
    static const char *const names[] = {"gproc", "moved"};

    for (size_t i = 0; i < 2; i++)
        if (temporary_exists(temporary_path(*state, "%s", names[i])))
            temporary_remove(temporary_path(*state, "%s", names[i]));
}

static void test_append_goes_where_the_path_leads_never_into_a_lost_directory(void **state)
{
    uint8_t expected[64], old[64];
    size_t old_bytes = temporary_frame(old, 1, "old", 3);

    for (size_t i = 0; i < 2 * (size_t)ACCIDENTS; i++) {
        struct fixture fixture = fixture_open(state);
        const char *moved = temporary_path(*state, "moved/4711");
        bool had_mailbox = i % 2 == 0;
        size_t expected_bytes = 0;

        if (had_mailbox)
            temporary_append_text(fixture.file, 1, "old");
        accidents[i / 2].happen(state);
        print_message("%s\n", accidents[i / 2].what);

        assert_int_equal(create_mailbox(&fixture, O_WRONLY), accidents[i / 2].has_mailbox ? 0 : 1);
        assert_int_equal(append(&fixture, "hello", 5), 0);
        gproc_mailbox_close(&fixture.mailbox);

        if (accidents[i / 2].has_mailbox)
            expected_bytes = temporary_frame(expected, 1, "new", 3);
        expected_bytes += temporary_frame(expected + expected_bytes, SENDER, "hello", 5);
        temporary_expect(fixture.file, expected, expected_bytes);
        if (had_mailbox && temporary_exists(moved))
            temporary_expect(moved, old, old_bytes);
        gproc_place_release(&fixture.directory);
        clean(state);
    }
}

static void test_open_and_remove_follow_the_path_as_well(void **state)
{
    for (size_t i = 0; i < 2 * (size_t)ACCIDENTS; i++) {
        struct fixture fixture = fixture_open(state);
        const char *moved = temporary_path(*state, "moved/4711");
        int expected = accidents[i / 2].has_mailbox ? 0 : -ENOENT;
        bool had_mailbox = i % 2 == 0;

        if (had_mailbox)
            temporary_append_text(fixture.file, 1, "old");
        accidents[i / 2].happen(state);
        print_message("%s\n", accidents[i / 2].what);
        if (i / 2 % 2 == 0) {
            assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), expected);
            assert_false(temporary_exists(fixture.file));
        } else {
            assert_int_equal(open_mailbox(&fixture, O_RDWR), expected);
            if (expected == 0)
                assert_int_equal(fixture.mailbox.status.st_size, 15);
            gproc_mailbox_close(&fixture.mailbox);
            assert_int_equal(gproc_mailbox_remove(&fixture.directory, PID), expected);
        }
        if (had_mailbox && temporary_exists(temporary_path(*state, "moved")))
            assert_true(temporary_exists(moved));
        gproc_place_release(&fixture.directory);
        clean(state);
    }
}

/* --- Mailboxes that are kept open ---------------------------------------------------------------
 */

static int reopen(struct fixture *fixture, int access)
{
    return gproc_mailbox_reopen(&fixture->mailbox, &fixture->directory, access);
}

static int recreate(struct fixture *fixture, int access)
{
    return gproc_mailbox_recreate(&fixture->mailbox, &fixture->directory, access,
                                  GPROC_MAILBOX_MODE, gproc_creator_self);
}

static void test_mailbox_that_is_kept_is_fresh_and_may_be_used_for_all(void **state)
{
    struct fixture fixture = fixture_open(state);
    uint8_t expected[128];
    size_t expected_bytes = 0;
    struct stat status;
    int fd;

    gproc_mailbox_init(&fixture.mailbox, PID);
    gproc_mailbox_close(&fixture.mailbox); /* is not open: left alone */
    assert_int_equal(reopen(&fixture, O_RDONLY), -ENOENT);
    assert_int_equal(fixture.mailbox.fd, -1);
    assert_int_equal(recreate(&fixture, O_WRONLY), 1);
    fd = fixture.mailbox.fd;
    assert_int_equal(fixture.mailbox.access, O_RDWR);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        temporary_append_text(fixture.file, 1, "theirs");
        expected_bytes += temporary_frame(expected + expected_bytes, 1, "theirs", 6);
        assert_int_equal(reopen(&fixture, O_RDONLY), 0);
        assert_int_equal(fixture.mailbox.status.st_size, expected_bytes);
        assert_int_equal(recreate(&fixture, O_WRONLY), 0);
        assert_int_equal(fixture.mailbox.fd, fd);
        assert_int_equal(append(&fixture, "ours", 4), 0);
        expected_bytes += temporary_frame(expected + expected_bytes, SENDER, "ours", 4);
        temporary_expect(fixture.file, expected, expected_bytes);
    }
    assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status), 0);
    for (int access = O_RDONLY; access <= O_RDWR; access++)
        assert_true(gproc_mailbox_is_open(&fixture.mailbox, &status, access));
    gproc_mailbox_close(&fixture.mailbox);
    assert_false(gproc_mailbox_is_open(&fixture.mailbox, &status, O_RDONLY));
    gproc_place_release(&fixture.directory);
}

static void test_mailbox_that_is_kept_is_open_for_no_more_than_it_was_opened_for(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct stat status;

    temporary_append_text(fixture.file, 1, "hello");
    assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status), 0);
    for (int had = O_RDONLY; had <= O_RDWR; had++) {
        for (int wanted = O_RDONLY; wanted <= O_RDWR; wanted++) {
            const bool is_enough = wanted == had || had == O_RDWR;

            assert_int_equal(open_mailbox(&fixture, had), 0);
            assert_int_equal(gproc_mailbox_is_open(&fixture.mailbox, &status, wanted), is_enough);
            assert_int_equal(reopen(&fixture, wanted), 0);
            assert_int_equal(fixture.mailbox.access, is_enough ? had : O_RDWR);
            gproc_mailbox_close(&fixture.mailbox);
        }
    }
    gproc_place_release(&fixture.directory);
}

static void delete_mailbox(void **state)
{
    temporary_remove(temporary_path(*state, "gproc/4711"));
}

static void move_mailbox(void **state)
{
    assert_int_equal(rename(temporary_path(*state, "gproc/4711"), temporary_path(*state, "moved")),
                     0);
}

static void replace_mailbox(void **state)
{
    const char *other = temporary_path(*state, "moved");

    temporary_append_text(other, 1, "new");
    assert_int_equal(rename(other, temporary_path(*state, "gproc/4711")), 0);
}

static void link_mailbox(void **state)
{
    assert_int_equal(link(temporary_path(*state, "gproc/4711"), temporary_path(*state, "moved")),
                     0);
}

static void chmod_mailbox(void **state)
{
    assert_int_equal(chmod(temporary_path(*state, "gproc/4711"), 0640), 0);
}

static void test_mailbox_that_was_kept_is_what_the_path_leads_to_by_now(void **state)
{
    static const struct {
        void (*happen)(void **state);
        int reopened, recreated;
        off_t size_bytes; /* of what is there then */
    } rows[] = {
        {delete_mailbox, -ENOENT, 1, 0},
        {move_mailbox, -ENOENT, 1, 0},
        {replace_mailbox, 0, 0, 15},
        {link_mailbox, -ENOENT, -EEXIST, 0},
        {chmod_mailbox, 0, 0, 17},
        {delete_directory, -ENOENT, 1, 0},
        {move_directory, -ENOENT, 1, 0},
        {replace_directory, -ENOENT, 1, 0},
        {replace_directory_and_mailbox, 0, 0, 15},
    };

    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture fixture = fixture_open(state);
        const bool creates = i % 2 != 0;
        const int expected = creates ? rows[i / 2].recreated : rows[i / 2].reopened;
        struct stat before, there;

        temporary_append_text(fixture.file, 1, "hello");
        gproc_mailbox_init(&fixture.mailbox, PID);
        assert_int_equal(reopen(&fixture, O_RDWR), 0);
        before = fixture.mailbox.status;
        rows[i / 2].happen(state);
        if (gproc_mailbox_find(&fixture.directory, PID, &there) == 0)
            assert_false(gproc_mailbox_is_open(&fixture.mailbox, &there, O_RDONLY));
        if ((creates ? recreate(&fixture, O_WRONLY) : reopen(&fixture, O_RDONLY)) != expected)
            fail_msg("row %zu", i / 2);
        assert_int_equal(fixture.mailbox.fd >= 0, expected >= 0);
        if (expected >= 0) {
            assert_int_equal(lstat(fixture.file, &there), 0);
            assert_int_equal(there.st_ino, fixture.mailbox.status.st_ino);
            assert_int_equal(there.st_mode, fixture.mailbox.status.st_mode);
            assert_int_equal(there.st_size, rows[i / 2].size_bytes);
            assert_true(there.st_ino != before.st_ino || rows[i / 2].happen != replace_mailbox);
        }
        gproc_mailbox_close(&fixture.mailbox);
        gproc_place_release(&fixture.directory);
        clean(state);
    }
}

/* By an ordinary user, for whom modes mean something: at least 10 where it is not as it should be. */
static int expect_fallbacks(struct fixture *fixture)
{
    static const struct {
        mode_t mode;
        int wanted, result, access;
    } rows[] = {
        {0444, O_RDONLY, 0, O_RDONLY}, {0444, O_WRONLY, -EACCES, 0}, {0444, O_RDWR, -EACCES, 0},
        {0222, O_WRONLY, 0, O_WRONLY}, {0222, O_RDONLY, -EACCES, 0}, {0222, O_RDWR, -EACCES, 0},
        {0000, O_RDONLY, -EACCES, 0},  {0666, O_RDONLY, 0, O_RDWR},  {0666, O_WRONLY, 0, O_RDWR},
    };

    gproc_mailbox_init(&fixture->mailbox, PID);
    if (recreate(fixture, O_WRONLY) != 1)
        return 1;
    /* Each twice: what is kept from the first is used, or not, in the second. */
    for (size_t i = 0; i < 4 * sizeof(rows) / sizeof(rows[0]); i++) {
        const int access = rows[i / 4].wanted;
        int result;

        if (chmod(fixture->file, rows[i / 4].mode) != 0)
            return 2;
        result = i % 2 == 0 ? recreate(fixture, access) : reopen(fixture, access);
        if (result != rows[i / 4].result || (fixture->mailbox.fd >= 0) != (result == 0))
            return 10 + (int)i / 4;
        if (result == 0 && fixture->mailbox.access != rows[i / 4].access)
            return 30 + (int)i / 4;
    }
    gproc_mailbox_close(&fixture->mailbox);
    return 0;
}

static void test_mailbox_is_kept_for_what_we_may_do_with_it(void **state)
{
    struct fixture fixture = fixture_open(state);
    pid_t child;

    assert_int_equal(chmod(fixture.path, 0777), 0);
    child = process_fork(geteuid() == 0 ? NOBODY : 0);
    if (child == 0)
        _exit(expect_fallbacks(&fixture));
    assert_int_equal(temporary_join(child, DEADLINE_MS), 0);
    gproc_place_release(&fixture.directory);
}

static void test_mailbox_is_found_by_its_path_and_nothing_else_is(void **state)
{
    struct fixture fixture = fixture_open(state);
    struct stat status;

    temporary_write(temporary_path(*state, "gproc/target"), "precious", 8);
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
        if (planted[i].needs_root && geteuid() != 0)
            continue;
        planted[i].plant(fixture.file);
        assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status), -ENOENT);
        temporary_remove(fixture.file);
    }
    assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status), -ENOENT);
    gproc_place_release(&fixture.directory);
    for (size_t i = 0; i < ACCIDENTS; i++) {
        fixture = fixture_open(state);
        temporary_append_text(fixture.file, 1, "hello");
        assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status), 0);
        assert_int_equal(status.st_size, 17);
        accidents[i].happen(state);
        assert_int_equal(gproc_mailbox_find(&fixture.directory, PID, &status),
                         accidents[i].has_mailbox ? 0 : -ENOENT);
        if (accidents[i].has_mailbox)
            assert_int_equal(status.st_size, 15);
        gproc_place_release(&fixture.directory);
        clean(state);
    }
}

/* --- Appending ----------------------------------------------------------------------------------
 */

static void test_frames_are_those_of_the_protocol_one_after_the_other(void **state)
{
    struct temporary *temporary = *state;
    static const size_t sizes[] = {0, 1, 11, 12, 13, 255, 256, 4083, 4084, 4085, 65536, 300001};
    static const int32_t senders[] = {0, 1, 4711, INT32_MAX, -1, INT32_MIN};
    struct fixture fixture = fixture_open(state);
    uint8_t *payload = temporary_memory(temporary, 300001);
    uint8_t *expected = temporary_memory(temporary, 12 * (1 << 17));
    size_t expected_bytes = 0;

    temporary_noise(payload, 300001, 1);
    assert_int_equal(create_mailbox(&fixture, O_WRONLY), 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int32_t sender = senders[i % 6];

        expected_bytes += temporary_frame(expected + expected_bytes, sender, payload, sizes[i]);
        assert_int_equal(
            gproc_mailbox_append(&fixture.mailbox, sender, sizes[i] > 0 ? payload : NULL, sizes[i]),
            0);
        temporary_expect(fixture.file, expected, expected_bytes);
    }
    gproc_mailbox_close(&fixture.mailbox);
    gproc_place_release(&fixture.directory);
}

static void test_append_goes_behind_what_others_appended_meanwhile(void **state)
{
    struct fixture fixture = fixture_open(state);
    uint8_t expected[128];
    size_t expected_bytes = 0;

    assert_int_equal(create_mailbox(&fixture, O_WRONLY), 1);
    for (int i = 0; i < 3; i++) {
        temporary_append_text(fixture.file, 1, "theirs");
        expected_bytes += temporary_frame(expected + expected_bytes, 1, "theirs", 6);
        assert_int_equal(append(&fixture, "ours", 4), 0);
        expected_bytes += temporary_frame(expected + expected_bytes, SENDER, "ours", 4);
        temporary_expect(fixture.file, expected, expected_bytes);
    }
    temporary_write(fixture.file, "", 0); /* drained */
    assert_int_equal(append(&fixture, "ours", 4), 0);
    temporary_expect(fixture.file, expected, temporary_frame(expected, SENDER, "ours", 4));
    gproc_mailbox_close(&fixture.mailbox);
    gproc_place_release(&fixture.directory);
}

static void test_message_that_no_frame_can_hold_changes_nothing(void **state)
{
    struct fixture fixture = fixture_open(state);
    /* It is refused before a byte of it is read: there is only one. */
    uint8_t *byte = temporary_memory(*state, 0);

    temporary_append_text(fixture.file, 1, "x");
    assert_int_equal(open_mailbox(&fixture, O_RDWR), 0);
    assert_int_equal(append(&fixture, byte, GPROC_FRAME_PAYLOAD_MAX_BYTES + 1), -EMSGSIZE);
    assert_int_equal(append(&fixture, byte, SIZE_MAX), -EMSGSIZE);
    gproc_mailbox_close(&fixture.mailbox);
    temporary_expect(fixture.file, "\x0d\0\0\0\1\0\0\0x\0\0\0x", 13);
    gproc_place_release(&fixture.directory);
}

static void limit_file_size(rlim_t size_bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_append_that_fails_after_any_number_of_bytes_leaves_the_file_as_it_was(void **state)
{
    static const size_t old_sizes[] = {0, 1, 12, 4090};
    static const size_t payload_sizes[] = {0, 1, 30, 4100};
    struct fixture fixture = fixture_open(state);
    uint8_t *old = temporary_memory(*state, 8192 + 8192);
    uint8_t *payload = temporary_memory(*state, 8192);
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    temporary_noise(old, 8192, 2);
    temporary_noise(payload, 8192, 3);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < 16; i++) {
        size_t old_bytes = old_sizes[i / 4], payload_bytes = payload_sizes[i % 4];
        size_t frame_bytes = TEMPORARY_HEADER_BYTES + payload_bytes;

        temporary_write(fixture.file, old, old_bytes);
        for (size_t k = 0; k<frame_bytes; k += frame_bytes> 200 && k >= 50 ? 7 : 1) {
            int result;

            assert_int_equal(open_mailbox(&fixture, O_RDWR), 0);
            limit_file_size(old_bytes + k);
            result = append(&fixture, payload, payload_bytes);
            limit_file_size(before.rlim_max);
            if (result != -EFBIG)
                fail_msg("%zu + %zu of %zu: %d", old_bytes, k, frame_bytes, result);
            gproc_mailbox_close(&fixture.mailbox);
            temporary_expect(fixture.file, old, old_bytes);
        }

        /* And when there is just enough room it is there. */
        assert_int_equal(open_mailbox(&fixture, O_RDWR), 0);
        limit_file_size(old_bytes + frame_bytes);
        assert_int_equal(append(&fixture, payload, payload_bytes), 0);
        limit_file_size(before.rlim_max);
        gproc_mailbox_close(&fixture.mailbox);
        temporary_frame(old + old_bytes, SENDER, payload, payload_bytes);
        temporary_expect(fixture.file, old, old_bytes + frame_bytes);
        temporary_noise(old, 8192, 2);
    }
    signal(SIGXFSZ, SIG_DFL);
    gproc_place_release(&fixture.directory);
}

static int teardown_with_mount(void **state)
{
    (void)umount2(temporary_path(*state, "small"), MNT_DETACH); /* there if the test failed */
    return temporary_teardown(state);
}

static void fill_file_system(struct fixture *fixture, const char *path)
{
    uint8_t *old = calloc(1, 1 << 20);
    uint8_t *payload = calloc(1, 1 << 20);
    size_t old_bytes = 0;
    size_t step = 50000;

    temporary_noise(payload, 1 << 20, 4);
    assert_int_equal(gproc_place_init(&fixture->directory, path, 0777), 0);
    assert_int_equal(create_mailbox(fixture, O_RDWR), 1);
    while (step > 0) {
        int result = append(fixture, payload, step);

        if (result == 0) {
            old_bytes += temporary_frame(old + old_bytes, SENDER, payload, step);
        } else {
            assert_int_equal(result, -ENOSPC);
            step = step > 8 ? step * 3 / 4 : step - 1;
        }
        temporary_expect(fixture->file, old, old_bytes);
    }
    assert_true(old_bytes > 0);
    /* Not even an empty one, or only few more. */
    while (append(fixture, NULL, 0) == 0)
        old_bytes += temporary_frame(old + old_bytes, SENDER, NULL, 0);
    temporary_expect(fixture->file, old, old_bytes);
    gproc_mailbox_close(&fixture->mailbox);
    gproc_place_release(&fixture->directory);
    free(old);
    free(payload);
}

static void test_append_to_a_full_file_system_leaves_the_file_as_it_was(void **state)
{
    const char *path = temporary_path(*state, "small");
    struct fixture fixture = {.file = temporary_path(*state, "small/4711")};
    bool mounted;

    temporary_mkdir(path);
    mounted = mount("none", path, "tmpfs", 0, "size=128k,mode=0755") == 0;
    if (!mounted)
        skip();
    fill_file_system(&fixture, path);
    assert_int_equal(umount(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_planted_things_are_no_mailbox_and_never_hang_and_are_not_touched),
        TEMPORARY_TEST(test_planted_things_that_we_may_not_open_are_no_mailbox_either),
        TEMPORARY_TEST(test_fifo_with_both_ends_open_is_no_mailbox_and_gets_nothing),
        TEMPORARY_TEST(test_missing_mailbox_is_enoent_and_not_made_by_looking),
        TEMPORARY_TEST(test_mode_of_the_file_is_obeyed),
        TEMPORARY_TEST(test_descriptor_is_not_inherited_and_tells_what_the_file_is),
        TEMPORARY_TEST(test_mailbox_is_made_0666_less_umask_and_says_so_once),
        TEMPORARY_TEST(test_mailbox_belongs_to_its_creator_or_is_not_left_behind),
        TEMPORARY_TEST(test_clear_empties_and_remove_deletes),
        TEMPORARY_TEST(test_append_goes_where_the_path_leads_never_into_a_lost_directory),
        TEMPORARY_TEST(test_open_and_remove_follow_the_path_as_well),
        TEMPORARY_TEST(test_mailbox_that_is_kept_is_fresh_and_may_be_used_for_all),
        TEMPORARY_TEST(test_mailbox_that_is_kept_is_open_for_no_more_than_it_was_opened_for),
        TEMPORARY_TEST(test_mailbox_that_was_kept_is_what_the_path_leads_to_by_now),
        TEMPORARY_TEST(test_mailbox_is_kept_for_what_we_may_do_with_it),
        TEMPORARY_TEST(test_mailbox_is_found_by_its_path_and_nothing_else_is),
        TEMPORARY_TEST(test_frames_are_those_of_the_protocol_one_after_the_other),
        TEMPORARY_TEST(test_append_goes_behind_what_others_appended_meanwhile),
        TEMPORARY_TEST(test_message_that_no_frame_can_hold_changes_nothing),
        TEMPORARY_TEST(test_append_that_fails_after_any_number_of_bytes_leaves_the_file_as_it_was),
        cmocka_unit_test_setup_teardown(test_append_to_a_full_file_system_leaves_the_file_as_it_was,
                                        temporary_setup, teardown_with_mount),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
