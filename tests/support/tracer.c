#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

enum {
    SYSCALL_TRAP = SIGTRAP | 0x80,
    KILLED_MS = 10000, /* until a killed process is gone: the usual is at once */
    NAME_BYTES = 256,
};

/* Under valgrind it is not the daemon's system calls alone that would be seen. */
bool tracer_possible(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload == NULL || strstr(preload, "vgpreload") == NULL;
}

static void run(const char *const argv[], const char *log, const sigset_t *signals)
{
    int output = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(126);
    raise(SIGSTOP);
    sigprocmask(SIG_SETMASK, signals, NULL);
    dup2(nothing, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    setenv("LSAN_OPTIONS", "detect_leaks=0", 1); /* it would trace the daemon itself */
    execv(argv[0], (char *const *)(uintptr_t)argv);
    perror(argv[0]);
    _exit(127);
}

int tracer_start(struct tracer *tracer, const char *const argv[], const char *log, bool from_start)
{
    const uintptr_t options =
        PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    sigset_t child;
    int status;

    *tracer = (struct tracer){.device_fd = -1, .by_calls = from_start};
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &tracer->signals_before);
    tracer->daemon = process_fork(0);
    if (tracer->daemon == 0)
        run(argv, log, &tracer->signals_before);
    if (tracer->daemon > 0 && waitpid(tracer->daemon, &status, 0) == tracer->daemon &&
        WIFSTOPPED(status) &&
        ptrace(PTRACE_SETOPTIONS, tracer->daemon, NULL, (void *)options) == 0 &&
        ptrace(from_start ? PTRACE_SYSCALL : PTRACE_CONT, tracer->daemon, NULL, NULL) == 0)
        return 0;
    tracer_kill(tracer);
    return -1;
}

static void gone(struct tracer *tracer, int status)
{
    tracer->daemon = 0;
    tracer->status = status;
    sigprocmask(SIG_SETMASK, &tracer->signals_before, NULL);
}

static void fill(struct tracer_stop *stop, int status)
{
    struct __ptrace_syscall_info info;

    stop->is_call = false;
    stop->signal_number = 0;
    if (WSTOPSIG(status) != SYSCALL_TRAP) {
        /* A new thread begins with SIGSTOP; an event of ptrace has its number above the signal. */
        if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP && WSTOPSIG(status) != SIGTRAP)
            stop->signal_number = WSTOPSIG(status);
        return;
    }
    memset(&info, 0, sizeof(info));
    if (ptrace(PTRACE_GET_SYSCALL_INFO, stop->thread, (void *)sizeof(info), &info) <= 0)
        return; /* it has been killed meanwhile */
    stop->is_entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
    stop->is_call = stop->is_entry || info.op == PTRACE_SYSCALL_INFO_EXIT;
    stop->result = info.exit.rval;
    if (!stop->is_entry)
        return;
    stop->number = (long)info.entry.nr;
    for (size_t i = 0; i < TRACER_ARGUMENTS; i++)
        stop->arguments[i] = info.entry.args[i];
}

static bool client_ended(struct tracer *tracer)
{
    int status;

    if (tracer->client <= 0 || waitpid(tracer->client, &status, WNOHANG) != tracer->client)
        return false;
    tracer->client = 0;
    tracer->status = status;
    return true;
}

/* Something may have happened to a child: true; or it is late. */
static bool sleep_until_told(int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - process_clock_ms();
    struct timespec left = {left_ms / 1000, left_ms % 1000 * 1000000};
    sigset_t child;

    if (left_ms <= 0)
        return false;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    return sigtimedwait(&child, NULL, &left) >= 0 || errno == EINTR;
}

enum tracer_event tracer_next(struct tracer *tracer, struct tracer_stop *stop, int timeout_ms)
{
    int64_t deadline_ms = process_clock_ms() + timeout_ms;
    int status;

    do {
        pid_t thread;

        while ((thread = waitpid(-tracer->daemon, &status, __WALL | WNOHANG)) > 0) {
            stop->thread = thread;
            if (WIFSTOPPED(status)) {
                if (status >> 16 == PTRACE_EVENT_CLONE)
                    tracer->by_calls = true;
                stop->by_calls = tracer->by_calls;
                fill(stop, status);
                return TRACER_STOP;
            }
            if (thread == tracer->daemon) {
                gone(tracer, status);
                return TRACER_ENDED;
            }
        }
        if (client_ended(tracer))
            return TRACER_CLIENT;
    } while (sleep_until_told(deadline_ms));
    return TRACER_LATE;
}

void tracer_go_on(const struct tracer_stop *stop)
{
    /* It fails only where the thread was killed: then its end is what comes next. */
    (void)ptrace(stop->by_calls ? PTRACE_SYSCALL : PTRACE_CONT, stop->thread, NULL,
                 (void *)(uintptr_t)stop->signal_number);
}

