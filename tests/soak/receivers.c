/* Those of the crowd that receive. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "behind.h"
#include "crowd.h"
#include "process.h"

enum {
    RECEIVE_PAUSE_MS = 50,
    MESSAGE_PAUSE_MS = 2,
    REST_EVERY = 100,    /* answers */
    REST_PAUSE_MS = 300, /* meanwhile mail piles up, and is then in flight for a while */
    DRAIN_PAUSE_MS = 40,
    KILLED_PAUSE_MS = 25,
    LIFE_MOST_MS = 12, /* of one that is killed */
    GONE_MS = 10000,   /* until it must be */
    POLL_MS = 1000,
    REOPEN_COUNT = 200, /* answers of one open file */
    PEEPHOLE_BYTES = 5, /* fewer than any message has */
    PEEPHOLE_EVERY = 16,
};

static struct tally_reader reader;
static char buffer[CROWD_READ_BYTES + 1];

static bool is_calm(int box)
{
    return box < CROWD_FIRST_BOX + CROWD_CALM_BOXES;
}

static int open_box(const struct crowd_member *member, const char *view, int box, int flags)
{
    char path[32];

    snprintf(path, sizeof(path), "%s%d", view, box);
    reader.ordered = is_calm(box);
    tally_open(&reader);
    return openat(member->root, path, O_RDONLY | O_CLOEXEC | flags);
}

/* Reads on to the end, or `most` answers. False: it failed. */
static bool read_on(struct crowd_member *member, int fd, int box, bool of_envelope, int most)
{
    ssize_t got = 1;

    for (int i = 0; i < most && got > 0; i++) {
        got = read(fd, buffer, CROWD_READ_BYTES);
        if (got <= 0)
            break;
        buffer[got] = '\0';
        crowd_see(member, &reader, box, of_envelope, buffer, (size_t)got);
        crowd_count(member);
        crowd_pause(member, random_below(&member->random, REST_EVERY) == 0 ? REST_PAUSE_MS
                                                                           : MESSAGE_PAUSE_MS);
    }
    return got >= 0;
}

/* What it reads goes back when it closes. */
static bool peep(const struct crowd_member *member, int box)
{
    char bytes[PEEPHOLE_BYTES];
    int fd = open_box(member, "", box, 0);
    bool well = fd >= 0 && read(fd, bytes, sizeof(bytes)) >= 0;

    if (!well)
        (void)crowd_failed(member, "reading a part");
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return well;
}

static bool receive_from(struct crowd_member *member, int box)
{
    int fd = open_box(member, "", box, 0);
    bool well = fd >= 0;

    if (!well)
        return crowd_failed(member, "opening to receive");
    if (!read_on(member, fd, box, false, INT_MAX))
        well = crowd_failed(member, "receiving");
    (void)close(fd); /* nothing was written */
    return well;
}

void crowd_receive(struct crowd_member *member)
{
    while (crowd_enter(member)) {
        bool well = true;

        for (unsigned i = member->which; well && !crowd_is_excused(member); i++) {
            int box = CROWD_FIRST_BOX + (int)(i % CROWD_BOXES);

            if (!is_calm(box) && random_below(&member->random, PEEPHOLE_EVERY) == 0)
                well = peep(member, box);
            else
                well = receive_from(member, box);
            crowd_pause(member, RECEIVE_PAUSE_MS);
        }
        if (crowd_leave(member))
            tally_killed(member->crowd->tally, &reader);
    }
}

/* Waits for message after message until the mount is gone. */
static void follow(struct crowd_member *member, const char *view, int box)
{
    bool of_envelope = strcmp(view, ".envelope/") == 0;

    while (crowd_enter(member)) {
        bool well = true;

        while (well && !crowd_is_excused(member)) {
            int fd = open_box(member, view, box, 0);

            well = fd >= 0 || crowd_failed(member, "opening to follow");
            if (well && !read_on(member, fd, box, of_envelope, REOPEN_COUNT))
                well = crowd_failed(member, "following");
            if (fd >= 0)
                (void)close(fd); /* nothing was written */
        }
        if (crowd_leave(member))
            tally_killed(member->crowd->tally, &reader);
    }
}

/* These three leave the first mailboxes to those that only come by. */
void crowd_follow(struct crowd_member *member)
{
    follow(member, ".follow/", CROWD_FIRST_BOX + CROWD_BOXES - 1 - (int)member->which);
}

void crowd_envelope(struct crowd_member *member)
{
    follow(member, ".envelope/", CROWD_FIRST_BOX + CROWD_BOXES - 1 - (int)member->which);
}

static bool poll_and_receive(struct crowd_member *member, int fd, int box)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int ready = poll(&wait, 1, POLL_MS);

    if (ready < 0)
        return crowd_failed(member, "polling");
    if (ready > 0 && !read_on(member, fd, box, false, REOPEN_COUNT) && errno != EAGAIN)
        return crowd_failed(member, "receiving what was polled for");
    return true;
}

void crowd_poll(struct crowd_member *member)
{
    int box = CROWD_FIRST_BOX + CROWD_BOXES - 1 - 4 * (int)member->which;

    while (crowd_enter(member)) {
        int fd = open_box(member, ".follow/", box, O_NONBLOCK);
        bool well = fd >= 0 || crowd_failed(member, "opening to poll");

        while (well && !crowd_is_excused(member))
            well = poll_and_receive(member, fd, box);
        if (fd >= 0)
            (void)close(fd); /* nothing was written */
        if (crowd_leave(member))
            tally_killed(member->crowd->tally, &reader);
    }
}

