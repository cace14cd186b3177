#include "state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void last_forget(struct last *last)
{
    queue_free_list(last->list, last->count);
    free(last->file);
    memset(last, 0, sizeof(*last));
}

void last_remember(struct last *last, const struct queue *before)
{
    last_forget(last);
    last->is_known = true;
    last->list = queue_list(before, &last->count);
    last->file = malloc(before->file_bytes + 1);
    if (last->file == NULL)
        abort();
    if (before->file_bytes > 0)
        memcpy(last->file, before->file, before->file_bytes);
    last->file_bytes = before->file_bytes;
}

static void close_all(struct expected *expected)
{
    for (size_t i = 0; i < STEP_FDS; i++) {
        if (expected->fds[i] != NULL)
            opened_leave(expected, expected->fds[i]);
        expected->fds[i] = NULL;
    }
    for (size_t i = 0; i < STEP_BOXES; i++) {
        queue_let_go(&expected->boxes[i].queue);
        expected->boxes[i].has_waiter = false;
    }
    expected->sent = 0;
    expected->received = 0;
}

static bool is_same(const struct queue_message *left, const struct queue_message *right)
{
    return left->sender == right->sender && left->payload_bytes == right->payload_bytes &&
           memcmp(left->payload, right->payload, left->payload_bytes) == 0;
}

static bool are_same(const struct queue *left, const struct queue *right)
{
    size_t left_count, right_count;
    struct queue_message *left_list = queue_list(left, &left_count);
    struct queue_message *right_list = queue_list(right, &right_count);
    bool same = left_count == right_count;

    for (size_t i = 0; same && i < left_count; i++)
        same = is_same(&left_list[i], &right_list[i]);
    queue_free_list(left_list, left_count);
    queue_free_list(right_list, right_count);
    return same;
}

static size_t queue_count(const struct queue *queue)
{
    size_t count;

    struct queue_message *list = queue_list(queue, &count);

    queue_free_list(list, count);
    return count;
}

/* What is in flight goes back in front of the rest, with the damage that is among it, or without. */
static const char *check_returned(struct mailbox_state *box, const struct outcome_bytes *file)
{
    struct queue found;
    const char *unexpected = NULL;
    bool same;

    queue_init(&found);
    found.file_position = box->queue.file_position + box->queue.file_bytes;
    if (box->queue.inflight_count > 0 && !box->exists) {
        box->exists = true;
        box->mode = 0600;
    }
    queue_return(&box->queue);
    if (file->there)
        queue_append(&found, file->bytes, file->count);
    same = are_same(&found, &box->queue);
    if (!same)
        unexpected =
            state_complain("the mailbox has %zu messages in %zu bytes, and should have %zu",
                           queue_count(&found), found.file_bytes, queue_count(&box->queue));
    queue_release(&box->queue);
    box->queue = found;
    if (file->there != box->exists)
        return file->there ? "a mailbox that was removed has been made again"
                           : "a mailbox is not there any more";
    return unexpected;
}

const char *remounting_clean(struct expected *expected, const struct outcome *outcome)
{
    const char *wrong = outcome->result == 0 ? NULL : "the daemon did not end, or start, well";

    close_all(expected);
    for (long i = 0; i < STEP_BOXES && wrong == NULL; i++) {
        wrong = check_returned(&expected->boxes[i], &outcome->files[i]);
        if (wrong == NULL)
            wrong = looking_list(expected, i, &outcome->lists[i]);
    }
    return wrong;
}

static bool has_bytes(const struct outcome_bytes *file, const uint8_t *bytes, size_t count)
{
    return file->count == count && (count == 0 || memcmp(file->bytes, bytes, count) == 0);
}

/* A message that had been taken is in flight again. */
static void put_back(struct queue *queue, const struct queue_message *message)
{
    struct queue_message *grown =
        reallocarray(queue->inflight, queue->inflight_count + 1, sizeof(*grown));
    size_t at = 0;

    if (grown == NULL)
        abort();
    while (at < queue->inflight_count && grown[at].position < message->position)
        at++;
    memmove(grown + at + 1, grown + at, (queue->inflight_count - at) * sizeof(*grown));
    queue->inflight = grown;
    queue->inflight_count++;
    grown[at] = *message;
    grown[at].held = false;
    grown[at].payload = malloc(message->payload_bytes + 1);
    if (grown[at].payload == NULL)
        abort();
    memcpy(grown[at].payload, message->payload, message->payload_bytes);
}

/* The last of what the last read took that is not in the queue, or NULL. */
static const struct queue_message *last_taken(const struct last *last, const struct queue *queue)
{
    size_t count;
    struct queue_message *list = queue_list(queue, &count);
    const struct queue_message *found = NULL;

    for (size_t i = last->count; i-- > 0 && found == NULL;) {
        bool is_there = false;

        for (size_t j = 0; j < count; j++)
            is_there = is_there || list[j].position == last->list[i].position;
        if (!is_there)
            found = &last->list[i];
    }
    queue_free_list(list, count);
    return found;
}

/*
 * Puts the last of what was received just before the kill back, as many as make the list right; the
 * mailbox may have been handed over without having been emptied.
 */
static const char *check_left(struct expected *expected, long which, const struct outcome *outcome)
{
    struct mailbox_state *box = &expected->boxes[which];
    struct queue *queue = &box->queue;
    const struct outcome_bytes *file = &outcome->files[which];
    const struct queue_message *back;
    const char *wrong = NULL;

    if (has_bytes(file, queue->file, queue->file_bytes)) {
        wrong = looking_list(expected, which, &outcome->lists[which]);
        while (wrong != NULL && (back = last_taken(&box->last, queue)) != NULL) {
            put_back(queue, back);
            wrong = looking_list(expected, which, &outcome->lists[which]);
        }
    } else if (box->last.is_known && queue->file_bytes == 0 &&
               has_bytes(file, box->last.file, box->last.file_bytes)) {
        queue_append(queue, file->bytes, file->count);
        wrong = looking_list(expected, which, &outcome->lists[which]);
    } else {
        wrong = state_complain("mailbox %d has %zu bytes where it should have %zu",
                               step_box_pid(which), file->count, queue->file_bytes);
    }
    last_forget(&box->last);
    return wrong;
}

const char *remounting_killed(struct expected *expected, const struct outcome *outcome)
{
    const char *wrong = outcome->size == 0 ? NULL : "the daemon did not start again";

    close_all(expected);
    for (long i = 0; i < STEP_BOXES && wrong == NULL; i++)
        wrong = check_left(expected, i, outcome);
    return wrong;
}
