/*
 * A picture shows messages as they were sent, or not at all, whatever others do to the mailbox while it
 * is taken: right before each call of the daemon's that reads from the mailbox somebody else, who heeds
 * no lock, changes the payload, the frame, the owner or the whole file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "inside.h"
#include "stage.h"

enum {
    PIECE_BYTES = 40000,
    LONG_BYTES = 40000, /* more than one call copies */
    SHORT_BYTES = 20,   /* all of it is seen in a list */
    /* What has been changed in its place is another mailbox: all of it is shown once more. */
    ROOM_BYTES = 6 * LONG_BYTES,
    SENDER = 17,
};

/* What somebody else does, at the n-th call. */
struct meddler {
    const struct stage *stage;
    void (*act)(const struct stage *stage, size_t text_bytes);
    size_t text_bytes; /* of each message */
    unsigned seen;
    unsigned at;
};

/* One message for each letter. */
static void put_messages(const struct stage *stage, const char *letters, size_t text_bytes)
{
    static uint8_t text[LONG_BYTES], frame[TEMPORARY_HEADER_BYTES + LONG_BYTES];

    for (; *letters != '\0'; letters++) {
        memset(text, *letters, text_bytes);
        temporary_append(stage->box, frame, temporary_frame(frame, SENDER, text, text_bytes));
    }
}

static void write_byte(const struct stage *stage, off_t offset, uint8_t byte)
{
    int fd = open(stage->box, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    (void)close(fd);
}

/* Another text, with a checksum that is not its own. */
static void change_payload(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    write_byte(stage, TEMPORARY_HEADER_BYTES, 'X');
}

static void change_end_of_payload(const struct stage *stage, size_t text_bytes)
{
    write_byte(stage, TEMPORARY_HEADER_BYTES + (off_t)text_bytes - 1, 'X');
}

/* No checksum is of that: it is as good as the one before. */
static void change_sender(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    write_byte(stage, 4, SENDER + 1);
}

static void change_checksum(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    write_byte(stage, 8, 0xff);
}

static void empty(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    assert_int_equal(truncate(stage->box, 0), 0);
}

static void cut(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    assert_int_equal(truncate(stage->box, TEMPORARY_HEADER_BYTES + 5), 0);
}

/* All has been received, and as much has come. */
static void replace(const struct stage *stage, size_t text_bytes)
{
    empty(stage, text_bytes);
    put_messages(stage, "cab", text_bytes);
}

static void forbid(const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    assert_int_equal(chmod(stage->box, 0), 0);
}

static void delete (const struct stage *stage, size_t text_bytes)
{
    (void)text_bytes;
    if (temporary_exists(stage->box))
        assert_int_equal(unlink(stage->box), 0);
}

static int meddle(void *context, const char *name)
{
    struct meddler *meddler = context;

    if (strcmp(name, "pread") != 0 && strcmp(name, "openat") != 0 && strcmp(name, "fstat") != 0)
        return FAULT_NONE;
    if (meddler->seen++ == meddler->at)
        meddler->act(meddler->stage, meddler->text_bytes);
    return FAULT_NONE;
}

/* ---- What is there, and what of it is shown */

/* Whether it is one whole message after the other, of those that were put there. */
static void expect_whole_messages(const uint8_t *shown, size_t size_bytes, size_t text_bytes)
{
    assert_int_equal(size_bytes % text_bytes, 0);
    for (size_t i = 0; i < size_bytes; i++) {
        assert_in_range(shown[i], 'a', 'c');
        assert_int_equal(shown[i], shown[i / text_bytes * text_bytes]);
    }
}

static void expect_true_line(const char *line, int number, size_t text_bytes)
{
    const char *preview = strrchr(line, ' ') + 1;
    int said_number, sender, bytes;
    unsigned checksum;

    assert_int_equal(sscanf(line, "%d %d %d %x", &said_number, &sender, &bytes, &checksum), 4);
    assert_int_equal(said_number, number);
    assert_in_range(sender, SENDER, SENDER + 1);
    assert_int_equal(bytes, text_bytes);
    assert_in_range(preview[0], 'a', 'c');
    assert_int_equal(checksum, (size_t)preview[0] * text_bytes);
    assert_true(strspn(preview, (char[]){preview[0], '\0'}) >= SHORT_BYTES);
}

/* Every line but the head is of a message as it was sent, or tells of damage. */
static void expect_true_lines(const char *shown, size_t size_bytes, size_t text_bytes)
{
    const char *line = shown;
    int number = 0;

    assert_true(size_bytes == 0 || shown[size_bytes - 1] == '\n');
    while (line < shown + size_bytes) {
        const char *end = memchr(line, '\n', (size_t)(shown + size_bytes - line));
        char said[100];

        (void)snprintf(said, sizeof(said), "%.*s", (int)(end - line), line);
        if (line > shown && strstr(said, "damaged") == NULL)
            expect_true_line(said, ++number, text_bytes);
        line = end + 1;
    }
}

static size_t look(struct inside *inside, const char *view, uint8_t *shown, int *result)
{
    uint64_t directory, node, handle;
    size_t got = 0, all = 0;

    *result = inside_look_up(inside, INSIDE_ROOT, view, &directory);
    if (*result == 0)
        *result = inside_look_up(inside, directory, "4711", &node);
    if (*result == 0)
        *result = inside_open(inside, node, O_RDONLY, &handle);
    if (*result < 0)
        return 0;
    do {
        const void *bytes;

        *result = inside_read(inside, node, handle, PIECE_BYTES, (off_t)all);
        bytes = inside_bytes(inside, &got);
        if (*result == 0) {
            if (got > ROOM_BYTES - all)
                fail_msg("there is no end of it");
            memcpy(shown + all, bytes, got);
            all += got;
        }
    } while (*result == 0 && got > 0);
    if (*result == 0) {
        struct stat attributes;

        *result = inside_get_attributes(inside, node, &attributes);
    }
    (void)inside_release(inside, node, handle);
    return all;
}

/* Meddles at each call, in turn. How many calls there are. */
static unsigned look_while(void **state, const char *view, size_t text_bytes,
                           void (*act)(const struct stage *stage, size_t text_bytes))
{
    static uint8_t shown[ROOM_BYTES];
    struct meddler meddler = {.act = act, .text_bytes = text_bytes};
    bool more = true;

    while (more) {
        struct stage stage;
        struct inside *inside;
        size_t size_bytes;
        int result;

        stage_init(&stage, *state);
        stage_set(&stage);
        put_messages(&stage, "abc", text_bytes);
        inside = inside_mount(stage.parent, NULL);
        meddler.stage = &stage;
        meddler.seen = 0;
        fault_start(meddle, &meddler);
        size_bytes = look(inside, view, shown, &result);
        fault_stop();
        /* It may be gone by then, or closed to who looks. */
        if (result < 0 && result != -ENOENT && result != -ESTALE && result != -EACCES)
            fail_msg("call %u: %d", meddler.at, result);
        if (strcmp(view, ".peek") == 0)
            expect_whole_messages(shown, size_bytes, text_bytes);
        else
            expect_true_lines((const char *)shown, size_bytes, text_bytes);
        inside_unmount(inside);
        stage_clear(&stage);
        more = meddler.seen > meddler.at++;
    }
    return meddler.at;
}

static const struct {
    void (*act)(const struct stage *stage, size_t text_bytes);
    bool breaks_a_promise; /* what is written stays as it is */
} acts[] = {
    {change_payload, true}, {change_end_of_payload, true},
    {change_sender, false}, {change_checksum, false},
    {empty, false},         {replace, false},
    {cut, false},           {forbid, false},
    {delete, false},
};

static void look_while_each(void **state, const char *view)
{
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        /* A list sees no more of a long one than its beginning, and its frame. */
        if (strcmp(view, ".peek") == 0 || !acts[i].breaks_a_promise)
            assert_true(look_while(state, view, LONG_BYTES, acts[i].act) > 3);
        assert_true(look_while(state, view, SHORT_BYTES, acts[i].act) > 3);
    }
}

