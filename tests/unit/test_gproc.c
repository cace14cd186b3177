/* The public interface: sending, looking and listing, and what each refuses. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gproc.h"
#include "lock.h"
#include "process.h"
#include "scratch.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    SENDER = 815,
    MESSAGES = 2000,
    THREADS = 4,
};

/* What was shown, as one text: "SENDER:payload|". */
struct shown {
    char text[512];
    int count;
    int stop_after; /* 0: never */
};

static int show(void *context, const struct gproc_mail *mail)
{
    struct shown *shown = context;
    size_t length = strlen(shown->text);

    snprintf(shown->text + length, sizeof(shown->text) - length, "%d:%.*s|", (int)mail->sender,
             (int)mail->payload_bytes, (const char *)mail->payload);
    shown->count++;
    return shown->count == shown->stop_after ? 42 : 0;
}

static void assert_waiting(struct scratch *scratch, pid_t pid, const char *expected)
{
    struct shown shown = {.text = ""};

    assert_int_equal(gproc_peek(scratch->gproc, pid, SCRATCH_DEADLINE_MS, show, &shown), 0);
    assert_string_equal(shown.text, expected);
}

/* --- Sending */

static void what_is_sent_is_byte_for_byte_what_the_go_package_writes(void **state)
{
    static const char zeros[3];
    struct scratch *scratch = *state;
    uint8_t *ours;
    uint8_t *theirs;
    size_t our_bytes;
    size_t their_bytes;

    assert_int_equal(gproc_send(scratch->gproc, BOX, "reload", 6, GPROC_NOW), 0);
    assert_int_equal(gproc_send_as(scratch->gproc, BOX, -3, zeros, 3, GPROC_NOW), 0);
    assert_int_equal(gproc_send_as(scratch->gproc, BOX, INT32_MAX, NULL, 0, GPROC_NOW), 0);
    scratch_send(scratch, OTHER, getpid(), "reload", 6);
    scratch_send(scratch, OTHER, -3, zeros, 3);
    scratch_send(scratch, OTHER, INT32_MAX, "", 0);
    ours = scratch_read(scratch_box(scratch, BOX), &our_bytes);
    theirs = scratch_read(scratch_box(scratch, OTHER), &their_bytes);
    assert_int_equal(our_bytes, their_bytes);
    assert_memory_equal(ours, theirs, our_bytes);
    free(ours);
    free(theirs);
}

static void files_are_made_with_the_modes_of_the_go_package(void **state)
{
    struct scratch *scratch = *state;
    const mode_t umask_was = umask(0);
    struct stat status;
    int result;

    scratch_delete(scratch->mailboxes);
    scratch_delete(scratch->locks);
    result = gproc_send(scratch->gproc, BOX, "x", 1, GPROC_NOW);
    umask(umask_was);
    assert_int_equal(result, 0);
    assert_int_equal(stat(scratch->mailboxes, &status), 0);
    assert_int_equal(status.st_mode, S_IFDIR | 0777);
    assert_int_equal(stat(scratch->locks, &status), 0);
    assert_int_equal(status.st_mode, S_IFDIR | 0777);
    assert_int_equal(stat(scratch_box(scratch, BOX), &status), 0);
    assert_int_equal(status.st_mode, S_IFREG | 0666);
    assert_int_equal(stat(scratch_lock_file(scratch, BOX), &status), 0);
    assert_int_equal(status.st_mode, S_IFREG | 0600);
}

static void what_cannot_be_sent_is_refused_before_anything_is_made(void **state)
{
    struct scratch *scratch = *state;
    struct gproc *gproc = scratch->gproc;

    assert_int_equal(gproc_send(gproc, 0, "x", 1, GPROC_NOW), -EINVAL);
    assert_int_equal(gproc_send(gproc, -1, "x", 1, GPROC_NOW), -EINVAL);
    assert_int_equal(gproc_send(gproc, BOX, "x", GPROC_PAYLOAD_MAX_BYTES + 1, GPROC_NOW),
                     -EMSGSIZE);
    assert_int_equal(gproc_send(gproc, BOX, "x", SIZE_MAX, GPROC_NOW), -EMSGSIZE);
    /* Both directories are empty: rmdir says so. */
    assert_int_equal(rmdir(scratch->mailboxes), 0);
    assert_int_equal(rmdir(scratch->locks), 0);
}

