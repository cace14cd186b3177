#include "gauge.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    long slack;
} rows[GAUGES] = {
    /* An allocator's pools fill up; 40 bytes of each of a minute's messages would be more. */
    [GAUGE_RESIDENT_KIB] = {"resident KiB", 1024},
    /* How many mailboxes have something in flight, or a reader that waits, is another each time. */
    [GAUGE_DESCRIPTORS] = {"descriptors", 4},
    [GAUGE_INFLIGHT_FILES] = {"in-flight files", 4},
};

const char *gauge_name(enum gauge_id id)
{
    return rows[id].name;
}

long gauge_slack(enum gauge_id id)
{
    return rows[id].slack;
}

static long resident_kib(const struct mount *mount)
{
    char path[64], line[256];
    long value = -1;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)mount->daemon);
    status = fopen(path, "re");
    while (status != NULL && value < 0 && fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0)
            value = strtol(line + 6, NULL, 10);
    }
    if (status != NULL)
        fclose(status);
    return value;
}

/* How many names a directory has; in each of its own directories, where it is `deep`. */
static long count_names(const char *path, bool deep)
{
    DIR *stream = opendir(path);
    const struct dirent *entry;
    long count = 0;

    if (stream == NULL)
        return deep ? 0 : -1; /* there is no store where nothing was ever taken */
    while ((entry = readdir(stream)) != NULL) {
        char below[PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof(below), "%.2000s/%s", path, entry->d_name);
        count += deep ? count_names(below, false) : 1;
    }
    closedir(stream);
    return count;
}

struct gauge gauge_take(const struct mount *mount)
{
    struct gauge gauge = {{-1, -1, -1}};
    char path[PATH_MAX];

    gauge.values[GAUGE_RESIDENT_KIB] = resident_kib(mount);
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)mount->daemon);
    gauge.values[GAUGE_DESCRIPTORS] = count_names(path, false);
    snprintf(path, sizeof(path), "%s/.gprocfs", mount->mail);
    gauge.values[GAUGE_INFLIGHT_FILES] = count_names(path, true);
    return gauge;
}

static int compare(const void *a, const void *b)
{
    const long *left = a, *right = b;

    return (*left > *right) - (*left < *right);
}

long gauge_median(long *numbers, size_t count)
{
    size_t first = 0;

    qsort(numbers, count, sizeof(*numbers), compare);
    while (first < count && numbers[first] < 0)
        first++;
    return first < count ? numbers[first + (count - first) / 2] : -1;
}
