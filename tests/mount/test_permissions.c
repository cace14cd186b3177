/*
 * Who may do what with a mailbox of which mode, through a daemon of root for everybody and through
 * one of an ordinary user: each cell of the matrix by a process with those ids. What is expected is
 * computed from the mode as POSIX says, and from one rule more: taking needs r and w.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

enum {
    FIRST_BOX = 4711,
    ALICE = 1000, /* owns mailboxes, and runs the daemon that is not root's */
    BOB = 1001,
    CAROL = 1002,
    TEAM = 3000, /* the group of mailboxes */
    ROW_MS = 10000,
    SENDER = 77,
    TEXTS_BYTES = 256,
    RACES_COUNT = 3000,
    R = 4,
    W = 2,
    X = 1,
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const mode_t modes[] = {0600, 0640, 0660, 0644, 0666, 0622, 0604, 0606,
                               0400, 0200, 0000, 0060, 0006, 0066, 0040, 0020};

/* --- What a process tries --------------------------------------------------------------------- */

/* 0, or the errno that it met; ENODATA: it got in, and not what it came for. */
typedef int try_function(const char *mnt, int pid);

enum {
    PATH_BYTES = PATH_MAX,
};

static const char *path_in(char path[PATH_BYTES], const char *mnt, const char *view, int pid)
{
    snprintf(path, PATH_BYTES, "%s/%s%d", mnt, view, pid);
    return path;
}

