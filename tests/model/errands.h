/*
 * errands - processes beside the one that performs the steps, which read from the mount and are
 * killed.
 *
 * They are children of a child that was made before anything was opened: a copy of a descriptor
 * that collects would send when it is closed. Functions return 0, or a negative errno where a
 * process does not do in time what it must.
 */
#ifndef MODEL_ERRANDS_H
#define MODEL_ERRANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    ERRANDS_SLOTS = 4,
    ERRANDS_READ_BYTES = 1 << 19,
    ERRANDS_DEADLINE_MS = 20000,
};

/* What one has come upon, in memory that all share. */
struct errand {
    _Atomic bool done;
    long result; /* of open, where that failed; else of read */
    int error;
    uint8_t bytes[ERRANDS_READ_BYTES];
};

struct errands {
    pid_t pid;
    int fd;
    struct errand *slots; /* shared */
};

int errands_init(struct errands *errands);
void errands_release(struct errands *errands);

/* Opens, reads once without waiting, and is killed. */
int errands_read_and_die(struct errands *errands, unsigned slot, const char *path, size_t size);

/* Opens, and reads once for as long as that takes. */
int errands_wait(struct errands *errands, unsigned slot, const char *path, size_t size);

/* Its end: by a kill, or when it is done. */
int errands_kill(struct errands *errands, unsigned slot);
int errands_reap(struct errands *errands, unsigned slot);

#endif
