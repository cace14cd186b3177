/*
 * Whatever call of the daemon fails while it serves a request, memory included, the request has one
 * answer, an error or success; what was said to be sent is in the mailbox, what was not is not; no
 * message that waits is lost; and nothing stays open or allocated when the mount has ended.
 *
 * Here calls fail that a tracer cannot have fail (see test_faults.c of the mount tests): those for
 * memory that the C library has already. And each fails alone, again, and with all that follow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "inside.h"
#include "mount.h"
#include "process.h"
#include "stage.h"

enum {
    GOT_MOST = 8,
    LARGE_BYTES =
        100000, /* more than is answered straight from the mailbox, or shown from memory */
    READ_BYTES = 4096,
    WAIT_MS = 20000,
};

/* One mount after the other on the same stage. */
struct world {
    struct stage stage;
    int nowhere_fd,
        stderr_fd; /* where standard error goes while calls fail; where it went before */
    struct inside *inside;
    unsigned sent_count;        /* messages that were said to be sent */
    unsigned got[GOT_MOST + 1]; /* how often the n-th of those that waited was received */
    bool cleared;               /* it was said that the mailbox was emptied or removed */
    bool may_be_cleared;        /* that was asked for */
};

struct scenario {
    const char *what;
    unsigned waiting_count; /* messages that wait, of different texts */
    size_t waiting_bytes;   /* each; 0: the text alone */
    bool is_empty;          /* none waits, but there is a mailbox */
    bool has_empty_ones;    /* in front of each one of no bytes */
    bool is_left;           /* by a mount that received the first and died, */
    bool is_unsettled; /* or, with that, died before it had received it, with all in two places */
    bool ends;         /* it is the end of the mount, after that, at which calls fail */
    int (*act)(struct world *world);
    int also; /* an errno that an error may turn into */
};

/* ---- What waits, and what became of it */

static size_t make_text(char *text, size_t room, unsigned number, size_t size_bytes)
{
    int length = snprintf(text, room, "message %u", number);

    if (size_bytes > (size_t)length) {
        memset(text + length, '.', size_bytes - (size_t)length);
        text[size_bytes] = '\0';
        return size_bytes;
    }
    return (size_t)length;
}

static void put_waiting(struct world *world, const struct scenario *scenario)
{
    static uint8_t frame[TEMPORARY_HEADER_BYTES + LARGE_BYTES + 1];
    static char text[LARGE_BYTES + 1];

    if (scenario->is_empty)
        temporary_write(world->stage.box, NULL, 0);
    for (unsigned i = 1; i <= scenario->waiting_count; i++) {
        size_t size_bytes = make_text(text, sizeof(text), i, scenario->waiting_bytes);

        if (scenario->has_empty_ones)
            stage_put(&world->stage, "");
        temporary_append(world->stage.box, frame,
                         temporary_frame(frame, STAGE_SENDER, text, size_bytes));
    }
}

/* Which of those that waited begins here; 0: none. */
static unsigned number_of(const uint8_t *bytes, size_t size_bytes)
{
    static const char start[] = "message ";
    size_t length = sizeof(start) - 1;

    if (size_bytes <= length || memcmp(bytes, start, length) != 0 || bytes[length] < '1' ||
        bytes[length] > '0' + GOT_MOST)
        return 0;
    return (unsigned)(bytes[length] - '0');
}

static void note_got(struct world *world, const void *bytes, size_t size_bytes)
{
    world->got[number_of(bytes, size_bytes)]++;
}

/* Of envelopes: a line before each. */
static void note_enveloped(struct world *world, const char *bytes, size_t size_bytes)
{
    while (size_bytes > 0) {
        const char *payload = memchr(bytes, '\n', size_bytes);
        unsigned long length;

        assert_non_null(payload);
        payload++;
        length = strtoul(strchr(bytes, ' '), NULL, 10);
        note_got(world, payload, length);
        size_bytes -= (size_t)(payload - bytes) + length;
        bytes = payload + length;
    }
}

