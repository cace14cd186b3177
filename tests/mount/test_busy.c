/* Much work, or a slow file system below: others are served meanwhile, and the mount can end. */
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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "pile.h"
#include "process.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    FIRST_OF_MANY = 100001,
    MAILBOXES = 100000,
    PAIRS = 1000,
    SLOW_MS = 15000,    /* the usual is at once */
    PAIR_MOST_MS = 250, /* 99 of 100; the usual is less than one */
    MESSAGE_BYTES = 1 << 20,
    MESSAGES = 1024,
    UNMOUNT_MS = 1000,
    CHILD_MS = 60000,
    FROZEN_MS = 15000, /* at most: then it is thawed, whatever the test does */
    PLACE_KIB = 5 << 20,
};

static size_t pairs_count(void)
{
    size_t count = PAIRS / mount_scale();

    return count < 20 ? 20 : count;
}

/* Pairs while there is work, and as many as there may be; how many. */
static size_t pairs_while_busy(struct mount *mount, int64_t *times_ns, size_t most)
{
    char path[PATH_MAX];
    size_t count = 0;
    struct stat status;

    snprintf(path, sizeof(path), "%s/busy", mount->work);
    while (count < most && stat(path, &status) == 0)
        pile_pairs(mount, OTHER, &times_ns[count++], 1);
    return count;
}

static void expect_served(const char *what, int64_t *times_ns, size_t count)
{
    struct pile_times times = pile_times(times_ns, count);

    print_message("%s: %zu pairs, median %.3f ms, 99 of 100 %.3f ms, most %.1f ms\n", what, count,
                  times.median_ms, times.p99_ms, times.most_ms);
    if (!mount_is_sanitized())
        assert_true(times.p99_ms <= PAIR_MOST_MS);
}

