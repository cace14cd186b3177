/*
 * How the scan is linear whatever the mailbox holds.
 *
 * Let P(x) be the sum of the bytes before x. A frame at s is good if P(s + length) - P(s + 12) is
 * its checksum. Samples of P are kept from sums.begin to sums.end, and P(position) is carried on.
 *
 * A candidate that ends within the samples is judged by them: two look-ups and at most one step's
 * bytes. Where there is damage, that is done for many offsets at a time (sieve.h).
 *
 * One that ends further is summed, but only from sums.end on. If it is good, position goes past all
 * that was summed, and past the samples, which are void then. If it is not, the samples are
 * extended at least as far. Either way those bytes are never summed for a candidate's sake again.
 *
 * So each byte is summed at most twice ahead of position (for a candidate, for the samples) and
 * once as position passes it, and an intact mailbox never gets to have samples. What the sieve
 * looks at beyond the next good frame is in vain; that is never more than about twice the damage
 * before that frame, because it is given few offsets at first.
 */
#include "scan.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "checksum.h"
#include "field.h"
#include "frame.h"
#include "implausible.h"
#include "sieve.h"

enum {
    WINDOW_BYTES = 256 * 1024, /* few calls, and still in the second-level cache */
    FAR_BYTES = 64 * 1024,
    GLANCE_BYTES = 4096, /* read around a candidate's end: costs as much as a few bytes would */
    SHORT_BYTES = 128,   /* of frames that are looked for the quick way */
    /* So many offsets are sifted at first, then twice as many again and again: up to the next good
     * frame is rarely far. */
    SIFT_LEAST_COUNT = 32,
};

static off_t off_min(off_t a, off_t b)
{
    return a < b ? a : b;
}

static off_t off_max(off_t a, off_t b)
{
    return a > b ? a : b;
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
    if (gproc_window_holds(&scan->window, position) < GPROC_FRAME_HEADER_BYTES) {
        const int status = gproc_window_load(&scan->window, &scan->source, position, left, left);
        if (status < 0) {
            return status;
        }
    }
    *bytes = scan->window.bytes + (position - scan->window.offset);
    return (ssize_t)gproc_window_holds(&scan->window, position);
}

/*
 * Points `*bytes` to the bytes from `offset` on. Their count, from 1 to `limit - offset`, or a
 * negative errno. Leaves alone what view_position() gave; they stay until the next call.
 */