void tracer_kill(struct tracer *tracer)
{
    struct tracer_stop stop;

    if (tracer->daemon <= 0)
        return;
    kill(tracer->daemon, SIGKILL);
    for (;;) {
        enum tracer_event event = tracer_next(tracer, &stop, KILLED_MS);

        if (event == TRACER_STOP)
            tracer_go_on(&stop); /* it stopped before it knew */
        else if (event == TRACER_ENDED)
            return;
        else if (event == TRACER_LATE)
            abort(); /* not even SIGKILL ends it */
    }
}

/* Where one of the daemon's descriptors leads. */
static bool read_link(pid_t daemon, int fd, char target[NAME_BYTES])
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)daemon, fd);
    length = readlink(path, target, NAME_BYTES - 1);
    target[length > 0 ? length : 0] = '\0';
    return length > 0;
}

bool tracer_is_waiting(struct tracer *tracer, const struct tracer_stop *stop)
{
    char target[NAME_BYTES];
    int fd = (int)stop->arguments[0];

    if (!stop->is_call || !stop->is_entry || stop->number != SYS_read)
        return false;
    if (tracer->device_fd < 0 && read_link(tracer->daemon, fd, target) &&
        strcmp(target, "/dev/fuse") == 0)
        tracer->device_fd = fd;
    return fd == tracer->device_fd;
}

bool tracer_names(const struct tracer_stop *stop, const char *end)
{
    char name[NAME_BYTES];
    struct iovec to = {name, sizeof(name) - 1};
    struct iovec from = {(void *)(uintptr_t)stop->arguments[1], sizeof(name) - 1};
    size_t length;
    ssize_t got;

    if (!stop->is_call || !stop->is_entry || stop->number != SYS_openat)
        return false;
    /* What lies behind the name may end before the page does. */
    do {
        got = process_vm_readv(stop->thread, &to, 1, &from, 1, 0);
        from.iov_len /= 2;
    } while (got < 0 && from.iov_len > 0);
    if (got <= 0)
        return false;
    name[got] = '\0';
    length = strlen(name);
    return length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

bool tracer_is_of_file(const struct tracer *tracer, const struct tracer_stop *stop)
{
    char target[NAME_BYTES];

    return (int)stop->arguments[0] == AT_FDCWD ||
           (read_link(tracer->daemon, (int)stop->arguments[0], target) && target[0] == '/' &&
            strncmp(target, "/dev/", 5) != 0);
}

enum tracer_kind tracer_kind_of(long number)
{
    static const long changing[] = {
        SYS_pwrite64, SYS_writev, SYS_ftruncate, SYS_unlinkat,
        SYS_mkdirat,  SYS_fchmod, SYS_renameat2, SYS_umount2,
    };

    for (size_t i = 0; i < sizeof(changing) / sizeof(changing[0]); i++) {
        if (number == changing[i])
            return TRACER_CHANGES;
    }
    return TRACER_LOOKS;
}

/* --- Registers ------------------------------------------------------------------------------- */

#if defined(__x86_64__)

bool tracer_can_change(void)
{
    return true;
}

int tracer_skip_call(const struct tracer_stop *stop)
{
    return ptrace(PTRACE_POKEUSER, stop->thread,
                  (void *)offsetof(struct user_regs_struct, orig_rax), (void *)-1L) == 0
               ? 0
               : -1;
}

int tracer_set_result(const struct tracer_stop *stop, int64_t result)
{
    return ptrace(PTRACE_POKEUSER, stop->thread, (void *)offsetof(struct user_regs_struct, rax),
                  (void *)(intptr_t)result) == 0
               ? 0
               : -1;
}

int tracer_set_argument(const struct tracer_stop *stop, unsigned which, uint64_t value)
{
    static const size_t at[TRACER_ARGUMENTS] = {
        offsetof(struct user_regs_struct, rdi), offsetof(struct user_regs_struct, rsi),
        offsetof(struct user_regs_struct, rdx), offsetof(struct user_regs_struct, r10),
        offsetof(struct user_regs_struct, r8),  offsetof(struct user_regs_struct, r9),
    };

    return ptrace(PTRACE_POKEUSER, stop->thread, (void *)at[which], (void *)(uintptr_t)value) == 0
               ? 0
               : -1;
}

#else

bool tracer_can_change(void)
{
    return false;
}

int tracer_skip_call(const struct tracer_stop *stop)
{
    (void)stop;
    return -1;
}

int tracer_set_result(const struct tracer_stop *stop, int64_t result)
{
    (void)stop;
    (void)result;
    return -1;
}

int tracer_set_argument(const struct tracer_stop *stop, unsigned which, uint64_t value)
{
    (void)stop;
    (void)which;
    (void)value;
    return -1;
}

#endif