/* A child that does something for long; while it does, there is a file work/busy. */
static pid_t start_work(struct mount *mount, int (*work)(struct mount *mount))
{
    const char *busy = mount_path(mount, "%s/busy", mount->work);
    int fd = open(busy, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    pid_t pid;
    int error;

    assert_true(fd >= 0);
    assert_success(close(fd));
    pid = process_fork(0);
    if (pid == 0) {
        error = work(mount);
        (void)unlink(mount_path(mount, "%s/busy", mount->work));
        _exit(error);
    }
    assert_true(pid > 0);
    return pid;
}

/* --- Many mailboxes ----------------------------------------------------------------------------
 */

static int list_sizes(struct mount *mount)
{
    static const char *const nothing[] = {NULL};
    const char *script =
        mount_path(mount, "ls -lU '%s' | wc -l > '%s/listed'", mount->mnt, mount->work);
    const char *const argv[] = {"sh", "-c", script, NULL};
    pid_t pid;
    struct process_result result = process_run(0, argv, nothing, CHILD_MS, &pid);

    return result.status == 0 ? 0 : 1;
}

static void others_are_served_while_a_hundred_thousand_mailboxes_are_listed(void **state)
{
    struct mount *mount = mount_of(state);
    int64_t *times_ns = mount_keep(mount, calloc(PAIRS * 20, sizeof(*times_ns)));
    int mailboxes = MAILBOXES / (int)mount_scale();
    int64_t begin_ms;
    size_t count;
    pid_t lister;

    for (int i = 0; i < mailboxes; i++) {
        int fd = open(behind_box(mount, FIRST_OF_MANY + i), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

        assert_true(fd >= 0);
        if (i % 10 == 0) {
            uint8_t header[BEHIND_HEADER_BYTES];

            behind_frame(header, 1, "x", 0);
            through_write_once(fd, header, sizeof(header));
        }
        assert_success(close(fd));
    }
    pile_pairs(mount, OTHER, times_ns, pairs_count());
    expect_served("nothing else", times_ns, pairs_count());
    begin_ms = process_clock_ms();
    lister = start_work(mount, list_sizes);
    count = pairs_while_busy(mount, times_ns, (size_t)PAIRS * 20);
    assert_int_equal(process_wait(lister, CHILD_MS), 0);
    print_message("%d mailboxes listed in %lld ms\n", mailboxes,
                  (long long)(process_clock_ms() - begin_ms));
    expect_served("while they are listed", times_ns, count);
    through_expect_run(mount, "sh", "enough\n", "[ $(cat listed) -ge %d ] && echo enough",
                       mailboxes);
}

/* --- A large one -------------------------------------------------------------------------------
 */

/* Messages of a megabyte each; how many. */
static int fill(struct mount *mount, int box)
{
    int messages = MESSAGES / (int)mount_scale();

    behind_fill(mount, box, MESSAGE_BYTES, messages);
    return messages;
}

/* Reads until the end, in pieces of a megabyte; the bytes of it, or -errno. */
static int64_t read_all(const char *path, int64_t most_bytes)
{
    static char buffer[MESSAGE_BYTES];
    int fd = open(path, THROUGH_RECEIVE);
    int64_t total = 0;
    ssize_t got = fd >= 0 ? 0 : -1;

    while (fd >= 0 && total < most_bytes && (got = read(fd, buffer, sizeof(buffer))) > 0)
        total += got;
    return got < 0 ? -errno : total;
}

static int peek_all(struct mount *mount)
{
    return read_all(view_path(mount, ".peek", BOX), INT64_MAX) > 0 ? 0 : 1;
}

static int drain_all(struct mount *mount)
{
    return read_all(through_box(mount, BOX), INT64_MAX) > 0 ? 0 : 1;
}

static void work_beside(struct mount *mount, const char *what, int (*work)(struct mount *mount))
{
    int64_t *times_ns = mount_keep(mount, calloc(PAIRS * 20, sizeof(*times_ns)));
    int64_t begin_ms = process_clock_ms();
    pid_t worker = start_work(mount, work);
    size_t count = pairs_while_busy(mount, times_ns, (size_t)PAIRS * 20);

    assert_int_equal(process_wait(worker, CHILD_MS), 0);
    print_message("%s took %lld ms\n", what, (long long)(process_clock_ms() - begin_ms));
    expect_served(what, times_ns, count);
}

static void others_are_served_while_a_large_mailbox_is_looked_at_and_drained(void **state)
{
    struct mount *mount = mount_of(state);

    assert_true(fill(mount, BOX) > 0);
    work_beside(mount, "a .peek of 1 GiB", peek_all);
    work_beside(mount, "a drain of 1 GiB", drain_all);
    through_expect_size(mount, BOX, 0);
}

/* Waits until the daemon has begun to move. */
static void await_move(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS / 4;
    const char *script = "find $B/.gprocfs -name '4711.*' -size +0 | grep -q .";
    struct process_result result;

    do {
        result = through_run_as(mount, 0, "sh", "%s", script);
    } while (result.status != 0 && process_clock_ms() < deadline_ms);
    assert_int_equal(result.status, 0);
}

/* What the next mount hands over of it, in messages of a megabyte. */
static int64_t count_rest(struct mount *mount)
{
    int64_t bytes;

    assert_int_equal(mount_start(mount), 0);
    bytes = read_all(through_box(mount, BOX), INT64_MAX);
    assert_int_equal(bytes % MESSAGE_BYTES, 0);
    return bytes / MESSAGE_BYTES;
}

static void end_during_a_drain_is_at_once_and_loses_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    int messages = fill(mount, BOX);
    pid_t drainer = process_fork(0);
    int64_t unmounted_ms;
    int64_t begin_ms;
    int64_t received;

    if (drainer == 0) {
        /* One message, in one read: it is the whole mailbox that is moved for it. */
        received = read_all(through_box(mount, BOX), 1);
        _exit(received == MESSAGE_BYTES ? 1 : 0);
    }
    await_move(mount);
    begin_ms = process_clock_ms();
    assert_success(kill(mount->daemon, SIGTERM));
    unmounted_ms = pile_await_unmounted_ms(mount, CHILD_MS);
    assert_int_equal(mount_stop(mount), 0);
    print_message("unmounted after %lld ms, ended after %lld ms\n", (long long)unmounted_ms,
                  (long long)(process_clock_ms() - begin_ms));
    received = process_wait(drainer, CHILD_MS);
    received += count_rest(mount);
    print_message("%lld of %d messages\n", (long long)received, messages);
    assert_in_range(received, messages, messages + 1);
    if (!mount_is_sanitized())
        assert_in_range(unmounted_ms, 0, UNMOUNT_MS);
}

static void end_with_much_in_flight_is_at_once_and_loses_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    int messages = fill(mount, BOX);
    int64_t unmounted_ms;
    int64_t begin_ms;
    int64_t received;

    assert_int_equal(read_all(through_box(mount, BOX), 1), MESSAGE_BYTES);
    begin_ms = process_clock_ms();
    assert_success(kill(mount->daemon, SIGTERM));
    unmounted_ms = pile_await_unmounted_ms(mount, CHILD_MS);
    assert_int_equal(mount_stop(mount), 0);
    print_message("unmounted after %lld ms, ended after %lld ms\n", (long long)unmounted_ms,
                  (long long)(process_clock_ms() - begin_ms));
    received = 1 + count_rest(mount);
    assert_in_range(received, messages, messages + 1);
    if (!mount_is_sanitized())
        assert_in_range(unmounted_ms, 0, UNMOUNT_MS);
}

