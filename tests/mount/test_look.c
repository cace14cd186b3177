/* Looking at mailboxes: what stat and ls say, what is no mailbox, and what is refused. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    SCAN_CPU_MS = 15000,
    LAST_PID = 2147483647,
    RSS_MAX_KIB = 64 * 1024,
};

/* Less where every look at a byte is expensive. */
static off_t sparse_bytes(unsigned gib)
{
    return (off_t)gib << (mount_is_sanitized() ? 24 : 30);
}

static struct stat stat_of(const char *path)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        fail_msg("%s: %s", path, strerror(errno));
    return status;
}

static struct stat stat_of_box(struct mount *mount, int pid)
{
    return stat_of(through_box(mount, pid));
}

/* --- What stat says -------------------------------------------------------------------------- */

static void size_is_what_cat_would_print(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "", ": > $M/%d", BOX);
    through_expect_size(mount, BOX, 0);
    behind_expect_sent(mount, BOX, 1, "12345");
    through_expect_size(mount, BOX, 5);
    behind_expect_sent(mount, BOX, 1, "");
    through_expect_size(mount, BOX, 5);
    through_send(mount, BOX, "678");
    through_expect_size(mount, BOX, 8);
    through_expect_run(mount, "sh", "8\n", "cat $M/%d | wc -c | tr -d ' '", BOX);
    through_expect_size(mount, BOX, 0);
}

static void size_follows_what_is_drained_and_refilled_behind(void **state)
{
    struct mount *mount = mount_of(state);
    char text[101] = "";
    uint8_t *drained;

    memset(text, 'x', 100);
    behind_expect_sent(mount, BOX, 1, text);
    through_expect_size(mount, BOX, 100);
    assert_true(behind_drain(mount, BOX, &drained) > 0);
    mount_keep(mount, drained);
    through_expect_size(mount, BOX, 0);

    /* Refilled to more than it had, before anybody looks again. */
    behind_expect_sent(mount, BOX, 1, text);
    through_expect_size(mount, BOX, 100);
    assert_true(behind_drain(mount, BOX, &drained) > 0);
    mount_keep(mount, drained);
    behind_expect_sent(mount, BOX, 1, text + 50);
    behind_expect_sent(mount, BOX, 1, text);
    through_expect_size(mount, BOX, 150);
}

/* Where the old end is the end of a message too, nothing but the content tells. */
static void size_is_true_although_the_old_end_still_ends_a_message(void **state)
{
    struct mount *mount = mount_of(state);
    char text[101] = "";
    uint8_t *drained;

    memset(text, 'x', 100);
    behind_expect_sent(mount, BOX, 1, text);
    through_expect_size(mount, BOX, 100);
    assert_true(behind_drain(mount, BOX, &drained) > 0);
    mount_keep(mount, drained);
    behind_expect_sent(mount, BOX, 1, text + 56);
    behind_expect_sent(mount, BOX, 1, text + 56);
    behind_expect_sent(mount, BOX, 1, "more");
    through_expect_size(mount, BOX, 44 + 44 + 4);
}

static void size_follows_a_file_that_is_replaced_behind(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "12345");
    through_expect_size(mount, BOX, 5);
    assert_int_equal(unlink(behind_box(mount, BOX)), 0);
    assert_errno(access(through_box(mount, BOX), F_OK), ENOENT);
    behind_expect_sent(mount, BOX, 1, "1234567");
    through_expect_size(mount, BOX, 7);
    through_expect_texts(mount, BOX, "1234567", NULL);
}

static void size_of_a_torn_message_counts_once_it_is_whole(void **state)
{
    struct mount *mount = mount_of(state);
    uint8_t frame[BEHIND_HEADER_BYTES + 5];

    behind_frame(frame, 1, "hello", 5);
    memcpy(frame + BEHIND_HEADER_BYTES, "hello", 5);
    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, frame, 14), 0);
    through_expect_size(mount, BOX, 3);
    assert_int_equal(behind_append(mount, BOX, frame + 14, sizeof(frame) - 14), 0);
    through_expect_size(mount, BOX, 8);
}

