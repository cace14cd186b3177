#include "acts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "behind.h"
#include "through.h"

enum {
    HEAD_BYTES =
        16, /* of a payload: who, the how manieth, its size, and what tells it from noise */
    PAYLOAD_MOST_BYTES = 3000,
    POLL_MS = 50,
    MARK = 0x6d6f6465,
    FUSE_MAGIC = 0x65735546,
    SENDER_EVENTS = ACTOR_EVENTS / 6, /* so that those who receive have room for them */
    ANSWER_EVENTS = ACTOR_EVENTS / 2, /* what one drain may bring; more is told as strange */
};

struct head {
    uint32_t mark, sender, number, size;
};

/* --- Noting ---------------------------------------------------------------------------------- */

static struct history_event *begin(struct work *work, enum history_kind kind)
{
    struct actor *me = work->me;
    struct history_event *event = &me->events[me->count];

    *event = (struct history_event){.kind = kind, .box = me->box, .actor = work->self};
    event->begun_ns = through_clock_ns();
    event->done_ns = INT64_MAX;
    return event;
}

/* It counts from now on. */
static void keep(struct work *work)
{
    __sync_synchronize();
    work->me->count++;
}

bool acts_have_room(const struct work *work)
{
    enum actor_kind kind = work->me->kind;
    unsigned most = actor_sends(kind) ? SENDER_EVENTS : ACTOR_EVENTS - ANSWER_EVENTS;

    return work->me->count < most;
}

/* What was read since is a message, or its beginning. */
void acts_note_message(struct work *work, enum history_kind kind, int64_t begun_ns,
                       const uint8_t *payload, size_t size_bytes)
{
    struct history_event *event;
    struct head head = {0};

    if (work->me->count == ACTOR_EVENTS) {
        work->me->strange = (int)size_bytes + 1;
        return;
    }
    event = begin(work, kind);
    if (size_bytes >= sizeof(head))
        memcpy(&head, payload, sizeof(head));
    if (head.mark != MARK || (kind != HISTORY_PART && head.size != size_bytes)) {
        work->me->strange = (int)size_bytes + 1;
        return;
    }
    event->state = HISTORY_DONE;
    event->begun_ns = begun_ns;
    event->done_ns = through_clock_ns();
    event->sender = head.sender;
    event->number = head.number;
    event->count = head.size;
    keep(work);
}

/* --- Sending --------------------------------------------------------------------------------- */

/* A daemon that is being replaced leaves its mount point, or a mount that answers nothing. */
int acts_open(struct work *work, int flags)
{
    static const struct timespec moment = {.tv_nsec = 2000000};
    struct statfs below;
    int fd = open(work->path, flags | O_CLOEXEC);

    if (fd >= 0 && fstatfs(fd, &below) == 0 && below.f_type == FUSE_MAGIC)
        return fd;
    if (fd >= 0)
        close(fd);
    nanosleep(&moment, NULL);
    return -1;
}

static struct history_event *begin_send(struct work *work, size_t *size)
{
    struct history_event *event = begin(work, HISTORY_SEND);
    struct head head = {.mark = MARK, .sender = work->self, .number = work->me->count};

    *size = HEAD_BYTES + random_below(&work->random, random_below(&work->random, 8) == 0
                                                         ? PAYLOAD_MOST_BYTES - HEAD_BYTES
                                                         : 60);
    head.size = (uint32_t)*size;
    memset(work->buffer, 'x', *size);
    memcpy(work->buffer, &head, sizeof(head));
    event->sender = work->self;
    event->number = head.number;
    event->count = (long)*size;
    keep(work);
    return event;
}

/* `error`: 0, or an errno. Where the daemon went away nobody knows. */
static void end_send(struct history_event *event, int error)
{
    event->done_ns = through_clock_ns();
    __sync_synchronize();
    if (error == 0)
        event->state = HISTORY_DONE;
    else if (error != ENOTCONN && error != ECONNABORTED && error != EINTR && error != EIO)
        event->state = HISTORY_FAILED;
}

