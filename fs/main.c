/*
 * gprocfs [options] [mailbox-directory] mountpoint
 *
 * Exit status: 0 mounted (and, in the foreground, unmounted again), 1 it could not run, 2 usage.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gprocfs.h"
#include "log.h"
#include "move.h"
#include "notify.h"
#include "operations.h"
#include "options.h"
#include "paths.h"
#include "serve.h"
#include "take.h"

enum {
    EXIT_USAGE = 2,
    DIRECTORY_MODE = 0777,
    /* At the end, for locks that are held: a clean unmount takes less than a second. */
    RETURN_WAIT_MS = 500,
    WORDS_MOST_BYTES = 512,
};

/*
 * What libfuse and fusermount3 say on standard error while the mount is made: kept, so that the
 * user reads one line, which is ours. Where it cannot be kept, it goes where it always went.
 */
struct words {
    int fd;        /* -1: nothing is kept */
    int stderr_fd; /* the real one; owned, as is fd */
};

static void words_begin(struct words *words, bool keep)
{
    words->fd = -1;
    words->stderr_fd = keep ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) : -1;
    if (words->stderr_fd >= 0)
        words->fd = memfd_create("gprocfs words", MFD_CLOEXEC);
    if (words->fd >= 0 && dup2(words->fd, STDERR_FILENO) < 0) {
        (void)close(words->fd); /* it is empty */
        words->fd = -1;
    }
}

/* How much at the beginning of a line names its speaker. */
static size_t speaker_length(const char *line)
{
    static const char *const speakers[] = {"fuse: ", "fusermount3: ", "fusermount: "};
    size_t i;

    for (i = 0; i < sizeof(speakers) / sizeof(speakers[0]); i++) {
        size_t length = strlen(speakers[i]);

        if (strncmp(line, speakers[i], length) == 0)
            return length;
    }
    return 0;
}

/* Makes one line of several, and strips the names of the speakers. */
static void words_join(char *text)
{
    char *line = text;
    char *end;

    for (end = text + strlen(text); end > text && end[-1] == '\n'; end--)
        end[-1] = '\0';
    while (line != NULL) {
        size_t length = speaker_length(line);

        memmove(line, line + length, strlen(line + length) + 1);
        line = strchr(line, '\n');
        if (line != NULL)
            *line++ = ';';
    }
}

/* Gives standard error back. `text`: what was said, or "". */
static void words_end(struct words *words, char text[WORDS_MOST_BYTES])
{
    ssize_t length = 0;

    if (words->fd >= 0) {
        length = pread(words->fd, text, WORDS_MOST_BYTES - 1, 0);
        (void)dup2(words->stderr_fd, STDERR_FILENO); /* fails for no number that is open */
        (void)close(words->fd);                      /* all of it has been read */
    }
    text[length > 0 ? length : 0] = '\0';
    words_join(text);
    if (words->stderr_fd >= 0)
        (void)close(words->stderr_fd); /* a copy */
}

/* A directory's path that still means the same when we have left for "/". Owned by the caller;
 * NULL: no memory. */
static char *absolute(const char *path)
{
    char here[PATH_MAX];
    char *joined = NULL;

    if (path[0] == '/')
        return strdup(path);
    if (getcwd(here, sizeof(here)) == NULL || asprintf(&joined, "%s/%s", here, path) < 0)
        return NULL;
    return joined;
}

/*
 * The directory that was named, or the environment's. A named one may be a symbolic link; the usual
 * one, in a directory that everybody writes to, may not.
 */
static int open_place(struct gproc_place *place, const char *named,
                      int (*usual)(char *path, size_t size_bytes), mode_t mode)
{
    char path[PATH_MAX];
    char *whole;
    int result = 0;

    if (named != NULL) {
        if (realpath(named, path) == NULL &&
            (size_t)snprintf(path, sizeof(path), "%s", named) >= sizeof(path))
            result = -ENAMETOOLONG;
    } else {
        result = usual(path, sizeof(path));
    }
    if (result < 0) {
        log_error("%s: %s", named != NULL ? named : "TMPDIR or gproc.tempdir", strerror(-result));
        return result;
    }
    whole = absolute(path);
    if (whole == NULL) {
        log_error("%s: %s", path, strerror(ENOMEM));
        return -ENOMEM;
    }
    result = gproc_place_init(place, whole, mode);
    if (result < 0)
        log_error("%s: %s", whole, strerror(-result));
    free(whole);
    return result;
}

