#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    AFTER_KILL_MS = 1000,
    ASK_AGAIN_MS = 5,
    NAMESPACE_MS = 10000,
    READ_BYTES = 1 << 16,
};

/* What has come out of one of a child's pipes. */
struct stream {
    int fd; /* -1: ended */
    char *bytes;
    size_t bytes_count;
    size_t capacity;
};

int64_t process_clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int remaining_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - process_clock_ms();

    return left > 0 ? (int)left : 0;
}

static void become(const struct process_ids *ids)
{
    uid_t uid = ids->uid;
    gid_t gid = ids->gid;

    if (setgroups(ids->groups_count, ids->groups) != 0 || setresgid(gid, gid, gid) != 0 ||
        setresuid(uid, uid, uid) != 0) {
        perror("cannot become another user");
        _exit(126);
    }
}

/* `ids` NULL: whoever we are. */
static pid_t fork_child(const struct process_ids *ids)
{
    static const int caught_by_cmocka[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};
    pid_t parent = getpid();
    pid_t pid;

    fflush(NULL); /* or both would print what is buffered */
    pid = fork();
    if (pid > 0) {
        /* In both, so that the group is there whoever runs first. */
        (void)setpgid(pid, pid);
    }
    if (pid != 0)
        return pid;

    for (size_t i = 0; i < sizeof(caught_by_cmocka) / sizeof(caught_by_cmocka[0]); i++)
        signal(caught_by_cmocka[i], SIG_DFL);
    (void)setpgid(0, 0);
    if (ids != NULL)
        become(ids);
    /* After the change of user: that clears it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* 0: we are the first in a pid namespace, from where no parent is to be seen. */
    if (getppid() != parent && getppid() != 0)
        _exit(126);
    return 0;
}

pid_t process_fork(uid_t uid)
{
    struct process_ids ids = {.uid = uid, .gid = (gid_t)uid};

    return fork_child(uid != 0 ? &ids : NULL);
}

pid_t process_fork_as(const struct process_ids *ids)
{
    return fork_child(ids);
}

static bool reaped_by(pid_t pid, int pidfd, int64_t deadline_ms, int *status)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    pid_t reaped;
    int raw;

    /* valgrind 3.19 does not know pidfd_open(): there the child is asked after every few
     * milliseconds. */
    do {
        int left_ms = remaining_ms(deadline_ms);

        if (pidfd < 0 && left_ms > ASK_AGAIN_MS)
            left_ms = ASK_AGAIN_MS;
        while (poll(&ended, pidfd < 0 ? 0 : 1, left_ms) < 0 && errno == EINTR)
            ;
        reaped = waitpid(pid, &raw, WNOHANG);
    } while (reaped == 0 && remaining_ms(deadline_ms) > 0);
    if (reaped != pid)
        return false;
    *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return true;
}

int process_wait(pid_t pid, int timeout_ms)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int status = PROCESS_LATE;

    if (!reaped_by(pid, pidfd, process_clock_ms() + timeout_ms, &status)) {
        int killed;

        kill(-pid, SIGKILL);
        if (!reaped_by(pid, pidfd, process_clock_ms() + AFTER_KILL_MS, &killed))
            status = PROCESS_STUCK;
    }
    if (pidfd >= 0)
        close(pidfd);
    return status;
}

static void stream_read(struct stream *stream)
{
    ssize_t got;

    if (stream->capacity - stream->bytes_count <= READ_BYTES) {
        size_t capacity = stream->capacity * 2 + READ_BYTES + 1;
        char *bytes = realloc(stream->bytes, capacity);

        if (bytes == NULL)
            abort();
        stream->bytes = bytes;
        stream->capacity = capacity;
    }
    got = read(stream->fd, stream->bytes + stream->bytes_count, READ_BYTES);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        close(stream->fd);
        stream->fd = -1;
        return;
    }
    stream->bytes_count += (size_t)got;
}

static char *stream_finish(struct stream *stream)
{
    if (stream->fd >= 0)
        close(stream->fd);
    if (stream->bytes == NULL)
        stream->bytes = malloc(1);
    if (stream->bytes == NULL)
        abort();
    stream->bytes[stream->bytes_count] = '\0';
    return stream->bytes;
}

static void streams_read(struct stream *out, struct stream *err, int64_t deadline_ms)
{
    while (out->fd >= 0 || err->fd >= 0) {
        struct pollfd ready[2] = {
            {.fd = out->fd, .events = POLLIN},
            {.fd = err->fd, .events = POLLIN},
        };
        int timeout_ms = remaining_ms(deadline_ms);

        if (timeout_ms == 0)
            return;
        if (poll(ready, 2, timeout_ms) <= 0)
            continue;
        if (ready[0].revents != 0)
            stream_read(out);
        if (ready[1].revents != 0)
            stream_read(err);
    }
}

static void run_in_child(const char *const argv[], const char *const variables[], int out, int err)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

    dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++)
        putenv((char *)(uintptr_t)variables[i]);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    perror(argv[0]);
    _exit(127);
}

struct process_result process_run(uid_t uid, const char *const argv[],
                                  const char *const variables[], int timeout_ms, pid_t *pid)
{
    int64_t deadline_ms = process_clock_ms() + timeout_ms;
    struct process_result result = {.status = PROCESS_LATE};
    struct stream out = {.fd = -1};
    struct stream err = {.fd = -1};
    int out_pipe[2];
    int err_pipe[2];

    if (pipe2(out_pipe, O_CLOEXEC) != 0 || pipe2(err_pipe, O_CLOEXEC) != 0)
        abort();
    *pid = process_fork(uid);
    if (*pid < 0)
        abort();
    if (*pid == 0)
        run_in_child(argv, variables, out_pipe[1], err_pipe[1]);
    close(out_pipe[1]);
    close(err_pipe[1]);
    out.fd = out_pipe[0];
    err.fd = err_pipe[0];

    streams_read(&out, &err, deadline_ms);
    result.status = process_wait(*pid, remaining_ms(deadline_ms));
    result.out = stream_finish(&out);
    result.out_bytes = out.bytes_count;
    result.err = stream_finish(&err);
    return result;
}

/* Where our children are born from now on; -1: in a fresh namespace. */
static int choose_nursery(int namespace_fd)
{
    return namespace_fd < 0 ? unshare(CLONE_NEWPID) : setns(namespace_fd, CLONE_NEWPID);
}

pid_t process_fork_in_pid_namespace(uid_t uid, int namespace_fd)
{
    int ours = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    pid_t pid = -1;

    if (ours >= 0 && choose_nursery(namespace_fd) == 0) {
        pid = process_fork(uid);
        /* Other children are not to follow it there. */
        if (pid != 0 && choose_nursery(ours) != 0)
            abort();
    }
    if (ours >= 0)
        close(ours);
    return pid;
}

bool process_may_make_pid_namespaces(void)
{
    pid_t pid = process_fork_in_pid_namespace(0, -1);

    if (pid == 0)
        _exit(0);
    return pid > 0 && process_wait(pid, NAMESPACE_MS) == 0;
}

bool process_has(const char *command)
{
    const char *path = getenv("PATH");
    char candidate[4096];

    while (path != NULL && *path != '\0') {
        size_t length = strcspn(path, ":");

        snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)length, path, command);
        if (access(candidate, X_OK) == 0)
            return true;
        path += length + (path[length] == ':' ? 1 : 0);
    }
    return false;
}
