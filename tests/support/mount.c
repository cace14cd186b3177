/* Longer than the house likes: one thing's life from mkdtemp to the last rmdir, told in order. */
#include "mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"

enum {
    PROGRAM_MS = 240000, /* a whole test program: less than what the runner gives it */
    TEST_MS = 20000,
    /* Whoever asserts that it takes less measures it. The kernel alone has been seen to take more than ten
       seconds of an umount(2) (synchronize_rcu_expedited). */
    MOUNTED_MS = 60000,
    UNMOUNTED_MS = 60000,
    COMMAND_MS = 15000,
    LAST_WORDS_MS = 3000, /* for a test to fail and clean up, after its daemon was killed */
};

static int64_t program_deadline_ms;

static int pidfd_of(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static void pidfd_kill(int pidfd, int signal_number)
{
    /* Fails where it has ended already, which is as good. */
    (void)syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0);
}

static bool readable(int fd, int64_t timeout_ms)
{
    int64_t deadline_ms = process_clock_ms() + timeout_ms;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int64_t left = timeout_ms;
    int ready;

    do {
        ready = poll(&wait, 1, (int)(left > 0 ? left : 0));
        left = deadline_ms - process_clock_ms();
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

const char *mount_program(void)
{
    static char path[PATH_MAX];
    const char *named = getenv("GPROCFS");

    if (path[0] == '\0' &&
        realpath(named != NULL && *named != '\0' ? named : "build/gprocfs", path) == NULL)
        path[0] = '\0';
    return path;
}

bool mount_possible(void)
{
    const char *ci = getenv("CI");
    const char *reason = NULL;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    program_deadline_ms = process_clock_ms() + PROGRAM_MS;
    if (mount_program()[0] == '\0') {
        /* Never a reason to skip: the thing to be tested is missing. */
        fprintf(stderr, "no daemon: neither GPROCFS nor build/gprocfs is there\n");
        exit(1);
    }
    if (fd < 0)
        reason = strerror(errno);
    else
        close(fd);
    if (reason == NULL)
        return true;
    fprintf(stderr, "cannot mount: /dev/fuse: %s\n", reason);
    if (ci != NULL && strcmp(ci, "true") == 0)
        exit(1);
    return false;
}

void mount_open_device_to_users(void)
{
    static const char device[] = "/dev/fuse";
    struct stat status;
    char node[] = "/tmp/gprocfs-test-device.XXXXXX";
    int fd;

    if (geteuid() != 0 || stat(device, &status) != 0 || (status.st_mode & 06) == 06)
        return;
    fd = mkstemp(node);
    if (fd < 0)
        return;
    close(fd);
    /* Only the mount needs the node's name, so it is gone again at once. */
    if (unlink(node) != 0 || mknod(node, S_IFCHR | 0600, status.st_rdev) != 0 ||
        unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(node, device, NULL, MS_BIND, NULL) != 0 || chmod(device, 0666) != 0)
        fprintf(stderr, "%s stays closed to users: %s\n", device, strerror(errno));
    (void)unlink(node);
}

bool mount_is_sanitized(void)
{
    const char *tool = getenv("GPROC_TEST_TOOL");

    return tool != NULL && *tool != '\0' && strcmp(tool, "none") != 0;
}

bool mount_is_measured(void)
{
    const char *tool = getenv("GPROC_TEST_TOOL");

    return tool != NULL && strcmp(tool, "coverage") == 0;
}

unsigned mount_scale(void)
{
    const char *scale = getenv("GPROC_TEST_SCALE");
    unsigned long value = scale != NULL ? strtoul(scale, NULL, 10) : 0;

    if (value == 0)
        value = mount_is_sanitized() && !mount_is_measured() ? 10 : 1;
    return value < 100000 ? (unsigned)value : 100000;
}

/* --- What is mounted ------------------------------------------------------------------------- */

/* Undoes the escapes of mountinfo (\040 is a space) in place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; to++) {
        unsigned code;

        if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Whether something is mounted at the path, or also below it; the last of them to `point`. */
static bool find_mount(const char *path, bool below, char point[PATH_MAX])
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    size_t length = strlen(path);
    char *line = NULL;
    size_t capacity = 0;
    bool found = false;

    while (mounts != NULL && getline(&line, &capacity, mounts) > 0) {
        char candidate[PATH_MAX];

        if (sscanf(line, "%*s %*s %*s %*s %4095s", candidate) != 1)
            continue;
        unescape(candidate);
        if (strncmp(candidate, path, length) != 0 ||
            (candidate[length] != '\0' && !(below && candidate[length] == '/')))
            continue;
        memcpy(point, candidate, sizeof(candidate));
        found = true;
    }
    free(line);
    if (mounts != NULL)
        fclose(mounts);
    return found;
}

static bool is_mounted(const char *path)
{
    char point[PATH_MAX];

    return find_mount(path, false, point);
}

/* All at the path and below it, lazily, without a request to a daemon: safe in every state. */
static void detach(const char *path)
{
    static const char *const variables[] = {NULL};
    char point[PATH_MAX];

    for (int tries = 0; tries < 16 && find_mount(path, true, point); tries++) {
        const char *const argv[] = {"fusermount3", "-u", "-q", "-z", point, NULL};
        struct process_result result;
        pid_t pid;

        if (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
            continue;
        result = process_run(0, argv, variables, COMMAND_MS, &pid);
        free(result.out);
        free(result.err);
    }
}

static int erase_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)where;
    /* What is left behind shows when the root itself cannot be removed. */
    (void)(kind == FTW_DP ? rmdir(path) : unlink(path));
    return 0;
}

