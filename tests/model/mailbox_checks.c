/* What is expected of steps of mailboxes: the part of expected.h and state.h for these. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

/* Of a name, or of an open file. */
const char *mailbox_attributes(struct expected *expected, struct opened *opened, long which,
                               const struct outcome *outcome)
{
    const struct mailbox_state *box = &expected->boxes[which];
    long size = (long)queue_payload_bytes(&box->queue);

    if (opened != NULL && opened->view == VIEW_PEEK) {
        looking_look(expected, opened);
        size = (long)opened->shown.count;
    } else if (!box->exists) {
        return state_failed(outcome, opened != NULL ? ESTALE : ENOENT);
    } else if (opened != NULL && opened_streams(opened)) {
        size = 0;
    }
    if (outcome->result < 0)
        return state_returned(outcome, 0);
    if (outcome->size != size)
        return state_complain("the size is %ld instead of %ld", outcome->size, size);
    if (opened == NULL && outcome->mode != box->mode)
        return state_complain("the mode is %lo instead of %lo", outcome->mode, box->mode);
    return NULL;
}

static const char *check_child(struct expected *expected, struct opened *child, long size,
                               const struct outcome *outcome)
{
    const char *wrong = receiving_read(expected, child, size, 0, outcome);

    receiving_give_back(expected, child);
    return wrong;
}

static const char *check_reader(struct expected *expected, const struct step *step,
                                const struct outcome *outcome)
{
    struct opened child = {
        .box = step->of[FIELD_BOX], .view = (enum step_view)step->of[FIELD_VIEW], .reads = true};

    if (!expected->boxes[child.box].exists)
        return state_failed(outcome, ENOENT);
    return check_child(expected, &child, step->of[FIELD_SIZE], outcome);
}

static const char *check_wait(struct expected *expected, const struct step *step,
                              const struct outcome *outcome)
{
    struct mailbox_state *box = &expected->boxes[step->of[FIELD_BOX]];

    if (!box->exists)
        return state_failed(outcome, ENOENT);
    box->waiter = (struct opened){
        .box = step->of[FIELD_BOX], .view = (enum step_view)step->of[FIELD_VIEW], .reads = true};
    box->waiter_size = step->of[FIELD_SIZE];
    box->has_waiter = true;
    if (outcome->is_parked)
        return expected_wakes(expected, step->of[FIELD_BOX]) ? "it waits, though a message does"
                                                             : NULL;
    return expected_check_woken(expected, step->of[FIELD_BOX], outcome);
}

bool expected_wakes(struct expected *expected, long which)
{
    struct mailbox_state *box = &expected->boxes[which];
    uint64_t passed_count = 0;
    long first;

    if (!box->has_waiter)
        return false;
    if (queue_first(&box->queue, true, &passed_count) < 0 && box->exists)
        queue_move(&box->queue);
    first = queue_first(&box->queue, box->waiter.view == VIEW_ENVELOPE, &passed_count);
    expected->received += (long)passed_count;
    return first >= 0;
}

const char *expected_check_woken(struct expected *expected, long which,
                                 const struct outcome *outcome)
{
    struct mailbox_state *box = &expected->boxes[which];

    box->has_waiter = false;
    return check_child(expected, &box->waiter, box->waiter_size, outcome);
}

static void forget_all(struct mailbox_state *box)
{
    queue_clear_inflight(&box->queue);
    queue_empty_file(&box->queue);
}

static const char *check_truncate(struct mailbox_state *box, long size,
                                  const struct outcome *outcome)
{
    if (!box->exists)
        return state_failed(outcome, ENOENT);
    if (size != 0)
        return state_failed(outcome, EINVAL);
    forget_all(box);
    return state_returned(outcome, 0);
}

/* What was appended behind the mount, whatever it is. */
static const char *check_appended(struct mailbox_state *box, const struct step *step,
                                  const struct outcome *outcome)
{
    if (!box->exists)
        box->mode = STATE_MODE_MADE;
    box->exists = true;
    queue_append(&box->queue, outcome->data.bytes, outcome->data.count);
    box->torn_end = step->kind == STEP_TEAR ? queue_end(&box->queue) : 0;
    return state_returned(outcome, 0);
}

static const char *check_drained(struct mailbox_state *box, const struct outcome *outcome)
{
    struct queue *queue = &box->queue;
    const char *wrong = NULL;

    if (!box->exists)
        return state_failed(outcome, ENOENT);
    if (outcome->result < 0)
        return state_returned(outcome, 0);
    if (outcome->data.count != queue->file_bytes ||
        (queue->file_bytes > 0 && memcmp(outcome->data.bytes, queue->file, queue->file_bytes) != 0))
        wrong = state_complain("the file has %zu bytes, not the %zu that it should have",
                               outcome->data.count, queue->file_bytes);
    queue_empty_file(queue);
    return wrong;
}

const char *mailbox_check(struct expected *expected, const struct step *step,
                          const struct outcome *outcome)
{
    struct mailbox_state *box = &expected->boxes[step->of[FIELD_BOX]];
    long gone = box->exists ? 0 : ENOENT;
    struct outcome_bytes list = outcome->data;

    switch (step->kind) {
    case STEP_UNWAIT:
        box->has_waiter = false;
        return state_returned(outcome, 0);
    case STEP_UNLINK:
        if (gone == 0)
            forget_all(box);
        box->exists = false;
        return state_returned_or_failed(outcome, (int)gone);
    case STEP_TRUNCATE:
        return check_truncate(box, step->of[FIELD_SIZE], outcome);
    case STEP_CHMOD:
        if (gone == 0)
            box->mode = step->of[FIELD_MODE];
        return state_returned_or_failed(outcome, (int)gone);
    case STEP_STAT:
        return mailbox_attributes(expected, NULL, step->of[FIELD_BOX], outcome);
    case STEP_PEEK:
        return looking_peek(expected, step->of[FIELD_BOX], outcome);
    case STEP_LIST:
        return looking_list(expected, step->of[FIELD_BOX], &list);
    case STEP_SEND_BEHIND:
    case STEP_DAMAGE:
    case STEP_TEAR:
    case STEP_MEND:
        return check_appended(box, step, outcome);
    case STEP_DRAIN_BEHIND:
        return check_drained(box, outcome);
    case STEP_READER:
        return check_reader(expected, step, outcome);
    case STEP_WAIT:
        return check_wait(expected, step, outcome);
    case STEP_ERASE_BEHIND:
        queue_empty_file(&box->queue);
        box->exists = false;
        return state_returned_or_failed(outcome, (int)gone);
    default:
        return "no step for a mailbox";
    }
}
