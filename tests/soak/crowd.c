#include "crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "behind.h"
#include "process.h"

enum {
    END_MS = 20000,
    AGAIN_MS = 100,            /* before what failed without a reason is tried again */
    MESSAGES_PER_SECOND = 400, /* of one sender: more than any can */
    MESSAGES_SPARE = 10000,
};

struct kind {
    crowd_act *act;
    const char *what;
    unsigned count;
    bool sends;
};

static const struct kind kinds[] = {
    {crowd_send, "send by >, >> and 1<> (messages)", 7, true},
    {crowd_send_killed, "send by >, and are killed (processes)", 2, true},
    {crowd_send_behind, "send through the library (messages)", 4, true},
    {crowd_receive, "read PID (messages)", 3, false},
    {crowd_follow, "read .follow/PID (messages)", 4, false},
    {crowd_envelope, "read .envelope/PID (answers)", 3, false},
    {crowd_poll, "poll .follow/PID (messages)", 2, false},
    {crowd_drain, "receives behind the mount (messages)", 1, false},
    {crowd_receive_killed, "read, and are killed (processes)", 2, false},
    {crowd_look, "look: ls -l, .peek, .list, .stats (rounds)", 2, false},
    {crowd_change, "make, chmod, touch, empty, rm mailboxes (rounds)", 2, false},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

unsigned crowd_each_most(unsigned seconds)
{
    return seconds * MESSAGES_PER_SECOND + MESSAGES_SPARE;
}

unsigned crowd_senders(void)
{
    unsigned count = 0;

    for (size_t i = 0; i < KINDS; i++)
        count += kinds[i].sends ? kinds[i].count : 0;
    return count;
}

const char *crowd_gate(struct mount *mount)
{
    return mount_path(mount, "%s/gate", mount->work);
}

static void start_one(struct crowd *crowd, const struct kind *kind, unsigned number, unsigned which)
{
    struct crowd_member member = {.crowd = crowd, .number = number, .which = which, .root = -1};

    crowd->pids[number] = process_fork(0);
    if (crowd->pids[number] != 0)
        return;
    member.random.state = number + 1;
    kind->act(&member);
    _exit(0);
}

int crowd_start(struct crowd *crowd)
{
    unsigned number = 0, sender = 0;
    int gate = open(crowd_gate(crowd->mount), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

    if (gate < 0)
        return -1;
    close(gate);
    crowd->shared = mmap(NULL, sizeof(*crowd->shared), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (crowd->shared == MAP_FAILED)
        return -1;
    for (int i = 0; i < CROWD_BOXES; i++) {
        if (behind_append(crowd->mount, CROWD_FIRST_BOX + i, NULL, 0) != 0)
            return -1;
    }
    for (size_t i = 0; i < KINDS; i++) {
        for (unsigned which = 0; which < kinds[i].count; which++, number++)
            start_one(crowd, &kinds[i], number, kinds[i].sends ? sender++ : which);
    }
    for (unsigned i = 0; i < number; i++) {
        if (crowd->pids[i] < 0)
            return -1;
    }
    return 0;
}

bool crowd_kind(const struct crowd *crowd, unsigned number, const char **what, unsigned *count,
                unsigned long *done)
{
    unsigned first = 0;

    if (number >= KINDS)
        return false;
    for (unsigned i = 0; i < number; i++)
        first += kinds[i].count;
    *what = kinds[number].what;
    *count = kinds[number].count;
    *done = 0;
    for (unsigned i = 0; i < *count; i++)
        *done += atomic_load(&crowd->shared->done[first + i]);
    return true;
}

void crowd_look_after(struct crowd *crowd)
{
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        int status;

        if (crowd->pids[i] > 0 && waitpid(crowd->pids[i], &status, WNOHANG) == crowd->pids[i]) {
            crowd_complain(crowd, "process %u of the crowd ended with status %#x", i,
                           (unsigned)status);
            crowd->pids[i] = 0;
        }
    }
}

void crowd_join(struct crowd *crowd)
{
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        int status = crowd->pids[i] > 0 ? process_wait(crowd->pids[i], END_MS) : 0;

        if (status != 0)
            crowd_complain(crowd, "process %u of the crowd ended with %d", i, status);
        crowd->pids[i] = 0;
    }
}

bool crowd_enter(struct crowd_member *member)
{
    struct lives *lives = member->crowd->lives;

    while (member->root < 0) {
        if (atomic_load(&lives->over))
            return false;
        member->life = lives_await(lives, member->life);
        member->root = lives_open(member->crowd->mount->mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (member->root < 0)
            (void)crowd_failed(member, "opening the root");
    }
    return true;
}

bool crowd_leave(struct crowd_member *member)
{
    struct lives *lives = member->crowd->lives;
    unsigned life = member->life;

    (void)close(member->root); /* nothing was written */
    member->root = -1;
    if (lives_goes_on(lives, life)) {
        member->life = life - 1; /* it is entered once more */
        crowd_pause(member, AGAIN_MS);
    }
    return atomic_load(&lives->killed[life]);
}

bool crowd_is_excused(const struct crowd_member *member)
{
    return !lives_goes_on(member->crowd->lives, member->life);
}

void crowd_complain(struct crowd *crowd, const char *format, ...)
{
    unsigned number = atomic_fetch_add(&crowd->shared->complaints_count, 1);
    va_list arguments;

    if (number >= CROWD_COMPLAINTS_MOST)
        return;
    va_start(arguments, format);
    vsnprintf(crowd->shared->complaints[number], CROWD_COMPLAINT_BYTES, format, arguments);
    va_end(arguments);
}

bool crowd_failed(const struct crowd_member *member, const char *what)
{
    int error = errno;

    if (!crowd_is_excused(member))
        crowd_complain(member->crowd, "life %u: %s: %s", member->life, what, strerror(error));
    return false;
}

void crowd_pause(struct crowd_member *member, unsigned mean_ms)
{
    long pause_us = (long)random_below(&member->random, (size_t)mean_ms * 2000);
    struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};

    (void)nanosleep(&pause, NULL);
}

void crowd_count(const struct crowd_member *member)
{
    atomic_fetch_add(&member->crowd->shared->done[member->number], 1);
}

int crowd_box_of(struct tally_id id)
{
    return CROWD_FIRST_BOX + (int)((id.sender + id.which) % CROWD_BOXES);
}

void crowd_see(const struct crowd_member *member, struct tally_reader *reader, int box,
               bool of_envelope, const char *bytes, size_t size_bytes)
{
    struct tally *tally = member->crowd->tally;

    tally_answer(reader);
    if (of_envelope)
        tally_see_envelopes(tally, reader, bytes, size_bytes);
    else
        tally_see(tally, reader, (const uint8_t *)bytes, size_bytes);
    for (size_t i = 0; i < reader->hand_count; i++) {
        if (crowd_box_of(reader->hand[i]) != box)
            crowd_complain(member->crowd, "life %u: message %u of %u came from mailbox %d",
                           member->life, reader->hand[i].which, reader->hand[i].sender, box);
    }
}
