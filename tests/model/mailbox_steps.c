/* Steps of mailboxes, through the mount and behind it: the part of seen.h that does them. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "behind.h"
#include "seen.h"

enum {
    NAME_BYTES = 16,
};

static int compare_names(const void *left, const void *right)
{
    return strcmp(left, right);
}

const char *mailbox_names(struct performer *performer, struct outcome *outcome)
{
    char names[STEP_BOXES * 2][NAME_BYTES];
    char text[STEP_BOXES * 2 * (NAME_BYTES + 1)] = "";
    DIR *directory = opendir(performer->mount->mnt);
    const struct dirent *entry;
    size_t count = 0;

    if (directory == NULL)
        return "the mount cannot be listed";
    while ((entry = readdir(directory)) != NULL && count < STEP_BOXES * 2) {
        if (entry->d_name[0] != '.')
            snprintf(names[count++], NAME_BYTES, "%.15s", entry->d_name);
    }
    closedir(directory);
    qsort(names, count, sizeof(names[0]), compare_names);
    for (size_t i = 0; i < count; i++) {
        strcat(text, names[i]);
        strcat(text, "\n");
    }
    seen_bytes(&outcome->data, (const uint8_t *)text, strlen(text));
    return NULL;
}

const char *mailbox_stats(struct performer *performer, struct outcome *outcome)
{
    seen_finish(performer);
    outcome->sent = seen_sample(performer, "gprocfs_messages_sent_total");
    outcome->received = seen_sample(performer, "gprocfs_messages_received_total");
    return NULL;
}

const char *mailbox_do(struct performer *performer, const struct step *step,
                       struct outcome *outcome)
{
    const char *path = seen_path(performer, step->of[FIELD_BOX], VIEW_MAILBOX);
    struct stat status = {0};

    switch (step->kind) {
    case STEP_UNLINK:
        seen(outcome, unlink(path));
        break;
    case STEP_TRUNCATE:
        seen(outcome, truncate(path, step->of[FIELD_SIZE]));
        break;
    case STEP_CHMOD:
        seen(outcome, chmod(path, (mode_t)step->of[FIELD_MODE]));
        break;
    case STEP_STAT:
        seen_attributes(outcome, stat(path, &status), &status);
        break;
    case STEP_PEEK:
        seen(outcome,
             seen_file(seen_path(performer, step->of[FIELD_BOX], VIEW_PEEK), &outcome->data));
        break;
    default:
        seen(outcome, seen_file(mount_path(performer->mount, "%s/.list/%d", performer->mount->mnt,
                                           step_box_pid(step->of[FIELD_BOX])),
                                &outcome->data));
        break;
    }
    return NULL;
}

/* --- Behind the mount ------------------------------------------------------------------------ */

static void put(struct performer *performer, long box, const uint8_t *bytes, size_t count,
                struct outcome *outcome)
{
    seen(outcome, behind_append(performer->mount, step_box_pid(box), bytes, count));
    seen_bytes(&outcome->data, bytes, count);
}

/* A frame, or a half of it. */
static void put_frame(struct performer *performer, const struct step *step, long box,
                      struct outcome *outcome, int half)
{
    size_t size = (size_t)step->of[FIELD_SIZE];
    size_t whole = size + BEHIND_HEADER_BYTES;
    uint8_t *frame = malloc(whole);

    if (frame == NULL)
        abort();
    step_payload(frame + BEHIND_HEADER_BYTES, size, (unsigned long)step->of[FIELD_SEED]);
    behind_frame(frame, (int32_t)step->of[FIELD_SENDER], frame + BEHIND_HEADER_BYTES, size);
    put(performer, box, half == 2 ? frame + whole / 2 : frame,
        half == 0   ? whole
        : half == 1 ? whole / 2
                    : whole - whole / 2,
        outcome);
    free(frame);
}

/* No length of anything: zeros would make a frame with whatever small number is before them. */
static void put_damage(struct performer *performer, const struct step *step,
                       struct outcome *outcome)
{
    size_t size = seen_read_size(step);

    memset(performer->buffer, 0xff, size);
    put(performer, step->of[FIELD_BOX], performer->buffer, size, outcome);
}

static void erase(struct performer *performer, long box, struct outcome *outcome)
{
    int lock = behind_lock(performer->mount, step_box_pid(box));

    seen(outcome, unlink(behind_box(performer->mount, step_box_pid(box))));
    if (lock >= 0)
        close(lock);
}

static void drain(struct performer *performer, long box, struct outcome *outcome)
{
    uint8_t *bytes;
    ssize_t got = behind_drain(performer->mount, step_box_pid(box), &bytes);

    outcome->result = got < 0 ? -1 : 0;
    outcome->error = got < 0 ? (int)-got : 0;
    if (got >= 0)
        seen_bytes(&outcome->data, bytes, (size_t)got);
    free(bytes);
}

const char *behind_do(struct performer *performer, const struct step *step, struct outcome *outcome)
{
    long box = step->of[FIELD_BOX];

    switch (step->kind) {
    case STEP_SEND_BEHIND:
        put_frame(performer, step, box, outcome, 0);
        break;
    case STEP_DAMAGE:
        put_damage(performer, step, outcome);
        break;
    case STEP_TEAR:
        performer->torn[box] = *step;
        put_frame(performer, step, box, outcome, 1);
        break;
    case STEP_MEND:
        put_frame(performer, &performer->torn[box], box, outcome, 2);
        break;
    case STEP_DRAIN_BEHIND:
        drain(performer, box, outcome);
        break;
    default:
        erase(performer, box, outcome);
        break;
    }
    return NULL;
}
