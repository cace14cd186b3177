/*
 * inside - the file system of fs/ without a kernel: the test writes the requests itself, and reads
 * the answers. So a request can come that no kernel sends twice alike, an answer can find nobody, and
 * what the daemon calls while it serves a request is called by the test's own thread, where fault.h
 * reaches it.
 *
 * Needs neither /dev/fuse nor root. Only for tests of the daemon's modules, which are linked with
 * them. What goes wrong here fails the test (cmocka).
 */
#ifndef TEST_INSIDE_H
#define TEST_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct gprocfs;
struct inside;

/* How the file system is mounted; all zero is the usual. */
struct inside_options {
    size_t message_most_bytes; /* 0: 1 MiB */
    int64_t lock_timeout_ms;   /* 0: for ever */
    bool read_only;
    bool live;
    /* Nobody else is at work, and nothing is called but in the test's thread. What would have to wait is
     * ended with EINTR when its answer is wanted. */
    bool alone;
};

enum {
    INSIDE_ROOT = 1, /* the root's node */
};

/*
 * On <root>/gproc and <root>/gflock, which are made where they are missing. Picks up what dead mounts
 * left, unless it only reads. `options` may be NULL.
 */
struct inside *inside_mount(const char *root, const struct inside_options *options);

/* As the end of a mount: what waits is answered, what is in flight goes back. */
void inside_unmount(struct inside *inside);

struct gprocfs *inside_fs(struct inside *inside);

/* Who asks from now on: uid, gid, thread. At first who runs the test. */
void inside_become(struct inside *inside, uid_t uid, gid_t gid, pid_t thread);

/* The next so many answers find nobody: their requests have been interrupted. */
void inside_lose(struct inside *inside, unsigned answers_count);

/* How many notifications that a file can be read have come. */
unsigned inside_told_count(struct inside *inside);

/*
 * A request of the kernel, <linux/fuse.h>: an operation on a node, with these parts behind the header
 * (NULL: none). Returns its number at once; the answer may come later, and in another thread.
 */
uint64_t inside_send(struct inside *inside, uint32_t operation, uint64_t node, const void *first,
                     size_t first_bytes, const void *second, size_t second_bytes);

/* Whether it has been answered. */
bool inside_is_answered(struct inside *inside, uint64_t number);

/* Waits for the answer: 0 or a negative errno. -ENOENT also where the answer found nobody; -ETIME:
 * none comes, which is nobody's answer. */
int inside_await(struct inside *inside, uint64_t number);

/* The request is interrupted, as by a signal to who waits for it. */
void inside_interrupt(struct inside *inside, uint64_t number);

/* The same, of the request that is sent next: it has overtaken it. */
void inside_interrupt_next(struct inside *inside);

/* What the last answer holds; valid until the next one comes. */
const void *inside_bytes(struct inside *inside, size_t *size_bytes);

/* ---- Requests, answered: 0 or a negative errno */

int inside_look_up(struct inside *inside, uint64_t parent, const char *name, uint64_t *node);
int inside_get_attributes(struct inside *inside, uint64_t node, struct stat *attributes);
int inside_open(struct inside *inside, uint64_t node, int flags, uint64_t *handle);
int inside_create(struct inside *inside, uint64_t parent, const char *name, int flags,
                  uint64_t *node, uint64_t *handle);
int inside_write(struct inside *inside, uint64_t node, uint64_t handle, const void *bytes,
                 size_t size_bytes, off_t offset);
int inside_flush(struct inside *inside, uint64_t node, uint64_t handle);
int inside_release(struct inside *inside, uint64_t node, uint64_t handle);
int inside_set_size(struct inside *inside, uint64_t node, off_t size_bytes);
int inside_unlink(struct inside *inside, uint64_t parent, const char *name);

/* The answer's bytes are those of inside_bytes(). */
int inside_read(struct inside *inside, uint64_t node, uint64_t handle, size_t size_bytes,
                off_t offset);

/* The same without waiting for the answer; `flags` are the open file's. */
uint64_t inside_send_read(struct inside *inside, uint64_t node, uint64_t handle, size_t size_bytes,
                          off_t offset, int flags);

/* The events, or a negative errno. `tell`: who asks wants to be told when that changes. */
int inside_poll(struct inside *inside, uint64_t node, uint64_t handle, bool tell);

#endif
