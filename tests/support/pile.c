#include "pile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "process.h"
#include "through.h"
#include "view.h"

enum {
    ANSWER_MS = 15000,
    SHARED_BYTES = 1 << 17,
    READ_BYTES = 1 << 14,
};

static const struct {
    const char *view; /* NULL: the mailbox itself */
    int flags;
    bool sends;
} kinds[PILE_KINDS_END] = {
    [PILE_REPLACE] = {.flags = THROUGH_REPLACE, .sends = true},
    [PILE_APPEND] = {.flags = THROUGH_APPEND, .sends = true},
    [PILE_READ_WRITE] = {.flags = O_RDWR | O_CLOEXEC, .sends = true},
    [PILE_RECEIVE] = {.flags = THROUGH_RECEIVE},
    [PILE_FOLLOW] = {.view = ".follow", .flags = THROUGH_RECEIVE},
    [PILE_ENVELOPE] = {.view = ".envelope", .flags = THROUGH_RECEIVE},
    [PILE_POLL] = {.view = ".follow", .flags = THROUGH_RECEIVE},
};

void pile_init(struct pile *pile, struct mount *mount, int box, bool gated)
{
    void *shared = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                        0); /* goes with the program: children may outlive the test */

    _Static_assert(PILE_MOST_COUNT * sizeof(struct pile_waiter) +
                           (PILE_MOST_COUNT + 1) * sizeof(int) <=
                       SHARED_BYTES,
                   "the pile fits");
    assert_true(shared != MAP_FAILED);
    *pile = (struct pile){.mount = mount, .box = box, .gate = -1, .waiters = shared};
    pile->received = (_Atomic int *)(pile->waiters + PILE_MOST_COUNT);
    if (gated) {
        int ends[2];

        assert_success(pipe2(ends, O_CLOEXEC));
        /* The reading end is one below: children find it there. */
        pile->gate = fcntl(ends[1], F_DUPFD_CLOEXEC, 500);
        assert_int_equal(dup3(ends[0], pile->gate - 1, O_CLOEXEC), pile->gate - 1);
        close(ends[0]);
        close(ends[1]);
    }
}

bool pile_sends(enum pile_kind kind)
{
    return kinds[kind].sends;
}

void pile_note(struct pile *pile, const void *payload, size_t payload_bytes)
{
    char text[16] = "";
    int number = PILE_MOST_COUNT;

    if (payload_bytes < sizeof(text)) {
        memcpy(text, payload, payload_bytes);
        if (sscanf(text, "%d", &number) != 1 || number < 0 || number > PILE_MOST_COUNT)
            number = PILE_MOST_COUNT;
    }
    (void)atomic_fetch_add(&pile->received[number], 1);
}

/* Those that one read of .envelope returned: "SENDER LENGTH\n" and the payload each. */
static void note_envelopes(struct pile *pile, const char *bytes, size_t size_bytes)
{
    while (size_bytes > 0) {
        const char *newline = memchr(bytes, '\n', size_bytes);
        size_t head_bytes = newline != NULL ? (size_t)(newline - bytes) + 1 : size_bytes;
        size_t length = 0;

        if (sscanf(bytes, "%*d %zu", &length) != 1 || head_bytes + length > size_bytes)
            return;
        pile_note(pile, bytes + head_bytes, length);
        bytes += head_bytes + length;
        size_bytes -= head_bytes + length;
    }
}

static int receive(struct pile *pile, int fd, enum pile_kind kind)
{
    static char buffer[READ_BYTES];
    ssize_t got = read(fd, buffer, sizeof(buffer) - 1);

    if (got < 0)
        return errno;
    if (kind == PILE_ENVELOPE)
        note_envelopes(pile, buffer, (size_t)got);
    else if (got > 0)
        pile_note(pile, buffer, (size_t)got);
    return 0;
}

