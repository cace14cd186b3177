#include "mailboxes.h"

#include <stdlib.h>
#include <string.h>

enum {
    HEADER_BYTES = 12,
    /* Limits to what is summed here for a large mailbox. */
    DEPTH_MAX = 200,
    RANGE_MAX_BYTES = 20000,
};

uint64_t random_next(struct random *random)
{
    uint64_t mixed = random->state += UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

size_t random_below(struct random *random, size_t limit)
{
    return limit == 0 ? 0 : (size_t)(random_next(random) % limit);
}

const char *mailbox_kind_name(enum mailbox_kind kind)
{
    static const char *const names[MAILBOX_KINDS] = {
        [MAILBOX_INTACT] = "intact",
        [MAILBOX_FLIPPED] = "flipped",
        [MAILBOX_CUT] = "cut",
        [MAILBOX_GARBAGE] = "garbage",
        [MAILBOX_NESTED] = "nested",
        [MAILBOX_ZEROS] = "zeros",
        [MAILBOX_ONES] = "ones",
        [MAILBOX_FEW_VALUES] = "few values",
        [MAILBOX_PAST_END] = "past the end",
        [MAILBOX_NEAR_MISS] = "near miss",
    };

    return names[kind];
}

static void put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++, value /= 256) {
        bytes[i] = (uint8_t)(value % 256);
    }
}

void mailbox_frame(uint8_t *frame, uint32_t payload_bytes, uint32_t sender, uint32_t error)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < payload_bytes; i++) {
        sum += frame[HEADER_BYTES + i];
    }
    put32(frame, payload_bytes + HEADER_BYTES);
    put32(frame + 4, sender);
    put32(frame + 8, sum + error);
}

/* Noise of one of three sorts: any bytes, letters, or the bytes that small lengths are made of. */
static void noise_fill(uint8_t *bytes, size_t size_bytes, struct random *random, int sort)
{
    static const uint8_t small[] = {0, 0, 0, 0, 0, 1, 12, 13, 16, 32};

    for (size_t i = 0; i < size_bytes; i++) {
        const uint64_t number = random_next(random);

        bytes[i] = (uint8_t)(sort == 0   ? number
                             : sort == 1 ? 'a' + number % 26
                                         : small[number % sizeof(small)]);
    }
}

/*
 * Fills the mailbox with frames, one after the other, with up to `gap_bytes` bytes left alone
 * before each. What remains is cut off.
 */
static void frames_fill(struct mailbox *mailbox, size_t gap_bytes, struct random *random)
{
    static const size_t payloads[] = {0, 1, 20, 64, 300, 2000};
    size_t end = 0;

    for (;;) {
        const size_t most = payloads[random_below(random, sizeof(payloads) / sizeof(*payloads))];
        const size_t payload_bytes = random_below(random, most + 1);
        const size_t at = end + random_below(random, gap_bytes + 1);

        if (at + HEADER_BYTES + payload_bytes > mailbox->size_bytes) {
            break;
        }
        noise_fill(mailbox->data + at + HEADER_BYTES, payload_bytes, random,
                   (int)random_below(random, 3));
        mailbox_frame(mailbox->data + at, (uint32_t)payload_bytes, (uint32_t)random_next(random),
                      0);
        end = at + HEADER_BYTES + payload_bytes;
    }
    if (gap_bytes == 0) {
        mailbox->size_bytes = end;
    }
}

static void bits_flip(struct mailbox *mailbox, struct random *random)
{
    for (size_t i = 1 + random_below(random, 4); i > 0 && mailbox->size_bytes > 0; i--) {
        mailbox->data[random_below(random, mailbox->size_bytes)] ^=
            (uint8_t)(1 << random_below(random, 8));
    }
}

static void piece_cut(struct mailbox *mailbox, struct random *random)
{
    const size_t from = random_below(random, mailbox->size_bytes + 1);
    const size_t to = from + random_below(random, mailbox->size_bytes - from + 1);

    memmove(mailbox->data + from, mailbox->data + to, mailbox->size_bytes - to);
    mailbox->size_bytes -= to - from;
}

