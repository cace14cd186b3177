/* Processes that read: the part of seen.h and perform.h that has them do it. */
#include "process.h"
#include "seen.h"

static void note_errand(struct performer *performer, unsigned slot, struct outcome *outcome)
{
    const struct errand *errand = &performer->errands.slots[slot];

    outcome->result = errand->result;
    outcome->error = errand->error;
    if (errand->result >= 0)
        seen_bytes(&outcome->data, errand->bytes, (size_t)errand->result);
}

const char *reader_do(struct performer *performer, const struct step *step, struct outcome *outcome)
{
    enum { SLOT = ERRANDS_SLOTS - 1 };
    const char *path =
        seen_path(performer, step->of[FIELD_BOX], (enum step_view)step->of[FIELD_VIEW]);

    if (errands_read_and_die(&performer->errands, SLOT, path, seen_read_size(step)) < 0)
        return seen_late;
    note_errand(performer, SLOT, outcome);
    return NULL;
}

bool perform_is_woken(const struct performer *performer, long box)
{
    return performer->waits[box] && performer->errands.slots[box].done;
}

const char *perform_await_woken(struct performer *performer, long box, struct outcome *outcome)
{
    int64_t deadline_ms = process_clock_ms() + SEEN_DEADLINE_MS;

    while (!perform_is_woken(performer, box)) {
        if (process_clock_ms() > deadline_ms)
            return "who waits for a message is not told of it";
        seen_pause();
    }
    performer->waits[box] = false;
    note_errand(performer, (unsigned)box, outcome);
    return errands_reap(&performer->errands, (unsigned)box) < 0 ? seen_late : NULL;
}

static long waiters_count(const struct performer *performer)
{
    long count = 0;

    for (size_t i = 0; i < STEP_BOXES; i++)
        count += performer->waits[i];
    return count;
}

const char *reader_wait(struct performer *performer, const struct step *step,
                        struct outcome *outcome)
{
    int64_t deadline_ms = process_clock_ms() + SEEN_DEADLINE_MS;
    long box = step->of[FIELD_BOX];

    if (errands_wait(&performer->errands, (unsigned)box,
                     seen_path(performer, box, (enum step_view)step->of[FIELD_VIEW]),
                     seen_read_size(step)) < 0)
        return seen_late;
    performer->waits[box] = true;
    while (!perform_is_woken(performer, box)) {
        if (seen_sample(performer, "gprocfs_parked_requests{kind=\"message\"}") ==
            waiters_count(performer)) {
            outcome->is_parked = true;
            return NULL;
        }
        if (process_clock_ms() > deadline_ms)
            return seen_late;
        seen_pause();
    }
    return perform_await_woken(performer, box, outcome);
}

const char *reader_unwait(struct performer *performer, long box)
{
    performer->waits[box] = false;
    return errands_kill(&performer->errands, (unsigned)box) < 0 ? seen_late : NULL;
}
