/* Those of the crowd that take nothing: they look, or change mailboxes that are their own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "crowd.h"
#include "through.h"

enum {
    LOOK_PAUSE_MS = 60,
    CHANGE_PAUSE_MS = 40,
    PICTURE_BYTES = 1 << 22,
};

static char picture[PICTURE_BYTES];

/* Of a mailbox that was removed after the directory was read, there is nothing to see. */
static bool is_gone(void)
{
    return errno == ENOENT || errno == ESTALE;
}

/* As ls -l does. */
static bool list(const struct crowd_member *member)
{
    int fd = openat(member->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    unsigned boxes = 0;
    bool well = stream != NULL;

    while (well && (errno = 0, entry = readdir(stream)) != NULL) {
        struct stat status;

        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 && !is_gone())
            well = crowd_failed(member, "stat of what readdir shows");
        boxes += entry->d_name[0] != '.';
    }
    if (well && errno != 0)
        well = crowd_failed(member, "readdir");
    if (stream == NULL)
        well = crowd_failed(member, "opendir");
    if (stream != NULL)
        (void)closedir(stream); /* it was only read */
    if (well && boxes < CROWD_BOXES && !crowd_is_excused(member))
        crowd_complain(member->crowd, "life %u: readdir shows %u mailboxes", member->life, boxes);
    return well;
}

/* Reads a file of a view to its end. Bytes, or -1. */
static ssize_t read_view(const struct crowd_member *member, const char *path)
{
    int fd = openat(member->root, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? 1 : -1;
    size_t size_bytes = 0;

    while (got > 0 && size_bytes < sizeof(picture)) {
        got = read(fd, picture + size_bytes, sizeof(picture) - size_bytes);
        size_bytes += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        (void)crowd_failed(member, path);
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return got < 0 ? -1 : (ssize_t)size_bytes;
}

/* A picture holds whole messages of this mailbox, one after the other. */
static bool peek(const struct crowd_member *member, int box)
{
    size_t done = 0, payload_bytes;
    struct tally_id id;
    char path[32];
    ssize_t got;

    snprintf(path, sizeof(path), ".peek/%d", box);
    got = read_view(member, path);
    while (got > 0 && done < (size_t)got &&
           tally_identify(member->crowd->tally, (const uint8_t *)picture + done, (size_t)got - done,
                          &id, &payload_bytes) &&
           crowd_box_of(id) == box)
        done += payload_bytes;
    if (got > 0 && done < (size_t)got && got < PICTURE_BYTES)
        crowd_complain(member->crowd, "life %u: %s is no message at offset %zu", member->life, path,
                       done);
    return got >= 0;
}

static bool look_at(const struct crowd_member *member, int box)
{
    struct statvfs room;
    char path[32];

    snprintf(path, sizeof(path), ".list/%d", box);
    if (fstatvfs(member->root, &room) != 0)
        return crowd_failed(member, "statvfs");
    return list(member) && peek(member, box) && read_view(member, path) >= 0 &&
           read_view(member, ".stats") > 0;
}

void crowd_look(struct crowd_member *member)
{
    while (crowd_enter(member)) {
        while (!crowd_is_excused(member)) {
            if (!look_at(member, CROWD_FIRST_BOX + (int)random_below(&member->random, CROWD_BOXES)))
                break;
            crowd_count(member);
            crowd_pause(member, LOOK_PAUSE_MS);
        }
        (void)crowd_leave(member);
    }
}

/* --- Changers --------------------------------------------------------------------------------- */

static bool send_text(const struct crowd_member *member, const char *name, const char *text)
{
    size_t length = strlen(text);
    int fd = openat(member->root, name, THROUGH_REPLACE, 0666);
    bool well = fd >= 0 && write(fd, text, length) == (ssize_t)length;

    if (fd >= 0 && close(fd) != 0)
        well = false;
    return well || crowd_failed(member, "sending to a mailbox of one's own");
}

/* Whether it has this size, and this mode (0: any). */
static bool expect(const struct crowd_member *member, const char *name, off_t size_bytes,
                   mode_t mode)
{
    struct stat status;

    if (fstatat(member->root, name, &status, 0) != 0)
        return crowd_failed(member, "stat of a mailbox of one's own");
    if ((status.st_size != size_bytes || (mode != 0 && (status.st_mode & 07777) != mode)) &&
        !crowd_is_excused(member))
        crowd_complain(member->crowd, "life %u: %s has %lld bytes and mode %o", member->life, name,
                       (long long)status.st_size, (unsigned)status.st_mode);
    return true;
}

static bool change(const struct crowd_member *member, const char *name)
{
    static const char text[] = "what is here is nobody's\n";
    const off_t text_bytes = sizeof(text) - 1;
    char empty[PATH_MAX];

    /* What an earlier life has left of it. */
    if (unlinkat(member->root, name, 0) != 0 && !is_gone())
        return crowd_failed(member, "removing what is left");
    if (!send_text(member, name, "") || !expect(member, name, 0, 0) ||
        !send_text(member, name, text) || !send_text(member, name, text) ||
        !expect(member, name, 2 * text_bytes, 0))
        return false;
    if (fchmodat(member->root, name, 0640, 0) != 0)
        return crowd_failed(member, "chmod");
    if (utimensat(member->root, name, NULL, 0) != 0)
        return crowd_failed(member, "utimensat");
    if (!expect(member, name, 2 * text_bytes, 0640))
        return false;
    /* truncate(2) has no kin that is given a directory. */
    snprintf(empty, sizeof(empty), "/proc/self/fd/%d/%s", member->root, name);
    if (truncate(empty, 0) != 0)
        return crowd_failed(member, "truncate");
    if (!expect(member, name, 0, 0640) || !send_text(member, name, text) ||
        !expect(member, name, text_bytes, 0640))
        return false;
    if (unlinkat(member->root, name, 0) != 0)
        return crowd_failed(member, "unlink");
    if (faccessat(member->root, name, F_OK, 0) == 0 && !crowd_is_excused(member))
        crowd_complain(member->crowd, "life %u: %s is there after unlink", member->life, name);
    return true;
}

void crowd_change(struct crowd_member *member)
{
    char name[16];

    snprintf(name, sizeof(name), "%d", CROWD_SPARE_BOX + (int)member->which);
    while (crowd_enter(member)) {
        while (!crowd_is_excused(member) && change(member, name)) {
            crowd_count(member);
            crowd_pause(member, CHANGE_PAUSE_MS);
        }
        (void)crowd_leave(member);
    }
}
