/*
 * behind - the mailboxes from behind the mount, as a Go program sees them.
 *
 * Written after the on-disk protocol alone, and of purpose without a line of lib/: what both say
 * must agree. Waits for a lock as the reference does, in flock(2), without a deadline.
 *
 * Functions return 0 or a count, else a negative errno, and may be used in any process; those
 * named behind_expect fail the test (cmocka).
 */
#ifndef TEST_BEHIND_H
#define TEST_BEHIND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount.h"

enum {
    BEHIND_HEADER_BYTES = 12,
};

/* A message inside bytes that were read; valid as long as they are. */
struct behind_message {
    int32_t sender;
    const uint8_t *payload;
    size_t payload_bytes;
};

/* The file of a mailbox; good as mount_path() is. */
const char *behind_box(struct mount *mount, int pid);

/* Its lock file; likewise. */
const char *behind_lock_file(struct mount *mount, int pid);

/* Takes the lock; a descriptor whose close releases it. */
int behind_lock(struct mount *mount, int pid);

/* The header of a frame. */
void behind_frame(uint8_t header[BEHIND_HEADER_BYTES], int32_t sender, const void *payload,
                  size_t payload_bytes);

/* Under the lock, appends bytes as they are; or as the payload of a frame. */
int behind_append(struct mount *mount, int pid, const void *bytes, size_t size_bytes);
int behind_send(struct mount *mount, int pid, int32_t sender, const void *payload,
                size_t payload_bytes);

/* Makes the mailbox anew, without the lock, with so many messages of so many bytes each. Fails the
 * test if that cannot be. */
void behind_fill(struct mount *mount, int pid, size_t payload_bytes, int messages);

/* Under the lock, what the file holds; kept by it, or removed from it. `*bytes` is from malloc. */
ssize_t behind_read(struct mount *mount, int pid, uint8_t **bytes);
ssize_t behind_drain(struct mount *mount, int pid, uint8_t **bytes);

/*
 * The message at the start of the bytes: how many bytes its frame has, 0 where none are left,
 * -EBADMSG where that is no whole and good frame.
 */
ssize_t behind_parse(const uint8_t *bytes, size_t size_bytes, struct behind_message *message);

/* Sends a text as process `sender`; fails the test if that fails. */
void behind_expect_sent(struct mount *mount, int pid, int32_t sender, const char *text);

/*
 * Fails the test unless the file holds exactly whole frames with these texts (the last is NULL).
 * A file that does not exist holds nothing.
 */
#define behind_expect_texts(mount, pid, ...)                                                       \
    behind_expect_list(mount, pid, (const char *const[]){__VA_ARGS__})
void behind_expect_list(struct mount *mount, int pid, const char *const texts[]);

/* Fails the test unless the file holds exactly one frame, byte for byte. */
void behind_expect_frame(struct mount *mount, int pid, int32_t sender, const void *payload,
                         size_t payload_bytes);

/* Fails the test unless the file holds exactly these bytes. */
void behind_expect_bytes(struct mount *mount, int pid, const void *bytes, size_t size_bytes);

#endif