static int try_to_write(const char *mnt, const char *view, int pid, int flags)
{
    char path[PATH_BYTES];
    int fd = open(path_in(path, mnt, view, pid), flags, 0666);
    int error;

    if (fd < 0)
        return errno;
    error = through_write(fd, "evil", 4);
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

static int try_to_replace(const char *mnt, int pid)
{
    return try_to_write(mnt, "", pid, THROUGH_REPLACE);
}

static int try_to_append(const char *mnt, int pid)
{
    return try_to_write(mnt, "", pid, THROUGH_APPEND);
}

/* One read must return something with `text` in it. */
static int try_to_read(const char *mnt, const char *view, int pid, const char *text)
{
    char path[PATH_BYTES];
    char buffer[4096];
    int fd = open(path_in(path, mnt, view, pid), O_RDONLY | O_CLOEXEC);
    ssize_t got;
    int error;

    if (fd < 0)
        return errno;
    got = read(fd, buffer, sizeof(buffer) - 1);
    error = got < 0 ? errno : 0;
    buffer[got > 0 ? got : 0] = '\0';
    close(fd);
    if (error != 0)
        return error;
    return strstr(buffer, text) != NULL ? 0 : ENODATA;
}

static int try_to_take(const char *mnt, int pid)
{
    return try_to_read(mnt, "", pid, "hello");
}

static int try_to_follow(const char *mnt, int pid)
{
    return try_to_read(mnt, ".follow/", pid, "hello");
}

static int try_the_envelope(const char *mnt, int pid)
{
    return try_to_read(mnt, ".envelope/", pid, "77 5\nhello");
}

static int try_to_peek(const char *mnt, int pid)
{
    return try_to_read(mnt, ".peek/", pid, "hello");
}

static int try_to_list(const char *mnt, int pid)
{
    return try_to_read(mnt, ".list/", pid, "hello");
}

static int try_to_clear(const char *mnt, int pid)
{
    char path[PATH_BYTES];

    return truncate(path_in(path, mnt, "", pid), 0) == 0 ? 0 : errno;
}

static int try_to_remove(const char *mnt, int pid)
{
    char path[PATH_BYTES];

    return unlink(path_in(path, mnt, "", pid)) == 0 ? 0 : errno;
}

static int try_to_change_mode(const char *mnt, int pid)
{
    char path[PATH_BYTES];

    return chmod(path_in(path, mnt, "", pid), 0604) == 0 ? 0 : errno;
}

static int try_to_set_times(const char *mnt, int pid)
{
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    char path[PATH_BYTES];

    return utimensat(AT_FDCWD, path_in(path, mnt, "", pid), times, 0) == 0 ? 0 : errno;
}

static int try_to_touch(const char *mnt, int pid)
{
    char path[PATH_BYTES];

    return utimensat(AT_FDCWD, path_in(path, mnt, "", pid), NULL, 0) == 0 ? 0 : errno;
}

/* What decides. */
enum rule {
    RULE_MODE,      /* the mode of the mailbox */
    RULE_CREATE,    /* that, and what is asked of O_CREAT in a sticky directory */
    RULE_DIRECTORY, /* the directory */
    RULE_OWNER,     /* only the owner may */
    RULE_TOUCH,     /* the owner, or else the mode */
};

/* What it does to the file below. */
enum effect {
    EFFECT_NONE,
    EFFECT_SENT,
    EFFECT_EMPTY,
    EFFECT_GONE,
    EFFECT_MODE,
};

static const struct deed {
    const char *name;
    try_function *try;
    enum rule rule;
    unsigned rights; /* R and W of the mailbox */
    enum effect effect;
} deeds[] = {
    {">", try_to_replace, RULE_CREATE, W, EFFECT_SENT},
    {">>", try_to_append, RULE_CREATE, W, EFFECT_SENT},
    {"cat", try_to_take, RULE_MODE, R | W, EFFECT_EMPTY},
    {"cat .follow", try_to_follow, RULE_MODE, R | W, EFFECT_EMPTY},
    {"cat .envelope", try_the_envelope, RULE_MODE, R | W, EFFECT_EMPTY},
    {"cat .peek", try_to_peek, RULE_MODE, R, EFFECT_NONE},
    {"cat .list", try_to_list, RULE_MODE, R, EFFECT_NONE},
    {"truncate", try_to_clear, RULE_MODE, W, EFFECT_EMPTY},
    {"rm", try_to_remove, RULE_DIRECTORY, 0, EFFECT_GONE},
    {"chmod", try_to_change_mode, RULE_OWNER, 0, EFFECT_MODE},
    {"touch -d", try_to_set_times, RULE_OWNER, 0, EFFECT_NONE},
    {"touch", try_to_touch, RULE_TOUCH, W, EFFECT_NONE},
};

enum {
    DEEDS_COUNT = COUNT_OF(deeds),
};

/* --- Who tries it ----------------------------------------------------------------------------- */

static const gid_t team_alone[] = {TEAM};
/* More than a daemon expects, and TEAM the last. */
static gid_t team_of_many[200];

struct caller {
    const char *name;
    struct process_ids ids;
};

static const struct caller callers[] = {
    {"owner", {.uid = ALICE, .gid = ALICE}},
    {"owner in the group", {.uid = ALICE, .gid = TEAM}},
    {"group", {.uid = BOB, .gid = TEAM}},
    {"supplementary group", {.uid = BOB, .gid = BOB, .groups = team_alone, .groups_count = 1}},
    {"last of 200 groups", {.uid = BOB, .gid = BOB, .groups = team_of_many, .groups_count = 200}},
    {"other", {.uid = CAROL, .gid = CAROL}},
    {"root", {.uid = 0, .gid = 0}},
};

static void fill_team_of_many(void)
{
    for (gid_t i = 0; i < COUNT_OF(team_of_many); i++)
        team_of_many[i] = TEAM + 1 + i;
    team_of_many[COUNT_OF(team_of_many) - 1] = TEAM;
}

static bool is_in_group(const struct process_ids *who, gid_t group)
{
    bool found = who->gid == group;

    for (size_t i = 0; i < who->groups_count; i++)
        found = found || who->groups[i] == group;
    return found;
}

/* --- What is expected ------------------------------------------------------------------------- */

/* A file or directory, as far as it matters who may. */
struct owned {
    uid_t uid;
    gid_t gid;
    mode_t mode;
};

/* R, W and X of whoever it is; root has them all. */
static unsigned rights_of(const struct process_ids *who, const struct owned *what)
{
    if (who->uid == 0)
        return R | W | X;
    if (who->uid == what->uid)
        return (what->mode >> 6) & 7;
    return is_in_group(who, what->gid) ? (what->mode >> 3) & 7 : what->mode & 7;
}

static int protected_regular(void)
{
    FILE *file = fopen("/proc/sys/fs/protected_regular", "re");
    int value = 0;

    if (file != NULL && fscanf(file, "%d", &value) != 1)
        value = 0;
    if (file != NULL)
        fclose(file);
    return value;
}

/* proc_sys_fs(5): O_CREAT on what is somebody else's, where everybody may make files. */
static bool may_open_with_create(const struct process_ids *who, const struct owned *directory,
                                 const struct owned *box)
{
    int protection = protected_regular();

    if (protection == 0 || (directory->mode & S_ISVTX) == 0 || box->uid == directory->uid ||
        box->uid == who->uid)
        return true;
    return (directory->mode & 02) == 0 && !((directory->mode & 020) != 0 && protection >= 2);
}

static int expect_removal(const struct process_ids *who, const struct owned *directory,
                          const struct owned *box)
{
    if ((rights_of(who, directory) & W) == 0)
        return EACCES;
    if ((directory->mode & S_ISVTX) != 0 && who->uid != 0 && who->uid != box->uid &&
        who->uid != directory->uid)
        return EPERM;
    return 0;
}

/* The errno, or 0. */
static int expect(const struct process_ids *who, const struct owned *directory,
                  const struct owned *box, const struct deed *deed)
{
    bool owns = who->uid == 0 || who->uid == box->uid;
    bool has_rights = (rights_of(who, box) & deed->rights) == deed->rights;

    if ((rights_of(who, directory) & X) == 0)
        return EACCES;
    switch (deed->rule) {
    case RULE_MODE:
        return has_rights ? 0 : EACCES;
    case RULE_CREATE:
        return has_rights && may_open_with_create(who, directory, box) ? 0 : EACCES;
    case RULE_DIRECTORY:
        return expect_removal(who, directory, box);
    case RULE_OWNER:
        return owns ? 0 : EPERM;
    case RULE_TOUCH:
        return owns || has_rights ? 0 : EACCES;
    }
    return -1;
}

/* --- The files below -------------------------------------------------------------------------- */

/* A mailbox with one message, and no lock file. */
static void plant(struct mount *mount, int pid, const struct owned *box)
{
    const char *path = behind_box(mount, pid);
    uint8_t frame[BEHIND_HEADER_BYTES + 5];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    behind_frame(frame, SENDER, "hello", 5);
    memcpy(frame + BEHIND_HEADER_BYTES, "hello", 5);
    assert_true(fd >= 0);
    through_write_once(fd, frame, sizeof(frame));
    assert_success(close(fd));
    assert_success(chown(path, box->uid, box->gid));
    assert_success(chmod(path, box->mode));
}

/* The texts of the messages in the file, each followed by a comma. */
static void read_texts(struct mount *mount, int pid, char texts[TEXTS_BYTES])
{
    struct behind_message message;
    uint8_t *bytes = NULL;
    ssize_t size = behind_read(mount, pid, &bytes);
    size_t done = 0;

    texts[0] = '\0';
    while (size > 0 && done < (size_t)size) {
        ssize_t frame = behind_parse(bytes + done, (size_t)size - done, &message);
        size_t length = strlen(texts);

        if (frame <= 0) {
            snprintf(texts, TEXTS_BYTES, "damaged");
            break;
        }
        snprintf(texts + length, TEXTS_BYTES - length, "%.*s,", (int)message.payload_bytes,
                 (const char *)message.payload);
        done += (size_t)frame;
    }
    free(bytes);
}

/* What there must be after a deed with that effect; NULL: it is so, else what is wrong. */
static const char *compare_below(struct mount *mount, int pid, const struct owned *box,
                                 enum effect effect)
{
    static const char *const texts[] = {
        [EFFECT_NONE] = "hello,", [EFFECT_SENT] = "hello,evil,", [EFFECT_EMPTY] = "",
        [EFFECT_GONE] = "",       [EFFECT_MODE] = "hello,",
    };
    const char *path = behind_box(mount, pid);
    mode_t mode = effect == EFFECT_MODE ? 0604 : box->mode;
    struct stat status;
    char found[TEXTS_BYTES];

    if (lstat(path, &status) != 0)
        return effect == EFFECT_GONE ? NULL : "the file below is gone";
    if (effect == EFFECT_GONE)
        return "the file below is still there";
    if (status.st_uid != box->uid || status.st_gid != box->gid)
        return "the file below has another owner";
    if ((status.st_mode & 07777) != mode)
        return "the file below has another mode";
    read_texts(mount, pid, found);
    return strcmp(found, texts[effect]) == 0 ? NULL : "the file below holds something else";
}

/* --- The matrix ------------------------------------------------------------------------------- */

/* Where a matrix is tried. */
struct ground {
    struct mount *mount;
    struct owned directory;
    const struct process_ids *daemon; /* who is not root, and has no more rights for others */
    bool for_all;                     /* otherwise only its user may enter */
    int next_pid;
    int wrong_count;
};

static int expect_on(const struct ground *ground, const struct process_ids *who,
                     const struct owned *box, const struct deed *deed)
{
    int error;

    if (!ground->for_all && who->uid != ground->daemon->uid)
        return EACCES;
    error = expect(who, &ground->directory, box, deed);
    if (error == 0 && ground->daemon != NULL)
        error = expect(ground->daemon, &ground->directory, box, deed);
    return error;
}

/* Looks at what one deed came to. */
static void judge(struct ground *ground, const struct caller *caller, const struct owned *box,
                  const struct deed *deed, int pid, int got)
{
    int expected = expect_on(ground, &caller->ids, box, deed);
    const char *wrong = NULL;

    if (got == expected)
        wrong = compare_below(ground->mount, pid, box, got == 0 ? deed->effect : EFFECT_NONE);
    else
        wrong = "another outcome";
    if (wrong == NULL)
        return;
    ground->wrong_count++;
    print_error("%s, %s of %04o %u:%u in %04o %u:%u: expected %s, got %s: %s\n", caller->name,
                deed->name, (unsigned)box->mode, (unsigned)box->uid, (unsigned)box->gid,
                (unsigned)ground->directory.mode, (unsigned)ground->directory.uid,
                (unsigned)ground->directory.gid, expected == 0 ? "success" : strerror(expected),
                got < 0    ? "no answer"
                : got == 0 ? "success"
                           : strerror(got),
                wrong);
}

/* One caller tries everything on mailboxes of one kind, a fresh one for each deed. */
static void try_row(struct ground *ground, const struct caller *caller, const struct owned *box)
{
    int first = ground->next_pid;
    int *results = mmap(NULL, sizeof(int) * DEEDS_COUNT, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child;

    assert_true(results != MAP_FAILED);
    ground->next_pid += DEEDS_COUNT;
    for (int i = 0; i < DEEDS_COUNT; i++) {
        plant(ground->mount, first + i, box);
        results[i] = -1;
    }
    child = process_fork_as(&caller->ids);
    if (child == 0) {
        for (int i = 0; i < DEEDS_COUNT; i++)
            results[i] = deeds[i].try(ground->mount->mnt, first + i);
        _exit(0);
    }
    (void)process_wait(child, ROW_MS); /* what it did not come to is -1 */
    for (int i = 0; i < DEEDS_COUNT; i++) {
        judge(ground, caller, box, &deeds[i], first + i, results[i]);
        (void)unlink(behind_box(ground->mount, first + i)); /* most are left, some removed */
    }
    munmap(results, sizeof(int) * DEEDS_COUNT);
}

static void set_directory(struct ground *ground)
{
    const struct owned *directory = &ground->directory;

    assert_success(chown(ground->mount->mail, directory->uid, directory->gid));
    assert_success(chmod(ground->mount->mail, directory->mode));
}

/* The kernel believes what it knows of a directory for a moment, so each has a mount of its own. */
static void try_all_in(void **state, struct owned directory)
{
    struct ground ground = {
        .mount = mount_of(state), .directory = directory, .for_all = true, .next_pid = FIRST_BOX};

    set_directory(&ground);
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        struct owned box = {ALICE, TEAM, modes[i]};

        for (size_t j = 0; j < COUNT_OF(callers); j++)
            try_row(&ground, &callers[j], &box);
    }
    assert_int_equal(ground.wrong_count, 0);
}

static void modes_decide_in_a_sticky_directory(void **state)
{
    try_all_in(state, (struct owned){0, 0, 01777});
}

static void modes_decide_in_a_directory_for_everybody(void **state)
{
    try_all_in(state, (struct owned){0, 0, 0777});
}

static void modes_decide_in_a_directory_that_only_root_changes(void **state)
{
    try_all_in(state, (struct owned){0, 0, 0711});
}

static void modes_decide_in_a_directory_of_a_group(void **state)
{
    try_all_in(state, (struct owned){0, TEAM, 0770});
}

/* Who owns a sticky directory removes what he likes from it. */
static void modes_decide_in_a_sticky_directory_of_a_user(void **state)
{
    try_all_in(state, (struct owned){CAROL, TEAM, 01775});
}

/* A daemon of a user who is in no group: nobody else enters, and what is not that user's is judged
 * as for a program of that user. */
static void modes_decide_through_the_mount_of_a_user(void **state)
{
    static const struct process_ids alice = {.uid = ALICE, .gid = ALICE};
    static const struct caller visitors[] = {
        {"user", {.uid = ALICE, .gid = ALICE}},
        {"user in more groups",
         {.uid = ALICE, .gid = ALICE, .groups = team_alone, .groups_count = 1}},
        {"stranger", {.uid = BOB, .gid = ALICE}},
        {"root", {.uid = 0, .gid = 0}},
    };
    static const struct owned owners[] = {
        {ALICE, ALICE, 0}, {BOB, ALICE, 0}, {BOB, TEAM, 0}, {BOB, BOB, 0}, {0, 0, 0}};
    struct ground ground = {.mount = mount_of(state),
                            .directory = {ALICE, ALICE, 0755},
                            .daemon = &alice,
                            .next_pid = FIRST_BOX};

    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        for (size_t j = 0; j < COUNT_OF(owners); j++) {
            struct owned box = {owners[j].uid, owners[j].gid, modes[i]};

            for (size_t k = 0; k < COUNT_OF(visitors); k++)
                try_row(&ground, &visitors[k], &box);
        }
    }
    assert_int_equal(ground.wrong_count, 0);
}

