#include "segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "census.h"
#include "step.h"

enum {
    AT_MAGIC = 0,
    AT_STATE = 8,
    AT_INODE = 16,
    AT_SIZE = 24,
    AT_SECONDS = 32,
    AT_NANOSECONDS = 40,
    AT_CURSOR = 48,
    AT_OWNER = 56,
    AT_HOLES = 64,
    FIXED_BYTES = 64,
    HOLE_BYTES = 16,
    COPY_BYTES = 256 * 1024,
    STAT_BLOCK_BYTES = 512, /* the unit of st_blocks, whatever st_blksize is */
};

static const char magic[8] = {'g', 'p', 'r', 'o', 'c', 'f', 's', '1'};

static void put_u64(uint8_t *at, uint64_t value)
{
    int i;

    for (i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_u64(const uint8_t *at)
{
    uint64_t value = 0;
    int i;

    for (i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static int write_all(int fd, const void *buffer, size_t size_bytes, off_t offset)
{
    const char *from = buffer;

    while (size_bytes > 0) {
        ssize_t written = pwrite(fd, from, size_bytes, offset);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        if (written == 0)
            return -EIO;
        from += written;
        offset += written;
        size_bytes -= (size_t)written;
    }
    return 0;
}

/* What is copied where. */
struct copy {
    const struct gproc_source *from;
    int to;
    const atomic_bool *stop;     /* or NULL: nobody stops it */
    struct gproc_census *census; /* sees the bytes; or NULL */
};

/* Copies `size_bytes` bytes through memory that does not grow with them. */
static int copy_range(const struct copy *copy, off_t to_offset, off_t offset, off_t size_bytes)
{
    uint8_t small[4096];
    size_t room = sizeof(small);
    uint8_t *buffer = small;
    int result = 0;

    if (size_bytes > (off_t)sizeof(small)) {
        room = COPY_BYTES;
        buffer = malloc(room);
        if (buffer == NULL)
            return -ENOMEM;
    }
    while (size_bytes > 0 && result == 0) {
        size_t part = (off_t)room < size_bytes ? room : (size_t)size_bytes;

        result = copy->stop != NULL && atomic_load(copy->stop) ? -ECANCELED : 0;
        if (result == 0)
            result = gproc_source_read(copy->from, buffer, part, offset);
        if (result == 0)
            result = write_all(copy->to, buffer, part, to_offset);
        if (result == 0 && copy->census != NULL)
            gproc_census_add(copy->census, buffer, part);
        offset += (off_t)part;
        to_offset += (off_t)part;
        size_bytes -= (off_t)part;
    }
    if (buffer != small)
        free(buffer);
    return result;
}

/*
 * Copies a mailbox that has holes, and leaves them holes: 3 GiB of nothing are not to become 3 GiB
 * of zeros. A file system that cannot tell them says that all of it is data.
 */
static int copy_sparse(const struct copy *copy, off_t to_offset)
{
    const struct gproc_source *from = copy->from;
    off_t end = from->start + from->size_bytes;
    off_t data, hole;
    int result = 0;

    for (hole = from->start; hole < end && result == 0;) {
        data = lseek(from->fd, hole, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break; /* no more of it up to the end */
        hole = data < 0 ? data : lseek(from->fd, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if (hole > end)
            hole = end;
        if (data < hole)
            result =
                copy_range(copy, to_offset + data - from->start, data - from->start, hole - data);
    }
    if (result == 0 && ftruncate(copy->to, to_offset + from->size_bytes) < 0)
        result = -errno;
    return result;
}

static int write_header(const struct gproc_segment *segment)
{
    uint8_t header[FIXED_BYTES] = {0};

    memcpy(header + AT_MAGIC, magic, sizeof(magic));
    header[AT_STATE] = (uint8_t)segment->state;
    put_u64(header + AT_INODE, segment->inode);
    put_u64(header + AT_SIZE, (uint64_t)segment->size_bytes);
    put_u64(header + AT_SECONDS, (uint64_t)segment->modified.tv_sec);
    put_u64(header + AT_NANOSECONDS, (uint64_t)segment->modified.tv_nsec);
    put_u64(header + AT_CURSOR, (uint64_t)segment->cursor);
    put_u64(header + AT_OWNER, segment->owner);
    return write_all(segment->fd, header, sizeof(header), 0);
}

int gproc_segment_own(struct gproc_segment *segment, uid_t uid)
{
    uint8_t field[8];
    int result;

    put_u64(field, (uint64_t)uid + 1);
    result = write_all(segment->fd, field, sizeof(field), AT_OWNER);
    if (result == 0)
        segment->owner = (uint64_t)uid + 1;
    return result;
}

int gproc_segment_copy(struct gproc_segment *segment, int fd, const struct gproc_mailbox *mailbox,
                       off_t cursor, const atomic_bool *stop)
{
    struct gproc_source source = gproc_mailbox_source(mailbox);
    struct copy copy = {.from = &source, .to = fd, .stop = stop};
    struct gproc_census census;
    int result;

    memset(segment, 0, sizeof(*segment));
    segment->fd = fd;
    segment->stop = stop;
    segment->state = GPROC_SEGMENT_MOVING;
    segment->inode = mailbox->status.st_ino;
    segment->owner = (uint64_t)mailbox->status.st_uid + 1;
    segment->modified = mailbox->status.st_mtim;
    segment->size_bytes = source.size_bytes;
    segment->cursor = cursor;
    gproc_census_init(&census, source.size_bytes);
    if ((off_t)mailbox->status.st_blocks * STAT_BLOCK_BYTES < source.size_bytes) {
        result = copy_sparse(&copy, GPROC_SEGMENT_DATA_OFFSET);
    } else {
        copy.census = &census;
        result = copy_range(&copy, GPROC_SEGMENT_DATA_OFFSET, 0, source.size_bytes);
    }
    if (result < 0)
        return result;
    segment->is_counted = copy.census != NULL && cursor == 0 && gproc_census_is_whole(&census);
    segment->messages_count = census.messages_count;
    segment->payload_bytes = census.payload_bytes;
    return write_header(segment);
}

static int set_state(struct gproc_segment *segment, enum gproc_segment_state state)
{
    uint8_t byte = (uint8_t)state;
    int result = write_all(segment->fd, &byte, 1, AT_STATE);

    if (result == 0)
        segment->state = state;
    return result;
}

int gproc_segment_ready(struct gproc_segment *segment)
{
    return set_state(segment, GPROC_SEGMENT_READY);
}

static int need_holes(struct gproc_segment *segment)
{
    if (segment->holes == NULL)
        segment->holes = calloc(GPROC_SEGMENT_HOLES_COUNT, sizeof(*segment->holes));
    return segment->holes == NULL ? -ENOMEM : 0;
}

static int load_holes(struct gproc_segment *segment)
{
    uint8_t bytes[GPROC_SEGMENT_HOLES_COUNT * HOLE_BYTES];
    struct gproc_source source = {.fd = segment->fd, .size_bytes = GPROC_SEGMENT_DATA_OFFSET};
    size_t i;
    int result = gproc_source_read(&source, bytes, sizeof(bytes), AT_HOLES);

    if (result < 0)
        return result == -ENODATA ? 0 : result; /* shorter than the table: it has no data either */
    for (i = 0; i < GPROC_SEGMENT_HOLES_COUNT; i++) {
        uint64_t start = get_u64(bytes + i * HOLE_BYTES);
        uint64_t end = get_u64(bytes + i * HOLE_BYTES + 8);

        /* Only while RETURNING does an unused one mean something. */
        if (end == 0 ? segment->state != GPROC_SEGMENT_RETURNING || start == 0 || start > INT64_MAX
                     : start >= end || end > (uint64_t)segment->size_bytes)
            continue;
        result = need_holes(segment);
        if (result < 0)
            return result;
        segment->holes[i].start = (off_t)start;
        segment->holes[i].end = (off_t)end;
        segment->holes_count = i + 1;
    }
    return 0;
}

int gproc_segment_load(struct gproc_segment *segment, int fd)
{
    uint8_t header[FIXED_BYTES];
    struct gproc_source source = {.fd = fd, .size_bytes = FIXED_BYTES};
    struct stat status;
    uint64_t cursor, size_bytes;
    int result;

    memset(segment, 0, sizeof(*segment));
    segment->fd = fd;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (status.st_size < FIXED_BYTES)
        return -EILSEQ;
    result = gproc_source_read(&source, header, sizeof(header), 0);
    if (result < 0)
        return result;
    if (memcmp(header, magic, sizeof(magic)) != 0 || header[AT_STATE] < GPROC_SEGMENT_MOVING ||
        header[AT_STATE] > GPROC_SEGMENT_RETURNING)
        return -EILSEQ;
    segment->state = (enum gproc_segment_state)header[AT_STATE];
    segment->inode = (ino_t)get_u64(header + AT_INODE);
    segment->owner = get_u64(header + AT_OWNER);
    segment->modified.tv_sec = (time_t)get_u64(header + AT_SECONDS);
    segment->modified.tv_nsec = (long)get_u64(header + AT_NANOSECONDS);
    size_bytes = get_u64(header + AT_SIZE);
    cursor = get_u64(header + AT_CURSOR);
    if (status.st_size > GPROC_SEGMENT_DATA_OFFSET)
        segment->size_bytes = status.st_size - GPROC_SEGMENT_DATA_OFFSET;
    if (size_bytes < (uint64_t)segment->size_bytes)
        segment->size_bytes = (off_t)size_bytes;
    if (cursor <= (uint64_t)segment->size_bytes)
        segment->cursor = (off_t)cursor;
    return load_holes(segment);
}

struct gproc_source gproc_segment_source(const struct gproc_segment *segment)
{
    struct gproc_source source = {
        .fd = segment->fd,
        .start = GPROC_SEGMENT_DATA_OFFSET,
        .size_bytes = segment->size_bytes,
        .stop = segment->stop,
    };

    return source;
}

/* How many bytes, from their beginnings on, two sources share; or a negative errno. */
static off_t common_bytes(const struct gproc_source *one, const struct gproc_source *other)
{
    off_t limit = one->size_bytes < other->size_bytes ? one->size_bytes : other->size_bytes;
    off_t same = 0;
    uint8_t left[4096], right[4096];

    while (same < limit) {
        size_t part = limit - same < (off_t)sizeof(left) ? (size_t)(limit - same) : sizeof(left);
        size_t i;
        int result = gproc_source_read(one, left, part, same);

        if (result == 0)
            result = gproc_source_read(other, right, part, same);
        if (result < 0)
            return result;
        for (i = 0; i < part && left[i] == right[i]; i++)
            ;
        same += (off_t)i;
        if (i < part)
            break;
    }
    return same;
}

/* Was the mailbox emptied after it had been copied? Ready if so; if not it still has it all. */
static int resolve_moving(struct gproc_segment *segment, const struct gproc_mailbox *mailbox,
                          off_t same)
{
    const struct stat *status = &mailbox->status;

    if (status->st_ino != segment->inode || same < segment->size_bytes)
        return 1;
    /* As long as the copy and equal to it, but changed since: emptied, and the same was sent again.
     */
    if (status->st_size == segment->size_bytes &&
        (status->st_mtim.tv_sec != segment->modified.tv_sec ||
         status->st_mtim.tv_nsec != segment->modified.tv_nsec))
        return 1;
    return 0;
}

/* Was all of it poured back? A part of it, with nothing of others behind it, is taken out again. */
static int resolve_returning(const struct gproc_segment *segment, struct gproc_mailbox *mailbox,
                             off_t same)
{
    struct gproc_source source = gproc_mailbox_source(mailbox);

    if (same == segment->size_bytes)
        return 0;
    if (same == source.size_bytes) {
        int result = gproc_mailbox_clear(mailbox);

        return result < 0 ? result : 1;
    }
    /* Others': not even our first message is in front of it (see gproc_segment_returned), or a torn
     * piece of it, which resync passes over. */
    return 1;
}

int gproc_segment_resolve(struct gproc_segment *segment, struct gproc_mailbox *mailbox)
{
    struct gproc_source ours = gproc_segment_source(segment);
    int verdict = 1;
    int result;

    if (segment->state == GPROC_SEGMENT_READY)
        return 1;
    if (mailbox != NULL) {
        struct gproc_source theirs = gproc_mailbox_source(mailbox);
        off_t same = common_bytes(&ours, &theirs);

        if (same < 0)
            return (int)same;
        verdict = segment->state == GPROC_SEGMENT_MOVING
                      ? resolve_moving(segment, mailbox, same)
                      : resolve_returning(segment, mailbox, same);
    }
    if (verdict != 1)
        return verdict;
    result = gproc_segment_ready(segment);
    return result < 0 ? result : 1;
}

off_t gproc_segment_returned(const struct gproc_segment *segment,
                             const struct gproc_mailbox *mailbox)
{
    struct gproc_source ours = gproc_segment_source(segment);
    struct gproc_source theirs = gproc_mailbox_source(mailbox);
    struct gproc_message message;
    struct gproc_scan scan;
    off_t same, end = 0;
    int result;

    if (segment->state != GPROC_SEGMENT_RETURNING)
        return 0;
    same = common_bytes(&ours, &theirs);
    if (same <= 0 || same == ours.size_bytes || same == theirs.size_bytes)
        return same < 0 ? same : 0;
    gproc_scan_init(&scan, &ours, 0);
    while ((result = gproc_scan_next(&scan, &message)) == 1 && scan.position <= same)
        end = scan.position;
    gproc_scan_release(&scan);
    return result < 0 ? result : end;
}

off_t gproc_segment_skip(const struct gproc_segment *segment, off_t position)
{
    size_t i;

    if (position < segment->cursor)
        position = segment->cursor;
    for (i = 0; i < segment->holes_count; i++) {
        if (segment->holes[i].start <= position && position < segment->holes[i].end) {
            position = segment->holes[i].end;
            i = (size_t)-1; /* the end of one may lie in another */
        }
    }
    return position;
}

static int write_hole(struct gproc_segment *segment, size_t slot, struct gproc_hole hole)
{
    uint8_t bytes[HOLE_BYTES];
    int result;

    put_u64(bytes, (uint64_t)hole.start);
    put_u64(bytes + 8, (uint64_t)hole.end);
    result = write_all(segment->fd, bytes, sizeof(bytes), AT_HOLES + (off_t)slot * HOLE_BYTES);
    if (result < 0)
        return result;
    segment->holes[slot] = hole;
    if (slot >= segment->holes_count)
        segment->holes_count = slot + 1;
    return 0;
}

static int move_cursor(struct gproc_segment *segment, off_t to)
{
    static const struct gproc_hole unused = {0, 0};
    uint8_t bytes[8];
    size_t i;
    int result;

    to = gproc_segment_skip(segment, to);
    put_u64(bytes, (uint64_t)to);
    result = write_all(segment->fd, bytes, sizeof(bytes), AT_CURSOR);
    if (result < 0)
        return result;
    segment->cursor = to;
    for (i = 0; i < segment->holes_count; i++) {
        if (segment->holes[i].end != 0 && segment->holes[i].end <= to)
            (void)write_hole(segment, i, unused); /* before the cursor: only a slot is at stake */
    }
    return 0;
}

static bool lies_in(const struct gproc_hole *one, const struct gproc_hole *other)
{
    return other->start <= one->start && one->end <= other->end;
}

/* Delivered while something in front of it is not: neighbours on either side, and what lies in it,
 * become one hole with it. */
static int dig(struct gproc_segment *segment, struct gproc_hole hole)
{
    static const struct gproc_hole none = {0, 0};
    const size_t nowhere = GPROC_SEGMENT_HOLES_COUNT;
    size_t unused = nowhere, before = nowhere, behind = nowhere, within = nowhere;
    size_t slot, i;
    int result = need_holes(segment);

    if (result < 0)
        return result;
    for (i = 0; i < segment->holes_count; i++) {
        const struct gproc_hole *there = &segment->holes[i];

        if (there->end == 0)
            unused = i;
        else if (there->end == hole.start)
            before = i;
        else if (there->start == hole.end)
            behind = i;
        else if (lies_in(there, &hole))
            within = i;
    }
    if (before != nowhere)
        hole.start = segment->holes[before].start;
    if (behind != nowhere)
        hole.end = segment->holes[behind].end;
    slot = before != nowhere ? before : behind != nowhere ? behind : within;
    if (slot == nowhere)
        slot = unused;
    if (slot == nowhere && segment->holes_count < nowhere)
        slot = segment->holes_count;
    if (slot == nowhere)
        return -ENOBUFS;
    result = write_hole(segment, slot, hole);
    for (i = 0; i < segment->holes_count && result == 0; i++) {
        if (i != slot && segment->holes[i].end != 0 && lies_in(&segment->holes[i], &hole))
            (void)write_hole(segment, i, none); /* in the other: only a slot is at stake */
    }
    return result;
}

int gproc_segment_deliver(struct gproc_segment *segment, off_t start, off_t end)
{
    struct gproc_hole hole = {start, end};

    return start <= segment->cursor ? move_cursor(segment, end) : dig(segment, hole);
}

bool gproc_segment_is_spent(const struct gproc_segment *segment)
{
    return segment->cursor >= segment->size_bytes;
}

/* A run of messages that follow each other. */
struct run {
    off_t start;
    off_t end;
};

/* Adds the run to what `into` copies for `copy`. 0 or a negative errno. */
static int copy_run(struct gproc_segment *copy, const struct copy *into, const struct run *run)
{
    int result = copy_range(into, GPROC_SEGMENT_DATA_OFFSET + copy->size_bytes, run->start,
                            run->end - run->start);

    if (result == 0)
        copy->size_bytes += run->end - run->start;
    return result;
}

/*
 * Only messages: damage from both sides of what has been delivered in between could become a message
 * that nobody sent.
 */
static int copy_messages(struct gproc_segment *copy, const struct gproc_segment *segment)
{
    struct gproc_source source = gproc_segment_source(segment);
    const struct copy into = {.from = &source, .to = copy->fd};
    struct run run = {segment->cursor, segment->cursor};
    struct gproc_step_damage damage;
    struct gproc_message message;
    struct gproc_scan scan = {0};
    int found, result = 0;

    gproc_step_begin(&scan, segment, segment->cursor);
    while (result == 0 && (found = gproc_step(&scan, segment, &message, &damage)) > 0) {
        if (found != GPROC_STEP_MESSAGE)
            continue;
        if (message.frame_offset != run.end) {
            result = copy_run(copy, &into, &run);
            run.start = message.frame_offset;
        }
        run.end = message.payload_offset + (off_t)message.payload_bytes;
    }
    if (result == 0)
        result = found < 0 ? found : copy_run(copy, &into, &run);
    gproc_scan_release(&scan);
    return result;
}

int gproc_segment_gather(struct gproc_segment *copy, const struct gproc_segment *segment,
                         uint64_t serial)
{
    if (copy->holes_count == GPROC_SEGMENT_HOLES_COUNT)
        return -ENOBUFS;
    if (need_holes(copy) < 0)
        return -ENOMEM;
    copy->holes[copy->holes_count++].start = (off_t)serial;
    return copy_messages(copy, segment);
}

int gproc_segment_seal(struct gproc_segment *copy)
{
    size_t i;

    for (i = 0; i < copy->holes_count; i++) {
        int result = write_hole(copy, i, copy->holes[i]);

        if (result < 0)
            return result;
    }
    copy->state = GPROC_SEGMENT_RETURNING;
    return write_header(copy);
}

bool gproc_segment_supersedes(const struct gproc_segment *segment, uint64_t serial)
{
    size_t i;

    if (segment->state != GPROC_SEGMENT_RETURNING)
        return false;
    for (i = 0; i < segment->holes_count; i++) {
        if (segment->holes[i].end == 0 && segment->holes[i].start == (off_t)serial)
            return true;
    }
    return false;
}

int gproc_segment_pour(const struct gproc_segment *segment, struct gproc_mailbox *mailbox)
{
    struct gproc_source source = gproc_segment_source(segment);
    struct copy copy = {.from = &source, .to = mailbox->fd};
    int result = copy_range(&copy, 0, 0, source.size_bytes);

    if (result < 0 && gproc_mailbox_clear(mailbox) < 0)
        return -EUCLEAN;
    return result;
}

void gproc_segment_release(struct gproc_segment *segment)
{
    if (segment->fd >= 0)
        (void)close(segment->fd); /* every write was looked at already */
    free(segment->holes);
    segment->fd = -1;
    segment->holes = NULL;
    segment->holes_count = 0;
}
