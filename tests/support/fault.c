#include "fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "temporary.h"

static _Thread_local int (*decide)(void *context, const char *name);
static _Thread_local void *decide_context;
static _Thread_local bool deciding;
static _Thread_local long blocks_count;

/* ---- What comes here */

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the linker's names. */

static int verdict_of(const char *name)
{
    const int error = errno;
    int verdict;

    if (decide == NULL || deciding)
        return FAULT_NONE;
    deciding = true;
    verdict = decide(decide_context, name);
    deciding = false;
    errno = verdict < 0 ? -verdict : error;
    return verdict;
}

static bool fails(const char *name)
{
    return verdict_of(name) < 0;
}

/* `failed` is what the call returns when it fails. */
#define WRAP(type, failed, name, parameters, arguments)                                            \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(#name) ? (failed) : __real_##name arguments;                                  \
    }

/* One that FORTIFY puts in the place of another. */
#define WRAP_FORTIFIED(type, fortified, name, parameters, arguments)                               \
    type __wrap_##fortified parameters;                                                            \
    type __wrap_##fortified parameters                                                             \
    {                                                                                              \
        return __wrap_##name arguments;                                                            \
    }

/* The same of what reads or writes, of which the last of the parameters but an offset is the size. */
#define WRAP_MOVE(name, parameters, arguments, half)                                               \
    ssize_t __real_##name parameters;                                                              \
    ssize_t __wrap_##name parameters;                                                              \
    ssize_t __wrap_##name parameters                                                               \
    {                                                                                              \
        switch (verdict_of(#name)) {                                                               \
        case FAULT_NONE:                                                                           \
            return __real_##name arguments;                                                        \
        case FAULT_SHORT:                                                                          \
            return __real_##name half;                                                             \
        case FAULT_NOTHING:                                                                        \
            return 0;                                                                              \
        default:                                                                                   \
            return -1;                                                                             \
        }                                                                                          \
    }

enum {
    WHOLE_BYTES = 64, /* so little, in place, is written wholly or not at all: a segment's header */
};

/* Half, but not nothing. */
static size_t half_of(size_t size_bytes)
{
    return size_bytes > 1 ? size_bytes / 2 : size_bytes;
}

WRAP_MOVE(read, (int fd, void *to, size_t size), (fd, to, size), (fd, to, half_of(size)))
WRAP_MOVE(pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at),
          (fd, to, half_of(size), at))
WRAP_MOVE(write, (int fd, const void *from, size_t size), (fd, from, size),
          (fd, from, half_of(size)))
WRAP_MOVE(pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at),
          (fd, from, size > WHOLE_BYTES ? half_of(size) : size, at))
WRAP_MOVE(getrandom, (void *to, size_t size, unsigned flags), (to, size, flags),
          (to, half_of(size), flags))

ssize_t __real_writev(int fd, const struct iovec *parts, int count);
ssize_t __wrap_writev(int fd, const struct iovec *parts, int count);
ssize_t __wrap_writev(int fd, const struct iovec *parts, int count)
{
    struct iovec some[2];

    switch (verdict_of("writev")) {
    case FAULT_NONE:
        return __real_writev(fd, parts, count);
    case FAULT_SHORT: /* all but half of the last part */
        memcpy(some, parts, (size_t)count * sizeof(some[0]));
        some[count - 1].iov_len = half_of(some[count - 1].iov_len);
        return __real_writev(fd, some, count);
    case FAULT_NOTHING:
        return 0;
    default:
        return -1;
    }
}

