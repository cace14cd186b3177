/* `.stats`: what this mount has done and holds, in a text that Prometheus reads. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    CHILD_MS = 15000,
    LIMIT_BYTES = 1000, /* where there is one */
};

#define SENT            "gprocfs_messages_sent_total"
#define SENT_BYTES      "gprocfs_sent_bytes_total"
#define RECEIVED        "gprocfs_messages_received_total"
#define RECEIVED_BYTES  "gprocfs_received_bytes_total"
#define DAMAGED_BYTES   "gprocfs_damaged_bytes_total"
#define LOCK_WAITS      "gprocfs_lock_waits_total"
#define LOCK_TIMEOUTS   "gprocfs_lock_timeouts_total"
#define PARKED(kind)    "gprocfs_parked_requests{kind=\"" kind "\"}"
#define INFLIGHT        "gprocfs_inflight_messages"
#define COLLECTED_BYTES "gprocfs_collected_bytes"
#define OPEN_FILES      "gprocfs_open_files"
#define ERRORS(kind)    "gprocfs_errors_total{kind=\"" kind "\"}"

/* Some are counted a moment after whoever asked has his answer. */
static void expect_sample(struct mount *mount, const char *sample, int64_t value)
{
    view_await_sample(mount, sample, value);
}

static int open_stats(struct mount *mount)
{
    int fd = open(mount_path(mount, "%s/.stats", mount->mnt), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* --- What is counted -------------------------------------------------------------------------- */

static void sent_messages_and_bytes_are_counted(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    expect_sample(mount, SENT, 0);
    expect_sample(mount, SENT_BYTES, 0);
    through_send(mount, BOX, "hello");
    expect_sample(mount, SENT, 1);
    expect_sample(mount, SENT_BYTES, 5);
    fd = through_open(mount, BOX, THROUGH_APPEND);
    through_write_once(fd, "one", 3);
    through_write_once(fd, "three", 5);
    assert_success(close(fd));
    expect_sample(mount, SENT, 3);
    expect_sample(mount, SENT_BYTES, 13);
    through_expect_run(mount, "sh", "", ": >$M/%d", BOX);
    behind_expect_sent(mount, BOX, 1, "from behind");
    expect_sample(mount, SENT, 3);
    expect_sample(mount, SENT_BYTES, 13);
}

static void received_messages_and_bytes_are_counted(void **state)
{
    struct mount *mount = mount_of(state);
    char part[4];
    int fd;

    behind_expect_sent(mount, BOX, 1, "hello");
    through_send(mount, BOX, "you");
    view_expect_text(mount, ".peek", BOX, "helloyou");
    expect_sample(mount, RECEIVED, 0);

    /* Given back, it has not been received. */
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, part, sizeof(part)), sizeof(part));
    assert_success(close(fd));
    expect_sample(mount, RECEIVED, 0);
    expect_sample(mount, RECEIVED_BYTES, 0);

    through_expect_texts(mount, BOX, "hello", "you", NULL);
    expect_sample(mount, RECEIVED, 2);
    expect_sample(mount, RECEIVED_BYTES, 8);
    expect_sample(mount, SENT, 1);
}

static void damaged_bytes_are_counted_once(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, "garbage", 7), 0);
    behind_expect_sent(mount, BOX, 1, "two");
    through_expect_size(mount, BOX, 6);
    view_expect_text(mount, ".peek", BOX, "onetwo");
    through_expect_texts(mount, BOX, "one", "two", NULL);
    expect_sample(mount, DAMAGED_BYTES, 7);
    through_expect_texts(mount, BOX, NULL);
    expect_sample(mount, DAMAGED_BYTES, 7);
    expect_sample(mount, RECEIVED, 2);
}

static void errors_are_counted_by_kind(void **state)
{
    struct mount *mount = mount_of(state);
    uint8_t *payload = through_payload(mount, LIMIT_BYTES + 1, 1);
    int fd;

    expect_sample(mount, ERRORS("EFBIG"), 0);
    fd = through_open(mount, BOX, THROUGH_APPEND);
    assert_errno(write(fd, payload, LIMIT_BYTES + 1), EFBIG);
    expect_sample(mount, ERRORS("EFBIG"), 1);
    assert_errno(write(fd, payload, LIMIT_BYTES + 1), EFBIG);
    through_write_once(fd, payload, LIMIT_BYTES);
    assert_success(close(fd));
    expect_sample(mount, ERRORS("EFBIG"), 2);
    expect_sample(mount, SENT, 1);
    expect_sample(mount, SENT_BYTES, LIMIT_BYTES);
    expect_sample(mount, ERRORS("EPERM"), 0);
    assert_errno(mkdir(mount_path(mount, "%s/4712", mount->mnt), 0777), EPERM);
    expect_sample(mount, ERRORS("EPERM"), 1);
    expect_sample(mount, ERRORS("EFBIG"), 2);
}

