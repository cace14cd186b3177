#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

enum {
    THREADS_MOST_COUNT = 2048,
    STACK_BYTES = 512 * 1024,
    /* Ends the read that a thread waits in, and does nothing else. These numbers are nobody else's in
       this process. */
    READ_SIGNAL = SIGUSR1,
    /* Wakes the thread that watches over the others. */
    WATCH_SIGNAL = SIGUSR2,
    TICK_NS = 1000 * 1000,
    MEMORY_PAUSE_NS = 100 * 1000 * 1000,
    BUSY_TICKS = 20,  /* without a moment of rest: one thread is too few */
    CALM_TICKS = 200, /* with one at rest at each of them: it is one too many */
    IDLE_TICKS = 100, /* without a request: it can be waited for */
    LONG_TICKS = 5,   /* at the same work: whoever comes meanwhile need not wait for it */
};

/*
 * One thread reads requests and does the work, as long as that takes no longer than a tick: on one
 * processor a second one that reads too costs a third more. The kernel wakes whoever answered last
 * too late, since the reader of the answer comes first, and so gives each request to the other.
 * A device of its own for each thread (clone_fd) changes nothing about that, on one processor or
 * two: an empty file system costs 1.3 times as much by libfuse's threads, with it or without (make
 * bench). So it is not used: libfuse offers it in its own loop only.
 *
 * The first thread watches, by a clock that ticks while there is something to do. Where nobody reads
 * because all are at work for longer than a tick (a slow disk), or there is no end of work and more
 * than one processor, it calls another one in, which reads too, until for a while one of them was
 * at rest at each tick and nobody was at one work for long. (That all were at rest would be too much
 * to ask: where messages follow each other one is always at work, and each would cost a third more
 * for as long as that goes on.) Whoever comes back from his work when enough are reading stands by.
 */
struct server {
    struct servers *all;
    pthread_t thread;
    /* Protected by the servers' mutex. */
    pid_t tid; /* 0: not known yet */
    bool works;
    int ticks; /* so many at the same work, or more than LONG_TICKS */
};

struct servers {
    struct fuse_session *session;
    pthread_t first; /* the thread that waits for signals, and watches */
    size_t processors_count;
    pthread_mutex_t mutex;
    pthread_cond_t called;
    /* Protected by mutex. */
    struct server threads[THREADS_MOST_COUNT];
    size_t threads_count;
    size_t running_count;
    size_t reading_count; /* in a read, or on the way to it */
    size_t reading_most_count;
    size_t standing_by_count;
    size_t calls_count; /* of those that stand by, not yet answered */
    uint64_t requests_count;
    bool watched; /* the clock ticks */
    bool ending;
};

/* The first thread's own. */
struct watch {
    uint64_t requests_count; /* at the last tick */
    int still_ticks;         /* nobody reads, and nothing has been read since the last one */
    int busy_ticks;
    int calm_ticks;
    int idle_ticks;
};

static void *serve_requests(void *context);

/* A thread that reads. Call with the mutex held. */
static int add_thread(struct servers *servers)
{
    struct server *server = &servers->threads[servers->threads_count];
    pthread_attr_t attributes;
    int result;

    if (servers->threads_count == THREADS_MOST_COUNT)
        return -EAGAIN;
    result = -pthread_attr_init(&attributes);
    if (result < 0)
        return result;
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* refused, it is larger than this */
    server->all = servers;
    result = -pthread_create(&server->thread, &attributes, serve_requests, server);
    (void)pthread_attr_destroy(&attributes);
    if (result == 0) {
        servers->threads_count++;
        servers->running_count++;
        servers->reading_count++;
    }
    return result;
}

/* One more reads from now on. Call with the mutex held. */
static void call_in(struct servers *servers)
{
    if (servers->standing_by_count > servers->calls_count) {
        servers->calls_count++;
        servers->reading_count++;
        (void)pthread_cond_signal(&servers->called);
    } else {
        (void)add_thread(servers); /* without one requests wait for us: no more than that */
    }
}

/* A request has been read. */
static void begin_to_work(struct server *server)
{
    struct servers *servers = server->all;
    bool wake;

    (void)pthread_mutex_lock(&servers->mutex);
    servers->reading_count--;
    servers->requests_count++;
    server->works = true;
    server->ticks = 0;
    wake = !servers->watched;
    servers->watched = true;
    (void)pthread_mutex_unlock(&servers->mutex);
    if (wake)
        (void)pthread_kill(servers->first, WATCH_SIGNAL); /* it waits for it */
}

