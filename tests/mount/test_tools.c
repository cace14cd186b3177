/* The command lines that people type, with messages of every size, in every shell. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"

enum {
    BOX = 4711,
    KIB = 1024,
    MIB = 1024 * KIB,
    LARGE_BYTES = 5000001, /* what is larger is tried once, and by few where that takes long */
};

static const size_t sizes[] = {0, 1, 8 * KIB + 1, MIB, 5000000, 64 * MIB};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static const char *const shells[] = {"bash", "dash", "zsh"};
enum { SHELLS = sizeof(shells) / sizeof(shells[0]) };

/* With the largest size, whether every row or only the first; under a sanitizer only that. */
static bool is_tried(size_t size_bytes, size_t row, bool every_row)
{
    return size_bytes < LARGE_BYTES || row == 0 || (every_row && !mount_is_sanitized());
}

struct tool {
    const char *command; /* must be in PATH, or the row is skipped */
    const char *line;
};

/* What is sent is in work/in; one message must come of it. */
static const struct tool senders[] = {
    {"cat", "cat in > $M/4711"},
    {"cp", "cp in $M/4711"},
    {"dd", "dd if=in of=$M/4711 bs=64k status=none"},
    {"tee", "tee $M/4711 < in > /dev/null"},
    {"head", "head -c 100000000 in > $M/4711"},
    {"python3", "python3 -c 'import sys; open(sys.argv[1], \"wb\").write(open(\"in\", "
                "\"rb\").read())' $M/4711"},
    {"perl", "perl -e 'local $/; open I, \"<in\"; open O, \">$ARGV[0]\" or die; print O <I>;"
             " close O or die' $M/4711"},
};
enum { SENDERS = sizeof(senders) / sizeof(senders[0]) };

/* What is received must be in work/out. */
static const struct tool receivers[] = {
    {"cat", "cat $M/4711 > out"},
    {"cat", "cat < $M/4711 > out"},
    {"cp", "cp $M/4711 out"},
    {"dd", "dd if=$M/4711 of=out bs=64k status=none"},
    {"tee", "tee out < $M/4711 > /dev/null"},
    {"head", "head -c 100000000 $M/4711 > out"},
    {"python3", "python3 -c 'import sys; open(\"out\", \"wb\").write(open(sys.argv[1], "
                "\"rb\").read())' $M/4711"},
    {"perl", "perl -e 'local $/; open I, \"<$ARGV[0]\" or die; open O, \">out\"; print O <I>;"
             " close O or die' $M/4711"},
};
enum { RECEIVERS = sizeof(receivers) / sizeof(receivers[0]) };

static const uint8_t *write_input(struct mount *mount, size_t size_bytes)
{
    const uint8_t *payload = through_payload(mount, size_bytes, (uint32_t)size_bytes);
    int fd = open(mount_path(mount, "%s/in", mount->work), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                  0666);

    assert_true(fd >= 0);
    assert_int_equal(through_write(fd, payload, size_bytes), 0);
    close(fd);
    return payload;
}

/* That there is one frame with this payload, whoever sent it, or none for an empty one. */
static void expect_one_message(struct mount *mount, const char *line, const uint8_t *payload,
                               size_t payload_bytes)
{
    struct behind_message message;
    uint8_t *bytes;
    ssize_t got = behind_drain(mount, BOX, &bytes);

    if (payload_bytes == 0 && got == -ENOENT)
        return;
    if (got < 0)
        fail_msg("%s: mailbox: %s", line, strerror((int)-got));
    if (payload_bytes == 0 && got != 0)
        fail_msg("%s: nothing was to be sent, and %zd bytes were", line, got);
    if (payload_bytes > 0 && behind_parse(bytes, (size_t)got, &message) != got)
        fail_msg("%s: %zu bytes were to be one message, and %zd bytes on disk are not", line,
                 payload_bytes, got);
    if (payload_bytes > 0 && (message.payload_bytes != payload_bytes ||
                              memcmp(message.payload, payload, payload_bytes) != 0))
        fail_msg("%s: another message than what was sent", line);
    free(bytes);
}

/* Each into a mailbox that does not exist, and into one that does. */
static void every_tool_sends_one_message_of_any_size(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < SIZES; i++) {
        const uint8_t *payload = write_input(mount, sizes[i]);

        for (size_t j = 0; j < SENDERS; j++) {
            if (!process_has(senders[j].command) || !is_tried(sizes[i], j, true))
                continue;
            (void)unlink(behind_box(mount, BOX));
            through_expect_run(mount, "sh", "", "%s", senders[j].line);
            expect_one_message(mount, senders[j].line, payload, sizes[i]);
            if (sizes[i] >= LARGE_BYTES)
                continue;
            through_expect_run(mount, "sh", "", "%s", senders[j].line);
            expect_one_message(mount, senders[j].line, payload, sizes[i]);
        }
    }
}

