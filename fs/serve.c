#include "serve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

enum {
    THREADS_MOST_COUNT = 512,
    STACK_BYTES = 512 * 1024,
    /* Ends the read that a thread waits in. It does nothing else; the number is nobody else's in
       this process. */
    WAKING_SIGNAL = SIGUSR1,
};

struct servers {
    struct fuse_session *session;
    pthread_t first; /* the thread that waits for signals */
    pthread_mutex_t mutex;
    /* Protected by mutex. */
    pthread_t threads[THREADS_MOST_COUNT];
    size_t threads_count;
    size_t idle_count;
    size_t running_count;
    bool ending;
};

static void *serve_requests(void *context);

/* Call with the mutex held. */
static int add_thread(struct servers *servers)
{
    pthread_attr_t attributes;
    int result;

    if (servers->threads_count == THREADS_MOST_COUNT)
        return -EAGAIN;
    result = -pthread_attr_init(&attributes);
    if (result < 0)
        return result;
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* refused, it is larger than this */
    result = -pthread_create(&servers->threads[servers->threads_count], &attributes, serve_requests,
                             servers);
    (void)pthread_attr_destroy(&attributes);
    if (result == 0) {
        servers->threads_count++;
        servers->running_count++;
        servers->idle_count++;
    }
    return result;
}

static void *serve_requests(void *context)
{
    struct servers *servers = context;
    struct fuse_session *session = servers->session;
    struct fuse_buf buffer = {.mem = NULL};
    bool ended = false;

    while (!ended && !fuse_session_exited(session)) {
        int received = fuse_session_receive_buf(session, &buffer);

        if (received == -EINTR || received == -EAGAIN)
            continue;
        if (received <= 0) {
            ended = true;
        } else {
            (void)pthread_mutex_lock(&servers->mutex);
            servers->idle_count--;
            if (servers->idle_count == 0 && !servers->ending)
                (void)add_thread(
                    servers); /* without one, requests wait for us: no more than that */
            (void)pthread_mutex_unlock(&servers->mutex);
            fuse_session_process_buf(session, &buffer);
            (void)pthread_mutex_lock(&servers->mutex);
            servers->idle_count++;
            (void)pthread_mutex_unlock(&servers->mutex);
        }
    }
    free(buffer.mem);
    fuse_session_exit(session);
    (void)pthread_mutex_lock(&servers->mutex);
    servers->running_count--;
    (void)pthread_mutex_unlock(&servers->mutex);
    (void)pthread_kill(servers->first, SIGTERM); /* the mount is gone, or it knows already */
    return NULL;
}

static void ignore(int number)
{
    (void)number;
}

static void fill_ending_signals(sigset_t *signals)
{
    (void)sigemptyset(signals); /* these cannot fail for signals that exist */
    (void)sigaddset(signals, SIGINT);
    (void)sigaddset(signals, SIGTERM);
    (void)sigaddset(signals, SIGHUP);
}

int serve_block_signals(void)
{
    struct sigaction waking = {.sa_handler = ignore}; /* no SA_RESTART: it is there to end a read */
    sigset_t signals;

    fill_ending_signals(&signals);
    if (sigaction(WAKING_SIGNAL, &waking, NULL) < 0)
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
    do {
        running = servers->running_count;
        for (i = 0; running > 0 && i < servers->threads_count; i++)
            (void)pthread_kill(servers->threads[i],
                               WAKING_SIGNAL); /* not joined yet, so it exists */
        (void)pthread_mutex_unlock(&servers->mutex);
        if (running > 0)
            (void)nanosleep(&pause, NULL);
        (void)pthread_mutex_lock(&servers->mutex);
    } while (running > 0);
    (void)pthread_mutex_unlock(&servers->mutex);
    for (i = 0; i < servers->threads_count; i++)
        (void)pthread_join(servers->threads[i], NULL);
}

int serve(struct fuse_session *session, atomic_bool *ending)
{
    struct servers servers = {.session = session, .first = pthread_self()};
    sigset_t signals;
    int number, result;

    (void)pthread_mutex_init(&servers.mutex, NULL); /* without attributes it cannot fail */
    (void)pthread_mutex_lock(&servers.mutex);
    result = add_thread(&servers);
    (void)pthread_mutex_unlock(&servers.mutex);
    if (result == 0) {
        fill_ending_signals(&signals);
        while (sigwait(&signals, &number) != 0)
            ;
        fuse_session_exit(session);
        atomic_store(ending, true);
        end_threads(&servers);
    }
    (void)pthread_mutex_destroy(&servers.mutex);
    return result;
}
