/*
 * What a mount picks up from whatever is in the store: no message that is not in one of the files,
 * none that is lost, each once and in order, and counters that agree with the files.
 *
 * The input: a byte, what there is (enum layout); the mailbox's data; the segments, each of them a
 * byte (enum kind), the data, and unless it is raw the fields of its header; and behind that, byte
 * for byte, what is done: an operation in the low three bits, which message or how many bytes in
 * the others. Data has two bytes in front that say how many they are. Where the input is at an end
 * there are zeros.
 *
 * The directories are in /dev/shm where there is one. What the model says is read from the files
 * (tests/support/remains.h).
 *
 * Longer than a file should be: all that an input can ask for, and be held to, is here.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "remains.h"
#include "segment.h"
#include "temporary.h"
#include "walk.h"
#include "world.h"

enum {
    PID = 4711,
    DATA_MAX_BYTES = 2048,
    HEADER_BYTES = 4096,
    SERIAL_MIDDLE = 10,
    HANDS = 32,
    OPERATIONS_MAX = 40,
};

enum layout {
    LAYOUT_SEGMENTS = 3, /* mask: 1 to 3; 0 is 3 */
    LAYOUT_MAILBOX = 1 << 2,
    LAYOUT_FRAMED = 1 << 3, /* the mailbox's data */
};

enum kind {
    KIND_STATE = 3,             /* mask: as in the header; 0: raw, the data is the whole file */
    KIND_SAME_INODE = 1 << 2,   /* as the mailbox has */
    KIND_SAME_TIME = 1 << 3,    /* as the mailbox has */
    KIND_COPY = 1 << 4,         /* the data begins with bytes of the mailbox: two say how many */
    KIND_FRAMED = 1 << 5,       /* data: a length and so many bytes of payload, and so on */
    KIND_VOIDS = 1 << 6,        /* in place of holes: serials that it supersedes */
    KIND_EARLIER = 1 << 7,      /* before the others */
    FRAMED_DAMAGE = 3 << 6,     /* in place of a length: so many bytes as they are */
    FRAMED_DAMAGE_BYTES = 0x3f, /* mask */
};

enum operation {
    DO_NEXT,
    DO_READ,
    DO_DELIVER,
    DO_GIVE_BACK,
    DO_LOOK,
    DO_DELIVER_ALL,
    DO_RESTART,
    DO_MOVE, /* one of these, as the other bits say: */
    MOVE_TAKE = 0,
    MOVE_RETURN = 1,
    MOVE_CLEAR = 2,
    MOVE_SETTLE = 3,
    MOVE_SEND = 4, /* and all above: so many bytes less */
};

struct input {
    const uint8_t *next;
    size_t left_bytes;
};

struct data {
    uint8_t bytes[2 * DATA_MAX_BYTES];
    size_t size_bytes;
};

static char root[64];
static char mailbox_path[128];
static struct world world;
static struct remains now; /* as the files were when they were last changed */
static struct gproc_taken *hands[HANDS];
static size_t hands_count;

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "%s\n", what);
    temporary_remove(root);
    abort();
}

/* ---- The input, made files */

static unsigned take_byte(struct input *input)
{
    if (input->left_bytes == 0)
        return 0;
    input->left_bytes--;
    return *input->next++;
}

static unsigned take_two(struct input *input)
{
    unsigned low = take_byte(input);

    return low | take_byte(input) << 8;
}

static struct input take_part(struct input *input, size_t size_bytes)
{
    struct input part = {input->next, size_bytes};

    if (part.left_bytes > input->left_bytes)
        part.left_bytes = input->left_bytes;
    input->next += part.left_bytes;
    input->left_bytes -= part.left_bytes;
    return part;
}

static void add_bytes(struct data *data, struct input part)
{
    if (part.left_bytes > sizeof(data->bytes) - data->size_bytes)
        part.left_bytes = sizeof(data->bytes) - data->size_bytes;
    if (part.left_bytes > 0)
        memcpy(data->bytes + data->size_bytes, part.next, part.left_bytes);
    data->size_bytes += part.left_bytes;
}

