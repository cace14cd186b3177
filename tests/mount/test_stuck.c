/* A mailbox whose lock a stopped process holds: who waits there delays nobody, and can be ended. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mailboxes.h"
#include "mount.h"
#include "pile.h"
#include "process.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    WAITERS = 1000, /* half of them write */
    PAIRS = 1000,
    AT_ONCE_MS = 100,
    BUSY_MS = 3000,
    CHILD_MS = 15000, /* the usual is at once */
    SLOWER_MOST = 4,  /* twice is what we want; machines are noisy */
    NOISE_MS = 3,     /* of a machine that has other things to do */
    SEED = PILE_MOST_COUNT - 1,
};

static const char seed[] = "1023"; /* SEED */

static int waiters_count(void)
{
    int count = WAITERS / (int)mount_scale();

    return count < 40 ? 40 : count;
}

static size_t pairs_count(void)
{
    size_t count = PAIRS / mount_scale();

    return count < 20 ? 20 : count;
}

static int slack(void)
{
    return mount_is_sanitized() ? 10 : 1;
}

/* Half write, of these half with `>`; half read, of these half from the mailbox itself. */
static enum pile_kind kind_of(int number)
{
    static const enum pile_kind mixed[] = {
        PILE_REPLACE,    PILE_RECEIVE, PILE_APPEND,  PILE_FOLLOW,  PILE_REPLACE, PILE_RECEIVE,
        PILE_READ_WRITE, PILE_FOLLOW,  PILE_REPLACE, PILE_RECEIVE, PILE_APPEND,  PILE_ENVELOPE,
    };

    return mixed[(size_t)number % (sizeof(mixed) / sizeof(mixed[0]))];
}

/* As view_await_sample(), for a crowd: it takes its time. */
static void await_lock_waiters(struct mount *mount, int count)
{
    static const char sample[] = "gprocfs_parked_requests{kind=\"lock\"}";
    int64_t deadline_ms = process_clock_ms() + (int64_t)CHILD_MS * slack();
    int64_t found;

    while ((found = view_sample(mount, sample)) != count && process_clock_ms() < deadline_ms)
        (void)usleep(2000);
    if (found != count)
        fail_msg("%lld of %d wait for the lock", (long long)found, count);
}

/* All that wait for the lock of BOX, in which there is the seed. */
static pid_t gather(struct pile *pile, struct mount *mount)
{
    int count = waiters_count();
    int64_t begin_ns = through_clock_ns();
    pid_t holder;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    pile_init(pile, mount, BOX, false);
    for (int i = 0; i < count; i++)
        pile_add(pile, kind_of(i));
    await_lock_waiters(mount, count);
    print_message("%d processes wait for the lock, after %.1f s\n", count,
                  (double)(through_clock_ns() - begin_ns) / 1e9);
    return holder;
}

/* What the mailbox still has counts as received. */
static void note_what_is_left(struct pile *pile)
{
    int fd = through_open(pile->mount, BOX, THROUGH_RECEIVE);
    char buffer[64];
    ssize_t got;

    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        pile_note(pile, buffer, (size_t)got);
    assert_int_equal(got, 0);
    assert_success(close(fd));
}

/* --- Others -------------------------------------------------------------------------------------
 */

static void print_times(const char *what, const struct pile_times *times)
{
    print_message("%-28s median %7.3f ms, 99 of 100 %7.3f ms, most %7.3f ms\n", what,
                  times->median_ms, times->p99_ms, times->most_ms);
}

static void pile_that_waits_makes_another_mailbox_no_slower(void **state)
{
    struct mount *mount = mount_of(state);
    size_t count = pairs_count();
    int64_t *without_ns = mount_keep(mount, calloc(2 * count, sizeof(*without_ns)));
    int64_t *with_ns = mount_keep(mount, calloc(2 * count, sizeof(*with_ns)));
    struct pile_times without;
    struct pile_times with;
    pid_t holder;

    pile_pairs(mount, OTHER, without_ns, count / 10); /* to be warm */
    for (size_t round = 0; round < 2; round++) {
        struct pile pile;

        pile_pairs(mount, OTHER, without_ns + round * count, count);
        holder = gather(&pile, mount);
        pile_pairs(mount, OTHER, with_ns + round * count, count);
        pile_end(&pile);
        await_lock_waiters(mount, 0);
        pile_let_go(&holder);
    }
    without = pile_times(without_ns, 2 * count);
    with = pile_times(with_ns, 2 * count);
    print_times("pairs without the pile:", &without);
    print_times("pairs with the pile:", &with);
    print_message("99 of 100: %.2f times as slow\n", with.p99_ms / without.p99_ms);
    if (!mount_is_sanitized())
        assert_true(with.p99_ms <=
                    SLOWER_MOST * (without.p99_ms > NOISE_MS ? without.p99_ms : NOISE_MS));
}

