#include "refused.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static long makes(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
}

static long reads(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC);
}

static long writes(const char *path)
{
    return open(path, O_WRONLY | O_CLOEXEC);
}

static long makes_directory(const char *path)
{
    return mkdir(path, 0777);
}

static long makes_link(const char *path)
{
    return symlink("4711", path);
}

static long makes_fifo(const char *path)
{
    return mkfifo(path, 0666);
}

static long renames(const char *path)
{
    char to[PATH_MAX];

    snprintf(to, sizeof(to), "%s.new", path);
    return rename(path, to);
}

static long removes(const char *path)
{
    return unlink(path);
}

static const struct {
    long (*call)(const char *path);
    const char *name;
    int error;
} calls[REFUSED_COUNT] = {
    {makes, "abc", EINVAL},         {makes, "0", EINVAL},          {makes, "007", EINVAL},
    {makes, "-1", EINVAL},          {makes, "2147483648", EINVAL}, {makes, ".peek/77", EACCES},
    {reads, "abc", ENOENT},         {reads, ".list/0", ENOENT},    {writes, ".stats", EACCES},
    {makes_directory, "77", EPERM}, {makes_link, "77", EPERM},     {makes_fifo, "77", EPERM},
    {renames, ".stats", EPERM},     {removes, ".stats", EPERM},
};

int refused_error(long which)
{
    return calls[which].error;
}

long refused_call(long which, const char *mount_point)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", mount_point, calls[which].name);
    return calls[which].call(path);
}