/* It has been answered, or put aside: read, or stand by. */
static void end_work(struct server *server)
{
    struct servers *servers = server->all;

    (void)pthread_mutex_lock(&servers->mutex);
    server->works = false;
    if (servers->reading_count < servers->reading_most_count || servers->ending) {
        servers->reading_count++;
    } else {
        servers->standing_by_count++;
        while (servers->calls_count == 0 && !servers->ending)
            (void)pthread_cond_wait(&servers->called, &servers->mutex);
        servers->standing_by_count--;
        if (servers->calls_count > 0)
            servers->calls_count--; /* who called has counted us */
        else
            servers->reading_count++;
    }
    (void)pthread_mutex_unlock(&servers->mutex);
}

static void *serve_requests(void *context)
{
    struct server *server = context;
    struct servers *servers = server->all;
    struct fuse_session *session = servers->session;
    struct fuse_buf buffer = {.mem = NULL};
    bool ended = false;

    (void)pthread_mutex_lock(&servers->mutex);
    server->tid = gettid();
    (void)pthread_mutex_unlock(&servers->mutex);
    while (!ended && !fuse_session_exited(session)) {
        int received = fuse_session_receive_buf(session, &buffer);

        if (received == -EINTR || received == -EAGAIN)
            continue;
        if (received == -ENOMEM) { /* for the buffer: nothing has been read */
            (void)nanosleep(&(struct timespec){0, MEMORY_PAUSE_NS}, NULL);
            continue;
        }
        if (received <= 0) {
            ended = true;
        } else {
            begin_to_work(server);
            fuse_session_process_buf(session, &buffer);
            end_work(server);
        }
    }
    free(buffer.mem);
    fuse_session_exit(session);
    (void)pthread_mutex_lock(&servers->mutex);
    servers->reading_count--;
    servers->running_count--;
    (void)pthread_mutex_unlock(&servers->mutex);
    (void)pthread_kill(servers->first, SIGTERM); /* the mount is gone, or it knows already */
    return NULL;
}

/* Whether it works, or would if it had a processor: so it says in /proc. */
static bool is_running(pid_t tid)
{
    char path[64], text[256];
    const char *after = NULL;
    ssize_t length = -1;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", (long)tid); /* it always fits */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        length = read(fd, text, sizeof(text) - 1);
        (void)close(fd);
    }
    if (length > 0) {
        text[length] = '\0';
        after = strrchr(text, ')'); /* the name before it may hold anything */
    }
    return after != NULL && strncmp(after, ") R", 3) == 0;
}

/*
 * Whether all are at work and none gets on with it, or all have been for long (a gibibyte is copied).
 * Call with the mutex held.
 */
static bool is_stuck(const struct servers *servers, struct watch *watch)
{
    size_t i;

    if (servers->reading_count > 0 || servers->requests_count != watch->requests_count) {
        watch->still_ticks = 0;
        return false;
    }
    if (++watch->still_ticks >= LONG_TICKS)
        return true;
    for (i = 0; i < servers->threads_count; i++) {
        if (servers->threads[i].works && is_running(servers->threads[i].tid))
            return false; /* it waits for a processor, as any other would */
    }
    return true;
}

/* Whether one at least is at the same work for long. To be asked at each tick, with the mutex held. */
static bool is_any_long_at_work(struct servers *servers)
{
    bool is_any = false;
    size_t i;

    for (i = 0; i < servers->threads_count; i++) {
        struct server *server = &servers->threads[i];

        if (!server->works)
            continue;
        server->ticks += server->ticks <= LONG_TICKS;
        is_any = is_any || server->ticks > LONG_TICKS;
    }
    return is_any;
}

/* Judges how many should read. Call with the mutex held. */
static void judge(struct servers *servers, struct watch *watch)
{
    bool stuck = is_stuck(servers, watch);
    bool calm = !is_any_long_at_work(servers) && servers->reading_count > 0;
    /* One that reads beside others that are stuck may get stuck too: another one is there then. */
    size_t ceiling = servers->processors_count > 2 ? servers->processors_count : 2;

    watch->busy_ticks = servers->reading_count == 0 ? watch->busy_ticks + 1 : 0;
    watch->calm_ticks = calm ? watch->calm_ticks + 1 : 0;
    if ((stuck && servers->reading_most_count < ceiling) ||
        (watch->busy_ticks >= BUSY_TICKS &&
         servers->reading_most_count < servers->processors_count)) {
        servers->reading_most_count++;
        watch->busy_ticks = 0;
    } else if (watch->calm_ticks >= CALM_TICKS && servers->reading_most_count > 1) {
        servers->reading_most_count--;
        watch->calm_ticks = 0;
    }
    if (stuck ||
        (servers->reading_most_count > 1 && servers->reading_count < servers->reading_most_count))
        call_in(servers);
}

