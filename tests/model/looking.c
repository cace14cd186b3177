#include "state.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_BYTES = 16,
    PREVIEW_BYTES = 8, /* the rest is for the unit tests of the table */
};

/* Shows what has come since. */
void looking_look(struct expected *expected, struct opened *opened)
{
    const struct mailbox_state *box = &expected->boxes[opened->box];
    struct shown *shown = &opened->shown;
    size_t count;
    struct queue_message *list = queue_list(&box->queue, &count);

    shown->has_looked = true;
    for (size_t i = 0; i < count && box->exists; i++) {
        if (list[i].position < shown->next_position)
            continue;
        shown->bytes = realloc(shown->bytes, shown->count + list[i].payload_bytes + 1);
        if (shown->bytes == NULL)
            abort();
        memcpy(shown->bytes + shown->count, list[i].payload, list[i].payload_bytes);
        shown->count += list[i].payload_bytes;
        shown->next_position = list[i].position + 1;
    }
    queue_free_list(list, count);
}

const char *looking_read(struct expected *expected, struct opened *opened, long size, long offset,
                         const struct outcome *outcome)
{
    struct shown *shown = &opened->shown;
    size_t part;

    if (size == 0)
        return state_returned(outcome, 0);
    if (!shown->has_looked || offset + size > (long)shown->count)
        looking_look(expected, opened);
    part = offset >= (long)shown->count ? 0 : shown->count - (size_t)offset;
    if (part > (size_t)size)
        part = (size_t)size;
    if (outcome->result != (long)part)
        return state_returned(outcome, (long)part);
    if (part > 0 && memcmp(shown->bytes + offset, outcome->data.bytes, part) != 0)
        return state_complain("shows \"%.40s\" instead of \"%.40s\"",
                              (const char *)outcome->data.bytes,
                              (const char *)shown->bytes + offset);
    return NULL;
}

const char *looking_peek(const struct expected *expected, long box, const struct outcome *outcome)
{
    const struct mailbox_state *state = &expected->boxes[box];
    size_t count, used = 0;
    struct queue_message *list;
    const char *wrong = NULL;

    if (!state->exists)
        return state_failed(outcome, ENOENT);
    if (outcome->result < 0)
        return state_returned(outcome, 0);
    list = queue_list(&state->queue, &count);
    for (size_t i = 0; i < count && wrong == NULL; i++) {
        size_t size = list[i].payload_bytes;

        if (size > outcome->data.count - used ||
            memcmp(outcome->data.bytes + used, list[i].payload, size) != 0)
            wrong = state_complain("message %zu of %zu is not shown", i + 1, count);
        else
            used += size;
    }
    if (wrong == NULL && used != outcome->data.count)
        wrong = state_complain("%zu bytes more than wait are shown", outcome->data.count - used);
    queue_free_list(list, count);
    return wrong;
}

static uint32_t sum(const struct queue_message *message)
{
    uint32_t total = 0;

    for (size_t i = 0; i < message->payload_bytes; i++)
        total += message->payload[i];
    return total;
}

/* Whether the line is that of the message; damage has no number. */
static bool is_line_of(const char *line, size_t number, const struct queue_message *message)
{
    char begun[96];
    int length = snprintf(begun, sizeof(begun), "%7zu %11d %10zu %08x", number, message->sender,
                          message->payload_bytes, sum(message));
    size_t preview = 0;

    while (preview < PREVIEW_BYTES && preview < message->payload_bytes &&
           isprint(message->payload[preview]))
        preview++;
    if (strncmp(line, begun, (size_t)length) != 0)
        return false;
    line += length;
    if (message->payload_bytes == 0)
        return *line == '\0';
    return *line == ' ' && strncmp(line + 1, (const char *)message->payload, preview) == 0;
}

const char *looking_list(struct expected *expected, long box, const struct outcome_bytes *list)
{
    const struct mailbox_state *state = &expected->boxes[box];
    size_t count, number = 0;
    struct queue_message *messages;
    const char *wrong = NULL;
    char *text, *rest;
    const char *line;

    if (list->there != state->exists)
        return state_complain("mailbox %d is %s", step_box_pid(box),
                              list->there ? "there" : "not there");
    if (!list->there)
        return NULL;
    messages = queue_list(&state->queue, &count);
    text = strndup((const char *)list->bytes, list->count);
    rest = text;
    line = strsep(&rest, "\n"); /* the head */
    if (line == NULL || rest == NULL)
        wrong = "a list without a head";
    while (wrong == NULL && (line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        if (line[strspn(line, " ")] == '-')
            continue;
        if (number == count)
            wrong = state_complain("listed, though nobody sent it: %.100s", line);
        else if (!is_line_of(line, number + 1, &messages[number]))
            wrong = state_complain(
                "listed where message %zu of %zu is from %d, of %zu bytes: %.100s", number + 1,
                count, messages[number].sender, messages[number].payload_bytes, line);
        number++;
    }
    if (wrong == NULL && number != count)
        wrong = state_complain("%zu messages are listed of %zu", number, count);
    free(text);
    queue_free_list(messages, count);
    return wrong;
}

const char *looking_names(const struct expected *expected, const struct outcome *outcome)
{
    char names[STEP_BOXES * NAME_BYTES] = "";

    for (long i = 0; i < STEP_BOXES; i++) {
        char name[NAME_BYTES];

        snprintf(name, sizeof(name), "%d\n", step_box_pid(i));
        if (expected->boxes[i].exists)
            strcat(names, name);
    }
    if (strcmp(names, (const char *)outcome->data.bytes) != 0)
        return state_complain("names \"%s\" instead of \"%s\"", (const char *)outcome->data.bytes,
                              names);
    return NULL;
}
