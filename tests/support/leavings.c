#include "leavings.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "temporary.h"
#include "through.h"

enum {
    MOVING = 1,
    READY = 2,
    RETURNING = 3,
    HEADER_BYTES = 4096,
    FRAMES_BYTES = 4096,
    SMALL = 20,
    FRAME_BYTES = BEHIND_HEADER_BYTES + SMALL,
};

/* Where things are left. */
struct place {
    struct ledger *ledger;
    struct mount *mount;
    const char *directory;
};

/* Frames, as they stand in a mailbox. */
struct frames {
    uint8_t bytes[FRAMES_BYTES];
    size_t size_bytes;
};

struct left {
    int state; /* 0: it has no header */
    uint64_t inode;
    struct timespec modified;
    uint64_t cursor;
    uint64_t hole[2];
    const struct frames *data;
};

static void put64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* A new message of this box, which goes into the frames. */
static void add_frame(const struct place *place, struct frames *frames, int box,
                      enum ledger_state state)
{
    int which = ledger_add(place->ledger, box, SMALL);
    uint8_t *frame = frames->bytes + frames->size_bytes;

    place->ledger->entries[which].state = state;
    behind_frame(frame, which + 1, ledger_payload(place->ledger, which), SMALL);
    memcpy(frame + BEHIND_HEADER_BYTES, ledger_payload(place->ledger, which), SMALL);
    frames->size_bytes += BEHIND_HEADER_BYTES + SMALL;
}

/* Another one comes. */
static void send_one(const struct place *place, int box)
{
    assert_true(ledger_send_behind(place->ledger, place->mount, box, SMALL) >= 0);
}

/* The whole mailbox file, as it is from now on. */
static void put_in_mailbox(const struct place *place, int box, const void *bytes, size_t size_bytes)
{
    temporary_write(behind_box(place->mount, box), bytes, size_bytes);
}

static void leave(const struct place *place, int box, unsigned serial, const struct left *left)
{
    uint8_t file[HEADER_BYTES + FRAMES_BYTES] = {0};

    if (left->state != 0) {
        memcpy(file, "gprocfs1", 8);
        file[8] = (uint8_t)left->state;
        put64(file + 16, left->inode);
        put64(file + 24, left->data->size_bytes);
        put64(file + 32, (uint64_t)left->modified.tv_sec);
        put64(file + 40, (uint64_t)left->modified.tv_nsec);
        put64(file + 48, left->cursor);
        put64(file + 56, (uint64_t)geteuid() + 1);
        put64(file + 64, left->hole[0]);
        put64(file + 72, left->hole[1]);
    }
    memcpy(file + HEADER_BYTES, left->data->bytes, left->data->size_bytes);
    temporary_write(mount_path(place->mount, "%s/%d.%020u", place->directory, box, serial), file,
                    HEADER_BYTES + left->data->size_bytes);
}

/* As if the mailbox were the one that was moved. */
static struct left moved(const struct place *place, int box, const struct frames *data)
{
    struct left left = {.state = MOVING, .data = data};
    struct stat status;

    assert_success(stat(behind_box(place->mount, box), &status));
    left.inode = status.st_ino;
    left.modified = status.st_mtim;
    return left;
}

/* Cut off while it was moved: before the mailbox was emptied; after it, and then another came. */
static void leave_moving(const struct place *place, int box)
{
    struct frames frames = {.size_bytes = 0};
    struct left left;

    add_frame(place, &frames, box, LEDGER_SENT);
    add_frame(place, &frames, box, LEDGER_SENT);
    put_in_mailbox(place, box, frames.bytes, frames.size_bytes);
    left = moved(place, box, &frames);
    leave(place, box, 1000, &left);

    frames.size_bytes = 0;
    add_frame(place, &frames, box + 1, LEDGER_SENT);
    add_frame(place, &frames, box + 1, LEDGER_SENT);
    put_in_mailbox(place, box + 1, frames.bytes, frames.size_bytes);
    left = moved(place, box + 1, &frames);
    put_in_mailbox(place, box + 1, NULL, 0);
    leave(place, box + 1, 1000, &left);
    send_one(place, box + 1);
}

/* Delivered in part, from the front and out of order; and a copy that never became one. */
static void leave_ready(const struct place *place, int box)
{
    struct frames frames = {.size_bytes = 0};
    struct frames none = {.size_bytes = FRAME_BYTES};
    struct left left = {
        .state = READY,
        .data = &frames,
        .cursor = FRAME_BYTES,
        .hole = {2 * FRAME_BYTES, 3 * FRAME_BYTES},
    };
    struct left torn = {.data = &none};

    add_frame(place, &frames, box, LEDGER_UNSENT); /* it has been delivered */
    add_frame(place, &frames, box, LEDGER_SENT);
    add_frame(place, &frames, box, LEDGER_UNSENT);
    add_frame(place, &frames, box, LEDGER_SENT);
    put_in_mailbox(place, box, NULL, 0);
    leave(place, box, 1000, &left);
    leave(place, box, 1001, &torn);
    send_one(place, box);
}

/*
 * Cut off on its way back, when this many bytes of it were in the mailbox again. `gathered`: what
 * it was copied from is still there; `more`: another one has come since.
 */
static void leave_returning(const struct place *place, int box, size_t back_bytes, bool gathered,
                            bool more)
{
    struct frames frames = {.size_bytes = 0};
    struct left left = {.state = RETURNING, .data = &frames, .hole = {1000, 0}};
    struct left original = {.state = READY, .data = &frames};

    add_frame(place, &frames, box, LEDGER_SENT);
    add_frame(place, &frames, box, LEDGER_SENT);
    add_frame(place, &frames, box, LEDGER_SENT);
    put_in_mailbox(place, box, frames.bytes, back_bytes);
    if (gathered)
        leave(place, box, 1000, &original);
    leave(place, box, 1001, &left);
    if (more)
        send_one(place, box);
}

void leavings_make(struct ledger *ledger, struct mount *mount, int box)
{
    char first[PATH_MAX], second[PATH_MAX];
    struct place one = {ledger, mount, first};
    struct place other = {ledger, mount, second};

    snprintf(first, sizeof(first), "%s/.gprocfs/%032d", mount->mail, 1);
    snprintf(second, sizeof(second), "%s/.gprocfs/%032d", mount->mail, 2);
    assert_success(mkdir(mount_path(mount, "%s/.gprocfs", mount->mail), 01777));
    assert_success(mkdir(first, 0700));
    assert_success(mkdir(second, 0700));
    temporary_write(mount_path(mount, "%s/lock", first), NULL, 0);
    leave_moving(&one, box);
    leave_ready(&one, box + 2);
    leave_returning(&one, box + 3, 0, true, false);
    leave_returning(&other, box + 4, FRAME_BYTES + 7, false, false);
    leave_returning(&other, box + 5, 3 * FRAME_BYTES, false, true);
    leave_returning(&other, box + 6, FRAME_BYTES + 7, false, true);
}
