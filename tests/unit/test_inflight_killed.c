/*
 * Whatever instruction a mount is killed at, no message is lost, they stay in order, and at most
 * the one that was being handed over is seen twice.
 *
 * A child runs a mount's whole life - picks up what an earlier one left, takes, hands over, puts
 * back - and is killed at the entry or the exit of one of its system calls, for each of them; then
 * another mount looks what is there. In a second round the other one is killed as well, at a call
 * drawn by lot.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inflight.h"
#include "mailboxes.h"
#include "mount.h"
#include "process.h"
#include "temporary.h"
#include "world.h"

enum {
    PID = 4711,
    MESSAGES = 6, /* the first of them sent before the mount begins, the last one after it died */
    HANDED = 3,   /* how many a life hands over */
    FIRST_SENDER = 100,
};

/* What a child tells, without a system call. */
struct told {
    volatile int handing; /* the message in somebody's hands that is being delivered, or -1 */
    volatile bool delivered[MESSAGES]; /* it had been told so */
    volatile bool may_be[MESSAGES];    /* it was being handed over when the mount was killed */
    volatile int failure;              /* a line of this file */
};

/* How the messages are, and what is done with them. */
struct scenario {
    const char *what;
    size_t payload_bytes;
    bool damaged;      /* noise between them */
    bool out_of_order; /* two in hand, the second is delivered first */
    bool late;         /* the last message is sent after the first kill, else before it */
};

struct fixture {
    const struct scenario *scenario;
    struct temporary *temporary;
    struct told *told;
    char root[PATH_MAX / 2];
    char box[PATH_MAX];
    uint8_t *frame;
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fixture->told->failure = __LINE__;                                                     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* --- A mount's life, in a child -----------------------------------------------------------------
 */

static void hand_over(struct fixture *fixture, struct world *world, struct gproc_taken *taken)
{
    int which = taken->message.sender - FIRST_SENDER;
    uint8_t byte;

    CHECK(which >= 0 && which < MESSAGES);
    CHECK(gproc_inflight_read(taken, &byte, 1, 0) == 0);
    fixture->told->handing = which;
    CHECK(gproc_inflight_deliver(&world->inflight, taken) == 0);
    fixture->told->delivered[which] = true;
    fixture->told->handing = -1;
}

static void hand_over_some(struct fixture *fixture, struct world *world)
{
    int left = HANDED;

    while (left > 0) {
        struct gproc_taken *one, *two;

        if (gproc_inflight_next(&world->inflight, &one) != 1)
            return;
        if (fixture->scenario->out_of_order && left > 1 &&
            gproc_inflight_next(&world->inflight, &two) == 1) {
            hand_over(fixture, world, two);
            left--;
        }
        hand_over(fixture, world, one);
        left--;
    }
}

static void live(struct fixture *fixture)
{
    struct world world;

    CHECK(world_open(&world, fixture->root, PID) == 0);
    if (gproc_inflight_is_unsettled(&world.inflight))
        CHECK(world_settle(&world) == 0);
    if (gproc_inflight_is_empty(&world.inflight))
        CHECK(world_take(&world) == 0);
    hand_over_some(fixture, &world);
    CHECK(world_return(&world) == 0);
    world_close(&world);
}

/* Runs it until stop number `last`, and kills it there. False: it was over before. */
static bool live_and_die(struct fixture *fixture, unsigned last)
{
    pid_t child = process_fork(0);
    unsigned stops = 0;
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(2);
        raise(SIGSTOP);
        live(fixture);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSTOPPED(status)); /* else it may not be traced */
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL,
                            (void *)(uintptr_t)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)),
                     0);
    for (;;) {
        bool killing = stops == last;

        if (killing)
            kill(child, SIGKILL);
        else
            (void)ptrace(PTRACE_SYSCALL, child, NULL, NULL); /* fails only if it was killed */
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status))
            break;
        stops += WSTOPSIG(status) == (SIGTRAP | 0x80);
    }
    if (fixture->told->failure != 0)
        fail_msg("%s: line %d of the child", fixture->scenario->what, fixture->told->failure);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    if (fixture->told->handing >= 0)
        fixture->told->may_be[fixture->told->handing] = true;
    fixture->told->handing = -1;
    return true;
}

/* --- What is left -------------------------------------------------------------------------------
 */

static void send(struct fixture *fixture, int which)
{
    size_t payload_bytes = fixture->scenario->payload_bytes;
    uint8_t *payload = fixture->frame + TEMPORARY_HEADER_BYTES;

    if (fixture->scenario->damaged)
        temporary_append(fixture->box, "damaged", 7);
    memset(payload, 'a' + which, payload_bytes);
    mailbox_frame(fixture->frame, (uint32_t)payload_bytes, (uint32_t)(FIRST_SENDER + which), 0);
    temporary_append(fixture->box, fixture->frame, TEMPORARY_HEADER_BYTES + payload_bytes);
}

static void check_payload(struct fixture *fixture, const struct gproc_taken *taken, int which)
{
    size_t payload_bytes = fixture->scenario->payload_bytes;

    assert_int_equal(taken->message.payload_bytes, payload_bytes);
    assert_int_equal(gproc_inflight_read(taken, fixture->frame, payload_bytes, 0), 0);
    for (size_t i = 0; i < payload_bytes; i += 4096)
        assert_int_equal(fixture->frame[i], 'a' + which);
}

