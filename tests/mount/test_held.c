/* Mailboxes whose lock somebody holds: who waits, who does not, and who dies meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mailboxes.h"
#include "mount.h"
#include "scratch.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    AT_ONCE_MS = 100,
    BUSY_MS = 3000,
    WAKE_MS = 10000, /* the usual is at once */
    READY = POLLIN | POLLRDNORM,
};

/* The views whose reads wait. */
static const char *const views[] = {".follow", ".envelope"};

enum {
    VIEWS = sizeof(views) / sizeof(views[0]),
};

static void make_box(struct mount *mount)
{
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
}

static int take_lock(struct mount *mount)
{
    int lock = behind_lock(mount, BOX);

    assert_true(lock >= 0);
    return lock;
}

/* Appends a message as the one who holds the lock already. */
static void append_as_holder(struct mount *mount, const char *text)
{
    uint8_t frame[BEHIND_HEADER_BYTES + 64];
    size_t length = strlen(text);
    int fd = open(behind_box(mount, BOX), O_WRONLY | O_APPEND | O_CLOEXEC);

    assert_true(fd >= 0 && length <= 64);
    behind_frame(frame, 1, text, length);
    memcpy(frame + BEHIND_HEADER_BYTES, text, length);
    through_write_once(fd, frame, BEHIND_HEADER_BYTES + length);
    assert_success(close(fd));
}

static int compare_times(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a;
    int64_t second = *(const int64_t *)b;

    return (first > second) - (first < second);
}

/* The usual time is what is promised; a single one may meet a machine that is busy. */
static void expect_at_once(int64_t *times_ms, size_t count)
{
    int64_t usual_ms;

    qsort(times_ms, count, sizeof(times_ms[0]), compare_times);
    usual_ms = times_ms[count / 2];
    print_message("it usually took %lld ms, at most %lld\n", (long long)usual_ms,
                  (long long)times_ms[count - 1]);
    if (usual_ms > (mount_is_sanitized() ? 10 : 1) * AT_ONCE_MS || times_ms[count - 1] > BUSY_MS)
        fail_msg("that is too long");
}

/* --- Those who follow ------------------------------------------------------------------------ */

static void write_once(int fd, struct through_answer *answer)
{
    answer->result = write(fd, "from a waiter", 13);
    answer->error = errno;
}

static struct through_waiter start_sender(struct mount *mount, int flags)
{
    int fd = through_open(mount, BOX, flags);
    struct through_waiter waiter = through_start(0, fd, write_once);

    assert_success(close(fd));
    return waiter;
}

/* Until the daemon has done with the killed sender: the follower is left, which waits for a message
 * or, having heard of one, for the lock. */
static void await_one_waiter(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + WAKE_MS;
    int64_t waiters;

    do {
        waiters = view_sample(mount, "gprocfs_parked_requests{kind=\"lock\"}") +
                  view_sample(mount, "gprocfs_parked_requests{kind=\"message\"}");
    } while (waiters != 1 && process_clock_ms() < deadline_ms);
    assert_int_equal(waiters, 1);
}

/* The sender waits for the lock, so the follower is not tried when the message comes; and then
 * nobody is left who waits for the lock. */
static void follower_gets_what_came_although_the_waiter_for_the_lock_was_killed(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    for (int i = 0; i < 10; i++) {
        struct through_waiter follower = through_start_reader(mount, views[0], BOX);
        struct through_waiter sender;
        int lock;

        through_await_parked(mount, "message", 1);
        lock = take_lock(mount);
        sender = start_sender(mount, THROUGH_APPEND);
        through_await_parked(mount, "lock", 1);
        append_as_holder(mount, "from the holder");
        (void)through_kill_ms(&sender);
        await_one_waiter(mount);
        assert_success(close(lock));
        through_expect_answer(&follower, "from the holder");
    }
    behind_expect_bytes(mount, BOX, NULL, 0);
}