/* --- A file system that stands still -----------------------------------------------------------
 */

/* Thaws the mailbox directory at a byte, at the end of the test program, or when it is late. */
struct freezer {
    pid_t pid;
    int thaw;
};

static bool run_fsfreeze(const char *how, const char *path)
{
    static const char *const nothing[] = {NULL};
    const char *const argv[] = {"fsfreeze", how, path, NULL};
    pid_t pid;
    struct process_result result = process_run(0, argv, nothing, FROZEN_MS, &pid);

    free(result.out);
    free(result.err);
    return result.status == 0;
}

static struct freezer freeze(struct mount *mount)
{
    struct freezer freezer;
    int ends[2];

    assert_success(pipe2(ends, O_CLOEXEC));
    freezer.pid = process_fork(0);
    if (freezer.pid == 0) {
        struct pollfd told = {.fd = ends[0], .events = POLLIN};

        (void)prctl(PR_SET_PDEATHSIG, 0); /* it outlives the test program: that is what it is for */
        close(ends[1]);
        (void)poll(&told, 1, FROZEN_MS);
        _exit(run_fsfreeze("-u", mount->mail) ? 0 : 1);
    }
    close(ends[0]);
    freezer.thaw = ends[1];
    assert_true(freezer.pid > 0);
    if (!run_fsfreeze("-f", mount->mail))
        fail_msg("it cannot be frozen");
    return freezer;
}

static void thaw(struct freezer *freezer)
{
    close(freezer->thaw);
    assert_int_equal(process_wait(freezer->pid, FROZEN_MS), 0);
}

/* Everything that needs no write below, in a child: whether it was done in time. */
static struct mount *looked_at;

static void look_around(int fd, struct through_answer *answer)
{
    struct stat status;
    char text[32];
    int stats;

    (void)fd;
    answer->result = -1;
    snprintf(answer->text, sizeof(answer->text), "stat");
    if (stat(through_box(looked_at, OTHER), &status) != 0)
        return;
    snprintf(answer->text, sizeof(answer->text), "ls");
    if (access(mount_path(looked_at, "%s/.peek", looked_at->mnt), R_OK) != 0)
        return;
    snprintf(answer->text, sizeof(answer->text), ".stats");
    stats = open(mount_path(looked_at, "%s/.stats", looked_at->mnt), O_RDONLY | O_CLOEXEC);
    if (stats < 0 || read(stats, text, sizeof(text)) <= 0)
        return;
    snprintf(answer->text, sizeof(answer->text), "all of it");
    answer->result = 0;
}