/* A child that sends, and waits at its close, where the kernel lets several wait; exits with the
 * errno, or 0. The lock is its parent's alone. */
static pid_t start_sender(struct mount *mount, int lock)
{
    pid_t child = process_fork(0);

    if (child == 0) {
        int fd;

        close(lock);
        fd = open(through_box(mount, BOX), THROUGH_REPLACE, 0666);

        if (fd < 0 || through_write(fd, "hello", 5) != 0)
            _exit(1);
        _exit(close(fd) == 0 ? 0 : errno);
    }
    assert_true(child > 0);
    return child;
}

static void waits_for_a_lock_are_counted_and_shown_while_they_last(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t senders[2];
    int lock;

    through_send(mount, BOX, "first");
    expect_sample(mount, LOCK_WAITS, 0);
    lock = behind_lock(mount, BOX);
    assert_true(lock >= 0);
    for (int i = 0; i < 2; i++) {
        senders[i] = start_sender(mount, lock);
        view_await_sample(mount, PARKED("lock"), i + 1);
    }
    assert_true(view_sample(mount, LOCK_WAITS) >= 1);
    expect_sample(mount, SENT, 1);
    expect_sample(mount, PARKED("message"), 0);
    close(lock);
    for (int i = 0; i < 2; i++)
        assert_int_equal(process_wait(senders[i], CHILD_MS), 0);
    expect_sample(mount, PARKED("lock"), 0);
    expect_sample(mount, LOCK_TIMEOUTS, 0);
    expect_sample(mount, SENT, 3);
}

static void timeouts_of_a_lock_are_counted(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t sender;
    int lock;

    lock = behind_lock(mount, BOX);
    assert_true(lock >= 0);
    sender = start_sender(mount, lock);
    assert_int_equal(process_wait(sender, CHILD_MS), ETIMEDOUT);
    assert_true(view_sample(mount, LOCK_WAITS) >= 1);
    assert_true(view_sample(mount, LOCK_TIMEOUTS) >= 1);
    assert_true(view_sample(mount, ERRORS("ETIMEDOUT")) >= 1);
    expect_sample(mount, PARKED("lock"), 0);
    expect_sample(mount, SENT, 0);
    close(lock);
}

static void waits_for_a_message_are_shown_while_they_last(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t reader;

    through_expect_run(mount, "sh", "", ": >$M/%d", BOX);
    reader = process_fork(0);
    if (reader == 0) {
        int fd = open(view_path(mount, ".follow", BOX), O_RDONLY | O_CLOEXEC);
        char text[16];

        _exit(fd >= 0 && read(fd, text, sizeof(text)) == 5 ? 0 : 1);
    }
    view_await_sample(mount, PARKED("message"), 1);
    expect_sample(mount, PARKED("lock"), 0);
    expect_sample(mount, RECEIVED, 0);
    through_send(mount, BOX, "hello");
    assert_int_equal(process_wait(reader, CHILD_MS), 0);
    expect_sample(mount, PARKED("message"), 0);
    expect_sample(mount, RECEIVED, 1);
}

static void polls_are_shown_while_they_last(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t poller;

    through_expect_run(mount, "sh", "", ": >$M/%d", BOX);
    poller = process_fork(0);
    if (poller == 0) {
        struct pollfd ready = {.fd = open(view_path(mount, ".follow", BOX), O_RDONLY),
                               .events = POLLIN};

        _exit(poll(&ready, 1, CHILD_MS) == 1 && (ready.revents & POLLIN) != 0 ? 0 : 1);
    }
    view_await_sample(mount, PARKED("poll"), 1);
    behind_expect_sent(mount, BOX, 1, "hello");
    assert_int_equal(process_wait(poller, CHILD_MS), 0);
    view_await_sample(mount, PARKED("poll"), 0);
    expect_sample(mount, RECEIVED, 0);
}

