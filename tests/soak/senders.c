/* Those of the crowd that send. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crowd.h"
#include "gproc.h"
#include "process.h"
#include "through.h"

enum {
    SEND_PAUSE_MS = 14,
    BEHIND_PAUSE_MS = 18,
    KILLED_PAUSE_MS = 20,
    KILLED_PIECES = 4,
    LIFE_MOST_MS = 8, /* of one that is killed */
    GONE_MS = 10000,  /* until it must be */
    LOCK_MS = 10000,
};

/* How a message is written. */
struct manner {
    int flags;
    unsigned pieces;
    bool twice; /* the descriptor is duplicated, and so closed twice */
};

static const struct manner manners[] = {
    {THROUGH_REPLACE, 1, false}, {THROUGH_APPEND, 1, false},
    {THROUGH_REPLACE, 3, false}, {O_RDWR | O_CREAT | O_CLOEXEC, 1, false},
    {THROUGH_REPLACE, 1, true},
};

static uint8_t payload[TALLY_PAYLOAD_MOST_BYTES];

/* Mostly small, at times large. */
static size_t make_payload(struct crowd_member *member, struct tally_id id)
{
    static const size_t most_bytes[] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 16000};
    size_t kind = random_below(&member->random, 100);
    size_t limit = kind == 0 ? CROWD_MESSAGE_MOST_BYTES
                             : most_bytes[kind % (sizeof(most_bytes) / sizeof(most_bytes[0]))];

    return tally_payload(id, random_below(&member->random, limit), payload);
}

/* The next message of this sender; false: there is no room for it. */
static bool next_message(struct crowd_member *member, struct tally_id *id)
{
    const struct crowd *crowd = member->crowd;
    unsigned which = atomic_load(&crowd->shared->next[member->which]);

    *id = (struct tally_id){member->which, which};
    if (which >= crowd->tally->each_most) {
        crowd_complain(member->crowd, "sender %u has no room for more", member->which);
        return false;
    }
    tally_set(crowd->tally, *id, TALLY_TRIED);
    atomic_store(&crowd->shared->next[member->which], which + 1);
    return true;
}

static bool write_pieces(int fd, size_t payload_bytes, unsigned pieces)
{
    size_t piece_bytes = (payload_bytes + pieces - 1) / pieces;

    for (size_t done = 0; done < payload_bytes; done += piece_bytes) {
        size_t left = payload_bytes - done;
        size_t now = left < piece_bytes ? left : piece_bytes;

        if (write(fd, payload + done, now) != (ssize_t)now)
            return false;
    }
    return true;
}

static bool send_one(struct crowd_member *member, struct tally_id id, const struct manner *manner)
{
    size_t payload_bytes = make_payload(member, id);
    int second = -1;
    char name[16];
    bool wrote;
    int fd;

    snprintf(name, sizeof(name), "%d", crowd_box_of(id));
    fd = openat(member->root, name, manner->flags, 0666);
    if (fd < 0)
        return crowd_failed(member, "opening to send");
    wrote = write_pieces(fd, payload_bytes, manner->pieces) || crowd_failed(member, "writing");
    if (manner->twice)
        second = dup(fd);
    if (close(fd) != 0)
        wrote = crowd_failed(member, "closing what was written");
    if (second >= 0 && close(second) != 0)
        wrote = crowd_failed(member, "closing once more what was written");
    return wrote;
}

void crowd_send(struct crowd_member *member)
{
    struct tally_id id;

    while (crowd_enter(member)) {
        while (next_message(member, &id) &&
               send_one(member, id, &manners[id.which % (sizeof(manners) / sizeof(manners[0]))])) {
            tally_set(member->crowd->tally, id, TALLY_SENT);
            crowd_count(member);
            crowd_pause(member, SEND_PAUSE_MS);
        }
        (void)crowd_leave(member);
    }
}

void crowd_send_behind(struct crowd_member *member)
{
    const struct gproc_options options = {
        .mailbox_directory = member->crowd->mount->mail,
        .lock_directory = member->crowd->mount->locks,
    };
    struct gproc *gproc;
    struct tally_id id;
    int result = gproc_open(&options, &gproc);

    while (result == 0 && !atomic_load(&member->crowd->lives->over) && next_message(member, &id)) {
        size_t payload_bytes = make_payload(member, id);

        result = gproc_send(gproc, crowd_box_of(id), payload, payload_bytes, LOCK_MS);
        if (result == 0) {
            tally_set(member->crowd->tally, id, TALLY_SENT);
            crowd_count(member);
        }
        crowd_pause(member, BEHIND_PAUSE_MS);
    }
    if (result != 0)
        crowd_complain(member->crowd, "gproc_send: %s", strerror(-result));
}

/* How far one has come that is killed; shared with it. */
enum progress {
    WRITING = 0, /* killed here it sends nothing */
    CLOSING,     /* here it may */
    CLOSED,
    FAILED,
};

static void send_slowly(struct crowd_member *member, struct tally_id id, atomic_int *progress)
{
    size_t payload_bytes = make_payload(member, id);
    size_t piece_bytes = (payload_bytes + KILLED_PIECES - 1) / KILLED_PIECES;
    bool wrote = true;
    char name[16];
    int fd;

    snprintf(name, sizeof(name), "%d", crowd_box_of(id));
    fd = openat(member->root, name, THROUGH_REPLACE, 0666);
    wrote = fd >= 0;
    for (size_t done = 0; wrote && done < payload_bytes; done += piece_bytes) {
        size_t left = payload_bytes - done;
        size_t now = left < piece_bytes ? left : piece_bytes;

        crowd_pause(member, 1);
        wrote = write(fd, payload + done, now) == (ssize_t)now;
    }
    if (!wrote)
        (void)crowd_failed(member, "writing slowly");
    atomic_store(progress, CLOSING);
    if (fd >= 0 && close(fd) != 0)
        wrote = crowd_failed(member, "closing what was written slowly");
    atomic_store(progress, wrote ? CLOSED : FAILED);
}

/* One child that sends, and is killed, be it before, in the midst or after. False: no longer
 * mounted. */
static bool kill_sender(struct crowd_member *member, struct tally_id id, atomic_int *progress)
{
    pid_t child;
    int status;

    (void)random_next(&member->random); /* the child's numbers are others each time */
    atomic_store(progress, WRITING);
    child = process_fork(0);
    if (child == 0) {
        send_slowly(member, id, progress);
        _exit(0);
    }
    if (child < 0)
        return crowd_failed(member, "fork");
    crowd_pause(member, LIFE_MOST_MS / 2);
    (void)kill(child, SIGKILL); /* it is ours, and not reaped */
    status = process_wait(child, GONE_MS);
    if (status != 0 && status != 128 + SIGKILL)
        crowd_complain(member->crowd, "one that was killed ends with %d", status);
    if (atomic_load(progress) == CLOSED)
        tally_set(member->crowd->tally, id, TALLY_SENT);
    if (atomic_load(progress) == WRITING)
        tally_set(member->crowd->tally, id, TALLY_WITHDRAWN);
    crowd_count(member);
    return !crowd_is_excused(member);
}

void crowd_send_killed(struct crowd_member *member)
{
    atomic_int *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally_id id;

    if (progress == MAP_FAILED) {
        crowd_complain(member->crowd, "no memory");
        return;
    }
    while (crowd_enter(member)) {
        while (next_message(member, &id) && kill_sender(member, id, progress))
            crowd_pause(member, KILLED_PAUSE_MS);
        (void)crowd_leave(member);
    }
}
