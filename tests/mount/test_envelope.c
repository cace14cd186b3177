/* `.envelope`: receiving with the sender, as many whole messages as fit into each read. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    CHILD_MS = 15000, /* the usual is at once */
};

static const char envelope[] = ".envelope";

static void make_box(struct mount *mount, int pid)
{
    assert_int_equal(behind_append(mount, pid, NULL, 0), 0);
}

/* Open so that a read does not wait. */
static int open_envelope(struct mount *mount)
{
    return through_open_view(mount, envelope, BOX, THROUGH_RECEIVE | O_NONBLOCK);
}

static void expect_nothing_more(int fd)
{
    char buffer[64];

    assert_errno((int)read(fd, buffer, sizeof(buffer)), EAGAIN);
}

/* One read(2) of at most `size_bytes` must return exactly this text. */
static void expect_small_read(int fd, size_t size_bytes, const char *text)
{
    char buffer[256];
    ssize_t got;

    assert_true(size_bytes < sizeof(buffer));
    got = read(fd, buffer, size_bytes);
    if (got < 0)
        fail_msg("read for \"%s\": %s", text, strerror(errno));
    buffer[got] = '\0';
    assert_string_equal(buffer, text);
}

/* What is read in pieces of at most `piece_bytes` must be these bytes, and then there is nothing.
 */
static void expect_pieces(int fd, size_t piece_bytes, const char *bytes, size_t size_bytes)
{
    char *piece = malloc(piece_bytes);
    size_t done = 0;
    bool equal = piece != NULL;
    ssize_t got = 0;

    errno = 0;
    while (equal && (got = read(fd, piece, piece_bytes)) > 0) {
        equal = done + (size_t)got <= size_bytes && memcmp(piece, bytes + done, (size_t)got) == 0;
        done += (size_t)got;
    }
    free(piece);
    if (!equal || done != size_bytes || got != -1 || errno != EAGAIN)
        fail_msg("in pieces of %zu bytes: %s, ends with %zd after %zu of %zu: %s", piece_bytes,
                 equal ? "equal" : "other bytes", got, done, size_bytes, strerror(errno));
}

/* --- The format ------------------------------------------------------------------------------ */

static void each_message_has_its_sender_and_its_length(void **state)
{
    static const int32_t senders[] = {7, 0, -1, INT32_MAX, INT32_MIN, 4711};
    struct mount *mount = mount_of(state);
    int fd;

    for (size_t i = 0; i < sizeof(senders) / sizeof(senders[0]); i++)
        behind_expect_sent(mount, BOX, senders[i], i == 1 ? "two\nlines\n" : "text");
    fd = open_envelope(mount);
    through_expect_read(fd, "7 4\ntext"
                            "0 10\ntwo\nlines\n"
                            "-1 4\ntext"
                            "2147483647 4\ntext"
                            "-2147483648 4\ntext"
                            "4711 4\ntext");
    expect_nothing_more(fd);
    assert_success(close(fd));
    behind_expect_bytes(mount, BOX, NULL, 0);
}

static void sender_is_the_process_that_wrote(void **state)
{
    struct mount *mount = mount_of(state);

    make_box(mount, BOX);
    through_expect_run(mount, "bash", "yes yes\n",
                       "echo hello > $M/4711; echo more >> $M/4711\n"
                       "{ read -r a n; read -r hello; read -r b m; read -r more; } <\\\n"
                       "    $M/.envelope/4711\n"
                       "[ \"$a $n $hello\" = \"$$ 6 hello\" ] && printf 'yes '\n"
                       "[ \"$b $m $more\" = \"$$ 5 more\" ] && echo yes");
}

static void empty_message_is_shown(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 5, "");
    behind_expect_sent(mount, BOX, 6, "six");
    behind_expect_sent(mount, BOX, 7, "");
    fd = open_envelope(mount);
    through_expect_read(fd, "5 0\n6 3\nsix7 0\n");
    expect_nothing_more(fd);
    behind_expect_sent(mount, BOX, 8, "");
    through_expect_read(fd, "8 0\n");
    expect_nothing_more(fd);
    assert_success(close(fd));
}