static void messages_in_flight_are_shown(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    expect_sample(mount, INFLIGHT, 0);
    for (int i = 0; i < 3; i++)
        behind_expect_sent(mount, BOX, 1, "x");
    for (int i = 0; i < 5; i++)
        behind_expect_sent(mount, BOX + 1, 1, "y");
    expect_sample(mount, INFLIGHT, 0);
    for (int pid = BOX; pid <= BOX + 1; pid++) {
        fd = through_open(mount, pid, THROUGH_RECEIVE);
        through_expect_read(fd, pid == BOX ? "x" : "y");
        assert_success(close(fd));
    }
    /* A message leaves the count a moment after its reader has it. */
    view_await_sample(mount, INFLIGHT, 2 + 4);
    through_expect_texts(mount, BOX, "x", "x", NULL);
    view_await_sample(mount, INFLIGHT, 4);
    assert_success(unlink(through_box(mount, BOX + 1)));
    view_await_sample(mount, INFLIGHT, 0);
}

static void collected_bytes_are_shown_until_they_are_sent(void **state)
{
    struct mount *mount = mount_of(state);
    uint8_t *payload = through_payload(mount, 300, 1);
    int fd = through_open(mount, BOX, THROUGH_REPLACE);

    expect_sample(mount, COLLECTED_BYTES, 0);
    through_write_once(fd, payload, 100);
    through_write_once(fd, payload, 200);
    expect_sample(mount, COLLECTED_BYTES, 300);
    expect_sample(mount, SENT, 0);
    assert_success(ftruncate(fd, 250));
    expect_sample(mount, COLLECTED_BYTES, 250);
    assert_success(close(fd));
    expect_sample(mount, COLLECTED_BYTES, 0);
    expect_sample(mount, SENT_BYTES, 250);
}

/* Those of mailboxes; and a release comes some time after the close. */
static void open_files_are_counted(void **state)
{
    enum { FILES = 10 };
    struct mount *mount = mount_of(state);
    int fds[FILES];

    through_send(mount, BOX, "hello");
    view_await_sample(mount, OPEN_FILES, 0);
    for (int i = 0; i < FILES; i++) {
        fds[i] = i % 2 == 0 ? through_open(mount, BOX, THROUGH_RECEIVE)
                            : view_open(mount, i % 4 == 1 ? ".peek" : ".list", BOX);
        expect_sample(mount, OPEN_FILES, i + 1);
    }
    for (int i = 0; i < FILES; i++)
        assert_success(close(fds[i]));
    view_await_sample(mount, OPEN_FILES, 0);
}

/* --- The file --------------------------------------------------------------------------------- */

static void it_is_a_file_of_size_0_that_is_not_empty(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;

    assert_success(stat(mount_path(mount, "%s/.stats", mount->mnt), &status));
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(status.st_size, 0);
    assert_int_equal(status.st_mode & 0222, 0);
    through_expect_run(mount, "sh", "1\n", "grep -c ^gprocfs_info $M/.stats");
    through_expect_run(mount, "sh", "same\n",
                       "cat $M/.stats >a; dd if=$M/.stats of=b bs=7 2>/dev/null; "
                       "grep -v open_files a >c; grep -v open_files b >d; cmp c d && echo same");
    assert_errno(open(mount_path(mount, "%s/.stats", mount->mnt), O_WRONLY), EACCES);
    assert_errno(access(mount_path(mount, "%s/.stats/1", mount->mnt), F_OK), ENOTDIR);
    through_expect_run(mount, "sh", "", "ls $M");
}

/* So that whoever reads it in pieces gets no line of two moments. */
static void open_file_shows_one_moment(void **state)
{
    struct mount *mount = mount_of(state);
    int fd = open_stats(mount);
    size_t size_bytes;
    size_t again_bytes;
    const char *text;
    const char *again;

    text = view_read_on(mount, fd, &size_bytes);
    for (int i = 0; i < 100; i++)
        through_send(mount, BOX, "hello");
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    again = view_read_on(mount, fd, &again_bytes);
    assert_int_equal(again_bytes, size_bytes);
    assert_string_equal(again, text);
    assert_success(close(fd));
    expect_sample(mount, SENT, 100);
}

/* --- The text --------------------------------------------------------------------------------- */

/*
 * The exposition format 0.0.4, held strictly: each family is a HELP line, a TYPE line and then its
 * samples, together and once; each sample once; every line ends in a newline. `at` is the rest.
 */
