#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mailboxes.h"

static const struct {
    const char *directory;
    const char *option; /* of emptyfs; or NULL */
} empty_kinds[STAGE_EMPTY_KINDS] = {
    [STAGE_EMPTY] = {"empty", NULL},     [STAGE_STRICT] = {"strict", "-p"},
    [STAGE_CALLS] = {"calls", "-pm"}, /* and the stage's directory */
    [STAGE_THREADS] = {"threads", "-t"}, [STAGE_CLONES] = {"clones", "-c"},
};

enum {
    MOUNTED_MS = 10000,
    LOOK_AGAIN_MS = 1,
    FILL_BYTES = 1 << 20,
};

void give_up(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

void stage_make(struct stage *stage, const char *base)
{
    memset(stage, 0, sizeof(*stage));
    if (sched_getaffinity(0, sizeof(stage->allowed), &stage->allowed) != 0)
        give_up("sched_getaffinity");
    snprintf(stage->root, sizeof(stage->root), "%.400s/gprocfs-bench.XXXXXX", base);
    if (mkdtemp(stage->root) == NULL)
        give_up(stage->root);
    snprintf(stage->mail, sizeof(stage->mail), "%s/mail", stage->root);
    snprintf(stage->locks, sizeof(stage->locks), "%s/locks", stage->root);
    snprintf(stage->mnt, sizeof(stage->mnt), "%s/mnt", stage->root);
    if (mkdir(stage->mail, 0777) != 0 || mkdir(stage->locks, 0777) != 0 ||
        mkdir(stage->mnt, 0777) != 0)
        give_up(stage->root);
    for (int i = 0; i < STAGE_EMPTY_KINDS; i++) {
        snprintf(stage->empty[i], sizeof(stage->empty[i]), "%s/%s", stage->root,
                 empty_kinds[i].directory);
        if (mkdir(stage->empty[i], 0777) != 0)
            give_up(stage->root);
    }
}

/* Where nothing is mounted this fails, which is as good. */
static void unmount(const char *path)
{
    pid_t child;

    if (umount2(path, MNT_DETACH) == 0 || errno == EINVAL)
        return;
    child = fork();
    if (child == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-q", "-z", path, (char *)NULL);
        _exit(127);
    }
    if (child > 0)
        (void)waitpid(child, NULL, 0);
}

static int erase(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)where;
    (void)(kind == FTW_DP ? rmdir(path) : unlink(path)); /* what stays is seen in the end */
    return 0;
}

void stage_remove(const struct stage *stage)
{
    unmount(stage->mnt);
    for (int i = 0; i < STAGE_EMPTY_KINDS; i++)
        unmount(stage->empty[i]);
    (void)nftw(stage->root, erase, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (access(stage->root, F_OK) == 0)
        fprintf(stderr, "bench: %s could not be removed\n", stage->root);
}

void stage_pin(const struct stage *stage, int pinned)
{
    cpu_set_t one;
    size_t processor = CPU_SETSIZE - 1;

    while (processor > 0 && !CPU_ISSET(processor, &stage->allowed))
        processor--;
    CPU_ZERO(&one);
    CPU_SET(processor, &one); /* the last one: the first has more of the machine's own work */
    if (sched_setaffinity(0, sizeof(one), pinned ? &one : &stage->allowed) != 0)
        give_up("sched_setaffinity");
}

/* Starts a program that mounts `mountpoint`, and waits until it has. A daemon dies with us. */
static pid_t start(const char *const argv[], const char *mountpoint)
{
    static const struct timespec pause = {.tv_nsec = LOOK_AGAIN_MS * 1000000};
    struct stat before, now;
    pid_t pid;

    if (stat(mountpoint, &before) != 0)
        give_up(mountpoint);
    pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[0], (char *const *)(uintptr_t)argv); /* it does not write to them */
        perror(argv[0]);
        _exit(127);
    }
    for (int i = 0; i < MOUNTED_MS / LOOK_AGAIN_MS; i++) {
        if (stat(mountpoint, &now) == 0 && now.st_dev != before.st_dev)
            return pid;
        if (waitpid(pid, NULL, WNOHANG) != 0)
            break;
        (void)nanosleep(&pause, NULL);
    }
    errno = ETIMEDOUT;
    give_up(argv[0]);
}