static void times_owner_and_mode_are_those_of_the_file(void **state)
{
    static const struct timespec times[2] = {{1000000000, 123456789}, {1234567890, 987654321}};
    struct mount *mount = mount_of(state);
    struct stat above;
    struct stat below;

    behind_expect_sent(mount, BOX, 1, "hello");
    assert_success(chmod(behind_box(mount, BOX), 0640));
    if (geteuid() == 0)
        assert_success(chown(behind_box(mount, BOX), 12, 34));
    assert_success(utimensat(AT_FDCWD, behind_box(mount, BOX), times, 0));
    above = stat_of_box(mount, BOX);
    below = stat_of(behind_box(mount, BOX));
    assert_true(S_ISREG(above.st_mode));
    assert_int_equal(above.st_mode, below.st_mode);
    assert_int_equal(above.st_uid, below.st_uid);
    assert_int_equal(above.st_gid, below.st_gid);
    assert_int_equal(above.st_nlink, 1);
    assert_int_equal(above.st_mtim.tv_sec, times[1].tv_sec);
    assert_int_equal(above.st_mtim.tv_nsec, times[1].tv_nsec);
    assert_int_equal(above.st_ctim.tv_sec, below.st_ctim.tv_sec);
    assert_int_equal(above.st_ctim.tv_nsec, below.st_ctim.tv_nsec);
    assert_int_equal(above.st_blocks, below.st_blocks);
}

static void looking_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_run(mount, "sh", NULL, "ls -la $M; stat $M/%d; find $M; du -a $M; test -s $M/%d",
                       BOX, BOX);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
}

static void ls_find_and_test_tell_who_has_mail(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, 1, 1, "hello");
    behind_expect_sent(mount, BOX, 1, "");
    through_expect_run(mount, "sh", "", ": > $M/%d", OTHER);
    through_expect_run(mount, "sh", "1\n4711\n4712\n", "ls $M");
    through_expect_run(mount, "sh", "5 1\n0 4711\n0 4712\n",
                       "ls -l $M | awk 'NR > 1 {print $5, $NF}'");
    through_expect_run(mount, "sh", "4711\n4712\n",
                       "find $M -maxdepth 1 -type f -name '[0-9]*' -empty -printf '%%f\\n' | sort");
    through_expect_run(mount, "sh", "1 yes\n4711 no\n4712 no\n",
                       "cd $M; for f in *; do [ -s $f ] && echo $f yes || echo $f no; done");
}

/* --- The directory --------------------------------------------------------------------------- */

struct entry {
    char name[NAME_MAX + 1];
    ino_t inode;
};

static int compare_entries(const void *left, const void *right)
{
    return strcmp(((const struct entry *)left)->name, ((const struct entry *)right)->name);
}

/* The entries whose names do not begin with a dot, sorted; how many. */
static size_t read_names(struct mount *mount, struct entry *entries, size_t max)
{
    DIR *directory = opendir(mount->mnt);
    const struct dirent *found;
    size_t count = 0;

    assert_non_null(directory);
    errno = 0;
    while ((found = readdir(directory)) != NULL) {
        if (found->d_name[0] == '.')
            continue;
        assert_true(count < max);
        snprintf(entries[count].name, sizeof(entries[count].name), "%s", found->d_name);
        entries[count++].inode = found->d_ino;
    }
    assert_int_equal(errno, 0);
    closedir(directory);
    qsort(entries, count, sizeof(*entries), compare_entries);
    return count;
}

static void inode_numbers_are_stable_and_the_same_everywhere(void **state)
{
    static const int pids[] = {1, BOX, OTHER, LAST_PID};
    enum { COUNT = 4 };
    struct mount *mount = mount_of(state);
    struct entry entries[2][COUNT] = {0};
    int fd;

    for (int i = 0; i < COUNT; i++)
        behind_expect_sent(mount, pids[i], 1, "x");
    for (int round = 0; round < 2; round++) {
        assert_int_equal(read_names(mount, entries[round], COUNT), COUNT);
        for (int i = 0; i < COUNT; i++) {
            struct stat status =
                stat_of(mount_path(mount, "%s/%s", mount->mnt, entries[round][i].name));

            assert_int_equal(status.st_ino, entries[round][i].inode);
            assert_int_equal(entries[0][i].inode, entries[round][i].inode);
            for (int j = 0; j < i; j++)
                assert_true(entries[round][i].inode != entries[round][j].inode);
        }
        if (round == 0) {
            assert_int_equal(mount_stop(mount), 0);
            assert_int_equal(mount_start(mount), 0);
        }
    }
    fd = through_open(mount, 1, THROUGH_RECEIVE);
    for (int i = 0; i < 2; i++) {
        struct stat status;

        assert_success(fstat(fd, &status));
        assert_int_equal(status.st_ino, entries[0][0].inode);
        through_expect_read(fd, i == 0 ? "x" : "");
    }
    assert_success(close(fd));
}

