#include "expected.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refused.h"
#include "state.h"

const char *state_complain(const char *format, ...)
{
    static char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return text;
}

const char *state_returned(const struct outcome *outcome, long result)
{
    if (outcome->result == result)
        return NULL;
    return state_complain("returned %ld (errno %d) instead of %ld", outcome->result,
                          outcome->result < 0 ? outcome->error : 0, result);
}

const char *state_failed(const struct outcome *outcome, int error)
{
    if (outcome->result < 0 && outcome->error == error)
        return NULL;
    return state_complain("returned %ld (errno %d) instead of errno %d", outcome->result,
                          outcome->result < 0 ? outcome->error : 0, error);
}

bool opened_streams(const struct opened *opened)
{
    return opened->view == VIEW_FOLLOW || opened->view == VIEW_ENVELOPE;
}

struct expected *expected_new(long most_bytes, pid_t self)
{
    struct expected *expected = calloc(1, sizeof(*expected));

    if (expected == NULL)
        abort();
    expected->most_bytes = most_bytes;
    expected->self = self;
    return expected;
}

void opened_leave(struct expected *expected, struct opened *opened)
{
    if (--opened->users > 0)
        return;
    receiving_give_back(expected, opened);
    free(opened->collected.bytes);
    free(opened->shown.bytes);
    free(opened);
}

void expected_free(struct expected *expected)
{
    for (size_t i = 0; i < STEP_FDS; i++) {
        if (expected->fds[i] != NULL)
            opened_leave(expected, expected->fds[i]);
    }
    for (size_t i = 0; i < STEP_BOXES; i++) {
        queue_release(&expected->boxes[i].queue);
        last_forget(&expected->boxes[i].last);
    }
    free(expected);
}

/* --- Open files ------------------------------------------------------------------------------ */

static const char *check_open(struct expected *expected, const struct step *step,
                              const struct outcome *outcome)
{
    struct mailbox_state *box = &expected->boxes[step->of[FIELD_BOX]];
    long flags = step->of[FIELD_FLAGS];
    enum step_view view = (enum step_view)step->of[FIELD_VIEW];
    bool creates = (flags & OPEN_CREATE) != 0 && !box->exists;
    struct opened *opened;
    int error = 0;

    if ((flags & OPEN_EXCLUSIVE) != 0 && box->exists)
        error = EEXIST;
    else if (!creates && !box->exists)
        error = ENOENT;
    else if (view != VIEW_MAILBOX && (creates || (flags & OPEN_WRITE) != 0))
        error = EACCES;
    if (error != 0)
        return state_failed(outcome, error);
    if (creates) {
        box->exists = true;
        box->mode = STATE_MODE_MADE;
    }
    opened = calloc(1, sizeof(*opened));
    if (opened == NULL)
        abort();
    opened->box = step->of[FIELD_BOX];
    opened->view = view;
    opened->reads = (flags & OPEN_READ) != 0;
    opened->writes = (flags & OPEN_WRITE) != 0;
    opened->appends = (flags & OPEN_APPEND) != 0;
    opened->collects =
        opened->writes && ((flags & OPEN_TRUNCATE) != 0 ||
                           (flags & (OPEN_EXCLUSIVE | OPEN_APPEND)) == OPEN_EXCLUSIVE);
    opened->mode = box->mode;
    opened->users = 1;
    expected->fds[step->of[FIELD_FD]] = opened;
    return state_returned(outcome, 0);
}

const char *state_returned_or_failed(const struct outcome *outcome, int error)
{
    return error == 0 ? state_returned(outcome, 0) : state_failed(outcome, error);
}

static const char *check_close(struct expected *expected, long fd, const struct outcome *outcome)
{
    struct opened *opened = expected->fds[fd];
    int error;

    sending_flush(expected, opened, &error);
    opened_leave(expected, opened);
    expected->fds[fd] = NULL;
    return state_returned_or_failed(outcome, error);
}

static const char *check_read(struct expected *expected, struct opened *opened,
                              const struct step *step, const struct outcome *outcome)
{
    bool positioned = step->kind == STEP_PREAD;
    long offset = positioned ? step->of[FIELD_OFFSET] : opened->offset;
    long size = step->of[FIELD_SIZE];
    const char *wrong;

    if (!opened->reads)
        return state_failed(outcome, EBADF);
    if (positioned && opened_streams(opened))
        return state_failed(outcome, ESPIPE);
    if (opened->view == VIEW_PEEK)
        wrong = looking_read(expected, opened, size, offset, outcome);
    else
        wrong = receiving_read(expected, opened, size, offset, outcome);
    if (!positioned && outcome->result > 0 && opened->offset != STATE_OFFSET_UNKNOWN)
        opened->offset += outcome->result;
    return wrong;
}

static const char *check_seek(struct opened *opened, long offset, const struct outcome *outcome)
{
    if (opened_streams(opened))
        return state_failed(outcome, ESPIPE);
    opened->offset = offset;
    return state_returned(outcome, offset);
}

static const char *check_poll(struct expected *expected, const struct opened *opened,
                              const struct outcome *outcome)
{
    bool readable =
        opened->view == VIEW_PEEK || (opened->reads && receiving_is_ready(expected, opened));

    if (outcome->result < 0)
        return state_returned(outcome, 0);
    if (((outcome->events & OUTCOME_READABLE) != 0) != readable)
        return readable ? "not readable, though something waits" : "readable, though nothing waits";
    if (((outcome->events & OUTCOME_WRITABLE) != 0) != opened->writes)
        return "writable or not, against what it was opened for";
    return NULL;
}