/* --- The views -------------------------------------------------------------------------------- */

static mode_t mode_in(struct mount *mount, const char *view, int pid)
{
    struct stat status;
    char path[PATH_BYTES];

    assert_success(stat(path_in(path, mount->mnt, view, pid), &status));
    return status.st_mode & 07777;
}

static void views_show_who_may_read_them_and_nothing_to_write(void **state)
{
    struct mount *mount = mount_of(state);
    int pid = FIRST_BOX;

    for (mode_t mode = 0; mode <= 0777; mode++, pid++) {
        const struct owned box = {ALICE, TEAM, mode};
        mode_t readable = mode & 0444;
        mode_t takeable = readable & (mode << 1);

        if ((mode & 0111) != 0)
            continue;
        plant(mount, pid, &box);
        assert_int_equal(mode_in(mount, ".peek/", pid), readable);
        assert_int_equal(mode_in(mount, ".list/", pid), readable);
        assert_int_equal(mode_in(mount, ".follow/", pid), takeable);
        assert_int_equal(mode_in(mount, ".envelope/", pid), takeable);
        assert_int_equal(mode_in(mount, "", pid), mode);
    }
}

static int refusal(int result)
{
    return result < 0 ? errno : 0;
}

/* What a caller must not do in a view. 0, or the number of the line that was allowed. */
static int misuse(const char *mnt, const char *view, int pid, int missing)
{
    const int denied[] = {O_WRONLY,
                          O_RDWR,
                          O_WRONLY | O_APPEND,
                          O_WRONLY | O_TRUNC,
                          O_WRONLY | O_CREAT | O_TRUNC,
                          O_WRONLY | O_CREAT | O_APPEND};
    char path[PATH_BYTES];
    char other[PATH_BYTES];
    int error;

    path_in(path, mnt, view, pid);
    path_in(other, mnt, view, missing);
    for (size_t i = 0; i < COUNT_OF(denied); i++) {
        if ((error = refusal(open(path, denied[i] | O_CLOEXEC, 0666))) != EACCES)
            return (int)(1 + i);
    }
    if (refusal(open(other, THROUGH_REPLACE, 0666)) != EACCES ||
        refusal(open(other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) != EACCES)
        return 11;
    if ((error = refusal(chmod(path, 0666))) != EPERM && error != EACCES)
        return 12;
    if ((error = refusal(chown(path, getuid(), getgid()))) != EPERM && error != EACCES)
        return 13;
    if ((error = refusal(truncate(path, 0))) != EPERM && error != EACCES)
        return 14;
    if ((error = refusal(unlink(path))) != EPERM && error != EACCES)
        return 15;
    if ((error = refusal(mkdir(other, 0777))) != EPERM && error != EACCES)
        return 16;
    if ((error = refusal(utimensat(AT_FDCWD, path, NULL, 0))) != EPERM && error != EACCES)
        return 17;
    return 0;
}

static void views_can_be_neither_written_nor_changed_by_anybody(void **state)
{
    static const char *const views[] = {".follow/", ".envelope/", ".peek/", ".list/"};
    static const struct owned box = {ALICE, TEAM, 0666};
    struct mount *mount = mount_of(state);
    int pid = FIRST_BOX;

    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        for (size_t j = 0; j < COUNT_OF(views); j++, pid += 2) {
            const char *wrong;
            pid_t child;
            int status;

            plant(mount, pid, &box);
            child = process_fork_as(&callers[i].ids);
            if (child == 0)
                _exit(misuse(mount->mnt, views[j], pid, pid + 1));
            status = process_wait(child, ROW_MS);
            wrong = compare_below(mount, pid, &box, EFFECT_NONE);
            if (status != 0 || wrong != NULL)
                fail_msg("%s in %s: %d, %s", callers[i].name, views[j], status,
                         wrong != NULL ? wrong : "the file below is as it was");
            assert_errno(access(behind_box(mount, pid + 1), F_OK), ENOENT);
        }
    }
}

