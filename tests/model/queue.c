#include "queue.h"

#include <stdlib.h>
#include <string.h>

#include "behind.h"
#include "model.h"

void queue_init(struct queue *queue)
{
    memset(queue, 0, sizeof(*queue));
}

void queue_free_list(struct queue_message *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(list[i].payload);
    free(list);
}

void queue_release(struct queue *queue)
{
    queue_free_list(queue->inflight, queue->inflight_count);
    free(queue->file);
    queue_init(queue);
}

static void *grown(void *memory, size_t count, size_t size_bytes)
{
    memory = reallocarray(memory, count + 1, size_bytes);
    if (memory == NULL)
        abort();
    return memory;
}

void queue_append(struct queue *queue, const void *bytes, size_t size_bytes)
{
    queue->file = grown(queue->file, queue->file_bytes + size_bytes, 1);
    if (size_bytes > 0)
        memcpy(queue->file + queue->file_bytes, bytes, size_bytes);
    queue->file_bytes += size_bytes;
}

void queue_send(struct queue *queue, int32_t sender, const void *payload, size_t payload_bytes)
{
    uint8_t header[QUEUE_HEADER_BYTES];

    behind_frame(header, sender, payload, payload_bytes);
    queue_append(queue, header, sizeof(header));
    queue_append(queue, payload, payload_bytes);
}

uint64_t queue_end(const struct queue *queue)
{
    return queue->file_position + queue->file_bytes;
}

void queue_empty_file(struct queue *queue)
{
    queue->file_position += queue->file_bytes;
    queue->file_bytes = 0;
}

static void add(struct queue_message **list, size_t *count, const struct queue_message *message)
{
    struct queue_message *last;

    *list = grown(*list, *count, sizeof(**list));
    last = &(*list)[(*count)++];
    *last = *message;
    last->payload = grown(NULL, message->payload_bytes, 1);
    if (message->payload_bytes > 0)
        memcpy(last->payload, message->payload, message->payload_bytes);
}

/* Adds what the resync rule finds in the file. */
static void add_file(const struct queue *queue, struct queue_message **list, size_t *count)
{
    struct model found;

    model_init(&found, queue->file, queue->file_bytes, 0);
    for (size_t i = 0; i < found.message_count; i++) {
        const struct gproc_message *message = &found.messages[i];
        const struct queue_message one = {
            .position = queue->file_position + (uint64_t)message->frame_offset,
            .sender = message->sender,
            .payload = queue->file + message->payload_offset,
            .payload_bytes = message->payload_bytes,
        };

        add(list, count, &one);
    }
    model_release(&found);
}

void queue_move(struct queue *queue)
{
    add_file(queue, &queue->inflight, &queue->inflight_count);
    queue_empty_file(queue);
}

static void remove_at(struct queue *queue, size_t which)
{
    free(queue->inflight[which].payload);
    queue->inflight_count--;
    memmove(queue->inflight + which, queue->inflight + which + 1,
            (queue->inflight_count - which) * sizeof(*queue->inflight));
}

void queue_clear_inflight(struct queue *queue)
{
    for (size_t i = queue->inflight_count; i-- > 0;) {
        if (!queue->inflight[i].held)
            remove_at(queue, i);
    }
}

void queue_return(struct queue *queue)
{
    struct queue returned;

    queue_init(&returned);
    returned.file_position = queue->file_position + queue->file_bytes;
    for (size_t i = 0; i < queue->inflight_count; i++)
        queue_send(&returned, queue->inflight[i].sender, queue->inflight[i].payload,
                   queue->inflight[i].payload_bytes);
    queue_append(&returned, queue->file, queue->file_bytes);
    queue_release(queue);
    *queue = returned;
}

void queue_let_go(struct queue *queue)
{
    for (size_t i = 0; i < queue->inflight_count; i++)
        queue->inflight[i].held = false;
}

long queue_first(struct queue *queue, bool empty_too, uint64_t *passed_count)
{
    size_t i = 0;

    while (i < queue->inflight_count) {
        const struct queue_message *message = &queue->inflight[i];

        if (!message->held && (empty_too || message->payload_bytes > 0))
            return (long)i;
        if (message->held) {
            i++;
        } else {
            remove_at(queue, i);
            ++*passed_count;
        }
    }
    return -1;
}

struct queue_message *queue_find(struct queue *queue, uint64_t position)
{
    size_t i = 0;

    while (i < queue->inflight_count && queue->inflight[i].position != position)
        i++;
    return i < queue->inflight_count ? &queue->inflight[i] : NULL;
}

void queue_deliver(struct queue *queue, uint64_t position)
{
    struct queue_message *message = queue_find(queue, position);

    if (message != NULL)
        remove_at(queue, (size_t)(message - queue->inflight));
}

struct queue_message *queue_list(const struct queue *queue, size_t *count)
{
    struct queue_message *list = NULL;

    *count = 0;
    for (size_t i = 0; i < queue->inflight_count; i++)
        add(&list, count, &queue->inflight[i]);
    add_file(queue, &list, count);
    return list;
}

uint64_t queue_payload_bytes(const struct queue *queue)
{
    size_t count;
    struct queue_message *list = queue_list(queue, &count);
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++)
        total += list[i].payload_bytes;
    queue_free_list(list, count);
    return total;
}