/* What is in the mailbox when the mount has ended, all of it whole frames: how many messages of which
 * number; those that were sent have none. */
static void count_left(const struct world *world, unsigned left[GOT_MOST + 1])
{
    static uint8_t bytes[8 * LARGE_BYTES];
    ssize_t size = 0;
    int fd = open(world->stage.box, O_RDONLY | O_CLOEXEC);

    memset(left, 0, (GOT_MOST + 1) * sizeof(left[0]));
    if (fd >= 0) {
        size = read(fd, bytes, sizeof(bytes));
        (void)close(fd);
    }
    for (const uint8_t *at = bytes; size > 0;) {
        int32_t length;

        assert_true(size >= TEMPORARY_HEADER_BYTES);
        memcpy(&length, at, sizeof(length));
        assert_in_range(length, TEMPORARY_HEADER_BYTES, size);
        if (length > TEMPORARY_HEADER_BYTES)
            left[number_of(at + TEMPORARY_HEADER_BYTES, (size_t)length - TEMPORARY_HEADER_BYTES)]++;
        at += length;
        size -= length;
    }
}

/* Calls that note on disk what a reader has got: where they fail, he may get it again. */
static bool notes_delivery(const struct fault_walk *walk)
{
    static const char *const names[] = {"ftruncate", "pwrite", "write"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (walk->failed != NULL && strcmp(walk->failed, names[i]) == 0)
            return true;
    }
    return walk->failed != NULL && walk->then == FAULT_THEN_ALL;
}

/* Received by the mount that died then. */
static bool is_gone(const struct scenario *scenario, unsigned number)
{
    return scenario->is_left && !scenario->is_unsettled && number == 1;
}

static void judge(const struct world *world, const struct scenario *scenario,
                  const struct fault_walk *walk)
{
    unsigned left[GOT_MOST + 1];

    count_left(world, left);
    if (left[0] != world->sent_count)
        fail_msg("%s: %s: %u messages are sent, and %u were said to be", scenario->what,
                 fault_walk_say(walk), left[0], world->sent_count);
    if (world->got[0] > 0)
        fail_msg("%s: %s: something was received that nobody sent", scenario->what,
                 fault_walk_say(walk));
    for (unsigned i = 1; i <= scenario->waiting_count; i++) {
        unsigned count = world->got[i] + left[i];

        if (count == 0 && !world->may_be_cleared && !is_gone(scenario, i))
            fail_msg("%s: %s: message %u is lost", scenario->what, fault_walk_say(walk), i);
        if (count > 1 && !notes_delivery(walk))
            fail_msg("%s: %s: message %u is there %u times", scenario->what, fault_walk_say(walk),
                     i, count);
        if (world->cleared && left[i] > 0)
            fail_msg("%s: %s: message %u was to be cleared", scenario->what, fault_walk_say(walk),
                     i);
    }
}

/* A lock that is not had seems held: then one waits, for his interruption here, or has the kernel look
 * the name up again. */
static bool seems_held(const struct fault_walk *walk)
{
    return walk->failed != NULL &&
           (strcmp(walk->failed, "flock") == 0 || walk->then == FAULT_THEN_ALL);
}

static bool is_of_a_held_lock(int result)
{
    return result == -EINTR || result == -ESTALE;
}

static void leave_by_a_dead_mount(struct world *world, bool unsettled);

static struct inside *mount_world(const struct world *world)
{
    const struct inside_options options = {.alone = true};

    return inside_mount(world->stage.parent, &options);
}

static void begin_run(struct world *world, const struct scenario *scenario)
{
    memset(world->got, 0, sizeof(world->got));
    world->sent_count = 0;
    world->cleared = world->may_be_cleared = false;
    stage_set(&world->stage);
    put_waiting(world, scenario);
    if (scenario->is_left)
        leave_by_a_dead_mount(world, scenario->is_unsettled);
    world->inside = mount_world(world);
}

