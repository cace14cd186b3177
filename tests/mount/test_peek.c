/* `.peek`: what waits as an ordinary file, of which nothing is taken, and which stays as it was. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "vectors.h"
#include "view.h"

enum {
    BOX = 4711,
    CHILD_MS = 15000, /* the usual is at once */
};

static const char peek[] = ".peek";

/* "one", "two" and "three" as lines, of which `peek` shows 14 bytes. */
static void send_three(struct mount *mount)
{
    behind_expect_sent(mount, BOX, 1, "one\n");
    through_send(mount, BOX, "two\n");
    behind_expect_sent(mount, BOX, 3, "three\n");
}

/* Receives one message, which must be this. */
static void take_one(struct mount *mount, const char *text)
{
    int fd = through_open(mount, BOX, THROUGH_RECEIVE);

    through_expect_read(fd, text);
    assert_success(close(fd));
}

/* --- Tools ------------------------------------------------------------------------------------ */

static void tools_show_what_waits_and_take_nothing(void **state)
{
    static const char *const shells[] = {"dash", "bash", "zsh"};
    static const struct {
        const char *tool;
        const char *line; /* in a directory of its own, with F */
        const char *output;
    } rows[] = {
        {"cat", "cat $F", "one\ntwo\nthree\n"},
        {"cat", "cat <$F", "one\ntwo\nthree\n"},
        {"grep", "grep -n t $F", "2:two\n3:three\n"},
        {"grep", "grep -rc t $M/.peek | sed 's,.*:,,'", "2\n"},
        {"wc", "wc -c <$F | tr -d ' '", "14\n"},
        {"wc", "wc -l $F | tr -d ' ' | cut -c 1", "3\n"},
        {"head", "head -n 1 $F", "one\n"},
        {"head", "head -c -6 $F", "one\ntwo\n"},
        {"tail", "tail -n 1 $F", "three\n"},
        {"tail", "tail -c 4 $F", "ree\n"},
        {"tac", "tac $F", "three\ntwo\none\n"},
        {"less", "less -F $F", "one\ntwo\nthree\n"},
        {"cp", "cp $F copy && cat copy && rm copy", "one\ntwo\nthree\n"},
        {"tar", "tar -C $M/.peek -cf - 4711 | tar -xOf -", "one\ntwo\nthree\n"},
        {"dd", "dd if=$F bs=1 skip=4 count=4 2>/dev/null", "two\n"},
        {"dd", "dd if=$F bs=4 skip=2 2>/dev/null", "three\n"},
        {"cmp", "cat $F >copy && cmp $F copy && rm copy", ""},
        {"awk", "awk '{print NR $1}' $F", "1one\n2two\n3three\n"},
        {"sed", "sed -n '$p' $F", "three\n"},
        {"sort", "sort $F", "one\nthree\ntwo\n"},
        {"stat", "stat -c %s $F", "14\n"},
        {"sh", "{ read -r a; read -r b; echo $b $a; } <$F", "two one\n"},
        {"sh", "[ -s $F ] && [ -f $F ] && [ -r $F ] && echo yes", "yes\n"},
        {"perl", "perl -e 'open(F, $ARGV[0]); seek(F, -6, 2); print <F>' $F", "three\n"},
    };
    struct mount *mount = mount_of(state);

    send_three(mount);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!process_has(rows[i].tool)) {
            print_message("not tried: there is no %s\n", rows[i].tool);
            continue;
        }
        for (size_t j = 0; j < sizeof(shells) / sizeof(shells[0]); j++) {
            if (process_has(shells[j]))
                through_expect_run(mount, shells[j], rows[i].output, "F=$M/.peek/%d; %s", BOX,
                                   rows[i].line);
        }
        behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", NULL);
    }
    through_expect_size(mount, BOX, 14);
}

static void python_maps_it_and_sends_it(void **state)
{
    static const char script[] = "import mmap, os, sys\n"
                                 "f = open(sys.argv[1], \"rb\")\n"
                                 "with mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE,\n"
                                 "               prot=mmap.PROT_READ) as m:\n"
                                 "    assert m[:] == b\"one\\ntwo\\nthree\\n\", m[:]\n"
                                 "    assert m.rfind(b\"t\") == 8\n"
                                 "r, w = os.pipe()\n"
                                 "assert os.sendfile(w, f.fileno(), 4, 100) == 10\n"
                                 "assert os.read(r, 100) == b\"two\\nthree\\n\"\n"
                                 "assert f.read() == b\"one\\ntwo\\nthree\\n\"\n"
                                 "print(os.fstat(f.fileno()).st_size)\n";
    struct mount *mount = mount_of(state);

    if (!process_has("python3")) {
        print_message("skipped: there is no python3\n");
        skip();
    }
    send_three(mount);
    through_expect_run(mount, "sh", "14\n", "python3 -c '%s' $M/.peek/%d", script, BOX);
    behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", NULL);
}

/* A child's output, read from `*out_fd`. */
static pid_t start_tail(struct mount *mount, int *out_fd)
{
    int ends[2];
    pid_t child;

    assert_success(pipe2(ends, O_CLOEXEC));
    child = process_fork(0);
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO); /* where it fails there is no output */
        execlp("tail", "tail", "-n", "+1", "-s", "0.1", "-f", view_path(mount, peek, BOX), NULL);
        _exit(127);
    }
    assert_true(child > 0);
    close(ends[1]);
    *out_fd = ends[0];
    return child;
}

