/*
 * How the scan is linear whatever the mailbox holds.
 *
 * Let P(x) be the sum of the bytes before x. A frame at s is good if P(s + length) - P(s + 12) is
 * its checksum. Samples of P are kept from sums_offset to sums_end, and P(position) is carried on.
 *
 * A candidate that ends within the samples is judged by them: two look-ups and at most one step's
 * bytes.
 *
 * One that ends further is summed, but only from sums_end on. If it is good, position goes past all
 * that was summed, and past the samples, which are void then. If it is not, the samples are
 * extended at least as far. Either way those bytes are never summed for a candidate's sake again.
 *
 * So each byte is summed at most twice ahead of position (for a candidate, for the samples) and
 * once as position passes it, and an intact mailbox never gets to have samples.
 */
#include "scan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum.h"
#include "frame.h"

enum {
    WINDOW_BYTES = 256 * 1024, /* few calls, and still in the second-level cache */
    FAR_BYTES = 64 * 1024,
    GLANCE_BYTES = 4096, /* read around a candidate's end: costs as much as a few bytes would */
};

static off_t off_min(off_t a, off_t b)
{
    return a < b ? a : b;
}

static off_t off_max(off_t a, off_t b)
{
    return a > b ? a : b;
}

int gproc_source_read(const struct gproc_source *source, void *buffer, size_t size_bytes,
                      off_t offset)
{
    uint8_t *bytes = buffer;

    if (offset < 0 || offset > source->size_bytes ||
        size_bytes > (uintmax_t)(source->size_bytes - offset)) {
        return -EIO;
    }
    if (source->data != NULL && size_bytes > 0) {
        memcpy(bytes, source->data + offset, size_bytes);
        return 0;
    }
    while (size_bytes > 0) {
        const ssize_t count = pread(source->fd, bytes, size_bytes, source->start + offset);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? -errno : -ENODATA;
        }
        bytes += count;
        offset += count;
        size_bytes -= (size_t)count;
    }
    return 0;
}

/* How many of the bytes from `offset` on are in `window`. */
static size_t window_holds(const struct gproc_scan_window *window, off_t offset)
{
    const off_t behind = offset - window->offset;

    return behind >= 0 && behind < (off_t)window->size_bytes ? window->size_bytes - (size_t)behind
                                                             : 0;
}

/*
 * Reads up to `wanted_bytes` bytes at `offset` into one of the scan's windows, as many as it has
 * room for. 0, -ENOMEM, or what gproc_source_read() says; the window is empty then.
 */
static int window_load(const struct gproc_scan *scan, struct gproc_scan_window *window,
                       off_t offset, off_t wanted_bytes)
{
    if (window->bytes == NULL) {
        /* Nothing before position is ever read, so no later load needs more room than this. */
        const off_t left = scan->source.size_bytes - scan->position;
        const size_t room = (size_t)off_min(left, (off_t)window->capacity_bytes);

        window->bytes = malloc(room);
        if (window->bytes == NULL) {
            return -ENOMEM;
        }
        window->capacity_bytes = room;
    }

    const size_t size_bytes = (size_t)off_min(wanted_bytes, (off_t)window->capacity_bytes);
    window->size_bytes = 0;
    const int status = gproc_source_read(&scan->source, window->bytes, size_bytes, offset);
    if (status == 0) {
        window->offset = offset;
        window->size_bytes = size_bytes;
    }
    return status;
}

/*
 * Moves position over a hole of a file, which reads as zeros: no length there is plausible, but
 * where its bytes reach into what follows. Without it the kernel would make a page of zeros for
 * every 4 KiB. Sums are not touched by zeros.
 */
static void hole_pass(struct gproc_scan *scan)
{
    const off_t size = scan->source.size_bytes;
    off_t data = lseek(scan->source.fd, scan->source.start + scan->position, SEEK_DATA);

    if (data < 0 && errno != ENXIO) {
        return; /* the file system cannot tell, or reading will say what is wrong */
    }
    data = data < 0 ? size : off_min(data - scan->source.start, size);
    /* A length of zero at an offset takes four bytes; the tail, less than a header, is for the scan
     * to judge. */
    const off_t end =
        off_min(data - ((off_t)sizeof(int32_t) - 1), size - (GPROC_FRAME_HEADER_BYTES - 1));

    if (end > scan->position) {
        scan->damaged_bytes += end - scan->position;
        scan->position = end;
    }
}