/* What failed at the end of the mount the next one has to make good. */
static int end_badly(struct world *world, const struct scenario *scenario, struct fault_walk *walk)
{
    int result = scenario->act(world);

    fault_walk_start(walk);
    inside_unmount(world->inside);
    fault_walk_stop(walk);
    inside_unmount(mount_world(world));
    return result;
}

static int act_badly(struct world *world, const struct scenario *scenario, struct fault_walk *walk)
{
    int result;

    fault_walk_start(walk);
    result = scenario->act(world);
    fault_walk_stop(walk);
    inside_unmount(world->inside);
    return result;
}

static void walk(struct world *world, const struct scenario *scenario)
{
    struct fault_walk walk;
    unsigned runs_count = 0;
    bool more = true;

    print_message("  %s: ", scenario->what);
    fault_walk_init(&walk);
    while (more) {
        int result;

        begin_run(world, scenario);
        /* Thousands of lines on what could not be done. */
        assert_true(dup2(world->nowhere_fd, STDERR_FILENO) >= 0);
        result =
            scenario->ends ? end_badly(world, scenario, &walk) : act_badly(world, scenario, &walk);
        assert_true(dup2(world->stderr_fd, STDERR_FILENO) >= 0);
        /* It says itself that a frame is torn: what would have repaired it failed as well. */
        if (result != -EUCLEAN || walk.then != FAULT_THEN_ALL) {
            if (result != scenario->also && !(seems_held(&walk) && is_of_a_held_lock(result)))
                fault_walk_judge(&walk, result, scenario->also);
            judge(world, scenario, &walk);
        }
        runs_count++;
        stage_clear(&world->stage);
        more = fault_walk_next(&walk);
        if (walk.variant == 0 && walk.then == FAULT_THEN_NOTHING)
            walk.which += mount_scale() - 1;
    }
    print_message("%u runs\n", runs_count);
}

/* ---- What is asked for */

static uint64_t find(struct world *world, uint64_t parent, const char *name, int *result)
{
    uint64_t node = 0;

    *result = inside_look_up(world->inside, parent, name, &node);
    return node;
}

static uint64_t find_box(struct world *world, const char *view, int *result)
{
    char name[16];
    uint64_t parent = INSIDE_ROOT;

    (void)snprintf(name, sizeof(name), "%d", STAGE_PID);
    *result = 0;
    if (view[0] != '\0')
        parent = find(world, INSIDE_ROOT, view, result);
    return *result == 0 ? find(world, parent, name, result) : 0;
}

static int open_box(struct world *world, const char *view, int flags, uint64_t *node,
                    uint64_t *handle)
{
    char name[16];
    int result;

    (void)snprintf(name, sizeof(name), "%d", STAGE_PID);
    if ((flags & O_CREAT) != 0)
        return inside_create(world->inside, INSIDE_ROOT, name, flags, node, handle);
    *node = find_box(world, view, &result);
    return result == 0 ? inside_open(world->inside, *node, flags, handle) : result;
}

/* The first error of those. */
static int first_of(int one, int other)
{
    return one != 0 ? one : other;
}

static int send_with(struct world *world, int flags, size_t size_bytes)
{
    static uint8_t payload[LARGE_BYTES];
    uint64_t node, handle;
    int result = open_box(world, "", flags, &node, &handle);
    int flushed;

    if (result < 0)
        return result;
    memset(payload, 's', sizeof(payload));
    /* In two pieces, where that makes one message. */
    if ((flags & O_TRUNC) != 0) {
        result = inside_write(world->inside, node, handle, payload, size_bytes / 2, 0);
        if (result == 0)
            result = inside_write(world->inside, node, handle, payload, size_bytes - size_bytes / 2,
                                  (off_t)(size_bytes / 2));
    } else {
        result = inside_write(world->inside, node, handle, payload, size_bytes, 0);
    }
    flushed = inside_flush(world->inside, node, handle);
    if (result == 0 && (flushed == 0 || (flags & O_TRUNC) == 0))
        world->sent_count = 1;
    (void)inside_release(world->inside, node, handle);
    return first_of(result, flushed);
}