static void a_held_lock_is_waited_for_as_long_as_was_said_and_nothing_is_sent(void **state)
{
    struct scratch *scratch = *state;
    int lock = scratch_lock(scratch, BOX);
    struct shown shown = {.text = ""};
    int64_t before_ms;

    assert_int_equal(gproc_send(scratch->gproc, BOX, "x", 1, GPROC_NOW), -EAGAIN);
    before_ms = process_clock_ms();
    assert_int_equal(gproc_send(scratch->gproc, BOX, "x", 1, 50), -ETIMEDOUT);
    assert_true(process_clock_ms() - before_ms >= 49); /* both clocks are cut to milliseconds */
    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, &shown), -EAGAIN);
    assert_int_equal(scratch_size(scratch, BOX), -1);
    /* Another mailbox is another lock. */
    assert_int_equal(gproc_send(scratch->gproc, OTHER, "x", 1, GPROC_NOW), 0);
    close(lock);
    assert_int_equal(gproc_send(scratch->gproc, BOX, "x", 1, GPROC_NOW), 0);
}

static void a_child_that_was_forked_meanwhile_does_not_keep_the_lock(void **state)
{
    struct scratch *scratch = *state;
    struct gproc_place locks;
    struct gproc_lock lock;
    pid_t child;
    int result;

    assert_int_equal(gproc_place_init(&locks, scratch->locks, 0777), 0);
    assert_int_equal(gproc_lock_take(&lock, &locks, BOX, gproc_creator_self, GPROC_NOW), 0);
    child = process_fork(0);
    if (child == 0) {
        pause();
        _exit(0);
    }
    gproc_lock_release(&lock);
    result = gproc_send(scratch->gproc, BOX, "x", 1, GPROC_NOW);
    kill(child, SIGKILL);
    process_wait(child, SCRATCH_DEADLINE_MS);
    gproc_place_release(&locks);
    assert_int_equal(result, 0);
}

static void what_is_no_mailbox_is_not_written_to(void **state)
{
    struct scratch *scratch = *state;
    char target[400];
    size_t size_bytes;
    struct shown shown = {.text = ""};
    int i;

    snprintf(target, sizeof(target), "%s/target", scratch->path);
    for (i = 0; i < 4; i++) {
        close(open(target, O_CREAT | O_WRONLY, 0600));
        if (i == 0)
            assert_int_equal(symlink(target, scratch_box(scratch, BOX)), 0);
        else if (i == 1)
            assert_int_equal(link(target, scratch_box(scratch, BOX)), 0);
        else if (i == 2)
            assert_int_equal(mkfifo(scratch_box(scratch, BOX), 0600), 0);
        else
            assert_int_equal(mkdir(scratch_box(scratch, BOX), 0700), 0);
        assert_int_equal(gproc_send(scratch->gproc, BOX, "x", 1, GPROC_NOW), -EEXIST);
        assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, &shown), -ENOENT);
        free(scratch_read(target, &size_bytes));
        assert_int_equal(size_bytes, 0);
        assert_int_equal(remove(scratch_box(scratch, BOX)), 0);
    }
}

static void directories_that_are_deleted_in_use_are_made_again(void **state)
{
    struct scratch *scratch = *state;

    assert_int_equal(gproc_send(scratch->gproc, BOX, "lost", 4, GPROC_NOW), 0);
    scratch_delete(scratch->mailboxes);
    assert_int_equal(gproc_send_as(scratch->gproc, BOX, SENDER, "a", 1, GPROC_NOW), 0);
    assert_waiting(scratch, BOX, "815:a|");
    scratch_delete(scratch->locks);
    assert_int_equal(gproc_send_as(scratch->gproc, BOX, SENDER, "b", 1, GPROC_NOW), 0);
    assert_waiting(scratch, BOX, "815:a|815:b|");
}

/* --- Looking */