/* How long it takes to look around; -1: it is not answered. */
static int64_t look_around_ms(struct mount *mount, int timeout_ms)
{
    struct through_waiter looker;
    struct pollfd answered;
    int64_t begin_ms = process_clock_ms();
    int64_t took_ms = -1;

    looked_at = mount;
    looker = through_start(0, -1, look_around);
    answered = (struct pollfd){.fd = looker.answer_fd, .events = POLLIN};
    if (poll(&answered, 1, timeout_ms) == 1) {
        struct through_answer answer = through_await(&looker);

        if (answer.result != 0)
            fail_msg("%s is refused", answer.text);
        return process_clock_ms() - begin_ms;
    }
    (void)kill(looker.pid, SIGKILL); /* reaped when it is thawed */
    close(looker.answer_fd);
    return took_ms;
}

/* Writers to as many mailboxes, each of which blocks below; then whether others are answered. */
static int64_t stall(struct mount *mount, struct pile *piles, int count)
{
    for (int i = 0; i < count; i++) {
        pile_init(&piles[i], mount, FIRST_OF_MANY + i, false);
        pile_add(&piles[i], PILE_APPEND);
    }
    (void)usleep(500000); /* there is no event: what blocks below says nothing */
    return look_around_ms(mount, 3000);
}

static void frozen_file_system_below_does_not_keep_looks_from_being_answered(void **state)
{
    enum { FEW = 32, MANY = 100 };
    struct mount *mount = mount_of(state);
    static struct pile piles[MANY];
    struct freezer freezer;
    struct pile waiter;
    int64_t killed_ns;
    pid_t holder;
    int64_t few_ms;
    int64_t many_ms;
    int fd;

    for (int i = 0; i < MANY; i++)
        assert_int_equal(behind_append(mount, FIRST_OF_MANY + i, NULL, 0), 0);
    behind_expect_sent(mount, OTHER, 1, "one");
    behind_expect_sent(mount, OTHER, 1, "two");
    fd = through_open(mount, OTHER, THROUGH_RECEIVE);
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    holder = pile_hold_lock(mount, BOX);
    pile_init(&waiter, mount, BOX, false);
    pile_add(&waiter, PILE_REPLACE);
    through_await_parked(mount, "lock", 1);
    freezer = freeze(mount);
    few_ms = stall(mount, piles, FEW);
    killed_ns = pile_kill_ns(&waiter, 0);
    print_message("who waited for a lock was gone %.1f ms after its kill\n",
                  (double)killed_ns / 1e6);
    print_message("%d writers stand still: stat, ls and .stats took %lld ms (-1: no answer)\n", FEW,
                  (long long)few_ms);
    many_ms = stall(mount, piles + FEW, MANY - FEW);
    print_message("%d writers stand still: stat, ls and .stats took %lld ms (-1: no answer)\n",
                  MANY, (long long)many_ms);
    thaw(&freezer);
    pile_let_go(&holder);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pile_await(&piles[i], 0, CHILD_MS), 0);
    through_expect_read(fd, "one");
    assert_success(close(fd));
    /* When a request of each thread that may be had stands still, the mount does, too: see fs/serve.c. */
    assert_true(few_ms >= 0);
}

/* --- One that is slow ------------------------------------------------------------------------ */

/* Another mount, of which a file stands in a mailbox's place: as slow as its daemon, which is stopped. */
struct slow {
    pid_t daemon;
    const char *box;
};

static pid_t start_other_mount(struct mount *mount, const char *mnt)
{
    const char *mail = mount_path(mount, "%s/mail", mount->work);
    const char *options = mount_path(mount, "lockdir=%s/locks", mount->work);
    int64_t deadline_ms = process_clock_ms() + SLOW_MS;
    struct stat before, now;
    pid_t daemon;

    assert_true(mkdir(mail, 0777) == 0 && mkdir(mnt, 0777) == 0 && stat(mnt, &before) == 0);
    daemon = process_fork(0);
    if (daemon == 0) {
        execl(mount_program(), "gprocfs", "-f", "-o", options, mail, mnt, (char *)NULL);
        _exit(127);
    }
    do {
        assert_success(stat(mnt, &now));
    } while (now.st_dev == before.st_dev && process_clock_ms() < deadline_ms);
    assert_true(now.st_dev != before.st_dev);
    return daemon;
}