static int send_collected(struct world *world)
{
    return send_with(world, O_WRONLY | O_CREAT | O_TRUNC, 20);
}

static int send_large_collected(struct world *world)
{
    return send_with(world, O_WRONLY | O_TRUNC, LARGE_BYTES);
}

static int send_at_once(struct world *world)
{
    return send_with(world, O_WRONLY | O_APPEND, 20);
}

static int send_at_once_to_a_new_one(struct world *world)
{
    return send_with(world, O_WRONLY | O_APPEND | O_CREAT, 20);
}

/* Opens, reads to the end in pieces of this size, closes. Looks, where it takes nothing. */
static int read_with(struct world *world, const char *view, int flags, size_t piece_bytes,
                     off_t most_bytes)
{
    static uint8_t all[8 * LARGE_BYTES];
    bool envelopes = strcmp(view, ".envelope") == 0;
    bool takes = view[0] == '\0' || envelopes || strcmp(view, ".follow") == 0;
    uint64_t node, handle;
    size_t got = 0, start = 0;
    int result = open_box(world, view, flags, &node, &handle);

    if (result < 0)
        return result;
    do {
        const void *bytes;

        result = inside_await(world->inside, inside_send_read(world->inside, node, handle,
                                                              piece_bytes, (off_t)start, flags));
        bytes = inside_bytes(world->inside, &got);
        if (result == 0) {
            assert_true(got <= sizeof(all) - start);
            memcpy(all + start, bytes, got);
            if (takes && !envelopes && number_of(all + start, got) > 0)
                note_got(world, all + start, got);
            start += got;
        }
    } while (result == 0 && got > 0 && (off_t)start < most_bytes);
    if (envelopes)
        note_enveloped(world, (const char *)all, start);
    (void)inside_release(world->inside, node, handle);
    return result == -EAGAIN && (flags & O_NONBLOCK) != 0 ? 0 : result;
}

static int receive(struct world *world)
{
    return read_with(world, "", O_RDONLY, READ_BYTES, INT32_MAX);
}

static int receive_large(struct world *world)
{
    return read_with(world, "", O_RDONLY, 4L * LARGE_BYTES, INT32_MAX);
}

static int follow(struct world *world)
{
    return read_with(world, ".follow", O_RDONLY | O_NONBLOCK, READ_BYTES, INT32_MAX);
}

static int receive_envelopes(struct world *world)
{
    return read_with(world, ".envelope", O_RDONLY | O_NONBLOCK, READ_BYTES, INT32_MAX);
}

static int receive_large_envelopes(struct world *world)
{
    return read_with(world, ".envelope", O_RDONLY | O_NONBLOCK, 4L * LARGE_BYTES, INT32_MAX);
}

/* Leaves off in the midst of one. */
static int receive_in_part(struct world *world)
{
    int result = read_with(world, "", O_RDONLY, 5, 5);

    memset(world->got, 0, sizeof(world->got)); /* it has got none of them whole */
    return result;
}

static int peek(struct world *world)
{
    return read_with(world, ".peek", O_RDONLY, 4L * LARGE_BYTES, INT32_MAX);
}

static int list(struct world *world)
{
    return read_with(world, ".list", O_RDONLY, READ_BYTES, INT32_MAX);
}

static int ask_for_attributes(struct world *world)
{
    static const char *const views[] = {"", ".follow", ".peek", ".list"};
    struct stat attributes;
    uint64_t node = 0;
    int result = 0;

    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]) && result == 0; i++) {
        node = find_box(world, views[i], &result);
        if (result == 0)
            result = inside_get_attributes(world->inside, node, &attributes);
    }
    if (result == 0)
        result = inside_get_attributes(world->inside, INSIDE_ROOT, &attributes);
    return result;
}

static int ask_for_attributes_of_a_picture(struct world *world)
{
    struct stat attributes;
    uint64_t node, handle;
    int result = open_box(world, ".peek", O_RDONLY, &node, &handle);

    if (result < 0)
        return result;
    result = inside_get_attributes(world->inside, node, &attributes);
    (void)inside_release(world->inside, node, handle);
    return result;
}

