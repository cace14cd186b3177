#include "perform.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "behind.h"
#include "refused.h"
#include "seen.h"

/* --- From mount to mount --------------------------------------------------------------------- */

/* Those who waited must have got an error. */
static const char *reap_waiters(struct performer *performer)
{
    const char *wrong = NULL;

    for (long i = 0; i < STEP_BOXES && wrong == NULL; i++) {
        struct outcome outcome = {0};

        if (!performer->waits[i])
            continue;
        wrong = perform_await_woken(performer, i, &outcome);
        if (wrong == NULL && outcome.result >= 0)
            wrong = "who waited when the mount ended got something";
        outcome_release(&outcome);
    }
    return wrong;
}

static const char *look_at_files(struct performer *performer, struct outcome *outcome)
{
    for (long i = 0; i < STEP_BOXES; i++) {
        uint8_t *bytes;
        ssize_t got = behind_read(performer->mount, step_box_pid(i), &bytes);

        if (got >= 0)
            seen_bytes(&outcome->files[i], bytes, (size_t)got);
        free(bytes);
        if (got < 0 && got != -ENOENT)
            return "a mailbox cannot be read behind the mount";
    }
    return NULL;
}

static const char *look_at_lists(struct performer *performer, struct outcome *outcome)
{
    for (long i = 0; i < STEP_BOXES; i++) {
        const char *path =
            mount_path(performer->mount, "%s/.list/%d", performer->mount->mnt, step_box_pid(i));

        if (seen_file(path, &outcome->lists[i]) < 0 && errno != ENOENT)
            return "a list cannot be read";
    }
    return NULL;
}

static const char *remount_do(struct performer *performer, const struct step *step,
                              bool reads_first, struct outcome *outcome)
{
    const char *wrong;

    if (step->kind == STEP_KILL) {
        seen_finish(performer);
        if (reads_first)
            descriptor_read(performer, step, outcome);
        mount_kill(performer->mount);
    } else {
        outcome->result = mount_stop(performer->mount);
    }
    descriptor_close_all(performer);
    wrong = reap_waiters(performer);
    if (wrong == NULL)
        wrong = look_at_files(performer, outcome);
    if (wrong == NULL && mount_start(performer->mount) != 0)
        wrong = "the daemon does not start again";
    return wrong != NULL ? wrong : look_at_lists(performer, outcome);
}

/* --- All of it ------------------------------------------------------------------------------- */

const char *performer_init(struct performer *performer, struct mount *mount)
{
    memset(performer, 0, sizeof(*performer));
    performer->mount = mount;
    for (size_t i = 0; i < STEP_FDS; i++)
        performer->fds[i] = -1;
    performer->buffer = malloc(ERRANDS_READ_BYTES);
    if (performer->buffer == NULL)
        abort();
    return errands_init(&performer->errands) < 0 ? "no process can be started" : NULL;
}

void performer_release(struct performer *performer)
{
    descriptor_close_all(performer);
    errands_release(&performer->errands);
    free(performer->buffer);
}

const char *perform(struct performer *performer, const struct step *step, bool reads_first,
                    struct outcome *outcome)
{
    switch (step->kind) {
    case STEP_OPEN:
        descriptor_open(performer, step, outcome);
        return NULL;
    case STEP_READER:
        return reader_do(performer, step, outcome);
    case STEP_WAIT:
        return reader_wait(performer, step, outcome);
    case STEP_UNWAIT:
        return reader_unwait(performer, step->of[FIELD_BOX]);
    case STEP_NAMES:
        return mailbox_names(performer, outcome);
    case STEP_STATS:
        return mailbox_stats(performer, outcome);
    case STEP_REFUSED:
        seen(outcome, refused_call(step->of[FIELD_WHICH], performer->mount->mnt));
        return NULL;
    case STEP_REMOUNT:
    case STEP_KILL:
        return remount_do(performer, step, reads_first, outcome);
    default:
        break;
    }
    if (step_has(step->kind, FIELD_FD))
        return descriptor_do(performer, step, outcome);
    return step->kind < STEP_SEND_BEHIND ? mailbox_do(performer, step, outcome)
                                         : behind_do(performer, step, outcome);
}