static int mount_over(const char *from, const char *to)
{
    return mount(from, to, NULL, MS_BIND, NULL);
}

static struct slow make_slow(struct mount *mount, int box)
{
    const char *mnt = mount_path(mount, "%s/mnt", mount->work);
    struct slow slow = {.daemon = start_other_mount(mount, mnt), .box = behind_box(mount, box)};
    const char *its_box = mount_path(mount, "%s/1", mnt); /* whose attributes are never believed */
    int fd = open(its_box, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    assert_success(close(fd));
    assert_int_equal(behind_append(mount, box, NULL, 0), 0);
    if (mount_over(its_box, slow.box) != 0)
        fail_msg("nothing slow can be made");
    assert_success(kill(slow.daemon, SIGSTOP));
    assert_int_equal(waitpid(slow.daemon, NULL, WUNTRACED), slow.daemon); /* it stops in a moment */
    return slow;
}

static void end_slow(struct mount *mount, struct slow *slow)
{
    (void)kill(slow->daemon, SIGCONT);
    (void)umount2(slow->box, MNT_DETACH);
    (void)kill(slow->daemon, SIGTERM);
    (void)process_wait(slow->daemon, SLOW_MS);
    (void)umount2(mount_path(mount, "%s/mnt", mount->work), MNT_DETACH);
}

static pid_t start_look(struct mount *mount, int box)
{
    const char *path = through_box(mount, box);
    pid_t child = process_fork(0);

    if (child == 0) {
        struct stat status;

        _exit(stat(path, &status) == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    return child;
}

/* Until it waits for an answer of ours. */
static void await_asking(pid_t child)
{
    int64_t deadline_ms = process_clock_ms() + SLOW_MS;
    char path[64], text[64];
    bool asks = false;

    snprintf(path, sizeof(path), "/proc/%d/wchan", (int)child);
    do {
        FILE *file = fopen(path, "re");

        asks = file != NULL && fgets(text, sizeof(text), file) != NULL &&
               strcmp(text, "request_wait_answer") == 0;
        if (file != NULL)
            fclose(file);
    } while (!asks && process_clock_ms() < deadline_ms);
    if (!asks)
        fail_msg("nobody asks");
}

/* Unless the kernel is told that it may, it looks up one name of a directory after the other. */
static void name_that_is_slow_below_keeps_no_other_from_being_looked_up(void **state)
{
    struct mount *mount = mount_of(state);
    struct slow slow;
    pid_t slow_look, look;
    int status;

    assert_int_equal(behind_append(mount, OTHER, NULL, 0), 0);
    slow = make_slow(mount, BOX);
    slow_look = start_look(mount, BOX);
    await_asking(slow_look);
    look = start_look(mount, OTHER);
    status = process_wait(look, SLOW_MS);
    end_slow(mount, &slow);
    (void)process_wait(slow_look, SLOW_MS);
    assert_int_equal(status, 0);
}

int main(void)
{
    static const struct mount_options large = {
        .place = MOUNT_ON_TMPFS, .place_kib = PLACE_KIB, .seconds = 100, .chatty = true};
    static const struct mount_options many = {.seconds = 120, .chatty = true};
    static const struct mount_options root = {.needs_root = true, .chatty = true, .seconds = 60};
    static const struct mount_options frozen = {
        .place = MOUNT_ON_EXT4, .place_kib = 65536, .seconds = 60, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(others_are_served_while_a_hundred_thousand_mailboxes_are_listed, &many),
        MOUNT_TEST_WITH(others_are_served_while_a_large_mailbox_is_looked_at_and_drained, &large),
        MOUNT_TEST_WITH(end_during_a_drain_is_at_once_and_loses_nothing, &large),
        MOUNT_TEST_WITH(end_with_much_in_flight_is_at_once_and_loses_nothing, &large),
        MOUNT_TEST_WITH(frozen_file_system_below_does_not_keep_looks_from_being_answered, &frozen),
        MOUNT_TEST_WITH(name_that_is_slow_below_keeps_no_other_from_being_looked_up, &root),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("busy", tests, NULL, NULL) == 0 ? 0 : 1;
}
