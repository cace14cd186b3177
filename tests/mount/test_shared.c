/* Several who take from one mailbox, and one who tears it from under them: no message is lost. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    ALICE = 1000,
    MESSAGES_MOST = 1 << 19,
    PARTIES_MOST = 16,
    CHILD_MS = 30000,
    CHAOS_MS = 3000,
};

/* What all processes of a test share. */
struct tally {
    _Atomic int taken_count;
    _Atomic int next; /* the next number to be sent */
    _Atomic bool over;
    _Atomic int refused[256]; /* sends, by errno */
    _Atomic unsigned char sent[MESSAGES_MOST];
    _Atomic unsigned char taken[MESSAGES_MOST];
    _Atomic unsigned char found[MESSAGES_MOST]; /* somewhere on the disk */
};

static struct tally *tally;

static void tally_begin(void)
{
    if (tally != NULL)
        (void)munmap(tally, sizeof(*tally));
    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(tally != MAP_FAILED);
}

/* The number that a message is; -1: it is none of ours. */
static int number_of(const void *payload, size_t payload_bytes)
{
    char text[16] = "";
    int number = -1;

    if (payload_bytes < sizeof(text)) {
        memcpy(text, payload, payload_bytes);
        if (sscanf(text, "m%d", &number) != 1 || number < 0 || number >= MESSAGES_MOST)
            number = -1;
    }
    return number;
}

static void note_taken(const void *payload, size_t payload_bytes)
{
    int number = number_of(payload, payload_bytes);

    if (number < 0)
        _exit(99);
    (void)atomic_fetch_add(&tally->taken[number], 1);
    (void)atomic_fetch_add(&tally->taken_count, 1);
}

/* Fails the test unless each of so many was taken once. */
static void expect_each_once(int total)
{
    int missing = 0;
    int twice = 0;

    for (int i = 0; i < total; i++) {
        missing += tally->taken[i] == 0;
        twice += tally->taken[i] > 1;
    }
    if (missing != 0 || twice != 0)
        fail_msg("of %d messages %d are missing, %d were seen twice", total, missing, twice);
}

/* --- Parties -----------------------------------------------------------------------------------
 */

struct parties {
    pid_t pids[PARTIES_MOST];
    int count;
};

typedef void party_main(struct mount *mount, int number);