/* Whether `path` leads through what is mounted on `mountpoint`, which is absolute. */
static bool is_below(const char *path, const char *mountpoint)
{
    size_t length = strlen(mountpoint);
    char whole[PATH_MAX];

    if (realpath(path, whole) == NULL)
        return false;
    if (length == 1) /* "/" */
        return true;
    return strncmp(whole, mountpoint, length) == 0 &&
           (whole[length] == '/' || whole[length] == '\0');
}

/*
 * Both directories are looked up by their paths again and again. A path through the mount would
 * have the daemon wait for itself, inside the kernel, where not even SIGKILL ends it.
 */
static int check_paths(const struct gprocfs *fs, const char *mountpoint)
{
    if (!is_below(fs->mailboxes.path, mountpoint) && !is_below(fs->locks.path, mountpoint))
        return 0;
    log_error("%s: mounted here, gprocfs would hide the mailboxes or their locks from itself",
              mountpoint);
    return -EINVAL;
}

/* Whether the mount would hide the mailboxes: Go programs would send through it, and be framed
 * twice. */
static int check_mountpoint(const struct gprocfs *fs, const char *mountpoint)
{
    struct stat mailboxes;
    struct statx there;

    /* Asked for anew: the kernel may still believe what a mount that is dead by now said a moment
     * ago. */
    if (statx(AT_FDCWD, mountpoint, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &there) < 0) {
        int error = -errno;

        log_error("%s: %s%s%s", mountpoint, strerror(-error),
                  error == -ENOTCONN ? "; a dead mount is there, clear it with: fusermount3 -u "
                                     : "",
                  error == -ENOTCONN ? mountpoint : "");
        return error;
    }
    if (!S_ISDIR(there.stx_mode)) {
        log_error("%s: %s", mountpoint, strerror(ENOTDIR));
        return -ENOTDIR;
    }
    if (fstat(fs->mailboxes.fd, &mailboxes) < 0)
        return -errno;
    if (makedev(there.stx_dev_major, there.stx_dev_minor) == mailboxes.st_dev &&
        there.stx_ino == mailboxes.st_ino) {
        log_error("%s is the mailbox directory itself: mounted over it, every message that a "
                  "program sends"
                  " there would be framed twice",
                  mountpoint);
        return -EINVAL;
    }
    return 0;
}

/* From here on the mountpoint is absolute: to be unmounted it must be found again from "/". */
static int resolve_mountpoint(struct options *options)
{
    char *whole = realpath(options->mountpoint, NULL);
    int error = -errno;

    if (whole == NULL) {
        log_error("%s: %s", options->mountpoint, strerror(-error));
        return error;
    }
    free(options->mountpoint);
    options->mountpoint = whole;
    return 0;
}

/* Descriptors are what a mailbox in flight costs: as many as we may have. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* with fewer it works too */
    }
}

static int load_segment(void *context, pid_t pid, uint64_t serial)
{
    struct gprocfs *fs = context;
    struct box *box = box_get(fs, pid);
    int result;

    if (box == NULL)
        return -ENOMEM;
    result = gproc_inflight_load(&box->inflight, serial);
    if (result < 0)
        log_mailbox(pid, "cannot load what a dead mount left in flight", result);
    box_count_inflight(box);
    box_put(box);
    /* It is tried again when the mailbox is used, which the others are not to suffer from. */
    return result == -ENOMEM ? result : 0;
}