/* Killed: what he has written is not sent. What others have written is theirs, and they live. */
static void killed(struct opened *opened, pid_t child)
{
    struct collected *collected = &opened->collected;
    bool is_his = collected->sender == child || collected->writer == child;

    if ((collected->count > 0 && is_his) || (collected->count == 0 && collected->failure != 0)) {
        sending_spoil(opened, 0);
        collected->is_new = true;
    }
}

static const char *check_fork(struct expected *expected, struct opened *opened,
                              const struct step *step, const struct outcome *outcome)
{
    const char *wrong = sending_write(expected, opened, step, outcome);
    int error;

    for (size_t i = 0; i < STEP_FDS; i++) {
        struct opened *each = expected->fds[i];

        if (each == NULL || !each->collects)
            continue;
        if (step->of[FIELD_WHICH] == END_EXITS)
            sending_flush(expected, each, &error);
        else
            killed(each, outcome->child);
    }
    return wrong;
}

static const char *check_descriptor(struct expected *expected, const struct step *step,
                                    const struct outcome *outcome)
{
    long fd = step->of[FIELD_FD];
    struct opened *opened = expected->fds[fd];
    int error;

    switch (step->kind) {
    case STEP_CLOSE:
        return check_close(expected, fd, outcome);
    case STEP_DUP:
        opened->users++;
        expected->fds[step->of[FIELD_TO]] = opened;
        return state_returned(outcome, 0);
    case STEP_READ:
    case STEP_PREAD:
        return check_read(expected, opened, step, outcome);
    case STEP_SEEK:
        return check_seek(opened, step->of[FIELD_OFFSET], outcome);
    case STEP_WRITE:
        return sending_write(expected, opened, step, outcome);
    case STEP_PWRITE:
        if (opened_streams(opened))
            return opened->writes ? "a stream that is written" : state_failed(outcome, ESPIPE);
        return sending_write(expected, opened, step, outcome);
    case STEP_FTRUNCATE:
        return sending_truncate(expected, opened, step->of[FIELD_SIZE], outcome);
    case STEP_FSYNC:
        sending_flush(expected, opened, &error);
        return state_returned_or_failed(outcome, error);
    case STEP_POLL:
        return check_poll(expected, opened, outcome);
    case STEP_FORK:
        return check_fork(expected, opened, step, outcome);
    default:
        return "no step for a descriptor";
    }
}

/* --- All of it ------------------------------------------------------------------------------- */

static const char *check_kill(struct expected *expected, const struct step *step,
                              const struct outcome *outcome)
{
    struct opened *opened = expected->fds[step->of[FIELD_FD]];
    const char *wrong = NULL;

    if (opened != NULL && expected_reads_then_dies(expected, step->of[FIELD_FD])) {
        struct step read = {.kind = STEP_READ};
        struct mailbox_state *box = &expected->boxes[opened->box];

        read.of[FIELD_SIZE] = step->of[FIELD_SIZE];
        last_remember(&box->last, &box->queue);
        wrong = check_read(expected, opened, &read, outcome);
    }
    return wrong != NULL ? wrong : remounting_killed(expected, outcome);
}

static const char *check_stats(const struct expected *expected, const struct outcome *outcome)
{
    if (outcome->sent != expected->sent)
        return state_complain("counts %ld sent instead of %ld", outcome->sent, expected->sent);
    if (outcome->received != expected->received)
        return state_complain("counts %ld received instead of %ld", outcome->received,
                              expected->received);
    return NULL;
}

const char *expected_check(struct expected *expected, const struct step *step,
                           const struct outcome *outcome)
{
    struct opened *opened = expected->fds[step->of[FIELD_FD]];

    switch (step->kind) {
    case STEP_OPEN:
        return check_open(expected, step, outcome);
    case STEP_FSTAT:
        return mailbox_attributes(expected, opened, opened->box, outcome);
    case STEP_NAMES:
        return looking_names(expected, outcome);
    case STEP_REFUSED:
        return state_failed(outcome, refused_error(step->of[FIELD_WHICH]));
    case STEP_STATS:
        return check_stats(expected, outcome);
    case STEP_REMOUNT:
        return remounting_clean(expected, outcome);
    case STEP_KILL:
        return check_kill(expected, step, outcome);
    default:
        return step_has(step->kind, FIELD_FD) ? check_descriptor(expected, step, outcome)
                                              : mailbox_check(expected, step, outcome);
    }
}

/* --- For others ------------------------------------------------------------------------------ */

long expected_open_files(const struct expected *expected)
{
    long count = 0;

    for (size_t i = 0; i < STEP_FDS; i++) {
        bool first = expected->fds[i] != NULL;

        for (size_t j = 0; j < i; j++)
            first = first && expected->fds[j] != expected->fds[i];
        count += first;
    }
    for (size_t i = 0; i < STEP_BOXES; i++)
        count += expected->boxes[i].has_waiter;
    return count;
}

long expected_offset(const struct expected *expected, long fd)
{
    const struct opened *opened = expected->fds[fd];

    return opened != NULL ? opened->position : -1;
}

bool expected_reads_then_dies(const struct expected *expected, long fd)
{
    const struct opened *opened = expected->fds[fd];

    return opened != NULL && opened->reads && opened->view != VIEW_PEEK &&
           (opened->offset != STATE_OFFSET_UNKNOWN || opened_streams(opened));
}

bool expected_exists(const struct expected *expected, long box)
{
    return expected->boxes[box].exists;
}

bool expected_is_open(const struct expected *expected, long fd)
{
    return expected->fds[fd] != NULL;
}
