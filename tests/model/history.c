#include "history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What became of a message. */
struct fate {
    unsigned box, sender, number;
    const struct history_event *sent;
    const struct history_event *first, *second; /* takes of it */
    unsigned takes_count;
    bool was_held; /* given back after a part */
};

struct judge {
    const struct history *history;
    struct fate *fates; /* owned, by sender and number */
    size_t count;
    bool was_returned;
};

static const char *complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static const char *complain(const char *format, ...)
{
    static char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return text;
}

void history_init(struct history *history)
{
    memset(history, 0, sizeof(*history));
}

void history_release(struct history *history)
{
    free(history->list);
    history_init(history);
}

void history_add(struct history *history, const struct history_event *event)
{
    if (history->count == history->room) {
        history->room = history->room * 2 + 1024;
        history->list = reallocarray(history->list, history->room, sizeof(*history->list));
        if (history->list == NULL)
            abort();
    }
    history->list[history->count++] = *event;
}

/* --- What became of each message ------------------------------------------------------------- */

static int compare_fates(const void *left, const void *right)
{
    const struct fate *a = left, *b = right;

    if (a->sender != b->sender)
        return a->sender < b->sender ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

static struct fate *fate_of(const struct judge *judge, const struct history_event *event)
{
    const struct fate key = {.sender = event->sender, .number = event->number};

    return bsearch(&key, judge->fates, judge->count, sizeof(key), compare_fates);
}

static void gather_sent(struct judge *judge)
{
    const struct history *history = judge->history;

    judge->fates = calloc(history->count + 1, sizeof(*judge->fates));
    if (judge->fates == NULL)
        abort();
    for (size_t i = 0; i < history->count; i++) {
        const struct history_event *event = &history->list[i];

        judge->was_returned = judge->was_returned || event->kind == HISTORY_RETURN;
        if (event->kind == HISTORY_SEND)
            judge->fates[judge->count++] = (struct fate){
                .box = event->box, .sender = event->sender, .number = event->number, .sent = event};
    }
    qsort(judge->fates, judge->count, sizeof(*judge->fates), compare_fates);
}

static bool is_take(const struct history_event *event)
{
    return event->kind == HISTORY_TAKE || event->kind == HISTORY_DRAIN;
}

static const char *gather_taken(struct judge *judge)
{
    const struct history *history = judge->history;

    for (size_t i = 0; i < history->count; i++) {
        const struct history_event *event = &history->list[i];
        struct fate *fate;

        if (!is_take(event) && event->kind != HISTORY_PART)
            continue;
        fate = fate_of(judge, event);
        if (fate == NULL || fate->box != event->box || fate->sent->count != event->count)
            return complain("%u got message %u of %u, of %ld bytes, which was not sent there",
                            event->actor, event->number, event->sender, event->count);
        if (fate->sent->begun_ns > event->done_ns)
            return complain("message %u of %u was seen before it was sent", event->number,
                            event->sender);
        if (event->kind == HISTORY_PART) {
            fate->was_held = true;
            continue;
        }
        fate->takes_count++;
        if (fate->first == NULL || event->done_ns < fate->first->done_ns) {
            fate->second = fate->first;
            fate->first = event;
        } else if (fate->second == NULL || event->done_ns < fate->second->done_ns) {
            fate->second = event;
        }
    }
    return NULL;
}

/* --- Each exactly once ----------------------------------------------------------------------- */

/* Whether somebody had another answer from that mailbox between the take and the kill: so it had been
 * noted. */
static bool was_noted(const struct judge *judge, const struct history_event *take, int64_t kill_ns)
{
    for (size_t i = 0; i < judge->history->count; i++) {
        const struct history_event *event = &judge->history->list[i];
        bool answered = event->kind == HISTORY_TAKE || event->kind == HISTORY_EMPTY ||
                        event->kind == HISTORY_SIZE;

        if (answered && event->box == take->box && event->begun_ns > take->done_ns &&
            event->done_ns < kill_ns)
            return true;
    }
    return false;
}

/*
 * The one that was being handed over when the daemon was killed; and where it was killed right between
 * copying a mailbox and emptying it, and a Go program emptied it before the next mount, what that got:
 * the mailbox does not tell who emptied it (see segment.h).
 */
static bool may_be_twice(const struct judge *judge, const struct fate *fate)
{
    bool drained = fate->first->kind == HISTORY_DRAIN;

    for (size_t i = 0; i < judge->history->count; i++) {
        const struct history_event *kill = &judge->history->list[i];

        if (kill->kind != HISTORY_KILL || kill->begun_ns > fate->second->done_ns)
            continue;
        if (drained && kill->done_ns > fate->sent->begun_ns &&
            kill->begun_ns < fate->first->done_ns)
            return true;
        if (!drained && kill->done_ns > fate->first->begun_ns &&
            !was_noted(judge, fate->first, kill->begun_ns))
            return true;
    }
    return false;
}

static const char *judge_counts(const struct judge *judge)
{
    size_t missing = 0;
    const struct fate *lost = NULL;

    for (size_t i = 0; i < judge->count; i++) {
        const struct fate *fate = &judge->fates[i];

        if (fate->takes_count > 0 && fate->sent->state == HISTORY_FAILED)
            return complain("message %u of %u arrived, though its sender was told that it failed",
                            fate->number, fate->sender);
        if (fate->takes_count > 2 || (fate->takes_count == 2 && !may_be_twice(judge, fate)))
            return complain("message %u of %u was taken %u times: by %u and by %u", fate->number,
                            fate->sender, fate->takes_count, fate->first->actor,
                            fate->second->actor);
        if (fate->takes_count == 0 && fate->sent->state == HISTORY_DONE) {
            missing++;
            lost = fate;
        }
    }
    if (missing > judge->history->swallowed)
        return complain(
            "%zu messages are lost (%zu may have gone with their readers): number %u of "
            "%u is one",
            missing, judge->history->swallowed, lost->number, lost->sender);
    return NULL;
}

/* --- Orders ---------------------------------------------------------------------------------- */

/* A message that was certainly sent, and when it was taken. */
struct stay {
    const struct fate *fate;
    int64_t sent_ns;  /* from then on it was there */
    int64_t taken_ns; /* at least until then; INT64_MIN: it says nothing */
    size_t latest;    /* of this one and all before: which has the latest `taken_ns` */
};

static int compare_stays(const void *left, const void *right)
{
    const struct stay *a = left, *b = right;

    return a->sent_ns < b->sent_ns ? -1 : a->sent_ns > b->sent_ns;
}

/* The stays in a box, by `sent_ns`. To be freed. */
static struct stay *list_stays(const struct judge *judge, unsigned box, size_t *count)
{
    struct stay *stays = calloc(judge->count + 1, sizeof(*stays));

    *count = 0;
    if (stays == NULL)
        abort();
    for (size_t i = 0; i < judge->count; i++) {
        const struct fate *fate = &judge->fates[i];

        if (fate->box != box || fate->sent->state != HISTORY_DONE || fate->was_held ||
            fate->takes_count != 1)
            continue;
        stays[(*count)++] = (struct stay){
            .fate = fate, .sent_ns = fate->sent->done_ns, .taken_ns = fate->first->begun_ns};
    }
    qsort(stays, *count, sizeof(*stays), compare_stays);
    for (size_t i = 1; i < *count; i++) {
        size_t before = stays[i - 1].latest;

        stays[i].latest = stays[before].taken_ns > stays[i].taken_ns ? before : i;
    }
    return stays;
}

/* Of those that had been sent before `from`, the one that was there for longest; NULL: none had. */
static const struct stay *longest(const struct stay *stays, size_t count, int64_t from_ns)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (stays[middle].sent_ns < from_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? NULL : &stays[stays[low - 1].latest];
}

static const char *judge_event(const struct judge *judge, const struct history_event *event,
                               const struct stay *stays, size_t count)
{
    const struct fate *fate = event->kind == HISTORY_TAKE ? fate_of(judge, event) : NULL;
    const struct stay *stay;

    if (event->kind == HISTORY_EMPTY) {
        stay = longest(stays, count, event->begun_ns);
        if (stay != NULL && stay->taken_ns > event->done_ns)
            return complain("%u found mailbox %u empty, in which message %u of %u was",
                            event->actor, event->box, stay->fate->number, stay->fate->sender);
    }
    if (fate != NULL && !fate->was_held && fate->takes_count == 1) {
        stay = longest(stays, count, fate->sent->begun_ns);
        if (stay != NULL && stay->taken_ns > event->done_ns)
            return complain("%u got message %u of %u before number %u of %u, which was sent first",
                            event->actor, fate->number, fate->sender, stay->fate->number,
                            stay->fate->sender);
    }
    return NULL;
}

static const char *judge_size(const struct judge *judge, const struct history_event *event)
{
    long least = 0, most = 0;

    for (size_t i = 0; i < judge->count; i++) {
        const struct fate *fate = &judge->fates[i];
        const struct history_event *last = fate->second != NULL ? fate->second : fate->first;

        if (fate->box != event->box || fate->sent->state == HISTORY_FAILED)
            continue;
        if (fate->sent->begun_ns < event->done_ns &&
            (last == NULL || last->done_ns > event->begun_ns))
            most += fate->sent->count;
        if (fate->sent->state == HISTORY_DONE && fate->sent->done_ns < event->begun_ns &&
            fate->takes_count == 1 && fate->first->begun_ns > event->done_ns)
            least += fate->sent->count;
    }
    if (event->count < least || event->count > most)
        return complain("%u saw %ld bytes, where there were from %ld to %ld", event->actor,
                        event->count, least, most);
    return NULL;
}

static const char *judge_times(const struct judge *judge)
{
    const struct history *history = judge->history;
    const char *wrong = NULL;
    unsigned boxes = 0;

    for (size_t i = 0; i < history->count; i++)
        boxes = history->list[i].box >= boxes ? history->list[i].box + 1 : boxes;
    for (unsigned box = 0; box < boxes && wrong == NULL; box++) {
        size_t count;
        struct stay *stays = list_stays(judge, box, &count);

        for (size_t i = 0; i < history->count && wrong == NULL; i++) {
            if (history->list[i].box == box)
                wrong = judge_event(judge, &history->list[i], stays, count);
            if (wrong == NULL && history->list[i].box == box &&
                history->list[i].kind == HISTORY_SIZE)
                wrong = judge_size(judge, &history->list[i]);
        }
        free(stays);
    }
    return wrong;
}

/* What one reader got of one sender: also within one answer, whose messages have the same times. */
static const char *judge_readers(const struct judge *judge)
{
    const struct history *history = judge->history;
    unsigned senders = judge->count > 0 ? judge->fates[judge->count - 1].sender + 1 : 0;
    const struct history_event **newest = calloc(senders + 1, sizeof(struct history_event *));
    const char *wrong = NULL;

    if (newest == NULL)
        abort();
    for (size_t i = 0; i < history->count && wrong == NULL; i++) {
        const struct history_event *event = &history->list[i];
        const struct fate *fate = is_take(event) ? fate_of(judge, event) : NULL;
        const struct history_event *before;

        if (fate == NULL || fate->was_held || fate->takes_count != 1 ||
            (event->kind == HISTORY_DRAIN && judge->was_returned))
            continue;
        before = newest[event->sender];
        if (before != NULL && before->actor == event->actor && before->box == event->box &&
            before->number > event->number)
            wrong = complain("%u got message %u of %u after number %u", event->actor, event->number,
                             event->sender, before->number);
        newest[event->sender] = event;
    }
    free(newest);
    return wrong;
}

const char *history_judge(const struct history *history)
{
    struct judge judge = {.history = history};
    const char *wrong;

    gather_sent(&judge);
    wrong = gather_taken(&judge);
    if (wrong == NULL)
        wrong = judge_counts(&judge);
    if (wrong == NULL)
        wrong = judge_times(&judge);
    if (wrong == NULL)
        wrong = judge_readers(&judge);
    free(judge.fates);
    return wrong;
}