/* What we hold below, before there is a mount. Each step is undone by tear_down(). */
static int set_up(struct gprocfs *fs, struct options *options)
{
    mode_t mask = umask(0);
    int result;

    umask(mask); /* it cannot be asked for without being set */
    fs->message_most_bytes = (size_t)options->message_most_bytes;
    fs->read_most_bytes = (uint32_t)options->read_most_bytes;
    fs->lock_timeout_ms = (int64_t)options->lock_timeout_s * 1000;
    fs->live = options->live != 0;
    fs->gives_away = geteuid() == 0;
    fs->read_only = options->read_only != 0;
    fs->mailboxes.fd = -1;
    fs->locks.fd = -1;
    fs->store.fd = -1;
    fs->store.lock_fd = -1;
    boxes_init(&fs->boxes);
    opened_init(&fs->opened);
    result = open_place(&fs->mailboxes, options->mailbox_directory, gproc_mailbox_directory,
                        DIRECTORY_MODE & ~mask);
    if (result == 0)
        result = open_place(&fs->locks, options->lock_directory, gproc_lock_directory,
                            DIRECTORY_MODE & ~mask);
    if (result == 0)
        result = check_mountpoint(fs, options->mountpoint);
    if (result == 0)
        result = resolve_mountpoint(options);
    if (result == 0)
        result = check_paths(fs, options->mountpoint);
    return result;
}

static void tear_down(struct gprocfs *fs)
{
    opened_release(&fs->opened);
    boxes_release(&fs->boxes);
    gproc_store_close(&fs->store);
    gproc_place_release(&fs->locks);
    gproc_place_release(&fs->mailboxes);
}

/* What dead mounts left, and a place for what we take. A mount that only looks needs neither. */
static int open_store(struct gprocfs *fs)
{
    int result;

    if (fs->read_only)
        return 0;
    result = gproc_store_open(&fs->store, &fs->mailboxes);
    if (result < 0) {
        log_error("%s/.gprocfs: %s", fs->mailboxes.path, strerror(-result));
        return result;
    }
    result = gproc_store_adopt(&fs->store);
    if (result >= 0)
        result = gproc_store_list(&fs->store, load_segment, fs);
    if (result < 0)
        log_error("%s/.gprocfs: %s; what dead mounts left cannot be picked up now",
                  fs->mailboxes.path, strerror(-result));
    return result < 0 ? result : 0;
}

static void end_parked(struct box *box)
{
    box_end_parked(box, -ENOTCONN);
}

/* What was taken and not delivered goes back. */
static void put_back(struct gprocfs *fs)
{
    atomic_store(&fs->store.is_ending, false); /* it has ended: this is to be done in full */
    fs->return_until_ms = keeper_now_ms() + RETURN_WAIT_MS;
    boxes_each(&fs->boxes, take_return);
}

/* The threads that watch over those that wait. */
static int start_watching(struct gprocfs *fs)
{
    int result = keeper_start(&fs->keeper, fs);

    if (result < 0)
        return result;
    result = lookout_start(&fs->lookout, fs);
    if (result < 0) {
        keeper_stop(&fs->keeper);
        keeper_release(&fs->keeper);
    }
    return result;
}

/* From the first request to the last. */
static int run(struct gprocfs *fs, struct fuse_session *session)
{
    int result;

    fs->session = session;
    crew_init(&fs->crew);
    result = start_watching(fs);
    if (result == 0) {
        result = serve(session, &fs->store.is_ending);
        (void)notify_send("STOPPING=1"); /* a failure is logged */
        keeper_stop(&fs->keeper);
        lookout_stop(&fs->lookout);
        /* Before the crew, which may be in the kernel, where it waits for one of these. */
        boxes_each(&fs->boxes, end_parked);
        crew_stop(&fs->crew);
        keeper_release(&fs->keeper);
        lookout_release(&fs->lookout);
    } else {
        crew_stop(&fs->crew);
    }
    boxes_each(&fs->boxes, end_parked);
    return result;
}

/*
 * libfuse before 3.17 keeps FUSE_CAP_PARALLEL_DIROPS to itself: the kernel is not told. So the first
 * answer, which is that to INIT, is completed here.
 */
