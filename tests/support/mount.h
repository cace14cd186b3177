/*
 * mount - a running gprocfs for each test, seen from outside only.
 *
 * A test that is registered with MOUNT_TEST() finds, under a fresh directory `root`:
 *
 *   mail    the mailbox directory, the daemon's first argument
 *   locks   given to it as -o lockdir=
 *   mnt     where it is mounted
 *   work    for what else the test needs
 *
 * and the daemon (the program that the environment variable GPROCFS names, else build/gprocfs) in
 * the foreground with its standard error in the file `log`.
 *
 * Nothing is left and nothing hangs, whatever the daemon or the test does. A second process, the
 * keeper, kills the daemon when the test's time is over, which ends every request that waits for
 * it; kills the test program if even that does not help; and cleans up after a test program that is
 * gone. Teardown wants the daemon to end by itself, with exit status 0 and nothing in its log that
 * the test did not expect.
 *
 * Tests may run in parallel, as programs; inside a program one test runs after the other.
 */
#ifndef TEST_MOUNT_H
#define TEST_MOUNT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    MOUNT_SKIPPED = 77, /* exit status of a test program that could not test anything */
};

/* What the mailbox directory is on. All but the first need root. */
enum mount_place {
    MOUNT_ON_DISK, /* under $TMPDIR, or /tmp */
    MOUNT_ON_TMPFS,
    MOUNT_ON_EXT4, /* on a loop device */
};

/* What a test wants; all zero is the usual. Must live as long as the program. */
struct mount_options {
    const char *options; /* more for the daemon's -o, or NULL */
    enum mount_place place;
    unsigned place_kib; /* size of the file system, where that is not the disk */
    uid_t uid;          /* who runs the daemon and owns the directories; 0: who runs the test */
    bool needs_root;    /* skipped for others; implied by a place, a uid and own_pids */
    bool for_all;       /* everybody may enter and make files in the directories */
    bool bare;          /* neither mail nor locks exists when the daemon starts */
    bool own_pids;      /* the daemon is the first process of a pid namespace below ours */
    bool chatty;        /* the daemon has something to log, such as damaged bytes */
    unsigned seconds;   /* until the keeper steps in; 0: 20 */
};

struct mount {
    const struct mount_options *options;
    const char *skip_reason; /* why there is no daemon; NULL: it runs */
    char root[PATH_MAX / 4];
    char mail[PATH_MAX / 2];
    char locks[PATH_MAX / 2];
    char mnt[PATH_MAX / 2];
    char work[PATH_MAX / 2];
    char log[PATH_MAX / 2];
    pid_t daemon; /* 0: does not run */
    int daemon_pidfd;
    pid_t keeper;  /* 0: none */
    int keeper_fd; /* a byte written to it sends the keeper home */
    void **kept;   /* freed at the end */
    size_t kept_count;
    unsigned next_path;
    char paths[16][PATH_MAX];
};

/*
 * Whether anything can be mounted here. If not, says why and returns false, for the program to
 * exit with MOUNT_SKIPPED; where CI=true is set, exits with 1 instead. From then on the program has
 * four minutes, until the keepers step in; from the last call, where there are several.
 */
bool mount_possible(void);

/*
 * Where /dev/fuse is closed to ordinary users (a machine without udev), opens it to them in this
 * program and its children alone: a mount namespace with a device node of its own in that place.
 * To be called by root before the first test.
 */
void mount_open_device_to_users(void);

/*
 * For cmocka. Setup finds options (or NULL) in *state, and puts a struct mount there. It succeeds
 * without a daemon where the test cannot run here: mount_of() then skips it.
 */
int mount_setup(void **state);
int mount_teardown(void **state);

#define MOUNT_TEST(f)                                                                              \
    {                                                                                              \
#f, f, mount_setup, mount_teardown, NULL                                                   \
    }
#define MOUNT_TEST_WITH(f, options)                                                                \
    {                                                                                              \
#f, f, mount_setup, mount_teardown, (void *)(uintptr_t)(options)                           \
    }

/* The test's mount; does not return where the test must be skipped. */
struct mount *mount_of(void **state);

/* The daemon's program, an absolute path; empty where there is none. */
const char *mount_program(void);

/* Ends the daemon with SIGTERM. 0: it unmounted and exited with 0, in time. Else -1, and says so.
 */
int mount_stop(struct mount *mount);

/* Starts it (again) on the same directories. 0: it is mounted. Else -1, and says why. */
int mount_start(struct mount *mount);

/* Kills the daemon: the last resort against a request that is never answered. */
void mount_kill(struct mount *mount);

/* A path, put together as printf does; good for the next 15 calls. */
const char *mount_path(struct mount *mount, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Frees `memory` (from malloc) when the test is over, even if it fails. Returns it. */
void *mount_keep(struct mount *mount, void *memory);

/*
 * Whether programs run under a sanitizer or the like (GPROC_TEST_TOOL), which makes memory and time
 * tell nothing.
 */
bool mount_is_sanitized(void);

/* Whether that is to see which lines run: it slows down, and hinders nothing. */
bool mount_is_measured(void);

/*
 * By how much a test that takes long is to be divided: GPROC_TEST_SCALE, else 10 where things are
 * sanitized and not measured, else 1.
 */
unsigned mount_scale(void);

#endif
