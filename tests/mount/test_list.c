/* `.list`: what waits as a table for people and for awk, of which nothing is taken. */
#include <errno.h>
#include <fcntl.h>
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
    LINE_MOST_COLUMNS = 80,
    LINE_BYTES = 512,
};

static const char list[] = ".list";

/* The head of every table; its columns begin where those of the rows do. */
#define HEAD " NUMBER      SENDER      BYTES CHECKSUM PREVIEW\n"

/* --- The format ------------------------------------------------------------------------------- */

static void table_looks_just_like_this(void **state)
{
    static const char binary[] = "\x00\x01\x7f\x80\xff end";
    static const char controls[] = "tab\there\r\nback\\slash";
    static const char table[] =
        HEAD "      1        4711          6 0000021e hello\\n\n"
             "      2          -5          9 00000356 \\0\\x01\\x7f\\x80\\xff end\n"
             "      3           0          0 00000000\n"
             "      4  2147483647         20 00000703 tab\\there\\r\\nback\\\\slash\n"
             "      5 -2147483648        100 000025e4 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\n"
             "      6           1         40 00000f50 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"
             "      7           1         41 00000fb2 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb...\n";
    struct mount *mount = mount_of(state);
    char letters[101] = "";

    behind_expect_sent(mount, BOX, 4711, "hello\n");
    assert_int_equal(behind_send(mount, BOX, -5, binary, sizeof(binary) - 1), 0);
    behind_expect_sent(mount, BOX, 0, "");
    behind_expect_sent(mount, BOX, INT32_MAX, controls);
    memset(letters, 'a', 100);
    behind_expect_sent(mount, BOX, INT32_MIN, letters);
    memset(letters, 'b', 41);
    letters[40] = '\0';
    behind_expect_sent(mount, BOX, 1, letters);
    letters[40] = 'b';
    letters[41] = '\0';
    behind_expect_sent(mount, BOX, 1, letters);
    view_expect_text(mount, list, BOX, table);
    through_expect_run(mount, "sh", table, "cat $M/.list/%d", BOX);
}

static void empty_mailbox_has_a_head_alone(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", HEAD, ": >$M/%d; cat $M/.list/%d", BOX, BOX);
    assert_errno(open(view_path(mount, list, BOX + 1), O_RDONLY), ENOENT);
    assert_errno(open(view_path(mount, list, BOX), O_WRONLY), EACCES);
}

static void damage_is_shown_where_it_is(void **state)
{
    static const char table[] =
        HEAD "      -           -          5        - damaged at offset 0\n"
             "      1           1          3 00000142 one\n"
             "      -           -         17        - damaged at offset 20\n"
             "      2           2          3 0000015a two\n"
             "      -           -          2        - damaged at offset 52\n";
    struct mount *mount = mount_of(state);

    assert_int_equal(behind_append(mount, BOX, "\xff\xff\xff\xff\xff", 5), 0);
    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, "seventeen garbage", 17), 0);
    behind_expect_sent(mount, BOX, 2, "two");
    assert_int_equal(behind_append(mount, BOX, "\x01\x02", 2), 0);
    view_expect_text(mount, list, BOX, table);
    view_expect_text(mount, ".peek", BOX, "onetwo");
}

static void damage_alone_is_shown(void **state)
{
    struct mount *mount = mount_of(state);

    assert_int_equal(behind_append(mount, BOX, "noise, nothing but noise", 24), 0);
    view_expect_text(mount, list, BOX,
                     HEAD "      -           -         24        - damaged at offset 0\n");
}

static void damage_in_flight_is_shown_as_such(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    assert_int_equal(behind_append(mount, BOX, "\xff\xff\xff\xff\xff", 5), 0);
    behind_expect_sent(mount, BOX, 2, "two");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    assert_success(close(fd));
    assert_int_equal(behind_append(mount, BOX, "\xff\xff\xff", 3), 0);
    behind_expect_sent(mount, BOX, 3, "three");
    /* Where it is in flight is the daemon's business: any number will do. */
    through_expect_run(mount, "sh",
                       HEAD
                       "      -           -          5        - damaged at offset N in flight\n"
                       "      1           2          3 0000015a two\n"
                       "      -           -          3        - damaged at offset 0\n"
                       "      2           3          5 00000218 three\n",
                       "sed '2s/offset [0-9]*/offset N/' $M/.list/%d", BOX);
}