static void payload_of_any_bytes_comes_out_as_it_was(void **state)
{
    static const size_t sizes[] = {1, 500, 5000, 65535, 65536, 1000000};
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint8_t *payload = through_payload(mount, sizes[i], (uint32_t)i + 1);
        char *expected = mount_keep(mount, malloc(sizes[i] + 64));
        int head = snprintf(expected, 64, "%zu %zu\n", i, sizes[i]);
        int fd;

        memcpy(expected + head, payload, sizes[i]);
        for (size_t piece = 1000; piece <= 1000000; piece *= 10) {
            assert_int_equal(behind_send(mount, BOX, (int32_t)i, payload, sizes[i]), 0);
            fd = open_envelope(mount);
            expect_pieces(fd, piece, expected, (size_t)head + sizes[i]);
            assert_success(close(fd));
        }
    }
}

static void damage_between_messages_is_passed_over(void **state)
{
    static const uint8_t torn[] = {200, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 'x', 'y', 'z'};
    struct mount *mount = mount_of(state);
    int fd;

    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, torn, 5), 0);
    behind_expect_sent(mount, BOX, 2, "two");
    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    fd = open_envelope(mount);
    through_expect_read(fd, "1 3\none2 3\ntwo");
    expect_nothing_more(fd);
    assert_int_equal(behind_append(mount, BOX, torn, sizeof(torn)), 0);
    expect_nothing_more(fd);
    behind_expect_sent(mount, BOX, 3, "three");
    through_expect_read(fd, "3 5\nthree");
    assert_success(close(fd));
}

/* --- How much a read takes ------------------------------------------------------------------- */

/* Messages of 15 bytes each, envelope and all: "1 10\n" and ten letters. */
static void send_fifteens(struct mount *mount, int count)
{
    char text[] = "aaaaaaaaaa";

    for (int i = 0; i < count; i++) {
        memset(text, 'a' + i, 10);
        behind_expect_sent(mount, BOX, 1, text);
    }
}

static void read_takes_as_many_whole_messages_as_fit(void **state)
{
    static const char all[] = "1 10\naaaaaaaaaa1 10\nbbbbbbbbbb1 10\ncccccccccc1 10\ndddddddddd"
                              "1 10\neeeeeeeeee1 10\nffffffffff";
    struct mount *mount = mount_of(state);

    for (size_t size_bytes = 15; size_bytes <= 91; size_bytes++) {
        size_t at_once = size_bytes / 15 < 6 ? size_bytes / 15 : 6;
        int fd;

        send_fifteens(mount, 6);
        fd = open_envelope(mount);
        for (size_t done = 0; done < 6; done += at_once) {
            size_t left = 6 - done < at_once ? 6 - done : at_once;
            char expected[sizeof(all)];

            snprintf(expected, sizeof(expected), "%.*s", (int)left * 15, all + done * 15);
            expect_small_read(fd, size_bytes, expected);
            through_expect_size(mount, BOX, (off_t)(6 - done - left) * 10);
        }
        expect_nothing_more(fd);
        assert_success(close(fd));
    }
}

static void message_that_does_not_fit_waits_for_the_next_read(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, BOX, 2, "a longer text that does not fit behind it");
    behind_expect_sent(mount, BOX, 3, "3");
    fd = open_envelope(mount);
    expect_small_read(fd, 48, "1 3\none");
    expect_small_read(fd, 46, "2 41\na longer text that does not fit behind it");
    expect_small_read(fd, 48, "3 1\n3");
    expect_nothing_more(fd);
    assert_success(close(fd));
}

static void message_larger_than_the_buffer_comes_in_parts(void **state)
{
    static const char all[] = "1 3\none-1 26\nabcdefghijklmnopqrstuvwxyz"
                              "0 0\n2147483647 12\n\n\nnewlines\n\n3 5\nthree";
    struct mount *mount = mount_of(state);

    /* Down to single bytes: then the lines of the envelopes come in parts too. */
    for (size_t piece_bytes = sizeof(all); piece_bytes > 0; piece_bytes--) {
        int fd;

        behind_expect_sent(mount, BOX, 1, "one");
        behind_expect_sent(mount, BOX, -1, "abcdefghijklmnopqrstuvwxyz");
        behind_expect_sent(mount, BOX, 0, "");
        behind_expect_sent(mount, BOX, INT32_MAX, "\n\nnewlines\n\n");
        behind_expect_sent(mount, BOX, 3, "three");
        fd = open_envelope(mount);
        expect_pieces(fd, piece_bytes, all, strlen(all));
        assert_success(close(fd));
        behind_expect_bytes(mount, BOX, NULL, 0);
    }
}

