#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"

enum {
    AWAIT_MS = 10000,
    EVERY_OFFSET_MOST_BYTES = 4096,
};

const char *view_path(struct mount *mount, const char *view, int pid)
{
    return mount_path(mount, "%s/%s/%d", mount->mnt, view, pid);
}

static int open_to_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        fail_msg("open %s: %s", path, strerror(errno));
    return fd;
}

int view_open(struct mount *mount, const char *view, int pid)
{
    return open_to_read(view_path(mount, view, pid));
}

static char *read_on(int fd, size_t *size_bytes)
{
    size_t room_bytes = 1 << 16;
    size_t done = 0;
    char *bytes = malloc(room_bytes);

    for (;;) {
        ssize_t got = -1;

        if (bytes != NULL)
            got = read(fd, bytes + done, room_bytes - done - 1);
        if (got < 0) {
            free(bytes);
            return NULL;
        }
        done += (size_t)got;
        if (got == 0)
            break;
        if (room_bytes - done < room_bytes / 2) {
            char *larger = realloc(bytes, room_bytes *= 2);

            if (larger == NULL)
                free(bytes);
            bytes = larger;
        }
    }
    bytes[done] = '\0';
    *size_bytes = done;
    return bytes;
}

char *view_read_on(struct mount *mount, int fd, size_t *size_bytes)
{
    size_t got_bytes = 0;
    char *bytes = read_on(fd, &got_bytes);

    if (bytes == NULL)
        fail_msg("read: %s", strerror(errno));
    mount_keep(mount, bytes);
    if (size_bytes != NULL)
        *size_bytes = got_bytes;
    return bytes;
}

void view_expect_more(struct mount *mount, int fd, const char *text)
{
    size_t size_bytes;
    const char *more = view_read_on(mount, fd, &size_bytes);

    assert_string_equal(more, text);
    assert_int_equal(size_bytes, strlen(text));
}

/* --- What has been shown stays ---------------------------------------------------------------- */

/* `bytes` from `offset` on, by pread of `piece_bytes` at most. */
static void expect_pread(int fd, const uint8_t *bytes, size_t size_bytes, size_t offset,
                         size_t piece_bytes)
{
    uint8_t *piece = malloc(piece_bytes + 1);
    bool equal = piece != NULL;

    while (equal && offset < size_bytes) {
        size_t left_bytes = size_bytes - offset;
        size_t want_bytes = left_bytes < piece_bytes ? left_bytes : piece_bytes;
        ssize_t got = pread(fd, piece, want_bytes, (off_t)offset);

        equal = got == (ssize_t)want_bytes && memcmp(piece, bytes + offset, want_bytes) == 0;
        offset += want_bytes;
    }
    free(piece);
    if (!equal)
        fail_msg("pread of %zu bytes at a time: not as it was before %zu of %zu", piece_bytes,
                 offset, size_bytes);
}

static void expect_mapped(int fd, const uint8_t *bytes, size_t size_bytes, int flags)
{
    struct stat status;
    void *mapped;
    bool equal;

    /* Who maps a file asks for its size: pages behind the one that the kernel knows are none. */
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_size >= (off_t)size_bytes);
    mapped = mmap(NULL, size_bytes, PROT_READ, flags, fd, 0);

    if (mapped == MAP_FAILED) {
        /* Of a file that is read directly, older kernels map no shared pages. */
        assert_int_equal(flags, MAP_SHARED);
        assert_int_equal(errno, ENODEV);
        print_message("not looked at: this kernel makes no shared mapping\n");
        return;
    }
    equal = memcmp(mapped, bytes, size_bytes) == 0;
    munmap(mapped, size_bytes);
    assert_true(equal);
}

void view_expect_stays(int fd, const void *bytes, size_t size_bytes)
{
    static const size_t pieces[] = {7, 512, 4096, 100000, SIZE_MAX / 4};
    off_t position = lseek(fd, 0, SEEK_CUR);

    if (size_bytes == 0)
        return;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        size_t piece_bytes = pieces[i] < size_bytes ? pieces[i] : size_bytes;

        if (size_bytes / piece_bytes <= 100000)
            expect_pread(fd, bytes, size_bytes, 0, piece_bytes);
    }
    if (size_bytes <= EVERY_OFFSET_MOST_BYTES) {
        for (size_t offset = size_bytes; offset-- > 0;)
            expect_pread(fd, bytes, size_bytes, offset, size_bytes);
    }
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    for (size_t done = 0; done < size_bytes;) {
        uint8_t piece[1 << 14];
        size_t want_bytes = size_bytes - done < sizeof(piece) ? size_bytes - done : sizeof(piece);
        ssize_t got = read(fd, piece, want_bytes);

        assert_true(got > 0);
        assert_memory_equal(piece, (const uint8_t *)bytes + done, (size_t)got);
        done += (size_t)got;
    }
    expect_mapped(fd, bytes, size_bytes, MAP_PRIVATE);
    expect_mapped(fd, bytes, size_bytes, MAP_SHARED);
    assert_int_equal(lseek(fd, position, SEEK_SET), position);
}

void view_expect_bytes(struct mount *mount, const char *view, int pid, const void *bytes,
                       size_t size_bytes)
{
    int fd = view_open(mount, view, pid);
    size_t got_bytes;
    char *got = view_read_on(mount, fd, &got_bytes);

    assert_int_equal(close(fd), 0);
    if (got_bytes != size_bytes || memcmp(got, bytes, size_bytes) != 0)
        fail_msg("%s/%d: %zu bytes \"%.200s\" instead of %zu \"%.*s\"", view, pid, got_bytes, got,
                 size_bytes, size_bytes < 200 ? (int)size_bytes : 200, (const char *)bytes);
}

void view_expect_text(struct mount *mount, const char *view, int pid, const char *text)
{
    int fd = view_open(mount, view, pid);

    view_expect_more(mount, fd, text);
    assert_int_equal(close(fd), 0);
}

off_t view_size(int fd)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        fail_msg("fstat: %s", strerror(errno));
    return status.st_size;
}

/* --- What the daemon says of itself ---------------------------------------------------------- */

int64_t view_sample(struct mount *mount, const char *sample)
{
    int fd = open_to_read(mount_path(mount, "%s/.stats", mount->mnt));
    size_t length = strlen(sample);
    size_t size_bytes;
    char *text = read_on(fd, &size_bytes);
    const char *line = text;
    int64_t value = 0;

    close(fd);
    assert_non_null(text);
    while (line != NULL && (strncmp(line, sample, length) != 0 || line[length] != ' ')) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    if (line != NULL && sscanf(line + length, " %" SCNd64, &value) != 1)
        value = INT64_MIN;
    free(text);
    return value;
}

void view_await_sample(struct mount *mount, const char *sample, int64_t value)
{
    static const struct timespec between_looks = {.tv_nsec = 2000000};
    int64_t deadline_ms = process_clock_ms() + AWAIT_MS;
    int64_t found;

    while ((found = view_sample(mount, sample)) != value && process_clock_ms() < deadline_ms)
        nanosleep(&between_looks, NULL);
    if (found != value)
        fail_msg("%s is %" PRId64 " instead of %" PRId64, sample, found, value);
}

size_t view_daemon_peak_kib(const struct mount *mount)
{
    char line[256];
    char path[64];
    size_t peak = 0;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)mount->daemon);
    status = fopen(path, "re");
    assert_non_null(status);
    while (peak == 0 && fgets(line, sizeof(line), status) != NULL) {
        if (sscanf(line, "VmHWM: %zu", &peak) != 1)
            peak = 0;
    }
    fclose(status);
    assert_true(peak > 0);
    return peak;
}
