/* Sending 64 bytes without a mount: by the library, by bare system calls, by other means. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gproc.h"
#include "rows.h"
#include "sample.h"

enum {
    SENDS_COUNT = 5000, /* in a sample */
    BOX = 1,
};

struct library {
    const struct stage *stage;
    struct gproc *gproc;
    char lock_path[PATH_MAX];
    char box_path[PATH_MAX];
    uint8_t frame[STAGE_FRAME_BYTES];
    bool looks; /* the bare calls, too, whether each name is still that of its file */
    int lock_fd;
    int box_fd;
    int pipe_fds[2];
    mqd_t queue;
};

static void write_frame(const struct library *library, int fd)
{
    if (write(fd, library->frame, sizeof(library->frame)) != (ssize_t)sizeof(library->frame))
        give_up("write");
}

/* Without this a message may go to a file that was deleted or replaced. */
static void look(const struct library *library, const char *path)
{
    struct stat status;

    if (library->looks && lstat(path, &status) != 0)
        give_up(path);
}

/* The same where the file has just been opened: there is something to compare with. */
static void look_at_new(const struct library *library, int fd, const char *path)
{
    struct stat status;

    if (library->looks && fstat(fd, &status) != 0)
        give_up(path);
    look(library, path);
}

static double send_ours(void *context)
{
    struct library *library = context;
    double begin_s;

    stage_fill(library->stage, BOX, 0, 0);
    begin_s = sample_now_s();
    for (int i = 0; i < SENDS_COUNT; i++) {
        if (gproc_send(library->gproc, BOX, library->frame + STAGE_HEADER_BYTES,
                       STAGE_MESSAGE_BYTES, GPROC_FOREVER) < 0)
            give_up("gproc_send");
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

/* The least that the protocol asks for, as the Go package does it. */
static double send_bare(void *context)
{
    struct library *library = context;
    double begin_s;

    stage_fill(library->stage, BOX, 0, 0);
    begin_s = sample_now_s();
    for (int i = 0; i < SENDS_COUNT; i++) {
        int lock = open(library->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        int box;

        if (lock < 0 || flock(lock, LOCK_EX) != 0)
            give_up(library->lock_path);
        look_at_new(library, lock, library->lock_path);
        box = open(library->box_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (box < 0)
            give_up(library->box_path);
        look_at_new(library, box, library->box_path);
        write_frame(library, box);
        close(box);
        close(lock);
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

static double send_target(void *context)
{
    struct library *library = context;
    struct gproc_target *target;
    double begin_s;

    stage_fill(library->stage, BOX, 0, 0);
    if (gproc_target_open(library->gproc, BOX, &target) < 0)
        give_up("gproc_target_open");
    begin_s = sample_now_s();
    for (int i = 0; i < SENDS_COUNT; i++) {
        if (gproc_target_send(target, library->frame + STAGE_HEADER_BYTES, STAGE_MESSAGE_BYTES,
                              GPROC_FOREVER) < 0)
            give_up("gproc_target_send");
    }
    begin_s = sample_now_s() - begin_s;
    gproc_target_close(target);
    return begin_s / SENDS_COUNT;
}

/* The least where both files stay open. */
static double send_bare_open(void *context)
{
    struct library *library = context;
    double begin_s;

    stage_fill(library->stage, BOX, 0, 0);
    begin_s = sample_now_s();
    for (int i = 0; i < SENDS_COUNT; i++) {
        if (flock(library->lock_fd, LOCK_EX) != 0)
            give_up("flock");
        look(library, library->lock_path);
        look(library, library->box_path);
        write_frame(library, library->box_fd);
        if (flock(library->lock_fd, LOCK_UN) != 0)
            give_up("flock");
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

static double pass_pipe(void *context)
{
    struct library *library = context;
    char message[STAGE_MESSAGE_BYTES];
    double begin_s = sample_now_s();

    for (int i = 0; i < SENDS_COUNT; i++) {
        if (write(library->pipe_fds[1], library->frame, sizeof(message)) != sizeof(message) ||
            read(library->pipe_fds[0], message, sizeof(message)) != sizeof(message))
            give_up("pipe");
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

static double pass_queue(void *context)
{
    struct library *library = context;
    char message[STAGE_MESSAGE_BYTES];
    double begin_s = sample_now_s();

    for (int i = 0; i < SENDS_COUNT; i++) {
        if (mq_send(library->queue, (const char *)library->frame, sizeof(message), 0) != 0 ||
            mq_receive(library->queue, message, sizeof(message), NULL) != sizeof(message))
            give_up("message queue");
    }
    return (sample_now_s() - begin_s) / SENDS_COUNT;
}

/* Against the bare calls, and against them with the looks that ours takes at each path. */
static void compare_one(struct library *library, struct table *table, const char *name,
                        sample_run *ours, sample_run *bare, double goal)
{
    struct sample sample;

    library->looks = false;
    sample = sample_both(ours, bare, library);
    table_add(table, &(struct table_row){name, "us", sample.ours_s * 1e6, sample.baseline_s * 1e6,
                                         TABLE_RATIO_AT_MOST, goal});
    library->looks = true;
    sample = sample_both(ours, bare, library);
    table_add(table,
              &(struct table_row){"    these, and a look at each path", "us", sample.ours_s * 1e6,
                                  sample.baseline_s * 1e6, TABLE_NO_GOAL, 0});
}

static void compare_sending(struct library *library, struct table *table)
{
    compare_one(library, table, "send 64 B: gproc_send, bare system calls", send_ours, send_bare,
                1.1);
    library->lock_fd = open(library->lock_path, O_RDWR | O_CLOEXEC);
    library->box_fd = open(library->box_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (library->lock_fd < 0 || library->box_fd < 0)
        give_up(library->lock_path);
    compare_one(library, table, "send 64 B, files open: gproc_target_send, flock + write",
                send_target, send_bare_open, 1.3);
    close(library->lock_fd);
    close(library->box_fd);
}

static void show_others(struct library *library, struct table *table)
{
    struct mq_attr attributes = {.mq_maxmsg = 10, .mq_msgsize = STAGE_MESSAGE_BYTES};
    char name[64];

    if (pipe2(library->pipe_fds, O_CLOEXEC) != 0)
        give_up("pipe");
    table_add(table, &(struct table_row){"for comparison: pipe, write and read 64 B", "us",
                                         TABLE_NOT_THERE, sample_one(pass_pipe, library) * 1e6,
                                         TABLE_NO_GOAL, 0});
    close(library->pipe_fds[0]);
    close(library->pipe_fds[1]);
    snprintf(name, sizeof(name), "/gprocfs-bench-%d", (int)getpid());
    library->queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
    if (library->queue == (mqd_t)-1)
        return;            /* not every machine has them */
    (void)mq_unlink(name); /* it lives as long as it is open */
    table_add(table, &(struct table_row){"for comparison: message queue, send and receive", "us",
                                         TABLE_NOT_THERE, sample_one(pass_queue, library) * 1e6,
                                         TABLE_NO_GOAL, 0});
    (void)mq_close(library->queue);
}

void rows_library(struct stage *stage, struct table *table)
{
    struct library library = {.stage = stage};
    struct gproc_options options = {stage->mail, stage->locks};

    snprintf(library.lock_path, sizeof(library.lock_path), "%s/%d.lock", stage->locks, BOX);
    snprintf(library.box_path, sizeof(library.box_path), "%s/%d", stage->mail, BOX);
    stage_frame(library.frame, STAGE_MESSAGE_BYTES);
    if (gproc_open(&options, &library.gproc) < 0)
        give_up("gproc_open");
    compare_sending(&library, table);
    gproc_close(library.gproc);
    show_others(&library, table);
}