/* Waits until the child has printed just this. */
static void expect_printed(int fd, const char *text)
{
    int64_t deadline_ms = process_clock_ms() + CHILD_MS;
    size_t length = strlen(text);
    char printed[256];
    size_t done = 0;

    while (done < length) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left_ms = deadline_ms - process_clock_ms();
        ssize_t got = 0;

        if (left_ms > 0 && poll(&ready, 1, (int)left_ms) == 1)
            got = read(fd, printed + done, length - done);
        if (got <= 0)
            fail_msg("tail printed \"%.*s\" and no more, instead of \"%s\"", (int)done, printed,
                     text);
        done += (size_t)got;
    }
    assert_memory_equal(printed, text, length);
}

static void tail_f_prints_what_arrives_and_takes_nothing(void **state)
{
    struct mount *mount = mount_of(state);
    pid_t tail;
    int fd;

    send_three(mount);
    tail = start_tail(mount, &fd);
    expect_printed(fd, "one\ntwo\nthree\n");
    through_send(mount, BOX, "four\n");
    expect_printed(fd, "four\n");
    behind_expect_sent(mount, BOX, 1, "five\n");
    expect_printed(fd, "five\n");
    behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", "four\n", "five\n", NULL);
    take_one(mount, "one\n");
    through_send(mount, BOX, "six\n");
    expect_printed(fd, "six\n");
    through_expect_texts(mount, BOX, "two\n", "three\n", "four\n", "five\n", "six\n", NULL);
    through_send(mount, BOX, "seven\n");
    expect_printed(fd, "seven\n");
    assert_success(kill(tail, SIGTERM));
    assert_int_equal(process_wait(tail, CHILD_MS), 128 + SIGTERM);
    close(fd);
    through_expect_texts(mount, BOX, "seven\n", NULL);
}

/* --- One queue -------------------------------------------------------------------------------- */

static void what_is_in_flight_and_on_disk_is_one_queue_in_order(void **state)
{
    struct mount *mount = mount_of(state);
    char part[2];
    int fd;

    send_three(mount);
    take_one(mount, "one\n");
    view_expect_text(mount, peek, BOX, "two\nthree\n");
    behind_expect_sent(mount, BOX, 1, "four\n");
    through_send(mount, BOX, "five\n");
    view_expect_text(mount, peek, BOX, "two\nthree\nfour\nfive\n");

    /* Read in part and given back, it is the first again. */
    fd = through_open(mount, BOX, THROUGH_RECEIVE);
    assert_int_equal(read(fd, part, sizeof(part)), sizeof(part));
    assert_success(close(fd));
    view_expect_text(mount, peek, BOX, "two\nthree\nfour\nfive\n");
    through_expect_size(mount, BOX, 20);
    through_expect_texts(mount, BOX, "two\n", "three\n", "four\n", "five\n", NULL);
    view_expect_text(mount, peek, BOX, "");
}

static void what_the_last_mount_left_is_shown(void **state)
{
    struct mount *mount = mount_of(state);

    send_three(mount);
    take_one(mount, "one\n");
    assert_int_equal(mount_stop(mount), 0);
    assert_int_equal(mount_start(mount), 0);
    view_expect_text(mount, peek, BOX, "two\nthree\n");
    through_expect_texts(mount, BOX, "two\n", "three\n", NULL);
}

static void empty_mailbox_is_an_empty_file(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;

    through_expect_run(mount, "sh", "", ": >$M/%d; cat $M/.peek/%d", BOX, BOX);
    assert_success(stat(view_path(mount, peek, BOX), &status));
    assert_int_equal(status.st_size, 0);
    assert_true(S_ISREG(status.st_mode));
    behind_expect_sent(mount, BOX, 1, "");
    view_expect_text(mount, peek, BOX, "");
    through_expect_run(mount, "sh", "", "find $M/.peek -type f ! -empty");
}

static void missing_mailbox_is_enoent(void **state)
{
    struct mount *mount = mount_of(state);

    assert_errno(open(view_path(mount, peek, BOX), O_RDONLY), ENOENT);
    assert_errno(access(view_path(mount, peek, BOX), F_OK), ENOENT);
    assert_errno(access(mount_path(mount, "%s/.peek/0", mount->mnt), F_OK), ENOENT);
    assert_errno(access(mount_path(mount, "%s/.peek/x", mount->mnt), F_OK), ENOENT);
    behind_expect_sent(mount, BOX, 1, "one");
    view_expect_text(mount, peek, BOX, "one");
    through_expect_run(mount, "sh", "", "rm $M/%d", BOX);
    assert_errno(open(view_path(mount, peek, BOX), O_RDONLY), ENOENT);
}

static void opening_to_write_is_refused(void **state)
{
    static const int flags[] = {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_WRONLY | O_TRUNC,
                                O_WRONLY | O_CREAT | O_TRUNC};
    struct mount *mount = mount_of(state);

    send_three(mount);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        assert_errno(open(view_path(mount, peek, BOX), flags[i], 0666), EACCES);
    view_expect_text(mount, peek, BOX, "one\ntwo\nthree\n");
    behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", NULL);
}