static void party_start(struct parties *parties, uid_t uid, party_main *party, struct mount *mount,
                        int number)
{
    pid_t pid = process_fork(uid);

    if (pid == 0) {
        party(mount, number);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_true(parties->count < PARTIES_MOST);
    parties->pids[parties->count++] = pid;
}

static void parties_join(struct parties *parties)
{
    for (int i = 0; i < parties->count; i++)
        assert_int_equal(process_wait(parties->pids[i], CHILD_MS), 0);
    parties->count = 0;
}

static void parties_kill(struct parties *parties)
{
    for (int i = 0; i < parties->count; i++)
        assert_success(kill(parties->pids[i], SIGKILL));
    for (int i = 0; i < parties->count; i++)
        assert_int_equal(process_wait(parties->pids[i], CHILD_MS), 128 + SIGKILL);
    parties->count = 0;
}

/* One message through the mount; 0 or an errno. */
static int send_through(struct mount *mount, bool replaces, const char *text)
{
    int fd = open(through_box(mount, BOX), replaces ? THROUGH_REPLACE : THROUGH_APPEND, 0666);
    int error = fd >= 0 ? through_write(fd, text, strlen(text)) : errno;

    if (fd >= 0 && close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

/* Sends `sender_each` messages, of its own numbers. */
static int sender_each;

static void send_own(struct mount *mount, int number)
{
    char text[16];

    for (int i = 0; i < sender_each; i++) {
        int error;

        snprintf(text, sizeof(text), "m%d", number * sender_each + i);
        if (number % 4 == 3)
            error = -behind_send(mount, BOX, 1, text, strlen(text));
        else
            error = send_through(mount, number % 4 == 0, text);
        if (error != 0)
            _exit(error);
    }
}

/* Receives, and waits for more, until it is killed. */
static void follow(struct mount *mount, int number)
{
    int fd = open(view_path(mount, ".follow", BOX), THROUGH_RECEIVE);
    char text[64];
    ssize_t got;

    (void)number;
    while (fd >= 0 && (got = read(fd, text, sizeof(text))) > 0)
        note_taken(text, (size_t)got);
    _exit(fd < 0 ? errno : 98);
}

/* Receives again and again, until it is over and there is nothing more. */
static void receive_until_over(struct mount *mount, int number)
{
    char text[64];
    ssize_t got;
    bool last;

    (void)number;
    do {
        int fd = open(through_box(mount, BOX), THROUGH_RECEIVE);

        last = tally->over;
        while (fd >= 0 && (got = read(fd, text, sizeof(text))) > 0)
            note_taken(text, (size_t)got);
        if (fd >= 0)
            close(fd);
    } while (!last);
}

/* The same from behind, as a Go program does. */
static void drain_until_over(struct mount *mount, int number)
{
    bool last;

    (void)number;
    do {
        struct behind_message message;
        uint8_t *bytes;
        ssize_t size_bytes;
        ssize_t frame_bytes;
        ssize_t done = 0;

        last = tally->over;
        size_bytes = behind_drain(mount, BOX, &bytes);
        while (size_bytes > done &&
               (frame_bytes = behind_parse(bytes + done, (size_t)(size_bytes - done), &message)) >
                   0) {
            note_taken(message.payload, message.payload_bytes);
            done += frame_bytes;
        }
        if (size_bytes > 0)
            free(bytes);
    } while (!last);
}

/* Waits until so many have been taken, or nothing moves any more. */
static void await_taken(int total)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS;

    while (tally->taken_count < total && process_clock_ms() < deadline_ms)
        (void)usleep(2000);
}

/* --- Two mounts --------------------------------------------------------------------------------
 */

static struct mount *second; /* the one beside the test's own; its teardown is ours */
static struct mount second_storage;

/* Another mount of the same directories, by `uid` where that is not 0. */
static struct mount *mount_beside(struct mount *mount, const struct mount_options *options)
{
    second = &second_storage;
    *second = *mount;
    second->options = options;
    second->kept = NULL;
    second->kept_count = 0;
    second->daemon = 0;
    second->keeper = 0;
    snprintf(second->mnt, sizeof(second->mnt), "%s/beside%s", mount->root,
             options->uid != 0 ? "-user" : "");
    if (mkdir(second->mnt, 0755) != 0)
        assert_int_equal(errno, EEXIST);
    if (options->uid != 0) {
        assert_success(chown(second->mnt, options->uid, options->uid));
        assert_success(chmod(mount->log, 0666));
        through_expect_run(mount, "sh", "", "cp -L $P %s/gprocfs && chmod 755 %s/gprocfs",
                           mount->root, mount->root);
    }
    assert_int_equal(mount_start(second), 0);
    return second;
}

static int teardown(void **state)
{
    if (second != NULL && second->daemon > 0)
        mount_kill(second);
    second = NULL;
    return mount_teardown(state);
}

static const struct mount_options as_we_are = {.seconds = 60};
static const struct mount_options as_alice = {.uid = ALICE, .seconds = 60};

/* A mailbox and a lock that both root and this user may use. */
static void make_box_of(struct mount *mount, uid_t uid)
{
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    assert_success(chown(behind_box(mount, BOX), uid, uid));
    assert_success(chown(behind_lock_file(mount, BOX), uid, uid));
}

static void expect_mounts_to_share(struct mount *mount, struct mount *other)
{
    enum { READERS = 4, SENDERS = 4, EACH = 1000 };
    struct parties readers = {0};
    struct parties senders = {0};
    uid_t uid = other->options->uid;

    tally_begin();
    sender_each = EACH / (int)mount_scale();
    sender_each += sender_each == 0;
    for (int i = 0; i < READERS; i++) {
        party_start(&readers, 0, follow, mount, i);
        party_start(&readers, uid, follow, other, i);
    }
    for (int i = 0; i < SENDERS; i++)
        party_start(&senders, i % 2 == 0 ? 0 : uid, send_own, i % 2 == 0 ? mount : other, i);
    parties_join(&senders);
    await_taken(sender_each * SENDERS);
    parties_kill(&readers);
    expect_each_once(sender_each * SENDERS);
    print_message("%d messages, each to one of 4 readers on each mount: by the first %lld\n",
                  sender_each * SENDERS,
                  (long long)view_sample(mount, "gprocfs_messages_received_total"));
    assert_int_equal(mount_stop(other), 0);
    behind_expect_texts(mount, BOX, NULL);
}

static void two_mounts_of_one_user_hand_each_message_to_exactly_one_reader(void **state)
{
    struct mount *mount = mount_of(state);

    make_box_of(mount, geteuid());
    expect_mounts_to_share(mount, mount_beside(mount, &as_we_are));
}

static void mounts_of_two_users_hand_each_message_to_exactly_one_reader(void **state)
{
    struct mount *mount = mount_of(state);

    make_box_of(mount, ALICE);
    expect_mounts_to_share(mount, mount_beside(mount, &as_alice));
}

static ssize_t read_as(struct mount *mount, char *text, size_t size_bytes)
{
    int fd = open(through_box(mount, BOX), THROUGH_RECEIVE);
    ssize_t got = fd >= 0 ? read(fd, text, size_bytes) : -1;

    if (fd >= 0)
        close(fd);
    return got;
}

static void expect_nothing_for_alice(struct mount *mount)
{
    struct parties alice = {0};
    struct mount *other = mount_beside(mount, &as_alice);
    pid_t pid = process_fork(ALICE);
    char text[16];

    if (pid == 0)
        _exit(read_as(other, text, sizeof(text)) == 0 ? 0 : 1);
    alice.pids[alice.count++] = pid;
    parties_join(&alice);
    assert_int_equal(mount_stop(other), 0);
}

static void what_is_in_flight_is_nobody_elses_and_after_a_kill_the_same_users_only(void **state)
{
    struct mount *mount = mount_of(state);
    struct mount *other;
    int fd;

    make_box_of(mount, ALICE);
    assert_success(chmod(behind_box(mount, BOX), 0666));
    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, BOX, 1, "two");
    behind_expect_sent(mount, BOX, 1, "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    /* While it lives. */
    other = mount_beside(mount, &as_we_are);
    through_expect_texts(other, BOX, NULL);
    behind_expect_sent(mount, BOX, 1, "four");
    through_expect_texts(other, BOX, "four", NULL);
    assert_int_equal(mount_stop(other), 0);
    through_expect_read(fd, "two");
    /* And when it is dead. It had handed "two" over before it could be asked this. */
    through_expect_size(mount, BOX, 5);
    mount_kill(mount);
    (void)close(fd);
    expect_nothing_for_alice(mount);
    other = mount_beside(mount, &as_we_are);
    through_expect_texts(other, BOX, "three", NULL);
    assert_int_equal(mount_stop(other), 0);
}

static void mount_and_a_program_that_drains_share_every_message(void **state)
{
    enum { SENDERS = 4, EACH = 2500 };
    struct mount *mount = mount_of(state);
    struct parties senders = {0};
    struct parties takers = {0};
    int64_t by_mount;

    tally_begin();
    sender_each = EACH / (int)mount_scale();
    sender_each += sender_each == 0;
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    party_start(&takers, 0, receive_until_over, mount, 0);
    party_start(&takers, 0, receive_until_over, mount, 1);
    party_start(&takers, 0, drain_until_over, mount, 2);
    for (int i = 0; i < SENDERS; i++)
        party_start(&senders, 0, send_own, mount, i);
    parties_join(&senders);
    tally->over = true;
    parties_join(&takers);
    by_mount = view_sample(mount, "gprocfs_messages_received_total");
    print_message("%d messages: %lld through the mount, the others behind it\n",
                  sender_each * SENDERS, (long long)by_mount);
    expect_each_once(sender_each * SENDERS);
}

/* Each opens anew for each message, as `echo x >> f` does. */
static void append_own(struct mount *mount, int number)
{
    char text[16];

    for (int i = 0; i < sender_each; i++) {
        int error;

        snprintf(text, sizeof(text), "m%d", number * sender_each + i);
        error = send_through(mount, number % 4 == 3, text);
        (void)atomic_fetch_add(&tally->refused[error & 255], error != 0);
    }
}

static void those_who_send_at_the_same_time_are_never_refused(void **state)
{
    enum { SENDERS = 4, EACH = 2500 };
    struct mount *mount = mount_of(state);
    struct parties senders = {0};
    struct parties takers = {0};
    int refused = 0;

    tally_begin();
    sender_each = EACH / (int)mount_scale();
    sender_each += sender_each == 0;
    for (int i = 0; i < SENDERS; i++)
        party_start(&senders, 0, append_own, mount, i);
    parties_join(&senders);
    tally->over = true;
    party_start(&takers, 0, receive_until_over, mount, 0);
    parties_join(&takers);
    for (int i = 0; i < 256; i++)
        refused += tally->refused[i];
    if (refused != 0)
        fail_msg("%d of %d were refused, %d with ESTALE", refused, sender_each * SENDERS,
                 tally->refused[ESTALE]);
    expect_each_once(sender_each * SENDERS);
}

/* --- Chaos -------------------------------------------------------------------------------------
 */

static void send_until_over(struct mount *mount, int number)
{
    char text[16];

    while (!tally->over) {
        int mine = atomic_fetch_add(&tally->next, 1);
        int error;

        if (mine >= MESSAGES_MOST)
            break;
        snprintf(text, sizeof(text), "m%d", mine);
        error = send_through(mount, number % 2 == 0, text);
        if (error == 0)
            tally->sent[mine] = 1;
        else
            (void)atomic_fetch_add(&tally->refused[error & 255], 1);
    }
}

/* Puts away what has that path, where it is found again. */
static void put_away(struct mount *mount, const char *path, int *buried)
{
    (void)rename(path, mount_path(mount, "%s/grave/%d", mount->work, (*buried)++));
}

/* One misfortune, and its end. What fails, failed: something else was faster. */
static void befall(struct mount *mount, size_t what, int *buried)
{
    const char *box = behind_box(mount, BOX);
    const char *lock = behind_lock_file(mount, BOX);
    const char *things[] = {box, lock, mount->mail, mount->locks};
    const char *thing = things[what % 4];

    switch (what / 4) {
    case 0: /* gone: whoever needs it makes it again */
        put_away(mount, thing, buried);
        break;
    case 1: /* another one in its place, of the wrong kind */
        put_away(mount, thing, buried);
        if (what % 4 < 2) {
            (void)mkdir(thing, 0755);
            (void)usleep(500);
            (void)rmdir(thing);
        } else {
            int fd = open(thing, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

            close(fd);
            (void)usleep(500);
            (void)unlink(thing);
        }
        break;
    case 2: /* closed to all but root */
        (void)chmod(thing, 0);
        (void)usleep(500);
        (void)chmod(thing, what % 4 < 2 ? 0644 : 0755);
        break;
    default: /* away and back, unless there is a new one */
        if (rename(thing, mount_path(mount, "%s/away", mount->root)) != 0)
            break;
        (void)usleep(500);
        if (renameat2(AT_FDCWD, mount_path(mount, "%s/away", mount->root), AT_FDCWD, thing,
                      RENAME_NOREPLACE) != 0)
            put_away(mount, mount_path(mount, "%s/away", mount->root), buried);
        break;
    }
}

static void wreak_until_over(struct mount *mount, int number)
{
    struct random random = {.state = (uint64_t)number};
    int buried = 0;

    while (!tally->over) {
        befall(mount, random_below(&random, 16), &buried);
        (void)usleep((useconds_t)random_below(&random, 3000));
    }
    put_away(mount, mount_path(mount, "%s/away", mount->root), &buried);
    printf("%d things were taken away\n", buried);
    fflush(stdout);
}

/* Notes every message in a file, wherever it begins: mailboxes, and what is in flight. */
static int note_found(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    size_t size_bytes = (size_t)status->st_size;
    int fd = kind == FTW_F && size_bytes > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    uint8_t *bytes = fd >= 0 ? malloc(size_bytes) : NULL;
    struct behind_message message;

    (void)where;
    if (bytes != NULL && read(fd, bytes, size_bytes) == (ssize_t)size_bytes) {
        for (size_t at = 0; at < size_bytes; at++) {
            int found = -1;

            if (behind_parse(bytes + at, size_bytes - at, &message) > 0)
                found = number_of(message.payload, message.payload_bytes);
            if (found >= 0)
                tally->found[found] = 1;
        }
    }
    free(bytes);
    if (fd >= 0)
        close(fd);
    return 0;
}

static void print_refused(void)
{
    for (int i = 0; i < 256; i++) {
        if (tally->refused[i] != 0)
            print_message("  refused with %s: %d\n", strerror(i), tally->refused[i]);
    }
}

static void expect_nothing_vanished(void)
{
    int sent = 0;
    int taken = 0;
    int twice = 0;
    int buried = 0;
    int vanished = 0;

    for (int i = 0; i < MESSAGES_MOST; i++) {
        bool there = tally->taken[i] == 0 && tally->found[i] != 0;

        sent += tally->sent[i] != 0;
        taken += tally->taken[i] != 0;
        twice += tally->taken[i] > 1;
        buried += there;
        vanished += tally->sent[i] != 0 && tally->taken[i] == 0 && !there;
    }
    print_message("%d sent: %d received (%d of them twice), %d in what was taken away, %d "
                  "vanished\n",
                  sent, taken, twice, buried, vanished);
    print_refused();
    assert_int_equal(vanished, 0);
    assert_int_equal(twice, 0);
}

/* Until the mailbox can be used again. */
static void await_calm(struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS;
    int error;

    do {
        tally->sent[0] = 0;
        error = send_through(mount, true, "m0");
    } while (error != 0 && process_clock_ms() < deadline_ms);
    if (error != 0)
        fail_msg("it is not usable again: %s", strerror(error));
    tally->sent[0] = 1;
}

static void message_reported_as_sent_is_received_or_where_the_mailbox_was_taken(void **state)
{
    enum { SENDERS = 4, RECEIVERS = 2 };
    struct mount *mount = mount_of(state);
    struct parties senders = {0};
    struct parties receivers = {0};
    int64_t end_ms = process_clock_ms() + CHAOS_MS / (mount_scale() > 3 ? 3 : 1);

    tally_begin();
    tally->next = 1; /* the first is await_calm()'s */
    assert_success(mkdir(mount_path(mount, "%s/grave", mount->work), 0755));
    for (int i = 0; i < SENDERS; i++)
        party_start(&senders, 0, send_until_over, mount, i);
    for (int i = 0; i < RECEIVERS; i++)
        party_start(&receivers, 0, receive_until_over, mount, i);
    party_start(&senders, 0, wreak_until_over, mount, 4711);
    while (process_clock_ms() < end_ms)
        (void)usleep(10000); /* this is how long it is to last */
    tally->over = true;
    parties_join(&senders);
    parties_join(&receivers);
    await_calm(mount);
    party_start(&receivers, 0, receive_until_over, mount, 0);
    parties_join(&receivers);
    assert_int_equal(mount_stop(mount), 0);
    (void)nftw(mount->mail, note_found, 16, FTW_PHYS);
    (void)nftw(mount_path(mount, "%s/grave", mount->work), note_found, 16, FTW_PHYS);
    expect_nothing_vanished();
}

int main(void)
{
    static const struct mount_options usual = {.seconds = 60, .chatty = true};
    static const struct mount_options for_all = {
        .needs_root = true, .for_all = true, .seconds = 60, .chatty = true};
    const struct CMUnitTest tests[] = {
        {"two_mounts_of_one_user_hand_each_message_to_exactly_one_reader",
         two_mounts_of_one_user_hand_each_message_to_exactly_one_reader, mount_setup, teardown,
         (void *)(uintptr_t)&usual},
        {"mounts_of_two_users_hand_each_message_to_exactly_one_reader",
         mounts_of_two_users_hand_each_message_to_exactly_one_reader, mount_setup, teardown,
         (void *)(uintptr_t)&for_all},
        {"what_is_in_flight_is_nobody_elses_and_after_a_kill_the_same_users_only",
         what_is_in_flight_is_nobody_elses_and_after_a_kill_the_same_users_only, mount_setup,
         teardown, (void *)(uintptr_t)&for_all},
        MOUNT_TEST_WITH(mount_and_a_program_that_drains_share_every_message, &usual),
        MOUNT_TEST_WITH(those_who_send_at_the_same_time_are_never_refused, &usual),
        MOUNT_TEST_WITH(message_reported_as_sent_is_received_or_where_the_mailbox_was_taken,
                        &usual),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("shared", tests, NULL, NULL) == 0 ? 0 : 1;
}