/* Takes what there is in the file of a mailbox, once, as a Go process does with its own. What went
 * wrong, or 0. */
static int drain_one(struct crowd_member *member, int box)
{
    struct behind_message message;
    uint8_t *bytes;
    ssize_t got = behind_drain(member->crowd->mount, box, &bytes), took = 0;

    if (got < 0)
        return (int)got;
    for (ssize_t done = 0; done < got; done += took) {
        took = behind_parse(bytes + done, (size_t)(got - done), &message);
        if (took <= 0)
            break;
        crowd_see(member, &reader, box, false, (const char *)message.payload,
                  message.payload_bytes);
        crowd_count(member);
    }
    free(bytes);
    return took < 0 ? (int)took : 0;
}

/* Only while the daemon lives: see crowd_gate(). */
void crowd_drain(struct crowd_member *member)
{
    int gate = open(crowd_gate(member->crowd->mount), O_RDONLY | O_CLOEXEC);
    int result = gate >= 0 ? 0 : -errno;

    for (unsigned i = 0; result == 0 && !atomic_load(&member->crowd->lives->over); i++) {
        if (flock(gate, LOCK_EX) != 0)
            result = -errno;
        if (result == 0)
            result = drain_one(member, CROWD_FIRST_BOX + (int)(i % CROWD_BOXES));
        (void)flock(gate, LOCK_UN); /* it is held */
        crowd_pause(member, DRAIN_PAUSE_MS);
    }
    if (result != 0)
        crowd_complain(member->crowd, "draining behind the mount: %s", strerror(-result));
}

/* --- Killed ones ------------------------------------------------------------------------------ */

/* What the child of one that is killed has read is here, whenever it was killed. */
enum { AREAS = 3 };
struct areas {
    char bytes[AREAS][CROWD_READ_BYTES + 1];
};

/* Reads as often as there are areas. */
static void read_into(const struct crowd_member *member, const char *view, int box,
                      struct areas *areas)
{
    int fd = open_box(member, view, box, 0);

    for (int i = 0; fd >= 0 && i < AREAS; i++) {
        if (read(fd, areas->bytes[i], CROWD_READ_BYTES) <= 0)
            break;
    }
}

/* How many bytes of messages there are: what was handed over is there wholly or not at all. */
static size_t measure(const struct tally *tally, const char *bytes, bool of_envelope)
{
    size_t size_bytes = 0;

    while (bytes[size_bytes] != '\0') {
        const char *payload = bytes + size_bytes;
        size_t payload_bytes;
        struct tally_id id;

        if (of_envelope)
            payload = strchr(payload, '\n');
        if (payload == NULL ||
            !tally_identify(tally, (const uint8_t *)payload + of_envelope,
                            CROWD_READ_BYTES - (size_t)(payload - bytes), &id, &payload_bytes))
            return strlen(bytes); /* which is then found strange */
        size_bytes = (size_t)(payload - bytes) + of_envelope + payload_bytes;
    }
    return size_bytes;
}

static void see_areas(const struct crowd_member *member, int box, bool of_envelope,
                      struct areas *areas)
{
    for (int i = 0; i < AREAS; i++) {
        size_t size_bytes = measure(member->crowd->tally, areas->bytes[i], of_envelope);

        if (size_bytes > 0)
            crowd_see(member, &reader, box, of_envelope, areas->bytes[i], size_bytes);
        memset(areas->bytes[i], 0, size_bytes);
    }
}

static void kill_receiver(struct crowd_member *member, struct areas *areas)
{
    static const char *const views[] = {"", ".follow/", ".envelope/"};
    size_t view = random_below(&member->random, sizeof(views) / sizeof(views[0]));
    int box = CROWD_FIRST_BOX + CROWD_CALM_BOXES +
              (int)random_below(&member->random, CROWD_BOXES - CROWD_CALM_BOXES);
    pid_t child = process_fork(0);
    int status;

    if (child == 0) {
        read_into(member, views[view], box, areas);
        _exit(0);
    }
    if (child < 0) {
        crowd_complain(member->crowd, "fork: %s", strerror(errno));
        return;
    }
    crowd_pause(member, LIFE_MOST_MS / 2);
    (void)kill(child, SIGKILL); /* it is ours, and not reaped */
    status = process_wait(child, GONE_MS);
    if (status != 0 && status != 128 + SIGKILL)
        crowd_complain(member->crowd, "one that was killed ends with %d", status);
    see_areas(member, box, view == 2, areas);
    crowd_count(member);
}

void crowd_receive_killed(struct crowd_member *member)
{
    struct areas *areas =
        mmap(NULL, sizeof(*areas), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (areas == MAP_FAILED) {
        crowd_complain(member->crowd, "no memory");
        return;
    }
    while (crowd_enter(member)) {
        while (!crowd_is_excused(member)) {
            kill_receiver(member, areas);
            crowd_pause(member, KILLED_PAUSE_MS);
        }
        if (crowd_leave(member))
            tally_killed(member->crowd->tally, &reader);
    }
}

/* --- The rest --------------------------------------------------------------------------------- */

void crowd_receive_rest(struct crowd *crowd)
{
    struct crowd_member member = {.crowd = crowd, .root = -1};

    if (!crowd_enter(&member))
        crowd_complain(crowd, "the last mount is not there");
    for (int i = 0; member.root >= 0 && i < CROWD_BOXES; i++)
        (void)receive_from(&member, CROWD_FIRST_BOX + i);
    if (member.root >= 0)
        (void)crowd_leave(&member);
}