/* 0, or -1 where something is left. */
static int erase(const struct mount *mount)
{
    detach(mount->root);
    (void)nftw(mount->root, erase_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return access(mount->root, F_OK) == 0 ? -1 : 0;
}

/* --- The keeper ------------------------------------------------------------------------------ */

static void keep(const struct mount *mount, int orders, int test_pidfd, int64_t timeout_ms)
{
    struct pollfd wait[2] = {
        {.fd = orders, .events = POLLIN},
        {.fd = test_pidfd, .events = POLLIN},
    };

    while (poll(wait, 2, (int)timeout_ms) < 0 && errno == EINTR)
        ;
    if (wait[0].revents & POLLIN)
        return;
    if (wait[1].revents == 0)
        dprintf(STDERR_FILENO, "a test takes too long: its daemon is killed\n");
    pidfd_kill(mount->daemon_pidfd, SIGKILL);
    if (wait[1].revents == 0) {
        while (poll(wait, 2, LAST_WORDS_MS) < 0 && errno == EINTR)
            ;
        if (wait[0].revents & POLLIN)
            return;
        if (wait[1].revents == 0)
            dprintf(STDERR_FILENO, "and that does not end it: the test program is killed\n");
        pidfd_kill(test_pidfd, SIGKILL);
    }
    (void)erase(mount);
}

/* Is killed by nobody but the end of the machine, and holds nothing of the test's open. */
static void keeper_main(const struct mount *mount, int orders, int test_pidfd, int64_t timeout_ms)
{
    int stays[3] = {orders, test_pidfd, mount->daemon_pidfd};
    int nothing = open("/dev/null", O_RDWR);
    int highest = STDERR_FILENO;

    prctl(PR_SET_PDEATHSIG, 0);
    prctl(PR_SET_NAME, "mount-keeper");
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    for (size_t i = 0; i < 3; i++)
        highest = stays[i] > highest ? stays[i] : highest;
    for (int fd = STDERR_FILENO + 1; fd < highest; fd++) {
        if (fd != stays[0] && fd != stays[1] && fd != stays[2])
            close(fd);
    }
    (void)syscall(SYS_close_range, highest + 1, ~0U, 0);
    keep(mount, orders, test_pidfd, timeout_ms);
    _exit(0);
}

static int keeper_start(struct mount *mount)
{
    unsigned seconds = mount->options->seconds;
    int64_t timeout_ms = seconds != 0 ? (int64_t)seconds * 1000 : TEST_MS;
    int64_t left_ms = program_deadline_ms - process_clock_ms();
    int test_pidfd = pidfd_of(getpid());
    int orders[2];

    if (left_ms < timeout_ms)
        timeout_ms = left_ms > 0 ? left_ms : 0;
    if (pipe2(orders, O_CLOEXEC) != 0)
        return -1;
    mount->keeper = process_fork(0);
    if (mount->keeper == 0) {
        close(orders[1]);
        keeper_main(mount, orders[0], test_pidfd, timeout_ms);
    }
    close(orders[0]);
    close(test_pidfd);
    mount->keeper_fd = orders[1];
    return mount->keeper > 0 ? 0 : -1;
}

static void keeper_dismiss(struct mount *mount)
{
    if (mount->keeper <= 0)
        return;
    if (write(mount->keeper_fd, "", 1) != 1)
        kill(mount->keeper, SIGKILL);
    close(mount->keeper_fd);
    (void)process_wait(mount->keeper, LAST_WORDS_MS * 2);
    mount->keeper = 0;
}

/* --- The daemon ------------------------------------------------------------------------------ */

static void run_daemon(const struct mount *mount, const char *program)
{
    int log = open(mount->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const char *more = mount->options->options;
    char options[PATH_MAX + 256];

    snprintf(options, sizeof(options), "lockdir=%s%s%s", mount->locks, more != NULL ? "," : "",
             more != NULL ? more : "");
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    /* Should it fall back on a default, it must not meet what others have in /tmp. */
    setenv("TMPDIR", mount->work, 1);
    unsetenv("gproc.tempdir");
    execl(program, program, "-f", "-o", options, mount->mail, mount->mnt, (char *)NULL);
    perror(program);
    _exit(127);
}

/* Whether it is mounted before it ends and before the deadline. The kernel tells when to look. */
static bool becomes_mounted(const struct mount *mount)
{
    int64_t deadline_ms = process_clock_ms() + MOUNTED_MS;
    int changes = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    bool mounted = false;
    bool ended = false;

    while (!(mounted = is_mounted(mount->mnt)) && !ended && process_clock_ms() < deadline_ms) {
        struct pollfd wait[2] = {
            {.fd = changes, .events = POLLPRI},
            {.fd = mount->daemon_pidfd, .events = POLLIN},
        };

        (void)poll(wait, 2, 100);
        ended = wait[1].revents != 0;
    }
    if (changes >= 0)
        close(changes);
    return mounted && !ended;
}

static void print_log(const struct mount *mount)
{
    FILE *log = fopen(mount->log, "re");
    char *line = NULL;
    size_t capacity = 0;

    for (int i = 0; log != NULL && i < 200 && getline(&line, &capacity, log) > 0; i++)
        fprintf(stderr, "daemon: %s", line);
    free(line);
    if (log != NULL)
        fclose(log);
}

int mount_start(struct mount *mount)
{
    const char *program = mount_program();
    char copy[PATH_MAX];

    if (mount->options->uid != 0) {
        /* The build tree may be closed to that user; the copy is not. */
        snprintf(copy, sizeof(copy), "%s/gprocfs", mount->root);
        program = copy;
    }
    mount->daemon = mount->options->own_pids
                        ? process_fork_in_pid_namespace(mount->options->uid, -1)
                        : process_fork(mount->options->uid);
    if (mount->daemon == 0)
        run_daemon(mount, program);
    if (mount->daemon < 0)
        return -1;
    mount->daemon_pidfd = pidfd_of(mount->daemon);
    if (keeper_start(mount) == 0 && becomes_mounted(mount))
        return 0;
    fprintf(stderr, "the daemon did not mount %s\n", mount->mnt);
    print_log(mount);
    mount_kill(mount);
    return -1;
}

void mount_kill(struct mount *mount)
{
    if (mount->daemon <= 0)
        return;
    pidfd_kill(mount->daemon_pidfd, SIGKILL);
    while (waitpid(mount->daemon, NULL, 0) < 0 && errno == EINTR)
        ;
    close(mount->daemon_pidfd);
    mount->daemon = 0;
    detach(mount->mnt);
    keeper_dismiss(mount);
}

/* What each thread of the daemon is in, as far as the kernel shows it: for whoever reads of it. */
static void print_threads(const struct mount *mount)
{
    static const char *const files[] = {"comm", "wchan", "syscall", "stack"};
    char path[PATH_MAX], text[1024];
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)mount->daemon);
    tasks = opendir(path);
    while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && entry->d_name[0] != '.'; i++) {
            FILE *file;
            size_t count;

            snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", (int)mount->daemon, entry->d_name,
                     files[i]);
            file = fopen(path, "re");
            count = file != NULL ? fread(text, 1, sizeof(text), file) : 0;
            fprintf(stderr, "thread %s, %s: %.*s\n", entry->d_name, files[i], (int)count, text);
            if (file != NULL)
                fclose(file);
        }
    }
    if (tasks != NULL)
        closedir(tasks);
}