static void every_tool_receives_a_message_of_any_size(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < SIZES; i++) {
        const uint8_t *payload = write_input(mount, sizes[i]);

        through_expect_run(mount, "sh", "", ": > $M/4711");
        for (size_t j = 0; j < RECEIVERS; j++) {
            if (!process_has(receivers[j].command) || !is_tried(sizes[i], j, true))
                continue;
            if (sizes[i] > 0)
                assert_int_equal(behind_send(mount, BOX, 1, payload, sizes[i]), 0);
            through_expect_size(mount, BOX, (off_t)sizes[i]);
            through_expect_run(mount, "sh", "", "rm -f out; %s && cmp in out", receivers[j].line);
            through_expect_size(mount, BOX, 0);
        }
    }
}

static void every_tool_receives_all_that_waits(void **state)
{
    static const size_t parts[] = {1, 131072, 70000, 1, 8193, 65536};
    struct mount *mount = mount_of(state);
    const uint8_t *payload = write_input(mount, 131072 + 70000 + 8193 + 65536 + 2);

    for (size_t j = 0; j < RECEIVERS; j++) {
        size_t done = 0;

        if (!process_has(receivers[j].command))
            continue;
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            assert_int_equal(behind_send(mount, BOX, 1, payload + done, parts[i]), 0);
            done += parts[i];
        }
        through_expect_run(mount, "sh", "", "rm -f out; %s && cmp in out", receivers[j].line);
        through_expect_size(mount, BOX, 0);
    }
}

/* How many messages depends on how the tool writes; what comes out does not. */
static void appending_tools_lose_nothing(void **state)
{
    static const struct tool tools[] = {
        {"tee", "tee -a $M/4711 < in > /dev/null"},
        {"cat", "cat in >> $M/4711"},
        {"cat", "cat in 1<> $M/4711"},
        {"dd", "dd if=in of=$M/4711 oflag=append conv=notrunc bs=64k status=none"},
        {"python3", "python3 -c 'import sys; open(sys.argv[1], \"ab\").write(open(\"in\", \"rb\")"
                    ".read())' $M/4711"},
        {"perl", "perl -e 'local $/; open I, \"<in\"; open O, \">>$ARGV[0]\" or die;"
                 " print O <I>; close O or die' $M/4711"},
    };
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < SIZES; i++) {
        (void)write_input(mount, sizes[i]);
        for (size_t j = 0; j < sizeof(tools) / sizeof(tools[0]); j++) {
            if (!process_has(tools[j].command) || !is_tried(sizes[i], j, false))
                continue;
            through_expect_run(mount, "sh", "", ": > $M/4711");
            through_expect_run(mount, "sh", "", "%s", tools[j].line);
            through_expect_size(mount, BOX, (off_t)sizes[i]);
            through_expect_run(mount, "sh", "", "cat $M/4711 | cmp in -");
            through_expect_size(mount, BOX, 0);
        }
    }
}

static void echo_and_cat_talk_in_every_shell(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t j = 0; j < SHELLS; j++) {
        if (!process_has(shells[j])) {
            print_message("%s is not here\n", shells[j]);
            continue;
        }
        through_expect_run(mount, shells[j], "data\n", "echo data > $M/4711; cat $M/4711");
        through_expect_run(mount, shells[j], "", "cat $M/4711");
        through_expect_run(mount, shells[j], "one\ntwo\nthree\n",
                           "echo one >> $M/4711; echo two >> $M/4711; echo three > $M/4711\n"
                           "cat $M/4711");
        through_expect_run(mount, shells[j], "a b\n",
                           "printf 'a ' > $M/4711; printf 'b\\n' > $M/4711; cat < $M/4711");
        through_expect_run(mount, shells[j], "grouped is one\n",
                           "{ printf 'grouped '; printf 'is one\\n'; } > $M/4711\n"
                           "head -n1 $M/4711");
        through_expect_run(mount, shells[j], "", "cat $M/4711");
        /* Not one of the commands that ran left its mailbox or itself in a bad state. */
        through_expect_run(mount, shells[j], "0\n",
                           "echo x > $M/4711; echo $?; cat $M/4711 > /dev/null");
    }
}

static void every_shell_sends_and_receives_any_size(void **state)
{
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < SIZES; i++) {
        const uint8_t *payload = write_input(mount, sizes[i]);

        for (size_t j = 0; j < SHELLS; j++) {
            if (!process_has(shells[j]) || !is_tried(sizes[i], j, false))
                continue;
            through_expect_run(mount, shells[j], "",
                               ": > $M/4711; cat in > $M/4711 && cat $M/4711 > out && cmp in out");
            through_expect_run(mount, shells[j], "", "cat in > $M/4711");
            expect_one_message(mount, shells[j], payload, sizes[i]);
        }
    }
}

static void copy_of_what_waits_can_be_sent_on(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "one ");
    behind_expect_sent(mount, BOX, 1, "two");
    through_expect_run(mount, "sh", "one two", "cat $M/4711 > $M/4712; cat $M/4712");
    behind_expect_bytes(mount, BOX, NULL, 0);
}