static int clear(struct world *world)
{
    int result;
    uint64_t node = find_box(world, "", &result);

    if (result < 0)
        return result;
    world->may_be_cleared = true;
    result = inside_set_size(world->inside, node, 0);
    world->cleared = result == 0;
    return result;
}

static int delete (struct world *world)
{
    char name[16];
    int result;

    (void)snprintf(name, sizeof(name), "%d", STAGE_PID);
    world->may_be_cleared = true;
    result = inside_unlink(world->inside, INSIDE_ROOT, name);
    world->cleared = result == 0;
    return result;
}

/* With one in flight and one in the file. */
static int after_taking(struct world *world, int (*act)(struct world *world))
{
    int result;

    fault_pause();
    result = read_with(world, "", O_RDONLY, READ_BYTES, 1);
    stage_put(&world->stage, "message 3");
    fault_go_on();
    return result == 0 ? act(world) : result;
}

static int clear_in_flight(struct world *world)
{
    return after_taking(world, clear);
}

static int delete_in_flight(struct world *world)
{
    return after_taking(world, delete);
}

static int peek_in_flight(struct world *world)
{
    return after_taking(world, peek);
}

static int list_in_flight(struct world *world)
{
    return after_taking(world, list);
}

static int change(struct world *world)
{
    struct fuse_setattr_in in = {
        .valid = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_MTIME | FATTR_ATIME,
        .mode = S_IFREG | 0640,
        .uid = getuid(),
        .gid = getgid(),
        .atime = 1,
        .mtime = 2,
    };
    int result;
    uint64_t node = find_box(world, "", &result);

    if (result < 0)
        return result;
    return inside_await(world->inside,
                        inside_send(world->inside, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0));
}

static int change_in_flight(struct world *world)
{
    return after_taking(world, change);
}

static int read_directory(struct world *world)
{
    struct fuse_open_in open_in = {.flags = O_RDONLY};
    struct fuse_open_out opened;
    struct fuse_read_in read_in = {.size = 4096};
    struct fuse_release_in release_in = {.flags = 0};
    size_t size_bytes;
    int result = inside_await(world->inside, inside_send(world->inside, FUSE_OPENDIR, INSIDE_ROOT,
                                                         &open_in, sizeof(open_in), NULL, 0));

    if (result < 0)
        return result;
    memcpy(&opened, inside_bytes(world->inside, &size_bytes), sizeof(opened));
    read_in.fh = release_in.fh = opened.fh;
    result = inside_await(world->inside, inside_send(world->inside, FUSE_READDIR, INSIDE_ROOT,
                                                     &read_in, sizeof(read_in), NULL, 0));
    (void)inside_await(world->inside, inside_send(world->inside, FUSE_RELEASEDIR, INSIDE_ROOT,
                                                  &release_in, sizeof(release_in), NULL, 0));
    return result;
}

static int read_statistics(struct world *world)
{
    uint64_t handle;
    int result;
    uint64_t node = find(world, INSIDE_ROOT, ".stats", &result);

    if (result == 0)
        result = inside_open(world->inside, node, O_RDONLY, &handle);
    if (result < 0)
        return result;
    result = inside_read(world->inside, node, handle, READ_BYTES, 0);
    (void)inside_release(world->inside, node, handle);
    return result;
}

static int ask_for_room(struct world *world)
{
    return inside_await(world->inside,
                        inside_send(world->inside, FUSE_STATFS, INSIDE_ROOT, NULL, 0, NULL, 0));
}

static int poll_one(struct world *world)
{
    uint64_t node, handle;
    int result = open_box(world, "", O_RDWR, &node, &handle);

    if (result < 0)
        return result;
    result = inside_poll(world->inside, node, handle, true);
    if (result >= 0)
        assert_true((result & POLLOUT) != 0);
    (void)inside_release(world->inside, node, handle);
    return result;
}

