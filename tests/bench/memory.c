/* How much memory the daemon has resident: idle, with many that wait, and under a large drain. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rows.h"

enum {
    READERS_COUNT = 1000,
    READER_STACK_BYTES = 64 * 1024,
    PARKED_MS = 10000,
    BOX = 20002, /* no other row's */
    BUFFER_BYTES = 1 << 20,
    MESSAGE_BYTES = 1024,
    DRAIN_BYTES = 1 << 30,
};

static double resident_mib(const struct stage *stage, const char *field)
{
    return (double)stage_status_kib(stage->ours_pid, field) / 1024;
}

static void add_mib(struct table *table, const char *name, double mib, double goal)
{
    table_add(table,
              &(struct table_row){name, "MiB", mib, TABLE_NOT_THERE, TABLE_VALUE_AT_MOST, goal});
}

/* How many readers wait, as the daemon counts them. */
static long parked_count(const struct stage *stage)
{
    static const char sample[] = "gprocfs_parked_requests{kind=\"message\"} ";
    int fd = stage_open(stage->mnt, ".stats", O_RDONLY);
    char text[32 * 1024];
    ssize_t length = read(fd, text, sizeof(text) - 1);
    const char *found;

    close(fd);
    if (length <= 0)
        give_up(".stats");
    text[(size_t)length] = '\0';
    found = strstr(text, sample);
    return found != NULL ? strtol(found + strlen(sample), NULL, 10) : 0;
}

/* A thread that waits for a message, which never comes. */
static void *wait_for_message(void *context)
{
    const int *fd = context;
    char message[STAGE_MESSAGE_BYTES];

    /* Only the end of the process ends it. */
    while (read(*fd, message, sizeof(message)) >= 0)
        ;
    give_up("a reader");
}

/* A process with nothing but readers, each of a mailbox of its own. Does not return. */
static void run_readers(const struct stage *stage)
{
    static int fds[READERS_COUNT];
    pthread_attr_t attributes;
    char name[64];

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, READER_STACK_BYTES);
    for (int i = 0; i < READERS_COUNT; i++) {
        pthread_t thread;

        snprintf(name, sizeof(name), ".follow/%d", i + 1);
        fds[i] = stage_open(stage->mnt, name, O_RDONLY);
        if (pthread_create(&thread, &attributes, wait_for_message, &fds[i]) != 0)
            give_up("a thread");
    }
    for (;;)
        pause();
}

static void measure_parked(const struct stage *stage, struct table *table, double idle_mib)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    pid_t child = fork();

    if (child < 0)
        give_up("fork");
    if (child == 0)
        run_readers(stage);
    for (int i = 0; i < PARKED_MS && parked_count(stage) < READERS_COUNT; i++)
        (void)nanosleep(&pause, NULL);
    if (parked_count(stage) != READERS_COUNT)
        give_up("readers do not wait");
    add_mib(table, "1,000 readers that wait: more", resident_mib(stage, "VmRSS") - idle_mib, 1);
    (void)kill(child, SIGKILL); /* it is ours */
    (void)waitpid(child, NULL, 0);
}

/* As much as there is room for: what is received is there twice, for a moment. */
static size_t drain_bytes(const struct stage *stage)
{
    struct statvfs below;
    unsigned long long room_bytes;

    if (statvfs(stage->mail, &below) != 0)
        give_up(stage->mail);
    room_bytes = (unsigned long long)below.f_bavail * below.f_frsize / 4;
    return room_bytes < DRAIN_BYTES ? (size_t)room_bytes : DRAIN_BYTES;
}

/* From here on the peak is counted anew. */
static void forget_peak(const struct stage *stage)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d", (int)stage->ours_pid);
    fd = stage_open(path, "clear_refs", O_WRONLY);
    if (write(fd, "5", 1) != 1)
        give_up("clear_refs");
    close(fd);
}

static void measure_drain(const struct stage *stage, struct table *table)
{
    size_t messages_count = drain_bytes(stage) / (STAGE_HEADER_BYTES + MESSAGE_BYTES);
    size_t envelope_bytes = sizeof("4711 1024\n") - 1;
    size_t left_bytes = messages_count * (envelope_bytes + MESSAGE_BYTES);
    char *buffer = malloc(BUFFER_BYTES);
    double before_mib;
    char name[64];
    int fd;

    if (buffer == NULL)
        give_up("memory");
    snprintf(name, sizeof(name), "drain of %zu MiB in messages of 1 KiB: more", left_bytes >> 20);
    stage_fill(stage, BOX, messages_count, MESSAGE_BYTES);
    fd = stage_open(stage->mnt, ".envelope/20002", O_RDONLY);
    forget_peak(stage);
    before_mib = resident_mib(stage, "VmRSS");
    while (left_bytes > 0) {
        ssize_t count = read(fd, buffer, BUFFER_BYTES);

        if (count <= 0)
            give_up("read");
        left_bytes -= (size_t)count;
    }
    close(fd);
    free(buffer);
    add_mib(table, name, resident_mib(stage, "VmHWM") - before_mib, 32);
}

void rows_memory(struct stage *stage, struct table *table)
{
    double idle_mib;

    for (int i = 1; i <= STAGE_NAMES_COUNT; i++)
        stage_fill(stage, i, 0, 0);
    stage_start_ours(stage);
    (void)parked_count(stage); /* what every mount does once, it has done */
    idle_mib = resident_mib(stage, "VmRSS");
    add_mib(table, "idle", idle_mib, 4);
    measure_parked(stage, table, idle_mib);
    measure_drain(stage, table);
    stage_stop(stage);
}