static void many_mailboxes_are_all_listed_once(void **state)
{
    enum { COUNT = 3000 };
    struct mount *mount = mount_of(state);
    struct entry *entries = mount_keep(mount, calloc(COUNT, sizeof(*entries)));

    for (int pid = 1; pid <= COUNT; pid++) {
        int fd = open(behind_box(mount, pid), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(read_names(mount, entries, COUNT), COUNT);
    for (int i = 1; i < COUNT; i++)
        assert_string_not_equal(entries[i - 1].name, entries[i].name);
    through_expect_run(mount, "sh", "3000\n", "ls -l $M | grep -c '^-'");
}

static void directory_is_that_of_the_mailboxes(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat above;
    struct stat below;

    assert_success(chmod(mount->mail, 01777));
    above = stat_of(mount->mnt);
    below = stat_of(mount->mail);
    assert_true(S_ISDIR(above.st_mode));
    assert_int_equal(above.st_mode, below.st_mode);
    assert_int_equal(above.st_uid, below.st_uid);
    assert_int_equal(above.st_gid, below.st_gid);
}

static void statfs_is_that_of_the_file_system_below(void **state)
{
    struct mount *mount = mount_of(state);
    struct statvfs above;
    struct statvfs below;

    behind_expect_sent(mount, BOX, 1, "hello");
    assert_success(statvfs(mount->mnt, &above));
    assert_success(statvfs(mount->mail, &below));
    assert_int_equal(above.f_frsize, below.f_frsize);
    assert_int_equal(above.f_blocks, below.f_blocks);
    assert_int_equal(above.f_bfree, below.f_bfree);
    assert_int_equal(above.f_bavail, below.f_bavail);
    assert_int_equal(above.f_files, below.f_files);
    assert_int_equal(above.f_ffree, below.f_ffree);
}

/* --- Things that are done to a mailbox ------------------------------------------------------- */

static void rm_removes_the_mailbox(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_run(mount, "sh", "", "rm $M/%d", BOX);
    assert_errno(access(behind_box(mount, BOX), F_OK), ENOENT);
    assert_errno(access(through_box(mount, BOX), F_OK), ENOENT);
    assert_errno(unlink(through_box(mount, BOX)), ENOENT);
    through_send(mount, BOX, "anew");
    through_expect_texts(mount, BOX, "anew", NULL);
}

/* With three messages, of which the first is taken. */
static void take_one_of_three(struct mount *mount)
{
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, BOX, 1, "two");
    behind_expect_sent(mount, BOX, 1, "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    assert_success(close(fd));
    through_expect_size(mount, BOX, 3 + 5);
}

static void rm_removes_what_is_in_flight_too(void **state)
{
    struct mount *mount = mount_of(state);

    take_one_of_three(mount);
    assert_success(unlink(through_box(mount, BOX)));
    assert_errno(access(through_box(mount, BOX), F_OK), ENOENT);
    through_send(mount, BOX, "anew");
    through_expect_texts(mount, BOX, "anew", NULL);
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, NULL);
}

static void truncate_to_nothing_clears(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_run(mount, "sh", "", "truncate -s 0 $M/%d", BOX);
    through_expect_size(mount, BOX, 0);
    behind_expect_bytes(mount, BOX, NULL, 0);
    assert_success(access(behind_box(mount, BOX), F_OK));

    take_one_of_three(mount);
    assert_success(truncate(through_box(mount, BOX), 0));
    through_expect_size(mount, BOX, 0);
    through_expect_texts(mount, BOX, NULL);
    assert_int_equal(mount_stop(mount), 0);
    behind_expect_texts(mount, BOX, NULL);
}

static void truncate_to_another_size_is_refused(void **state)
{
    static const off_t sizes[] = {1, 4, 5, 6, 1000};
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "hello");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_errno(truncate(through_box(mount, BOX), sizes[i]), EINVAL);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
}