static void message_begun_goes_back_whole(void **state)
{
    static const char first[] = "12 5\nhello";
    struct mount *mount = mount_of(state);
    char buffer[64];

    behind_expect_sent(mount, BOX, 12, "hello");
    behind_expect_sent(mount, BOX, 13, "");
    behind_expect_sent(mount, BOX, 14, "world");
    /* In the midst of the line, at its end, in the midst of the payload. */
    for (size_t part_bytes = 1; part_bytes < strlen(first); part_bytes++) {
        int fd = open_envelope(mount);

        for (size_t i = 0; i < part_bytes; i++)
            assert_int_equal(read(fd, buffer, 1), 1);
        assert_success(close(fd));
        through_await_open(mount, 0);
        through_expect_size(mount, BOX, 5 + 5);
    }
    through_expect_run(mount, "sh", "12 5\nhello13 0\n14 5\nworld",
                       "dd if=$M/.envelope/4711 bs=4096 count=1 status=none");
}

static void message_begun_is_the_next_for_others_when_it_is_given_back(void **state)
{
    struct mount *mount = mount_of(state);
    int first;
    int second;

    send_fifteens(mount, 3);
    first = open_envelope(mount);
    second = open_envelope(mount);
    expect_small_read(first, 7, "1 10\naa");
    expect_small_read(second, 15, "1 10\nbbbbbbbbbb");
    assert_success(close(first));
    through_await_open(mount, 1);
    expect_small_read(second, 64, "1 10\naaaaaaaaaa1 10\ncccccccccc");
    expect_nothing_more(second);
    assert_success(close(second));
}

/* --- Waiting --------------------------------------------------------------------------------- */

static void reader_waits_for_the_next_message(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiter;
    char expected[64];

    make_box(mount, BOX);
    for (int i = 0; i < 10; i++) {
        waiter = through_start_reader(mount, envelope, BOX);
        through_await_parked(mount, "message", 1);
        behind_expect_sent(mount, BOX, 77, "hello");
        through_expect_answer(&waiter, "77 5\nhello");

        waiter = through_start_reader(mount, envelope, BOX);
        through_await_parked(mount, "message", 1);
        through_send(mount, BOX, "hello");
        snprintf(expected, sizeof(expected), "%d 5\nhello", (int)getpid());
        through_expect_answer(&waiter, expected);
    }
}

static void empty_message_ends_the_wait(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiter;

    make_box(mount, BOX);
    waiter = through_start_reader(mount, envelope, BOX);
    through_await_parked(mount, "message", 1);
    behind_expect_sent(mount, BOX, 5, "");
    through_expect_answer(&waiter, "5 0\n");
}

static void signal_ends_the_wait_and_loses_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter waiter;
    int fd;

    make_box(mount, BOX);
    waiter = through_start_reader(mount, envelope, BOX);
    through_await_parked(mount, "message", 1);
    assert_success(kill(waiter.pid, SIGUSR1));
    assert_int_equal(through_expect_failure(&waiter), EINTR);
    waiter = through_start_reader(mount, envelope, BOX);
    through_await_parked(mount, "message", 1);
    through_kill_ms(&waiter);
    behind_expect_sent(mount, BOX, 5, "later");
    fd = open_envelope(mount);
    through_expect_read(fd, "5 5\nlater");
    assert_success(close(fd));
}

static void it_is_like_a_pipe_and_for_reading_only(void **state)
{
    struct mount *mount = mount_of(state);
    char buffer[64];
    int fd;

    assert_errno(open(view_path(mount, envelope, BOX), O_RDONLY), ENOENT);
    behind_expect_sent(mount, BOX, 1, "one");
    fd = open_envelope(mount);
    assert_errno((int)lseek(fd, 0, SEEK_SET), ESPIPE);
    assert_errno((int)pread(fd, buffer, sizeof(buffer), 0), ESPIPE);
    assert_errno(open(view_path(mount, envelope, BOX), O_RDWR), EACCES);
    assert_errno(open(view_path(mount, envelope, BOX), O_WRONLY), EACCES);
    assert_errno(open(view_path(mount, envelope, BOX), O_WRONLY | O_CREAT | O_TRUNC, 0666), EACCES);
    through_expect_read(fd, "1 3\none");
    expect_nothing_more(fd);
    assert_success(close(fd));
    through_expect_run(mount, "sh", "4711\n", "ls $M/.envelope");
}