/* A read that has to wait, and is interrupted: see inside.h. */
static int wait_in_vain(struct world *world)
{
    uint64_t node, handle, number;
    int result = open_box(world, ".follow", O_RDONLY, &node, &handle);

    if (result < 0)
        return result;
    number = inside_send_read(world->inside, node, handle, READ_BYTES, 0, O_RDONLY);
    result = inside_await(world->inside, number);
    (void)inside_release(world->inside, node, handle);
    return result;
}

/* Reads the first, and no more. */
static int receive_first(struct world *world)
{
    return read_with(world, "", O_RDONLY, READ_BYTES, 1);
}

/* Where it would have emptied the mailbox from which it has taken all. */
static int die_there(void *context, const char *name)
{
    (void)context;
    if (strcmp(name, "ftruncate") == 0)
        (void)raise(SIGKILL);
    return FAULT_NONE;
}

static void leave_by_a_dead_mount(struct world *world, bool unsettled)
{
    pid_t child = process_fork(0);

    assert_true(child >= 0);
    if (child == 0) {
        world->inside = mount_world(world);
        if (unsettled)
            fault_start(die_there, NULL);
        if (receive_first(world) == 0 && !unsettled)
            (void)raise(SIGKILL);
        _exit(1);
    }
    assert_int_equal(temporary_join(child, WAIT_MS), 128 + SIGKILL);
}

/* ---- While somebody else holds the lock */

