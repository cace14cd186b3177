/* Receiving one's own messages: each once, in order, awake only when there is something. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gproc.h"
#include "process.h"
#include "scratch.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    SENDERS = 4,
    EACH = 5000,
    IDLE_MS = 300,
    /* What a receiver may go to sleep for: the wait itself, and a few times that the machine is
       busy. */
    SLEEPS_MOST = 10,
};

static struct gproc_owner *owner_of(struct scratch *scratch, int flags)
{
    struct gproc_owner *owner = NULL;

    assert_int_equal(gproc_owner_open(scratch->gproc, BOX, flags, SCRATCH_DEADLINE_MS, &owner), 0);
    return owner;
}

static void expect_text(struct gproc_owner *owner, int32_t sender, const char *text)
{
    struct gproc_mail mail;

    assert_int_equal(gproc_owner_receive(owner, &mail, SCRATCH_DEADLINE_MS), 0);
    assert_int_equal(mail.sender, sender);
    assert_int_equal(mail.payload_bytes, strlen(text));
    assert_memory_equal(mail.payload, text, strlen(text));
}

static void expect_nothing(struct gproc_owner *owner)
{
    struct gproc_mail mail;

    assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), -EAGAIN);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};

    return poll(&watched, 1, timeout_ms) == 1;
}

static void close_owner(struct gproc_owner *owner)
{
    assert_int_equal(gproc_owner_close(owner, SCRATCH_DEADLINE_MS), 0);
}

/* --- Opening */

static void a_mailbox_is_made_where_there_is_none(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);

    assert_int_equal(scratch_size(scratch, BOX), 0);
    expect_nothing(owner);
    close_owner(owner);
    assert_int_equal(scratch_size(scratch, BOX), 0);
}

static void what_is_older_than_ten_seconds_is_thrown_away_and_what_is_younger_kept(void **state)
{
    static const struct {
        double age_s;
        int flags;
        bool kept;
    } rows[] = {
        {0, 0, true},
        {5, 0, true},
        {-3600, 0, true}, /* a clock that was set back */
        {10.001, 0, false},
        {11, 0, false},
        {1e8, 0, false},
        {1e8, GPROC_OWNER_KEEP, true},
        {0, GPROC_OWNER_KEEP, true},
    };
    struct scratch *scratch = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gproc_owner *owner;

        scratch_send_text(scratch, BOX, 1, "waiting");
        scratch_age(scratch, BOX, rows[i].age_s);
        owner = owner_of(scratch, rows[i].flags);
        if (rows[i].kept)
            expect_text(owner, 1, "waiting");
        else
            assert_int_equal(scratch_size(scratch, BOX), 0);
        expect_nothing(owner);
        close_owner(owner);
    }
}

static void what_cannot_be_opened_is_refused_and_nothing_thrown_away(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = NULL;
    off_t size;
    int lock;

    assert_int_equal(gproc_owner_open(scratch->gproc, 0, 0, GPROC_NOW, &owner), -EINVAL);
    assert_int_equal(gproc_owner_open(scratch->gproc, -1, 0, GPROC_NOW, &owner), -EINVAL);
    assert_int_equal(gproc_owner_open(scratch->gproc, BOX, 2, GPROC_NOW, &owner), -EINVAL);
    assert_int_equal(scratch_size(scratch, BOX), -1);
    scratch_send_text(scratch, BOX, 1, "waiting");
    scratch_age(scratch, BOX, 100);
    size = scratch_size(scratch, BOX);
    lock = scratch_lock(scratch, BOX);
    assert_int_equal(gproc_owner_open(scratch->gproc, BOX, 0, GPROC_NOW, &owner), -EAGAIN);
    assert_int_equal(gproc_owner_open(scratch->gproc, BOX, 0, 20, &owner), -ETIMEDOUT);
    close(lock);
    assert_int_equal(scratch_size(scratch, BOX), size);
    assert_int_equal(symlink("elsewhere", scratch_box(scratch, OTHER)), 0);
    assert_int_equal(gproc_owner_open(scratch->gproc, OTHER, 0, GPROC_NOW, &owner), -EEXIST);
    assert_null(owner);
    assert_int_equal(gproc_owner_close(NULL, GPROC_NOW), 0);
}