static void replaces(struct work *work)
{
    struct history_event *event;
    size_t size, half;
    int error = 0;
    int fd = acts_open(work, O_WRONLY | O_TRUNC);

    if (fd < 0)
        return;
    event = begin_send(work, &size);
    half = random_below(&work->random, size + 1);
    if (write(fd, work->buffer, half) != (ssize_t)half ||
        write(fd, work->buffer + half, size - half) != (ssize_t)(size - half))
        error = errno;
    if (close(fd) != 0 && error == 0)
        error = errno;
    end_send(event, error);
}

static void appends(struct work *work)
{
    int fd = acts_open(work, O_WRONLY | O_APPEND);
    int error = 0;

    while (fd >= 0 && error == 0 && !work->stage->over && acts_have_room(work)) {
        size_t size;
        struct history_event *event = begin_send(work, &size);

        if (write(fd, work->buffer, size) != (ssize_t)size)
            error = errno;
        end_send(event, error);
    }
    if (fd >= 0)
        close(fd);
}

static void sends_behind(struct work *work)
{
    size_t size;
    struct history_event *event = begin_send(work, &size);
    int result = behind_send(work->mount, actors_box_pid(work->me->box), (int32_t)work->self + 1,
                             work->buffer, size);

    end_send(event, -result);
}

/* --- Receiving ------------------------------------------------------------------------------- */

static ssize_t read_noted(struct work *work, int fd, size_t size)
{
    ssize_t got;

    work->me->asked = (long)size;
    __sync_synchronize();
    got = read(fd, work->buffer, size);
    if (got <= 0)
        work->me->asked = 0;
    return got; /* else until it is noted */
}

static void receives(struct work *work)
{
    int fd = acts_open(work, O_RDONLY);
    ssize_t got = 1;

    while (fd >= 0 && got > 0 && acts_have_room(work)) {
        struct history_event *event = begin(work, HISTORY_EMPTY);
        int64_t begun_ns = event->begun_ns;

        got = read_noted(work, fd, ACTS_READ_BYTES);
        if (got > 0) {
            acts_note_message(work, HISTORY_TAKE, begun_ns, work->buffer, (size_t)got);
        } else if (got == 0) {
            event->done_ns = through_clock_ns();
            event->state = HISTORY_DONE;
            keep(work);
        }
        work->me->asked = 0;
    }
    if (fd >= 0)
        close(fd);
}

static void receives_part(struct work *work)
{
    int fd = acts_open(work, O_RDONLY);
    int64_t begun_ns = through_clock_ns();
    ssize_t got;

    if (fd < 0)
        return;
    got = read(fd, work->buffer, HEAD_BYTES);
    if (got == HEAD_BYTES) {
        struct head head;

        memcpy(&head, work->buffer, sizeof(head));
        acts_note_message(work, head.size == HEAD_BYTES ? HISTORY_TAKE : HISTORY_PART, begun_ns,
                          work->buffer, HEAD_BYTES);
    }
    close(fd);
}

/* Whether there is something, within a moment. */
static bool await_message(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, POLL_MS) == 1 && (wait.revents & POLLIN) != 0;
}

/* The messages of an answer. */
static void note_envelopes(struct work *work, int64_t begun_ns, size_t size_bytes)
{
    const uint8_t *at = work->buffer;

    while (size_bytes > 0) {
        const uint8_t *end = memchr(at, '\n', size_bytes);
        char line[48] = "";
        size_t length, head;
        int sender;

        head = end != NULL ? (size_t)(end - at) + 1 : size_bytes;
        if (head < sizeof(line))
            memcpy(line, at, head);
        if (sscanf(line, "%d %zu\n", &sender, &length) != 2 || length > size_bytes - head) {
            work->me->strange = (int)size_bytes + 1;
            return;
        }
        acts_note_message(work, HISTORY_TAKE, begun_ns, at + head, length);
        at += head + length;
        size_bytes -= head + length;
    }
}

