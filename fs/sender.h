/*
 * sender - who is at the other end of a request.
 */
#ifndef GPROCFS_SENDER_H
#define GPROCFS_SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * The process that thread `tid` belongs to, as seen from here; 0 where it cannot be told (another
 * pid namespace, or it is gone). The kernel names a thread in a request; the sender of a message is
 * a process.
 */
pid_t sender_of_thread(pid_t tid);

/* Whether what requests name can be found in /proc at all; else nothing is known of them but, mostly,
 * their process. */
bool sender_can_be_looked_at(void);

/*
 * How many bytes the write that thread `tid` is in the midst of has in all, or 0 where that cannot
 * be seen. The kernel cuts a large write into several requests, and nothing in them tells how many
 * there will be. /proc/TID/syscall does, to whom it may trace.
 */
size_t sender_write_bytes(pid_t tid);

/* The same of the read that it is in the midst of. */
size_t sender_read_bytes(pid_t tid);

/* Whether the thread was killed by a signal and is on its way out: its last flush is not its wish. Of
 * a process that exits of itself no thread was. */
bool sender_was_killed(pid_t tid);

/* Whether the thread will do nothing any more, as its process was killed or exits: what it is given
 * nobody sees. */
bool sender_is_ending(pid_t tid);

#endif