static void add_framed(struct data *data, struct input part)
{
    while (part.left_bytes > 0) {
        unsigned length = take_byte(&part);
        uint8_t frame[TEMPORARY_HEADER_BYTES + UINT8_MAX];
        struct input whole = {.next = frame};

        if ((length & FRAMED_DAMAGE) == FRAMED_DAMAGE) {
            add_bytes(data, take_part(&part, length & FRAMED_DAMAGE_BYTES));
            continue;
        }
        struct input payload = take_part(&part, length);

        whole.left_bytes =
            temporary_frame(frame, (int32_t)length, payload.next, payload.left_bytes);
        add_bytes(data, whole);
    }
}

static void take_data(struct input *input, struct data *data, bool is_framed)
{
    struct input part = take_part(input, take_two(input) % (DATA_MAX_BYTES + 1));

    if (is_framed)
        add_framed(data, part);
    else
        add_bytes(data, part);
}

static void put(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t serial_of(unsigned which, unsigned kind)
{
    return (kind & KIND_EARLIER) != 0 ? SERIAL_MIDDLE - 1 - which : SERIAL_MIDDLE + which;
}

/* The fields of a header, and the holes, that fit to the data and the mailbox more or less. */
static void take_header(struct input *input, unsigned kind, size_t data_bytes, uint8_t *header)
{
    struct stat status = {0};
    unsigned count;

    (void)stat(mailbox_path, &status); /* there may be none */
    memcpy(header, "gprocfs1", 8);
    header[8] = (uint8_t)(kind & KIND_STATE);
    put(header + 16, (kind & KIND_SAME_INODE) != 0 ? status.st_ino : 1);
    put(header + 24, data_bytes + (uint64_t)(int64_t)(int8_t)take_byte(input));
    put(header + 32, (uint64_t)status.st_mtim.tv_sec + ((kind & KIND_SAME_TIME) == 0));
    put(header + 40, (uint64_t)status.st_mtim.tv_nsec);
    put(header + 48, take_two(input));
    put(header + 56, take_byte(input));
    count = take_byte(input) % 8;
    for (uint8_t *hole = header + 64; count > 0; hole += 16, count--) {
        unsigned start = take_two(input);

        if ((kind & KIND_VOIDS) != 0)
            put(hole, serial_of(start % 3, start));
        else
            put(hole, start);
        put(hole + 8, (kind & KIND_VOIDS) != 0 ? 0 : take_two(input));
    }
}

static void make_segment(struct input *input, unsigned which, const struct data *mailbox)
{
    unsigned kind = take_byte(input);
    uint8_t header[HEADER_BYTES] = {0};
    struct data data = {.size_bytes = 0};
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/gproc/.gprocfs/left/%d.%020llu", root, PID,
                   (unsigned long long)serial_of(which, kind));
    if ((kind & KIND_COPY) != 0) {
        struct input copy = {mailbox->bytes, mailbox->size_bytes};

        add_bytes(&data, take_part(&copy, take_two(input)));
    }
    take_data(input, &data, (kind & KIND_FRAMED) != 0);
    temporary_write(path, NULL, 0);
    if ((kind & KIND_STATE) != 0) {
        take_header(input, kind, data.size_bytes, header);
        temporary_append(path, header, sizeof(header));
    }
    temporary_append(path, data.bytes, data.size_bytes);
}

static void make_files(struct input *input)
{
    unsigned layout = take_byte(input);
    unsigned count = layout & LAYOUT_SEGMENTS;
    struct data mailbox = {.size_bytes = 0};
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/gproc", root);
    temporary_mkdir(path);
    (void)snprintf(path, sizeof(path), "%s/gproc/.gprocfs", root);
    temporary_mkdir(path);
    (void)snprintf(path, sizeof(path), "%s/gproc/.gprocfs/left", root);
    temporary_mkdir(path);
    take_data(input, &mailbox, (layout & LAYOUT_FRAMED) != 0);
    if ((layout & LAYOUT_MAILBOX) != 0)
        temporary_write(mailbox_path, mailbox.bytes, mailbox.size_bytes);
    else
        mailbox.size_bytes = 0;
    if (count == 0)
        count = LAYOUT_SEGMENTS;
    for (unsigned i = 0; i < count; i++)
        make_segment(input, i, &mailbox);
}

/* ---- The model, and what must agree with it */

/* What the files of our own directory say; with the mailbox at the end, if asked for. */
static void read_files(struct remains *remains, bool with_mailbox)
{
    char directory[256];

    (void)snprintf(directory, sizeof(directory), "%s/gproc/.gprocfs/%s", root, world.store.name);
    remains_init(remains, directory, with_mailbox ? mailbox_path : NULL, PID);
}