/* --- The preview, held against one that is written plainly ------------------------------------ */

static size_t escape(char *to, uint8_t byte)
{
    switch (byte) {
    case '\0':
        return (size_t)sprintf(to, "\\0");
    case '\n':
        return (size_t)sprintf(to, "\\n");
    case '\r':
        return (size_t)sprintf(to, "\\r");
    case '\t':
        return (size_t)sprintf(to, "\\t");
    case '\\':
        return (size_t)sprintf(to, "\\\\");
    default:
        return (size_t)sprintf(to, byte >= 0x20 && byte < 0x7f ? "%c" : "\\x%02x", byte);
    }
}

/* The whole line as it should be, without its newline and without blanks at its end. */
static void compose_line(char line[LINE_BYTES], unsigned number, const uint8_t *payload,
                         size_t size_bytes)
{
    enum { COLUMNS = 40, DOTS = 3 };
    char preview[LINE_BYTES] = "";
    size_t used = 0;
    size_t cut = 0; /* how much of it leaves room for the dots */
    uint32_t sum = 0;
    int length;

    for (size_t i = 0; i < size_bytes; i++) {
        sum += payload[i];
        if (used <= COLUMNS) {
            if (used <= COLUMNS - DOTS)
                cut = used;
            used += escape(preview + used, payload[i]);
        }
    }
    if (used > COLUMNS)
        strcpy(preview + cut, "...");
    length =
        snprintf(line, LINE_BYTES, "%7u %11d %10zu %08x %s", number, 1, size_bytes, sum, preview);
    while (line[length - 1] == ' ')
        line[--length] = '\0';
}

/* The mailbox's table must have a line for each of these, and nothing else. */
struct expected {
    uint8_t payload[64];
    size_t size_bytes;
};

static void expect_lines(struct mount *mount, const struct expected *expected, size_t count)
{
    int fd = view_open(mount, list, BOX);
    char *text = view_read_on(mount, fd, NULL);
    char *next = NULL;
    char *line = strtok_r(text, "\n", &next);

    assert_success(close(fd));
    for (size_t i = 0; i < count; i++) {
        char composed[LINE_BYTES];
        size_t length;

        line = strtok_r(NULL, "\n", &next);
        assert_non_null(line);
        length = strlen(line);
        assert_true(length <= LINE_MOST_COLUMNS);
        while (length > 0 && line[length - 1] == ' ') /* those of the payload */
            line[--length] = '\0';
        compose_line(composed, (unsigned)i + 1, expected[i].payload, expected[i].size_bytes);
        assert_string_equal(line, composed);
    }
    assert_null(strtok_r(NULL, "\n", &next));
}

static void every_byte_is_shown_in_80_columns_and_no_escape_is_cut(void **state)
{
    enum { LENGTHS = 45, COUNT = 256 * 4 + LENGTHS * 4 };
    static const uint8_t wide[] = {0x01, '\n', 0xff, 'x'};
    struct mount *mount = mount_of(state);
    struct expected *expected = mount_keep(mount, calloc(COUNT, sizeof(*expected)));
    size_t count = 0;

    for (unsigned byte = 0; byte < 256; byte++) {
        static const uint8_t sizes[] = {1, 10, 20, 60};

        for (size_t i = 0; i < sizeof(sizes); i++, count++) {
            expected[count].size_bytes = sizes[i];
            memset(expected[count].payload, (int)byte, sizes[i]);
        }
    }
    /* Some letters, and then what is to be cut at every place. */
    for (size_t letters = 0; letters < LENGTHS; letters++) {
        for (size_t i = 0; i < sizeof(wide); i++, count++) {
            expected[count].size_bytes = letters + i + 1;
            memset(expected[count].payload, 'a', letters);
            memset(expected[count].payload + letters, wide[i], i + 1);
        }
    }
    assert_int_equal(count, COUNT);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(behind_send(mount, BOX, 1, expected[i].payload, expected[i].size_bytes),
                         0);
    expect_lines(mount, expected, count);
}