static void stats_are_for_everybody_to_read_and_for_nobody_to_write(void **state)
{
    struct mount *mount = mount_of(state);
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s/.stats", mount->mnt);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        pid_t child = process_fork_as(&callers[i].ids);

        if (child == 0)
            _exit(refusal(open(path, O_WRONLY | O_CLOEXEC)) != EACCES    ? 1
                  : refusal(open(path, THROUGH_REPLACE, 0666)) != EACCES ? 2
                  : refusal(truncate(path, 0)) == 0                      ? 3
                  : refusal(chmod(path, 0666)) == 0                      ? 4
                  : refusal(unlink(path)) == 0                           ? 5
                  : refusal(open(path, O_RDONLY | O_CLOEXEC)) != 0       ? 6
                                                                         : 0);
        if (process_wait(child, ROW_MS) != 0)
            fail_msg("%s: allowed, or not allowed to read", callers[i].name);
    }
}

/* --- What is made ----------------------------------------------------------------------------- */

static int make_exclusively(const char *mnt, int pid)
{
    return try_to_write(mnt, "", pid, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC);
}

/* As touch(1). */
static int make_by_touch(const char *mnt, int pid)
{
    char path[PATH_BYTES];
    int fd = open(path_in(path, mnt, "", pid),
                  O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0666);
    int error;

    if (fd < 0)
        return errno;
    error = futimens(fd, NULL) == 0 ? 0 : errno;
    return close(fd) != 0 && error == 0 ? errno : error;
}