/* The same, with the waiter killed before the message comes. */
static void follower_gets_what_comes_after_the_waiter_for_the_lock_was_killed(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    for (int i = 0; i < 10; i++) {
        struct through_waiter follower = through_start_reader(mount, views[0], BOX);
        struct through_waiter sender;
        int lock;

        through_await_parked(mount, "message", 1);
        lock = take_lock(mount);
        sender = start_sender(mount, THROUGH_APPEND);
        through_await_parked(mount, "lock", 1);
        (void)through_kill_ms(&sender);
        await_one_waiter(mount);
        append_as_holder(mount, "from the holder");
        assert_success(close(lock));
        through_expect_answer(&follower, "from the holder");
    }
    behind_expect_bytes(mount, BOX, NULL, 0);
}

/* What the daemon has in hand needs no lock: the one who waits for it is the next. */
static void follower_gets_what_is_given_back_while_the_lock_is_held(void **state)
{
    enum { LARGE_BYTES = 100000 }; /* more than is answered straight from the mailbox */
    struct mount *mount = mount_of(state);
    const uint8_t *payload = through_payload(mount, LARGE_BYTES, BOX);
    struct through_waiter follower, sender;
    char begin[16];
    int lock, other;

    assert_int_equal(behind_send(mount, BOX, 1, payload, LARGE_BYTES), 0);
    other = through_open_view(mount, views[0], BOX, THROUGH_RECEIVE);
    assert_int_equal(read(other, begin, sizeof(begin)), sizeof(begin));
    follower = through_start_reader(mount, views[0], BOX);
    through_await_parked(mount, "message", 1);
    lock = take_lock(mount);
    sender = start_sender(mount, THROUGH_APPEND);
    through_await_parked(mount, "lock", 1);
    assert_success(close(other));
    assert_true(through_await(&follower).result > 0); /* as much as it asked for */
    assert_success(close(lock));
    assert_int_equal(through_await(&sender).result, 13);
}

/* --- Those who are told that it takes too long ----------------------------------------------- */

static struct through_waiter await_time_out(struct mount *mount, int *lock)
{
    struct through_waiter sender;

    *lock = take_lock(mount);
    sender = start_sender(mount, THROUGH_APPEND);
    through_await_parked(mount, "lock", 1);
    return sender;
}

static void mailbox_can_be_used_as_soon_as_the_lock_is_free(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount);
    for (int i = 0; i < 5; i++) {
        int lock, fd;
        struct through_waiter sender = await_time_out(mount, &lock);

        assert_int_equal(through_expect_failure(&sender), ETIMEDOUT);
        assert_errno(open(through_box(mount, BOX), THROUGH_APPEND, 0666), ETIMEDOUT);
        assert_success(close(lock));
        fd = through_open(mount, BOX, THROUGH_APPEND);
        through_write_once(fd, "x", 1);
        assert_success(close(fd));
    }
}

/* It cannot look whether the lock is free, then. */
static void time_is_up_also_for_a_daemon_without_descriptors(void **state)
{
    struct rlimit before, none;
    struct mount *mount = mount_of(state);
    struct through_waiter sender;
    int lock;

    make_box(mount);
    sender = await_time_out(mount, &lock);
    assert_success(prlimit(mount->daemon, RLIMIT_NOFILE, NULL, &before));
    none = before;
    none.rlim_cur = 3;
    assert_success(prlimit(mount->daemon, RLIMIT_NOFILE, &none, NULL));
    assert_int_equal(through_expect_failure(&sender), ETIMEDOUT);
    assert_success(prlimit(mount->daemon, RLIMIT_NOFILE, &before, NULL));
    assert_success(close(lock));
}

/* --- Those who do not wait ------------------------------------------------------------------- */

static int look(int fd)
{
    struct pollfd asked = {.fd = fd, .events = READY};

    assert_in_range(poll(&asked, 1, 0), 0, 1);
    return asked.revents;
}