/*
 * Points `*bytes` to the bytes from position on, at least a header's worth, which must be left.
 * Their count, or a negative errno. They stay until the next call.
 */
static ssize_t view_position(struct gproc_scan *scan, const uint8_t **bytes)
{
    const off_t position = scan->position;
    const off_t left = scan->source.size_bytes - position;

    if (scan->source.data != NULL) {
        *bytes = scan->source.data + position;
        return (ssize_t)left;
    }
    if (window_holds(&scan->window, position) < GPROC_FRAME_HEADER_BYTES) {
        const int status = window_load(scan, &scan->window, position, left);
        if (status < 0) {
            return status;
        }
    }
    *bytes = scan->window.bytes + (position - scan->window.offset);
    return (ssize_t)window_holds(&scan->window, position);
}

/*
 * Points `*bytes` to the bytes from `offset` on. Their count, from 1 to `limit - offset`, or a
 * negative errno. Leaves alone what view_position() gave; they stay until the next call.
 */
static ssize_t view_ahead(struct gproc_scan *scan, off_t offset, off_t limit, const uint8_t **bytes)
{
    const off_t wanted = limit - offset;
    const struct gproc_scan_window *window = &scan->window;

    if (scan->source.data != NULL) {
        *bytes = scan->source.data + offset;
        return (ssize_t)wanted;
    }
    if (window_holds(window, offset) == 0) {
        window = &scan->far;
        if (window_holds(window, offset) == 0) {
            const int status = window_load(scan, &scan->far, offset, wanted);
            if (status < 0) {
                return status;
            }
        }
    }
    *bytes = window->bytes + (offset - window->offset);
    return (ssize_t)off_min(wanted, (off_t)window_holds(window, offset));
}

/* Adds the bytes from `offset` to `end` to `*sum`, reading none at or after `limit`. 0 or a
 * negative errno. */
static int range_sum(struct gproc_scan *scan, off_t offset, off_t end, off_t limit, uint32_t *sum)
{
    while (offset < end) {
        const uint8_t *bytes;
        const ssize_t count = view_ahead(scan, offset, limit, &bytes);

        if (count < 0) {
            return (int)count;
        }
        const off_t used = off_min(count, end - offset);
        *sum += gproc_checksum(bytes, (size_t)used);
        offset += used;
    }
    return 0;
}

/* The sample of P(sums_end): the last one, be its step whole or not. */
static uint32_t *sums_last(const struct gproc_scan *scan)
{
    const off_t summed = scan->sums_end - scan->sums_offset;

    return &scan->sums[(summed + GPROC_SCAN_STEP_BYTES - 1) / GPROC_SCAN_STEP_BYTES];
}

/* Has samples ready to be extended: those there are, or none yet, from position on. 0 or -ENOMEM.
 */
static int sums_prepare(struct gproc_scan *scan)
{
    if (scan->sums == NULL) {
        /* For all that is left: once is enough, and pages never touched cost nothing. */
        const off_t left = scan->source.size_bytes - scan->position;
        const uintmax_t count = (uintmax_t)left / GPROC_SCAN_STEP_BYTES + 2;

        if (count > SIZE_MAX / sizeof(*scan->sums)) {
            return -ENOMEM;
        }
        scan->sums = malloc((size_t)count * sizeof(*scan->sums));
        if (scan->sums == NULL) {
            return -ENOMEM;
        }
    }
    if (scan->sums_end <= scan->position) {
        scan->sums_offset = scan->position;
        scan->sums_end = scan->position;
        scan->sums[0] = 0;
        scan->here = 0;
    }
    return 0;
}

/* Extends the samples to `end` or further: by a whole far window, so that it is not called often.
 */
static int sums_extend(struct gproc_scan *scan, off_t end)
{
    const int status = sums_prepare(scan);
    if (status < 0) {
        return status;
    }

    const off_t least = off_max(end - scan->sums_end, (off_t)scan->far.capacity_bytes);
    end = scan->sums_end + off_min(least, scan->source.size_bytes - scan->sums_end);
    while (scan->sums_end < end) {
        const off_t summed = scan->sums_end - scan->sums_offset;
        const off_t room = GPROC_SCAN_STEP_BYTES - summed % GPROC_SCAN_STEP_BYTES;
        const uint8_t *bytes;
        const ssize_t count = view_ahead(scan, scan->sums_end, end, &bytes);

        if (count < 0) {
            return (int)count;
        }
        const off_t used = off_min(count, room);
        const uint32_t sum = *sums_last(scan) + gproc_checksum(bytes, (size_t)used);
        scan->sums_end += used;
        *sums_last(scan) = sum;
    }
    return 0;
}