/* As rsync --inplace does when it is done. */
static void what_was_sent_at_once_may_be_cut_to_its_own_size(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = through_open(mount, BOX, O_WRONLY | O_CREAT | O_CLOEXEC);

    through_write_once(fd, "hello", 5);
    through_write_once(fd, "you", 3);
    assert_success(ftruncate(fd, 8));
    assert_errno(ftruncate(fd, 7), EINVAL);
    behind_expect_texts(mount, BOX, "hello", "you", NULL);
    assert_success(ftruncate(fd, 0));
    behind_expect_texts(mount, BOX, NULL);
    assert_success(close(fd));
}

static void chmod_chown_and_touch_act_on_the_file(void **state)
{
    static const struct timespec times[2] = {{1000000001, 123456789}, {1234567891, 987654321}};
    struct mount *mount = mount_of(state);
    struct stat below;

    behind_expect_sent(mount, BOX, 1, "hello");
    assert_success(chmod(through_box(mount, BOX), 0600));
    assert_int_equal(stat_of(behind_box(mount, BOX)).st_mode & 07777, 0600);
    assert_int_equal(stat_of_box(mount, BOX).st_mode & 07777, 0600);
    if (geteuid() == 0) {
        assert_success(chown(through_box(mount, BOX), 12, 34));
        below = stat_of(behind_box(mount, BOX));
        assert_int_equal(below.st_uid, 12);
        assert_int_equal(below.st_gid, 34);
        assert_success(chown(through_box(mount, BOX), (uid_t)-1, 56));
        below = stat_of(behind_box(mount, BOX));
        assert_int_equal(below.st_uid, 12);
        assert_int_equal(below.st_gid, 56);
    }
    assert_success(utimensat(AT_FDCWD, through_box(mount, BOX), times, 0));
    below = stat_of(behind_box(mount, BOX));
    /* Not the access time: to tell the size, the file is read. */
    assert_int_equal(below.st_mtim.tv_sec, times[1].tv_sec);
    assert_int_equal(below.st_mtim.tv_nsec, times[1].tv_nsec);
    through_expect_run(mount, "sh", "", "touch -d @1111111111 $M/%d", BOX);
    assert_int_equal(stat_of(behind_box(mount, BOX)).st_mtim.tv_sec, 1111111111);
    through_expect_run(mount, "sh", "", "touch $M/%d", BOX);
    assert_true(stat_of(behind_box(mount, BOX)).st_mtim.tv_sec > 1111111111);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
}

static void touch_makes_an_empty_mailbox(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "", "touch $M/%d", BOX);
    through_expect_size(mount, BOX, 0);
    behind_expect_bytes(mount, BOX, NULL, 0);
    assert_success(access(behind_box(mount, BOX), F_OK));
}