static int64_t expect_eagain_ms(int fd)
{
    int64_t begin_ms = process_clock_ms();
    char buffer[64];

    assert_errno((int)read(fd, buffer, sizeof(buffer)), EAGAIN);
    return process_clock_ms() - begin_ms;
}

static int open_view(struct mount *mount, const char *view)
{
    return through_open_view(mount, view, BOX, THROUGH_RECEIVE | O_NONBLOCK);
}

/* Polls and reads in turn until it has a message. */
static void poll_until_read(int fd, struct through_answer *answer)
{
    struct pollfd asked = {.fd = fd, .events = READY};

    do {
        answer->result = poll(&asked, 1, WAKE_MS);
        if (answer->result == 1)
            through_read_once(fd, answer);
    } while (answer->result < 0 && answer->error == EAGAIN);
}

static const char *held_message(const char *view)
{
    return strcmp(view, ".envelope") == 0 ? "1 4\nmail" : "mail";
}

/* When the lock is free: the daemon need not know it yet. */
static void expect_held_message(int fd, const char *view)
{
    struct through_answer answer = {.result = -1};

    poll_until_read(fd, &answer);
    assert_int_equal(answer.result, strlen(held_message(view)));
    assert_string_equal(answer.text, held_message(view));
}

static void reader_that_does_not_wait_gets_eagain_at_once_while_the_lock_is_held(void **state)
{
    enum { TIMES = 11 };
    struct mount *mount = mount_of(state);
    int64_t times_ms[TIMES];

    for (size_t i = 0; i < VIEWS; i++) {
        int lock;
        int fd;

        behind_expect_sent(mount, BOX, 1, "mail");
        fd = open_view(mount, views[i]);
        lock = take_lock(mount);
        for (int j = 0; j < TIMES; j++)
            times_ms[j] = expect_eagain_ms(fd);
        expect_at_once(times_ms, TIMES);
        assert_success(close(lock));
        expect_held_message(fd, views[i]);
        assert_success(close(fd));
    }
}

static void lock_that_becomes_free_wakes_who_polls(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < VIEWS * 5; i++) {
        const char *view = views[i % VIEWS];
        struct through_waiter poller;
        int lock;
        int fd;

        behind_expect_sent(mount, BOX, 1, "mail");
        fd = open_view(mount, view);
        assert_int_equal(look(fd), READY);
        lock = take_lock(mount);
        poller = through_start(0, fd, poll_until_read);
        through_await_parked(mount, "poll", 1);
        scratch_wait_asleep(poller.pid);
        assert_success(close(lock));
        through_expect_answer(&poller, held_message(view));
        assert_success(close(fd));
    }
}

/*
 * What a program does that waits for events: polls, reads until EAGAIN, polls. While the lock is
 * held that must not go round and round: the reads that it comes to are few, whatever it did first.
 */
static void expect_patient_loop(struct mount *mount, const char *view, bool reads_first)
{
    enum { HELD_MS = 300, READS_MOST = 10 };
    int64_t end_ms;
    int reads = 0;
    int lock;
    int fd;

    behind_expect_sent(mount, BOX, 1, "mail");
    fd = open_view(mount, view);
    lock = take_lock(mount);
    end_ms = process_clock_ms() + HELD_MS;
    if (reads_first)
        (void)expect_eagain_ms(fd);
    for (int64_t left_ms = HELD_MS; left_ms > 0; left_ms = end_ms - process_clock_ms()) {
        struct pollfd asked = {.fd = fd, .events = READY};

        if (poll(&asked, 1, (int)left_ms) != 1)
            continue;
        (void)expect_eagain_ms(fd);
        reads++;
    }
    assert_success(close(lock));
    expect_held_message(fd, view);
    assert_success(close(fd));
    if (reads > READS_MOST)
        fail_msg("%s: %d reads got nothing in %d ms", view, reads, HELD_MS);
}