/* The mode is there only where a file may be made. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;
    mode_t mode = 0;

    if ((flags & O_CREAT) != 0) {
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return fails("open") ? -1 : __real_open(path, flags, mode);
}

int __real_openat(int at, const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...)
{
    va_list more;
    mode_t mode = 0;

    if ((flags & O_CREAT) != 0) {
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return fails("openat") ? -1 : __real_openat(at, path, flags, mode);
}

/* F_GETFD and F_GETFL have no argument. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list more;
    long argument = 0;

    if (command != F_GETFD && command != F_GETFL) {
        va_start(more, command);
        argument = va_arg(more, long);
        va_end(more);
    }
    return fails("fcntl") ? -1 : __real_fcntl(fd, command, argument);
}

WRAP(int, -1, dup3, (int from, int to, int flags), (from, to, flags))
WRAP(int, -1, epoll_create1, (int flags), (flags))
WRAP(int, -1, epoll_ctl, (int at, int what, int fd, struct epoll_event *event),
     (at, what, fd, event))
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, -1, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(int, -1, fstat, (int fd, struct stat *status), (fd, status))
WRAP(int, -1, fstatat, (int at, const char *path, struct stat *status, int flags),
     (at, path, status, flags))
WRAP(int, -1, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, -1, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))
WRAP(int, -1, inotify_init1, (int flags), (flags))
WRAP(off_t, -1, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
WRAP(int, -1, lstat, (const char *path, struct stat *status), (path, status))
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, -1, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(int, -1, poll, (struct pollfd * fds, nfds_t count, int timeout_ms), (fds, count, timeout_ms))
WRAP(int, errno, pthread_mutex_init, (pthread_mutex_t * mutex, const pthread_mutexattr_t *how),
     (mutex, how))
WRAP(int, -1, renameat, (int from_at, const char *from, int to_at, const char *to),
     (from_at, from, to_at, to))
WRAP(int, -1, renameat2, (int from_at, const char *from, int to_at, const char *to, unsigned flags),
     (from_at, from, to_at, to, flags))
WRAP(int, -1, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, -1, timerfd_settime,
     (int fd, int flags, const struct itimerspec *when, struct itimerspec *before),
     (fd, flags, when, before))
WRAP(int, -1, unlinkat, (int at, const char *path, int flags), (at, path, flags))
WRAP(DIR *, NULL, fdopendir, (int fd), (fd))
WRAP(struct dirent *, NULL, readdir, (DIR * stream), (stream))

WRAP_FORTIFIED(ssize_t, __read_chk, read, (int fd, void *to, size_t size, size_t room),
               (fd, to, room < size ? room : size))
WRAP_FORTIFIED(ssize_t, __pread_chk, pread, (int fd, void *to, size_t size, off_t at, size_t room),
               (fd, to, room < size ? room : size, at))
WRAP_FORTIFIED(int, __open_2, open, (const char *path, int flags), (path, flags))
WRAP_FORTIFIED(int, __openat_2, openat, (int at, const char *path, int flags), (at, path, flags))
WRAP_FORTIFIED(int, __poll_chk, poll,
               (struct pollfd * fds, nfds_t count, int timeout_ms, size_t room),
               (fds, room / sizeof(*fds) < count ? 0 : count, timeout_ms))

WRAP(int, -1, chmod, (const char *path, mode_t mode), (path, mode))
WRAP(int, -1, eventfd, (unsigned count, int flags), (count, flags))
WRAP(int, -1, fchownat, (int at, const char *path, uid_t uid, gid_t gid, int flags),
     (at, path, uid, gid, flags))
WRAP(int, -1, fstatvfs, (int fd, struct statvfs *room), (fd, room))
WRAP(int, -1, getrlimit, (enum __rlimit_resource which, struct rlimit *limit), (which, limit))
WRAP(int, -1, mkostemp, (char *path, int flags), (path, flags))
WRAP(int, errno, pthread_create,
     (pthread_t * thread, const pthread_attr_t *how, void *(*run)(void *), void *context),
     (thread, how, run, context))
WRAP(int, -1, setsockopt, (int fd, int level, int name, const void *value, socklen_t size_bytes),
     (fd, level, name, value, size_bytes))
WRAP(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, -1, statvfs, (const char *path, struct statvfs *room), (path, room))
WRAP(int, -1, utimensat, (int at, const char *path, const struct timespec times[2], int flags),
     (at, path, times, flags))

/* A lock is always given back, held or not. */
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
int __wrap_flock(int fd, int how)
{
    return how != LOCK_UN && fails("flock") ? -1 : __real_flock(fd, how);
}