/* --- What it is good for ---------------------------------------------------------------------- */

static void awk_sums_the_bytes(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "12345");
    assert_int_equal(behind_append(mount, BOX, "\xff\xff\xff\xff\xff", 5), 0);
    behind_expect_sent(mount, BOX, 2, "a row of  blanks");
    behind_expect_sent(mount, BOX, 3, "");
    through_send(mount, BOX, "7\n8");
    through_expect_run(mount, "sh", "4 24\n",
                       "awk '$1 ~ /^[0-9]+$/ {n++; b += $3} END {print n, b}' $M/.list/%d", BOX);
    through_expect_run(mount, "sh", "5\n", "awk '$1 == \"-\" {b += $3} END {print b}' $M/.list/%d",
                       BOX);
    through_expect_run(mount, "sh", "3\n", "grep -c '^ *[0-9]* *[123] ' $M/.list/%d", BOX);
    through_expect_size(mount, BOX, 24);
}

static void sender_is_who_wrote(void **state)
{
    struct mount *mount = mount_of(state);

    through_expect_run(mount, "sh", "yes\n",
                       "sh -c 'echo $$ >id; exec echo hello >$M/%d'; "
                       "awk -v id=$(cat id) 'NR == 2 && $2 == id {print \"yes\"}' $M/.list/%d",
                       BOX, BOX);
}

static void size_is_0_until_it_is_opened(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;
    struct stat mailbox;
    size_t size_bytes;
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    assert_success(stat(view_path(mount, list, BOX), &status));
    assert_success(stat(through_box(mount, BOX), &mailbox));
    assert_int_equal(status.st_size, 0);
    assert_int_equal(status.st_blocks, 0);
    assert_true(S_ISREG(status.st_mode));
    assert_true(status.st_ino != mailbox.st_ino);
    fd = view_open(mount, list, BOX);
    (void)view_read_on(mount, fd, &size_bytes);
    assert_int_equal(view_size(fd), size_bytes);
    assert_true(size_bytes > strlen(HEAD));
    assert_success(close(fd));
    fd = view_open(mount, list, BOX);
    assert_int_equal(view_size(fd), size_bytes);
    assert_success(close(fd));
    assert_success(stat(view_path(mount, list, BOX), &status));
    assert_int_equal(status.st_size, 0);
    behind_expect_texts(mount, BOX, "one", NULL);
}

static void in_flight_and_on_disk_are_numbered_as_one(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, BOX, 2, "two");
    behind_expect_sent(mount, BOX, 3, "three");
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    through_expect_read(fd, "one");
    assert_success(close(fd));
    behind_expect_sent(mount, BOX, 4, "four");
    view_expect_text(mount, list, BOX,
                     HEAD "      1           2          3 0000015a two\n"
                          "      2           3          5 00000218 three\n"
                          "      3           4          4 000001bc four\n");
}

static void open_table_stays_and_grows_at_its_end(void **state)
{
    static const char first[] = HEAD "      1           1          3 00000142 one\n"
                                     "      2           2          3 0000015a two\n";
    static const char third[] = "      3           3          5 00000218 three\n";
    static const char fourth[] = "      4           4          4 000001bc four\n";
    struct mount *mount = mount_of(state);
    char all[sizeof(first) + sizeof(third) + sizeof(fourth)];
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, BOX, 2, "two");
    fd = view_open(mount, list, BOX);
    view_expect_more(mount, fd, first);
    through_expect_texts(mount, BOX, "one", "two", NULL);
    view_expect_stays(fd, first, strlen(first));
    view_expect_more(mount, fd, "");
    behind_expect_sent(mount, BOX, 3, "three");
    view_expect_more(mount, fd, third);
    through_expect_texts(mount, BOX, "three", NULL);
    behind_expect_sent(mount, BOX, 4, "four");
    view_expect_more(mount, fd, fourth);
    snprintf(all, sizeof(all), "%s%s%s", first, third, fourth);
    view_expect_stays(fd, all, strlen(all));
    assert_success(close(fd));
    view_expect_text(mount, list, BOX, HEAD "      1           4          4 000001bc four\n");
}

