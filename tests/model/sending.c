#include "state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct mailbox_state *box_of(struct expected *expected, const struct opened *opened)
{
    return &expected->boxes[opened->box];
}

/* A mailbox that has been removed is made again. */
static void send(struct expected *expected, const struct opened *opened, pid_t sender,
                 const uint8_t *bytes, size_t count)
{
    struct mailbox_state *box = box_of(expected, opened);

    if (!box->exists) {
        box->exists = true;
        box->mode = opened->mode;
    }
    queue_send(&box->queue, sender, bytes, count);
    expected->sent++;
}

static void forget(struct collected *collected)
{
    free(collected->bytes);
    memset(collected, 0, sizeof(*collected));
}

void sending_spoil(struct opened *opened, int failure)
{
    forget(&opened->collected);
    opened->collected.failure = failure;
}

static void resize(struct collected *collected, size_t count)
{
    collected->bytes = realloc(collected->bytes, count + 1);
    if (collected->bytes == NULL)
        abort();
    if (count > collected->count)
        memset(collected->bytes + collected->count, 0, count - collected->count);
    collected->count = count;
}

/* 0 or an errno. */
static int collect(const struct expected *expected, struct opened *opened, pid_t sender,
                   const uint8_t *bytes, long size, long offset)
{
    struct collected *collected = &opened->collected;

    /* What was written before has been sent: the message begins where it is written next. */
    if (collected->count == 0 && (collected->is_new || offset < collected->begin))
        collected->begin = offset;
    collected->is_new = false;
    if (collected->failure != 0)
        return collected->failure;
    if (offset < collected->begin)
        return EINVAL;
    if (offset + size - collected->begin > expected->most_bytes) {
        sending_spoil(opened, EFBIG);
        return EFBIG;
    }
    if (offset + size - collected->begin > (long)collected->count)
        resize(collected, (size_t)(offset + size - collected->begin));
    if (collected->sender == 0)
        collected->sender = sender;
    collected->writer = sender;
    memcpy(collected->bytes + (offset - collected->begin), bytes, (size_t)size);
    return 0;
}

const char *sending_write(struct expected *expected, struct opened *opened, const struct step *step,
                          const struct outcome *outcome)
{
    const struct collected *collected = &opened->collected;
    pid_t sender = outcome->child != 0 ? outcome->child : expected->self;
    long size = step->of[FIELD_SIZE];
    bool at_offset = step->kind == STEP_PWRITE && !opened->appends;
    long offset = at_offset ? step->of[FIELD_OFFSET] : opened->offset;
    uint8_t *bytes;
    int error = 0;

    if (!opened->writes)
        return state_failed(outcome, EBADF);
    if (size == 0)
        return state_returned(outcome, 0);
    if (opened->appends)
        offset = collected->begin + (long)collected->count;
    bytes = malloc((size_t)size);
    if (bytes == NULL)
        abort();
    step_payload(bytes, (size_t)size, (unsigned long)step->of[FIELD_SEED]);
    if (opened->collects)
        error = collect(expected, opened, sender, bytes, size, offset);
    else if (size > expected->most_bytes)
        error = EFBIG;
    else
        send(expected, opened, sender, bytes, (size_t)size);
    free(bytes);
    if (error != 0)
        return state_failed(outcome, error);
    if (!opened->collects)
        opened->sent_bytes += size;
    if (step->kind != STEP_PWRITE)
        opened->offset = opened->appends ? STATE_OFFSET_UNKNOWN : offset + size;
    return state_returned(outcome, size);
}

const char *sending_truncate(struct expected *expected, struct opened *opened, long size,
                             const struct outcome *outcome)
{
    struct collected *collected = &opened->collected;
    struct mailbox_state *box = box_of(expected, opened);
    long begin = collected->begin;

    if (!opened->writes)
        return state_failed(outcome, EINVAL);
    if (!opened->collects) {
        if (!box->exists)
            return outcome->error == EINVAL ? NULL : state_failed(outcome, ESTALE);
        if (size != 0 && size == opened->sent_bytes)
            return state_returned(outcome, 0); /* as rsync --inplace ends: nothing is cut off */
        if (size != 0)
            return state_failed(outcome, EINVAL);
        queue_clear_inflight(&box->queue);
        queue_empty_file(&box->queue);
        return state_returned(outcome, 0);
    }
    if (size <= begin) {
        forget(collected);
        collected->begin = size;
    }
    if (collected->failure != 0)
        return state_failed(outcome, collected->failure);
    if (size - collected->begin > expected->most_bytes)
        return state_failed(outcome, EFBIG);
    if (size > collected->begin + (long)collected->count && collected->sender == 0)
        collected->sender = expected->self; /* whose zeros they are */
    resize(collected, (size_t)(size - collected->begin));
    return state_returned(outcome, 0);
}

void sending_flush(struct expected *expected, struct opened *opened, int *error)
{
    struct collected *collected = &opened->collected;
    long end = collected->begin + (long)collected->count;
    int failure = collected->failure;

    *error = failure;
    if (!opened->collects || (collected->count == 0 && failure == 0))
        return;
    if (failure == 0)
        send(expected, opened, collected->sender, collected->bytes, collected->count);
    forget(collected);
    if (failure == 0)
        collected->begin = end;
    else
        collected->is_new = true;
}
