#include "errands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

enum what {
    READ_AND_DIE,
    WAIT,
    KILL,
    REAP,
};

struct order {
    enum what what;
    unsigned slot;
    size_t size;
    char path[1024];
};

static void read_once(struct errand *slot, const struct order *order)
{
    int fd = open(order->path, O_RDONLY | O_CLOEXEC | (order->what == WAIT ? 0 : O_NONBLOCK));

    slot->result = fd;
    if (fd >= 0)
        slot->result = read(fd, slot->bytes, order->size);
    slot->error = errno;
    slot->done = true;
    if (fd >= 0 && order->what == READ_AND_DIE)
        (void)kill(getpid(), SIGKILL);
    _exit(0);
}

static pid_t start(struct errand *slots, const struct order *order)
{
    pid_t parent = getpid();
    pid_t pid;

    slots[order->slot].done = false;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        read_once(&slots[order->slot], order);
    }
    return pid;
}

static void serve(int fd, struct errand *slots)
{
    pid_t pids[ERRANDS_SLOTS] = {0};
    struct order order;

    while (recv(fd, &order, sizeof(order), 0) == (ssize_t)sizeof(order)) {
        pid_t *pid = &pids[order.slot];

        if (order.what == READ_AND_DIE || order.what == WAIT)
            *pid = start(slots, &order);
        if (order.what == KILL && *pid > 0)
            (void)kill(*pid, SIGKILL);
        if (order.what != WAIT && *pid > 0) {
            (void)waitpid(*pid, NULL, 0);
            *pid = 0;
        }
        if (send(fd, "", 1, MSG_NOSIGNAL) != 1)
            break;
    }
}

int errands_init(struct errands *errands)
{
    int ends[2];

    memset(errands, 0, sizeof(*errands));
    errands->fd = -1;
    errands->slots = mmap(NULL, sizeof(struct errand) * ERRANDS_SLOTS, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (errands->slots == MAP_FAILED)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return -errno;
    errands->fd = ends[0];
    errands->pid = process_fork(0);
    if (errands->pid == 0) {
        close(ends[0]);
        serve(ends[1], errands->slots);
        _exit(0);
    }
    close(ends[1]);
    return errands->pid > 0 ? 0 : -EAGAIN;
}

void errands_release(struct errands *errands)
{
    if (errands->fd >= 0)
        close(errands->fd);
    if (errands->pid > 0)
        (void)process_wait(errands->pid, ERRANDS_DEADLINE_MS);
    if (errands->slots != MAP_FAILED)
        munmap(errands->slots, sizeof(struct errand) * ERRANDS_SLOTS);
}

static int command(struct errands *errands, enum what what, unsigned slot, const char *path,
                   size_t size)
{
    struct order order = {.what = what, .slot = slot, .size = size};
    struct pollfd answer = {.fd = errands->fd, .events = POLLIN};
    char byte;

    snprintf(order.path, sizeof(order.path), "%s", path);
    if (send(errands->fd, &order, sizeof(order), MSG_NOSIGNAL) < 0)
        return -errno;
    if (poll(&answer, 1, ERRANDS_DEADLINE_MS) != 1)
        return -ETIMEDOUT;
    return recv(errands->fd, &byte, 1, 0) == 1 ? 0 : -EPIPE;
}

int errands_read_and_die(struct errands *errands, unsigned slot, const char *path, size_t size)
{
    return command(errands, READ_AND_DIE, slot, path, size);
}

int errands_wait(struct errands *errands, unsigned slot, const char *path, size_t size)
{
    return command(errands, WAIT, slot, path, size);
}

int errands_kill(struct errands *errands, unsigned slot)
{
    return command(errands, KILL, slot, "", 0);
}

int errands_reap(struct errands *errands, unsigned slot)
{
    return command(errands, REAP, slot, "", 0);
}
