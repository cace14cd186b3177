/* Steps of descriptors: the part of seen.h that does them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process.h"
#include "seen.h"

enum {
    FIRST_FD = 200, /* they stand in the order of their places: so they are closed at an exit */
};

/* The copy that is closed has collected nothing yet. */
static void place(struct performer *performer, long place, int fd, struct outcome *outcome)
{
    seen(outcome, fd < 0 ? -1 : 0);
    if (fd < 0)
        return;
    performer->fds[place] = dup3(fd, FIRST_FD + (int)place, O_CLOEXEC);
    close(fd);
}

void descriptor_open(struct performer *performer, const struct step *step, struct outcome *outcome)
{
    long flags = step->of[FIELD_FLAGS];
    int access = (flags & OPEN_WRITE) == 0  ? O_RDONLY
                 : (flags & OPEN_READ) == 0 ? O_WRONLY
                                            : O_RDWR;

    access |= flags & OPEN_CREATE ? O_CREAT : 0;
    access |= flags & OPEN_TRUNCATE ? O_TRUNC : 0;
    access |= flags & OPEN_APPEND ? O_APPEND : 0;
    access |= flags & OPEN_EXCLUSIVE ? O_EXCL : 0;
    access |= flags & OPEN_NONBLOCK ? O_NONBLOCK : 0;
    place(performer, step->of[FIELD_FD],
          open(seen_path(performer, step->of[FIELD_BOX], (enum step_view)step->of[FIELD_VIEW]),
               access | O_CLOEXEC, 0666),
          outcome);
}

void descriptor_read(struct performer *performer, const struct step *step, struct outcome *outcome)
{
    int fd = performer->fds[step->of[FIELD_FD]];
    size_t size = (size_t)step->of[FIELD_SIZE];

    if (size > ERRANDS_READ_BYTES)
        size = ERRANDS_READ_BYTES;
    if (step->kind == STEP_PREAD)
        seen(outcome, pread(fd, performer->buffer, size, step->of[FIELD_OFFSET]));
    else
        seen(outcome, read(fd, performer->buffer, size));
    if (outcome->result >= 0)
        seen_bytes(&outcome->data, performer->buffer, (size_t)outcome->result);
}

static long write_payload(struct performer *performer, const struct step *step)
{
    int fd = performer->fds[step->of[FIELD_FD]];
    size_t size = (size_t)step->of[FIELD_SIZE];

    if (size > ERRANDS_READ_BYTES)
        size = ERRANDS_READ_BYTES;
    step_payload(performer->buffer, size, (unsigned long)step->of[FIELD_SEED]);
    if (step->kind == STEP_PWRITE)
        return pwrite(fd, performer->buffer, size, step->of[FIELD_OFFSET]);
    return write(fd, performer->buffer, size);
}

static const char *do_fork(struct performer *performer, const struct step *step,
                           struct outcome *outcome)
{
    struct {
        long result;
        int error;
    } answer = {.result = -1};
    int ends[2];
    bool answered;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return "no pipe";
    outcome->child = process_fork(0);
    if (outcome->child == 0) {
        answer.result = write_payload(performer, step);
        answer.error = errno;
        if (write(ends[1], &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
            _exit(1);
        if (step->of[FIELD_WHICH] == END_KILLED)
            (void)kill(getpid(), SIGKILL);
        _exit(0);
    }
    close(ends[1]);
    answered = read(ends[0], &answer, sizeof(answer)) == (ssize_t)sizeof(answer);
    close(ends[0]);
    outcome->result = answer.result;
    outcome->error = answer.error;
    if (process_wait(outcome->child, SEEN_DEADLINE_MS) < 0 || !answered)
        return seen_late;
    return NULL;
}

static void do_poll(struct performer *performer, const struct step *step, struct outcome *outcome)
{
    struct pollfd wait = {.fd = performer->fds[step->of[FIELD_FD]], .events = POLLIN | POLLOUT};

    seen(outcome, poll(&wait, 1, 0));
    outcome->events = ((wait.revents & POLLIN) != 0 ? OUTCOME_READABLE : 0) |
                      ((wait.revents & POLLOUT) != 0 ? OUTCOME_WRITABLE : 0);
}

const char *descriptor_do(struct performer *performer, const struct step *step,
                          struct outcome *outcome)
{
    int *fd = &performer->fds[step->of[FIELD_FD]];
    struct stat status = {0};

    switch (step->kind) {
    case STEP_CLOSE:
        seen(outcome, close(*fd));
        *fd = -1;
        break;
    case STEP_DUP:
        performer->fds[step->of[FIELD_TO]] =
            dup3(*fd, FIRST_FD + (int)step->of[FIELD_TO], O_CLOEXEC);
        seen(outcome, performer->fds[step->of[FIELD_TO]] < 0 ? -1 : 0);
        break;
    case STEP_SEEK:
        seen(outcome, lseek(*fd, step->of[FIELD_OFFSET], SEEK_SET));
        break;
    case STEP_WRITE:
    case STEP_PWRITE:
        seen(outcome, write_payload(performer, step));
        break;
    case STEP_FTRUNCATE:
        seen(outcome, ftruncate(*fd, step->of[FIELD_SIZE]));
        break;
    case STEP_FSYNC:
        seen(outcome, fsync(*fd));
        break;
    case STEP_FSTAT:
        seen_attributes(outcome, fstat(*fd, &status), &status);
        break;
    case STEP_POLL:
        do_poll(performer, step, outcome);
        break;
    case STEP_FORK:
        return do_fork(performer, step, outcome);
    default:
        descriptor_read(performer, step, outcome);
        break;
    }
    return NULL;
}

void descriptor_close_all(struct performer *performer)
{
    for (size_t i = 0; i < STEP_FDS; i++) {
        if (performer->fds[i] >= 0)
            close(performer->fds[i]); /* the daemon is gone: whatever it says */
        performer->fds[i] = -1;
    }
}