static ssize_t view_ahead(struct gproc_scan *scan, off_t offset, off_t limit, const uint8_t **bytes)
{
    const off_t wanted = limit - offset;
    const struct gproc_window *window = &scan->window;

    if (scan->source.data != NULL) {
        *bytes = scan->source.data + offset;
        return (ssize_t)wanted;
    }
    if (gproc_window_holds(window, offset) == 0) {
        window = &scan->far;
        if (gproc_window_holds(window, offset) == 0) {
            /* Nothing before position is ever read. */
            const int status = gproc_window_load(&scan->far, &scan->source, offset, wanted,
                                                 scan->source.size_bytes - scan->position);
            if (status < 0) {
                return status;
            }
        }
    }
    *bytes = window->bytes + (offset - window->offset);
    return (ssize_t)off_min(wanted, (off_t)gproc_window_holds(window, offset));
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

/* Extends the samples to `end` or further: by a whole far window, so that it is not called often.
 * Where there are none, they begin at position. */
static int sums_extend(struct gproc_scan *scan, off_t end)
{
    struct gproc_sums *sums = &scan->sums;

    if (sums->end <= scan->position) {
        const off_t position = scan->position;
        /* In memory, steps are cache lines: to look into one is to wait for one. */
        const size_t cut_bytes =
            scan->source.data != NULL
                ? (uintptr_t)(scan->source.data + position) % GPROC_SUMS_STEP_BYTES
                : 0;
        const int status =
            gproc_sums_begin(sums, position, cut_bytes, scan->source.size_bytes - position);

        if (status < 0) {
            return status;
        }
        scan->here = 0;
        scan->quick_end = -1; /* P(position) is to be carried on */
    }

    const off_t least = off_max(end - sums->end, (off_t)scan->far.capacity_bytes);
    end = sums->end + off_min(least, scan->source.size_bytes - sums->end);
    while (sums->end < end) {
        const uint8_t *bytes;
        const ssize_t count = view_ahead(scan, sums->end, end, &bytes);

        if (count < 0) {
            return (int)count;
        }
        gproc_sums_append(sums, bytes, (size_t)count);
    }
    return 0;
}

/* Whether P is `expected` `in_step` bytes after the begin of a step of the samples. 1, 0 or a
 * negative errno. */
static inline int sum_is(struct gproc_scan *scan, off_t step, size_t in_step, uint32_t expected)
{
    const struct gproc_source *source = &scan->source;
    const off_t begin = scan->sums.offset + step * GPROC_SUMS_STEP_BYTES;
    uint32_t sum = scan->sums.samples[step];

    if (source->data != NULL && begin >= scan->sums.begin &&
        source->size_bytes - begin >= GPROC_SUMS_STEP_BYTES) {
        return sum + gproc_checksum_part(source->data + begin, in_step) == expected;
    }

    const off_t from = off_max(begin, scan->sums.begin);
    const off_t limit = from + off_min(GLANCE_BYTES, source->size_bytes - from);
    const int status = range_sum(scan, from, begin + (off_t)in_step, limit, &sum);
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
    const struct gproc_sums *sums = &scan->sums;
    const off_t payload = scan->position + GPROC_FRAME_HEADER_BYTES;
    const off_t end = scan->position + frame->length_bytes;
    off_t from = payload;
    uint32_t sum = 0;

    if (payload < sums->end) {
        const uint32_t before = scan->here + header_sum(header);

        if (end <= sums->end) {
            const off_t step = (end - sums->offset) / GPROC_SUMS_STEP_BYTES;
            const uint32_t expected = before + frame->checksum;

            const size_t in_step = (size_t)((end - sums->offset) % GPROC_SUMS_STEP_BYTES);

            return gproc_sums_may_be(&sums->samples[step], expected)
                       ? sum_is(scan, step, in_step, expected)
                       : 0;
        }
        from = sums->end;
        sum = sums->last - before;
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
    if (scan->position < scan->sums.end) {
        scan->here += header_sum(header) + frame->checksum;
    }
    scan->position += frame->length_bytes;
}

/* Moves position past `count` damaged offsets, the sum of whose bytes is `sum`. */
static void damage_pass_summed(struct gproc_scan *scan, size_t count, uint32_t sum)
{
    scan->here += sum;
    scan->position += (off_t)count;
    scan->damaged_bytes += (off_t)count;
}

/* The same, where their bytes are at `bytes`. */
static void damage_pass(struct gproc_scan *scan, const uint8_t *bytes, size_t count)
{
    uint32_t sum = 0;

    if (scan->position < scan->sums.end) {
        sum = count == 1 ? *bytes : gproc_checksum(bytes, count);
    }
    damage_pass_summed(scan, count, sum);
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
    damage_pass(scan, bytes, gproc_implausible_count(bytes, count, (int32_t)most));
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
        .quick_end = -1,
        .window.capacity_bytes = WINDOW_BYTES,
        .far.capacity_bytes = FAR_BYTES,
    };
}

/* Passes those of the next `count` offsets that are damaged, up to one that is not, or that has to
 * be looked at alone. Their bytes are at `bytes`. How many, or a negative errno. */
static ssize_t damage_sift(struct gproc_scan *scan, const uint8_t *bytes, size_t bytes_count,
                           size_t count)
{
    const struct gproc_sums *sums = &scan->sums;
    const off_t summed = scan->position - sums->offset;
    const off_t first_step = summed / GPROC_SUMS_STEP_BYTES;
    const struct gproc_sieve_load load = {
        .bytes = bytes,
        .bytes_count = bytes_count,
        .count = count,
        .left = scan->source.size_bytes - scan->position,
        .all_readable = scan->source.data != NULL,
        .here = scan->here,
        .samples = sums->samples + first_step,
        .behind_bytes = (uint32_t)(summed % GPROC_SUMS_STEP_BYTES),
        .passed_bytes = scan->position - sums->begin,
        .summed_bytes = sums->end - scan->position,
    };
    struct gproc_sieve sieve;

    gproc_sieve(&load, &sieve);

    size_t passed_count = sieve.decided_count;
    for (size_t i = 0; i < sieve.near.count; i++) {
        const uint32_t end = sieve.near.ends[i];

        if (sieve.near.offsets[i] >= passed_count) {
            continue; /* neighbours are not in order: the first that is good counts */
        }

        const int good = sum_is(scan, first_step + (off_t)(end / GPROC_SUMS_STEP_BYTES),
                                end % GPROC_SUMS_STEP_BYTES, sieve.near.sums[i]);

        if (good < 0) {
            return good;
        }
        if (good > 0) {
            passed_count = sieve.near.offsets[i];
        }
    }
    if (scan->unresolved < 0 && sieve.too_long < passed_count) {
        scan->unresolved = scan->position + (off_t)sieve.too_long;
    }
    if (passed_count == sieve.decided_count) {
        damage_pass_summed(scan, passed_count, sieve.passed_sum);
    } else {
        damage_pass(scan, bytes, passed_count);
    }
    return (ssize_t)passed_count;
}

/* Has the next message looked for the quick way, if it may be: in what is in memory already, and no
 * damage about. That ends before the window is read anew: in its last 11 bytes no frame does. */
static void quick_set(struct gproc_scan *scan, int32_t length_bytes)
{
    const struct gproc_window *window = &scan->window;
    const bool may_be = length_bytes <= SHORT_BYTES && scan->position >= scan->sums.end;
    off_t end;

    if (scan->source.data != NULL) {
        scan->quick = scan->source.data;
        scan->quick_offset = 0;
        end = scan->source.size_bytes;
    } else {
        scan->quick = window->bytes;
        scan->quick_offset = window->offset;
        end = window->offset + (off_t)window->size_bytes;
    }
    scan->usual_bytes = length_bytes;
    scan->quick_end = may_be ? end : -1;
}

/* gproc_scan_next() for whatever comes. Not inline: it would have the quick way save registers. */
__attribute__((noinline)) static int next_of_any(struct gproc_scan *scan,
                                                 struct gproc_message *message)
{
    size_t sift_count = SIFT_LEAST_COUNT;
    bool sifts = false; /* whether the offset before position is damaged */
    off_t left;

    while ((left = scan->source.size_bytes - scan->position) >= GPROC_FRAME_HEADER_BYTES) {
        const uint8_t *bytes;

        if (scan->source.data == NULL && left >= (off_t)scan->window.capacity_bytes &&
            gproc_window_holds(&scan->window, scan->position) < GPROC_FRAME_HEADER_BYTES) {
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

        if (sifts && scan->position < scan->sums.end) {
            const size_t headers_count = (size_t)count - (GPROC_FRAME_HEADER_BYTES - 1);
            const size_t asked = headers_count < sift_count ? headers_count : sift_count;
            const ssize_t passed = damage_sift(scan, bytes, (size_t)count, asked);

            if (passed < 0) {
                return (int)passed;
            }
            sifts = (size_t)passed == asked;
            sift_count = sift_count < GPROC_SIEVE_MAX_COUNT ? 2 * sift_count : sift_count;
            continue;
        }

        const struct gproc_frame frame = gproc_frame_decode(bytes);
        if (frame.length_bytes < GPROC_FRAME_HEADER_BYTES || frame.length_bytes > left) {
            damage_pass_run(scan, bytes, (size_t)count, frame.length_bytes);
            sifts = true;
            continue;
        }

        const int good = frame_is_good(scan, bytes, &frame);
        if (good < 0) {
            return good;
        }
        if (good > 0) {
            frame_take(scan, bytes, &frame, message);
            quick_set(scan, frame.length_bytes);
            return 1;
        }
        damage_pass(scan, bytes, 1);
        sifts = true;
    }
    damage_pass_tail(scan);
    return 0;
}

int gproc_scan_next(struct gproc_scan *scan, struct gproc_message *message)
{
    const off_t position = scan->position;
    const off_t length = scan->usual_bytes;
    const off_t end = position + length;
    uint32_t same = (uint32_t)length;

    /*
     * Where the next frame begins is known before this one's length has come from memory: it is
     * guessed to be the usual one, and the processor goes on while it compares the two. The
     * compiler, which cannot see that `same` is `length`, must not put what it read in its place.
     */
    __asm__("" : "+r"(same));
    if (end <= scan->quick_end) {
        const uint8_t *header = scan->quick + (position - scan->quick_offset);
        const uint32_t checksum = gproc_field_get(header, GPROC_FIELD_CHECKSUM);
        const size_t payload_bytes = (size_t)length - GPROC_FRAME_HEADER_BYTES;

        if (gproc_field_get(header, GPROC_FIELD_LENGTH) == same &&
            gproc_checksum_after(header + GPROC_FRAME_HEADER_BYTES, payload_bytes) == checksum) {
            message->frame_offset = position;
            message->payload_offset = position + GPROC_FRAME_HEADER_BYTES;
            message->payload_bytes = payload_bytes;
            message->sender = (int32_t)gproc_field_get(header, GPROC_FIELD_SENDER);
            message->checksum = checksum;
            scan->position = end;
            return 1;
        }
    }
    return next_of_any(scan, message);
}

bool gproc_scan_copy(const struct gproc_scan *scan, void *buffer, size_t size_bytes, off_t offset)
{
    const struct gproc_window *window = &scan->window;
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
    gproc_window_release(&scan->window);
    gproc_window_release(&scan->far);
    gproc_sums_release(&scan->sums);
}
