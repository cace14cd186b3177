#include "envelope.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

ssize_t envelope_parse(const char *bytes, size_t size_bytes, struct behind_message *message)
{
    const char *end = memchr(bytes, '\n', size_bytes);
    size_t head_bytes = end != NULL ? (size_t)(end - bytes) + 1 : 0;

    if (size_bytes == 0)
        return 0;
    if (end == NULL || sscanf(bytes, "%d %zu", &message->sender, &message->payload_bytes) != 2 ||
        message->payload_bytes > size_bytes - head_bytes)
        return -EBADMSG;
    message->payload = (const uint8_t *)bytes + head_bytes;
    return (ssize_t)(head_bytes + message->payload_bytes);
}