struct parse {
    const char *at;
    char family[128];
    bool is_counter;
    char seen[64][256]; /* families, and samples with their labels */
    size_t seen_count;
};

static void stop(const struct parse *parse, const char *what)
{
    fail_msg("%s: \"%.100s\"", what, parse->at);
}

static void expect_literal(struct parse *parse, const char *literal)
{
    if (strncmp(parse->at, literal, strlen(literal)) != 0)
        stop(parse, literal);
    parse->at += strlen(literal);
}

static void expect_name(struct parse *parse, char name[128], bool colons)
{
    size_t length = 0;

    while (isalnum((unsigned char)parse->at[length]) || parse->at[length] == '_' ||
           (colons && parse->at[length] == ':'))
        length++;
    if (length == 0 || length > 127 || isdigit((unsigned char)parse->at[0]))
        stop(parse, "no name");
    memcpy(name, parse->at, length);
    name[length] = '\0';
    parse->at += length;
}

static void expect_new(struct parse *parse, const char *what)
{
    for (size_t i = 0; i < parse->seen_count; i++) {
        if (strcmp(parse->seen[i], what) == 0)
            stop(parse, "a second one");
    }
    assert_true(parse->seen_count < 64);
    snprintf(parse->seen[parse->seen_count++], sizeof(parse->seen[0]), "%s", what);
}

static void parse_head(struct parse *parse)
{
    char name[128];

    expect_literal(parse, "# HELP ");
    expect_name(parse, parse->family, true);
    expect_new(parse, parse->family);
    expect_literal(parse, " ");
    while (*parse->at != '\n' && *parse->at != '\0') {
        if (*parse->at == '\\' && *++parse->at != '\\' && *parse->at != 'n')
            stop(parse, "no escape of a help text");
        parse->at++;
    }
    expect_literal(parse, "\n# TYPE ");
    expect_name(parse, name, true);
    if (strcmp(name, parse->family) != 0)
        stop(parse, "the type of another family");
    parse->is_counter = strncmp(parse->at, " counter\n", 9) == 0;
    expect_literal(parse, parse->is_counter ? " counter\n" : " gauge\n");
    if (parse->is_counter != (strstr(name, "_total") != NULL))
        stop(parse, "what counts, and nothing else, is a total");
}

static void parse_labels(struct parse *parse)
{
    char name[128];

    expect_literal(parse, "{");
    for (;;) {
        expect_name(parse, name, false);
        expect_literal(parse, "=\"");
        while (*parse->at != '"' && *parse->at != '\n' && *parse->at != '\0') {
            if (*parse->at == '\\' && strchr("\\\"n", *++parse->at) == NULL)
                stop(parse, "no escape of a label");
            parse->at++;
        }
        expect_literal(parse, "\"");
        if (*parse->at != ',')
            break;
        parse->at++;
    }
    expect_literal(parse, "}");
}

static void parse_sample(struct parse *parse)
{
    const char *begin = parse->at;
    char name[128];
    char sample[256];
    size_t digits;

    expect_name(parse, name, true);
    if (strcmp(name, parse->family) != 0)
        stop(parse, "a sample of another family");
    if (*parse->at == '{')
        parse_labels(parse);
    snprintf(sample, sizeof(sample), "sample %.*s", (int)(parse->at - begin), begin);
    expect_new(parse, sample);
    expect_literal(parse, " ");
    digits = strspn(parse->at, "0123456789"); /* nothing here is negative, or broken */
    if (digits == 0)
        stop(parse, "no number");
    parse->at += digits;
    expect_literal(parse, "\n");
}

static void expect_text(struct mount *mount)
{
    struct parse *parse = mount_keep(mount, calloc(1, sizeof(*parse)));
    int fd = open_stats(mount);

    parse->at = view_read_on(mount, fd, NULL);
    assert_success(close(fd));
    assert_true(*parse->at != '\0');
    while (*parse->at != '\0') {
        parse_head(parse);
        while (*parse->at != '#' && *parse->at != '\0')
            parse_sample(parse);
    }
}

/* So that there is something to tell. */
static void do_some_of_everything(struct mount *mount)
{
    through_send(mount, BOX, "hello");
    through_send(mount, BOX, "you");
    through_expect_texts(mount, BOX, "hello", "you", NULL);
    assert_errno(mkdir(mount_path(mount, "%s/4712", mount->mnt), 0777), EPERM);
    assert_errno(truncate(through_box(mount, BOX), 1), EINVAL);
}