static void expect_counters(struct gproc_inflight *inflight)
{
    uint64_t payload_bytes, disk_bytes;

    require(gproc_inflight_measure(inflight, &payload_bytes, &disk_bytes) == 0, "not measured");
    require(payload_bytes == now.payload_bytes, "another size");
    require(inflight->messages_count == now.messages_count, "another number of messages");
    require(payload_bytes <= disk_bytes, "more payload than disk");
}

static int load_one(void *context, pid_t pid, uint64_t serial)
{
    return pid == PID ? gproc_inflight_load(context, serial) : 0;
}

/* As the next mount would see it, if this one were killed now. */
static void expect_fresh_counters(void)
{
    struct gproc_inflight fresh;

    gproc_inflight_init(&fresh, &world.store, PID);
    require(gproc_store_list(&world.store, load_one, &fresh) == 0, "not loaded again");
    require(!gproc_inflight_is_unsettled(&fresh), "unsettled again");
    expect_counters(&fresh);
    gproc_inflight_release(&fresh);
}

/* The files have been changed: what they say is what counts. */
static void look_again(void)
{
    remains_release(&now);
    read_files(&now, false);
    for (size_t i = 0; i < now.files_count; i++)
        require(now.files[i].state == REMAINS_READY && !remains_is_void(&now, now.files[i].serial),
                "not settled");
    expect_counters(&world.inflight);
}

static int shown_message(void *context, const struct gproc_source *source,
                         const struct gproc_message *message)
{
    const struct remains_message *want = &now.messages[*(size_t *)context];
    uint8_t payload[2 * DATA_MAX_BYTES];

    require((*(size_t *)context)++ < now.messages_count, "too many messages are shown");
    require(message->payload_bytes == want->payload_bytes, "another length is shown");
    require(message->frame_offset == want->offset, "another place is shown");
    require(message->sender == want->sender, "another sender is shown");
    require(gproc_source_read(source, payload, message->payload_bytes, message->payload_offset) ==
                    0 &&
                memcmp(payload, want->payload, want->payload_bytes) == 0,
            "another payload is shown");
    return 0;
}

static int shown_damage(void *context, off_t offset, off_t size_bytes)
{
    (void)context;
    require(offset >= 0 && size_bytes > 0, "damage that is none");
    return 0;
}

/* All of it, in order; and nothing more from where that ended. Before it is settled: up to that. */
static void look(void)
{
    size_t shown = 0;
    struct gproc_inflight_mark mark = {0};
    struct gproc_inflight_visitor visitor = {shown_message, shown_damage, &shown};
    int result = gproc_inflight_walk(&world.inflight, &mark, &visitor);

    require(result == 0 || (result == 1 && gproc_inflight_is_unsettled(&world.inflight)),
            "not all is shown");
    if (result != 0)
        return;
    require(shown == now.messages_count, "too few messages are shown");
    require(gproc_inflight_walk(&world.inflight, &mark, &visitor) == 0, "not shown again");
    require(shown == now.messages_count, "shown twice");
    if (!gproc_inflight_is_unsettled(&world.inflight))
        expect_fresh_counters();
}

static void read_payload(const struct gproc_taken *taken, uint8_t *payload, size_t part_bytes)
{
    const size_t size_bytes = taken->message.payload_bytes;

    require(size_bytes <= 2 * DATA_MAX_BYTES, "a message of more than there is");
    for (size_t at = 0; at < size_bytes; at += part_bytes) {
        size_t bytes = size_bytes - at < part_bytes ? size_bytes - at : part_bytes;

        require(gproc_inflight_read(taken, payload + at, bytes, at) == 0, "not read");
    }
}

/* What somebody gets is in a file, and in nobody else's hands. */
static void expect_in_files(const struct gproc_taken *taken, size_t part_bytes)
{
    uint8_t payload[2 * DATA_MAX_BYTES];

    read_payload(taken, payload, part_bytes);
    require(remains_has(&now, taken->message.frame_offset, taken->message.sender, payload,
                        taken->message.payload_bytes),
            "this is in no file");
}

/* ---- What is done */

static void open_world(void)
{
    require(world_open(&world, root, PID) == 0, "the world does not open");
    hands_count = 0;
}

