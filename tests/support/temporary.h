/*
 * temporary - a directory for each test, and what tests put into it behind the library's back.
 *
 * A test that is registered with TEMPORARY_TEST() finds a struct temporary in *state. Its directory
 * is below $TMPDIR, or /tmp; everybody may enter it. Afterwards the directory is removed with all
 * that is in it, and the umask, the file size limit and the environment variables that lib/paths
 * reads are as they were.
 *
 * Shares no code with lib/. Whatever goes wrong fails the test (cmocka), so only to be called in
 * the test's own thread and process.
 */
#ifndef TEST_TEMPORARY_H
#define TEST_TEMPORARY_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TEMPORARY_HEADER_BYTES = 12,
};

struct temporary {
    char root[PATH_MAX / 4];
    unsigned next_path;
    char paths[16][PATH_MAX];
    void **kept; /* owned, as is what it points to */
    size_t kept_count;
};

int temporary_setup(void **state);
int temporary_teardown(void **state);

#define TEMPORARY_TEST(f) cmocka_unit_test_setup_teardown(f, temporary_setup, temporary_teardown)

/* A path below the directory, put together as printf does; good for the next 15 calls. */
const char *temporary_path(struct temporary *temporary, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* `size_bytes` bytes of memory, zeroed, that are freed after the test even if it fails. */
void *temporary_memory(struct temporary *temporary, size_t size_bytes);

/* Makes a directory (mode 0777), or a file (mode 0666) that holds these bytes and no others. */
void temporary_mkdir(const char *path);
void temporary_write(const char *path, const void *bytes, size_t size_bytes);

/* Appends bytes to a file, making it where it is missing. */
void temporary_append(const char *path, const void *bytes, size_t size_bytes);

/* Appends a frame with this text. */
void temporary_append_text(const char *path, int32_t sender, const char *text);

/* Writes a frame to memory: 12 bytes more than the payload. Returns how many. */
size_t temporary_frame(uint8_t *to, int32_t sender, const void *payload, size_t payload_bytes);

/* Removes a file, or a directory with all that is in it. */
void temporary_remove(const char *path);

/* Whether there is something of this name; a link counts. */
int temporary_exists(const char *path);

/* How many names a directory has, without . and .. */
size_t temporary_count(const char *path);

/* Fails the test unless the file holds exactly these bytes. */
void temporary_expect(const char *path, const void *bytes, size_t size_bytes);

/* Bytes that look random, the same for the same seed. */
void temporary_noise(uint8_t *bytes, size_t size_bytes, uint64_t seed);

/*
 * Waits for a child to end, at most `timeout_ms`; then it is killed and the test fails. What it
 * exited with, or 128 + the signal that ended it. As process_wait(), but also under valgrind, which
 * does not know what that uses.
 */
int temporary_join(pid_t child, int timeout_ms);

/*
 * Waits until process or thread `id` waits for an flock; at most ten seconds, then the test
 * fails.
 */
void temporary_wait_for_waiter(pid_t id);

#endif
