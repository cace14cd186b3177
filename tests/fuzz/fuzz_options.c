/*
 * The command line: whatever the words are, nothing is run without a mountpoint, or with a number
 * out of its range, and nothing is left behind.
 *
 * The input is the words, each ended by a newline, those behind the program's name. An empty input
 * is a call without even that.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

enum {
    INPUT_MAX_BYTES = 4096,
    WORDS_MAX = 64,
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "run, but %s\n", what);
    abort();
}

/* Splits `text`, which ends with a zero, in place. How many words. */
static int split(char *text, char *words[WORDS_MAX + 1])
{
    int count = 0;

    while (*text != '\0' && count < WORDS_MAX) {
        char *end = strchr(text, '\n');

        words[count++] = text;
        if (end == NULL)
            break;
        *end = '\0';
        text = end + 1;
    }
    words[count] = NULL;
    return count;
}

/* What a text says, as whoever reads it does: zeros in front count for nothing. */
static bool says(const char *text, unsigned long long value)
{
    char digits[32];

    while (*text == '0' && text[1] != '\0')
        text++;
    (void)snprintf(digits, sizeof(digits), "%llu", value);
    return strcmp(digits, text) == 0;
}

static bool has_name(const char *path)
{
    return path[0] != '\0';
}

static void check_run(const struct options *options)
{
    const unsigned long long timeout_s = options->lock_timeout_s;
    const unsigned long long most_bytes = options->message_most_bytes;

    require(options->mountpoint != NULL && has_name(options->mountpoint), "there is no mountpoint");
    require(options->mailbox_directory == NULL || has_name(options->mailbox_directory),
            "the mailbox directory is nameless");
    require(options->mailbox_directory == NULL || strcmp(options->mailbox_directory, "none") != 0,
            "none is no directory");
    require(options->lock_directory == NULL || has_name(options->lock_directory),
            "the lock directory is nameless");
    require(timeout_s <= UINT32_MAX, "the time-out is out of range");
    require(options->lock_timeout_text == NULL ? timeout_s == 5
                                               : says(options->lock_timeout_text, timeout_s),
            "it is another time-out");
    require(most_bytes >= 1 && most_bytes <= 2147483635, "the limit is out of range");
    require(options->message_most_text == NULL ? most_bytes == 67108864
                                               : says(options->message_most_text, most_bytes),
            "it is another limit");
    require(options->fuse.argc >= 1 && strcmp(options->fuse.argv[0], "gprocfs") == 0,
            "libfuse gets no name");
    require(options->fuse.argv[options->fuse.argc] == NULL, "libfuse's words have no end");
    require(!options->show_help && !options->show_version, "something was to be shown");
}

/* As options_parse(), with what it says thrown away. */
static enum options_result parse_silently(struct options *options, int argc, char *argv[])
{
    static FILE *nowhere;
    FILE *const out = stdout;
    FILE *const err = stderr;
    enum options_result result;

    if (nowhere == NULL && (nowhere = fopen("/dev/null", "we")) == NULL)
        abort();
    stdout = nowhere;
    stderr = nowhere;
    result = options_parse(options, argc, argv);
    stdout = out;
    stderr = err;
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    char text[INPUT_MAX_BYTES + 1] = "";
    char program[] = "gprocfs";
    char *words[WORDS_MAX + 2] = {program};
    struct options options;
    int argc = input_bytes > 0;

    if (input_bytes > INPUT_MAX_BYTES)
        return 0;
    if (input_bytes > 0) {
        memcpy(text, input, input_bytes);
        argc += split(text, words + 1);
    }
    words[argc] = NULL;
    if (parse_silently(&options, argc, words) == OPTIONS_RUN)
        check_run(&options);
    options_release(&options);
    return 0;
}