/* --- Receiving */

static void messages_come_one_by_one_in_order_without_the_damage(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_append(scratch, BOX, "damage", 6);
    scratch_send_text(scratch, BOX, -2, "");
    scratch_send_text(scratch, BOX, 3, "three");
    expect_text(owner, 1, "one");
    assert_int_equal(scratch_size(scratch, BOX), 0); /* all was taken at once */
    scratch_send_text(scratch, BOX, 4, "four");
    expect_text(owner, -2, "");
    expect_text(owner, 3, "three");
    expect_text(owner, 4, "four");
    expect_nothing(owner);
    close_owner(owner);
}

static void a_large_message_comes_whole(void **state)
{
    enum { LARGE_BYTES = 3 * 1024 * 1024 + 1 };
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    uint8_t *payload = malloc(LARGE_BYTES);
    struct gproc_mail mail;

    assert_non_null(payload);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        payload[i] = (uint8_t)(i * 2654435761U >> 13);
    scratch_send(scratch, BOX, 1, payload, LARGE_BYTES);
    scratch_append(scratch, BOX, "damage", 6);
    scratch_send(scratch, BOX, 2, payload, LARGE_BYTES);
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), 0);
        assert_int_equal(mail.sender, i);
        assert_int_equal(mail.payload_bytes, LARGE_BYTES);
        assert_memory_equal(mail.payload, payload, LARGE_BYTES);
    }
    expect_nothing(owner);
    free(payload);
    close_owner(owner);
}

static void nothing_there_and_nothing_came_are_told_apart(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    struct gproc_mail mail;
    int64_t before_ms;
    int lock;

    assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), -EAGAIN);
    before_ms = process_clock_ms();
    assert_int_equal(gproc_owner_receive(owner, &mail, 50), -ETIMEDOUT);
    assert_true(process_clock_ms() - before_ms >= 49);
    /* The same while somebody sits on the lock; and what waits behind it is not lost. */
    scratch_send_text(scratch, BOX, 1, "behind");
    lock = scratch_lock(scratch, BOX);
    assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), -EAGAIN);
    assert_int_equal(gproc_owner_receive(owner, &mail, 20), -ETIMEDOUT);
    close(lock);
    expect_text(owner, 1, "behind");
    close_owner(owner);
}