static ssize_t write_answer(int fd, struct iovec *parts, int count, void *userdata)
{
    static atomic_bool has_begun;
    struct fuse_init_out *answer = count == 2 ? parts[1].iov_base : NULL;

    (void)userdata;
    if (!atomic_exchange(&has_begun, true) && answer != NULL &&
        parts[1].iov_len >= offsetof(struct fuse_init_out, max_background))
        answer->flags |= FUSE_PARALLEL_DIROPS;
    return writev(fd, parts, count);
}

static ssize_t read_request(int fd, void *buffer, size_t size_bytes, void *userdata)
{
    (void)userdata;
    return read(fd, buffer, size_bytes);
}

/* The session, mounted; NULL: it has been told why not, and `*status` is what to exit with. */
static struct fuse_session *mount_session(struct gprocfs *fs, struct options *options, int *status)
{
    struct fuse_session *session;
    struct words words;
    char text[WORDS_MOST_BYTES];

    words_begin(&words, !options->debug);
    session = fuse_session_new(&options->fuse, &operations, sizeof(operations), fs);
    *status = session == NULL ? EXIT_USAGE : EXIT_FAILURE;
    if (session != NULL && fuse_session_mount(session, options->mountpoint) != 0) {
        fuse_session_destroy(session);
        session = NULL;
    }
    if (session != NULL)
        (void)fuse_session_custom_io(
            session, &(struct fuse_custom_io){.read = read_request, .writev = write_answer},
            fuse_session_fd(session));
    words_end(&words, text);
    if (session == NULL && *status == EXIT_USAGE)
        log_error("%s; try gprocfs -h", text[0] != '\0' ? text : "an option is wrong");
    else if (session == NULL)
        log_error("%s: cannot be mounted%s%s", options->mountpoint, text[0] != '\0' ? ": " : "",
                  text);
    else if (text[0] != '\0')
        log_error("%s", text); /* a warning */
    return session;
}

/* What libfuse has to say in the background, where there is no standard error. */
static void log_words(enum fuse_log_level level, const char *format, va_list arguments)
{
    char text[WORDS_MOST_BYTES];

    (void)level;
    (void)vsnprintf(text, sizeof(text), format, arguments); /* a line too long is cut */
    words_join(text);
    log_error("%s", text);
}

static int go_and_run(struct gprocfs *fs, struct fuse_session *session,
                      const struct options *options)
{
    int result = fuse_daemonize(options->foreground || options->debug) == 0 ? 0 : -EIO;

    if (result == 0) {
        umask(0); /* every mode that is used has been cut already: by the caller's, or by ours */
        if (!options->foreground && !options->debug) {
            log_to_syslog();
            fuse_set_log_func(log_words);
        }
        (void)notify_send("READY=1"); /* a failure is logged */
        result = run(fs, session);
    }
    if (result < 0)
        log_error("%s", strerror(-result));
    fuse_session_unmount(session); /* first: a gibibyte to be put back keeps no mount in place */
    put_back(fs);
    return result;
}

static int add_mount_options(struct options *options)
{
    return fuse_opt_add_arg(&options->fuse, "-o") == 0 &&
                   fuse_opt_add_arg(&options->fuse, "default_permissions,subtype=gprocfs") == 0 &&
                   (!options->debug || fuse_opt_add_arg(&options->fuse, "-odebug") == 0)
               ? 0
               : -ENOMEM;
}

int main(int argc, char *argv[])
{
    static struct gprocfs fs; /* too large for a stack */
    struct options options;
    struct fuse_session *session = NULL;
    enum options_result parsed = options_parse(&options, argc, argv);
    int status = EXIT_FAILURE;

    if (parsed != OPTIONS_RUN) {
        options_release(&options);
        return parsed == OPTIONS_SHOWN ? EXIT_SUCCESS : EXIT_USAGE;
    }
    raise_limits();
    if (serve_block_signals() == 0 && set_up(&fs, &options) == 0 && open_store(&fs) == 0 &&
        add_mount_options(&options) == 0) {
        session = mount_session(&fs, &options, &status);
        if (session != NULL && go_and_run(&fs, session, &options) == 0)
            status = EXIT_SUCCESS;
    }
    if (session != NULL)
        fuse_session_destroy(session);
    tear_down(&fs);
    options_release(&options);
    return status;
}