static void peeking_shows_all_in_order_and_takes_nothing(void **state)
{
    struct scratch *scratch = *state;
    off_t size;

    scratch_send_text(scratch, BOX, SENDER, "one");
    scratch_send_text(scratch, BOX, 0, "");
    scratch_append(scratch, BOX, "damage", 6);
    scratch_send_text(scratch, BOX, -1, "three");
    size = scratch_size(scratch, BOX);
    assert_waiting(scratch, BOX, "815:one|0:|-1:three|");
    assert_waiting(scratch, BOX, "815:one|0:|-1:three|");
    assert_int_equal(scratch_size(scratch, BOX), size);
}

static void peeking_ends_where_it_is_told_and_says_why(void **state)
{
    struct scratch *scratch = *state;
    struct shown shown = {.stop_after = 2};

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_send_text(scratch, BOX, 2, "two");
    scratch_send_text(scratch, BOX, 3, "three");
    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, &shown), 42);
    assert_string_equal(shown.text, "1:one|2:two|");
    assert_int_equal(gproc_peek(scratch->gproc, OTHER, GPROC_NOW, show, &shown), -ENOENT);
    assert_int_equal(gproc_peek(scratch->gproc, 0, GPROC_NOW, show, &shown), -EINVAL);
}

static int answer(void *context, const struct gproc_mail *mail)
{
    struct scratch *scratch = context;

    return gproc_send_as(scratch->gproc, BOX, SENDER, mail->payload, mail->payload_bytes,
                         GPROC_NOW);
}

static void who_is_shown_a_message_may_send_to_the_same_mailbox(void **state)
{
    struct scratch *scratch = *state;

    scratch_send_text(scratch, BOX, 1, "one");
    scratch_send_text(scratch, BOX, 2, "two");
    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, answer, scratch), 0);
    assert_waiting(scratch, BOX, "1:one|2:two|815:one|815:two|");
}

static void an_empty_mailbox_of_zeros_shows_nothing_whatever_its_size(void **state)
{
    struct scratch *scratch = *state;
    struct shown shown = {.text = ""};

    scratch_send_text(scratch, BOX, 1, "one");
    assert_int_equal(truncate(scratch_box(scratch, BOX), 0), 0);
    assert_waiting(scratch, BOX, "");
    assert_int_equal(truncate(scratch_box(scratch, BOX), 64 * 1024 * 1024), 0);
    assert_waiting(scratch, BOX, "");
    scratch_send_text(scratch, BOX, 2, "after");
    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, show, &shown), 0);
    assert_string_equal(shown.text, "2:after|");
}

/* --- Listing */

struct listing {
    struct gproc_mailbox_info infos[16];
    int count;
};

static int collect(void *context, const struct gproc_mailbox_info *info)
{
    struct listing *listing = context;

    listing->infos[listing->count++] = *info;
    return listing->count == 16;
}

static const struct gproc_mailbox_info *listed(const struct listing *listing, pid_t pid)
{
    for (int i = 0; i < listing->count; i++) {
        if (listing->infos[i].pid == pid)
            return &listing->infos[i];
    }
    fail_msg("%d is not listed", (int)pid);
    return NULL;
}

static void listing_tells_size_payload_and_time_of_every_mailbox(void **state)
{
    struct scratch *scratch = *state;
    struct listing listing = {.count = 0};
    const struct gproc_mailbox_info *info;
    struct stat status;

    scratch_send_text(scratch, BOX, 1, "four");
    scratch_append(scratch, BOX, "damage", 6);
    scratch_send_text(scratch, BOX, 1, "seventh");
    scratch_age(scratch, BOX, 3600.5);
    scratch_append(scratch, OTHER, "", 0);
    scratch_append(scratch, INT32_MAX, "short", 5);
    assert_int_equal(gproc_list(scratch->gproc, collect, &listing), 0);
    assert_int_equal(listing.count, 3);
    info = listed(&listing, BOX);
    assert_int_equal(stat(scratch_box(scratch, BOX), &status), 0);
    assert_int_equal(info->error, 0);
    assert_int_equal(info->file_bytes, 12 + 4 + 6 + 12 + 7);
    assert_int_equal(info->payload_bytes, 11);
    assert_int_equal(info->message_count, 2);
    assert_int_equal(info->modified_s, status.st_mtim.tv_sec);
    assert_int_equal(info->modified_ns, status.st_mtim.tv_nsec);
    info = listed(&listing, OTHER);
    assert_int_equal(info->file_bytes, 0);
    assert_int_equal(info->message_count, 0);
    info = listed(&listing, INT32_MAX);
    assert_int_equal(info->file_bytes, 5);
    assert_int_equal(info->payload_bytes, 0);
}

