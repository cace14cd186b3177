#include "state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct queue *queue_of(struct expected *expected, const struct opened *opened)
{
    return &expected->boxes[opened->box].queue;
}

void receiving_give_back(struct expected *expected, struct opened *opened)
{
    if (opened->has_hand)
        queue_find(queue_of(expected, opened), opened->hand_position)->held = false;
    opened->has_hand = false;
}

/* The next message goes into the file's hand, if there is one. `and_file`: also from the mailbox. */
static bool pick_up(struct expected *expected, struct opened *opened, bool and_file)
{
    struct queue *queue = queue_of(expected, opened);
    bool empty_too = opened->view == VIEW_ENVELOPE;
    uint64_t passed_count = 0;
    long first = queue_first(queue, empty_too, &passed_count);

    if (first < 0 && and_file && expected->boxes[opened->box].exists) {
        queue_move(queue);
        first = queue_first(queue, empty_too, &passed_count);
    }
    expected->received += (long)passed_count;
    if (first < 0)
        return false;
    queue->inflight[first].held = true;
    opened->has_hand = true;
    opened->hand_position = queue->inflight[first].position;
    opened->hand_offset = 0;
    return true;
}

/* The message in hand as the view shows it, to be freed by the caller. */
static uint8_t *hand_text(struct expected *expected, const struct opened *opened, size_t *count)
{
    const struct queue_message *message =
        queue_find(queue_of(expected, opened), opened->hand_position);
    uint8_t *text = malloc(message->payload_bytes + STATE_ENVELOPE_BYTES);
    size_t head = 0;

    if (text == NULL)
        abort();
    if (opened->view == VIEW_ENVELOPE)
        head = (size_t)snprintf((char *)text, STATE_ENVELOPE_BYTES, "%" PRId32 " %zu\n",
                                message->sender, message->payload_bytes);
    memcpy(text + head, message->payload, message->payload_bytes);
    *count = head + message->payload_bytes;
    return text;
}

/* What comes next of the message in hand is at `from` in what was read: how much of it, or -1. */
static long match_hand(struct expected *expected, struct opened *opened, size_t room,
                       const uint8_t *from, size_t left, bool *whole)
{
    size_t count;
    uint8_t *text = hand_text(expected, opened, &count);
    size_t rest = count - opened->hand_offset;
    size_t part = rest < room ? rest : room;
    bool same = part <= left && memcmp(text + opened->hand_offset, from, part) == 0;

    free(text);
    *whole = part == rest;
    if (!same)
        return -1;
    opened->hand_offset += part;
    return (long)part;
}

static void deliver(struct expected *expected, struct opened *opened)
{
    queue_deliver(queue_of(expected, opened), opened->hand_position);
    opened->has_hand = false;
    expected->received++;
}

static bool fits(struct expected *expected, struct opened *opened, size_t room)
{
    size_t count;

    free(hand_text(expected, opened, &count));
    return count <= room;
}

/* Whole messages behind the first: all that fit of those in flight; more are right, too. */
static const char *match_more(struct expected *expected, struct opened *opened, size_t room,
                              const uint8_t *from, size_t left)
{
    while (pick_up(expected, opened, left > 0)) {
        bool whole = true;
        long part = -1;

        if (fits(expected, opened, room) && left > 0)
            part = match_hand(expected, opened, room, from, left, &whole);
        if (part < 0) {
            bool is_short = left == 0 && fits(expected, opened, room);

            receiving_give_back(expected, opened);
            if (left > 0)
                return state_complain("%zu bytes at the end are not the next message", left);
            return is_short ? "another message would have fitted" : NULL;
        }
        deliver(expected, opened);
        from += part;
        left -= (size_t)part;
        room -= (size_t)part;
    }
    return left == 0 ? NULL : state_complain("%zu bytes that nobody sent", left);
}

static const char *match(struct expected *expected, struct opened *opened, size_t size,
                         const struct outcome *outcome)
{
    const uint8_t *bytes = outcome->data.bytes;
    bool whole;
    long part;

    if (outcome->result <= 0)
        return state_complain("a message waits, but read returned %ld (errno %d)", outcome->result,
                              outcome->result < 0 ? outcome->error : 0);
    part = match_hand(expected, opened, size, bytes, outcome->data.count, &whole);
    if (part < 0)
        return state_complain("read %zu bytes that are not the next message: \"%.40s\"",
                              outcome->data.count, (const char *)bytes);
    if (whole)
        deliver(expected, opened);
    if (whole && opened->view == VIEW_ENVELOPE)
        return match_more(expected, opened, size - (size_t)part, bytes + part,
                          outcome->data.count - (size_t)part);
    if (outcome->data.count != (size_t)part)
        return state_complain("read %zu bytes of a message of which %ld are left",
                              outcome->data.count, part);
    return NULL;
}

const char *receiving_read(struct expected *expected, struct opened *opened, long size, long offset,
                           const struct outcome *outcome)
{
    bool waits = opened->view != VIEW_MAILBOX;
    const char *wrong;

    if (!opened->reads)
        return state_failed(outcome, EBADF);
    if (size == 0 || (!waits && offset != opened->position))
        return state_returned(outcome, 0);
    if (!opened->has_hand && !pick_up(expected, opened, true))
        return waits ? state_failed(outcome, EAGAIN) : state_returned(outcome, 0);
    wrong = match(expected, opened, (size_t)size, outcome);
    if (wrong == NULL)
        opened->position += outcome->result;
    return wrong;
}

/* What is only in the mailbox stays there, empty messages too. */
bool receiving_is_ready(struct expected *expected, const struct opened *opened)
{
    struct queue *queue = queue_of(expected, opened);
    uint64_t passed_count = 0;
    struct queue_message *list;
    bool ready = opened->has_hand;
    size_t count;

    if (ready)
        return true;
    ready = queue_first(queue, opened->view == VIEW_ENVELOPE, &passed_count) >= 0;
    expected->received += (long)passed_count;
    list = queue_list(queue, &count);
    for (size_t i = queue->inflight_count; i < count && expected->boxes[opened->box].exists; i++)
        ready = ready || opened->view == VIEW_ENVELOPE || list[i].payload_bytes > 0;
    queue_free_list(list, count);
    return ready;
}