/* Puts frames around what is there; every one but the innermost may be damaged. */
static void frames_nest(struct mailbox *mailbox, struct random *random)
{
    const size_t room = mailbox->size_bytes / HEADER_BYTES / 2;
    const size_t depth = room < DEPTH_MAX ? room : DEPTH_MAX;

    for (size_t i = random_below(random, depth + 1); i > 0; i--) {
        const size_t at = (i - 1) * HEADER_BYTES;
        const size_t inside = mailbox->size_bytes - at - HEADER_BYTES;
        const size_t payload_bytes = inside - random_below(random, inside / 8 + 1);

        mailbox_frame(mailbox->data + at, (uint32_t)payload_bytes, 7,
                      random_below(random, 4) == 0 ? 0 : 1);
    }
}

/* Writes lengths of what is left, and a few more or less, here and there; some of the sums are
 * right. */
static void lengths_past_end(struct mailbox *mailbox, struct random *random)
{
    for (size_t at = mailbox->size_bytes; at >= HEADER_BYTES;) {
        const size_t step = 1 + random_below(random, 40 + (mailbox->size_bytes - at) / 16);
        if (step > at) {
            break;
        }
        at -= step;

        const size_t left = mailbox->size_bytes - at;
        if (left < HEADER_BYTES) {
            continue;
        }
        mailbox_frame(mailbox->data + at, (uint32_t)(left - HEADER_BYTES), 1, 0);
        put32(mailbox->data + at, (uint32_t)(left + random_below(random, 5) - 2));
    }
}

/* Every 12 bytes a header whose checksum is nearly that of a random range after it. */
static void headers_near_miss(struct mailbox *mailbox, struct random *random)
{
    for (size_t at = mailbox->size_bytes / HEADER_BYTES * HEADER_BYTES; at >= HEADER_BYTES;) {
        at -= HEADER_BYTES;

        const size_t left = mailbox->size_bytes - at - HEADER_BYTES;
        const size_t most = left < RANGE_MAX_BYTES ? left : RANGE_MAX_BYTES;
        const uint32_t error = random_below(random, 100) == 0
                                   ? 0
                                   : (uint32_t)random_below(random, 512) - (uint32_t)256;
        mailbox_frame(mailbox->data + at, (uint32_t)random_below(random, most + 1), 0, error);
    }
}

void mailbox_init(struct mailbox *mailbox, enum mailbox_kind kind, size_t size_bytes,
                  struct random *random)
{
    *mailbox = (struct mailbox){.data = calloc(size_bytes + 1, 1), .size_bytes = size_bytes};
    if (mailbox->data == NULL) {
        abort();
    }

    switch (kind) {
    case MAILBOX_INTACT:
        frames_fill(mailbox, 0, random);
        break;
    case MAILBOX_FLIPPED:
        frames_fill(mailbox, 0, random);
        bits_flip(mailbox, random);
        break;
    case MAILBOX_CUT:
        frames_fill(mailbox, 0, random);
        piece_cut(mailbox, random);
        break;
    case MAILBOX_GARBAGE:
        noise_fill(mailbox->data, size_bytes, random, (int)random_below(random, 3));
        frames_fill(mailbox, 100, random);
        break;
    case MAILBOX_NESTED:
        frames_fill(mailbox, 0, random);
        frames_nest(mailbox, random);
        break;
    case MAILBOX_ZEROS:
        frames_fill(mailbox, 700, random);
        break;
    case MAILBOX_ONES:
        memset(mailbox->data, 0xff, size_bytes);
        frames_fill(mailbox, 700, random);
        break;
    case MAILBOX_FEW_VALUES:
        noise_fill(mailbox->data, size_bytes, random, 2);
        break;
    case MAILBOX_PAST_END:
        noise_fill(mailbox->data, size_bytes, random, (int)random_below(random, 3));
        lengths_past_end(mailbox, random);
        break;
    case MAILBOX_NEAR_MISS:
        headers_near_miss(mailbox, random);
        break;
    case MAILBOX_KINDS:
        abort();
    }

    /* Exactly as long as it says, in an allocation of its own. */
    uint8_t *exact = malloc(mailbox->size_bytes);
    if (exact == NULL && mailbox->size_bytes > 0) {
        abort();
    }
    if (mailbox->size_bytes > 0) {
        memcpy(exact, mailbox->data, mailbox->size_bytes);
    }
    free(mailbox->data);
    mailbox->data = exact;
}

void mailbox_release(struct mailbox *mailbox)
{
    free(mailbox->data);
    *mailbox = (struct mailbox){0};
}