/* --- Many ------------------------------------------------------------------------------------ */

enum {
    NUMBERED_BYTES = 64, /* of a payload: a number and blanks */
};

/* Appends that many messages at once; their senders are numbered too. */
static void send_numbered(struct mount *mount, int count)
{
    const size_t frame_bytes = BEHIND_HEADER_BYTES + NUMBERED_BYTES;
    uint8_t *frames = malloc((size_t)count * frame_bytes);
    char payload[NUMBERED_BYTES + 1];
    int result;

    assert_non_null(frames);
    for (int i = 0; i < count; i++) {
        uint8_t *frame = frames + (size_t)i * frame_bytes;

        snprintf(payload, sizeof(payload), "%-64d", i);
        behind_frame(frame, i, payload, NUMBERED_BYTES);
        memcpy(frame + BEHIND_HEADER_BYTES, payload, NUMBERED_BYTES);
    }
    result = behind_append(mount, BOX, frames, (size_t)count * frame_bytes);
    free(frames);
    assert_int_equal(result, 0);
}

/* The number of the message at `bytes`, and how long it is; -1: that is none. */
static int parse_numbered(const char *bytes, size_t size_bytes, size_t *message_bytes)
{
    char expected[32 + NUMBERED_BYTES];
    int sender = 0;
    int length;

    for (size_t i = 0; i < size_bytes && bytes[i] >= '0' && bytes[i] <= '9' && i < 8; i++)
        sender = sender * 10 + bytes[i] - '0';
    length = snprintf(expected, sizeof(expected), "%d 64\n%-64d", sender, sender);
    *message_bytes = (size_t)length;
    if (size_bytes < (size_t)length || memcmp(bytes, expected, (size_t)length) != 0)
        return -1;
    return sender;
}

static void hundred_thousand_messages_come_complete_and_in_order(void **state)
{
    enum { MESSAGES = 100000, BUFFER_BYTES = 1 << 16 };
    struct mount *mount = mount_of(state);
    int count = MESSAGES / (int)(mount_scale() < 1000 ? mount_scale() : 1000);
    char *buffer = mount_keep(mount, malloc(BUFFER_BYTES));
    int64_t begin_ms;
    int reads = 0;
    int next = 0;
    ssize_t got;
    int fd;

    send_numbered(mount, count);
    fd = open_envelope(mount);
    begin_ms = process_clock_ms();
    errno = 0;
    while ((got = read(fd, buffer, BUFFER_BYTES)) > 0) {
        size_t message_bytes;

        for (size_t done = 0; done < (size_t)got; done += message_bytes, next++) {
            int number = parse_numbered(buffer + done, (size_t)got - done, &message_bytes);

            if (number != next)
                fail_msg("read %d: message %d instead of %d", reads, number, next);
        }
        reads++;
    }
    assert_int_equal(errno, EAGAIN);
    print_message("%d messages by %d reads in %lld ms\n", count, reads,
                  (long long)(process_clock_ms() - begin_ms));
    assert_int_equal(next, count);
    /* All that fit, and no fewer: 76 bytes at most for each. */
    assert_true(reads <= count / (BUFFER_BYTES / 76) + 1);
    assert_success(close(fd));
    behind_expect_bytes(mount, BOX, NULL, 0);
}

/* Logs the number of each message in a pipe; -1: something that is none. Goes on until it is
 * killed. */
static void log_numbered(const char *path, int log)
{
    char buffer[4096];
    ssize_t got;
    int fd = open(path, THROUGH_RECEIVE);

    while (fd >= 0 && (got = read(fd, buffer, sizeof(buffer))) > 0) {
        size_t message_bytes;

        for (size_t done = 0; done < (size_t)got; done += message_bytes) {
            int number = parse_numbered(buffer + done, (size_t)got - done, &message_bytes);

            if (write(log, &number, sizeof(number)) != sizeof(number) || number < 0)
                _exit(1);
        }
    }
    _exit(2);
}

