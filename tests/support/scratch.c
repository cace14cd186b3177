#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gproc.h"
#include "process.h"

enum {
    HEADER_BYTES = 12,
    FAILED_IN_CHILD = 125,
};

static pid_t test_process;

static void check(bool good, const char *what)
{
    if (good)
        return;
    if (getpid() != test_process) {
        fprintf(stderr, "in a child: %s: %s\n", what, strerror(errno));
        _exit(FAILED_IN_CHILD);
    }
    fail_msg("%s: %s", what, strerror(errno));
}

int scratch_setup(void **state)
{
    struct scratch *scratch = calloc(1, sizeof(*scratch));
    struct gproc_options options;
    const char *parent = getenv("TMPDIR");

    test_process = getpid();
    assert_non_null(scratch);
    snprintf(scratch->path, sizeof(scratch->path), "%s/gproc-unit.XXXXXX",
             parent != NULL && *parent != '\0' ? parent : "/tmp");
    check(mkdtemp(scratch->path) != NULL, "mkdtemp");
    snprintf(scratch->mailboxes, sizeof(scratch->mailboxes), "%s/gproc", scratch->path);
    snprintf(scratch->locks, sizeof(scratch->locks), "%s/gflock", scratch->path);
    options = (struct gproc_options){scratch->mailboxes, scratch->locks};
    assert_int_equal(gproc_open(&options, &scratch->gproc), 0);
    *state = scratch;
    return 0;
}

int scratch_teardown(void **state)
{
    struct scratch *scratch = *state;

    gproc_close(scratch->gproc);
    scratch_delete(scratch->path);
    free(scratch);
    return 0;
}

static const char *path_of(const char *directory, pid_t pid, const char *suffix)
{
    static char paths[4][400];
    static unsigned int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%ld%s", directory, (long)pid, suffix);
    return path;
}

const char *scratch_box(const struct scratch *scratch, pid_t pid)
{
    return path_of(scratch->mailboxes, pid, "");
}

const char *scratch_lock_file(const struct scratch *scratch, pid_t pid)
{
    return path_of(scratch->locks, pid, ".lock");
}

int scratch_lock(const struct scratch *scratch, pid_t pid)
{
    int fd;

    check(mkdir(scratch->locks, 0777) == 0 || errno == EEXIST, "mkdir of the locks");
    fd = open(scratch_lock_file(scratch, pid), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    check(fd >= 0, "open of a lock file");
    check(flock(fd, LOCK_EX) == 0, "flock");
    return fd;
}

static void put_le32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

/* A directory may be deleted just after it was made: then it is made again. */
static int open_box(const struct scratch *scratch, pid_t pid)
{
    int fd;

    do {
        check(mkdir(scratch->mailboxes, 0777) == 0 || errno == EEXIST, "mkdir of the mailboxes");
        fd = open(scratch_box(scratch, pid), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == ENOENT);
    check(fd >= 0, "open of a mailbox");
    return fd;
}

void scratch_send(const struct scratch *scratch, pid_t pid, int32_t sender, const void *payload,
                  size_t payload_bytes)
{
    const uint8_t *from = payload;
    uint8_t *frame = malloc(HEADER_BYTES + payload_bytes);
    uint32_t sum = 0;
    int lock = scratch_lock(scratch, pid);
    int box = open_box(scratch, pid);

    check(frame != NULL, "malloc");
    for (size_t i = 0; i < payload_bytes; i++) {
        frame[HEADER_BYTES + i] = from[i];
        sum += from[i];
    }
    put_le32(frame, (uint32_t)payload_bytes + HEADER_BYTES);
    put_le32(frame + 4, (uint32_t)sender);
    put_le32(frame + 8, sum);
    check(write(box, frame, HEADER_BYTES + payload_bytes) ==
              (ssize_t)(HEADER_BYTES + payload_bytes),
          "write of a frame");
    check(close(box) == 0, "close of a mailbox");
    check(flock(lock, LOCK_UN) == 0, "unlock");
    close(lock);
    free(frame);
}

void scratch_send_text(const struct scratch *scratch, pid_t pid, int32_t sender, const char *text)
{
    scratch_send(scratch, pid, sender, text, strlen(text));
}

void scratch_append(const struct scratch *scratch, pid_t pid, const void *bytes, size_t size_bytes)
{
    int box = open_box(scratch, pid);

    check(write(box, bytes, size_bytes) == (ssize_t)size_bytes, "write of bytes");
    check(close(box) == 0, "close of a mailbox");
}

uint8_t *scratch_read(const char *path, size_t *size_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    uint8_t *bytes;

    check(fd >= 0 && fstat(fd, &status) == 0, path);
    bytes = malloc((size_t)status.st_size + 1);
    check(bytes != NULL, "malloc");
    check(read(fd, bytes, (size_t)status.st_size + 1) == status.st_size, "read");
    close(fd);
    *size_bytes = (size_t)status.st_size;
    return bytes;
}

off_t scratch_size(const struct scratch *scratch, pid_t pid)
{
    struct stat status;

    return lstat(scratch_box(scratch, pid), &status) == 0 ? status.st_size : -1;
}

static int delete_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)where;
    return (type == FTW_DP ? rmdir(path) : unlink(path)) == 0 || errno == ENOENT ? 0 : -1;
}

void scratch_delete(const char *path)
{
    check(nftw(path, delete_one, 16, FTW_DEPTH | FTW_PHYS) == 0, path);
}

void scratch_age(const struct scratch *scratch, pid_t pid, double seconds)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0, 0}};
    double when;

    clock_gettime(CLOCK_REALTIME, &times[1]);
    when = (double)times[1].tv_sec + (double)times[1].tv_nsec / 1e9 - seconds;
    times[1].tv_sec = (time_t)when;
    times[1].tv_nsec = (long)((when - (double)times[1].tv_sec) * 1e9);
    check(utimensat(AT_FDCWD, scratch_box(scratch, pid), times, 0) == 0, "utimensat");
}

void scratch_wait_asleep(pid_t pid)
{
    const int64_t deadline_ms = process_clock_ms() + SCRATCH_DEADLINE_MS;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    while (process_clock_ms() < deadline_ms) {
        char line[256] = "";
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        const char *end;

        check(fd >= 0, path);
        check(read(fd, line, sizeof(line) - 1) > 0, path);
        close(fd);
        end = strrchr(line, ')');
        if (end != NULL && end[1] == ' ' && end[2] == 'S')
            return;
        poll(NULL, 0, 1);
    }
    check(false, "a process did not go to sleep");
}