static size_t bytes_of_messages(const struct remains *remains, const struct remains_file *file)
{
    size_t bytes = 0;

    for (size_t i = 0; i < remains->messages_count; i++)
        if (remains->messages[i].file == file)
            bytes += TEMPORARY_HEADER_BYTES + remains->messages[i].payload_bytes;
    return bytes;
}

/*
 * Whether settling must lose nothing. A segment whose move was cut off holds all that its mailbox
 * did, and nothing of it has been delivered: it says so itself if it is one of ours. Where it is
 * damaged, the same bytes with others behind them may be other messages.
 */
static bool must_keep(const struct remains *before)
{
    for (size_t i = 0; i < before->files_count; i++) {
        const struct remains_file *file = &before->files[i];

        if ((file->state == REMAINS_MOVING || file->state == REMAINS_RETURNING) &&
            (file->has_gone || bytes_of_messages(before, file) != file->data_bytes))
            return false;
    }
    return true;
}

/* How many messages had been put back already when that was cut off: they must not be there twice.
 * 0 also where that cannot be told so simply. */
static size_t returned_count(const struct remains *before)
{
    const struct remains_message *ours = before->messages;
    const struct remains_message *end = ours + before->messages_count;
    const struct remains_message *theirs = ours;
    size_t count = 0;

    if (before->files_count != 2 || before->files[0].state != REMAINS_RETURNING)
        return 0;
    while (theirs < end && theirs->file->state != REMAINS_MAILBOX)
        theirs++;
    for (; theirs < end && ours->file == before->files; theirs++) {
        if (ours->offset != theirs->offset || ours->sender != theirs->sender ||
            ours->payload_bytes != theirs->payload_bytes ||
            memcmp(ours->payload, theirs->payload, ours->payload_bytes) != 0)
            break;
        ours++;
        count++;
    }
    return count;
}

/* Each message is in its place, or its bytes are there still, maybe within another that had been
 * torn. */
static void expect_kept(const struct remains *before, const struct remains *after)
{
    size_t size_bytes;
    uint8_t *bytes = remains_bytes(after, &size_bytes);

    for (size_t i = 0; i < before->messages_count; i++) {
        const struct remains_message *message = &before->messages[i];

        if (remains_is_void(before, message->file->serial) ||
            remains_has(after, message->offset, message->sender, message->payload,
                        message->payload_bytes))
            continue;
        require(memmem(bytes, size_bytes, message->payload - TEMPORARY_HEADER_BYTES,
                       message->payload_bytes + TEMPORARY_HEADER_BYTES) != NULL,
                "settling has lost a message");
    }
    free(bytes);
    require(after->messages_count + returned_count(before) <= before->messages_count,
            "settling has doubled a message");
}

static void settle(void)
{
    struct remains before, after;

    read_files(&before, true);
    require(world_settle(&world) == 0, "not settled");
    require(!gproc_inflight_is_unsettled(&world.inflight), "unsettled still");
    read_files(&after, true);
    if (must_keep(&before))
        expect_kept(&before, &after);
    remains_release(&before);
    remains_release(&after);
    look_again();
}

static void restart(void)
{
    world_close(&world);
    open_world();
    look_again();
}

static void next(size_t part_bytes)
{
    struct gproc_taken *taken = NULL;
    int result;

    if (hands_count == HANDS)
        return;
    result = gproc_inflight_next(&world.inflight, &taken);
    require(result >= 0, "there is no next");
    if (result == 0) {
        require(hands_count == now.messages_count, "the next one is not found");
        return;
    }
    for (size_t i = 0; i < hands_count; i++)
        require(hands[i] != taken, "taken twice");
    expect_in_files(taken, part_bytes);
    hands[hands_count++] = taken;
}

/* Opens this hand. */
static struct gproc_taken *let_go(size_t which)
{
    struct gproc_taken *taken = hands[which];

    hands_count--;
    for (; which < hands_count; which++)
        hands[which] = hands[which + 1];
    return taken;
}

static void deliver(size_t which)
{
    int result = gproc_inflight_deliver(&world.inflight, hands[which]);

    require(result == 0 || result == -ENOBUFS, "not delivered");
    if (result == 0)
        (void)let_go(which);
    look_again();
}