static void *counted(void *block)
{
    blocks_count += block != NULL;
    return block;
}

#define WRAP_ALLOCATION(type, name, parameters, arguments)                                         \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(#name) ? NULL : counted(__real_##name arguments);                             \
    }

WRAP_ALLOCATION(void *, malloc, (size_t size), (size))
WRAP_ALLOCATION(void *, calloc, (size_t count, size_t size), (count, size))
WRAP_ALLOCATION(char *, strdup, (const char *text), (text))
WRAP_ALLOCATION(char *, strndup, (const char *text, size_t size), (text, size))

/* What it prints is to be freed as other blocks are. */
static int print(char **text, const char *format, va_list arguments)
{
    int length = fails("asprintf") ? -1 : vasprintf(text, format, arguments);

    if (length >= 0)
        (void)counted(*text);
    return length;
}

int __wrap_asprintf(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **text, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = print(text, format, arguments);
    va_end(arguments);
    return length;
}

int __wrap___asprintf_chk(char **text, int flag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int __wrap___asprintf_chk(char **text, int flag, const char *format, ...)
{
    va_list arguments;
    int length;

    (void)flag;
    va_start(arguments, format);
    length = print(text, format, arguments);
    va_end(arguments);
    return length;
}

/* Of libfuse, which not every program here is linked with. */
struct fuse_args;
int __real_fuse_opt_add_arg(struct fuse_args *arguments, const char *text) __attribute__((weak));
int __real_fuse_opt_add_opt_escaped(char **list, const char *text) __attribute__((weak));
int __real_fuse_opt_insert_arg(struct fuse_args *arguments, int at, const char *text)
    __attribute__((weak));
WRAP(int, -1, fuse_opt_add_arg, (struct fuse_args * arguments, const char *text), (arguments, text))
WRAP(int, -1, fuse_opt_insert_arg, (struct fuse_args * arguments, int at, const char *text),
     (arguments, at, text))

/* What it makes is to be freed as other blocks are. */
int __wrap_fuse_opt_add_opt_escaped(char **list, const char *text);
int __wrap_fuse_opt_add_opt_escaped(char **list, const char *text)
{
    bool is_new = *list == NULL;
    int result =
        fails("fuse_opt_add_opt_escaped") ? -1 : __real_fuse_opt_add_opt_escaped(list, text);

    if (is_new && *list != NULL)
        (void)counted(*list);
    return result;
}

void *__real_reallocarray(void *block, size_t count, size_t size);
void *__wrap_reallocarray(void *block, size_t count, size_t size);
void *__wrap_reallocarray(void *block, size_t count, size_t size)
{
    if (fails("reallocarray"))
        return NULL;
    if (block != NULL)
        return __real_reallocarray(block, count, size);
    return counted(__real_reallocarray(NULL, count, size));
}

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size)
{
    if (fails("realloc"))
        return NULL;
    if (block != NULL)
        return __real_realloc(block, size);
    return counted(__real_realloc(NULL, size));
}

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    blocks_count -= block != NULL;
    __real_free(block);
}

/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

/* ---- Which of them fail */

void fault_start(int (*chosen)(void *context, const char *name), void *context)
{
    decide = chosen;
    decide_context = context;
    deciding = false; /* also where a failed assertion left it */
}

void fault_stop(void)
{
    decide = NULL;
}

void fault_pause(void)
{
    deciding = true;
}

void fault_go_on(void)
{
    deciding = false;
}

static _Thread_local struct {
    const char *name;
    unsigned seen, first, last;
    int verdict;
} chosen_calls;