static void loop_of_poll_and_read_rests_while_the_lock_is_held(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < VIEWS; i++) {
        expect_patient_loop(mount, views[i], false);
        expect_patient_loop(mount, views[i], true);
    }
}

/* --- Those who write -------------------------------------------------------------------------- */

enum {
    WRITERS = 20,
};

static char path_to_open[PATH_MAX];
static int flags_to_open;

static void open_and_write_once(int fd, struct through_answer *answer)
{
    fd = open(path_to_open, flags_to_open, 0666);
    write_once(fd, answer);
}

/* Half of the writers get files that were opened before anybody wrote; the rest open their own
 * while others wait. Whoever collects waits in its close. */
static void start_writers(struct mount *mount, struct through_waiter *writers, const int *flags,
                          size_t flags_count)
{
    int opened[WRITERS / 2];

    for (size_t i = 0; i < WRITERS / 2; i++)
        opened[i] = through_open(mount, BOX, flags[i % flags_count]);
    for (size_t i = 0; i < WRITERS / 2; i++)
        writers[i] = through_start(0, opened[i], write_once);
    for (size_t i = 0; i < WRITERS / 2; i++)
        assert_success(close(opened[i]));
    through_await_parked(mount, "lock", WRITERS / 2);
    snprintf(path_to_open, sizeof(path_to_open), "%s", through_box(mount, BOX));
    for (size_t i = WRITERS / 2; i < WRITERS; i++) {
        flags_to_open = flags[i % flags_count];
        writers[i] = through_start(0, -1, open_and_write_once);
    }
    through_await_parked(mount, "lock", WRITERS);
}

static void kill_in_any_order(struct through_waiter *writers, uint64_t seed)
{
    struct random random = {.state = seed};
    int64_t times_ms[WRITERS];

    for (size_t left = WRITERS; left > 0; left--) {
        size_t victim = random_below(&random, left);

        times_ms[left - 1] = through_kill_ms(&writers[victim]);
        writers[victim] = writers[left - 1];
    }
    expect_at_once(times_ms, WRITERS);
}

static void expect_writers_die_at_once(struct mount *mount, const int *flags, size_t flags_count)
{
    struct through_waiter writers[WRITERS];

    make_box(mount);
    for (uint64_t round = 0; round < 3; round++) {
        int lock = take_lock(mount);

        start_writers(mount, writers, flags, flags_count);
        kill_in_any_order(writers, round + 1);
        through_await_parked(mount, "lock", 0);
        assert_success(close(lock));
        through_await_open(mount, 0);
        through_send(mount, BOX, "after them");
        behind_expect_texts(mount, BOX, "after them", NULL);
        through_expect_texts(mount, BOX, "after them", NULL);
    }
}

static void waiting_appenders_die_at_once_in_any_order_and_send_nothing(void **state)
{
    static const int flags[] = {THROUGH_APPEND};

    expect_writers_die_at_once(mount_of(state), flags, 1);
}

static void waiting_writers_that_also_read_die_at_once_too(void **state)
{
    static const int flags[] = {O_RDWR | O_CREAT | O_CLOEXEC, THROUGH_APPEND,
                                O_RDWR | O_APPEND | O_CLOEXEC, O_WRONLY | O_CLOEXEC};

    expect_writers_die_at_once(mount_of(state), flags, sizeof(flags) / sizeof(flags[0]));
}

/* What else is done to a mailbox by its name. */
enum act {
    ACT_REPLACE,
    ACT_CHMOD,
    ACT_TOUCH,
    ACT_REMOVE,
    ACTS,
};

static const char *const act_names[] = {"opening with O_TRUNC", "chmod", "touch", "rm"};
static enum act act_to_do;