static void every_line_obeys_the_grammar(void **state)
{
    struct mount *mount = mount_of(state);

    expect_text(mount);
    do_some_of_everything(mount);
    expect_text(mount);
    expect_sample(mount, "gprocfs_info{version=\"" GPROC_VERSION "\"}", 1);
}

static void client_of_prometheus_reads_it(void **state)
{
    static const char script[] =
        "import sys\n"
        "from prometheus_client.parser import text_string_to_metric_families as parse\n"
        "found = {}\n"
        "for family in parse(open(sys.argv[1]).read()):\n"
        "    for s in family.samples:\n"
        "        found[(s.name, s.labels.get(\"kind\"))] = (family.type, s.value)\n"
        "want = {(\"gprocfs_messages_sent_total\", None): (\"counter\", 2),\n"
        "        (\"gprocfs_messages_received_total\", None): (\"counter\", 2),\n"
        "        (\"gprocfs_sent_bytes_total\", None): (\"counter\", 8),\n"
        "        (\"gprocfs_received_bytes_total\", None): (\"counter\", 8),\n"
        "        (\"gprocfs_damaged_bytes_total\", None): (\"counter\", 0),\n"
        "        (\"gprocfs_parked_requests\", \"lock\"): (\"gauge\", 0),\n"
        "        (\"gprocfs_parked_requests\", \"message\"): (\"gauge\", 0),\n"
        "        (\"gprocfs_parked_requests\", \"poll\"): (\"gauge\", 0),\n"
        "        (\"gprocfs_inflight_messages\", None): (\"gauge\", 0),\n"
        "        (\"gprocfs_errors_total\", \"EPERM\"): (\"counter\", 1),\n"
        "        (\"gprocfs_errors_total\", \"EINVAL\"): (\"counter\", 1)}\n"
        "for key in want:\n"
        "    assert found[key] == want[key], (key, found[key])\n";
    /* The system's package is for the system's own Python. */
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};
    struct mount *mount = mount_of(state);

    do_some_of_everything(mount);
    for (size_t i = 0; i < sizeof(pythons) / sizeof(pythons[0]); i++) {
        if (through_run_as(mount, 0, "sh", "%s -c 'import prometheus_client'", pythons[i]).status !=
            0)
            continue;
        through_expect_run(mount, "sh", "", "%s -c '%s' $M/.stats", pythons[i], script);
        return;
    }
    print_message("skipped: there is no prometheus_client\n");
    skip();
}

static void promtool_has_nothing_to_say(void **state)
{
    struct mount *mount = mount_of(state);

    if (!process_has("promtool")) {
        print_message("skipped: there is no promtool\n");
        skip();
    }
    do_some_of_everything(mount);
    through_expect_run(mount, "sh", "", "promtool check metrics <$M/.stats");
}

int main(void)
{
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options limited = {.options = "max_message=1000"};
    static const struct mount_options hasty = {.options = "lock_timeout=1", .chatty = true};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(sent_messages_and_bytes_are_counted),
        MOUNT_TEST(received_messages_and_bytes_are_counted),
        MOUNT_TEST_WITH(damaged_bytes_are_counted_once, &chatty),
        MOUNT_TEST_WITH(errors_are_counted_by_kind, &limited),
        MOUNT_TEST(waits_for_a_lock_are_counted_and_shown_while_they_last),
        MOUNT_TEST_WITH(timeouts_of_a_lock_are_counted, &hasty),
        MOUNT_TEST(waits_for_a_message_are_shown_while_they_last),
        MOUNT_TEST(polls_are_shown_while_they_last),
        MOUNT_TEST(messages_in_flight_are_shown),
        MOUNT_TEST(collected_bytes_are_shown_until_they_are_sent),
        MOUNT_TEST(open_files_are_counted),
        MOUNT_TEST(it_is_a_file_of_size_0_that_is_not_empty),
        MOUNT_TEST(open_file_shows_one_moment),
        MOUNT_TEST(every_line_obeys_the_grammar),
        MOUNT_TEST(client_of_prometheus_reads_it),
        MOUNT_TEST(promtool_has_nothing_to_say),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("stats", tests, NULL, NULL) == 0 ? 0 : 1;
}