static void test_peek_shows_whole_messages_whatever_others_do(void **state)
{
    look_while_each(state, ".peek");
}

static void test_list_shows_what_was_sent_whatever_others_do(void **state)
{
    look_while_each(state, ".list");
}

/* ---- One picture for two */

static void test_who_opens_the_same_node_sees_the_same_picture(void **state)
{
    static uint8_t shown[PIECE_BYTES];
    uint64_t directory, node, handles[2];
    struct inside *inside;
    struct stage stage;
    size_t size_bytes;

    stage_init(&stage, *state);
    stage_set(&stage);
    stage_put(&stage, "first");
    inside = inside_mount(stage.parent, NULL);
    assert_int_equal(inside_look_up(inside, INSIDE_ROOT, ".peek", &directory), 0);
    assert_int_equal(inside_look_up(inside, directory, "4711", &node), 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(inside_open(inside, node, O_RDONLY, &handles[i]), 0);
    assert_int_equal(inside_read(inside, node, handles[0], PIECE_BYTES, 0), 0);
    temporary_write(stage.box, NULL, 0); /* what it has shown it goes on to show */
    assert_int_equal(inside_release(inside, node, handles[0]), 0);
    assert_int_equal(inside_read(inside, node, handles[1], PIECE_BYTES, 0), 0);
    memcpy(shown, inside_bytes(inside, &size_bytes), 5);
    assert_int_equal(size_bytes, 5);
    assert_memory_equal(shown, "first", 5);
    assert_int_equal(inside_release(inside, node, handles[1]), 0);
    inside_unmount(inside);
    stage_clear(&stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_peek_shows_whole_messages_whatever_others_do),
        TEMPORARY_TEST(test_list_shows_what_was_sent_whatever_others_do),
        TEMPORARY_TEST(test_who_opens_the_same_node_sees_the_same_picture),
    };

    return cmocka_run_group_tests_name("picture, faults", tests, NULL, NULL);
}