static void exclusive_creation_makes_one_and_refuses_a_second(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = open(through_box(mount, BOX), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_success(close(fd));
    assert_errno(open(through_box(mount, BOX), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
                 EEXIST);
    /* Also where the file came from behind. */
    behind_expect_sent(mount, OTHER, 1, "hello");
    assert_errno(open(through_box(mount, OTHER), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
                 EEXIST);
}

/* --- Errors ---------------------------------------------------------------------------------- */

static const char *const no_process_ids[] = {
    "0",   "00",  "0123", "2147483648", "4294967297", "99999999999999999999",
    "abc", "12a", "a12",  "0x1",        "1.5",        "+1",
    "-1",  " 1",  "1 ",   "1\n",        ".1",         ".hidden",
    "1~",
};
static const size_t no_process_ids_count = sizeof(no_process_ids) / sizeof(no_process_ids[0]);

static void name_that_is_no_process_id_is_refused(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < no_process_ids_count; i++) {
        const char *path = mount_path(mount, "%s/%s", mount->mnt, no_process_ids[i]);

        errno = 0;
        if (open(path, THROUGH_REPLACE, 0666) != -1 || errno != EINVAL)
            fail_msg("create of \"%s\": errno %d", no_process_ids[i], errno);
        assert_errno(open(path, THROUGH_APPEND, 0666), EINVAL);
        assert_errno(access(mount_path(mount, "%s/%s", mount->mail, no_process_ids[i]), F_OK),
                     ENOENT);
    }
    assert_true(through_run_as(mount, 0, "sh", "echo x > $M/abc").status != 0);
}

static void name_that_is_too_long_is_refused(void **state)
{
    struct mount *mount = mount_of(state);
    char name[NAME_MAX + 2];

    memset(name, '1', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_errno(open(mount_path(mount, "%s/%s", mount->mnt, name), THROUGH_REPLACE, 0666),
                 ENAMETOOLONG);
    assert_errno(access(mount_path(mount, "%s/%s", mount->mnt, name), F_OK), ENAMETOOLONG);
    name[NAME_MAX] = '\0';
    assert_errno(open(mount_path(mount, "%s/%s", mount->mnt, name), THROUGH_REPLACE, 0666), EINVAL);
}

static void missing_mailbox_is_enoent(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;

    assert_errno(open(through_box(mount, BOX), THROUGH_RECEIVE), ENOENT);
    assert_errno(open(through_box(mount, BOX), O_WRONLY | O_TRUNC | O_CLOEXEC), ENOENT);
    assert_errno(stat(through_box(mount, BOX), &status), ENOENT);
    assert_errno(unlink(through_box(mount, BOX)), ENOENT);
    assert_errno(truncate(through_box(mount, BOX), 0), ENOENT);
    assert_errno(chmod(through_box(mount, BOX), 0600), ENOENT);
    for (size_t i = 0; i < no_process_ids_count; i++)
        assert_errno(stat(mount_path(mount, "%s/%s", mount->mnt, no_process_ids[i]), &status),
                     ENOENT);
    /* A look that found nothing is not remembered once there is something. */
    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_size(mount, BOX, 5);
}

static void other_changes_of_the_tree_are_not_permitted(void **state)
{
    struct mount *mount = mount_of(state);
    const char *box = through_box(mount, BOX);
    const char *other = through_box(mount, OTHER);
    const char *third = through_box(mount, 4713);
    const char *name = mount_path(mount, "%s/name", mount->mnt);

    behind_expect_sent(mount, BOX, 1, "hello");
    behind_expect_sent(mount, OTHER, 1, "world");
    assert_errno(rename(box, other), EPERM);
    assert_errno(rename(box, third), EPERM);
    assert_errno(rename(box, name), EPERM);
    assert_errno(link(box, third), EPERM);
    assert_errno(link(box, name), EPERM);
    assert_errno(symlink("/etc/passwd", third), EPERM);
    assert_errno(symlink("/etc/passwd", name), EPERM);
    assert_errno(mkdir(third, 0700), EPERM);
    assert_errno(mkdir(name, 0700), EPERM);
    assert_errno(mkfifo(third, 0600), EPERM);
    assert_errno(mknod(third, S_IFREG | 0600, 0), EPERM);
    assert_errno(mknod(name, S_IFSOCK | 0600, 0), EPERM);
    if (geteuid() == 0)
        assert_errno(mknod(third, S_IFCHR | 0600, makedev(1, 3)), EPERM);
    assert_int_equal(rmdir(box), -1);
    behind_expect_frame(mount, BOX, 1, "hello", 5);
    behind_expect_frame(mount, OTHER, 1, "world", 5);
    through_expect_run(mount, "sh", "4711\n4712\n", "ls $M");
    through_expect_run(mount, "sh", "4711\n4712\n", "ls $B");
}

/* --- Hostile things -------------------------------------------------------------------------- */

enum {
    SYMLINK = 100,
    DANGLING,
    HARD_LINK,
    FIFO,
    DIRECTORY,
    SOCKET,
    DEVICE,
};

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    through_write_once(fd, text, strlen(text));
    close(fd);
}

/* Also a target in `work` for links; the last of the kinds that could be planted. */
static int plant(struct mount *mount)
{
    const char *target = mount_path(mount, "%s/target", mount->work);

    write_file(target, "target\n");
    assert_success(symlink(target, behind_box(mount, SYMLINK)));
    assert_success(
        symlink(mount_path(mount, "%s/nothing", mount->work), behind_box(mount, DANGLING)));
    assert_success(link(target, behind_box(mount, HARD_LINK)));
    assert_success(mkfifo(behind_box(mount, FIFO), 0666));
    assert_success(mkdir(behind_box(mount, DIRECTORY), 0777));
    assert_success(mknod(behind_box(mount, SOCKET), S_IFSOCK | 0666, 0));
    for (size_t i = 0; i < no_process_ids_count; i++)
        write_file(mount_path(mount, "%s/%s", mount->mail, no_process_ids[i]), "not a mailbox\n");
    if (geteuid() != 0)
        return SOCKET;
    assert_success(mknod(behind_box(mount, DEVICE), S_IFCHR | 0666, makedev(1, 3)));
    return DEVICE;
}

/* Of a file with several links the name is shown, since only that file itself could tell. */
static void hostile_things_are_not_shown(void **state)
{
    struct mount *mount = mount_of(state);
    int last = plant(mount);
    struct entry entries[64] = {0};
    struct stat status;

    assert_errno(lstat(through_box(mount, HARD_LINK), &status), ENOENT);
    assert_success(unlink(behind_box(mount, HARD_LINK)));

    behind_expect_sent(mount, 1, 1, "x");
    behind_expect_sent(mount, LAST_PID, 1, "x");
    assert_int_equal(read_names(mount, entries, 64), 2);
    assert_string_equal(entries[0].name, "1");
    assert_string_equal(entries[1].name, "2147483647");
    through_expect_run(mount, "sh", "1\n2147483647\n", "cd $M; printf '%%s\\n' *");
    through_expect_run(mount, "sh", "", "ls -a $M | grep -v '^[.]' | grep -vx '1\\|2147483647'; :");
    through_expect_run(mount, "sh", "", "ls -a $M | grep -xF -e .hidden -e .1; :");
    for (int pid = SYMLINK; pid <= last; pid++)
        assert_errno(lstat(through_box(mount, pid), &status), ENOENT);
    for (size_t i = 0; i < no_process_ids_count; i++)
        assert_errno(lstat(mount_path(mount, "%s/%s", mount->mnt, no_process_ids[i]), &status),
                     ENOENT);
}

static void hostile_things_can_be_neither_read_nor_written_nor_removed(void **state)
{
    struct mount *mount = mount_of(state);
    int last = plant(mount);

    for (int pid = SYMLINK; pid <= last; pid++) {
        struct stat before = stat_of(behind_box(mount, pid));
        struct stat after;

        assert_int_equal(open(through_box(mount, pid), THROUGH_RECEIVE), -1);
        assert_int_equal(open(through_box(mount, pid), O_RDWR | O_CLOEXEC), -1);
        if (open(through_box(mount, pid), THROUGH_REPLACE, 0666) >= 0)
            fail_msg("%d was opened with O_CREAT", pid);
        assert_int_equal(open(through_box(mount, pid), THROUGH_APPEND, 0666), -1);
        assert_int_equal(truncate(through_box(mount, pid), 0), -1);
        assert_int_equal(chmod(through_box(mount, pid), 0), -1);
        assert_int_equal(unlink(through_box(mount, pid)), -1);
        assert_int_equal(rmdir(through_box(mount, pid)), -1);
        after = stat_of(behind_box(mount, pid));
        assert_int_equal(after.st_ino, before.st_ino);
        assert_int_equal(after.st_mode, before.st_mode);
        assert_int_equal(after.st_size, before.st_size);
    }
    assert_errno(access(mount_path(mount, "%s/nothing", mount->work), F_OK), ENOENT);
    through_expect_run(mount, "sh", "target\n", "cat target");
    /* And all the rest goes on. */
    through_send(mount, BOX, "hello");
    through_expect_texts(mount, BOX, "hello", NULL);
}

static void thing_that_replaces_a_known_mailbox_is_not_followed(void **state)
{
    struct mount *mount = mount_of(state);
    const char *target = mount_path(mount, "%s/target", mount->work);
    int fd;

    write_file(target, "target\n");
    for (int pid = BOX; pid < BOX + 3; pid++) {
        through_send(mount, pid, "known");
        through_expect_size(mount, pid, 5);
        assert_success(unlink(behind_box(mount, pid)));
        if (pid == BOX)
            assert_success(symlink(target, behind_box(mount, pid)));
        else if (pid == BOX + 1)
            assert_success(link(target, behind_box(mount, pid)));
        else
            assert_success(mkfifo(behind_box(mount, pid), 0666));
        fd = open(through_box(mount, pid), THROUGH_APPEND, 0666);
        if (fd >= 0)
            assert_int_equal(write(fd, "x", 1), -1);
        if (fd >= 0)
            close(fd);
        assert_int_equal(open(through_box(mount, pid), THROUGH_RECEIVE), -1);
        assert_int_equal(truncate(through_box(mount, pid), 0), -1);
    }
    through_expect_run(mount, "sh", "target\n", "cat target");
}

static void lock_that_cannot_be_taken_is_an_error(void **state)
{
    struct mount *mount = mount_of(state);
    const char *target = mount_path(mount, "%s/target", mount->work);

    write_file(target, "target\n");
    assert_success(mkdir(behind_lock_file(mount, BOX), 0700));
    assert_success(symlink(target, behind_lock_file(mount, BOX + 1)));
    assert_success(mkfifo(behind_lock_file(mount, BOX + 2), 0600));
    for (int pid = BOX; pid < BOX + 3; pid++) {
        struct stat status;

        for (int append = 0; append < 2; append++) {
            if (through_run_as(mount, 0, "sh", "echo x %s $M/%d", append ? ">>" : ">", pid)
                    .status == 0)
                fail_msg("sent to %d without its lock", pid);
        }
        if (stat(behind_box(mount, pid), &status) == 0)
            assert_int_equal(status.st_size, 0);
    }
    through_expect_run(mount, "sh", "target\n", "cat target");
    through_send(mount, BOX + 3, "x");
}

/* --- The sparse file ------------------------------------------------------------------------- */

static unsigned long daemon_peak_kib(const struct mount *mount)
{
    char line[256];
    char path[64];
    unsigned long peak = 0;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)mount->daemon);
    status = fopen(path, "re");
    assert_non_null(status);
    while (peak == 0 && fgets(line, sizeof(line), status) != NULL) {
        if (sscanf(line, "VmHWM: %lu", &peak) != 1)
            peak = 0;
    }
    fclose(status);
    assert_true(peak > 0);
    return peak;
}

