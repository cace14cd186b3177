#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"
#include "temporary.h"
#include "through.h"

enum {
    CLIENT_MS = 10000, /* the usual is at once */
};

void rig_isolate(void)
{
    if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0)
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL); /* else the runner tidies up */
}

void rig_open(struct rig *rig, void **state)
{
    *rig = (struct rig){.mount = mount_of(state)};
    if (!tracer_possible())
        skip();
    rig->ledger = ledger_new();
    assert_non_null(rig->ledger);
    assert_success(mount_stop(rig->mount)); /* each life has a daemon of its own */
}

void rig_close(struct rig *rig)
{
    ledger_free(rig->ledger);
}

static int wipe_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    if (where->level > 0)
        (void)(kind == FTW_DP ? rmdir(path) : unlink(path));
    return 0;
}

static void wipe(const char *path)
{
    (void)nftw(path, wipe_one, 16, FTW_DEPTH | FTW_PHYS);
}

void rig_begin(struct rig *rig)
{
    wipe(rig->mount->mail);
    wipe(rig->mount->locks);
    ledger_clear(rig->ledger);
}

const char *rig_start(struct rig *rig, bool from_start)
{
    const struct mount *mount = rig->mount;
    char options[PATH_MAX];
    const char *const argv[] = {
        mount_program(), "-f", "-o", options, mount->mail, mount->mnt, NULL,
    };

    snprintf(options, sizeof(options), "lockdir=%s", mount->locks);
    rig->ledger->begun = false;
    rig->ledger->over = false;
    if (tracer_start(&rig->tracer, argv, mount->log, from_start) != 0)
        return "the daemon cannot be traced";
    rig->daemon = rig->tracer.daemon;
    return NULL;
}

const char *rig_bury(struct rig *rig)
{
    struct mount *mount = rig->mount;
    const char *wrong = NULL;

    tracer_kill(&rig->tracer);
    if (rig->tracer.client > 0 && process_wait(rig->tracer.client, CLIENT_MS) != 0)
        wrong = "a client of a daemon that is dead does not end";
    rig->tracer.client = 0;
    /* It has been reaped: this only takes the dead mount away. */
    mount->daemon = rig->daemon;
    mount->daemon_pidfd = -1;
    mount_kill(mount);
    return wrong;
}

bool rig_all_is_closed(const struct mount *mount)
{
    static const char sample[] = "\ngprocfs_open_files 0\n";
    /* Closed the next time: ASan has the daemon look at an answer once more after it was given. */
    static int fd = -1;
    char path[PATH_MAX], text[16384];
    ssize_t got = 0;

    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    snprintf(path, sizeof(path), "%s/.stats", mount->mnt);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        got = read(fd, text, sizeof(text) - 1);
    text[got > 0 ? got : 0] = '\0';
    return got <= 0 || strstr(text, sample) != NULL;
}

const char *rig_receive_all(struct rig *rig)
{
    const struct ledger *ledger = rig->ledger;
    int last = 0;

    for (unsigned i = 0; i < ledger->count; i++) {
        int box = ledger->entries[i].box;

        if (box != last) {
            int result = ledger_receive(rig->ledger, rig->mount, "", box, INT_MAX, true);

            if (result < 0 && result != -ENOENT)
                return strerror(-result);
        }
        last = box;
    }
    return NULL;
}

bool rig_store_is_clean(struct mount *mount)
{
    const char *common = mount_path(mount, "%s/.gprocfs", mount->mail);
    char own[PATH_MAX * 2] = "";
    DIR *stream = opendir(common);
    const struct dirent *entry;

    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            snprintf(own, sizeof(own), "%s/%s", common, entry->d_name);
    }
    if (stream != NULL)
        (void)closedir(stream);
    return own[0] != '\0' && temporary_count(common) == 1 && temporary_count(own) == 1;
}

const char *rig_look(struct rig *rig, unsigned leave, struct ledger_totals *totals)
{
    struct mount *mount = rig->mount;
    const char *wrong;

    if (mount_start(mount) != 0)
        return "no fresh daemon";
    wrong = rig_receive_all(rig);
    if (wrong == NULL && !rig_store_is_clean(mount))
        wrong = "something is left in .gprocfs";
    if (mount_stop(mount) != 0)
        return "the fresh daemon fails";
    if (wrong == NULL && temporary_exists(mount_path(mount, "%s/.gprocfs", mount->mail)))
        wrong = "a clean unmount leaves .gprocfs";
    return wrong != NULL ? wrong : ledger_judge(rig->ledger, leave, totals);
}