static int is_chosen(void *context, const char *name)
{
    (void)context;
    if (strcmp(name, chosen_calls.name) != 0)
        return FAULT_NONE;
    chosen_calls.seen++;
    return chosen_calls.seen >= chosen_calls.first && chosen_calls.seen <= chosen_calls.last
               ? chosen_calls.verdict
               : FAULT_NONE;
}

void fault_calls(const char *name, unsigned first, unsigned last, int verdict)
{
    chosen_calls.name = name;
    chosen_calls.seen = 0;
    chosen_calls.first = first;
    chosen_calls.last = last;
    chosen_calls.verdict = verdict;
    fault_start(is_chosen, NULL);
}

struct fault_held fault_held(void)
{
    return (struct fault_held){temporary_count("/proc/self/fd"), blocks_count};
}

/* ---- Each of them in turn */

enum {
    VARIANTS_MOST = 4,
};

/*
 * How each call fails in a walk; 0: in no more ways. An interruption only where callers promise to
 * go on, or to say so.
 */
static const struct {
    const char *name;
    int verdicts[VARIANTS_MOST + 1];
} ways[] = {
    {"open", {-EMFILE}},
    {"openat", {-EMFILE, -ENOSPC}},
    {"mkdir", {-ENOSPC}},
    {"mkdirat", {-ENOSPC}},
    {"dup3", {-EBADF, -EBUSY, -EINTR}},
    {"fcntl", {-EPERM}},
    {"fchmod", {-EPERM}},
    {"fchown", {-EPERM}},
    {"flock", {-ENOLCK, -EINTR}},
    {"fstat", {-EIO}},
    {"fstatat", {-EIO}},
    {"lstat", {-EACCES}},
    {"lseek", {-EIO}},
    {"ftruncate", {-EIO}},
    {"unlinkat", {-EIO}},
    {"renameat", {-EIO}},
    {"renameat2", {-EIO, -EINVAL}},
    {"read", {-EIO, -EINTR}},
    {"pread", {-EIO, -EINTR, FAULT_SHORT}},
    {"write", {-ENOSPC, -EINTR, FAULT_SHORT, FAULT_NOTHING}},
    {"pwrite", {-ENOSPC, -EINTR, FAULT_SHORT, FAULT_NOTHING}},
    {"writev", {-ENOSPC, -EINTR, FAULT_SHORT, FAULT_NOTHING}},
    {"getrandom", {-EIO}},
    {"fdopendir", {-ENOMEM}},
    {"readdir", {-EIO}},
    {"poll", {-EINTR}},
    {"pthread_mutex_init", {-ENOMEM}},
    {"inotify_init1", {-EMFILE}},
    {"inotify_add_watch", {-ENOSPC}},
    {"epoll_create1", {-EMFILE}},
    {"epoll_ctl", {-ENOSPC}},
    {"timerfd_create", {-EMFILE}},
    {"timerfd_settime", {-EINVAL}},
    {"malloc", {-ENOMEM}},
    {"calloc", {-ENOMEM}},
    {"realloc", {-ENOMEM}},
    {"reallocarray", {-ENOMEM}},
    {"strndup", {-ENOMEM}},
    {"strdup", {-ENOMEM}},
    {"asprintf", {-ENOMEM}},
    {"fuse_opt_add_arg", {-ENOMEM}},
    {"fuse_opt_add_opt_escaped", {-ENOMEM}},
    {"fuse_opt_insert_arg", {-ENOMEM}},
    {"chmod", {-EPERM}},
    {"fchownat", {-EPERM}},
    {"utimensat", {-EPERM}},
    {"fstatvfs", {-EIO}},
    {"statvfs", {-EIO}},
    {"mkostemp", {-EACCES}},
    {"eventfd", {-EMFILE}},
    {"getrlimit", {-EPERM}},
    {"pthread_create", {-EAGAIN}},
    {"socket", {-EMFILE}},
    {"setsockopt", {-ENOMEM}},
};