/* --- Those who wait -----------------------------------------------------------------------------
 */

static void expect_at_once(int64_t *times_ns, size_t count)
{
    struct pile_times times = pile_times(times_ns, count);

    print_times("until a killed one was gone:", &times);
    if (times.median_ms > AT_ONCE_MS * slack() || times.most_ms > BUSY_MS * slack())
        fail_msg("it usually took %.1f ms, at most %.1f", times.median_ms, times.most_ms);
}

/* Each writer that was not killed has sent, and what it sent was received once. */
static void expect_exactly_the_living(struct pile *pile)
{
    int wrong = 0;

    for (int i = 0; i < pile->count; i++) {
        const struct pile_waiter *waiter = &pile->waiters[i];
        bool sent = pile_sends(waiter->kind) && !waiter->killed;

        if (pile->received[i] != (sent ? 1 : 0)) {
            print_message("number %d, kind %d, %s: received %d times\n", i, (int)waiter->kind,
                          waiter->killed ? "killed" : "not killed", pile->received[i]);
            wrong++;
        }
    }
    assert_int_equal(pile->received[SEED], 1);
    assert_int_equal(pile->received[PILE_MOST_COUNT], 0);
    assert_int_equal(wrong, 0);
}

static bool is_all_received(const struct pile *pile)
{
    for (int i = 0; i < pile->count; i++) {
        const struct pile_waiter *waiter = &pile->waiters[i];

        if (pile_sends(waiter->kind) && !waiter->killed && pile->received[i] == 0)
            return false;
    }
    return true;
}

/* Followers take all there is. One that is killed before it has noted what it read takes that with
 * it, so this is waited for. */
static void await_receipt(const struct pile *pile)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS;

    while (!is_all_received(pile) && process_clock_ms() < deadline_ms)
        (void)sched_yield();
}

/* Those that write all end, and without an error. */
static void await_writers(struct pile *pile)
{
    for (int i = 0; i < pile->count; i++) {
        if (pile_sends(pile->waiters[i].kind) && !pile->waiters[i].killed)
            assert_int_equal(pile_await(pile, i, CHILD_MS), 0);
    }
}

/* Kills so many of it, in a random order. */
static void kill_some(struct pile *pile, int count)
{
    int64_t *times_ns = mount_keep(pile->mount, calloc((size_t)count, sizeof(*times_ns)));
    struct random random = {.state = 4711};
    int killed = 0;

    while (killed < count) {
        int number = (int)random_below(&random, (size_t)pile->count);

        if (pile->waiters[number].pid > 0)
            times_ns[killed++] = pile_kill_ns(pile, number);
    }
    expect_at_once(times_ns, (size_t)count);
}

static void waiters_killed_in_any_order_are_gone_at_once_and_send_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    struct pile pile;
    pid_t holder = gather(&pile, mount);
    int living = pile.count / 2;

    kill_some(&pile, pile.count - living);
    await_lock_waiters(mount, living);
    pile_let_go(&holder);
    await_writers(&pile);
    through_await_parked(mount, "lock", 0);
    /* A read that is killed gives back what it has: so the readers first, one after the other. */
    await_receipt(&pile);
    pile_end(&pile);
    through_await_open(mount, 0);
    note_what_is_left(&pile);
    expect_exactly_the_living(&pile);
}

static void all_that_waited_go_on_when_the_holder_dies(void **state)
{
    struct mount *mount = mount_of(state);
    struct pile pile;
    pid_t holder = gather(&pile, mount);
    int64_t begin_ns = through_clock_ns();

    assert_success(kill(holder, SIGKILL));
    assert_int_equal(process_wait(holder, CHILD_MS), 128 + SIGKILL);
    await_writers(&pile);
    print_message("all have sent %.0f ms after the lock was given back\n",
                  (double)(through_clock_ns() - begin_ns) / 1e6);
    await_receipt(&pile);
    pile_end(&pile);
    through_await_open(mount, 0);
    note_what_is_left(&pile);
    expect_exactly_the_living(&pile);
}

/* --- The time-out -------------------------------------------------------------------------------
 */

/* Each has ended with ETIMEDOUT; nanoseconds between the first and the last of them. */
static int64_t expect_all_timed_out(struct pile *pile)
{
    int64_t first_ns = INT64_MAX;
    int64_t last_ns = 0;

    for (int i = 0; i < pile->count; i++) {
        const struct pile_waiter *waiter = &pile->waiters[i];

        assert_int_equal(pile_await(pile, i, CHILD_MS * slack()), ETIMEDOUT);
        first_ns = waiter->at_ns < first_ns ? waiter->at_ns : first_ns;
        last_ns = waiter->at_ns > last_ns ? waiter->at_ns : last_ns;
    }
    return last_ns - first_ns;
}