static void directory_names_those_who_have_a_mailbox(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "one");
    behind_expect_sent(mount, 1, 1, "");
    through_expect_run(mount, "sh", "1\n4711\n", "ls $M/.peek");
    through_expect_run(mount, "sh", "1\n4711\n", "ls $M");
    through_expect_run(mount, "sh", "0 1\n3 4711\n",
                       "ls -l $M/.peek | awk 'NR > 1 {print $5, $NF}'");
}

static void mount_that_only_looks_shows(void **state)
{
    struct mount *mount = mount_of(state);

    behind_expect_sent(mount, BOX, 1, "one\n");
    behind_expect_sent(mount, BOX, 1, "two\n");
    through_expect_run(mount, "sh", "one\ntwo\n8\n", "cat $M/.peek/%d; stat -c %%s $M/.peek/%d",
                       BOX, BOX);
    behind_expect_texts(mount, BOX, "one\n", "two\n", NULL);
}

/* --- An open file stays as it was ------------------------------------------------------------- */

static void drain_through(struct mount *mount)
{
    through_expect_run(mount, "sh", "one\ntwo\nthree\n", "cat $M/%d", BOX);
}

static void drain_behind(struct mount *mount)
{
    uint8_t *drained;

    assert_true(behind_drain(mount, BOX, &drained) > 0);
    mount_keep(mount, drained);
}

/* As somebody does who knows of no lock. */
static void truncate_behind(struct mount *mount)
{
    assert_success(truncate(behind_box(mount, BOX), 0));
}

static void truncate_through(struct mount *mount)
{
    assert_success(truncate(through_box(mount, BOX), 0));
}

static void remove_behind(struct mount *mount)
{
    assert_success(unlink(behind_box(mount, BOX)));
}

static void remove_through(struct mount *mount)
{
    assert_success(unlink(through_box(mount, BOX)));
}

static const struct {
    const char *name;
    void (*happens)(struct mount *);
} losses[] = {
    {"drained through the mount", drain_through}, {"drained behind it", drain_behind},
    {"truncated behind it", truncate_behind},     {"truncated through the mount", truncate_through},
    {"removed behind it", remove_behind},         {"removed through the mount", remove_through},
};

enum {
    LOSSES = sizeof(losses) / sizeof(losses[0]),
};

static void lose(struct mount *mount, size_t which)
{
    print_message("%s\n", losses[which].name);
    losses[which].happens(mount);
}

static void open_file_keeps_what_it_has_shown(void **state)
{
    static const char shown[] = "one\ntwo\nthree\n";
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < LOSSES; i++) {
        int fd;

        send_three(mount);
        fd = view_open(mount, peek, BOX);
        view_expect_more(mount, fd, shown);
        lose(mount, i);
        view_expect_stays(fd, shown, strlen(shown));
        view_expect_more(mount, fd, "");
        assert_int_equal(view_size(fd), strlen(shown));
        view_expect_stays(fd, shown, strlen(shown));
        assert_success(close(fd));
        if (access(through_box(mount, BOX), F_OK) == 0)
            view_expect_text(mount, peek, BOX, "");
    }
}

/* The first look is a size, or a single byte of many. */
static void open_file_keeps_what_was_there_when_it_was_looked_at_first(void **state)
{
    static const char shown[] = "one\ntwo\nthree\n";
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < LOSSES; i++) {
        for (int by_size = 0; by_size < 2; by_size++) {
            char byte;
            int fd;

            send_three(mount);
            fd = view_open(mount, peek, BOX);
            if (by_size)
                assert_int_equal(view_size(fd), strlen(shown));
            else
                assert_int_equal(pread(fd, &byte, 1, 0), 1);
            lose(mount, i);
            view_expect_more(mount, fd, shown);
            view_expect_stays(fd, shown, strlen(shown));
            assert_success(close(fd));
        }
    }
}

/* What comes in place of what has gone has as many bytes, so that only the content tells. */
static void refilled_with_other_bytes_it_shows_the_old_ones_and_then_the_new(void **state)
{
    static const char before[] = "one\ntwo\nthree\n";
    static const char both[] = "one\ntwo\nthree\nONE\nTWO\nTHREE\n";
    struct mount *mount = mount_of(state);

    for (size_t i = 0; i < LOSSES; i++) {
        int fd;

        send_three(mount);
        fd = view_open(mount, peek, BOX);
        view_expect_more(mount, fd, before);
        lose(mount, i);
        behind_expect_sent(mount, BOX, 1, "ONE\n");
        behind_expect_sent(mount, BOX, 1, "TWO\n");
        behind_expect_sent(mount, BOX, 3, "THREE\n");
        view_expect_stays(fd, before, strlen(before));
        view_expect_more(mount, fd, "ONE\nTWO\nTHREE\n");
        view_expect_stays(fd, both, strlen(both));
        assert_success(close(fd));
        through_expect_texts(mount, BOX, "ONE\n", "TWO\n", "THREE\n", NULL);
    }
}

