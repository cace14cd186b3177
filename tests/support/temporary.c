#include "temporary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mailboxes.h"
#include "process.h"

enum {
    WAIT_MS = 10000,
    OPEN_DIRECTORIES = 16,
};

/* What lib/paths reads, and what it was when the program began. */
static const char *const variables[] = {"gproc.tempdir", "TMPDIR"};
static char *values[2];

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

static int remove_tree(const char *path)
{
    return nftw(path, remove_one, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void remember_environment(void)
{
    for (size_t i = 0; i < 2; i++) {
        const char *value = getenv(variables[i]);

        free(values[i]);
        values[i] = value != NULL ? strdup(value) : NULL;
    }
}

static void restore_environment(void)
{
    for (size_t i = 0; i < 2; i++) {
        if (values[i] != NULL)
            setenv(variables[i], values[i], 1);
        else
            unsetenv(variables[i]);
        free(values[i]);
        values[i] = NULL;
    }
}

int temporary_setup(void **state)
{
    struct temporary *temporary = calloc(1, sizeof(*temporary));
    const char *parent = getenv("TMPDIR");

    if (temporary == NULL)
        return -1;
    remember_environment();
    umask(022);
    snprintf(temporary->root, sizeof(temporary->root), "%s/gproc-unit.XXXXXX",
             parent != NULL && *parent != '\0' ? parent : "/tmp");
    if (mkdtemp(temporary->root) == NULL || chmod(temporary->root, 0755) != 0) {
        perror(temporary->root);
        free(temporary);
        return -1;
    }
    *state = temporary;
    return 0;
}

int temporary_teardown(void **state)
{
    struct temporary *temporary = *state;
    struct rlimit limit;
    int result;

    umask(022);
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    restore_environment();
    result = remove_tree(temporary->root);
    if (result != 0)
        perror(temporary->root);
    while (temporary->kept_count > 0)
        free(temporary->kept[--temporary->kept_count]);
    free(temporary->kept);
    free(temporary);
    return result;
}

const char *temporary_path(struct temporary *temporary, const char *format, ...)
{
    char *path = temporary->paths[temporary->next_path++ % 16];
    int length = (int)strlen(temporary->root) + 1;
    va_list arguments;

    memcpy(path, temporary->root, (size_t)length);
    path[length - 1] = '/';
    va_start(arguments, format);
    length += vsnprintf(path + length, PATH_MAX - (size_t)length, format, arguments);
    va_end(arguments);
    assert_in_range(length, 1, PATH_MAX - 1);
    return path;
}

void *temporary_memory(struct temporary *temporary, size_t size_bytes)
{
    void *memory = calloc(1, size_bytes + 1);
    void **kept = realloc(temporary->kept, (temporary->kept_count + 1) * sizeof(*kept));

    if (memory == NULL || kept == NULL)
        abort();
    temporary->kept = kept;
    temporary->kept[temporary->kept_count++] = memory;
    return memory;
}

void temporary_mkdir(const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(chmod(path, 0777), 0);
}

static void write_file(const char *path, int flags, const uint8_t *bytes, size_t size_bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);

    if (fd < 0)
        fail_msg("%s: errno %d", path, errno);
    while (size_bytes > 0) {
        ssize_t written = write(fd, bytes, size_bytes);

        assert_true(written > 0);
        bytes += written;
        size_bytes -= (size_t)written;
    }
    assert_int_equal(close(fd), 0);
}

void temporary_write(const char *path, const void *bytes, size_t size_bytes)
{
    write_file(path, O_TRUNC, bytes, size_bytes);
}

void temporary_append(const char *path, const void *bytes, size_t size_bytes)
{
    write_file(path, O_APPEND, bytes, size_bytes);
}

size_t temporary_frame(uint8_t *to, int32_t sender, const void *payload, size_t payload_bytes)
{
    if (payload_bytes > 0)
        memcpy(to + TEMPORARY_HEADER_BYTES, payload, payload_bytes);
    mailbox_frame(to, (uint32_t)payload_bytes, (uint32_t)sender, 0);
    return TEMPORARY_HEADER_BYTES + payload_bytes;
}

void temporary_append_text(const char *path, int32_t sender, const char *text)
{
    uint8_t frame[1024];

    assert_in_range(strlen(text), 0, sizeof(frame) - TEMPORARY_HEADER_BYTES);
    temporary_append(path, frame, temporary_frame(frame, sender, text, strlen(text)));
}

void temporary_remove(const char *path)
{
    if (remove_tree(path) != 0)
        fail_msg("%s: errno %d", path, errno);
}

int temporary_exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

size_t temporary_count(const char *path)
{
    DIR *stream = opendir(path);
    size_t count = 0;

    if (stream == NULL)
        fail_msg("%s: errno %d", path, errno);
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count - 2;
}

void temporary_expect(const char *path, const void *bytes, size_t size_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *found = malloc(size_bytes + 1);
    struct stat status;
    ssize_t got;

    if (fd < 0)
        fail_msg("%s: errno %d", path, errno);
    assert_int_equal(fstat(fd, &status), 0);
    if (status.st_size != (off_t)size_bytes)
        fail_msg("%s has %jd bytes, not %zu", path, (intmax_t)status.st_size, size_bytes);
    got = read(fd, found, size_bytes + 1);
    assert_int_equal(got, size_bytes);
    if (size_bytes > 0)
        assert_memory_equal(found, bytes, size_bytes);
    free(found);
    close(fd);
}

void temporary_noise(uint8_t *bytes, size_t size_bytes, uint64_t seed)
{
    struct random random = {seed};

    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)random_next(&random);
}

int temporary_join(pid_t child, int timeout_ms)
{
    int64_t deadline_ms = process_clock_ms() + timeout_ms;
    const struct timespec pause = {0, 100 * 1000 * 1000};
    sigset_t ended, before;
    pid_t joined;
    int status;

    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &ended, &before);
    while ((joined = waitpid(child, &status, WNOHANG)) == 0 && process_clock_ms() < deadline_ms)
        (void)sigtimedwait(&ended, NULL, &pause); /* the next look tells more */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (joined == 0) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        fail_msg("process %d did not end", (int)child);
    }
    assert_int_equal(joined, child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void temporary_wait_for_waiter(pid_t id)
{
    int64_t deadline_ms = process_clock_ms() + WAIT_MS;
    char path[64], line[64];

    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)id);
    do {
        FILE *file = fopen(path, "re");
        char *got = file != NULL ? fgets(line, sizeof(line), file) : NULL;

        if (file != NULL)
            fclose(file);
        if (got != NULL && strtol(line, NULL, 10) == SYS_flock)
            return;
        poll(NULL, 0, 1);
    } while (process_clock_ms() < deadline_ms);
    fail_msg("%d does not wait for a lock", (int)id);
}
