#include "hand.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "gprocfs.h"
#include "log.h"
#include "sender.h"

enum {
    STACK_BYTES = 4096, /* more would touch as many pages of every thread's stack */
    PACK_GROWTH = 64,
    PAGE_BYTES = 4096,
    REQUEST_MOST_BYTES = 256 * 4096, /* the kernel's limit */
};

void hand_count_received(const struct job *job, size_t messages_count, uint64_t payload_bytes)
{
    stats_add(&job->fs->stats, STATS_RECEIVED_MESSAGES, (int64_t)messages_count);
    stats_add(&job->fs->stats, STATS_RECEIVED_BYTES, (int64_t)payload_bytes);
}

void hand_tell_damage(struct box *box, uint64_t more_bytes)
{
    uint64_t passed = box->inflight.damaged_bytes - box->damage_told_bytes + more_bytes;

    if (passed > 0) {
        log_mailbox_note(box->pid, "%" PRIu64 " damaged bytes passed over", passed);
        stats_add(&box->fs->stats, STATS_DAMAGED_BYTES, (int64_t)passed);
    }
    box->damage_told_bytes = box->inflight.damaged_bytes;
}

/* Writes a number in decimal; printf would take longer for it than all else takes for a message.
 * Where it ends. */
static char *write_number(char *to, uint32_t number)
{
    uint32_t rest;
    char *end = to + 1, *at;

    for (rest = number / 10; rest > 0; rest /= 10)
        end++;
    for (at = end; at > to; number /= 10)
        *--at = (char)('0' + number % 10);
    return end;
}

size_t hand_write_envelope(char text[HAND_ENVELOPE_BYTES], const struct gproc_message *message)
{
    int64_t sender = message->sender; /* its magnitude fits, too */
    char *end = text;

    if (sender < 0)
        *end++ = '-';
    end = write_number(end, (uint32_t)(sender < 0 ? -sender : sender));
    *end++ = ' ';
    end = write_number(end, (uint32_t)message->payload_bytes); /* less than INT32_MAX */
    *end++ = '\n';
    return (size_t)(end - text);
}

bool hand_shows_envelopes(const struct job *job)
{
    return (job->handle->view_flags & TREE_ENVELOPES) != 0;
}

int hand_pick_up(struct job *job)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    struct hand *hand = &job->handle->hand;
    struct gproc_taken *taken;
    char envelope[HAND_ENVELOPE_BYTES]; /* only its length is of interest here */
    int result;

    while ((result = gproc_inflight_next(inflight, &taken)) == 1) {
        if (hand_shows_envelopes(job) || taken->message.payload_bytes > 0) {
            hand->taken = taken;
            hand->offset_bytes = 0;
            hand->envelope_bytes =
                hand_shows_envelopes(job) ? hand_write_envelope(envelope, &taken->message) : 0;
            return 1;
        }
        /* Empty, it would look like the end: it is taken and passed over. */
        result = gproc_inflight_deliver(inflight, taken);
        if (result < 0) {
            gproc_inflight_give_back(inflight, taken);
            break;
        }
        hand_count_received(job, 1, 0);
    }
    hand_tell_damage(job->box, 0);
    return result;
}

void hand_put_down(struct job *job)
{
    gproc_inflight_give_back(&job->box->inflight, job->handle->hand.taken);
    job->handle->hand.taken = NULL;
}

/* An answer that is being packed: whole messages, and at its end perhaps a part of one. */
struct pack {
    struct gproc_pack into;
    struct gproc_taken **whole; /* owned: first the one below, from malloc when there are more */
    struct gproc_taken *first_whole;
    size_t whole_count;
    size_t whole_room_count;
    size_t part_bytes; /* of the message that stays in hand */
};

static size_t left_of(const struct hand *hand)
{
    return hand->envelope_bytes + hand->taken->message.payload_bytes - hand->offset_bytes;
}

/* Copies what comes next of the message in hand. 0 or a negative errno. */
static int copy(const struct hand *hand, uint8_t *to, size_t size_bytes)
{
    size_t offset = hand->offset_bytes;

    if (offset < hand->envelope_bytes) {
        char envelope[HAND_ENVELOPE_BYTES];
        size_t part = hand->envelope_bytes - offset;

        if (part > size_bytes)
            part = size_bytes;
        (void)hand_write_envelope(envelope, &hand->taken->message); /* as long as before */
        memcpy(to, envelope + offset, part);
        to += part;
        size_bytes -= part;
        offset += part;
    }
    return gproc_inflight_read(hand->taken, to, size_bytes, offset - hand->envelope_bytes);
}

static bool has_room_for_another(struct pack *pack)
{
    size_t room = pack->whole_room_count * PACK_GROWTH;
    struct gproc_taken **whole;

    if (pack->into.used_bytes == pack->into.room_bytes)
        return false;
    if (pack->whole_count < pack->whole_room_count)
        return true;
    whole = reallocarray(pack->whole != &pack->first_whole ? pack->whole : NULL, room,
                         sizeof(struct gproc_taken *));
    if (whole == NULL)
        return false; /* the answer is shorter, then */
    if (pack->whole == &pack->first_whole)
        whole[0] = pack->first_whole;
    pack->whole = whole;
    pack->whole_room_count = room;
    return true;
}

/* Packs the message in hand, which is the first or fits as a whole. 1: there may be room for
 * another; 0: it is full; or a negative errno, with nothing added. */
