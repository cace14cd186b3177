#include "model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    HEADER_BYTES = 12,
};

static uint32_t field(const uint8_t *bytes)
{
    uint32_t value = 0;

    for (int i = 3; i >= 0; i--) {
        value = value * 256 + bytes[i];
    }
    return value;
}

static uint32_t sum(const uint8_t *bytes, size_t count)
{
    uint32_t total = 0;

    for (size_t i = 0; i < count; i++) {
        total += bytes[i];
    }
    return total;
}

static void message_add(struct model *model, const struct gproc_message *message)
{
    struct gproc_message *grown =
        reallocarray(model->messages, model->message_count + 1, sizeof(*grown));
    if (grown == NULL) {
        abort();
    }
    model->messages = grown;
    model->messages[model->message_count++] = *message;
}

void model_init(struct model *model, const uint8_t *data, size_t size_bytes, size_t position)
{
    *model = (struct model){.unresolved = -1};

    while (position < size_bytes) {
        const uint8_t *at = data + position;
        const size_t left = size_bytes - position;
        /* A negative length is one beyond 2^31 here, and told apart below. */
        const uint32_t length = left >= HEADER_BYTES ? field(at) : 0;
        const int negative = length > INT32_MAX;

        if (length >= HEADER_BYTES && length <= left && !negative &&
            field(at + 8) == sum(at + HEADER_BYTES, length - HEADER_BYTES)) {
            message_add(model, &(struct gproc_message){
                                   .frame_offset = (off_t)position,
                                   .payload_offset = (off_t)position + HEADER_BYTES,
                                   .payload_bytes = length - HEADER_BYTES,
                                   .sender = (int32_t)field(at + 4),
                                   .checksum = field(at + 8),
                               });
            position += length;
            continue;
        }
        if (model->unresolved < 0 && (left < HEADER_BYTES || (length > left && !negative))) {
            model->unresolved = (off_t)position;
        }
        model->damaged_bytes++;
        position++;
    }
}

void model_release(struct model *model)
{
    free(model->messages);
    *model = (struct model){0};
}

__attribute__((format(printf, 1, 2))) static const char *difference(const char *format, ...)
{
    static char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return text;
}

static const char *message_differs(const struct gproc_message *want,
                                   const struct gproc_message *found)
{
    if (want->frame_offset == found->frame_offset &&
        want->payload_offset == found->payload_offset &&
        want->payload_bytes == found->payload_bytes && want->sender == found->sender &&
        want->checksum == found->checksum) {
        return NULL;
    }
    return difference("at %jd a message of %zu bytes from %" PRId32
                      ", not at %jd one of %zu from %" PRId32,
                      (intmax_t)want->frame_offset, want->payload_bytes, want->sender,
                      (intmax_t)found->frame_offset, found->payload_bytes, found->sender);
}

const char *model_differs(const struct model *model, struct gproc_scan *scan)
{
    for (size_t i = 0; i <= model->message_count; i++) {
        struct gproc_message message;
        const int status = gproc_scan_next(scan, &message);

        if (status != (i < model->message_count)) {
            return difference("next says %d after %zu messages of %zu, at %jd", status, i,
                              model->message_count, (intmax_t)scan->position);
        }
        if (status == 1) {
            const char *text = message_differs(&model->messages[i], &message);
            if (text != NULL) {
                return text;
            }
        }
    }
    if (scan->position != scan->source.size_bytes) {
        return difference("position %jd at the end", (intmax_t)scan->position);
    }
    if (scan->unresolved != model->unresolved) {
        return difference("unresolved %jd, not %jd", (intmax_t)model->unresolved,
                          (intmax_t)scan->unresolved);
    }
    if (scan->damaged_bytes != model->damaged_bytes) {
        return difference("%jd bytes damaged, not %jd", (intmax_t)model->damaged_bytes,
                          (intmax_t)scan->damaged_bytes);
    }
    return NULL;
}