static void listing_passes_over_what_is_no_mailbox(void **state)
{
    static const char *const names[] = {"0", "0123", "-1", "2147483648", "x", ".hidden", "1 "};
    struct scratch *scratch = *state;
    struct listing listing = {.count = 0};
    char path[400];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", scratch->mailboxes, names[i]);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    assert_int_equal(mkdir(scratch_box(scratch, 1), 0700), 0);
    assert_int_equal(mkfifo(scratch_box(scratch, 2), 0600), 0);
    assert_int_equal(symlink("x", scratch_box(scratch, 3)), 0);
    assert_int_equal(link(path, scratch_box(scratch, 4)), 0);
    assert_int_equal(gproc_list(scratch->gproc, collect, &listing), 0);
    assert_int_equal(listing.count, 0);
}

static void listing_looks_at_the_directory_that_is_there_now(void **state)
{
    struct scratch *scratch = *state;
    struct listing listing = {.count = 0};

    scratch_send_text(scratch, BOX, 1, "x");
    scratch_delete(scratch->mailboxes);
    scratch_send_text(scratch, OTHER, 1, "x");
    assert_int_equal(gproc_list(scratch->gproc, collect, &listing), 0);
    assert_int_equal(listing.count, 1);
    assert_int_equal(listing.infos[0].pid, OTHER);
}

/* --- Opening */

static void defaults_come_from_the_environment(void **state)
{
    struct scratch *scratch = *state;
    const char *was = getenv("TMPDIR");
    char *tmpdir = was == NULL ? NULL : strdup(was);
    struct gproc *gproc;

    scratch_delete(scratch->mailboxes);
    scratch_delete(scratch->locks);
    setenv("TMPDIR", scratch->path, 1);
    assert_int_equal(gproc_open(NULL, &gproc), 0);
    if (tmpdir == NULL)
        unsetenv("TMPDIR");
    else
        setenv("TMPDIR", tmpdir, 1);
    free(tmpdir);
    assert_int_equal(gproc_send_as(gproc, BOX, 1, "x", 1, GPROC_NOW), 0);
    assert_int_equal(access(scratch_box(scratch, BOX), F_OK), 0);
    assert_int_equal(access(scratch_lock_file(scratch, BOX), F_OK), 0);
    gproc_close(gproc);
}

static void what_cannot_be_opened_is_told_and_leaves_nothing(void **state)
{
    struct scratch *scratch = *state;
    struct gproc *gproc = NULL;
    char missing[400];
    char linked[400];
    char file[400];
    const struct {
        struct gproc_options options;
        int error;
    } rows[] = {
        {{missing, scratch->locks}, -ENOENT},
        {{scratch->mailboxes, missing}, -ENOENT},
        {{file, scratch->locks}, -ENOTDIR},
        {{linked, scratch->locks}, -ENOTDIR}, /* or ELOOP, as the kernel pleases */
    };

    snprintf(missing, sizeof(missing), "%s/missing/gproc", scratch->path);
    snprintf(linked, sizeof(linked), "%s/linked", scratch->path);
    snprintf(file, sizeof(file), "%s/file", scratch->path);
    assert_int_equal(symlink(scratch->mailboxes, linked), 0);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int result = gproc_open(&rows[i].options, &gproc);

        assert_true(result == rows[i].error || (i == 3 && result == -ELOOP));
        assert_null(gproc);
    }
    gproc_close(NULL);
}

static void the_version_is_three_numbers(void **state)
{
    int numbers[3];
    char rest;

    (void)state;
    assert_int_equal(
        sscanf(gproc_version(), "%d.%d.%d%c", &numbers[0], &numbers[1], &numbers[2], &rest), 3);
}

/* --- At once */

