/*
 * Reading a directory: every mailbox once, whatever the pages; from the start again, or from any
 * place that was seen; the views behind them, in the root only; and as much as an error leaves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "inside.h"
#include "stage.h"

enum {
    BOXES_COUNT = 300,
    SMALL_PAGE_BYTES = 64, /* two of them, or one */
    LARGE_PAGE_BYTES = 4096,
    ENTRIES_MOST = 400,
    NAME_MOST_BYTES = 32,
};

struct entry {
    char name[NAME_MOST_BYTES];
    off_t next;
};

struct fixture {
    struct stage stage;
    struct inside *inside;
    uint64_t node;
    uint64_t handle;
    struct entry entries[ENTRIES_MOST];
    size_t entries_count;
};

static void open_directory(struct fixture *fixture, const char *view)
{
    struct fuse_open_in in = {.flags = O_RDONLY};
    struct fuse_open_out out;
    size_t size_bytes;

    fixture->node = INSIDE_ROOT;
    if (view[0] != '\0')
        assert_int_equal(inside_look_up(fixture->inside, INSIDE_ROOT, view, &fixture->node), 0);
    assert_int_equal(
        inside_await(fixture->inside, inside_send(fixture->inside, FUSE_OPENDIR, fixture->node, &in,
                                                  sizeof(in), NULL, 0)),
        0);
    memcpy(&out, inside_bytes(fixture->inside, &size_bytes), sizeof(out));
    fixture->handle = out.fh;
}

static void close_directory(struct fixture *fixture)
{
    struct fuse_release_in in = {.fh = fixture->handle};

    assert_int_equal(
        inside_await(fixture->inside, inside_send(fixture->inside, FUSE_RELEASEDIR, fixture->node,
                                                  &in, sizeof(in), NULL, 0)),
        0);
}

/* Adds what one page has; how many entries. */
static size_t read_page(struct fixture *fixture, size_t page_bytes, off_t offset)
{
    struct fuse_read_in in = {
        .fh = fixture->handle, .offset = (uint64_t)offset, .size = (uint32_t)page_bytes};
    size_t size_bytes, count = 0;
    const uint8_t *at;

    assert_int_equal(
        inside_await(fixture->inside, inside_send(fixture->inside, FUSE_READDIR, fixture->node, &in,
                                                  sizeof(in), NULL, 0)),
        0);
    at = inside_bytes(fixture->inside, &size_bytes);
    assert_true(size_bytes <= page_bytes);
    while (size_bytes > 0) {
        struct entry *entry = &fixture->entries[fixture->entries_count++];
        struct fuse_dirent head;
        size_t whole;

        assert_true(fixture->entries_count <= ENTRIES_MOST);
        memcpy(&head, at, FUSE_NAME_OFFSET);
        assert_true(head.namelen < NAME_MOST_BYTES);
        memcpy(entry->name, at + FUSE_NAME_OFFSET, head.namelen);
        entry->name[head.namelen] = '\0';
        entry->next = (off_t)head.off;
        whole = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + (size_t)head.namelen);
        at += whole;
        size_bytes -= whole;
        count++;
    }
    return count;
}

static void read_all(struct fixture *fixture, size_t page_bytes, off_t offset)
{
    size_t count;

    fixture->entries_count = 0;
    do {
        count = read_page(fixture, page_bytes, offset);
        if (count > 0)
            offset = fixture->entries[fixture->entries_count - 1].next;
    } while (count > 0);
}

static unsigned count_of(const struct fixture *fixture, const char *name)
{
    unsigned count = 0;

    for (size_t i = 0; i < fixture->entries_count; i++)
        count += strcmp(fixture->entries[i].name, name) == 0;
    return count;
}

static void expect_each_once(const struct fixture *fixture, bool views)
{
    char name[NAME_MOST_BYTES];

    for (int pid = 1; pid <= BOXES_COUNT; pid++) {
        (void)snprintf(name, sizeof(name), "%d", pid);
        assert_int_equal(count_of(fixture, name), 1);
    }
    assert_int_equal(count_of(fixture, "."), 1);
    assert_int_equal(count_of(fixture, ".."), 1);
    assert_int_equal(count_of(fixture, ".stats"), views);
    assert_int_equal(count_of(fixture, ".peek"), views);
    assert_int_equal(count_of(fixture, "strange"), 0);
    assert_int_equal(count_of(fixture, ".gprocfs"), 0);
    assert_int_equal(fixture->entries_count, BOXES_COUNT + 2 + (views ? 5 : 0));
}