/*
 * Whether P(end) is `expected`, for an `end` within the samples; 1, 0 or a negative errno.
 * `payload` is where the candidate's payload begins, and P(payload) is `before`.
 */
static int sums_match(struct gproc_scan *scan, off_t payload, uint32_t before, off_t end,
                      uint32_t expected)
{
    const off_t step = (end - scan->sums_offset - 1) / GPROC_SCAN_STEP_BYTES;
    const uint32_t low = scan->sums[step];
    const uint32_t high = scan->sums[step + 1];

    /* P does not fall, and rises by far less than 2^32 in a step: it has to be between the two. */
    if (expected - low > high - low) {
        return 0;
    }

    off_t from = scan->sums_offset + step * GPROC_SCAN_STEP_BYTES;
    uint32_t sum = low;
    if (from < payload) {
        from = payload;
        sum = before;
    }
    const off_t limit = from + off_min(GLANCE_BYTES, scan->source.size_bytes - from);
    const int status = range_sum(scan, from, end, limit, &sum);
    return status < 0 ? status : sum == expected;
}

/* The sum of a header: as gproc_checksum(), which is made for more bytes than these. */
static uint32_t header_sum(const uint8_t *header)
{
    uint32_t sum = 0;

    for (int i = 0; i < GPROC_FRAME_HEADER_BYTES; i++) {
        sum += header[i];
    }
    return sum;
}

/* Whether the checksum of the frame at position, of a plausible length, is right; 1, 0 or a
 * negative errno. */
static int frame_is_good(struct gproc_scan *scan, const uint8_t *header,
                         const struct gproc_frame *frame)
{
    const off_t payload = scan->position + GPROC_FRAME_HEADER_BYTES;
    const off_t end = scan->position + frame->length_bytes;
    off_t from = payload;
    uint32_t sum = 0;

    if (payload < scan->sums_end) {
        const uint32_t before = scan->here + header_sum(header);

        if (end <= scan->sums_end) {
            return sums_match(scan, payload, before, end, before + frame->checksum);
        }
        from = scan->sums_end;
        sum = *sums_last(scan) - before;
    }

    const int status = range_sum(scan, from, end, end, &sum);
    if (status < 0) {
        return status;
    }
    return sum == frame->checksum ? 1 : sums_extend(scan, end);
}

/* Moves position past the frame there, which is good, and describes it in `*message`. */
static void frame_take(struct gproc_scan *scan, const uint8_t *header,
                       const struct gproc_frame *frame, struct gproc_message *message)
{
    *message = (struct gproc_message){
        .frame_offset = scan->position,
        .payload_offset = scan->position + GPROC_FRAME_HEADER_BYTES,
        .payload_bytes = (size_t)frame->length_bytes - GPROC_FRAME_HEADER_BYTES,
        .sender = frame->sender,
        .checksum = frame->checksum,
    };
    if (scan->position < scan->sums_end) {
        scan->here += header_sum(header) + frame->checksum;
    }
    scan->position += frame->length_bytes;
}

/* Moves position past `count` damaged offsets, whose bytes are at `bytes`. */
static void damage_pass(struct gproc_scan *scan, const uint8_t *bytes, size_t count)
{
    if (scan->position < scan->sums_end) {
        scan->here += count == 1 ? *bytes : gproc_checksum(bytes, count);
    }
    scan->position += (off_t)count;
    scan->damaged_bytes += (off_t)count;
}

/*
 * How many of the first `count` offsets at `bytes`, one after the other, have a length below 12 or
 * above `most`. Each has a whole header. Zeros, text and noise are passed at several bytes a
 * nanosecond here.
 */