static void act_on_path(int fd, struct through_answer *answer)
{
    (void)fd;
    switch (act_to_do) {
    case ACT_REPLACE:
        answer->result = open(path_to_open, THROUGH_REPLACE, 0666);
        break;
    case ACT_CHMOD:
        answer->result = chmod(path_to_open, 0666);
        break;
    case ACT_TOUCH:
        answer->result = utimensat(AT_FDCWD, path_to_open, NULL, 0);
        break;
    default:
        answer->result = unlink(path_to_open);
        break;
    }
    answer->error = errno;
}

/* After a time-out: until the daemon has found that the lock is free again. */
static void await_free(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + WAKE_MS;
    int fd;

    do {
        fd = open(through_box(mount, BOX), THROUGH_APPEND, 0666);
    } while (fd < 0 && errno == ETIMEDOUT && process_clock_ms() < deadline_ms);
    assert_true(fd >= 0);
    assert_success(close(fd));
}

/* How long that takes while a writer waits for the lock, or at the moment when he comes to. */
static int64_t act_behind_a_writer_ms(struct mount *mount, enum act act, bool at_once)
{
    struct through_waiter sender;
    struct through_waiter other;
    int64_t took_ms;
    int lock;

    make_box(mount);
    through_expect_size(mount, BOX, 0); /* the kernel knows its name, as it usually does */
    snprintf(path_to_open, sizeof(path_to_open), "%s", through_box(mount, BOX));
    lock = take_lock(mount);
    sender = start_sender(mount, THROUGH_APPEND);
    if (!at_once)
        through_await_parked(mount, "lock", 1);
    act_to_do = act;
    took_ms = process_clock_ms();
    other = through_start(0, -1, act_on_path);
    (void)through_await(&other);
    took_ms = process_clock_ms() - took_ms;
    assert_success(close(lock));
    (void)through_await(&sender); /* it has sent or met the time-out */
    through_await_open(mount, 0);
    await_free(mount);
    if (access(path_to_open, F_OK) == 0)
        assert_success(truncate(path_to_open, 0));
    return took_ms;
}

/* They need the inode for a moment, which a write that waits would hold. */
static void others_are_not_stuck_behind_a_writer_that_waits(void **state)
{
    enum { ENOUGH_MS = 1000, ROUNDS = 6 };
    struct mount *mount = mount_of(state);
    int stuck = 0;

    for (int i = 0; i < ACTS * ROUNDS; i++) {
        enum act act = (enum act)(i % ACTS);
        int64_t took_ms = act_behind_a_writer_ms(mount, act, i >= ACTS);

        if (took_ms > ENOUGH_MS)
            print_message("%s took %lld ms\n", act_names[act], (long long)took_ms);
        stuck += took_ms > ENOUGH_MS;
    }
    assert_int_equal(stuck, 0);
}

static void write_and_sync(int fd, struct through_answer *answer)
{
    write_once(fd, answer);
    if (answer->result < 0)
        return;
    answer->result = fsync(fd);
    answer->error = errno;
}

/* On a descriptor of its own: a copy that another one closes, who is done, would send what is
 * collected before the fsync does. Begins when there is a byte for it in the gate. */
static int gate[2];

static void open_write_and_sync(int unused, struct through_answer *answer)
{
    int fd = open(path_to_open, THROUGH_REPLACE, 0666);
    char byte;

    (void)unused;
    answer->result = -1;
    answer->error = EIO;
    if (fd >= 0 && read(gate[0], &byte, 1) == 1)
        write_and_sync(fd, answer);
}

/* The kernel holds the inode's lock during an fsync, and so the second one is where no signal
 * reaches it. One alone may wait as long as it likes. */