static void two_readers_share_the_messages(void **state)
{
    enum { READERS = 2, MESSAGES = 10000, BATCHES = 10 };
    struct mount *mount = mount_of(state);
    int each = MESSAGES / BATCHES / (int)(mount_scale() < 100 ? mount_scale() : 100);
    unsigned char *seen = mount_keep(mount, calloc((size_t)each, 1));
    const char *path = mount_keep(mount, strdup(view_path(mount, envelope, BOX)));
    pid_t readers[READERS];
    int log[2];

    make_box(mount, BOX);
    assert_success(pipe2(log, O_CLOEXEC));
    for (int i = 0; i < READERS; i++) {
        readers[i] = process_fork(0);
        if (readers[i] == 0)
            log_numbered(path, log[1]);
    }
    for (int batch = 0; batch < BATCHES; batch++) {
        send_numbered(mount, each);
        memset(seen, 0, (size_t)each);
        for (int i = 0; i < each; i++) {
            struct pollfd logged = {.fd = log[0], .events = POLLIN};
            int number;

            assert_int_equal(poll(&logged, 1, CHILD_MS), 1);
            assert_int_equal(read(log[0], &number, sizeof(number)), sizeof(number));
            assert_in_range(number, 0, each - 1);
            assert_int_equal(seen[number], 0);
            seen[number] = 1;
        }
    }
    through_await_parked(mount, "message", READERS);
    for (int i = 0; i < READERS; i++) {
        assert_success(kill(readers[i], SIGKILL));
        assert_int_equal(process_wait(readers[i], CHILD_MS), 128 + SIGKILL);
    }
    close(log[0]);
    close(log[1]);
}

/* --- A server in a shell ---------------------------------------------------------------------- */

/* Each reads a line `SENDER LENGTH` and then LENGTH bytes, and answers the sender. */
static const struct {
    const char *shell;
    const char *script;
} servers[] = {
    {"bash", ": >> \"$M/$$\"\n"
             "while read -r sender length; do\n"
             "    question=$(head -c \"$length\" | tr -d '\\0')\n"
             "    [ \"$question\" != stop ] || break\n"
             "    echo \"answer to $question\" > \"$M/$sender\"\n"
             "done < \"$M/.envelope/$$\"\n"
             "rm \"$M/$$\"\n"},
    {"dash", ": >> \"$M/$$\"\n"
             "while read -r sender length; do\n"
             "    question=$(head -c \"$length\")\n"
             "    [ \"$question\" != stop ] || break\n"
             "    echo \"answer to $question\" > \"$M/$sender\"\n"
             "done < \"$M/.envelope/$$\"\n"
             "rm \"$M/$$\"\n"},
    {"dash", ": >> \"$M/$$\"\n"
             "while read -r sender length; do\n"
             "    question=$(dd bs=1 count=\"$length\" 2> /dev/null)\n"
             "    [ \"$question\" != stop ] || break\n"
             "    echo \"answer to $question\" > \"$M/$sender\"\n"
             "done < \"$M/.envelope/$$\"\n"
             "rm \"$M/$$\"\n"},
    {"zsh", ": >> \"$M/$$\"\n"
            "while read -r sender length; do\n"
            "    LC_ALL=C IFS= read -r -u 0 -k \"$length\" question\n"
            "    [ \"$question\" != stop ] || break\n"
            "    echo \"answer to $question\" > \"$M/$sender\"\n"
            "done < \"$M/.envelope/$$\"\n"
            "rm \"$M/$$\"\n"},
};

static void put_script(struct mount *mount, const char *name, const char *script)
{
    FILE *file = fopen(mount_path(mount, "%s/%s", mount->work, name), "we");

    assert_non_null(file);
    assert_true(fputs(script, file) >= 0);
    assert_success(fclose(file));
}

/* `caller SERVER TEXT` has a mailbox of its own for the answer. */
static const char caller[] = ": >> \"$M/$$\"\n"
                             "printf %s \"$2\" > \"$M/$1\"\n"
                             "read -r answer < \"$M/.follow/$$\"\n"
                             "echo \"$answer\"\n"
                             "rm \"$M/$$\"\n";