static void *send_many(void *context)
{
    struct scratch *scratch = context;
    intptr_t failed = 0;

    for (int i = 0; i < MESSAGES; i++)
        failed += gproc_send(scratch->gproc, BOX, &i, sizeof(i), SCRATCH_DEADLINE_MS) != 0;
    return (void *)failed;
}

static int count(void *context, const struct gproc_mail *mail)
{
    int *counted = context;

    assert_int_equal(mail->payload_bytes, sizeof(int));
    (*counted)++;
    return 0;
}

static void threads_share_one_handle(void **state)
{
    struct scratch *scratch = *state;
    pthread_t threads[THREADS];
    int counted = 0;

    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, scratch), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(gproc_peek(scratch->gproc, BOX, GPROC_NOW, count, &counted), 0);
    assert_int_equal(counted, THREADS * MESSAGES);
}

/* Answers with the same text until it is told "end"; its own context, as another program would
 * have. */
static int serve(const struct scratch *scratch, int ready)
{
    const struct gproc_options options = {scratch->mailboxes, scratch->locks};
    struct gproc_owner *owner;
    struct gproc *gproc;
    struct gproc_mail mail;
    bool at_end = false;

    if (gproc_open(&options, &gproc) < 0 ||
        gproc_owner_open(gproc, getpid(), 0, SCRATCH_DEADLINE_MS, &owner) < 0 ||
        write(ready, "", 1) != 1)
        return 1;
    while (!at_end) {
        if (gproc_owner_receive(owner, &mail, SCRATCH_DEADLINE_MS) < 0 ||
            gproc_send(gproc, mail.sender, mail.payload, mail.payload_bytes, SCRATCH_DEADLINE_MS))
            return 2;
        at_end = mail.payload_bytes == 3 && memcmp(mail.payload, "end", 3) == 0;
    }
    if (gproc_owner_close(owner, GPROC_NOW) < 0)
        return 3;
    gproc_close(gproc);
    return 0;
}

static void two_processes_converse(void **state)
{
    static const char *const texts[] = {"hello", "", "a longer question, perhaps", "end"};
    struct scratch *scratch = *state;
    struct gproc_owner *owner;
    struct gproc_mail mail;
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(gproc_owner_open(scratch->gproc, getpid(), 0, GPROC_NOW, &owner), 0);
    child = process_fork(0);
    if (child == 0)
        _exit(serve(scratch, ready[1]));
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(
            gproc_send(scratch->gproc, child, texts[i], strlen(texts[i]), SCRATCH_DEADLINE_MS), 0);
        assert_int_equal(gproc_owner_receive(owner, &mail, SCRATCH_DEADLINE_MS), 0);
        assert_int_equal(mail.sender, child);
        assert_int_equal(mail.payload_bytes, strlen(texts[i]));
        assert_memory_equal(mail.payload, texts[i], strlen(texts[i]));
    }
    assert_int_equal(process_wait(child, SCRATCH_DEADLINE_MS), 0);
    assert_int_equal(gproc_owner_close(owner, GPROC_NOW), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_sent_is_byte_for_byte_what_the_go_package_writes),
        TEST(files_are_made_with_the_modes_of_the_go_package),
        TEST(what_cannot_be_sent_is_refused_before_anything_is_made),
        TEST(a_held_lock_is_waited_for_as_long_as_was_said_and_nothing_is_sent),
        TEST(a_child_that_was_forked_meanwhile_does_not_keep_the_lock),
        TEST(what_is_no_mailbox_is_not_written_to),
        TEST(directories_that_are_deleted_in_use_are_made_again),
        TEST(peeking_shows_all_in_order_and_takes_nothing),
        TEST(peeking_ends_where_it_is_told_and_says_why),
        TEST(who_is_shown_a_message_may_send_to_the_same_mailbox),
        TEST(an_empty_mailbox_of_zeros_shows_nothing_whatever_its_size),
        TEST(listing_tells_size_payload_and_time_of_every_mailbox),
        TEST(listing_passes_over_what_is_no_mailbox),
        TEST(listing_looks_at_the_directory_that_is_there_now),
        TEST(defaults_come_from_the_environment),
        TEST(what_cannot_be_opened_is_told_and_leaves_nothing),
        TEST(the_version_is_three_numbers),
        TEST(threads_share_one_handle),
        TEST(two_processes_converse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