static void damage_that_comes_later_is_shown_later(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    behind_expect_sent(mount, BOX, 1, "one");
    fd = view_open(mount, list, BOX);
    view_expect_more(mount, fd, HEAD "      1           1          3 00000142 one\n");
    assert_int_equal(behind_append(mount, BOX, "\xff\xff\xff\xff\xff", 5), 0);
    behind_expect_sent(mount, BOX, 2, "two");
    view_expect_more(mount, fd,
                     "      -           -          5        - damaged at offset 15\n"
                     "      2           2          3 0000015a two\n");
    assert_success(close(fd));
}

/* --- Much of it ------------------------------------------------------------------------------- */

static void plant_many(struct mount *mount, size_t count)
{
    enum { PAYLOAD_BYTES = 8 };
    FILE *box = fopen(behind_box(mount, BOX), "we");

    assert_non_null(box);
    for (size_t i = 0; i < count; i++) {
        uint8_t frame[BEHIND_HEADER_BYTES + PAYLOAD_BYTES];
        char payload[PAYLOAD_BYTES + 1];

        snprintf(payload, sizeof(payload), "%07zu\n", i % 10000000);
        behind_frame(frame, 1, payload, PAYLOAD_BYTES);
        memcpy(frame + BEHIND_HEADER_BYTES, payload, PAYLOAD_BYTES);
        assert_int_equal(fwrite(frame, sizeof(frame), 1, box), 1);
    }
    assert_int_equal(fclose(box), 0);
}

static void million_messages_are_listed_in_bounded_memory(void **state)
{
    enum { GROWTH_MOST_KIB = 32 * 1024 };
    struct mount *mount = mount_of(state);
    size_t count = 1000000 / mount_scale();
    size_t before_kib;
    char expected[64];

    plant_many(mount, count);
    before_kib = view_daemon_peak_kib(mount);
    snprintf(expected, sizeof(expected), "%zu %zu %zu\n", count + 1, count, count * 8);
    through_expect_run(mount, "sh", expected,
                       "awk '$1 ~ /^[0-9]+$/ {b += $3; n = $1} END {print NR, n, b}' $M/.list/%d",
                       BOX);
    if (!mount_is_sanitized())
        assert_in_range(view_daemon_peak_kib(mount), 1, before_kib + GROWTH_MOST_KIB);
}

int main(void)
{
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options long_one = {.seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(table_looks_just_like_this),
        MOUNT_TEST(empty_mailbox_has_a_head_alone),
        MOUNT_TEST_WITH(damage_is_shown_where_it_is, &chatty),
        MOUNT_TEST_WITH(damage_alone_is_shown, &chatty),
        MOUNT_TEST_WITH(damage_in_flight_is_shown_as_such, &chatty),
        MOUNT_TEST(every_byte_is_shown_in_80_columns_and_no_escape_is_cut),
        MOUNT_TEST_WITH(awk_sums_the_bytes, &chatty),
        MOUNT_TEST(sender_is_who_wrote),
        MOUNT_TEST(size_is_0_until_it_is_opened),
        MOUNT_TEST(in_flight_and_on_disk_are_numbered_as_one),
        MOUNT_TEST(open_table_stays_and_grows_at_its_end),
        MOUNT_TEST_WITH(damage_that_comes_later_is_shown_later, &chatty),
        MOUNT_TEST_WITH(million_messages_are_listed_in_bounded_memory, &long_one),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("list", tests, NULL, NULL) == 0 ? 0 : 1;
}
