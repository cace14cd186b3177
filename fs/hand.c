#include "hand.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "gprocfs.h"
#include "log.h"
#include "sender.h"

enum {
    STACK_BYTES = 64 * 1024,
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

size_t hand_write_envelope(char text[HAND_ENVELOPE_BYTES], const struct gproc_message *message)
{
    /* It fits: two numbers of at most eleven characters. */
    return (size_t)snprintf(text, HAND_ENVELOPE_BYTES, "%" PRId32 " %zu\n", message->sender,
                            message->payload_bytes);
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
    int result;

    while ((result = gproc_inflight_next(inflight, &taken)) == 1) {
        if (hand_shows_envelopes(job) || taken->message.payload_bytes > 0) {
            hand->taken = taken;
            hand->offset_bytes = 0;
            hand->envelope_bytes = hand_shows_envelopes(job)
                                       ? hand_write_envelope(hand->envelope, &taken->message)
                                       : 0;
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
    uint8_t *bytes;
    size_t room_bytes;
    size_t used_bytes;
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
        size_t part = hand->envelope_bytes - offset;

        if (part > size_bytes)
            part = size_bytes;
        memcpy(to, hand->envelope + offset, part);
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

    if (pack->used_bytes == pack->room_bytes)
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
    size_t room = pack->room_bytes - pack->used_bytes;
    size_t part = left < room ? left : room;
    int result = copy(hand, pack->bytes + pack->used_bytes, part);

    if (result < 0)
        return result;
    pack->used_bytes += part;
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
    while (result == 1 && hand_pick_up(job) == 1) {
        if (left_of(&job->handle->hand) > pack->room_bytes - pack->used_bytes)
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
    uint64_t before_count = inflight->delivered_count;
    uint64_t payload_bytes = 0;
    size_t i;
    int result;

    job->handle->position += (off_t)pack->used_bytes;
    job->handle->hand.offset_bytes += pack->part_bytes;
    if (pack->whole_count == 0)
        return;
    for (i = 0; i < pack->whole_count; i++)
        payload_bytes += pack->whole[i]->message.payload_bytes;
    hand_count_received(job, pack->whole_count, payload_bytes);
    result = gproc_inflight_deliver_all(inflight, pack->whole, pack->whole_count);
    if (result == 0)
        return;
    log_mailbox(job->box->pid, "cannot note what was delivered: it will be seen again", result);
    for (i = (size_t)(inflight->delivered_count - before_count); i < pack->whole_count; i++)
        gproc_inflight_give_back(inflight, pack->whole[i]);
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
    box_has_news(job->box);
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
    struct pack pack = {.bytes = small, .whole_room_count = 1};
    size_t left = left_of(&job->handle->hand);
    int result;

    pack.whole = &pack.first_whole;
    pack.room_bytes = job->size_bytes;
    if ((left == job->size_bytes || hand_shows_envelopes(job)) && may_be_cut(job))
        pack.room_bytes--;
    if (!hand_shows_envelopes(job) && pack.room_bytes > left)
        pack.room_bytes = left;
    if (pack.room_bytes > sizeof(small))
        pack.bytes = malloc(pack.room_bytes);
    result = pack.bytes == NULL ? -ENOMEM : fill(job, &pack);
    if (result < 0) {
        log_mailbox(job->box->pid, "cannot read what was taken", result);
        (void)job_reply_error(job, result); /* nothing has changed: it can be read again */
    } else if (job_is_abandoned(job)) {
        take_back(job, &pack);
        (void)job_reply_error(job, -EINTR); /* nobody hears it */
    } else if (job_reply_data(job, pack.bytes, pack.used_bytes) == 0) {
        deliver(job, &pack);
    } else {
        take_back(job, &pack);
    }
    if (pack.bytes != small)
        free(pack.bytes);
    if (pack.whole != &pack.first_whole)
        free(pack.whole);
}