static int hold_lock(const struct world *world)
{
    int fd;

    fault_pause();
    fd = open(world->stage.lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    fault_go_on();
    return fd;
}

static uint64_t send_write(struct world *world, uint64_t node, uint64_t handle)
{
    struct fuse_write_in in = {.fh = handle, .size = 1};

    return inside_send(world->inside, FUSE_WRITE, node, &in, sizeof(in), "s", 1);
}

/* Two writes that have to wait, in vain. */
static int send_while_held(struct world *world)
{
    uint64_t node, handle, numbers[2];
    int fd, result = open_box(world, "", O_WRONLY | O_APPEND, &node, &handle);

    if (result < 0)
        return result;
    fd = hold_lock(world);
    for (size_t i = 0; i < 2; i++)
        numbers[i] = send_write(world, node, handle);
    for (size_t i = 0; i < 2; i++)
        result = first_of(inside_await(world->inside, numbers[i]), result);
    (void)close(fd);
    (void)inside_release(world->inside, node, handle);
    return result;
}

static int send_collected_while_held(struct world *world)
{
    uint64_t node, handle;
    int fd, result = open_box(world, "", O_WRONLY | O_TRUNC, &node, &handle);

    if (result < 0)
        return result;
    fd = hold_lock(world);
    result = inside_write(world->inside, node, handle, "s", 1, 0);
    result = first_of(result, inside_flush(world->inside, node, handle));
    (void)close(fd);
    (void)inside_release(world->inside, node, handle);
    return result;
}

/* One that is in none of the orders in which messages are read: it waits a moment for those before it. */
static int read_ahead(struct world *world)
{
    uint64_t node, handle;
    int result = open_box(world, "", O_RDONLY, &node, &handle);

    if (result < 0)
        return result;
    result = inside_read(world->inside, node, handle, READ_BYTES, READ_BYTES);
    (void)inside_release(world->inside, node, handle);
    return result;
}

static const struct scenario scenarios[] = {
    {.what = "send by >", .act = send_collected},
    {.what = "send a large one by >", .waiting_count = 1, .act = send_large_collected},
    {.what = "send by >>", .waiting_count = 1, .act = send_at_once},
    {.what = "send by >> to a new one", .act = send_at_once_to_a_new_one},
    {.what = "receive one", .waiting_count = 1, .act = receive},
    {.what = "receive several", .waiting_count = 3, .act = receive},
    {.what = "receive large ones",
     .waiting_count = 2,
     .waiting_bytes = LARGE_BYTES,
     .act = receive_large},
    {.what = "receive in part", .waiting_count = 2, .act = receive_in_part},
    {.what = "receive from .follow", .waiting_count = 2, .act = follow},
    {.what = "receive from .envelope", .waiting_count = 3, .act = receive_envelopes},
    {.what = "receive large ones from .envelope",
     .waiting_count = 2,
     .waiting_bytes = LARGE_BYTES,
     .act = receive_large_envelopes},
    {.what = ".peek", .waiting_count = 2, .act = peek},
    {.what = ".peek at large ones", .waiting_count = 2, .waiting_bytes = LARGE_BYTES, .act = peek},
    {.what = ".peek, some in flight", .waiting_count = 2, .act = peek_in_flight},
    {.what = ".list", .waiting_count = 2, .act = list},
    {.what = ".list, some in flight", .waiting_count = 2, .act = list_in_flight},
    {.what = "stat", .waiting_count = 2, .act = ask_for_attributes},
    {.what = "stat of a picture", .waiting_count = 2, .act = ask_for_attributes_of_a_picture},
    {.what = "truncate", .waiting_count = 2, .act = clear},
    {.what = "truncate, some in flight", .waiting_count = 2, .act = clear_in_flight},
    {.what = "rm", .waiting_count = 2, .act = delete},
    {.what = "rm, some in flight", .waiting_count = 2, .act = delete_in_flight},
    {.what = "chmod, chown, touch", .waiting_count = 2, .act = change},
    {.what = "chmod, chown, touch, some in flight", .waiting_count = 2, .act = change_in_flight},
    {.what = "ls", .waiting_count = 1, .act = read_directory},
    {.what = "cat .stats", .act = read_statistics},
    {.what = "df", .act = ask_for_room},
    {.what = "poll", .waiting_count = 2, .act = poll_one},
    {.what = "receive several and empty ones",
     .waiting_count = 3,
     .has_empty_ones = true,
     .act = receive},
    {.what = "send by >>, twice, while the lock is held",
     .waiting_count = 1,
     .act = send_while_held,
     .also = -EINTR},
    {.what = "send by > while the lock is held",
     .waiting_count = 1,
     .act = send_collected_while_held,
     .also = -EINTR},
    {.what = "read ahead", .waiting_count = 1, .act = read_ahead},
    {.what = "receive, after a dead mount", .waiting_count = 3, .is_left = true, .act = receive},
    {.what = ".peek, after a dead mount", .waiting_count = 3, .is_left = true, .act = peek},
    {.what = "truncate, after a dead mount", .waiting_count = 3, .is_left = true, .act = clear},
    {.what = "unmount", .waiting_count = 3, .ends = true, .act = receive_first},
    {.what = "unmount, after a dead mount",
     .waiting_count = 3,
     .is_left = true,
     .ends = true,
     .act = ask_for_room},
    {.what = "receive, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = receive},
    {.what = ".peek, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = peek},
    {.what = ".list, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = list},
    {.what = "stat, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = ask_for_attributes},
    /* The mailbox is opened to be written only, where it may not be read: that is not enough then. */
    {.what = "truncate, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = clear,
     .also = -EBADF},
    {.what = "rm, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = delete},
    {.what = "poll, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .act = poll_one},
    {.what = "unmount, all is in two places",
     .waiting_count = 3,
     .is_left = true,
     .is_unsettled = true,
     .ends = true,
     .act = ask_for_room},
    {.what = "wait in vain", .is_empty = true, .act = wait_in_vain, .also = -EINTR},
};

static void test_requests_have_an_answer_that_is_true_whatever_fails(void **state)
{
    struct world world = {
        .nowhere_fd = open("/dev/null", O_WRONLY | O_CLOEXEC),
        .stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3),
    };

    stage_init(&world.stage, *state);
    assert_true(world.nowhere_fd >= 0 && world.stderr_fd >= 0);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
        walk(&world, &scenarios[i]);
    (void)close(world.nowhere_fd);
    (void)close(world.stderr_fd);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_requests_have_an_answer_that_is_true_whatever_fails),
    };

    return cmocka_run_group_tests_name("operations, faults", tests, NULL, NULL);
}
