/* The part of gproc.h that sends many messages to one process. */
#include "gproc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "context.h"
#include "lock.h"
#include "mailbox.h"

struct gproc_target {
    struct gproc *gproc; /* not owned */
    pid_t pid;
    pid_t process; /* whose the open files are */
    struct gproc_lock lock;
    struct gproc_mailbox mailbox;
};

int gproc_target_open(struct gproc *gproc, pid_t to, struct gproc_target **target)
{
    struct gproc_target *opened;

    if (to <= 0)
        return -EINVAL;
    opened = malloc(sizeof(*opened));
    if (opened == NULL)
        return -ENOMEM;
    opened->gproc = gproc;
    opened->pid = to;
    opened->process = getpid();
    gproc_lock_init(&opened->lock);
    gproc_mailbox_init(&opened->mailbox, to);
    *target = opened;
    return 0;
}

int gproc_target_send_as(struct gproc_target *target, int32_t sender, const void *payload,
                         size_t payload_bytes, int wait_ms)
{
    struct gproc *gproc = target->gproc;
    pid_t process = getpid();
    int result;

    if (payload_bytes > GPROC_PAYLOAD_MAX_BYTES) /* before anything is created for it */
        return -EMSGSIZE;
    if (process != target->process) {
        /* Parent and child have one lock between them, which keeps neither from the other. */
        gproc_lock_abandon(&target->lock);
        target->process = process;
    }
    result =
        gproc_lock_retake(&target->lock, &gproc->locks, target->pid, gproc_creator_self, wait_ms);
    if (result < 0)
        return result;
    result = gproc_mailbox_recreate(&target->mailbox, &gproc->mailboxes, O_WRONLY,
                                    GPROC_MAILBOX_MODE, gproc_creator_self);
    if (result >= 0)
        result = gproc_mailbox_append(&target->mailbox, sender, payload, payload_bytes);
    gproc_lock_rest(&target->lock);
    return result;
}

int gproc_target_send(struct gproc_target *target, const void *payload, size_t payload_bytes,
                      int wait_ms)
{
    return gproc_target_send_as(target, getpid(), payload, payload_bytes, wait_ms);
}

void gproc_target_close(struct gproc_target *target)
{
    if (target == NULL)
        return;
    gproc_lock_abandon(&target->lock); /* it is given back after each message */
    gproc_mailbox_close(&target->mailbox);
    free(target);
}