static void each_open_file_has_a_picture_of_its_own(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat status;
    int first;
    int second;

    send_three(mount);
    first = view_open(mount, peek, BOX);
    view_expect_more(mount, first, "one\ntwo\nthree\n");
    take_one(mount, "one\n");
    second = view_open(mount, peek, BOX);
    view_expect_more(mount, second, "two\nthree\n");
    assert_int_equal(view_size(first), 14);
    assert_int_equal(view_size(second), 10);
    assert_success(stat(view_path(mount, peek, BOX), &status));
    assert_int_equal(status.st_size, 10);
    through_expect_texts(mount, BOX, "two\n", "three\n", NULL);
    assert_success(stat(view_path(mount, peek, BOX), &status));
    assert_int_equal(status.st_size, 0);
    assert_int_equal(view_size(first), 14);
    assert_int_equal(view_size(second), 10);
    view_expect_stays(first, "one\ntwo\nthree\n", 14);
    view_expect_stays(second, "two\nthree\n", 10);
    assert_success(close(first));
    view_expect_stays(second, "two\nthree\n", 10);
    assert_success(close(second));
}

static ino_t inode_in_directory(const char *path, const char *name)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    ino_t inode = 0;

    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, name) == 0)
            inode = entry->d_ino;
    }
    closedir(directory);
    return inode;
}

static void inode_number_is_the_same_whoever_asks(void **state)
{
    struct mount *mount = mount_of(state);
    struct stat by_path;
    struct stat by_file;
    struct stat mailbox;
    int fds[3];
    ino_t inode;

    send_three(mount);
    inode = inode_in_directory(mount_path(mount, "%s/.peek", mount->mnt), "4711");
    assert_success(stat(through_box(mount, BOX), &mailbox));
    assert_true(inode != 0 && inode != mailbox.st_ino);
    for (int i = 0; i < 3; i++) {
        assert_success(stat(view_path(mount, peek, BOX), &by_path));
        fds[i] = view_open(mount, peek, BOX);
        assert_success(fstat(fds[i], &by_file));
        assert_int_equal(by_path.st_ino, inode);
        assert_int_equal(by_file.st_ino, inode);
        assert_int_equal(by_path.st_blocks, 0);
        assert_int_equal(by_file.st_blocks, 0);
        assert_int_equal(by_file.st_mtim.tv_sec, by_path.st_mtim.tv_sec);
        assert_int_equal(by_file.st_uid, mailbox.st_uid);
    }
    for (int i = 0; i < 3; i++)
        assert_success(close(fds[i]));
    through_expect_run(mount, "sh", NULL, "test $(du -k $M/.peek/%d | cut -f 1) -eq 0", BOX);
}

/* --- It grows at its end ---------------------------------------------------------------------- */

static void at_its_end_it_grows_by_what_has_come_since(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_send(mount, BOX, "A");
    behind_expect_sent(mount, BOX, 1, "B");
    fd = view_open(mount, peek, BOX);
    view_expect_more(mount, fd, "AB");
    take_one(mount, "A");
    through_send(mount, BOX, "C");
    view_expect_more(mount, fd, "C");
    behind_expect_sent(mount, BOX, 1, "D");
    view_expect_more(mount, fd, "D");
    through_expect_texts(mount, BOX, "B", "C", "D", NULL);
    view_expect_more(mount, fd, "");
    through_send(mount, BOX, "E");
    behind_expect_sent(mount, BOX, 1, "F");
    view_expect_more(mount, fd, "EF");
    take_one(mount, "E");
    behind_expect_sent(mount, BOX, 1, "G");
    take_one(mount, "F");
    take_one(mount, "G");
    behind_expect_sent(mount, BOX, 1, "H");
    view_expect_more(mount, fd, "H"); /* G came and went unseen */
    view_expect_stays(fd, "ABCDEFH", 7);
    assert_success(close(fd));
    view_expect_text(mount, peek, BOX, "H");
}

/* Which one it is, is not a matter of what it says. */
static void message_like_an_earlier_one_is_shown_all_the_same(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_send(mount, BOX, "same");
    through_send(mount, BOX, "same");
    fd = view_open(mount, peek, BOX);
    view_expect_more(mount, fd, "samesame");
    take_one(mount, "same");
    through_send(mount, BOX, "same");
    view_expect_more(mount, fd, "same");
    through_expect_texts(mount, BOX, "same", "same", NULL);
    view_expect_more(mount, fd, "");
    through_send(mount, BOX, "same");
    view_expect_more(mount, fd, "same");
    assert_success(close(fd));
}

static void size_of_the_open_file_grows_too(void **state)
{
    struct mount *mount = mount_of(state);
    int fd;

    through_send(mount, BOX, "one");
    fd = view_open(mount, peek, BOX);
    assert_int_equal(view_size(fd), 3);
    view_expect_more(mount, fd, "one");
    behind_expect_sent(mount, BOX, 1, "two");
    assert_int_equal(view_size(fd), 6);
    assert_int_equal(lseek(fd, 0, SEEK_END), 6);
    assert_int_equal(lseek(fd, 3, SEEK_SET), 3);
    view_expect_more(mount, fd, "two");
    through_expect_texts(mount, BOX, "one", "two", NULL);
    assert_int_equal(view_size(fd), 6);
    through_send(mount, BOX, "three");
    assert_int_equal(view_size(fd), 11);
    assert_success(close(fd));
}

/* --- Damage, and what is not whole yet -------------------------------------------------------- */