static const struct making {
    const char *name;
    try_function *try;
    const char *texts;
} makings[] = {
    {">", try_to_replace, "evil,"},
    {">>", try_to_append, "evil,"},
    {"touch", make_by_touch, ""},
    {"O_EXCL", make_exclusively, "evil,"},
};

/* What the process with these ids and this umask met. */
static int make_as(struct mount *mount, const struct caller *caller, const struct making *making,
                   mode_t mask, int pid)
{
    pid_t child = process_fork_as(&caller->ids);

    if (child == 0) {
        umask(mask);
        _exit(making->try(mount->mnt, pid));
    }
    return process_wait(child, ROW_MS);
}

static bool is_made_well(struct mount *mount, const struct caller *caller,
                         const struct making *making, mode_t mask, int pid)
{
    struct stat status;
    char texts[TEXTS_BYTES];

    if (lstat(behind_box(mount, pid), &status) != 0)
        return false;
    read_texts(mount, pid, texts);
    return status.st_uid == caller->ids.uid && status.st_gid == caller->ids.gid &&
           (status.st_mode & 07777) == (0666 & ~mask) && strcmp(texts, making->texts) == 0;
}

static void what_is_made_is_the_callers_and_has_the_callers_umask(void **state)
{
    static const mode_t masks[] = {0000, 0002, 0022, 0027, 0077, 0177, 0222, 0444, 0777};
    struct mount *mount = mount_of(state);
    int pid = FIRST_BOX;

    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        for (size_t j = 0; j < COUNT_OF(masks); j++) {
            for (size_t k = 0; k < COUNT_OF(makings); k++, pid++) {
                int error = make_as(mount, &callers[i], &makings[k], masks[j], pid);

                if (error != 0 || !is_made_well(mount, &callers[i], &makings[k], masks[j], pid))
                    fail_msg("%s, %s, umask %04o: errno %d", callers[i].name, makings[k].name,
                             (unsigned)masks[j], error);
            }
        }
    }
}