/* In a child: opens, says so, receives once. Exits 0 if that is `text`. */
static pid_t fork_receiver(struct scratch *scratch, int timeout_ms, const char *text)
{
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    child = process_fork(0);
    if (child == 0) {
        struct gproc_owner *owner;
        struct gproc_mail mail;
        struct rusage before;
        struct rusage after;
        int result = gproc_owner_open(scratch->gproc, BOX, 0, SCRATCH_DEADLINE_MS, &owner);

        if (result < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        getrusage(RUSAGE_SELF, &before);
        result = gproc_owner_receive(owner, &mail, timeout_ms);
        getrusage(RUSAGE_SELF, &after);
        if (after.ru_nvcsw - before.ru_nvcsw > SLEEPS_MOST)
            _exit(2);
        if (text == NULL)
            _exit(result == -ETIMEDOUT ? 0 : 3);
        if (result < 0)
            _exit(-result); /* what it was can be read in the failed assertion */
        _exit(mail.payload_bytes == strlen(text) &&
                      memcmp(mail.payload, text, mail.payload_bytes) == 0
                  ? 0
                  : 4);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void who_waits_is_woken_by_a_write_as_of_the_go_package(void **state)
{
    static const int timeouts_ms[] = {GPROC_FOREVER, SCRATCH_DEADLINE_MS};
    struct scratch *scratch = *state;

    for (size_t i = 0; i < sizeof(timeouts_ms) / sizeof(timeouts_ms[0]); i++) {
        pid_t child = fork_receiver(scratch, timeouts_ms[i], "wake up");

        scratch_wait_asleep(child);
        scratch_send_text(scratch, BOX, 1, "wake up");
        assert_int_equal(process_wait(child, SCRATCH_DEADLINE_MS), 0);
    }
}

static void who_waits_is_woken_whatever_became_of_mailbox_and_directory(void **state)
{
    enum { BOX_DELETED, DIRECTORY_DELETED, DIRECTORY_MOVED, LOCKS_DELETED, CASES };
    struct scratch *scratch = *state;
    char away[400];

    for (int i = 0; i < CASES; i++) {
        pid_t child = fork_receiver(scratch, GPROC_FOREVER, "still there");

        scratch_wait_asleep(child);
        if (i == BOX_DELETED)
            assert_int_equal(unlink(scratch_box(scratch, BOX)), 0);
        else if (i == DIRECTORY_DELETED)
            scratch_delete(scratch->mailboxes);
        else if (i == LOCKS_DELETED)
            scratch_delete(scratch->locks);
        snprintf(away, sizeof(away), "%s/away", scratch->path);
        if (i == DIRECTORY_MOVED)
            assert_int_equal(rename(scratch->mailboxes, away), 0);
        scratch_wait_asleep(child);
        scratch_send_text(scratch, BOX, 1, "still there");
        assert_int_equal(process_wait(child, SCRATCH_DEADLINE_MS), 0);
    }
}

static void who_waits_sleeps_all_the_time_whatever_others_get(void **state)
{
    struct scratch *scratch = *state;
    pid_t child;
    char beside[400];

    scratch_send_text(scratch, OTHER, 1, "first"); /* a mailbox that comes is an event, once */
    child = fork_receiver(scratch, IDLE_MS, NULL);
    for (int i = 0; i < 500; i++) {
        scratch_send_text(scratch, OTHER, 1, "not for you");
        snprintf(beside, sizeof(beside), "%s/beside", scratch->path);
        close(open(beside, O_CREAT | O_WRONLY, 0600));
        unlink(beside);
    }
    assert_int_equal(process_wait(child, SCRATCH_DEADLINE_MS), 0);
}

static void ignore(int signal)
{
    (void)signal;
}

static void a_signal_ends_the_wait(void **state)
{
    const struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    struct scratch *scratch = *state;
    struct sigaction was;
    pid_t child;
    int status;

    assert_int_equal(sigaction(SIGUSR1, &action, &was), 0);
    child = fork_receiver(scratch, GPROC_FOREVER, "");
    scratch_wait_asleep(child);
    kill(child, SIGUSR1);
    status = process_wait(child, SCRATCH_DEADLINE_MS);
    sigaction(SIGUSR1, &was, NULL);
    assert_int_equal(status, EINTR);
}

static void four_senders_each_message_once_and_each_senders_in_order(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner;
    int next[SENDERS] = {0};
    pid_t children[SENDERS];
    struct gproc_mail mail;

    for (int i = 0; i < SENDERS; i++) {
        children[i] = process_fork(0);
        if (children[i] == 0) {
            for (int k = 0; k < EACH; k++) {
                if (i % 2 == 0)
                    scratch_send(scratch, BOX, i, &k, sizeof(k));
                else if (gproc_send_as(scratch->gproc, BOX, i, &k, sizeof(k), GPROC_FOREVER) != 0)
                    _exit(1);
            }
            _exit(0);
        }
    }
    owner = owner_of(scratch, 0); /* after the forks, of which each would leak it */
    for (int received = 0; received < SENDERS * EACH; received++) {
        int number;

        assert_int_equal(gproc_owner_receive(owner, &mail, SCRATCH_DEADLINE_MS), 0);
        assert_int_equal(mail.payload_bytes, sizeof(number));
        memcpy(&number, mail.payload, sizeof(number));
        assert_in_range(mail.sender, 0, SENDERS - 1);
        assert_int_equal(number, next[mail.sender]);
        next[mail.sender]++;
    }
    for (int i = 0; i < SENDERS; i++) {
        assert_int_equal(process_wait(children[i], SCRATCH_DEADLINE_MS), 0);
        assert_int_equal(next[i], EACH);
    }
    expect_nothing(owner);
    close_owner(owner);
}

/* --- The descriptor */

static void the_descriptor_is_readable_while_there_is_something(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner;
    int fd;

    scratch_send_text(scratch, BOX, 1, "before it was opened");
    owner = owner_of(scratch, 0);
    fd = gproc_owner_fd(owner);
    assert_true(fd >= 0);
    assert_int_equal(gproc_owner_fd(owner), fd);
    assert_true(is_readable(fd, 0));
    expect_text(owner, 1, "before it was opened");
    for (int i = 0; i < 3; i++) {
        while (is_readable(fd, 0)) /* it may be in vain; but not for ever */
            expect_nothing(owner);
        scratch_send_text(scratch, BOX, 1, "one");
        scratch_send_text(scratch, BOX, 2, "two");
        scratch_send_text(scratch, BOX, 3, "three");
        assert_true(is_readable(fd, 0));
        expect_text(owner, 1, "one");
        assert_true(is_readable(fd, 0)); /* though all events have been taken */
        expect_text(owner, 2, "two");
        assert_true(is_readable(fd, 0));
        expect_text(owner, 3, "three");
    }
    close_owner(owner);
}

static void the_descriptor_remembers_what_was_behind_a_held_lock(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    int fd = gproc_owner_fd(owner);
    int wakes = 0;
    int lock;
    int64_t end_ms;

    expect_nothing(owner);
    scratch_send_text(scratch, BOX, 1, "behind");
    lock = scratch_lock(scratch, BOX);
    end_ms = process_clock_ms() + IDLE_MS;
    while (process_clock_ms() < end_ms) {
        if (is_readable(fd, 20))
            wakes++;
        expect_nothing(owner);
    }
    assert_in_range(wakes, 1, 20); /* it neither sleeps over it nor spins */
    close(lock);
    assert_true(is_readable(fd, SCRATCH_DEADLINE_MS));
    expect_text(owner, 1, "behind");
    close_owner(owner);
}

/* --- Giving back */

static void what_was_not_received_is_put_back_in_front(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    uint8_t *before;
    uint8_t *after;
    size_t before_bytes;
    size_t after_bytes;

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_send_text(scratch, BOX, 2, "two");
    scratch_send_text(scratch, BOX, 3, "three");
    before = scratch_read(scratch_box(scratch, BOX), &before_bytes);
    expect_text(owner, 1, "one");
    assert_int_equal(gproc_owner_put_back(owner, GPROC_NOW), 0);
    after = scratch_read(scratch_box(scratch, BOX), &after_bytes);
    assert_int_equal(after_bytes, before_bytes - 15);
    assert_memory_equal(after, before + 15, after_bytes);
    free(before);
    free(after);

    expect_text(owner, 2, "two");
    scratch_send_text(scratch, BOX, 4, "four");
    scratch_append(scratch, BOX, "damage", 6);
    close_owner(owner);
    assert_int_equal(scratch_size(scratch, BOX), 17 + 16 + 6);

    owner = owner_of(scratch, 0);
    expect_text(owner, 3, "three");
    expect_text(owner, 4, "four");
    expect_nothing(owner);
    close_owner(owner);
    assert_int_equal(scratch_size(scratch, BOX), 0);
}

/* The mailbox is larger, and smaller, than the pieces in which it is moved up, and than what is put
 * back. */
static void any_amount_goes_in_front_of_any_amount(void **state)
{
    static const size_t sizes[] = {0, 1, 1000, 262144 - 12, 262144, 700000};
    enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
    struct scratch *scratch = *state;
    uint8_t *payload = malloc(700000);

    assert_non_null(payload);
    for (size_t i = 0; i < 700000; i++)
        payload[i] = (uint8_t)(i * 2654435761U >> 11);
    for (size_t i = 0; i < (size_t)COUNT * COUNT; i++) {
        const size_t put_bytes[3] = {0, sizes[i % COUNT], sizes[i / COUNT]};
        struct gproc_owner *owner = owner_of(scratch, 0);
        struct gproc_mail mail;

        scratch_send(scratch, BOX, 0, payload, 0);
        scratch_send(scratch, BOX, 1, payload, put_bytes[1]);
        assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), 0);
        scratch_send(scratch, BOX, 2, payload, put_bytes[2]);
        close_owner(owner);

        owner = owner_of(scratch, 0);
        for (int k = 1; k <= 2; k++) {
            assert_int_equal(gproc_owner_receive(owner, &mail, GPROC_NOW), 0);
            assert_int_equal(mail.sender, k);
            assert_int_equal(mail.payload_bytes, put_bytes[k]);
            assert_memory_equal(mail.payload, payload, put_bytes[k]);
        }
        expect_nothing(owner);
        close_owner(owner);
    }
    free(payload);
}

static void what_cannot_be_put_back_is_told_and_still_to_be_received(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    const struct sigaction action = {.sa_handler = SIG_IGN};
    struct rlimit limit_was;
    struct rlimit limit;
    struct sigaction was;
    int result;
    int lock;

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_send_text(scratch, BOX, 2, "two");
    expect_text(owner, 1, "one");
    lock = scratch_lock(scratch, BOX);
    assert_int_equal(gproc_owner_put_back(owner, GPROC_NOW), -EAGAIN);
    assert_int_equal(gproc_owner_put_back(owner, 20), -ETIMEDOUT);
    close(lock);

    /* Room for a part of it only. */
    scratch_send_text(scratch, BOX, 3, "three");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit_was), 0);
    limit = limit_was;
    limit.rlim_cur = 17 + 5;
    sigaction(SIGXFSZ, &action, &was);
    setrlimit(RLIMIT_FSIZE, &limit);
    result = gproc_owner_put_back(owner, GPROC_NOW);
    setrlimit(RLIMIT_FSIZE, &limit_was);
    sigaction(SIGXFSZ, &was, NULL);
    assert_int_equal(result, -EFBIG);
    assert_int_equal(scratch_size(scratch, BOX), 17);

    expect_text(owner, 2, "two");
    expect_text(owner, 3, "three");
    close_owner(owner);
}