static void deliver_all(void)
{
    uint64_t before = world.inflight.delivered_count;
    int result = gproc_inflight_deliver_all(&world.inflight, hands, hands_count);

    require(result == 0 || result == -ENOBUFS, "not delivered");
    for (before = world.inflight.delivered_count - before; before > 0; before--)
        (void)let_go(0);
    require(result != 0 || hands_count == 0, "not all delivered");
    look_again();
}

static void clear(void)
{
    int result = gproc_inflight_clear(&world.inflight);

    require(result == 0 || result == -ENOBUFS, "not cleared");
    look_again();
    if (result == 0)
        require(now.messages_count == hands_count, "cleared more, or less");
}

static void take(void)
{
    struct remains before;

    read_files(&before, true);
    require(world_take(&world) == 0, "not taken");
    look_again();
    require(before.messages_count == now.messages_count, "taking has lost a message, or made one");
    remains_release(&before);
}

static void put_back(void)
{
    struct remains before;
    uint8_t *bytes;
    size_t size_bytes;

    read_files(&before, true);
    bytes = remains_frames(&before, &size_bytes); /* damage stays behind */
    require(world_return(&world) == 0, "not returned");
    require(gproc_inflight_is_empty(&world.inflight), "not all returned");
    temporary_expect(mailbox_path, bytes, size_bytes);
    free(bytes);
    remains_release(&before);
    hands_count = 0;
    look_again();
    require(now.files_count == 0, "returned, and still there");
}

static void move(unsigned how)
{
    static const char text[] = "what somebody sends meanwhile...";

    switch (how) {
    case MOVE_TAKE:
        take();
        break;
    case MOVE_RETURN:
        put_back();
        break;
    case MOVE_CLEAR:
        clear();
        break;
    case MOVE_SETTLE:
        settle();
        break;
    default:
        temporary_append_text(mailbox_path, PID, text + how);
    }
}

static void operate(unsigned operation, unsigned which)
{
    const size_t hand = hands_count > 0 ? which % hands_count : 0;

    if (operation == DO_LOOK)
        look();
    else if (operation == DO_RESTART)
        restart();
    else if (operation == DO_MOVE)
        move(which);
    else if (operation == DO_DELIVER_ALL)
        deliver_all();
    else if (operation == DO_NEXT || hands_count == 0)
        next(which + 1);
    else if (operation == DO_READ)
        expect_in_files(hands[hand], which + 1);
    else if (operation == DO_DELIVER)
        deliver(hand);
    else
        gproc_inflight_give_back(&world.inflight, let_go(hand));
}

/* Hands out all that is left, which must be all that the files say, in their order. */
static void drain(void)
{
    while (hands_count > 0)
        gproc_inflight_give_back(&world.inflight, let_go(0));
    look();
    for (size_t left = now.messages_count; left > 0; left--) {
        const struct remains_message first = now.messages[0];

        next(DATA_MAX_BYTES);
        require(hands_count == 1, "there is no next");
        require(hands[0]->message.frame_offset == first.offset &&
                    hands[0]->message.sender == first.sender &&
                    hands[0]->message.payload_bytes == first.payload_bytes,
                "this is not the first");
        deliver(0);
        require(hands_count == 0, "the first could not be delivered");
        require(now.messages_count == left - 1, "delivered more, or less");
    }
    next(DATA_MAX_BYTES);
    require(gproc_inflight_is_empty(&world.inflight), "not empty");
    look_again();
    require(now.files_count == 0, "empty, and still there");
}

static void remove_root(void)
{
    temporary_remove(root);
}

static void make_root(void)
{
    (void)snprintf(root, sizeof(root), "%s/gproc-fuzz.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(root) == NULL || atexit(remove_root) != 0)
        abort();
    (void)snprintf(mailbox_path, sizeof(mailbox_path), "%s/gproc/%d", root, PID);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t input_bytes)
{
    struct input input = {bytes, input_bytes};
    char path[128];

    if (root[0] == '\0')
        make_root();
    make_files(&input);
    open_world();
    remains_release(&now);
    read_files(&now, false);
    look();
    settle();
    for (int i = 0; i < OPERATIONS_MAX && input.left_bytes > 0; i++) {
        unsigned byte = take_byte(&input);

        operate(byte & 7, byte >> 3);
    }
    drain();
    world_close(&world);
    (void)snprintf(path, sizeof(path), "%s/gproc", root);
    temporary_remove(path);
    return 0;
}