/* Nor does a lock file appear for what was not made. */
static void who_may_not_write_the_directory_makes_nothing(void **state, struct owned directory)
{
    struct ground ground = {.mount = mount_of(state), .directory = directory};
    int pid = FIRST_BOX;

    set_directory(&ground);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        bool may = (rights_of(&callers[i].ids, &directory) & (W | X)) == (W | X);

        for (size_t k = 0; k < COUNT_OF(makings); k++, pid++) {
            int error = make_as(ground.mount, &callers[i], &makings[k], 022, pid);
            bool right =
                may ? error == 0 && is_made_well(ground.mount, &callers[i], &makings[k], 022, pid)
                    : error == EACCES && access(behind_box(ground.mount, pid), F_OK) != 0 &&
                          access(behind_lock_file(ground.mount, pid), F_OK) != 0;

            if (!right)
                fail_msg("%s, %s in %04o: errno %d", callers[i].name, makings[k].name,
                         (unsigned)directory.mode, error);
        }
    }
}

static void only_root_makes_mailboxes_in_a_directory_of_root(void **state)
{
    who_may_not_write_the_directory_makes_nothing(state, (struct owned){0, 0, 0755});
}

static void only_a_group_makes_mailboxes_in_its_directory(void **state)
{
    who_may_not_write_the_directory_makes_nothing(state, (struct owned){0, TEAM, 0775});
}

