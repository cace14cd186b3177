#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "paths.h"

enum {
    /* IN_ATTRIB: a second link to a mailbox, which made it none, may have gone; or its mode has
       changed. */
    FILE_EVENTS = IN_MODIFY | IN_ATTRIB | IN_DONT_FOLLOW,
    NAME_EVENTS = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR,
    DIRECTORY_EVENTS = NAME_EVENTS | IN_DELETE_SELF | IN_MOVE_SELF | IN_DONT_FOLLOW,
    /* MASK_CREATE: a path like /tmp/gproc/. has itself for a parent, whose events are not to be
       replaced. */
    PARENT_EVENTS = NAME_EVENTS | IN_MASK_CREATE,

    EVENTS_BYTES = 4096,
    READS_MOST_COUNT = 64, /* in one call: who writes without end must not hold us */
    REPLACED_MOST_COUNT =
        1000, /* who deletes and makes in a loop gets into step with us: 40 is not rare */
    CAPACITY_LEAST_COUNT = 4,
};

int gproc_watch_init(struct gproc_watch *watch, struct gproc_place *directory)
{
    *watch = (struct gproc_watch){
        .fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC),
        .directory_id = -1,
        .parent_id = -1,
        .directory = directory,
    };
    return watch->fd < 0 ? -errno : 0;
}

void gproc_watch_release(struct gproc_watch *watch)
{
    if (watch->fd >= 0)
        (void)close(watch->fd); /* and all that it watched */
    free(watch->entries);
    watch->fd = -1;
    watch->entries = NULL;
    watch->entries_count = 0;
    watch->capacity_count = 0;
}

static struct gproc_watch_entry *find(struct gproc_watch *watch, pid_t pid)
{
    size_t i;

    for (i = 0; i < watch->entries_count; i++) {
        if (watch->entries[i].pid == pid)
            return &watch->entries[i];
    }
    return NULL;
}

/*
 * Stops a kernel watch. Its IN_IGNORED finds nobody, as ids are not used again for 2^31 watches;
 * but where a second link made the file another entry's as well, that one, which is looked up anew
 * then.
 */
static void forget(struct gproc_watch *watch, int *id)
{
    if (*id >= 0)
        (void)inotify_rm_watch(watch->fd, *id); /* EINVAL: it went with its file */
    *id = -1;
}

/* Has everything looked up anew, and looked at. */
static void doubt_all(struct gproc_watch *watch)
{
    size_t i;

    watch->stale = true;
    for (i = 0; i < watch->entries_count; i++) {
        watch->entries[i].stale = true;
        watch->entries[i].changed = true;
    }
}

/* ---- Following names to files */

/* Whether the directory's path leads to the directory that we have: 1, 0, or a negative errno. */
static int is_current(const struct gproc_watch *watch)
{
    struct stat status;

    if (fstat(watch->directory->fd, &status) < 0)
        return -errno;
    return gproc_place_names(watch->directory, ".", &status);
}

/* Watches the directory that the path leads to, making one where it leads nowhere. */
static int arm_directory(struct gproc_watch *watch)
{
    int attempt;

    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        int result = is_current(watch);
        int id;

        if (result == 0)
            result = gproc_place_renew(watch->directory);
        if (result < 0)
            return result;
        id = inotify_add_watch(watch->fd, watch->directory->path, DIRECTORY_EVENTS);
        if (id < 0 && errno != ENOENT && errno != ENOTDIR)
            return -errno;
        /* The same directory has the same id again. */
        if (id != watch->directory_id)
            forget(watch, &watch->directory_id);
        watch->directory_id = id;
        result = is_current(watch);
        if (result < 0)
            return result;
        if (id >= 0 && result == 1) {
            watch->stale = false;
            return 0;
        }
    }
    return -EAGAIN;
}

/*
 * Watches the file that an entry's name leads to, if any. By the path and not by the directory's
 * descriptor: where it leads is where others will write, and a change of that is an event of its
 * own.
 */