/* False: nothing has happened for a while, and somebody reads: the clock may stand still. */
static bool tick(struct servers *servers, struct watch *watch)
{
    bool goes_on;

    (void)pthread_mutex_lock(&servers->mutex);
    judge(servers, watch);
    watch->idle_ticks =
        servers->requests_count == watch->requests_count ? watch->idle_ticks + 1 : 0;
    watch->requests_count = servers->requests_count;
    goes_on = watch->idle_ticks < IDLE_TICKS || servers->reading_count == 0;
    if (!goes_on)
        *watch = (struct watch){.requests_count = servers->requests_count};
    servers->watched = goes_on;
    (void)pthread_mutex_unlock(&servers->mutex);
    return goes_on;
}

static void ignore(int number)
{
    (void)number;
}

/* Those that end the mount, and the one that wakes who waits for them. */
static void fill_signals(sigset_t *signals)
{
    (void)sigemptyset(signals); /* these cannot fail for signals that exist */
    (void)sigaddset(signals, SIGINT);
    (void)sigaddset(signals, SIGTERM);
    (void)sigaddset(signals, SIGHUP);
    (void)sigaddset(signals, WATCH_SIGNAL);
}

/* Watches until a signal says that it is the end. */
static void watch_over(struct servers *servers)
{
    static const struct timespec interval = {0, TICK_NS};
    struct watch watch = {0};
    bool ticks = false;
    sigset_t signals;
    int number;

    fill_signals(&signals);
    do {
        number = ticks ? sigtimedwait(&signals, NULL, &interval) : sigwaitinfo(&signals, NULL);
        if (number == WATCH_SIGNAL)
            ticks = true;
        else if (number < 0 && errno == EAGAIN)
            ticks = tick(servers, &watch);
    } while (number < 0 || number == WATCH_SIGNAL);
}

int serve_block_signals(void)
{
    struct sigaction waking = {.sa_handler = ignore}; /* no SA_RESTART: it is there to end a read */
    sigset_t signals;

    fill_signals(&signals);
    if (sigaction(READ_SIGNAL, &waking, NULL) < 0)
        return -errno;
    (void)signal(SIGPIPE, SIG_IGN); /* these cannot fail for signals that exist */
    (void)signal(SIGXFSZ, SIG_IGN);
    return -pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

/* A signal may come just before the read that it is to end, so it is sent until every thread has
 * ended. */
static void end_threads(struct servers *servers)
{
    struct timespec pause = {0, 1000 * 1000};
    size_t running;
    size_t i;

    (void)pthread_mutex_lock(&servers->mutex);
    servers->ending = true;
    (void)pthread_cond_broadcast(&servers->called);
    do {
        running = servers->running_count;
        for (i = 0; running > 0 && i < servers->threads_count; i++)
            (void)pthread_kill(servers->threads[i].thread,
                               READ_SIGNAL); /* not joined yet, so it exists */
        (void)pthread_mutex_unlock(&servers->mutex);
        if (running > 0)
            (void)nanosleep(&pause, NULL);
        (void)pthread_mutex_lock(&servers->mutex);
    } while (running > 0);
    (void)pthread_mutex_unlock(&servers->mutex);
    for (i = 0; i < servers->threads_count; i++)
        (void)pthread_join(servers->threads[i].thread, NULL);
}

static size_t count_processors(void)
{
    cpu_set_t processors;

    return sched_getaffinity(0, sizeof(processors), &processors) == 0
               ? (size_t)CPU_COUNT(&processors)
               : 1; /* there are too many to be told: one thread will do, and more where it is slow */
}

int serve(struct fuse_session *session, atomic_bool *ending)
{
    struct servers servers = {
        .session = session,
        .first = pthread_self(),
        .processors_count = count_processors(),
        .reading_most_count = 1,
    };
    int result;

    (void)pthread_mutex_init(&servers.mutex, NULL); /* without attributes it cannot fail */
    (void)pthread_cond_init(&servers.called, NULL);
    (void)pthread_mutex_lock(&servers.mutex);
    result = add_thread(&servers);
    (void)pthread_mutex_unlock(&servers.mutex);
    if (result == 0) {
        watch_over(&servers);
        fuse_session_exit(session);
        atomic_store(ending, true);
        end_threads(&servers);
    }
    (void)pthread_cond_destroy(&servers.called);
    (void)pthread_mutex_destroy(&servers.mutex);
    return result;
}
