#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "paths.h"

enum {
    COMMON_MODE = 01777,
    UNFINISHED_MODE = 0500, /* of the common directory until it has its mode */
    OWN_MODE = 0700,
    FILE_MODE = 0600,
    TRIES_COUNT = 100,
};

static const char common_name[] = ".gprocfs";
static const char lock_name[] = "lock";

static const int directory_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
static const int file_flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

/* Gives the common directory its mode, if we made it just now, or were killed when we had. */
static int finish_common(int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    if (status.st_uid != geteuid() ||
        ((status.st_mode & 07777) | UNFINISHED_MODE) != UNFINISHED_MODE)
        return 0;
    return fchmod(fd, COMMON_MODE) < 0 ? -errno : 0;
}

/* The directory that all mounts share, made where it is missing; or a negative errno. */
static int open_common(struct gproc_place *directory)
{
    int attempt;

    for (attempt = 0; attempt < TRIES_COUNT; attempt++) {
        int fd = openat(directory->fd, common_name, directory_flags);
        int result;

        if (fd >= 0) {
            result = finish_common(fd);
            if (result == 0)
                return fd;
            (void)close(fd);
            return result;
        }
        if (errno != ENOENT)
            return -errno;
        if (mkdirat(directory->fd, common_name, UNFINISHED_MODE) == 0 || errno == EEXIST)
            continue;
        if (errno != ENOENT)
            return -errno;
        result = gproc_place_renew(directory); /* the mailbox directory itself is gone */
        if (result < 0)
            return result;
    }
    return -EAGAIN;
}

/*
 * Locks `lock` in directory `fd`, making it where it is missing. -EAGAIN: somebody holds it, or the
 * file or the directory has been tidied away by a mount that took it for a dead one's.
 */
static int lock_directory(int fd)
{
    int lock_fd = openat(fd, lock_name, file_flags | O_CREAT, FILE_MODE);
    struct stat status;
    int result = 0;

    if (lock_fd < 0)
        return errno == ENOENT ? -EAGAIN : -errno;
    if (flock(lock_fd, LOCK_EX | LOCK_NB) < 0)
        result = errno == EWOULDBLOCK ? -EAGAIN : -errno;
    else if (fstat(lock_fd, &status) < 0)
        result = -errno;
    else if (status.st_nlink == 0)
        result = -EAGAIN;
    if (result == 0)
        return lock_fd;
    (void)close(lock_fd);
    return result;
}