static void note_one(struct work *work, int64_t begun_ns, size_t size_bytes)
{
    acts_note_message(work, HISTORY_TAKE, begun_ns, work->buffer, size_bytes);
}

/* Until all is over, or the daemon ends. `note_answer` notes what was read. */
static void reads_stream(struct work *work, void (*note_answer)(struct work *work, int64_t begun_ns,
                                                                size_t size_bytes))
{
    int fd = acts_open(work, O_RDONLY | O_NONBLOCK);
    ssize_t got = 1;

    while (fd >= 0 && (got > 0 || errno == EAGAIN) && !work->stage->drained &&
           acts_have_room(work)) {
        int64_t begun_ns = through_clock_ns();

        if (!await_message(fd))
            continue;
        got = read_noted(work, fd, ACTS_READ_BYTES);
        if (got > 0)
            note_answer(work, begun_ns, (size_t)got);
        work->me->asked = 0;
    }
    if (fd >= 0)
        close(fd);
}

static void follows(struct work *work)
{
    reads_stream(work, note_one);
}

static void envelopes(struct work *work)
{
    reads_stream(work, note_envelopes);
}

static void drains_behind(struct work *work)
{
    int64_t begun_ns = through_clock_ns();
    uint8_t *bytes;
    ssize_t left = behind_drain(work->mount, actors_box_pid(work->me->box), &bytes);
    const uint8_t *at = bytes;
    struct behind_message message;
    ssize_t frame = 0;

    while (left > 0 && (frame = behind_parse(at, (size_t)left, &message)) > 0) {
        acts_note_message(work, HISTORY_DRAIN, begun_ns, message.payload, message.payload_bytes);
        at += frame;
        left -= frame;
    }
    if (frame < 0)
        work->me->strange = (int)left + 1;
    free(bytes);
}

static void looks(struct work *work)
{
    static const struct timespec between = {.tv_nsec = 3000000};
    struct history_event *event = begin(work, HISTORY_SIZE);
    struct stat status;
    struct statfs below;

    if (stat(work->path, &status) == 0 && statfs(work->path, &below) == 0 &&
        below.f_type == FUSE_MAGIC) {
        event->count = status.st_size;
        event->done_ns = through_clock_ns();
        event->state = HISTORY_DONE;
        keep(work);
    }
    nanosleep(&between, NULL);
}

/* --- All of them ----------------------------------------------------------------------------- */

static const struct {
    void (*act)(struct work *work);
    const char *view;
    unsigned pause_us; /* at most, between two turns */
} kinds[ACTOR_KINDS] = {
    [ACTOR_REPLACES] = {replaces, "", 3000},
    [ACTOR_APPENDS] = {appends, "", 3000},
    [ACTOR_SENDS_BEHIND] = {sends_behind, "", 3000},
    [ACTOR_RECEIVES] = {receives, "", 5000},
    [ACTOR_FOLLOWS] = {follows, ".follow/", 0},
    [ACTOR_ENVELOPES] = {envelopes, ".envelope/", 0},
    [ACTOR_RECEIVES_PARTS] = {receives_part, "", 5000},
    [ACTOR_DRAINS_BEHIND] = {drains_behind, "", 20000},
    [ACTOR_LOOKS] = {looks, "", 0},
};

static bool goes_on(const struct work *work)
{
    enum actor_kind kind = work->me->kind;
    bool receives_on = !actor_sends(kind) && kind != ACTOR_LOOKS;

    return !(receives_on ? work->stage->drained : work->stage->over) && acts_have_room(work) &&
           work->me->strange == 0;
}

void acts_play(struct work *work)
{
    while (goes_on(work)) {
        unsigned pause_us = kinds[work->me->kind].pause_us;

        kinds[work->me->kind].act(work);
        if (pause_us > 0)
            usleep((useconds_t)random_below(&work->random, pause_us));
    }
}

const char *acts_view(enum actor_kind kind)
{
    return kinds[kind].view;
}