static size_t damage_run(const uint8_t *bytes, size_t count, int32_t most)
{
    size_t run = 0;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    typedef int32_t lengths __attribute__((vector_size(16)));

    /* Four vectors, each a byte on, hold the lengths at sixteen offsets. */
    for (; count - run >= sizeof(lengths); run += sizeof(lengths)) {
        lengths plausible = {0};
        uint64_t halves[2];

        for (size_t i = 0; i < sizeof(int32_t); i++) {
            lengths length;

            memcpy(&length, bytes + run + i, sizeof(length));
            plausible |= (length >= GPROC_FRAME_HEADER_BYTES) & (length <= most);
        }
        memcpy(halves, &plausible, sizeof(halves));
        if ((halves[0] | halves[1]) != 0) {
            break;
        }
    }
#endif
    for (; run < count; run++) {
        const int32_t length = gproc_frame_decode(bytes + run).length_bytes;

        if (length >= GPROC_FRAME_HEADER_BYTES && length <= most) {
            break;
        }
    }
    return run;
}

/* Passes the offset at position, whose length is not plausible, and all those after it in `bytes`.
 */
static void damage_pass_run(struct gproc_scan *scan, const uint8_t *bytes, size_t bytes_count,
                            int32_t length)
{
    const off_t left = scan->source.size_bytes - scan->position;

    if (length > left && scan->unresolved < 0) {
        scan->unresolved = scan->position;
    }

    /* Until there is an unresolved offset, a length that is too long is not to be passed unseen. */
    const off_t most = scan->unresolved < 0 ? INT32_MAX : off_min(left, INT32_MAX);
    const size_t count = bytes_count - (GPROC_FRAME_HEADER_BYTES - 1);
    damage_pass(scan, bytes, damage_run(bytes, count, (int32_t)most));
}

/* Passes what is left when it is less than a header. */
static void damage_pass_tail(struct gproc_scan *scan)
{
    const off_t left = scan->source.size_bytes - scan->position;

    if (left > 0 && scan->unresolved < 0) {
        scan->unresolved = scan->position;
    }
    scan->position += left;
    scan->damaged_bytes += left;
}

void gproc_scan_init(struct gproc_scan *scan, const struct gproc_source *source, off_t position)
{
    assert(position >= 0 && position <= source->size_bytes);
    *scan = (struct gproc_scan){
        .source = *source,
        .position = position,
        .unresolved = -1,
        .window.capacity_bytes = WINDOW_BYTES,
        .far.capacity_bytes = FAR_BYTES,
    };
}

int gproc_scan_next(struct gproc_scan *scan, struct gproc_message *message)
{
    off_t left;

    while ((left = scan->source.size_bytes - scan->position) >= GPROC_FRAME_HEADER_BYTES) {
        const uint8_t *bytes;

        if (scan->source.data == NULL && left >= (off_t)scan->window.capacity_bytes &&
            window_holds(&scan->window, scan->position) < GPROC_FRAME_HEADER_BYTES) {
            hole_pass(scan);
            left = scan->source.size_bytes - scan->position;
            if (left < GPROC_FRAME_HEADER_BYTES) {
                break;
            }
        }
        const ssize_t count = view_position(scan, &bytes);
        if (count < 0) {
            return (int)count;
        }

        const struct gproc_frame frame = gproc_frame_decode(bytes);
        if (frame.length_bytes < GPROC_FRAME_HEADER_BYTES || frame.length_bytes > left) {
            damage_pass_run(scan, bytes, (size_t)count, frame.length_bytes);
            continue;
        }

        const int good = frame_is_good(scan, bytes, &frame);
        if (good < 0) {
            return good;
        }
        if (good > 0) {
            frame_take(scan, bytes, &frame, message);
            return 1;
        }
        damage_pass(scan, bytes, 1);
    }
    damage_pass_tail(scan);
    return 0;
}

bool gproc_scan_copy(const struct gproc_scan *scan, void *buffer, size_t size_bytes, off_t offset)
{
    const struct gproc_scan_window *window = &scan->window;
    size_t skipped;

    if (window->bytes == NULL || offset < window->offset ||
        offset - window->offset > (off_t)window->size_bytes)
        return false;
    skipped = (size_t)(offset - window->offset);
    if (size_bytes > window->size_bytes - skipped)
        return false;
    memcpy(buffer, window->bytes + skipped, size_bytes);
    return true;
}

void gproc_scan_release(struct gproc_scan *scan)
{
    free(scan->window.bytes);
    free(scan->far.bytes);
    free(scan->sums);
    scan->window = (struct gproc_scan_window){0};
    scan->far = (struct gproc_scan_window){0};
    scan->sums = NULL;
    scan->sums_end = 0;
}