static int make_own(struct gproc_store *store, int common)
{
    unsigned char noise[16];
    size_t i;

    if (getrandom(noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        return -EIO;
    for (i = 0; i < sizeof(noise); i++)
        (void)snprintf(store->name + 2 * i, 3, "%02x", noise[i]); /* it always fits */
    if (mkdirat(common, store->name, OWN_MODE) < 0) /* ENOENT: tidied away by a mount that ended */
        return errno == EEXIST || errno == ENOENT ? -EAGAIN : -errno;
    store->fd = openat(common, store->name, directory_flags);
    if (store->fd < 0)
        return errno == ENOENT ? -EAGAIN : -errno;
    store->lock_fd = lock_directory(store->fd);
    if (store->lock_fd >= 0)
        return 0;
    (void)close(store->fd);
    store->fd = -1;
    return store->lock_fd;
}

/* Directory and lock, anew. */
static int make(struct gproc_store *store)
{
    int result = -EAGAIN;
    struct stat status;
    int attempt;

    if (fstat(store->directory->fd, &status) < 0)
        return -errno;
    store->device = status.st_dev;
    store->inode = status.st_ino;
    for (attempt = 0; attempt < TRIES_COUNT && result == -EAGAIN; attempt++) {
        int common = open_common(store->directory);

        if (common < 0)
            return common;
        result = make_own(store, common);
        (void)close(common);
    }
    return result;
}

int gproc_store_open(struct gproc_store *store, struct gproc_place *directory)
{
    int result;

    store->directory = directory;
    store->fd = -1;
    store->lock_fd = -1;
    atomic_init(&store->is_ending, false);
    result = -pthread_mutex_init(&store->renewing, NULL);
    if (result < 0)
        return result;
    result = make(store);
    if (result < 0)
        (void)pthread_mutex_destroy(&store->renewing);
    return result;
}

/* Whether the mailbox directory is another one by now (1, 0, or a negative errno): what was taken from
 * there no other mount would find here. Call with `renewing` held. */
static int is_elsewhere(const struct gproc_store *store)
{
    struct stat status;

    if (fstat(store->directory->fd, &status) < 0)
        return -errno;
    return status.st_ino != store->inode || status.st_dev != store->device;
}

static void move_to(struct gproc_store *store, const struct gproc_store *other)
{
    memcpy(store->name, other->name, sizeof(store->name));
    store->device = other->device;
    store->inode = other->inode;
}

/*
 * Somebody deleted the mailbox directory and all in it, or moved it away: go on in a new one. As with
 * a place, the numbers of the descriptors stay, for the threads that use them at this moment.
 */
static int renew(struct gproc_store *store)
{
    struct gproc_store other = {.directory = store->directory, .fd = -1, .lock_fd = -1};
    struct stat status;
    int result;

    (void)pthread_mutex_lock(&store->renewing);
    result = fstat(store->fd, &status) < 0 ? -errno : is_elsewhere(store);
    if (result == 1 || (result == 0 && status.st_nlink == 0))
        result = make(&other); /* else another thread was faster */
    if (result == 0 && other.fd >= 0) {
        if (dup3(other.lock_fd, store->lock_fd, O_CLOEXEC) < 0 ||
            dup3(other.fd, store->fd, O_CLOEXEC) < 0)
            result = -errno;
        else
            move_to(store, &other);
        (void)close(other.lock_fd);
        (void)close(other.fd);
    }
    (void)pthread_mutex_unlock(&store->renewing);
    return result;
}

void gproc_store_close(struct gproc_store *store)
{
    if (store->fd >= 0) {
        /* Each of these fails where something is left, or somebody else has tidied up: as it
         * should. */
        int common = openat(store->directory->fd, common_name, directory_flags);

        (void)unlinkat(store->fd, lock_name, 0);
        (void)close(store->lock_fd); /* on NFS an open file keeps a name */
        if (common >= 0) {
            (void)unlinkat(common, store->name, AT_REMOVEDIR);
            (void)close(common);
            (void)unlinkat(store->directory->fd, common_name, AT_REMOVEDIR);
        }
        (void)close(store->fd);
        (void)pthread_mutex_destroy(&store->renewing);
    }
    store->fd = -1;
    store->lock_fd = -1;
}

static void segment_name(char name[GPROC_STORE_NAME_BYTES], pid_t pid, uint64_t serial)
{
    (void)snprintf(name, GPROC_STORE_NAME_BYTES, "%ld.%020" PRIu64, (long)pid, serial);
}

/* Only what segment_name() writes: any other name would not be found again. */
static bool parse_segment(const char *name, pid_t *pid, uint64_t *serial)
{
    char head[GPROC_NAME_BYTES];
    char again[GPROC_STORE_NAME_BYTES];
    const char *dot = strchr(name, '.');

    if (dot == NULL || (size_t)(dot - name) >= sizeof(head) || dot[1] < '0' || dot[1] > '9')
        return false;
    memcpy(head, name, (size_t)(dot - name));
    head[dot - name] = '\0';
    if (gproc_pid_parse(head, pid) < 0)
        return false;
    *serial = strtoumax(dot + 1, NULL, 10);
    segment_name(again, *pid, *serial);
    return *serial <= INT64_MAX && strcmp(name, again) == 0;
}

/* Calls `each` with the name of everything in the directory. 0, what `each` returned, or a negative
 * errno. */
static int for_each(int fd, int (*each)(void *context, int fd, const char *name), void *context)
{
    int again = openat(fd, ".", directory_flags); /* fdopendir takes what it is given */
    struct dirent *entry;
    DIR *stream;
    int result = 0;

    if (again < 0)
        return -errno;
    stream = fdopendir(again);
    if (stream == NULL) {
        result = -errno;
        (void)close(again);
        return result;
    }
    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (entry == NULL)
            break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        result = each(context, fd, entry->d_name);
        if (result != 0)
            break;
    }
    if (entry == NULL && errno != 0)
        result = -errno;
    (void)closedir(stream);
    return result;
}

struct adoption {
    const struct gproc_store *store;
    int moved_count;
};

/*
 * Whether it was us, or the machine, that failed, not that the thing is no segment or somebody
 * else's. Passed over, it would come back after what was taken meanwhile, or be delivered twice.
 */
static bool is_failure(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO ||
           error == ENOSPC || error == EDQUOT || error == ENOLCK || error == EINTR;
}

/* To the same name in a directory of ours, over nothing. 0 or a negative errno. */
static int move_segment(int from, int to, const char *name)
{
    struct stat status;

    if (renameat2(from, name, to, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    /* NFS knows no flags. Nobody else makes files in a directory of ours. */
    if (fstatat(to, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return errno != ENOENT || renameat(from, name, to, name) < 0 ? -errno : 0;
}

static int adopt_segment(void *context, int fd, const char *name)
{
    struct adoption *adoption = context;
    struct stat status;
    uint64_t serial;
    pid_t pid;
    int result;

    if (!parse_segment(name, &pid, &serial))
        return 0;
    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return is_failure(errno) ? -errno : 0;
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_nlink != 1)
        return 0;
    result = move_segment(fd, adoption->store->fd, name);
    if (result < 0)
        return is_failure(-result) ? result : 0;
    adoption->moved_count++;
    return 0;
}

/* One directory below the shared one: if it was left by a dead mount of ours, empties and deletes
 * it. */
static int adopt_directory(void *context, int common, const char *name)
{
    struct adoption *adoption = context;
    struct stat status;
    int fd, lock_fd;
    int result = 0;

    if (strcmp(name, adoption->store->name) == 0)
        return 0;
    fd = openat(common, name, directory_flags);
    if (fd < 0)
        return is_failure(errno) ? -errno : 0;
    if (fstat(fd, &status) < 0)
        result = -errno;
    if (result < 0 || status.st_uid != geteuid()) {
        (void)close(fd);
        return result;
    }
    /* One without a lock was killed before it had one, or closed with something left. */
    lock_fd = lock_directory(fd);
    if (lock_fd >= 0) {
        result = for_each(fd, adopt_segment, adoption);
        (void)unlinkat(fd, lock_name, 0);
        (void)close(lock_fd);                       /* on NFS an open file keeps a name */
        (void)unlinkat(common, name, AT_REMOVEDIR); /* fails where something stayed */
    } else if (is_failure(-lock_fd)) {
        result = lock_fd;
    }
    (void)close(fd);
    return result;
}

int gproc_store_adopt(struct gproc_store *store)
{
    struct adoption adoption = {store, 0};
    int common = openat(store->directory->fd, common_name, directory_flags);
    int result;

    if (common < 0)
        return -errno;
    result = for_each(common, adopt_directory, &adoption);
    (void)close(common);
    return result < 0 ? result : adoption.moved_count;
}

struct listing {
    int (*found)(void *context, pid_t pid, uint64_t serial);
    void *context;
};

static int list_segment(void *context, int fd, const char *name)
{
    const struct listing *listing = context;
    uint64_t serial;
    pid_t pid;

    (void)fd;
    return parse_segment(name, &pid, &serial) ? listing->found(listing->context, pid, serial) : 0;
}

int gproc_store_list(const struct gproc_store *store,
                     int (*found)(void *context, pid_t pid, uint64_t serial), void *context)
{
    struct listing listing = {found, context};

    return for_each(store->fd, list_segment, &listing);
}

/* 0 or a negative errno. */
static int keep_up(struct gproc_store *store)
{
    int elsewhere;

    (void)pthread_mutex_lock(&store->renewing);
    elsewhere = is_elsewhere(store);
    (void)pthread_mutex_unlock(&store->renewing);
    return elsewhere == 1 ? renew(store) : elsewhere;
}

int gproc_store_create(struct gproc_store *store, pid_t pid, uint64_t *serial)
{
    char name[GPROC_STORE_NAME_BYTES];
    struct timespec now;
    uint64_t time_ns;
    int attempt;

    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    time_ns = (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    *serial = *serial < time_ns ? time_ns : *serial + 1;
    for (attempt = 0; attempt < TRIES_COUNT; attempt++, (*serial)++) {
        int result = keep_up(store);
        int fd;

        if (result < 0)
            return result;
        if (*serial > INT64_MAX)
            return -EOVERFLOW;
        segment_name(name, pid, *serial);
        fd = openat(store->fd, name, file_flags | O_CREAT | O_EXCL, FILE_MODE);
        if (fd >= 0)
            return fd;
        if (errno == ENOENT)
            result = renew(store);
        else if (errno != EEXIST)
            result = -errno;
        if (result < 0)
            return result;
    }
    return -EEXIST;
}

int gproc_store_open_segment(const struct gproc_store *store, pid_t pid, uint64_t serial)
{
    char name[GPROC_STORE_NAME_BYTES];
    int fd;

    segment_name(name, pid, serial);
    fd = openat(store->fd, name, file_flags);
    return fd < 0 ? -errno : fd;
}

int gproc_store_delete(const struct gproc_store *store, pid_t pid, uint64_t serial)
{
    char name[GPROC_STORE_NAME_BYTES];

    segment_name(name, pid, serial);
    return unlinkat(store->fd, name, 0) < 0 ? -errno : 0;
}