static void of_two_that_sync_under_a_held_lock_neither_waits_for_the_other(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiters[2];
    int lock, fd;

    make_box(mount);
    snprintf(path_to_open, sizeof(path_to_open), "%s", through_box(mount, BOX));
    assert_success(pipe2(gate, O_CLOEXEC));
    fd = through_open(mount, BOX, THROUGH_REPLACE);
    for (int i = 0; i < 2; i++)
        waiters[i] = through_start(0, -1, open_write_and_sync);
    through_await_open(mount, 3);
    lock = take_lock(mount);
    assert_int_equal(write(gate[1], "go", 2), 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(through_expect_failure(&waiters[i]), ETIMEDOUT);
    close(gate[0]);
    close(gate[1]);
    through_await_open(mount, 1); /* nobody waits for a release */
    waiters[0] = through_start(0, fd, write_and_sync);
    through_await_parked(mount, "lock", 1);
    assert_success(close(lock));
    through_expect_answer(&waiters[0], "");
    assert_success(close(fd));
    behind_expect_texts(mount, BOX, "from a waiter", NULL);
}

static void inode_number_is_the_same_for_all_writers(void **state)
{
    enum { OPENERS = 5 };
    struct mount *mount = mount_of(state);
    struct stat by_name;
    int opened[OPENERS];

    make_box(mount);
    assert_success(stat(through_box(mount, BOX), &by_name));
    for (int i = 0; i < OPENERS; i++) {
        struct stat again;
        struct stat by_file;

        opened[i] = through_open(mount, BOX, i % 2 == 0 ? THROUGH_APPEND : O_RDWR | O_CLOEXEC);
        assert_success(fstat(opened[i], &by_file));
        assert_success(stat(through_box(mount, BOX), &again));
        assert_int_equal(by_file.st_ino, by_name.st_ino);
        assert_int_equal(again.st_ino, by_name.st_ino);
    }
    through_expect_run(mount, "sh", "same\n",
                       "[ $(ls -i $M | cut -d ' ' -f 1) = %llu ] && echo same",
                       (unsigned long long)by_name.st_ino);
    for (int i = 0; i < OPENERS; i++) {
        through_write_once(opened[i], "x", 1);
        assert_success(close(opened[i]));
    }
    behind_expect_texts(mount, BOX, "x", "x", "x", "x", "x", NULL);
}

int main(void)
{
    static const struct mount_options patient = {.options = "lock_timeout=0"};
    static const struct mount_options hasty = {
        .options = "lock_timeout=1", .chatty = true, .seconds = 60};
    static const struct mount_options brief = {
        .options = "lock_timeout=2", .chatty = true, .seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(follower_gets_what_came_although_the_waiter_for_the_lock_was_killed,
                        &patient),
        MOUNT_TEST_WITH(follower_gets_what_comes_after_the_waiter_for_the_lock_was_killed,
                        &patient),
        MOUNT_TEST_WITH(follower_gets_what_is_given_back_while_the_lock_is_held, &patient),
        MOUNT_TEST_WITH(mailbox_can_be_used_as_soon_as_the_lock_is_free, &hasty),
        MOUNT_TEST_WITH(time_is_up_also_for_a_daemon_without_descriptors, &hasty),
        MOUNT_TEST_WITH(reader_that_does_not_wait_gets_eagain_at_once_while_the_lock_is_held,
                        &patient),
        MOUNT_TEST_WITH(lock_that_becomes_free_wakes_who_polls, &patient),
        MOUNT_TEST_WITH(loop_of_poll_and_read_rests_while_the_lock_is_held, &patient),
        MOUNT_TEST_WITH(waiting_appenders_die_at_once_in_any_order_and_send_nothing, &patient),
        MOUNT_TEST_WITH(waiting_writers_that_also_read_die_at_once_too, &patient),
        MOUNT_TEST_WITH(others_are_not_stuck_behind_a_writer_that_waits, &brief),
        MOUNT_TEST_WITH(of_two_that_sync_under_a_held_lock_neither_waits_for_the_other, &patient),
        MOUNT_TEST_WITH(inode_number_is_the_same_for_all_writers, &patient),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("held", tests, NULL, NULL) == 0 ? 0 : 1;
}