static int arm_file(struct gproc_watch *watch, struct gproc_watch_entry *entry)
{
    const char *directory = watch->directory->path;
    const size_t directory_bytes = strlen(directory);
    char path[PATH_MAX];
    int result = 0;
    int id;

    if (directory_bytes + 1 + GPROC_NAME_BYTES > sizeof(path))
        return -ENAMETOOLONG;
    memcpy(path, directory, directory_bytes);
    path[directory_bytes] = '/';
    gproc_mailbox_name(entry->pid, path + directory_bytes + 1);

    id = inotify_add_watch(watch->fd, path, FILE_EVENTS);
    if (id < 0 && errno != ENOENT && errno != ENOTDIR)
        result = -errno;
    entry->stale = result < 0 && result != -EACCES;
    if (id != entry->id)
        forget(watch, &entry->id);
    entry->id = id;
    return result;
}

/* All stale entries, whatever happens to one of them. 0, or the first error. */
static int arm_files(struct gproc_watch *watch)
{
    int first = 0;
    size_t i;

    for (i = 0; i < watch->entries_count; i++) {
        int result = watch->entries[i].stale ? arm_file(watch, &watch->entries[i]) : 0;

        if (first == 0)
            first = result;
    }
    return first;
}

/* Where the last component of the directory's path begins. */
static const char *last_component(const struct gproc_watch *watch)
{
    const char *slash = strrchr(watch->directory->path, '/');

    return slash == NULL ? watch->directory->path : slash + 1;
}

/* Starts to watch the parent. 0 also where that cannot be, for reasons that are said in the header.
 */
static int add_parent(struct gproc_watch *watch)
{
    const char *path = watch->directory->path;
    const size_t parent_bytes = (size_t)(last_component(watch) - path);
    char parent[PATH_MAX] = "."; /* the directory's path is shorter: it has been opened */

    if (parent_bytes > 0) { /* with its slash, which is all there is of the root */
        memcpy(parent, path, parent_bytes);
        parent[parent_bytes] = '\0';
    }
    watch->parent_id = inotify_add_watch(watch->fd, parent, PARENT_EVENTS);
    if (watch->parent_id >= 0)
        return 0;
    /* EEXIST: see above. One that is missing is met by who looks for the directory. */
    return errno == EEXIST || errno == EACCES || errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
}

/*
 * Watches the parent while a mailbox has no file, whose going would tell that the directory goes;
 * and only then. 1: the directory went before we watched; 0, or a negative errno.
 */
static int arm_parent(struct gproc_watch *watch)
{
    bool wanted = false;
    size_t i;
    int result;

    for (i = 0; i < watch->entries_count; i++)
        wanted = wanted || watch->entries[i].id < 0;
    if (!wanted)
        forget(watch, &watch->parent_id);
    if (!wanted || watch->parent_id >= 0)
        return 0;
    result = add_parent(watch);
    if (result < 0)
        return result;
    result = is_current(watch);
    return result < 0 ? result : !result;
}

/* Follows all that is stale. 0 or a negative errno. */
static int arm(struct gproc_watch *watch)
{
    int attempt;

    for (attempt = 0; attempt < REPLACED_MOST_COUNT; attempt++) {
        int result = watch->stale || watch->directory_id < 0 ? arm_directory(watch) : 0;
        int parent;

        if (result < 0)
            return result;
        result = arm_files(watch);
        parent = arm_parent(watch);
        if (parent <= 0)
            return result < 0 ? result : parent;
        doubt_all(watch);
    }
    return -EAGAIN;
}

/* ---- Which mailboxes */

int gproc_watch_add(struct gproc_watch *watch, pid_t pid)
{
    int result;

    if (find(watch, pid) != NULL)
        return 0;
    if (watch->entries_count == watch->capacity_count) {
        const size_t capacity =
            watch->capacity_count == 0 ? CAPACITY_LEAST_COUNT : 2 * watch->capacity_count;
        struct gproc_watch_entry *entries =
            reallocarray(watch->entries, capacity, sizeof(*entries));

        if (entries == NULL)
            return -ENOMEM;
        watch->entries = entries;
        watch->capacity_count = capacity;
    }
    watch->entries[watch->entries_count++] = (struct gproc_watch_entry){
        .pid = pid,
        .id = -1,
        .stale = true,
    };
    result = arm(watch);
    if (result < 0)
        gproc_watch_remove(watch, pid);
    return result;
}