int mount_stop(struct mount *mount)
{
    int status = 0;

    if (mount->daemon <= 0)
        return 0;
    pidfd_kill(mount->daemon_pidfd, SIGTERM);
    if (!readable(mount->daemon_pidfd, UNMOUNTED_MS)) {
        fprintf(stderr, "the daemon did not end within %d ms of SIGTERM\n", UNMOUNTED_MS);
        print_threads(mount);
        mount_kill(mount);
        print_log(mount);
        return -1;
    }
    while (waitpid(mount->daemon, &status, 0) < 0 && errno == EINTR)
        ;
    close(mount->daemon_pidfd);
    mount->daemon = 0;
    keeper_dismiss(mount);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !is_mounted(mount->mnt))
        return 0;
    fprintf(stderr, "the daemon ended by %s %d, and is %s\n",
            WIFEXITED(status) ? "exit status" : "signal",
            WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
            is_mounted(mount->mnt) ? "still mounted" : "unmounted");
    detach(mount->mnt);
    print_log(mount);
    return -1;
}

/* Whether the daemon has said nothing but what the test expects of it. */
static bool log_is_clean(const struct mount *mount)
{
    static const char *const alarming[] = {
        "Sanitizer", "runtime error:", "Assertion",      "==ERROR",    "double free",   "corrupted",
        "free():",   "malloc",         "stack smashing", "terminated", "fuse: writing",
    };
    FILE *log = fopen(mount->log, "re");
    char *line = NULL;
    size_t capacity = 0;
    bool clean = true;

    while (log != NULL && getline(&line, &capacity, log) > 0) {
        bool expected = mount->options->chatty || line[0] == '\n';

        for (size_t i = 0; i < sizeof(alarming) / sizeof(alarming[0]); i++)
            expected = expected && strstr(line, alarming[i]) == NULL;
        clean = clean && expected;
    }
    free(line);
    if (log != NULL)
        fclose(log);
    if (!clean)
        print_log(mount);
    return clean;
}