static int await_event(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    if (poll(&wait, 1, -1) < 0)
        return errno;
    return (wait.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0 ? ENOTCONN : 0;
}

static int act_on_name(enum pile_kind kind, const char *path)
{
    int result = -1;

    if (kind == PILE_TRUNCATE)
        result = truncate(path, 0);
    else if (kind == PILE_REMOVE)
        result = unlink(path);
    else if (kind == PILE_CHMOD)
        result = chmod(path, 0644);
    return result == 0 ? 0 : errno;
}

/* All that one of the pile does. 0 or an errno. */
static int act(struct pile *pile, int number)
{
    enum pile_kind kind = pile->waiters[number].kind;
    const char *view = kinds[kind].view;
    const char *path = view != NULL ? view_path(pile->mount, view, pile->box)
                                    : through_box(pile->mount, pile->box);
    char text[16];
    int error;
    int fd;

    if (kind >= PILE_TRUNCATE)
        return act_on_name(kind, path);
    fd = open(path, kinds[kind].flags, 0666);
    if (fd < 0)
        return errno;
    snprintf(text, sizeof(text), "%d", number);
    if (kinds[kind].sends)
        error = through_write(fd, text, strlen(text));
    else
        error = kind == PILE_POLL ? await_event(fd) : receive(pile, fd, kind);
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

int pile_add(struct pile *pile, enum pile_kind kind)
{
    int number = pile->count++;
    struct pile_waiter *waiter = &pile->waiters[number];
    char byte;
    pid_t pid;

    assert_true(number < PILE_MOST_COUNT);
    waiter->kind = kind;
    pid = process_fork(0);
    if (pid == 0) {
        if (pile->gate >= 0) {
            close(pile->gate);
            while (read(pile->gate - 1, &byte, 1) < 0 && errno == EINTR)
                ;
        }
        waiter->error = act(pile, number);
        waiter->at_ns = through_clock_ns();
        atomic_store(&waiter->ended, true);
        _exit(0);
    }
    assert_true(pid > 0);
    waiter->pid = pid; /* by us alone: the memory is the child's, too */
    return number;
}

void pile_open_gate(struct pile *pile)
{
    close(pile->gate);
    close(pile->gate - 1);
    pile->gate = -1;
}

int64_t pile_kill_ns(struct pile *pile, int number)
{
    struct pile_waiter *waiter = &pile->waiters[number];
    int64_t begin_ns = through_clock_ns();
    int status;

    assert_success(kill(waiter->pid, SIGKILL));
    status = process_wait(waiter->pid, ANSWER_MS);
    if (status != 128 + SIGKILL)
        fail_msg("number %d of kind %d, killed while it waited: status %d, errno %d", number,
                 (int)waiter->kind, status, waiter->error);
    waiter->pid = 0;
    waiter->killed = true;
    return through_clock_ns() - begin_ns;
}

void pile_end(struct pile *pile)
{
    if (pile->gate >= 0)
        pile_open_gate(pile);
    for (int i = 0; i < pile->count; i++) {
        if (pile->waiters[i].pid > 0)
            (void)kill(pile->waiters[i].pid, SIGKILL); /* not reaped yet, so it is still ours */
    }
    for (int i = 0; i < pile->count; i++) {
        if (pile->waiters[i].pid > 0)
            assert_true(process_wait(pile->waiters[i].pid, ANSWER_MS) >= 0);
        pile->waiters[i].pid = 0;
    }
}

int pile_await(struct pile *pile, int number, int timeout_ms)
{
    struct pile_waiter *waiter = &pile->waiters[number];
    int status;

    assert_true(waiter->pid > 0);
    status = process_wait(waiter->pid, timeout_ms);
    waiter->pid = 0;
    if (status < 0)
        return -1;
    assert_int_equal(status, 0);
    return waiter->error;
}

bool pile_may_be_killed(struct pile *pile, int number, int timeout_ms)
{
    struct pile_waiter *waiter = &pile->waiters[number];
    int pidfd = (int)syscall(SYS_pidfd_open, waiter->pid, 0);
    struct pollfd gone = {.fd = pidfd, .events = POLLIN};
    bool ended;

    assert_true(pidfd >= 0);
    assert_success(kill(waiter->pid, SIGKILL));
    waiter->killed = true;
    ended = poll(&gone, 1, timeout_ms) == 1;
    close(pidfd);
    return ended;
}

pid_t pile_hold_lock(struct mount *mount, int box)
{
    pid_t holder = process_fork(0);
    int status;

    if (holder == 0) {
        if (behind_lock(mount, box) < 0)
            _exit(1);
        (void)raise(SIGSTOP);
        _exit(0);
    }
    assert_true(holder > 0);
    while (waitpid(holder, &status, WUNTRACED) < 0 && errno == EINTR)
        ;
    assert_true(WIFSTOPPED(status));
    return holder;
}

void pile_let_go(pid_t *holder)
{
    assert_success(kill(*holder, SIGCONT));
    assert_int_equal(process_wait(*holder, ANSWER_MS), 0);
    *holder = 0;
}

static int compare(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a;
    int64_t second = *(const int64_t *)b;

    return (first > second) - (first < second);
}

struct pile_times pile_times(int64_t *times_ns, size_t count)
{
    struct pile_times times = {0};

    if (count == 0)
        return times;
    qsort(times_ns, count, sizeof(times_ns[0]), compare);
    times.median_ms = (double)times_ns[count / 2] / 1e6;
    times.p99_ms = (double)times_ns[(count - 1) * 99 / 100] / 1e6;
    times.most_ms = (double)times_ns[count - 1] / 1e6;
    return times;
}

void pile_pairs(struct mount *mount, int box, int64_t *times_ns, size_t count)
{
    const char *path = through_box(mount, box);
    char buffer[64];

    for (size_t i = 0; i < count; i++) {
        int64_t begin_ns = through_clock_ns();
        int fd = open(path, THROUGH_REPLACE, 0666);

        assert_true(fd >= 0);
        through_write_once(fd, "pair", 4);
        assert_success(close(fd));
        fd = open(path, THROUGH_RECEIVE);
        assert_true(fd >= 0);
        if (read(fd, buffer, sizeof(buffer)) != 4)
            fail_msg("pair %zu has not come back: errno %d", i, errno);
        assert_int_equal(read(fd, buffer, sizeof(buffer)), 0);
        assert_success(close(fd));
        times_ns[i] = through_clock_ns() - begin_ns;
    }
}

static bool is_listed(FILE *mounts, const char *path)
{
    char line[4096];
    bool found = false;

    rewind(mounts);
    while (fgets(line, sizeof(line), mounts) != NULL)
        found = found || strstr(line, path) != NULL;
    return found;
}

int64_t pile_await_unmounted_ms(const struct mount *mount, int timeout_ms)
{
    int64_t begin_ms = process_clock_ms();
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char path[sizeof(mount->mnt) + 2];
    int64_t took_ms = 0;

    assert_non_null(mounts);
    snprintf(path, sizeof(path), "%s ", mount->mnt);
    while (is_listed(mounts, path) && took_ms <= timeout_ms) {
        struct pollfd changes = {.fd = fileno(mounts), .events = POLLPRI};

        (void)poll(&changes, 1, 20);
        took_ms = process_clock_ms() - begin_ms;
    }
    fclose(mounts);
    return took_ms <= timeout_ms ? took_ms : -1;
}