/* One of each kind, after the time-out. */
static void expect_failure_at_once(struct mount *mount)
{
    for (enum pile_kind kind = PILE_REPLACE; kind <= PILE_ENVELOPE; kind++) {
        struct pile one;
        int64_t begin_ns = through_clock_ns();

        pile_init(&one, mount, BOX, false);
        pile_add(&one, kind);
        assert_int_equal(pile_await(&one, 0, CHILD_MS), ETIMEDOUT);
        if (through_clock_ns() - begin_ns > 1000000000LL * slack())
            fail_msg("kind %d did not fail at once", (int)kind);
    }
}

static void expect_work_again(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS;
    int fd = -1;

    /* That the lock is free is seen when it is tried again, a hundred times a second. */
    while (fd < 0 && process_clock_ms() < deadline_ms) {
        fd = open(through_box(mount, BOX), THROUGH_APPEND, 0666);
        if (fd < 0)
            assert_int_equal(errno, ETIMEDOUT);
    }
    assert_true(fd >= 0);
    through_write_once(fd, "again", 5);
    assert_success(close(fd));
    through_expect_texts(mount, BOX, seed, "again", NULL);
}

static void time_out_ends_all_waiters_together_and_new_ones_at_once(void **state)
{
    struct mount *mount = mount_of(state);
    struct pile pile;
    int64_t spread_ns;
    int64_t begin_ns;
    pid_t holder;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    pile_init(&pile, mount, BOX, true);
    for (int i = 0; i < waiters_count(); i++)
        pile_add(&pile, kind_of(i));
    begin_ns = through_clock_ns();
    pile_open_gate(&pile);
    spread_ns = expect_all_timed_out(&pile);
    print_message(
        "%d of them: ETIMEDOUT %.1f s after the start, the last %.0f ms after the first\n",
        pile.count, (double)(through_clock_ns() - begin_ns) / 1e9, (double)spread_ns / 1e6);
    if (!mount_is_sanitized())
        assert_in_range(spread_ns, 0, 1500000000LL);
    expect_failure_at_once(mount);
    pile_let_go(&holder);
    expect_work_again(mount);
}

/* --- Names --------------------------------------------------------------------------------------
 */

static void make_and_remove_others(struct mount *mount, int64_t *times_ns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *path = through_box(mount, OTHER + 1 + (int)i);
        int64_t begin_ns = through_clock_ns();
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

        assert_true(fd >= 0);
        assert_success(close(fd));
        assert_success(unlink(path));
        times_ns[i] = through_clock_ns() - begin_ns;
    }
}

static void truncate_that_waits_is_gone_at_once_and_holds_no_name_up(void **state)
{
    enum { TIMES = 21 };
    struct mount *mount = mount_of(state);
    int64_t killed_ns[TIMES];
    int64_t names_ns[TIMES];
    struct pile_times names;
    struct pile pile;
    pid_t holder;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    pile_init(&pile, mount, BOX, false);
    for (int i = 0; i < TIMES; i++) {
        pile_add(&pile, PILE_TRUNCATE);
        through_await_parked(mount, "lock", 1);
        if (i == 0)
            make_and_remove_others(mount, names_ns, TIMES);
        killed_ns[i] = pile_kill_ns(&pile, i);
    }
    expect_at_once(killed_ns, TIMES);
    names = pile_times(names_ns, TIMES);
    print_times("another name, meanwhile:", &names);
    assert_true(names.median_ms <= AT_ONCE_MS * slack());
    pile_let_go(&holder);
    through_expect_texts(mount, BOX, seed, NULL);
}

/* Whoever comes to the same mailbox while a truncate waits there, and is killed. */
static void truncate_that_waits_holds_nobody_where_no_signal_reaches(void **state)
{
    static const enum pile_kind kinds[] = {PILE_REPLACE,  PILE_APPEND, PILE_READ_WRITE,
                                           PILE_RECEIVE,  PILE_FOLLOW, PILE_ENVELOPE,
                                           PILE_TRUNCATE, PILE_CHMOD};
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
    struct mount *mount = mount_of(state);
    struct pile pile;
    pid_t holder;
    int slow = 0;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    pile_init(&pile, mount, BOX, false);
    pile_add(&pile, PILE_TRUNCATE);
    through_await_parked(mount, "lock", 1);
    for (int i = 0; i < KINDS; i++) {
        int number = pile_add(&pile, kinds[i]);

        (void)usleep(100000); /* there is no event: it may be where nobody sees it */
        if (!pile_may_be_killed(&pile, number, BUSY_MS)) {
            print_message("kind %d waits where no signal reaches it\n", (int)kinds[i]);
            slow++;
        }
    }
    pile_let_go(&holder);
    pile_end(&pile);
    assert_int_equal(slow, 0);
}

