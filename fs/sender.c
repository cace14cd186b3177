#include "sender.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    PARTS_MOST_COUNT = 1024, /* UIO_MAXIOV: the kernel takes no more */
    PF_SIGNALED = 0x400,     /* the kernel's name for it; it has no header for user space */
    SIGKILL_BIT = 1 << (SIGKILL - 1),
    SIGNAL_MASK = 0x7f, /* of what wait(2) says */
};

static bool proc_is_ours; /* written once */

/*
 * Requests name a thread by its number in our pid namespace. What /proc shows may be another one
 * (unshare --pid without a /proc of its own), where that number is somebody else.
 */
static void look_whether_proc_is_ours(void)
{
    char number[32];
    ssize_t length = readlink("/proc/self", number, sizeof(number) - 1);

    if (length > 0) {
        number[length] = '\0';
        proc_is_ours = strtol(number, NULL, 10) == (long)getpid();
    }
}

bool sender_can_be_looked_at(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, look_whether_proc_is_ours); /* cannot fail */
    return proc_is_ours;
}

/* Reads /proc/TID/`file` as a string; false where it is not to be had. */
static bool read_proc(pid_t tid, const char *file, char *text, size_t size_bytes)
{
    char path[64];
    ssize_t length;
    int fd;

    if (!sender_can_be_looked_at())
        return false;

    (void)snprintf(path, sizeof(path), "/proc/%ld/%s", (long)tid, file); /* it always fits */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, text, size_bytes - 1);
    (void)close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    return true;
}

pid_t sender_of_thread(pid_t tid)
{
    static const char field[] = "\nTgid:";
    char text[2048];
    const char *found;

    if (tid <= 0)
        return 0;
    /*
     * Asks the kernel whether the thread is its group's first, which it nearly always is; signal 0
     * is only asked about, never sent. EPERM means that it is, but is not ours to signal. Twenty
     * times cheaper than /proc.
     */
    if (syscall(SYS_tgkill, tid, tid, 0) == 0 || errno == EPERM)
        return tid;
    if (!read_proc(tid, "status", text, sizeof(text)))
        return 0;
    found = strstr(text, field);
    return found != NULL ? (pid_t)strtol(found + strlen(field), NULL, 10) : 0;
}

/* The sum of the parts of a writev, which stand in the memory of the writer; 0 where it cannot be
 * read. */
static size_t sum_of_parts(pid_t tid, unsigned long long address, unsigned long long count)
{
    struct iovec parts[PARTS_MOST_COUNT];
    struct iovec here = {parts, count * sizeof(parts[0])};
    struct iovec there = {(void *)(uintptr_t)address, here.iov_len};
    size_t sum = 0;
    size_t i;

    if (count > PARTS_MOST_COUNT ||
        process_vm_readv(tid, &here, 1, &there, 1, 0) != (ssize_t)here.iov_len)
        return 0;
    for (i = 0; i < count; i++) {
        if (__builtin_add_overflow(sum, parts[i].iov_len, &sum))
            return 0;
    }
    return sum;
}

/* What a thread is in the midst of, and its second and third argument. */
struct call {
    long number;
    unsigned long long memory;
    unsigned long long count;
};

/* False where that cannot be seen. */
static bool look_at_call(pid_t tid, struct call *call)
{
    unsigned long long fd;
    char text[256];

    return tid > 0 && read_proc(tid, "syscall", text, sizeof(text)) &&
           sscanf(text, "%ld %llx %llx %llx", &call->number, &fd, &call->memory, &call->count) == 4;
}

size_t sender_write_bytes(pid_t tid)
{
    struct call call;

    if (!look_at_call(tid, &call))
        return 0;
    if (call.number == SYS_write || call.number == SYS_pwrite64)
        return (size_t)call.count;
    if (call.number == SYS_writev || call.number == SYS_pwritev || call.number == SYS_pwritev2)
        return sum_of_parts(tid, call.memory, call.count);
    return 0;
}

size_t sender_read_bytes(pid_t tid)
{
    struct call call;

    if (!look_at_call(tid, &call) || (call.number != SYS_read && call.number != SYS_pread64))
        return 0;
    return (size_t)call.count;
}

/* Of proc(5): field 9, the flags; 31, signals that are pending for this thread alone; 52, what it
 * ends with, as wait(2) has it. */
struct end {
    unsigned int flags;
    unsigned long pending;
    unsigned int exit_code;
};

static bool look_at_end(pid_t tid, struct end *end)
{
    const char *after, *last;
    char text[1024];

    if (tid <= 0 || !read_proc(tid, "stat", text, sizeof(text)))
        return false;
    after = strrchr(text, ')'); /* the name before it may hold anything */
    last = strrchr(text, ' ');
    return after != NULL && last > after && sscanf(last, "%u", &end->exit_code) == 1 &&
           sscanf(after + 1,
                  " %*c %*d %*d %*d %*d %*d %u"                  /* 3 to 9 */
                  " %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d" /* 10 to 20 */
                  " %*d %*u %*u %*d %*u %*u %*u %*u %*u %*u %lu" /* 21 to 31 */,
                  &end->flags, &end->pending) == 2;
}

/*
 * Whether it ends, from outside: whoever ends has no memory any more by the time that its files are
 * closed. That, unlike its flags, can be asked for without waiting. In the midst of execve(2) the
 * kernel closes files too, and holds a lock meanwhile that who reads /proc/TID/stat, or calls
 * get_robust_list(2), waits for (Linux 6.18): the one for the other, and nothing ends it.
 */
static bool has_no_memory(pid_t tid)
{
    char text[256];

    /* Moves nothing. Six times cheaper than /proc, but only for whom we may trace. */
    if (syscall(SYS_move_pages, tid, 0UL, NULL, NULL, NULL, 0) == 0)
        return false;
    return read_proc(tid, "statm", text, sizeof(text)) && strncmp(text, "0 ", 2) == 0;
}

bool sender_was_killed(pid_t tid)
{
    struct end end;

    if (tid <= 0 || !has_no_memory(tid))
        return false;
    /* The other threads of one that exits of itself count as signalled too, but end with its code. */
    return look_at_end(tid, &end) && (end.flags & PF_SIGNALED) != 0 &&
           (end.exit_code & SIGNAL_MASK) != 0;
}

bool sender_is_ending(pid_t tid)
{
    struct end end;

    /* Whatever ends a process, a signal or exit(2), leaves SIGKILL with its other threads until they
     * notice. */
    return look_at_end(tid, &end) &&
           ((end.flags & PF_SIGNALED) != 0 || (end.pending & SIGKILL_BIT) != 0);
}
