#include "lookout.h"

#include <unistd.h>

#include "bell.h"
#include "gprocfs.h"
#include "log.h"
#include "poller.h"

enum {
    POLL_INTERVAL_MS = 100, /* of mailboxes that cannot be watched */
};

void lookout_attend(struct lookout *lookout, struct box *box, bool tell)
{
    bool add;

    (void)box_again(box);
    (void)pthread_mutex_lock(&lookout->mutex);
    box->to_tell = box->to_tell || tell;
    add = !box->attended;
    if (add) {
        box->attended = true;
        box->next_attended = lookout->attended;
        lookout->attended = box;
    }
    (void)pthread_mutex_unlock(&lookout->mutex);
    if (add)
        bell_ring(lookout->bell);
    else
        box_put(box);
}

/* Has those that wait for mail look again. */
static void give_news(struct lookout *lookout, struct box *box)
{
    pollers_tell(box);
    (void)box_again(box);
    if (crew_give(&lookout->fs->crew, box, box_take_up) < 0) {
        /* Out of threads or memory. It will be attended again, and find the watch in place. */
        lookout_attend(lookout, box, false);
        box_put(box);
    }
}

/* Says whether its mail is watched; false where somebody waits after all, and it must stay so. */
static bool set_watched(struct box *box, bool watched)
{
    bool needed;

    (void)pthread_mutex_lock(&box->mutex);
    needed = box_needs_watch(box);
    if (watched || !needed)
        box->mail_is_watched = watched;
    (void)pthread_mutex_unlock(&box->mutex);
    return watched || !needed;
}

static void start_to_watch(struct lookout *lookout, struct box *box)
{
    int result = gproc_watch_add(&lookout->mail, box->pid);

    (void)set_watched(box, true);
    if (result < 0) {
        log_mailbox(box->pid, "cannot be watched, and is looked at ten times a second", result);
        box->next_polled = lookout->polled;
        lookout->polled = box_again(box);
    } else {
        (void)box_again(box); /* the watch's */
    }
    give_news(lookout, box); /* what came before the watch was there */
}

static void stop_to_watch(struct lookout *lookout, struct box *box)
{
    struct box **link = &lookout->polled;

    if (!set_watched(box, false))
        return;
    while (*link != NULL && *link != box)
        link = &(*link)->next_polled;
    if (*link != NULL)
        *link = box->next_polled;
    else
        gproc_watch_remove(&lookout->mail, box->pid);
    box_put(box);
}

static bool is_watched(struct box *box)
{
    bool watched;

    (void)pthread_mutex_lock(&box->mutex);
    watched = box->mail_is_watched;
    (void)pthread_mutex_unlock(&box->mutex);
    return watched;
}

static void attend(struct lookout *lookout, struct box *box, bool tell)
{
    bool needed = box_is_followed(box);
    bool watched = is_watched(box);

    if (tell)
        pollers_tell(box);
    if (needed && !watched)
        start_to_watch(lookout, box);
    else if (!needed && watched)
        stop_to_watch(lookout, box);
    else if (needed && !tell)
        give_news(lookout, box);
}

static void attend_all(struct lookout *lookout, struct box *list)
{
    while (list != NULL) {
        struct box *box = list;
        bool tell;

        list = box->next_attended;
        (void)pthread_mutex_lock(&lookout->mutex);
        box->attended = false;
        tell = box->to_tell;
        box->to_tell = false;
        (void)pthread_mutex_unlock(&lookout->mutex);
        attend(lookout, box, tell);
        box_put(box);
    }
}

/* A mailbox's file has changed. */
static void on_change(void *context, pid_t pid)
{
    struct lookout *lookout = context;
    struct box *box = box_find(lookout->fs, pid);

    if (box == NULL)
        return; /* it is not watched any more */
    if (box_is_followed(box))
        give_news(lookout, box);
    else
        stop_to_watch(lookout, box);
    box_put(box);
}