static void server_in_a_shell_answers_whoever_asks(void **state)
{
    struct mount *mount = mount_of(state);

    put_script(mount, "caller", caller);
    for (size_t i = 0; i < sizeof(servers) / sizeof(servers[0]); i++) {
        if (!process_has(servers[i].shell) || !process_has("bash"))
            continue;
        put_script(mount, "server", servers[i].script);
        through_expect_run(mount, "sh",
                           "answer to one\n"
                           "answer to  two,  with blanks\n"
                           "answer to three\n"
                           "answer to a\nanswer to b\nanswer to c\n",
                           "%s server & server=$!\n"
                           "bash caller $server one\n"
                           "bash caller $server ' two,  with blanks'\n"
                           "bash caller $server three\n"
                           "bash caller $server a > a & a=$!\n"
                           "bash caller $server b > b & b=$!\n"
                           "bash caller $server c > c & c=$!\n"
                           "wait $a $b $c\n"
                           "cat a b c\n"
                           "printf stop > $M/$server\n"
                           "wait $server\n"
                           "ls $M",
                           servers[i].shell);
    }
}

/* The server of the README, which notes in a file what it is asked. */
static const char readme_server[] = "cd \"$1\" && : >> 100\n"
                                    "exec 3< .envelope/100\n"
                                    "while read -r sender length <&3; do\n"
                                    "    question=$(head -c \"$length\" <&3 | tr -d '\\0')\n"
                                    "    case $question in\n"
                                    "    quit) break ;;\n"
                                    "    *) echo \"$sender: $question\" >> \"$2\" ;;\n"
                                    "    esac\n"
                                    "done\n";

/* Whoever puts zeros into a payload, or what looks like the head of a message, speaks for himself
 * alone: he can neither hide what follows nor send in another's name. */
static void payload_with_zeros_does_not_lead_a_shell_s_server_astray(void **state)
{
    static const char zeros[] = "a\0b\0\0\0c\0";
    static const char crafted[] = "1 4\nquit"
                                  "1 5\nforge";
    static const char mixed[] = "\0\0\0\0"
                                "1 4\nquit\0\n1 4\nquit";
    static const char only_zeros[8] = {0};
    struct mount *mount = mount_of(state);

    put_script(mount, "server", readme_server);
    assert_int_equal(behind_send(mount, 100, 66, zeros, sizeof(zeros) - 1), 0);
    assert_int_equal(behind_send(mount, 100, 67, crafted, sizeof(crafted) - 1), 0);
    assert_int_equal(behind_send(mount, 100, 68, mixed, sizeof(mixed) - 1), 0);
    assert_int_equal(behind_send(mount, 100, 69, only_zeros, sizeof(only_zeros)), 0);
    behind_expect_sent(mount, 100, 70, "honest");
    behind_expect_sent(mount, 100, 71, "quit");
    through_expect_run(mount, "sh",
                       "66: abc\n"
                       "67: 1 4\nquit1 5\nforge\n"
                       "68: 1 4\nquit\n1 4\nquit\n"
                       "69: \n"
                       "70: honest\n",
                       "bash server \"$M\" \"$W/asked\" && cat asked");
    through_expect_size(mount, 100, 0);
}

int main(void)
{
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options slow = {.seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(each_message_has_its_sender_and_its_length),
        MOUNT_TEST(sender_is_the_process_that_wrote),
        MOUNT_TEST(empty_message_is_shown),
        MOUNT_TEST(payload_of_any_bytes_comes_out_as_it_was),
        MOUNT_TEST_WITH(damage_between_messages_is_passed_over, &chatty),
        MOUNT_TEST(read_takes_as_many_whole_messages_as_fit),
        MOUNT_TEST(message_that_does_not_fit_waits_for_the_next_read),
        MOUNT_TEST(message_larger_than_the_buffer_comes_in_parts),
        MOUNT_TEST(message_begun_goes_back_whole),
        MOUNT_TEST(message_begun_is_the_next_for_others_when_it_is_given_back),
        MOUNT_TEST(reader_waits_for_the_next_message),
        MOUNT_TEST(empty_message_ends_the_wait),
        MOUNT_TEST(signal_ends_the_wait_and_loses_nothing),
        MOUNT_TEST(it_is_like_a_pipe_and_for_reading_only),
        MOUNT_TEST_WITH(hundred_thousand_messages_come_complete_and_in_order, &slow),
        MOUNT_TEST_WITH(two_readers_share_the_messages, &slow),
        MOUNT_TEST_WITH(server_in_a_shell_answers_whoever_asks, &slow),
        MOUNT_TEST(payload_with_zeros_does_not_lead_a_shell_s_server_astray),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("envelope", tests, NULL, NULL) == 0 ? 0 : 1;
}