/* --- Around a test --------------------------------------------------------------------------- */

/* Runs a line of sh with the arguments $1 and $2; whether it exits with 0. */
static bool succeeds(const char *script, const char *first, const char *second)
{
    const char *const argv[] = {"sh", "-c", script, "sh", first, second, NULL};
    pid_t pid;
    struct process_result result = process_run(0, argv, NULL, COMMAND_MS, &pid);

    free(result.out);
    free(result.err);
    return result.status == 0;
}

/* Here, where no variable hides the system call's name. */
static int mount_a_tmpfs(const char *path, const char *options)
{
    return mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options);
}

/* A small file system for the mailboxes; why there is none, or NULL. */
static const char *make_place(const struct mount *mount)
{
    char options[64];

    switch (mount->options->place) {
    case MOUNT_ON_DISK:
        break;
    case MOUNT_ON_TMPFS:
        snprintf(options, sizeof(options), "size=%uk,mode=0755", mount->options->place_kib);
        if (mount_a_tmpfs(mount->mail, options) != 0)
            return "no tmpfs can be mounted here";
        break;
    case MOUNT_ON_EXT4:
        snprintf(options, sizeof(options), "%uK", mount->options->place_kib);
        if (!process_has("mkfs.ext4") ||
            !succeeds(
                "truncate -s $2 \"$1/../image\" && cd \"$1/..\" && "
                "mkfs.ext4 -q -F -b 4096 -m 0 -O ^has_journal image && mount -o loop image \"$1\"",
                mount->mail, options))
            return "no ext4 can be mounted here";
        break;
    }
    return NULL;
}

/* Not sticky, as the reference's are not; nor would fs.protected_regular let O_CREAT pass then. */
static void make_for_all(const struct mount *mount)
{
    (void)chmod(mount->root, 0755);
    (void)chmod(mount->mail, 0777);
    (void)chmod(mount->locks, 0777);
    (void)chmod(mount->work, 0777);
}

