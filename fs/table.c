#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    PREVIEW_WIDTH = 40, /* what the other columns leave of 80 */
    ESCAPE_BYTES = 5,   /* "\xHH" and a zero */
};

static const char cut_mark[] = "...";

/* How a byte is shown: its length. */
static size_t escape(char text[ESCAPE_BYTES], uint8_t byte)
{
    static const char named[] = "\\\nn\rr\tt"; /* a byte and what stands for it */
    size_t i;

    if (byte == '\\' || byte == '\0')
        return (size_t)snprintf(text, ESCAPE_BYTES, "\\%c", byte == '\\' ? '\\' : '0');
    for (i = 1; i + 1 < sizeof(named); i += 2) {
        if (byte == (uint8_t)named[i])
            return (size_t)snprintf(text, ESCAPE_BYTES, "\\%c", named[i + 1]);
    }
    return (size_t)snprintf(text, ESCAPE_BYTES, byte >= ' ' && byte <= '~' ? "%c" : "\\x%02x",
                            byte);
}

/* The beginning of a payload, as much as fits; an escape is shown whole or not at all. */
static void preview(char text[PREVIEW_WIDTH + 1], const uint8_t *payload, size_t payload_bytes)
{
    size_t used = 0;
    size_t whole = 0; /* how much of it leaves room for the mark */
    size_t i;

    for (i = 0; i < payload_bytes; i++) {
        char shown[ESCAPE_BYTES];
        size_t length = escape(shown, payload[i]);

        if (used + length > PREVIEW_WIDTH) {
            memcpy(text + whole, cut_mark, sizeof(cut_mark));
            return;
        }
        memcpy(text + used, shown, length);
        used += length;
        if (used + sizeof(cut_mark) - 1 <= PREVIEW_WIDTH)
            whole = used;
    }
    text[used] = '\0';
}

static size_t row(char line[TABLE_LINE_BYTES], const char *number, const char *sender,
                  const char *size, const char *checksum, const char *rest)
{
    int length = snprintf(line, TABLE_LINE_BYTES, "%7s %11s %10s %8s %s", number, sender, size,
                          checksum, rest);

    while (line[length - 1] == ' ') /* of an empty preview; there are numbers before it */
        length--;
    line[length++] = '\n'; /* there is room: no column has more than 32 bytes, the last 50 */
    line[length] = '\0';
    return (size_t)length;
}

size_t table_head(char line[TABLE_LINE_BYTES])
{
    return row(line, "NUMBER", "SENDER", "BYTES", "CHECKSUM", "PREVIEW");
}

size_t table_message(char line[TABLE_LINE_BYTES], uint64_t number,
                     const struct gproc_message *message, const uint8_t *payload)
{
    char shown_number[32], sender[16], size[32], checksum[16];
    char shown[PREVIEW_WIDTH + 1];
    size_t known = message->payload_bytes;

    if (known > TABLE_PREVIEW_BYTES)
        known = TABLE_PREVIEW_BYTES;
    preview(shown, payload, known);
    /* Cut where the payload is longer than all that we were given. */
    if (message->payload_bytes > known && strlen(shown) == PREVIEW_WIDTH)
        memcpy(shown + PREVIEW_WIDTH - (sizeof(cut_mark) - 1), cut_mark, sizeof(cut_mark));
    (void)snprintf(shown_number, sizeof(shown_number), "%" PRIu64, number); /* all of these fit */
    (void)snprintf(sender, sizeof(sender), "%" PRId32, message->sender);
    (void)snprintf(size, sizeof(size), "%zu", message->payload_bytes);
    (void)snprintf(checksum, sizeof(checksum), "%08" PRIx32, message->checksum);
    return row(line, shown_number, sender, size, checksum, shown);
}

size_t table_damage(char line[TABLE_LINE_BYTES], bool in_flight, off_t offset, off_t size_bytes)
{
    char size[32], text[96];

    (void)snprintf(size, sizeof(size), "%jd", (intmax_t)size_bytes);
    (void)snprintf(text, sizeof(text), "damaged at offset %jd%s", (intmax_t)offset,
                   in_flight ? " in flight" : "");
    return row(line, "-", "-", size, "-", text);
}
