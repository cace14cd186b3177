/* Which steps have a meaning: the part of expected.h that says so. */
#include "refused.h"
#include "state.h"

enum {
    /* Halves of smaller frames may make a whole one together, when the first is put back. */
    TORN_LEAST_BYTES = 20,
};

static bool any_waits(const struct expected *expected)
{
    bool any = false;

    for (size_t i = 0; i < STEP_BOXES; i++)
        any = any || expected->boxes[i].has_waiter;
    return any;
}

static bool allows_open(const struct expected *expected, const struct step *step)
{
    long flags = step->of[FIELD_FLAGS];
    bool waits = step->of[FIELD_VIEW] == VIEW_FOLLOW || step->of[FIELD_VIEW] == VIEW_ENVELOPE;

    if (expected->fds[step->of[FIELD_FD]] != NULL || (flags & (OPEN_READ | OPEN_WRITE)) == 0)
        return false;
    if ((flags & OPEN_TRUNCATE) != 0 && (flags & OPEN_WRITE) == 0)
        return false;
    if ((flags & OPEN_EXCLUSIVE) != 0 && (flags & OPEN_CREATE) == 0)
        return false;
    return !waits || (flags & OPEN_NONBLOCK) != 0;
}

/* What is appended without becoming a message wakes who waits, but nothing says when he has looked. */
static bool allows_part(const struct mailbox_state *box, const struct step *step)
{
    if (box->has_waiter)
        return false;
    if (step->kind != STEP_MEND)
        return step->kind != STEP_TEAR || step->of[FIELD_SIZE] >= TORN_LEAST_BYTES;
    return box->queue.file_bytes > 0 && queue_end(&box->queue) == box->torn_end;
}

static bool allows_end(const struct expected *expected, const struct opened *opened)
{
    return !expected->boxes[opened->box].has_waiter || !opened->has_hand ||
           opened->collected.count == 0;
}

static bool allows_descriptor(const struct expected *expected, const struct step *step)
{
    const struct opened *opened = expected->fds[step->of[FIELD_FD]];
    bool at_file_offset =
        step->kind == STEP_READ || step->kind == STEP_WRITE || step->kind == STEP_FORK;

    if (opened == NULL)
        return false;
    if (at_file_offset && opened->offset == STATE_OFFSET_UNKNOWN && !opened_streams(opened))
        return step->kind != STEP_READ && opened->appends;
    if (step->kind == STEP_DUP)
        return expected->fds[step->of[FIELD_TO]] == NULL;
    if (step->kind == STEP_CLOSE)
        return allows_end(expected, opened);
    return true;
}

/* What becomes of a message that was just handed over is to be seen by who looks at the mailbox. */
static bool allows_kill(const struct expected *expected, long fd)
{
    return !expected_reads_then_dies(expected, fd) ||
           expected->boxes[expected->fds[fd]->box].exists;
}

bool expected_allows(const struct expected *expected, const struct step *step)
{
    const struct mailbox_state *box = &expected->boxes[step->of[FIELD_BOX]];

    switch (step->kind) {
    case STEP_OPEN:
        return allows_open(expected, step);
    case STEP_DAMAGE:
    case STEP_TEAR:
    case STEP_MEND:
        return allows_part(box, step);
    case STEP_SEND_BEHIND:
        return step->of[FIELD_SIZE] > 0 || !box->has_waiter;
    case STEP_READER:
        return !box->has_waiter && step->of[FIELD_VIEW] != VIEW_PEEK && step->of[FIELD_SIZE] > 0;
    case STEP_WAIT:
        return !box->has_waiter && step->of[FIELD_SIZE] > 0 &&
               (step->of[FIELD_VIEW] == VIEW_FOLLOW || step->of[FIELD_VIEW] == VIEW_ENVELOPE);
    case STEP_UNWAIT:
        return box->has_waiter;
    case STEP_FORK:
        if (any_waits(expected))
            return false;
        break;
    case STEP_REFUSED:
        return step->of[FIELD_WHICH] < REFUSED_COUNT;
    case STEP_KILL:
        return allows_kill(expected, step->of[FIELD_FD]);
    default:
        break;
    }
    return !step_has(step->kind, FIELD_FD) || allows_descriptor(expected, step);
}