void stage_start_ours(struct stage *stage)
{
    const char *named = getenv("GPROCFS");
    const char *program = named != NULL ? named : "build/gprocfs";
    char options[PATH_MAX];
    const char *const argv[] = {program, "-f", "-o", options, stage->mail, stage->mnt, NULL};

    snprintf(options, sizeof(options), "lockdir=%s", stage->locks);
    stage->ours_pid = start(argv, stage->mnt);
}

/* It is beside this program. */
static void start_empty(struct stage *stage)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - sizeof("emptyfs"));

    if (length < 0)
        give_up("/proc/self/exe");
    path[length] = '\0';
    strcpy(strrchr(path, '/') + 1, "emptyfs"); /* there is room: see above */
    for (int i = 0; i < STAGE_EMPTY_KINDS; i++) {
        const char *argv[5] = {path};
        int count = 1;

        if (empty_kinds[i].option != NULL)
            argv[count++] = empty_kinds[i].option;
        if (i == STAGE_CALLS)
            argv[count++] = stage->root;
        argv[count] = stage->empty[i];
        stage->empty_pids[i] = start(argv, stage->empty[i]);
    }
}

void stage_start(struct stage *stage, int pinned)
{
    stage_pin(stage, pinned);
    stage_start_ours(stage);
    start_empty(stage);
}

static void stop(pid_t *pid)
{
    if (*pid == 0)
        return;
    if (kill(*pid, SIGTERM) != 0 || waitpid(*pid, NULL, 0) != *pid)
        give_up("a daemon does not end");
    *pid = 0;
}

void stage_stop(struct stage *stage)
{
    stop(&stage->ours_pid);
    for (int i = 0; i < STAGE_EMPTY_KINDS; i++)
        stop(&stage->empty_pids[i]);
    stage_pin(stage, 0);
}

int stage_open(const char *directory, const char *name, int flags)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0)
        give_up(path);
    return fd;
}

int stage_open_number(const char *directory, int number, int flags)
{
    char name[32];

    snprintf(name, sizeof(name), "%d", number);
    return stage_open(directory, name, flags);
}

void stage_frame(uint8_t *frame, size_t payload_bytes)
{
    memset(frame + STAGE_HEADER_BYTES, 'x', payload_bytes);
    mailbox_frame(frame, (uint32_t)payload_bytes, STAGE_SENDER, 0);
}

void stage_fill(const struct stage *stage, int mailbox, size_t messages_count, size_t payload_bytes)
{
    size_t frame_bytes = STAGE_HEADER_BYTES + payload_bytes;
    size_t most_count = FILL_BYTES / frame_bytes + 1;
    size_t room_count = messages_count < most_count ? messages_count : most_count;
    int fd = stage_open_number(stage->mail, mailbox, O_WRONLY | O_CREAT | O_TRUNC);
    uint8_t *frames = malloc(room_count * frame_bytes + 1);

    if (frames == NULL)
        give_up("memory");
    for (size_t i = 0; i < room_count; i++)
        stage_frame(frames + i * frame_bytes, payload_bytes);
    while (messages_count > 0) {
        size_t count = messages_count < room_count ? messages_count : room_count;

        if (write(fd, frames, count * frame_bytes) != (ssize_t)(count * frame_bytes))
            give_up("filling a mailbox");
        messages_count -= count;
    }
    free(frames);
    close(fd);
}

size_t stage_status_kib(pid_t pid, const char *field)
{
    size_t length = strlen(field);
    char line[256], path[64];
    size_t value = 0;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    status = fopen(path, "re");
    if (status == NULL)
        give_up(path);
    while (fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, field, length) == 0 && line[length] == ':')
            value = strtoul(line + length + 1, NULL, 10);
    }
    fclose(status);
    return value;
}