void gproc_watch_remove(struct gproc_watch *watch, pid_t pid)
{
    struct gproc_watch_entry *entry = find(watch, pid);

    if (entry == NULL)
        return;
    forget(watch, &entry->id);
    /* gproc_watch_read() goes through them backwards, and so comes by none twice and misses none.
     */
    *entry = watch->entries[--watch->entries_count];
    if (watch->entries_count > 0)
        return;
    forget(watch, &watch->parent_id);
    forget(watch, &watch->directory_id);
}

/* ---- What happened */

/* Something is called `name` in the directory, or no longer. */
static void take_name(struct gproc_watch *watch, const char *name)
{
    struct gproc_watch_entry *entry;
    pid_t pid;

    if (gproc_pid_parse(name, &pid) < 0)
        return;
    entry = find(watch, pid);
    if (entry != NULL) {
        entry->stale = true;
        entry->changed = true;
    }
}

static void take_file(struct gproc_watch *watch, int id, bool gone)
{
    size_t i;

    for (i = 0; i < watch->entries_count; i++) {
        struct gproc_watch_entry *entry = &watch->entries[i];

        if (entry->id != id)
            continue;
        entry->changed = true;
        if (gone) {
            entry->id = -1;
            entry->stale = true;
        }
    }
}

static void take_event(struct gproc_watch *watch, const struct inotify_event *event,
                       const char *name)
{
    const bool gone = (event->mask & IN_IGNORED) != 0; /* the kernel's watch, that is */

    if ((event->mask & IN_Q_OVERFLOW) != 0) {
        doubt_all(watch);
    } else if (event->wd == watch->directory_id) {
        if (gone)
            watch->directory_id = -1;
        if (event->len > 0)
            take_name(watch, name);
        else
            doubt_all(watch);
    } else if (event->wd == watch->parent_id) {
        if (gone)
            watch->parent_id = -1;
        if (gone || (event->len > 0 && strcmp(name, last_component(watch)) == 0))
            doubt_all(watch);
    } else {
        take_file(watch, event->wd, gone);
    }
}

/* One read's worth: 1, 0 where there was nothing, or a negative errno. */
static int take_events(struct gproc_watch *watch)
{
    char bytes[EVENTS_BYTES];
    ssize_t size;
    ssize_t at = 0;

    do {
        size = read(watch->fd, bytes, sizeof(bytes));
    } while (size < 0 && errno == EINTR);
    if (size < 0)
        return errno == EAGAIN ? 0 : -errno;
    while (at < size) {
        struct inotify_event event;

        memcpy(&event, bytes + at, sizeof(event)); /* whatever its alignment */
        at += (ssize_t)sizeof(event);
        take_event(watch, &event, bytes + at);
        at += (ssize_t)event.len;
    }
    return 1;
}

static bool is_stale(const struct gproc_watch *watch)
{
    size_t i;

    if (watch->stale || watch->directory_id < 0)
        return true;
    for (i = 0; i < watch->entries_count; i++) {
        if (watch->entries[i].stale)
            return true;
    }
    return false;
}

int gproc_watch_read(struct gproc_watch *watch, void (*changed)(void *context, pid_t pid),
                     void *context)
{
    int changed_count = 0;
    int result = 1;
    size_t i;
    int reads;

    for (reads = 0; reads < READS_MOST_COUNT && result == 1; reads++)
        result = take_events(watch);
    if (result >= 0)
        result = watch->entries_count > 0 && is_stale(watch) ? arm(watch) : 0;
    for (i = watch->entries_count; i-- > 0;) {
        if (i >= watch->entries_count || !watch->entries[i].changed)
            continue;
        watch->entries[i].changed = false;
        changed_count++;
        if (changed != NULL)
            changed(context, watch->entries[i].pid);
    }
    return result < 0 ? result : changed_count;
}