static void expect_vector(struct mount *mount, const struct vector *vector, const char *payloads,
                          size_t size_bytes)
{
    int pid = BOX + vector->number;
    struct stat status;

    view_expect_bytes(mount, peek, pid, payloads, size_bytes);
    assert_success(stat(view_path(mount, peek, pid), &status));
    assert_int_equal(status.st_size, size_bytes);
    behind_expect_bytes(mount, pid, vector->mailbox, vector->mailbox_bytes);
}

static void every_vector_shows_exactly_its_payloads(void **state)
{
    struct mount *mount = mount_of(state);
    struct vectors vectors;

    vectors_init(&vectors, "resync.txt");
    for (size_t i = 0; i < vectors.count; i++)
        assert_int_equal(behind_append(mount, BOX + vectors.vectors[i].number,
                                       vectors.vectors[i].mailbox,
                                       vectors.vectors[i].mailbox_bytes),
                         0);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *vector = &vectors.vectors[i];
        char *payloads = mount_keep(mount, malloc(vector->mailbox_bytes + 1));
        size_t size_bytes = 0;

        for (size_t j = 0; j < vector->message_count; j++) {
            memcpy(payloads + size_bytes, vector->messages[j].payload,
                   vector->messages[j].payload_bytes);
            size_bytes += vector->messages[j].payload_bytes;
        }
        expect_vector(mount, vector, payloads, size_bytes);
    }
    vectors_release(&vectors);
}

