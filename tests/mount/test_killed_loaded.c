/*
 * Killed at any moment while many send and receive, and mounted again each time, the daemon loses
 * no message that was sent, invents none, and hands a message out twice only where it was handing
 * it over when it was killed.
 *
 * Senders and receivers are children that go on with each next mount. Every payload says who sent
 * it and as which of his; what became of each is counted in memory that they share.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "rig.h"
#include "through.h"

enum {
    BOX = 4711,
    SENDERS = 4,
    RECEIVERS = 4,
    EACH_MOST = 200000, /* messages of one sender */
    RUN_MS = 10000,
    LIFE_MOST_MS = 120, /* of one daemon */
    END_MS = 20000,
    READ_BYTES = 1 << 20,
    TEXT_BYTES = 64,
};

enum fate {
    UNTRIED = 0,
    TRIED, /* its sender got no answer, or an error */
    SENT,
};

/* Shared with all children. */
struct shared {
    atomic_uint mounts; /* so many times it has been mounted; those that wait for it sleep on it */
    atomic_bool over;
    atomic_uint strange, disorder, ends_in_error;
    atomic_uchar fate[SENDERS][EACH_MOST];
    atomic_uchar seen[SENDERS][EACH_MOST];
};

static struct shared *shared;

/* --- Children -------------------------------------------------------------------------------- */

/* Until there is another mount than number `known`, or all is over; what it is then. */
static unsigned await_mount(unsigned known)
{
    const struct timespec limit = {1, 0};

    while (atomic_load(&shared->mounts) == known && !atomic_load(&shared->over))
        (void)syscall(SYS_futex, &shared->mounts, FUTEX_WAIT, known, &limit, NULL, 0);
    return atomic_load(&shared->mounts);
}