static void others_may_make_what_a_group_may_not(void **state)
{
    who_may_not_write_the_directory_makes_nothing(state, (struct owned){0, TEAM, 01757});
}

/* --- Between the look-up and the opening ------------------------------------------------------ */

/* Shared with a process that sends on and on. */
struct sending {
    atomic_int stop;
    atomic_uint tries_count;
};

static void send_on_and_on(const char *mnt, int pid, struct sending *sending)
{
    while (atomic_load(&sending->stop) == 0) {
        (void)try_to_append(mnt, pid); /* whatever it comes to */
        atomic_fetch_add(&sending->tries_count, 1);
    }
}

static void wait_for_tries(struct sending *sending, unsigned count)
{
    int64_t deadline_ms = process_clock_ms() + ROW_MS;
    unsigned from = atomic_load(&sending->tries_count);

    while (atomic_load(&sending->tries_count) - from < count && process_clock_ms() < deadline_ms)
        (void)sched_yield();
}

/* A mailbox of mode 0600 takes the place of what there is: what it holds after some tries to send.
 */
static void show_private_box(struct mount *mount, struct sending *sending, char texts[TEXTS_BYTES])
{
    static const struct owned private_box = {ALICE, ALICE, 0600};
    const char *box = behind_box(mount, FIRST_BOX);

    plant(mount, FIRST_BOX + 1, &private_box);
    (void)unlink(box); /* where it is not there, it is made just now */
    assert_success(rename(behind_box(mount, FIRST_BOX + 1), box));
    wait_for_tries(sending, 2);
    read_texts(mount, FIRST_BOX, texts);
}