/* What the daemon has used of the processors: unlike the time, not a matter of who else runs. */
static long daemon_cpu_ms(const struct mount *mount)
{
    unsigned long user_ticks = 0;
    unsigned long system_ticks = 0;
    char path[64];
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)mount->daemon);
    status = fopen(path, "re");
    assert_non_null(status);
    assert_int_equal(fscanf(status,
                            "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                            &user_ticks, &system_ticks),
                     2);
    fclose(status);
    return (long)(user_ticks + system_ticks) * 1000 / sysconf(_SC_CLK_TCK);
}

static void plant_sparse(struct mount *mount, unsigned gib)
{
    int fd = open(behind_box(mount, BOX), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    if (ftruncate(fd, sparse_bytes(gib)) != 0) {
        print_message("skipped: no file of %u GiB can be made here\n", gib);
        close(fd);
        skip();
    }
    close(fd);
}

static void sparse_file_is_an_empty_mailbox_in_bounded_memory(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat below;

    plant_sparse(mount, 3);
    through_expect_size(mount, BOX, 0);
    through_expect_run(mount, "sh", "0 4711\n", "ls -l $M | awk 'NR > 1 {print $5, $NF}'");
    assert_in_range(daemon_cpu_ms(mount), 0, SCAN_CPU_MS);
    below = stat_of(behind_box(mount, BOX));
    assert_int_equal(below.st_size, sparse_bytes(3));
    assert_true(below.st_blocks < 100);

    through_expect_run(mount, "sh", "", "cat $M/%d", BOX);
    through_expect_size(mount, BOX, 0);
    through_send(mount, BOX, "hello");
    through_expect_texts(mount, BOX, "hello", NULL);
    through_expect_run(mount, "sh", NULL, "test $(du -sk $B | cut -f1) -lt 1024");
    if (!mount_is_sanitized())
        assert_in_range(daemon_peak_kib(mount), 1, RSS_MAX_KIB);
}

static void sparse_file_with_a_message_at_its_end_yields_it(void **state)
{
    struct mount *mount = mount_of(state);

    plant_sparse(mount, 1);
    behind_expect_sent(mount, BOX, 1, "hello");
    through_expect_size(mount, BOX, 5);
    through_expect_texts(mount, BOX, "hello", NULL);
    if (!mount_is_sanitized())
        assert_in_range(daemon_peak_kib(mount), 1, RSS_MAX_KIB);
}

static void sparse_file_delays_no_other_mailbox(void **state)
{
    enum { ANSWER_MS = 2000 };
    struct mount *mount = mount_of(state);
    int64_t start_ms;
    pid_t child;

    plant_sparse(mount, 1);
    child = process_fork(0);
    if (child == 0) {
        struct stat status;

        _exit(stat(through_box(mount, BOX), &status) == 0 && status.st_size == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    start_ms = process_clock_ms();
    for (int i = 0; i < 10; i++) {
        through_send(mount, OTHER, "hello");
        through_expect_texts(mount, OTHER, "hello", NULL);
    }
    assert_true(process_clock_ms() - start_ms < ANSWER_MS * mount_scale());
    assert_int_equal(process_wait(child, 15000), 0);
}

int main(void)
{
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options tmpfs = {.place = MOUNT_ON_TMPFS, .place_kib = 512};
    static const struct mount_options sparse = {.chatty = true, .seconds = 40};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(size_is_what_cat_would_print),
        MOUNT_TEST(size_follows_what_is_drained_and_refilled_behind),
        MOUNT_TEST(size_is_true_although_the_old_end_still_ends_a_message),
        MOUNT_TEST(size_follows_a_file_that_is_replaced_behind),
        MOUNT_TEST_WITH(size_of_a_torn_message_counts_once_it_is_whole, &chatty),
        MOUNT_TEST(times_owner_and_mode_are_those_of_the_file),
        MOUNT_TEST(looking_takes_nothing),
        MOUNT_TEST(ls_find_and_test_tell_who_has_mail),
        MOUNT_TEST(inode_numbers_are_stable_and_the_same_everywhere),
        MOUNT_TEST(many_mailboxes_are_all_listed_once),
        MOUNT_TEST(directory_is_that_of_the_mailboxes),
        MOUNT_TEST_WITH(statfs_is_that_of_the_file_system_below, &tmpfs),
        MOUNT_TEST(rm_removes_the_mailbox),
        MOUNT_TEST(rm_removes_what_is_in_flight_too),
        MOUNT_TEST(truncate_to_nothing_clears),
        MOUNT_TEST(truncate_to_another_size_is_refused),
        MOUNT_TEST(what_was_sent_at_once_may_be_cut_to_its_own_size),
        MOUNT_TEST(chmod_chown_and_touch_act_on_the_file),
        MOUNT_TEST(touch_makes_an_empty_mailbox),
        MOUNT_TEST(exclusive_creation_makes_one_and_refuses_a_second),
        MOUNT_TEST(name_that_is_no_process_id_is_refused),
        MOUNT_TEST(name_that_is_too_long_is_refused),
        MOUNT_TEST(missing_mailbox_is_enoent),
        MOUNT_TEST(other_changes_of_the_tree_are_not_permitted),
        MOUNT_TEST_WITH(hostile_things_are_not_shown, &chatty),
        MOUNT_TEST_WITH(hostile_things_can_be_neither_read_nor_written_nor_removed, &chatty),
        MOUNT_TEST_WITH(thing_that_replaces_a_known_mailbox_is_not_followed, &chatty),
        MOUNT_TEST_WITH(lock_that_cannot_be_taken_is_an_error, &chatty),
        MOUNT_TEST_WITH(sparse_file_is_an_empty_mailbox_in_bounded_memory, &sparse),
        MOUNT_TEST_WITH(sparse_file_with_a_message_at_its_end_yields_it, &sparse),
        MOUNT_TEST_WITH(sparse_file_delays_no_other_mailbox, &sparse),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("look", tests, NULL, NULL) == 0 ? 0 : 1;
}