/* Mailboxes of which a change may have gone unseen, as there were too many watches. */
static void look_at_unsure(struct lookout *lookout)
{
    int result = gproc_watch_read(&lookout->mail, on_change, lookout);
    size_t i;

    for (i = lookout->mail.entries_count; i-- > 0;) {
        if (i < lookout->mail.entries_count) /* each may take itself out */
            on_change(lookout, lookout->mail.entries[i].pid);
    }
    lookout->is_unsure = result < 0;
}

static void look_for_mail(struct lookout *lookout)
{
    struct box *box, *next;

    if (lookout->is_unsure)
        look_at_unsure(lookout);

    for (box = lookout->polled; box != NULL; box = next) {
        next = box->next_polled;
        on_change(lookout, box->pid);
    }
}

/* As long as somebody is to be looked at without an event: when, by the clock. */
static void look_at_what_is_due(struct lookout *lookout, int64_t *mail_ns)
{
    if (*mail_ns >= 0 && bell_now_ns() >= *mail_ns)
        look_for_mail(lookout);
    if (lookout->polled == NULL && !lookout->is_unsure)
        *mail_ns = -1;
    else if (*mail_ns < 0 || bell_now_ns() >= *mail_ns)
        *mail_ns = bell_now_ns() + POLL_INTERVAL_MS * BELL_NS_PER_MS;
}

static void *look_out(void *context)
{
    struct lookout *lookout = context;
    int64_t mail_ns = -1;
    bool stopping;

    do {
        struct box *attended;
        int64_t crew_ns = -1;

        (void)pthread_mutex_lock(&lookout->mutex);
        attended = lookout->attended;
        lookout->attended = NULL;
        stopping = lookout->stopping;
        (void)pthread_mutex_unlock(&lookout->mutex);

        attend_all(lookout, attended);
        look_at_what_is_due(lookout, &mail_ns);
        if (crew_help(&lookout->fs->crew))
            crew_ns = bell_now_ns() + CREW_PATIENCE_MS * BELL_NS_PER_MS;
        if (!stopping &&
            bell_sleep(lookout->bell, lookout->mail.fd, bell_sooner_ns(mail_ns, crew_ns)))
            lookout->is_unsure = gproc_watch_read(&lookout->mail, on_change, lookout) < 0;
    } while (!stopping);
    return NULL;
}

int lookout_init(struct lookout *lookout, struct gprocfs *fs)
{
    int result;

    lookout->fs = fs;
    lookout->stopping = false;
    lookout->attended = NULL;
    lookout->polled = NULL;
    lookout->is_unsure = false;
    lookout->bell = bell_new();
    if (lookout->bell < 0)
        return lookout->bell;
    (void)pthread_mutex_init(&lookout->mutex, NULL); /* without attributes it cannot fail */
    result = gproc_watch_init(&lookout->mail, &fs->mailboxes);
    if (result < 0)
        lookout_release(lookout);
    return result;
}

int lookout_start(struct lookout *lookout, struct gprocfs *fs)
{
    int result = lookout_init(lookout, fs);

    if (result < 0)
        return result;
    result = -pthread_create(&lookout->thread, NULL, look_out, lookout);
    if (result < 0)
        lookout_release(lookout);
    return result;
}

void lookout_stop(struct lookout *lookout)
{
    (void)pthread_mutex_lock(&lookout->mutex);
    lookout->stopping = true;
    (void)pthread_mutex_unlock(&lookout->mutex);
    bell_ring(lookout->bell);
    (void)pthread_join(lookout->thread, NULL);
}

void lookout_release(struct lookout *lookout)
{
    struct box *box;

    while ((box = lookout->attended) != NULL) {
        lookout->attended = box->next_attended;
        box_put(box);
    }
    gproc_watch_release(&lookout->mail); /* the boxes it watched go with all others */
    (void)pthread_mutex_destroy(&lookout->mutex);
    (void)close(lookout->bell);
    lookout->bell = -1; /* what becomes of boxes from now on wakes nobody */
}