enum {
    WAYS_COUNT = sizeof(ways) / sizeof(ways[0]),
};

static unsigned variants_of(size_t row)
{
    unsigned count = 0;

    while (ways[row].verdicts[count] != 0)
        count++;
    return count;
}

static int step(void *context, const char *name)
{
    struct fault_walk *walk = context;
    size_t row = 0;

    while (row < WAYS_COUNT && strcmp(ways[row].name, name) != 0)
        row++;
    if (row == WAYS_COUNT)
        fail_msg("no way is known in which %s fails", name);
    if (walk->failed == NULL) {
        if (walk->seen++ != walk->which)
            return FAULT_NONE;
        walk->failed = ways[row].name;
        walk->variants = variants_of(row);
        /* In this run it may be another call than in the last one: a directory has no order. */
        if (walk->variant >= walk->variants)
            walk->variant = walk->variants - 1;
        walk->verdict = ways[row].verdicts[walk->variant];
        return walk->verdict;
    }
    if (walk->then == FAULT_THEN_ALL)
        return ways[row].verdicts[0];
    if (walk->then != FAULT_THEN_AGAIN || walk->again || strcmp(name, walk->failed) != 0)
        return FAULT_NONE;
    walk->again = true;
    return ways[row].verdicts[0];
}

void fault_walk_init(struct fault_walk *walk)
{
    *walk = (struct fault_walk){.held = fault_held()};
}

void fault_walk_start(struct fault_walk *walk)
{
    walk->seen = 0;
    walk->failed = NULL;
    walk->verdict = FAULT_NONE;
    walk->again = false;
    fault_start(step, walk);
}

void fault_walk_stop(struct fault_walk *walk)
{
    (void)walk;
    fault_stop();
}

const char *fault_walk_say(const struct fault_walk *walk)
{
    static _Thread_local char text[160];
    static const char *const thens[] = {"", ", and again", ", and all after it"};
    const char *how = walk->verdict == FAULT_SHORT     ? "does half of it"
                      : walk->verdict == FAULT_NOTHING ? "does nothing"
                                                       : strerror(-walk->verdict);

    if (walk->failed == NULL)
        return "nothing failed";
    snprintf(text, sizeof(text), "call %u, %s: %s%s", walk->which, walk->failed, how,
             thens[walk->then]);
    return text;
}

void fault_walk_judge(const struct fault_walk *walk, int result, int also)
{
    /* A write of nothing is told as EIO. */
    const int met = walk->verdict == FAULT_NOTHING ? -EIO : walk->verdict;

    if (result >= 0 || (walk->failed != NULL && (result == met || result == also)))
        return;
    for (size_t row = 0; row < WAYS_COUNT && walk->then != FAULT_THEN_NOTHING; row++) {
        if (walk->failed != NULL && result == ways[row].verdicts[0])
            return;
    }
    fail_msg("%s: it returns %d", fault_walk_say(walk), result);
}

bool fault_walk_next(struct fault_walk *walk)
{
    const struct fault_held now = fault_held();

    if (now.descriptors_count != walk->held.descriptors_count)
        fail_msg("%s: %zu descriptors are open, not %zu", fault_walk_say(walk),
                 now.descriptors_count, walk->held.descriptors_count);
    if (now.blocks_count != walk->held.blocks_count)
        fail_msg("%s: %ld blocks are allocated, not %ld", fault_walk_say(walk), now.blocks_count,
                 walk->held.blocks_count);
    if (walk->failed == NULL)
        return false;
    walk->then++;
    /* A second try, or a rest, there is only of these. */
    if (walk->then == FAULT_THEN_AGAIN && walk->variants == 1)
        walk->then++;
    if (walk->then == FAULT_THENS_COUNT) {
        walk->then = FAULT_THEN_NOTHING;
        walk->variant++;
    }
    if (walk->variant == walk->variants) {
        walk->variant = 0;
        walk->which++;
    }
    return true;
}