static void closing_says_when_messages_are_lost(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_owner *owner = owner_of(scratch, 0);
    int lock;

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_send_text(scratch, BOX, 2, "two");
    expect_text(owner, 1, "one");
    lock = scratch_lock(scratch, BOX);
    assert_int_equal(gproc_owner_close(owner, GPROC_NOW), -EAGAIN);
    close(lock);
    assert_int_equal(scratch_size(scratch, BOX), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_mailbox_is_made_where_there_is_none),
        TEST(what_is_older_than_ten_seconds_is_thrown_away_and_what_is_younger_kept),
        TEST(what_cannot_be_opened_is_refused_and_nothing_thrown_away),
        TEST(messages_come_one_by_one_in_order_without_the_damage),
        TEST(a_large_message_comes_whole),
        TEST(nothing_there_and_nothing_came_are_told_apart),
        TEST(who_waits_is_woken_by_a_write_as_of_the_go_package),
        TEST(who_waits_is_woken_whatever_became_of_mailbox_and_directory),
        TEST(who_waits_sleeps_all_the_time_whatever_others_get),
        TEST(a_signal_ends_the_wait),
        TEST(four_senders_each_message_once_and_each_senders_in_order),
        TEST(the_descriptor_is_readable_while_there_is_something),
        TEST(the_descriptor_remembers_what_was_behind_a_held_lock),
        TEST(what_was_not_received_is_put_back_in_front),
        TEST(any_amount_goes_in_front_of_any_amount),
        TEST(what_cannot_be_put_back_is_told_and_still_to_be_received),
        TEST(closing_says_when_messages_are_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