static void mount_on(struct fixture *fixture, void **state)
{
    char path[PATH_MAX];

    *fixture = (struct fixture){.entries_count = 0};
    stage_init(&fixture->stage, *state);
    stage_set(&fixture->stage);
    fixture->inside = inside_mount(fixture->stage.parent, NULL);
    for (int pid = 1; pid <= BOXES_COUNT; pid++) {
        (void)snprintf(path, sizeof(path), "%.*s/%d", PATH_MAX / 2, fixture->stage.mailboxes, pid);
        temporary_write(path, NULL, 0);
    }
    (void)snprintf(path, sizeof(path), "%.*s/strange", PATH_MAX / 2, fixture->stage.mailboxes);
    temporary_write(path, NULL, 0);
}

static void unmount(struct fixture *fixture)
{
    inside_unmount(fixture->inside);
    stage_clear(&fixture->stage);
}

static void test_every_mailbox_is_listed_once_whatever_the_pages(void **state)
{
    static const size_t pages[] = {40, SMALL_PAGE_BYTES, LARGE_PAGE_BYTES, 100000};
    static const char *const views[] = {"", ".follow", ".peek"};
    struct fixture fixture;

    mount_on(&fixture, state);
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        for (size_t j = 0; j < sizeof(pages) / sizeof(pages[0]); j++) {
            open_directory(&fixture, views[i]);
            read_all(&fixture, pages[j], 0);
            expect_each_once(&fixture, views[i][0] == '\0');
            close_directory(&fixture);
        }
    }
    unmount(&fixture);
}

/* As rewinddir(3) does, also half-way. */
static void test_reading_from_the_start_again_lists_all_again(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_directory(&fixture, "");
    (void)read_page(&fixture, SMALL_PAGE_BYTES, 0);
    read_all(&fixture, LARGE_PAGE_BYTES, 0);
    expect_each_once(&fixture, true);
    read_all(&fixture, LARGE_PAGE_BYTES, 0);
    expect_each_once(&fixture, true);
    close_directory(&fixture);
    unmount(&fixture);
}

/* As seekdir(3) does, to what telldir(3) has said: what follows is what followed. */
static void test_reading_goes_on_from_any_place_that_was_seen(void **state)
{
    static struct entry seen[ENTRIES_MOST];
    struct fixture fixture;
    size_t count;

    mount_on(&fixture, state);
    open_directory(&fixture, "");
    read_all(&fixture, LARGE_PAGE_BYTES, 0);
    count = fixture.entries_count;
    memcpy(seen, fixture.entries, sizeof(seen));
    /* From the end to the start, the views and both ends among them. */
    for (size_t i = count; i-- > 0; i -= i > 40 && i < count - 10 ? 30 : 0) {
        read_all(&fixture, LARGE_PAGE_BYTES, seen[i].next);
        assert_int_equal(fixture.entries_count, count - i - 1);
        for (size_t j = 0; j < fixture.entries_count; j++)
            assert_string_equal(fixture.entries[j].name, seen[i + 1 + j].name);
    }
    close_directory(&fixture);
    unmount(&fixture);
}

/* Of a page in which not even the next name fits nothing is missing in the next one. */
static void test_page_without_room_for_a_name_passes_none_over(void **state)
{
    struct fixture fixture;

    mount_on(&fixture, state);
    open_directory(&fixture, "");
    assert_int_equal(read_page(&fixture, 8, 0), 0);
    read_all(&fixture, LARGE_PAGE_BYTES, 0);
    expect_each_once(&fixture, true);
    close_directory(&fixture);
    unmount(&fixture);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEMPORARY_TEST(test_every_mailbox_is_listed_once_whatever_the_pages),
        TEMPORARY_TEST(test_reading_from_the_start_again_lists_all_again),
        TEMPORARY_TEST(test_reading_goes_on_from_any_place_that_was_seen),
        TEMPORARY_TEST(test_page_without_room_for_a_name_passes_none_over),
    };

    return cmocka_run_group_tests_name("listing", tests, NULL, NULL);
}