static const char *give_away(const struct mount *mount)
{
    const char *const paths[] = {mount->root, mount->mail, mount->locks, mount->mnt, mount->work};
    uid_t uid = mount->options->uid;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (chown(paths[i], uid, (gid_t)uid) != 0 && errno != ENOENT)
            return "directories cannot be given to another user";
    }
    if (!succeeds("cp -L \"$1\" \"$2/gprocfs\" && chmod 755 \"$2/gprocfs\"", mount_program(),
                  mount->root))
        return "the daemon cannot be copied";
    return NULL;
}

/* Makes the directories; why that cannot be done here, or NULL. */
static const char *make_directories(struct mount *mount)
{
    const struct mount_options *options = mount->options;
    const char *base = getenv("TMPDIR");
    const char *reason = NULL;
    char made[PATH_MAX / 8];

    snprintf(made, sizeof(made), "%s/gprocfs-test.XXXXXX",
             base != NULL && *base != '\0' ? base : "/tmp");
    if (mkdtemp(made) == NULL)
        return "no temporary directory can be made";
    /* As mountinfo will show it. */
    if (realpath(made, mount->paths[0]) == NULL)
        return "no temporary directory can be found";
    snprintf(mount->root, sizeof(mount->root), "%.*s", (int)sizeof(mount->root) - 1,
             mount->paths[0]);
    snprintf(mount->mail, sizeof(mount->mail), "%s/mail", mount->root);
    snprintf(mount->locks, sizeof(mount->locks), "%s/locks", mount->root);
    snprintf(mount->mnt, sizeof(mount->mnt), "%s/mnt", mount->root);
    snprintf(mount->work, sizeof(mount->work), "%s/work", mount->root);
    snprintf(mount->log, sizeof(mount->log), "%s/log", mount->root);
    if (mkdir(mount->mnt, 0755) != 0 || mkdir(mount->work, 0755) != 0 ||
        (!options->bare && (mkdir(mount->mail, 0755) != 0 || mkdir(mount->locks, 0755) != 0)))
        return "directories cannot be made";
    reason = make_place(mount);
    if (options->for_all)
        make_for_all(mount);
    if (reason == NULL && options->uid != 0)
        reason = give_away(mount);
    return reason;
}

static void release(struct mount *mount)
{
    for (size_t i = 0; i < mount->kept_count; i++)
        free(mount->kept[i]);
    free(mount->kept);
    free(mount);
}

int mount_setup(void **state)
{
    static const struct mount_options usual;
    struct mount *mount = calloc(1, sizeof(*mount));
    const struct mount_options *options = *state != NULL ? *state : &usual;
    bool wants_root = options->needs_root || options->place != MOUNT_ON_DISK || options->uid != 0 ||
                      options->own_pids;

    if (mount == NULL)
        return -1;
    *state = mount;
    mount->options = options;
    (void)umask(022);
    if (wants_root && geteuid() != 0)
        mount->skip_reason = "needs root";
    else if (options->own_pids && !process_may_make_pid_namespaces())
        mount->skip_reason = "no pid namespace can be made here";
    else
        mount->skip_reason = make_directories(mount);
    if (mount->skip_reason != NULL || mount_start(mount) == 0)
        return 0;
    (void)erase(mount);
    release(mount);
    return -1;
}

int mount_teardown(void **state)
{
    struct mount *mount = *state;
    int result = 0;

    (void)umask(022);
    if (mount->daemon > 0 && mount_stop(mount) != 0)
        result = -1;
    if (!log_is_clean(mount))
        result = -1;
    if (mount->root[0] != '\0' && erase(mount) != 0) {
        fprintf(stderr, "%s could not be removed\n", mount->root);
        result = -1;
    }
    release(mount);
    return result;
}

struct mount *mount_of(void **state)
{
    struct mount *mount = *state;

    if (mount->skip_reason != NULL) {
        print_message("skipped: %s\n", mount->skip_reason);
        skip();
    }
    return mount;
}

const char *mount_path(struct mount *mount, const char *format, ...)
{
    size_t count = sizeof(mount->paths) / sizeof(mount->paths[0]);
    char *path = mount->paths[mount->next_path++ % count];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(path, sizeof(mount->paths[0]), format, arguments);
    va_end(arguments);
    return path;
}

void *mount_keep(struct mount *mount, void *memory)
{
    void **kept = realloc(mount->kept, (mount->kept_count + 1) * sizeof(*kept));

    if (kept == NULL)
        abort();
    mount->kept = kept;
    mount->kept[mount->kept_count++] = memory;
    return memory;
}