static void remove_gives_up_soon_and_holds_other_names_up_no_longer(void **state)
{
    enum { TIMES = 11, GIVES_UP_MS = 50 };
    struct mount *mount = mount_of(state);
    int64_t gave_up_ns[TIMES];
    int64_t names_ns[TIMES];
    struct pile_times gave_up;
    struct pile_times names;
    struct pile pile;
    pid_t holder;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    pile_init(&pile, mount, BOX, false);
    for (int i = 0; i < TIMES; i++) {
        int64_t begin_ns = through_clock_ns();

        pile_add(&pile, PILE_REMOVE);
        make_and_remove_others(mount, &names_ns[i], 1);
        assert_int_equal(pile_await(&pile, i, CHILD_MS), ETIMEDOUT);
        gave_up_ns[i] = pile.waiters[i].at_ns - begin_ns;
    }
    gave_up = pile_times(gave_up_ns, TIMES);
    names = pile_times(names_ns, TIMES);
    print_times("until rm gave up:", &gave_up);
    print_times("another name, meanwhile:", &names);
    assert_true(gave_up.median_ms <= (GIVES_UP_MS + AT_ONCE_MS) * slack());
    assert_true(names.median_ms <= (GIVES_UP_MS + AT_ONCE_MS) * slack());
    pile_let_go(&holder);
    assert_success(unlink(through_box(mount, BOX)));
}

/* --- Ends of processes --------------------------------------------------------------------------
 */

/* Exits with a descriptor open that has collected a message. */
static pid_t exit_with_message(struct mount *mount, const char *text)
{
    pid_t pid = process_fork(0);

    if (pid == 0) {
        int fd = open(through_box(mount, BOX), THROUGH_REPLACE, 0666);

        _exit(fd >= 0 && through_write(fd, text, strlen(text)) == 0 ? 0 : 1);
    }
    assert_true(pid > 0);
    return pid;
}

static void exit_with_an_open_message_waits_for_the_lock_until_the_time_out(void **state)
{
    enum { TIME_OUT_MS = 3000 };
    struct mount *mount = mount_of(state);
    int64_t begin_ms;
    int64_t took_ms;
    pid_t holder;
    pid_t pid;

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    begin_ms = process_clock_ms();
    pid = exit_with_message(mount, "in time");
    through_await_parked(mount, "lock", 1);
    pile_let_go(&holder);
    assert_int_equal(process_wait(pid, CHILD_MS), 0);
    through_expect_texts(mount, BOX, seed, "in time", NULL);

    behind_expect_sent(mount, BOX, 1, seed);
    holder = pile_hold_lock(mount, BOX);
    begin_ms = process_clock_ms();
    pid = exit_with_message(mount, "too late");
    assert_int_equal(process_wait(pid, CHILD_MS), 0);
    took_ms = process_clock_ms() - begin_ms;
    print_message("it was gone after %lld ms\n", (long long)took_ms);
    assert_in_range(took_ms, TIME_OUT_MS / 2, TIME_OUT_MS + BUSY_MS * slack());
    pile_let_go(&holder);
    behind_expect_texts(mount, BOX, seed, NULL);
}

int main(void)
{
    static const struct mount_options patient = {
        .options = "lock_timeout=0", .seconds = 120, .chatty = true};
    static const struct mount_options two_seconds = {
        .options = "lock_timeout=2", .seconds = 90, .chatty = true};
    static const struct mount_options three_seconds = {
        .options = "lock_timeout=3", .seconds = 60, .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(pile_that_waits_makes_another_mailbox_no_slower, &patient),
        MOUNT_TEST_WITH(waiters_killed_in_any_order_are_gone_at_once_and_send_nothing, &patient),
        MOUNT_TEST_WITH(all_that_waited_go_on_when_the_holder_dies, &patient),
        MOUNT_TEST_WITH(time_out_ends_all_waiters_together_and_new_ones_at_once, &two_seconds),
        MOUNT_TEST_WITH(truncate_that_waits_is_gone_at_once_and_holds_no_name_up, &patient),
        MOUNT_TEST_WITH(truncate_that_waits_holds_nobody_where_no_signal_reaches, &patient),
        MOUNT_TEST_WITH(remove_gives_up_soon_and_holds_other_names_up_no_longer, &patient),
        MOUNT_TEST_WITH(exit_with_an_open_message_waits_for_the_lock_until_the_time_out,
                        &three_seconds),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("stuck", tests, NULL, NULL) == 0 ? 0 : 1;
}
