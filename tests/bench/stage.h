/*
 * stage - the directories that are measured in, and the two file systems that are measured: ours,
 * and the empty one.
 *
 * Below a fresh directory: `mail`, `locks`, `mnt` where gprocfs is mounted, and a directory for each
 * kind of empty file system. Who made the stage takes it away, also after a process that was killed.
 *
 * What goes wrong here is said on stderr and ends the process: there is nothing to measure then.
 */
#ifndef BENCH_STAGE_H
#define BENCH_STAGE_H

#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/types.h>

enum {
    STAGE_NAMES_COUNT = 10000, /* mailboxes 1 ... are those that emptyfs lists */
    STAGE_SENDER = 4711,
    STAGE_HEADER_BYTES = 12,
    STAGE_MESSAGE_BYTES = 64, /* the usual one */
    STAGE_FRAME_BYTES = STAGE_HEADER_BYTES + STAGE_MESSAGE_BYTES,
};

enum stage_empty {
    STAGE_EMPTY,   /* emptyfs as it is */
    STAGE_STRICT,  /* the kernel checks permissions, as it does for ours */
    STAGE_CALLS,   /* and it sends and receives by bare system calls, in the same directories */
    STAGE_THREADS, /* by libfuse's loop of threads */
    STAGE_CLONES,  /* by that, each with a device of its own */
    STAGE_EMPTY_KINDS,
};

struct stage {
    char root[PATH_MAX / 8];
    char mail[PATH_MAX / 4];
    char locks[PATH_MAX / 4];
    char mnt[PATH_MAX / 4];
    char empty[STAGE_EMPTY_KINDS][PATH_MAX / 4];
    pid_t ours_pid;                      /* of the daemon; 0: does not run */
    pid_t empty_pids[STAGE_EMPTY_KINDS]; /* likewise */
    cpu_set_t allowed;
};

/* Says what failed, and errno, and ends the process. */
noreturn void give_up(const char *what);

/* Makes the directories below `base`. */
void stage_make(struct stage *stage, const char *base);

/* Takes away whatever is mounted there, and the directories. */
void stage_remove(const struct stage *stage);

/*
 * Mounts all of them. `pinned`: this process and the daemons run on one processor from now on, else
 * wherever they are allowed to.
 */
void stage_start(struct stage *stage, int pinned);

/* Unmounts them; and this process may run anywhere again. */
void stage_stop(struct stage *stage);

/* Mounts ours alone, not pinned. */
void stage_start_ours(struct stage *stage);

/* This process runs on one processor from now on, or anywhere again. */
void stage_pin(const struct stage *stage, int pinned);

/* Opens DIRECTORY/NAME. */
int stage_open(const char *directory, const char *name, int flags);

/* The same for a number. */
int stage_open_number(const char *directory, int number, int flags);

/* A frame with `payload_bytes` bytes of payload, at `frame`. */
void stage_frame(uint8_t *frame, size_t payload_bytes);

/*
 * Has the mailbox hold exactly these messages, from behind the mount. Without its lock: nobody else
 * is at it.
 */
void stage_fill(const struct stage *stage, int mailbox, size_t messages_count,
                size_t payload_bytes);

/* A value in KiB from /proc/PID/status, such as "VmRSS". */
size_t stage_status_kib(pid_t pid, const char *field);

#endif