/*
 * sendfile reads through the page cache, whatever the daemon says, and stops at the size that the
 * kernel knows. However much of the queue it gets, the rest must still be there for others.
 */
static void sendfile_takes_whole_messages_and_loses_nothing(void **state)
{
    static const char line[] =
        "python3 -c 'import shutil, sys; shutil.copyfile(sys.argv[1], \"out\")'"
        " $M/4711 &&"
        " cat $M/4711 >> out && cmp in out";
    static const size_t parts[][3] = {{5, 0, 0}, {5, 7, 9}, {8193, 1, 4096}, {5000000, 1, 70000}};
    struct mount *mount = mount_of(state);

    if (!process_has("python3"))
        skip();
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const uint8_t *payload = write_input(mount, parts[i][0] + parts[i][1] + parts[i][2]);

        for (size_t j = 0; j < 3 && parts[i][j] > 0; j++) {
            assert_int_equal(behind_send(mount, BOX, 1, payload, parts[i][j]), 0);
            payload += parts[i][j];
        }
        through_expect_run(mount, "sh", "", "%s", line);
        through_expect_size(mount, BOX, 0);
    }
}

static void process_is_sent_to_and_answers(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "reload\n",
                       "sh -c 'echo ready; while ! read -r m < $M/$$; do :; done 2>/dev/null;"
                       " echo \"$m\"' > out & p=$!\n"
                       "while ! grep -q ready out; do :; done 2>/dev/null\n"
                       "echo reload > $M/$p; wait $p; tail -n1 out");
}

/* --- Those that look -------------------------------------------------------------------------- */

static void send_two(struct mount *mount)
{
    behind_expect_sent(mount, BOX, 1, "one\n");
    through_send(mount, BOX, "two\n");
}

static void busybox_receives_looks_and_follows(void **state)
{
    static const char tail[] = "rm -f out; busybox tail -n +1 -s 1 -f $M/.peek/4711 > out & t=$!\n"
                               "until grep -q two out 2> /dev/null; do :; done\n"
                               "echo three > $M/4711; until grep -q three out; do :; done\n"
                               "kill $t; wait $t; cat out";
    struct mount *mount = mount_of(state);

    through_need("busybox");
    send_two(mount);
    through_expect_run(mount, "sh", "one\ntwo\n", "busybox cat $M/.peek/4711");
    through_expect_run(mount, "sh", "two\n", "busybox tail -n 1 $M/.peek/4711");
    through_expect_run(mount, "sh", "one\ntwo\n",
                       "busybox cp $M/.peek/4711 copy && busybox cat copy");
    through_expect_run(mount, "sh", "one\ntwo\nthree\n", "%s", tail);
    behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", NULL);
    /* It uses sendfile(2), with which the kernel does not ask for all at once. */
    through_expect_run(mount, "sh", "one\ntwo\nthree\n",
                       "while [ -s $M/4711 ]; do busybox cat $M/4711; done");
    through_expect_run(mount, "sh", "four\n",
                       "busybox echo four > $M/4711; busybox head -n 1 $M/.follow/4711");
    through_expect_size(mount, BOX, 0);
}

static void rsync_of_what_is_looked_at_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("rsync");
    send_two(mount);
    behind_expect_sent(mount, BOX + 1, 1, "other\n");
    for (int i = 0; i < 2; i++) {
        through_expect_run(mount, "sh", "one\ntwo\nother\n",
                           "rsync -a $M/.peek/ copy/ && cat copy/4711 copy/4712");
        through_expect_run(mount, "sh", "2\n", "ls copy | wc -l");
    }
    through_expect_run(mount, "sh", "", "rsync -ac --itemize-changes $M/.peek/ copy/");
    behind_expect_texts(mount, BOX, "one\n", "two\n", NULL);
    behind_expect_texts(mount, BOX + 1, "other\n", NULL);
}

int main(void)
{
    static const struct mount_options large = {.seconds = 30};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(echo_and_cat_talk_in_every_shell),
        MOUNT_TEST_WITH(every_tool_sends_one_message_of_any_size, &large),
        MOUNT_TEST_WITH(every_tool_receives_a_message_of_any_size, &large),
        MOUNT_TEST(every_tool_receives_all_that_waits),
        MOUNT_TEST_WITH(appending_tools_lose_nothing, &large),
        MOUNT_TEST_WITH(every_shell_sends_and_receives_any_size, &large),
        MOUNT_TEST(copy_of_what_waits_can_be_sent_on),
        MOUNT_TEST(sendfile_takes_whole_messages_and_loses_nothing),
        MOUNT_TEST(process_is_sent_to_and_answers),
        MOUNT_TEST(busybox_receives_looks_and_follows),
        MOUNT_TEST(rsync_of_what_is_looked_at_takes_nothing),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("tools", tests, NULL, NULL) == 0 ? 0 : 1;
}