/* The next mount: what was not delivered is there once and in order, and nothing else. */
static void look(struct fixture *fixture, const char *when)
{
    int before = -1;
    unsigned seen[MESSAGES] = {0};
    bool took = false;
    struct world world;

    assert_int_equal(world_open(&world, fixture->root, PID), 0);
    assert_int_equal(world_settle(&world), 0);
    for (;;) {
        struct gproc_taken *taken;
        int result = gproc_inflight_next(&world.inflight, &taken);
        int which;

        assert_in_range(result, 0, 1);
        if (result == 0 && took)
            break;
        if (result == 0) {
            assert_int_equal(world_take(&world), 0);
            took = true;
            continue;
        }
        which = taken->message.sender - FIRST_SENDER;
        assert_in_range(which, 0, MESSAGES - 1);
        check_payload(fixture, taken, which);
        if (which <= before)
            fail_msg("%s, %s: %d after %d", fixture->scenario->what, when, which, before);
        before = which;
        seen[which]++;
        assert_int_equal(gproc_inflight_deliver(&world.inflight, taken), 0);
    }
    for (int i = 0; i < MESSAGES; i++) {
        if (fixture->told->delivered[i] && !fixture->told->may_be[i] && seen[i] != 0)
            fail_msg("%s, %s: %d is seen again", fixture->scenario->what, when, i);
        if (!fixture->told->delivered[i] && !fixture->told->may_be[i] && seen[i] != 1)
            fail_msg("%s, %s: %d is lost", fixture->scenario->what, when, i);
    }
    world_close(&world);
    assert_int_equal(temporary_count(temporary_path(fixture->temporary, "gproc")), 1);
    temporary_expect(fixture->box, "", 0);
}

static void begin(struct fixture *fixture)
{
    memset((void *)(uintptr_t)fixture->told, 0, sizeof(*fixture->told));
    fixture->told->handing = -1;
    for (int i = 0; i < MESSAGES - (fixture->scenario->late ? 1 : 0); i++)
        send(fixture, i);
}

static void after_the_first(struct fixture *fixture)
{
    if (fixture->scenario->late)
        send(fixture, MESSAGES - 1);
}

/* --- Tests --------------------------------------------------------------------------------------
 */

static const struct scenario scenarios[] = {
    /* what, payload_bytes, damaged, out_of_order, late */
    {"small", 20, false, false, false},
    {"small, one arrives later", 20, false, false, true},
    {"small, out of order", 20, false, true, true},
    {"small, damaged", 20, true, false, true},
    {"large", 130000, false, false, false},
    {"large, one arrives later", 130000, false, false, true},
    {"large, out of order", 130000, false, true, true},
};

enum {
    SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]),
};

/* Under valgrind it is not our system calls that would be seen. */
static bool can_trace(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload == NULL || strstr(preload, "vgpreload") == NULL;
}

static struct fixture *fixture_open(void **state)
{
    struct fixture *fixture = temporary_memory(*state, sizeof(*fixture));

    fixture->temporary = *state;
    snprintf(fixture->root, sizeof(fixture->root), "%s", fixture->temporary->root);
    snprintf(fixture->box, sizeof(fixture->box), "%s/gproc/%d", fixture->root, PID);
    temporary_mkdir(temporary_path(*state, "gproc"));
    fixture->frame = temporary_memory(*state, 200000);
    fixture->told = mmap(NULL, sizeof(*fixture->told), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(fixture->told, MAP_FAILED);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    munmap(fixture->told, sizeof(*fixture->told));
}

static void test_killed_at_every_system_call(void **state)
{
    struct fixture *fixture;

    if (!can_trace())
        skip();
    fixture = fixture_open(state);
    for (size_t i = 0; i < SCENARIOS; i++) {
        bool killed = true;
        unsigned stop;

        fixture->scenario = &scenarios[i];
        for (stop = 0; killed; stop++) {
            char when[32];

            begin(fixture);
            killed = live_and_die(fixture, stop);
            after_the_first(fixture);
            snprintf(when, sizeof(when), "killed at stop %u", stop);
            look(fixture, when);
        }
        print_message("%s: %u stops\n", fixture->scenario->what, stop);
        assert_true(stop > 100);
    }
    fixture_close(fixture);
}

static void test_killed_at_every_system_call_and_while_picking_that_up(void **state)
{
    struct fixture *fixture;
    struct random random = {8};

    if (!can_trace())
        skip();
    fixture = fixture_open(state);
    for (size_t i = 0; i < SCENARIOS; i++) {
        bool killed = true;
        unsigned stop;

        fixture->scenario = &scenarios[i];
        for (stop = 0; killed; stop += mount_scale()) {
            unsigned second = (unsigned)random_below(&random, 250);
            unsigned third = (unsigned)random_below(&random, 250);
            char when[64];

            begin(fixture);
            killed = live_and_die(fixture, stop);
            after_the_first(fixture);
            (void)live_and_die(fixture, second);
            (void)live_and_die(fixture, third);
            snprintf(when, sizeof(when), "killed at stops %u, %u, %u", stop, second, third);
            look(fixture, when);
        }
    }
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_killed_at_every_system_call),
        TEMPORARY_TEST(test_killed_at_every_system_call_and_while_picking_that_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
