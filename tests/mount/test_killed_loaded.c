/*
 * Killed at any moment while many send and receive, and mounted again each time, the daemon loses
 * no message that was sent, invents none, and hands a message out twice only where it was handing
 * it over when it was killed.
 *
 * Senders and receivers are children that go on with each next mount. Every payload says who sent
 * it and as which of his; what became of each is counted in memory that they share.
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "lives.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "rig.h"
#include "tally.h"
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
};

/* Shared with all children. */
static struct lives *lives;
static struct tally *tally;

/* --- Children -------------------------------------------------------------------------------- */

/* By `>` and by `>>`, in turn. */
static enum tally_fate send_one(const char *path, struct tally_id id)
{
    int fd = lives_open(path, id.which % 2 == 0 ? THROUGH_REPLACE : THROUGH_APPEND);
    uint8_t payload[TALLY_PAYLOAD_LEAST_BYTES];
    size_t payload_bytes = tally_payload(id, sizeof(payload), payload);
    bool wrote;

    if (fd < 0)
        return TALLY_UNTRIED;
    tally_set(tally, id, TALLY_TRIED);
    wrote = write(fd, payload, payload_bytes) == (ssize_t)payload_bytes;
    return close(fd) == 0 && wrote ? TALLY_SENT : TALLY_TRIED;
}

static void be_sender(struct mount *mount, unsigned sender)
{
    char path[PATH_MAX];
    unsigned life = atomic_load(&lives->count);

    snprintf(path, sizeof(path), "%s/%d", mount->mnt, BOX);
    for (unsigned which = 0; which < EACH_MOST && !atomic_load(&lives->over); which++) {
        struct tally_id id = {sender, which};

        if (send_one(path, id) == TALLY_SENT)
            tally_set(tally, id, TALLY_SENT);
        else
            life = lives_await(lives, life);
    }
    _exit(0);
}

/* Reads from one mount until it is dead, or until an end. True: there was an end. */
static bool receive(struct mount *mount, const char *view, struct tally_reader *reader)
{
    static char buffer[READ_BYTES + 1];
    char path[PATH_MAX];
    ssize_t got = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/%s%d", mount->mnt, view, BOX);
    fd = lives_open(path, O_RDONLY | O_CLOEXEC);
    tally_open(reader);
    while (fd >= 0 && (got = read(fd, buffer, READ_BYTES)) > 0) {
        buffer[got] = '\0';
        tally_answer(reader);
        if (strcmp(view, ".envelope/") == 0)
            tally_see_envelopes(tally, reader, buffer, (size_t)got);
        else
            tally_see(tally, reader, (const uint8_t *)buffer, (size_t)got);
    }
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return got == 0;
}

static void be_receiver(struct mount *mount, const char *view)
{
    static struct tally_reader reader = {.ordered = true};
    const struct timespec pause = {0, 2000000}; /* `<pid>` does not wait for mail */
    unsigned life = atomic_load(&lives->count);

    while (!atomic_load(&lives->over)) {
        if (receive(mount, view, &reader)) {
            (void)nanosleep(&pause, NULL);
        } else {
            unsigned next = lives_await(lives, life);

            if (atomic_load(&lives->killed[life]))
                tally_killed(tally, &reader);
            life = next;
        }
    }
    _exit(0);
}

/* --- The account ----------------------------------------------------------------------------- */

static void start_children(struct mount *mount, pid_t children[SENDERS + RECEIVERS])
{
    static const char *const views[RECEIVERS] = {"", ".follow/", ".envelope/", ".follow/"};

    for (int i = 0; i < SENDERS; i++) {
        children[i] = process_fork(0);
        if (children[i] == 0)
            be_sender(mount, (unsigned)i);
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
        lives_end(lives, true);
        mount_kill(mount);
        kills++;
        assert_success(mount_start(mount));
        lives_begin(lives);
    }
    return kills;
}

static void drain(struct mount *mount)
{
    static struct tally_reader reader = {.ordered = true};

    assert_success(mount_start(mount));
    assert_true(receive(mount, "", &reader));
    assert_true(rig_store_is_clean(mount));
}

static void killed_at_any_moment_it_loses_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t children[SENDERS + RECEIVERS];
    struct tally_account account;
    unsigned kills;
    int bad = 0;

    lives = lives_new();
    tally = tally_new(SENDERS, EACH_MOST);
    assert_non_null(lives);
    assert_non_null(tally);
    lives_begin(lives);
    assert_int_equal(behind_append(mount, BOX, NULL, 0), 0);
    start_children(mount, children);
    kills = kill_and_mount(mount);
    lives_end(lives, false);
    /* Readers that wait hear of it by the end of the mount. */
    assert_success(mount_stop(mount));
    lives_finish(lives);
    for (int i = 0; i < SENDERS + RECEIVERS; i++)
        bad += process_wait(children[i], END_MS) != 0;
    drain(mount);
    account = tally_account(tally, NULL, NULL);
    print_message("%u kills: %lu sent, %lu unanswered, %lu lost, %lu seen twice\n", kills,
                  account.sent, account.unanswered, account.lost, account.twice);
    assert_int_equal(bad, 0);
    assert_int_equal(account.lost, 0);
    assert_int_equal(account.doubled, 0);
    assert_int_equal(account.forged, 0);
    assert_int_equal(atomic_load(&tally->strange), 0);
    assert_int_equal(atomic_load(&tally->disorder), 0);
    assert_true(kills > 0 && account.sent > kills);
    tally_free(tally);
    lives_free(lives);
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