static int pack_one(struct job *job, struct pack *pack)
{
    struct hand *hand = &job->handle->hand;
    size_t left = left_of(hand);
    size_t room = pack->into.room_bytes - pack->into.used_bytes;
    size_t part = left < room ? left : room;
    int result = copy(hand, pack->into.bytes + pack->into.used_bytes, part);

    if (result < 0)
        return result;
    pack->into.used_bytes += part;
    if (part < left) {
        pack->part_bytes = part;
        return 0;
    }
    pack->whole[pack->whole_count++] = hand->taken;
    hand->taken = NULL;
    return hand_shows_envelopes(job) && has_room_for_another(pack);
}

/* Packs the message in hand, and behind it all that fit as a whole and are wanted. 0, or what came
 * of the first. */
static int fill(struct job *job, struct pack *pack)
{
    int result = pack_one(job, pack);

    if (result < 0)
        return result;
    while (result == 1) {
        /* An error is for the next read to meet. */
        (void)gproc_inflight_extend(&job->box->inflight, pack->whole[pack->whole_count - 1],
                                    &pack->into);
        if (hand_pick_up(job) != 1)
            break;
        if (left_of(&job->handle->hand) > pack->into.room_bytes - pack->into.used_bytes)
            result = 0;
        else
            result = pack_one(job, pack);
        if (result <= 0 && job->handle->hand.taken != NULL)
            hand_put_down(job); /* the next read begins with it */
    }
    return 0;
}

/* The reader has it all. */
static void deliver(struct job *job, struct pack *pack)
{
    struct gproc_inflight *inflight = &job->box->inflight;
    uint64_t all_count = inflight->delivered_count;
    uint64_t payload_bytes = 0;
    size_t messages_count = 0;
    size_t i;
    int result;

    job->handle->position += (off_t)pack->into.used_bytes;
    job->handle->hand.offset_bytes += pack->part_bytes;
    if (pack->whole_count == 0)
        return;
    for (i = 0; i < pack->whole_count; i++) {
        messages_count += pack->whole[i]->messages_count;
        payload_bytes += pack->whole[i]->payload_bytes;
    }
    hand_count_received(job, messages_count, payload_bytes);
    all_count += messages_count;
    result = gproc_inflight_deliver_all(inflight, pack->whole, pack->whole_count);
    if (result == 0)
        return;
    log_mailbox(job->box->pid, "cannot note what was delivered: it will be seen again", result);
    /* The last ones are in hand still: as many as it takes to have them all. */
    for (i = pack->whole_count; inflight->delivered_count < all_count;) {
        i--;
        all_count -= pack->whole[i]->messages_count;
        gproc_inflight_give_back(inflight, pack->whole[i]);
    }
}

/* The reader went away before the answer came: what it was to begin is for the next one. */
static void take_back(struct job *job, struct pack *pack)
{
    struct hand *hand = &job->handle->hand;
    size_t i;

    for (i = 0; i < pack->whole_count; i++)
        gproc_inflight_give_back(&job->box->inflight, pack->whole[i]);
    if (hand->taken != NULL && hand->offset_bytes == 0)
        hand_put_down(job);
    box_has_returned(job->box);
}

/*
 * The kernel cuts a read where a request is full, up to a page earlier where the buffer does not
 * begin with a page, and goes on with the next piece where one was answered in full. Where a message
 * ends there, that would wait, or glue the next message to it: then the answer is a byte shorter.
 */
static bool may_be_cut(const struct job *job)
{
    size_t most = job->fs->read_most_bytes;

    if (most == 0 || most > REQUEST_MOST_BYTES)
        most = REQUEST_MOST_BYTES;
    return job->size_bytes > most - PAGE_BYTES &&
           sender_read_bytes(fuse_req_ctx(job->req)->pid) != job->size_bytes;
}

void hand_over(struct job *job)
{
    uint8_t small[STACK_BYTES];
    struct pack pack = {
        .into = {.bytes = small, .head = hand_write_envelope},
        .whole_room_count = 1,
    };
    size_t left = left_of(&job->handle->hand);
    int result;

    pack.whole = &pack.first_whole;
    pack.into.room_bytes = job->size_bytes;
    if ((left == job->size_bytes || hand_shows_envelopes(job)) && may_be_cut(job))
        pack.into.room_bytes--;
    if (!hand_shows_envelopes(job) && pack.into.room_bytes > left)
        pack.into.room_bytes = left;
    if (pack.into.room_bytes > sizeof(small))
        pack.into.bytes = malloc(pack.into.room_bytes);
    result = pack.into.bytes == NULL ? -ENOMEM : fill(job, &pack);
    if (result < 0) {
        log_mailbox(job->box->pid, "cannot read what was taken", result);
        (void)job_reply_error(job, result); /* nothing has changed: it can be read again */
    } else if (job_is_abandoned(job)) {
        take_back(job, &pack);
        (void)job_reply_error(job, -EINTR); /* nobody hears it */
    } else if (job_reply_data(job, pack.into.bytes, pack.into.used_bytes) == 0) {
        deliver(job, &pack);
    } else {
        take_back(job, &pack);
    }
    if (pack.into.bytes != small)
        free(pack.into.bytes);
    if (pack.whole != &pack.first_whole)
        free(pack.whole);
}