/* Its payload holds whole frames, which look like messages as long as the rest is missing. */
static void half_appended_message_shows_nothing_until_it_is_whole(void **state)
{
    static const char inner[] = "never to be seen alone";
    enum { INNER_BYTES = BEHIND_HEADER_BYTES + sizeof(inner) - 1, FRAMES = 4 };
    struct mount *mount = mount_of(state);
    uint8_t frame[BEHIND_HEADER_BYTES + FRAMES * INNER_BYTES];
    size_t half = sizeof(frame) - INNER_BYTES / 2;
    int box;
    int lock;
    int fd;

    for (size_t i = 0; i < FRAMES; i++) {
        uint8_t *at = frame + BEHIND_HEADER_BYTES + i * INNER_BYTES;

        behind_frame(at, 1, inner, sizeof(inner) - 1);
        memcpy(at + BEHIND_HEADER_BYTES, inner, sizeof(inner) - 1);
    }
    behind_frame(frame, 1, frame + BEHIND_HEADER_BYTES, sizeof(frame) - BEHIND_HEADER_BYTES);
    behind_expect_sent(mount, BOX, 1, "whole");

    lock = behind_lock(mount, BOX);
    assert_true(lock >= 0);
    box = open(behind_box(mount, BOX), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(box >= 0);
    through_write_once(box, frame, half);
    fd = view_open(mount, peek, BOX);
    view_expect_more(mount, fd, "whole");
    assert_int_equal(view_size(fd), 5);
    view_expect_text(mount, peek, BOX, "whole");
    through_write_once(box, frame + half, sizeof(frame) - half);
    close(box);
    close(lock);

    assert_int_equal(lseek(fd, 5, SEEK_SET), 5);
    {
        size_t size_bytes;
        char *more = view_read_on(mount, fd, &size_bytes);

        assert_int_equal(size_bytes, sizeof(frame) - BEHIND_HEADER_BYTES);
        assert_memory_equal(more, frame + BEHIND_HEADER_BYTES, size_bytes);
    }
    assert_success(close(fd));
}

static void lock_of_a_stopped_process_keeps_nobody_from_looking(void **state)
{
    struct mount *mount = mount_of(state);
    int status;
    pid_t holder;
    int fd;

    behind_expect_sent(mount, BOX, 1, "one\n");
    through_send(mount, BOX, "two\n");
    take_one(mount, "one\n");
    behind_expect_sent(mount, BOX, 1, "three\n");
    fd = view_open(mount, peek, BOX);
    holder = process_fork(0);
    if (holder == 0) {
        if (behind_lock(mount, BOX) >= 0)
            raise(SIGSTOP);
        _exit(1);
    }
    assert_int_equal(waitpid(holder, &status, WUNTRACED), holder);
    assert_true(WIFSTOPPED(status));

    through_expect_run(mount, "sh", "two\nthree\n10\n10\n3\n",
                       "cat $M/.peek/%d; stat -c %%s $M/.peek/%d $M/%d; wc -l <$M/.list/%d; "
                       "ls -l $M $M/.peek $M/.list >/dev/null; cat $M/.stats >/dev/null",
                       BOX, BOX, BOX, BOX);
    view_expect_more(mount, fd, "two\nthree\n");
    assert_success(close(fd));
    assert_success(kill(holder, SIGKILL));
    assert_int_equal(process_wait(holder, CHILD_MS), 128 + SIGKILL);
}

/* --- Much of it ------------------------------------------------------------------------------- */

static void message_of_64_mib_is_shown_whole(void **state)
{
    enum { SIZE_BYTES = 64 << 20 };
    struct mount *mount = mount_of(state);
    uint8_t *payload = through_payload(mount, SIZE_BYTES, 7);
    struct stat status;
    int fd;

    assert_int_equal(behind_send(mount, BOX, 1, payload, SIZE_BYTES), 0);
    assert_success(stat(view_path(mount, peek, BOX), &status));
    assert_int_equal(status.st_size, SIZE_BYTES);
    fd = view_open(mount, peek, BOX);
    assert_int_equal(view_size(fd), SIZE_BYTES);
    drain_behind(mount);
    view_expect_stays(fd, payload, SIZE_BYTES);
    assert_int_equal(view_size(fd), SIZE_BYTES);
    assert_success(close(fd));
}

/*
 * Messages that tell their own length and sum: a line of HEAD_BYTES, then letters. So a text is
 * seen to be made of whole messages, whoever took which of them meanwhile.
 */
enum {
    HEAD_BYTES = 32,
    SELF_MOST_BYTES = 16384,
    BIG_MESSAGES = 1000, /* of together 8 MiB */
    BIG_MESSAGE_BYTES = 8389,
};

static uint32_t sum_of(const uint8_t *bytes, size_t size_bytes)
{
    uint32_t sum = 1;

    for (size_t i = 0; i < size_bytes; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

/* `size_bytes` at least HEAD_BYTES. */
static void compose(uint8_t *to, size_t size_bytes, unsigned sender, unsigned number)
{
    char head[HEAD_BYTES + 1];

    for (size_t i = HEAD_BYTES; i < size_bytes; i++)
        to[i] = (uint8_t)('a' + (i * 7 + number + sender) % 26);
    snprintf(head, sizeof(head), "%07zu %08x %04u %08u \n", size_bytes,
             sum_of(to + HEAD_BYTES, size_bytes - HEAD_BYTES), sender % 10000, number);
    memcpy(to, head, HEAD_BYTES);
}

/* How many whole messages these bytes are, one after the other; or less than 0: -1 - the offset of
 * what is none. */
static ssize_t count_whole(const uint8_t *bytes, size_t size_bytes)
{
    ssize_t count = 0;
    ssize_t offset = 0;

    while (size_bytes > 0) {
        char head[HEAD_BYTES + 1] = "";
        size_t length;
        uint32_t sum;

        if (size_bytes < HEAD_BYTES)
            return -1 - offset;
        memcpy(head, bytes, HEAD_BYTES);
        if (head[HEAD_BYTES - 1] != '\n' || sscanf(head, "%zu %x", &length, &sum) != 2 ||
            length < HEAD_BYTES || length > size_bytes ||
            sum_of(bytes + HEAD_BYTES, length - HEAD_BYTES) != sum)
            return -1 - offset;
        offset += (ssize_t)length;
        bytes += length;
        size_bytes -= length;
        count++;
    }
    return count;
}

enum {
    SENDERS = 2,
    RECEIVERS = 2,
    READERS = 20,
};

/* In memory that all processes share. */
struct traffic {
    atomic_bool over;
    atomic_int torn;     /* looks that saw what is no row of whole messages */
    atomic_int failures; /* calls */
    atomic_size_t sent;
    atomic_size_t received;
    atomic_size_t looks;
};

static struct traffic *traffic_new(void)
{
    struct traffic *traffic =
        mmap(NULL, sizeof(*traffic), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(traffic != MAP_FAILED);
    return traffic;
}

/* Every second one through the mount. What has been sent and not received stays within a bound. */
static int send_along(struct mount *mount, struct traffic *traffic, unsigned sender,
                      size_t waiting_most_count)
{
    static uint8_t payload[SELF_MOST_BYTES];
    int fd = open(through_box(mount, BOX), THROUGH_APPEND, 0666);

    for (unsigned number = 0; !atomic_load(&traffic->over); number++) {
        size_t size_bytes = HEAD_BYTES + number * 97 % (SELF_MOST_BYTES - HEAD_BYTES);
        int error;

        if (atomic_load(&traffic->sent) > atomic_load(&traffic->received) + waiting_most_count) {
            sched_yield();
            continue;
        }
        compose(payload, size_bytes, sender, number);
        error = number % 2 == 0 ? through_write(fd, payload, size_bytes)
                                : behind_send(mount, BOX, getpid(), payload, size_bytes);
        if (error != 0)
            atomic_fetch_add(&traffic->failures, 1);
        atomic_fetch_add(&traffic->sent, 1);
    }
    return close(fd);
}

static int receive_along(struct mount *mount, struct traffic *traffic)
{
    static uint8_t buffer[SELF_MOST_BYTES];
    int fd = open(through_box(mount, BOX), THROUGH_RECEIVE);

    while (!atomic_load(&traffic->over)) {
        ssize_t got = read(fd, buffer, sizeof(buffer));

        if (got > 0)
            atomic_fetch_add(&traffic->received, 1);
        if (got > 0 && count_whole(buffer, (size_t)got) != 1)
            atomic_fetch_add(&traffic->torn, 1);
        if (got < 0)
            atomic_fetch_add(&traffic->failures, 1);
        if (got == 0)
            sched_yield();
    }
    return close(fd);
}

/* One look, to the end. Where that runs away, to what fstat says is the end: a row of whole
 * messages too. The bytes seen, or -1. */
static ssize_t look_once(int fd, uint8_t *buffer, size_t room_bytes, size_t piece_bytes)
{
    struct stat status;
    size_t done = 0;
    size_t end = room_bytes / 2;
    ssize_t got = 1;

    while (got > 0 && done < end) {
        got = read(fd, buffer + done, end - done < piece_bytes ? end - done : piece_bytes);
        done += got > 0 ? (size_t)got : 0;
        if (done == room_bytes / 2) {
            if (fstat(fd, &status) != 0 || (size_t)status.st_size > room_bytes)
                return -1;
            end = (size_t)status.st_size;
        }
    }
    return got < 0 ? -1 : (ssize_t)done;
}

/* The first is described, for whoever has to find out why. */
static void tell_torn(struct traffic *traffic, const uint8_t *bytes, ssize_t size_bytes,
                      ssize_t offset)
{
    ssize_t zeros = offset;

    if (atomic_fetch_add(&traffic->torn, 1) != 0)
        return;
    while (zeros < size_bytes && bytes[zeros] != 0)
        zeros++;
    fprintf(stderr, "of %zd bytes the message at %zd is torn; ", size_bytes, offset);
    fprintf(stderr, zeros < size_bytes ? "zeros at %zd\n" : "no zeros before the end, %zd\n",
            zeros);
}

static int look_along(struct mount *mount, struct traffic *traffic, size_t looks_count)
{
    static uint8_t buffer[16 << 20];

    for (size_t look = 0; look < looks_count; look++) {
        int fd = open(view_path(mount, peek, BOX), O_RDONLY | O_CLOEXEC);
        ssize_t seen = look_once(fd, buffer, sizeof(buffer), 1000 + look * 7919 % 100000);
        ssize_t whole;

        if (seen < 0)
            atomic_fetch_add(&traffic->failures, 1);
        else if ((whole = count_whole(buffer, (size_t)seen)) < 0)
            tell_torn(traffic, buffer, seen, -1 - whole);
        atomic_fetch_add(&traffic->looks, 1);
        close(fd);
    }
    return 0;
}

static void start_traffic(struct mount *mount, struct traffic *traffic, pid_t *children,
                          size_t waiting_most_count)
{
    for (unsigned i = 0; i < SENDERS + RECEIVERS; i++) {
        children[i] = process_fork(0);
        if (i < SENDERS && children[i] == 0)
            _exit(send_along(mount, traffic, i, waiting_most_count) == 0 ? 0 : 1);
        if (children[i] == 0)
            _exit(receive_along(mount, traffic) == 0 ? 0 : 1);
        assert_true(children[i] > 0);
    }
}

static void end_traffic(struct traffic *traffic, const pid_t *children)
{
    atomic_store(&traffic->over, true);
    for (unsigned i = 0; i < SENDERS + RECEIVERS; i++)
        assert_int_equal(process_wait(children[i], CHILD_MS), 0);
}

static void expect_no_trouble(struct traffic *traffic)
{
    int torn = atomic_load(&traffic->torn);
    int failures = atomic_load(&traffic->failures);
    size_t sent = atomic_load(&traffic->sent);
    size_t received = atomic_load(&traffic->received);

    print_message("%zu sent, %zu received, %zu looks\n", sent, received,
                  atomic_load(&traffic->looks));
    munmap(traffic, sizeof(*traffic));
    if (torn != 0 || failures != 0)
        fail_msg("%d torn, %d failures", torn, failures);
    assert_true(sent > 0 && received > 0);
}

static void readers_never_see_a_torn_message(void **state)
{
    size_t looks_count = mount_is_sanitized() ? 20 : 100;
    struct mount *mount = mount_of(state);
    struct traffic *traffic = traffic_new();
    pid_t readers[READERS];
    pid_t others[SENDERS + RECEIVERS];
    int failed = 0;

    through_expect_run(mount, "sh", "", ": >$M/%d", BOX);
    start_traffic(mount, traffic, others, 50);
    for (int i = 0; i < READERS; i++) {
        readers[i] = process_fork(0);
        if (readers[i] == 0)
            _exit(look_along(mount, traffic, looks_count));
        assert_true(readers[i] > 0);
    }
    for (int i = 0; i < READERS; i++)
        failed += process_wait(readers[i], 4 * CHILD_MS) != 0;
    end_traffic(traffic, others);
    assert_int_equal(failed, 0);
    assert_int_equal(atomic_load(&traffic->looks), READERS * looks_count);
    expect_no_trouble(traffic);
}

/* Fails the test unless the file in `work` is whole messages; and then zeros, where they may. */
static void expect_whole_file(struct mount *mount, const char *name, bool zeros_may_follow)
{
    int fd = open(mount_path(mount, "%s/%s", mount->work, name), O_RDONLY | O_CLOEXEC);
    size_t size_bytes;
    const char *copy;
    ssize_t count;

    assert_true(fd >= 0);
    copy = view_read_on(mount, fd, &size_bytes);
    assert_success(close(fd));
    while (zeros_may_follow && size_bytes > 0 && copy[size_bytes - 1] == '\0')
        size_bytes--;
    count = count_whole((const uint8_t *)copy, size_bytes);
    if (count < 0)
        fail_msg("%s: %zu bytes, no message at %zd", name, size_bytes, -1 - count);
    print_message("%s: %zd messages\n", name, count);
}

static void send_big(struct mount *mount, struct traffic *traffic)
{
    uint8_t *payload = mount_keep(mount, malloc(BIG_MESSAGE_BYTES));

    for (unsigned number = 0; number < BIG_MESSAGES; number++) {
        compose(payload, BIG_MESSAGE_BYTES, 99, number);
        assert_int_equal(behind_send(mount, BOX, 1, payload, BIG_MESSAGE_BYTES), 0);
    }
    atomic_store(&traffic->sent, BIG_MESSAGES);
}

static void big_mailbox_in_use_is_copied_in_whole_messages(void **state)
{
    static const char *const lines[] = {"cp $M/.peek/4711 copy", "cat $M/.peek/4711 >copy",
                                        "dd if=$M/.peek/4711 of=copy bs=65536 2>/dev/null"};
    enum { LINES = sizeof(lines) / sizeof(lines[0]) };
    struct mount *mount = mount_of(state);
    struct traffic *traffic = traffic_new();
    pid_t others[SENDERS + RECEIVERS];

    send_big(mount, traffic);
    start_traffic(mount, traffic, others, BIG_MESSAGES);
    for (size_t i = 0; i < LINES; i++) {
        through_expect_run(mount, "sh", "", "%s", lines[i]);
        expect_whole_file(mount, "copy", false);
    }
    end_traffic(traffic, others);
    expect_no_trouble(traffic);
}

/*
 * tar asks for the size and times by name before it opens, and again at the end. That a mailbox in
 * use has changed it says rightly (exit status 1), and what others took before the file was looked
 * at it makes up for by zeros; but what it has is whole messages.
 */
static void big_mailbox_in_use_goes_into_an_archive_in_whole_messages(void **state)
{
    struct mount *mount = mount_of(state);
    struct traffic *traffic = traffic_new();
    pid_t others[SENDERS + RECEIVERS];

    send_big(mount, traffic);
    start_traffic(mount, traffic, others, BIG_MESSAGES);
    for (int i = 0; i < 3; i++) {
        through_expect_run(mount, "sh", "",
                           "tar --warning=no-file-changed -C $M/.peek -cf a.tar %d 2>err; s=$?; "
                           "grep -v -e shrank -e 'exit delayed' -e 'previous errors' err; "
                           "tar -xf a.tar && mv %d copy && rm a.tar && [ $s -le 1 ]",
                           BOX, BOX);
        expect_whole_file(mount, "copy", true);
    }
    end_traffic(traffic, others);
    expect_no_trouble(traffic);
}

static void mailbox_at_rest_goes_into_an_archive_without_complaint(void **state)
{
    struct mount *mount = mount_of(state);

    send_three(mount);
    through_expect_run(mount, "sh", "", "tar -C $M/.peek -cf a.tar %d 2>&1 && tar -xf a.tar", BOX);
    through_expect_run(mount, "sh", "one\ntwo\nthree\n", "cat %d", BOX);
}

int main(void)
{
    static const struct mount_options chatty = {.chatty = true};
    static const struct mount_options read_only = {.options = "ro"};
    static const struct mount_options patient = {.options = "lock_timeout=0"};
    static const struct mount_options busy = {.seconds = 90};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(tools_show_what_waits_and_take_nothing, &busy),
        MOUNT_TEST(python_maps_it_and_sends_it),
        MOUNT_TEST(tail_f_prints_what_arrives_and_takes_nothing),
        MOUNT_TEST(what_is_in_flight_and_on_disk_is_one_queue_in_order),
        MOUNT_TEST(what_the_last_mount_left_is_shown),
        MOUNT_TEST(empty_mailbox_is_an_empty_file),
        MOUNT_TEST(missing_mailbox_is_enoent),
        MOUNT_TEST(opening_to_write_is_refused),
        MOUNT_TEST(directory_names_those_who_have_a_mailbox),
        MOUNT_TEST_WITH(mount_that_only_looks_shows, &read_only),
        MOUNT_TEST(open_file_keeps_what_it_has_shown),
        MOUNT_TEST(open_file_keeps_what_was_there_when_it_was_looked_at_first),
        MOUNT_TEST(refilled_with_other_bytes_it_shows_the_old_ones_and_then_the_new),
        MOUNT_TEST(each_open_file_has_a_picture_of_its_own),
        MOUNT_TEST(inode_number_is_the_same_whoever_asks),
        MOUNT_TEST(at_its_end_it_grows_by_what_has_come_since),
        MOUNT_TEST(message_like_an_earlier_one_is_shown_all_the_same),
        MOUNT_TEST(size_of_the_open_file_grows_too),
        MOUNT_TEST_WITH(every_vector_shows_exactly_its_payloads, &chatty),
        MOUNT_TEST_WITH(half_appended_message_shows_nothing_until_it_is_whole, &chatty),
        MOUNT_TEST_WITH(lock_of_a_stopped_process_keeps_nobody_from_looking, &patient),
        MOUNT_TEST_WITH(message_of_64_mib_is_shown_whole, &busy),
        MOUNT_TEST_WITH(readers_never_see_a_torn_message, &busy),
        MOUNT_TEST_WITH(big_mailbox_in_use_is_copied_in_whole_messages, &busy),
        MOUNT_TEST_WITH(big_mailbox_in_use_goes_into_an_archive_in_whole_messages, &busy),
        MOUNT_TEST(mailbox_at_rest_goes_into_an_archive_without_complaint),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("peek", tests, NULL, NULL) == 0 ? 0 : 1;
}