static void announce_mount(void)
{
    atomic_fetch_add(&shared->mounts, 1);
    (void)syscall(SYS_futex, &shared->mounts, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Opens it, unless the mount is gone just then: the bare mountpoint below takes any file. */
static int open_mounted(const char *path, int flags)
{
    int fd = open(path, flags, 0666);
    struct statfs below;

    if (fd < 0 || (fstatfs(fd, &below) == 0 && below.f_type == FUSE_SUPER_MAGIC))
        return fd;
    close(fd);
    return -1;
}

/* By `>` and by `>>`, in turn. */
static enum fate send_one(const char *path, int sender, unsigned which)
{
    int fd = open_mounted(path, which % 2 == 0 ? THROUGH_REPLACE : THROUGH_APPEND);
    char text[TEXT_BYTES];
    int length = snprintf(text, sizeof(text), "%d %u of a sender\n", sender, which);
    bool wrote;

    if (fd < 0)
        return UNTRIED;
    atomic_store(&shared->fate[sender][which], TRIED);
    wrote = write(fd, text, (size_t)length) == length;
    return close(fd) == 0 && wrote ? SENT : TRIED;
}

static void be_sender(struct mount *mount, int sender)
{
    char path[PATH_MAX];
    unsigned known = atomic_load(&shared->mounts);

    snprintf(path, sizeof(path), "%s/%d", mount->mnt, BOX);
    for (unsigned which = 0; which < EACH_MOST && !atomic_load(&shared->over); which++) {
        enum fate fate = send_one(path, sender, which);

        if (fate == SENT)
            atomic_store(&shared->fate[sender][which], SENT);
        else
            known = await_mount(known);
    }
    _exit(0);
}

/* `last`: of each sender, what has come last to this reader of this mount. */
static void see(const char *text, size_t size_bytes, int last[SENDERS])
{
    char copy[TEXT_BYTES] = "", expected[TEXT_BYTES];
    unsigned which = 0;
    int sender = 0;

    memcpy(copy, text, size_bytes < sizeof(copy) ? size_bytes : sizeof(copy) - 1);
    if (sscanf(copy, "%d %u", &sender, &which) != 2 || sender < 0 || sender >= SENDERS ||
        which >= EACH_MOST) {
        atomic_fetch_add(&shared->strange, 1);
        return;
    }
    snprintf(expected, sizeof(expected), "%d %u of a sender\n", sender, which);
    if (strcmp(copy, expected) != 0 || atomic_load(&shared->fate[sender][which]) == UNTRIED)
        atomic_fetch_add(&shared->strange, 1);
    if ((int)which <= last[sender])
        atomic_fetch_add(&shared->disorder, 1);
    last[sender] = (int)which;
    atomic_fetch_add(&shared->seen[sender][which], 1);
}

static void see_envelopes(const char *bytes, size_t size_bytes, int last[SENDERS])
{
    while (size_bytes > 0) {
        const char *end = memchr(bytes, '\n', size_bytes);
        size_t head_bytes = end != NULL ? (size_t)(end - bytes) + 1 : 0;
        size_t payload_bytes = 0;

        if (end == NULL || sscanf(bytes, "%*d %zu", &payload_bytes) != 1 ||
            payload_bytes > size_bytes - head_bytes) {
            atomic_fetch_add(&shared->strange, 1);
            return;
        }
        see(bytes + head_bytes, payload_bytes, last);
        bytes += head_bytes + payload_bytes;
        size_bytes -= head_bytes + payload_bytes;
    }
}

/* Reads from one mount until it is dead, or until an end. True: there was an end. */
static bool receive(struct mount *mount, const char *view)
{
    static char buffer[READ_BYTES + 1];
    int last[SENDERS] = {-1, -1, -1, -1};
    char path[PATH_MAX];
    ssize_t got = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/%s%d", mount->mnt, view, BOX);
    fd = open_mounted(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (got = read(fd, buffer, READ_BYTES)) > 0) {
        buffer[got] = '\0';
        if (strcmp(view, ".envelope/") == 0)
            see_envelopes(buffer, (size_t)got, last);
        else
            see(buffer, (size_t)got, last);
    }
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return got == 0;
}

static void be_receiver(struct mount *mount, const char *view)
{
    const struct timespec pause = {0, 2000000}; /* `<pid>` does not wait for mail */
    unsigned known = atomic_load(&shared->mounts);

    while (!atomic_load(&shared->over)) {
        if (receive(mount, view))
            (void)nanosleep(&pause, NULL);
        else
            known = await_mount(known);
    }
    _exit(0);
}

/* --- The account ----------------------------------------------------------------------------- */

struct account {
    unsigned sent, unanswered, lost, twice, more;
};

static struct account make_account(void)
{
    struct account account = {0};

    for (int sender = 0; sender < SENDERS; sender++) {
        for (unsigned which = 0; which < EACH_MOST; which++) {
            unsigned seen = atomic_load(&shared->seen[sender][which]);
            unsigned fate = atomic_load(&shared->fate[sender][which]);

            account.sent += fate == SENT;
            account.unanswered += fate == TRIED;
            account.lost += fate == SENT && seen == 0;
            account.twice += seen == 2;
            account.more += seen > 2;
        }
    }
    return account;
}

static void start_children(struct mount *mount, pid_t children[SENDERS + RECEIVERS])
{
    static const char *const views[RECEIVERS] = {"", ".follow/", ".envelope/", ".follow/"};

    for (int i = 0; i < SENDERS; i++) {
        children[i] = process_fork(0);
        if (children[i] == 0)
            be_sender(mount, i);
    }
    for (int i = 0; i < RECEIVERS; i++) {
        children[SENDERS + i] = process_fork(0);
        if (children[SENDERS + i] == 0)
            be_receiver(mount, views[i]);
    }
}

/* Kills and mounts until the time is over. How often. */
static unsigned kill_and_mount(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + RUN_MS / (int)mount_scale();
    struct random random = {4};
    unsigned kills = 0;

    while (process_clock_ms() < deadline_ms) {
        /* The moment is to be any: this is what is waited for. */
        struct timespec life = {0, (long)random_below(&random, LIFE_MOST_MS * 1000) * 1000};

        (void)nanosleep(&life, NULL);
        mount_kill(mount);
        kills++;
        assert_success(mount_start(mount));
        announce_mount();
    }
    return kills;
}

static void drain(struct mount *mount)
{
    static const char last_view[] = "";

    assert_success(mount_start(mount));
    assert_true(receive(mount, last_view));
    assert_true(rig_store_is_clean(mount));
}

static void killed_at_any_moment_it_loses_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t children[SENDERS + RECEIVERS];
    struct account account;
    unsigned kills;
    int bad = 0;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    start_children(mount, children);
    kills = kill_and_mount(mount);
    atomic_store(&shared->over, true);
    /* Readers that wait hear of it by the end of the mount. */
    assert_success(mount_stop(mount));
    announce_mount();
    for (int i = 0; i < SENDERS + RECEIVERS; i++)
        bad += process_wait(children[i], END_MS) != 0;
    drain(mount);
    account = make_account();
    print_message("%u kills: %u sent, %u unanswered, %u lost, %u seen twice\n", kills, account.sent,
                  account.unanswered, account.lost, account.twice);
    assert_int_equal(bad, 0);
    assert_int_equal(account.lost, 0);
    /* In hand at two kills in a row, a message is seen three times. */
    assert_true(account.more <= account.twice);
    assert_int_equal(atomic_load(&shared->strange), 0);
    assert_int_equal(atomic_load(&shared->disorder), 0);
    assert_true(kills > 0 && account.sent > kills);
    munmap(shared, sizeof(*shared));
}

int main(void)
{
    static struct mount_options options = {.place_kib = 65536, .seconds = 120};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(killed_at_any_moment_it_loses_nothing, &options),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    rig_isolate();
    if (geteuid() == 0)
        options.place = MOUNT_ON_TMPFS;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
