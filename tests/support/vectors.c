#include "vectors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file as it is being read. */
struct reader {
    char path[4096];
    FILE *file;
    char *line; /* owned, by getline() */
    size_t line_capacity;
    size_t line_number;
};

__attribute__((noreturn, format(printf, 2, 3))) static void die(const struct reader *reader,
                                                                const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "%s:%zu: ", reader->path, reader->line_number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* An array with room for one more element; doubles at powers of two. */
static void *array_grow(const struct reader *reader, void *array, size_t count,
                        size_t element_bytes)
{
    if ((count & (count - 1)) != 0) {
        return array;
    }

    void *grown = reallocarray(array, count == 0 ? 1 : 2 * count, element_bytes);
    if (grown == NULL) {
        die(reader, "out of memory");
    }
    return grown;
}

static unsigned digit_value(const struct reader *reader, char digit)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);

    if (found == NULL) {
        die(reader, "'%c' is no digit of a hexadecimal number", digit);
    }
    return (unsigned)(found - digits);
}

/* The bytes that `hex` spells, exactly `*size_bytes` of them, even if that is none; to be freed. */
static uint8_t *hex_decode(const struct reader *reader, const char *hex, size_t *size_bytes)
{
    const size_t digits = strlen(hex);

    if (digits % 2 != 0) {
        die(reader, "half a byte");
    }

    uint8_t *bytes = malloc(digits / 2);
    if (bytes == NULL && digits > 0) {
        die(reader, "out of memory");
    }
    for (size_t i = 0; i < digits / 2; i++) {
        bytes[i] =
            (uint8_t)(digit_value(reader, hex[2 * i]) << 4 | digit_value(reader, hex[2 * i + 1]));
    }
    *size_bytes = digits / 2;
    return bytes;
}

/* Reads a line without its newline. False at the end of the file. */
static bool line_read(struct reader *reader)
{
    const ssize_t length = getline(&reader->line, &reader->line_capacity, reader->file);

    if (length < 0) {
        return false;
    }
    reader->line_number++;
    if (length > 0 && reader->line[length - 1] == '\n') {
        reader->line[length - 1] = '\0';
    }
    return true;
}

/* What follows `word` and a blank in the line, or NULL if it begins otherwise. */
static const char *line_after(const struct reader *reader, const char *word)
{
    const size_t length = strlen(word);

    if (strncmp(reader->line, word, length) != 0 || reader->line[length] != ' ') {
        return NULL;
    }
    return reader->line + length + 1;
}

static void message_read(struct reader *reader, const char *text, struct vector *vector)
{
    char *end;
    const long sender = strtol(text, &end, 10);

    if (end == text || *end != ' ') {
        die(reader, "no sender");
    }
    vector->messages =
        array_grow(reader, vector->messages, vector->message_count, sizeof(*vector->messages));

    struct vector_message *message = &vector->messages[vector->message_count++];
    message->sender = (int32_t)sender;
    message->payload = hex_decode(reader, end + 1, &message->payload_bytes);
}

/* Reads the lines of a case up to its "end". */
static void vector_read(struct reader *reader, struct vector *vector)
{
    while (line_read(reader)) {
        const char *text;

        if (strcmp(reader->line, "end") == 0) {
            return;
        }
        if ((text = line_after(reader, "mailbox")) != NULL && vector->mailbox == NULL) {
            vector->mailbox = hex_decode(reader, text, &vector->mailbox_bytes);
        } else if ((text = line_after(reader, "message")) != NULL) {
            message_read(reader, text, vector);
        } else {
            die(reader, "neither message nor end");
        }
    }
    die(reader, "case without end");
}

void vectors_init(struct vectors *vectors, const char *name)
{
    const char *directory = getenv("GPROC_TEST_DATA");
    struct reader reader = {0};

    snprintf(reader.path, sizeof(reader.path), "%s/%s",
             directory != NULL ? directory : "tests/data", name);
    reader.file = fopen(reader.path, "re");
    if (reader.file == NULL) {
        die(&reader, "cannot be opened: set GPROC_TEST_DATA");
    }

    *vectors = (struct vectors){0};
    while (line_read(&reader)) {
        struct vector vector = {0};
        char verdict[32];

        if (sscanf(reader.line, "case %d %31s", &vector.number, verdict) != 2) {
            die(&reader, "no case");
        }
        vector.reference_agrees = strcmp(verdict, "reference-agrees") == 0;
        vector_read(&reader, &vector);

        vectors->vectors =
            array_grow(&reader, vectors->vectors, vectors->count, sizeof(*vectors->vectors));
        vectors->vectors[vectors->count++] = vector;
    }
    free(reader.line);
    fclose(reader.file);
}

void vectors_release(struct vectors *vectors)
{
    for (size_t i = 0; i < vectors->count; i++) {
        struct vector *vector = &vectors->vectors[i];

        for (size_t j = 0; j < vector->message_count; j++) {
            free(vector->messages[j].payload);
        }
        free(vector->messages);
        free(vector->mailbox);
    }
    free(vectors->vectors);
    *vectors = (struct vectors){0};
}
