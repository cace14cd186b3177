#include "paths.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int gproc_pid_parse(const char *name, pid_t *pid)
{
    int64_t value = 0;

    if (name[0] < '1' || name[0] > '9') /* no sign, no leading zero, not empty */
        return -EINVAL;
    for (; *name != '\0'; name++) {
        if (*name < '0' || *name > '9')
            return -EINVAL;
        value = value * 10 + (*name - '0');
        if (value > INT32_MAX)
            return -EINVAL;
    }
    *pid = (pid_t)value;
    return 0;
}

void gproc_mailbox_name(pid_t pid, char name[GPROC_NAME_BYTES])
{
    char digits[GPROC_NAME_BYTES];
    size_t count = 0;
    uint32_t rest = (uint32_t)pid;

    /* By hand: it is on the way of every message, where snprintf would be seen. */
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    while (count != 0)
        *name++ = digits[--count];
    *name = '\0';
}

void gproc_lock_name(pid_t pid, char name[GPROC_NAME_BYTES])
{
    static const char suffix[] = ".lock";
    size_t i;

    gproc_mailbox_name(pid, name);
    while (*name != '\0')
        name++;
    for (i = 0; i < sizeof(suffix); i++)
        name[i] = suffix[i];
}

static const char *environment(const char *variable)
{
    const char *value = getenv(variable);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

static int join(char *path, size_t size_bytes, const char *parent, const char *name)
{
    int length = snprintf(path, size_bytes, "%s/%s", parent, name);

    /* It is negative for what is longer than INT_MAX. */
    return (size_t)length < size_bytes ? 0 : -ENAMETOOLONG;
}

int gproc_mailbox_directory(char *path, size_t size_bytes)
{
    const char *parent = environment("gproc.tempdir");

    if (parent == NULL)
        parent = environment("TMPDIR");
    return join(path, size_bytes, parent != NULL ? parent : "/tmp", "gproc");
}

int gproc_lock_directory(char *path, size_t size_bytes)
{
    const char *parent = environment("TMPDIR");

    return join(path, size_bytes, parent != NULL ? parent : "/tmp", "gflock");
}