/*
 * The kernel asks before it makes a file whether there is one, and judges no mode where there is
 * none. A private mailbox that appears between the two is private all the same.
 */
static void private_mailbox_that_appears_meanwhile_stays_private(void **state)
{
    static const struct process_ids carol = {.uid = CAROL, .gid = CAROL};
    struct mount *mount = mount_of(state);
    struct sending *sending =
        mmap(NULL, sizeof(*sending), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char texts[TEXTS_BYTES] = "hello,";
    pid_t child;

    assert_true(sending != MAP_FAILED);
    child = process_fork_as(&carol);
    if (child == 0) {
        send_on_and_on(mount->mnt, FIRST_BOX, sending);
        _exit(0);
    }
    for (int i = 0; i < RACES_COUNT && strcmp(texts, "hello,") == 0; i++)
        show_private_box(mount, sending, texts);
    atomic_store(&sending->stop, 1);
    assert_int_equal(process_wait(child, ROW_MS), 0);
    munmap(sending, sizeof(*sending));
    assert_string_equal(texts, "hello,");
}

int main(void)
{
    static const struct mount_options for_all = {.options = "allow_other",
                                                 .for_all = true,
                                                 .needs_root = true,
                                                 .chatty = true,
                                                 .seconds = 60};
    static const struct mount_options alice = {.uid = ALICE, .chatty = true, .seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(modes_decide_in_a_sticky_directory, &for_all),
        MOUNT_TEST_WITH(modes_decide_in_a_directory_for_everybody, &for_all),
        MOUNT_TEST_WITH(modes_decide_in_a_directory_that_only_root_changes, &for_all),
        MOUNT_TEST_WITH(modes_decide_in_a_directory_of_a_group, &for_all),
        MOUNT_TEST_WITH(modes_decide_in_a_sticky_directory_of_a_user, &for_all),
        MOUNT_TEST_WITH(modes_decide_through_the_mount_of_a_user, &alice),
        MOUNT_TEST_WITH(views_show_who_may_read_them_and_nothing_to_write, &for_all),
        MOUNT_TEST_WITH(views_can_be_neither_written_nor_changed_by_anybody, &for_all),
        MOUNT_TEST_WITH(stats_are_for_everybody_to_read_and_for_nobody_to_write, &for_all),
        MOUNT_TEST_WITH(what_is_made_is_the_callers_and_has_the_callers_umask, &for_all),
        MOUNT_TEST_WITH(only_root_makes_mailboxes_in_a_directory_of_root, &for_all),
        MOUNT_TEST_WITH(only_a_group_makes_mailboxes_in_its_directory, &for_all),
        MOUNT_TEST_WITH(others_may_make_what_a_group_may_not, &for_all),
        MOUNT_TEST_WITH(private_mailbox_that_appears_meanwhile_stays_private, &for_all),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    fill_team_of_many();
    return cmocka_run_group_tests_name("permissions", tests, NULL, NULL) == 0 ? 0 : 1;
}
