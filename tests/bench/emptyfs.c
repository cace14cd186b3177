/*
 * emptyfs [-p] [-t] [-c] [-m DIRECTORY] MOUNTPOINT - the least that a file system of this kind can
 * do: what requests cost where nothing is done for them. What gprocfs is measured against.
 *
 * One thread, libfuse's simple loop (-t: its loop of threads; -c: and each reads from a device of its
 * own, which it calls clone_fd); every request is answered from constants, and what is written
 * is dropped. Like gprocfs it has names believed for long, attributes never, no page cache, and
 * FLUSH only where a file was opened with O_TRUNC. Unlike it, it leaves permissions to nobody, so
 * that the kernel does not ask for attributes before each open; with -p the kernel checks them, and
 * does.
 *
 * With -m there are mailboxes and locks in `mail` and `locks` below a directory, and a message is
 * sent and received by the bare system calls that it takes: what could still be had if nothing else
 * were looked after. For the numbers and `messages`.
 *
 *   1 ... 10000   one message of 64 bytes, then the end, at each open
 *   messages      64 bytes to each read, without end
 *   bytes         as many bytes as are asked for, without end
 *
 * Only the numbers are listed.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    NAMES_COUNT = 10000,
    MESSAGE_BYTES = 64,
    HEADER_BYTES = 12,
    /* Node ids; that of number N is N + 1. */
    NODE_ROOT = FUSE_ROOT_ID,
    NODE_MESSAGES = NAMES_COUNT + 2,
    NODE_BYTES,
};

static const double name_timeout_s = 3600;

static char zeros[1 << 20]; /* no request asks for more */

/* Where messages are kept; NULL: nowhere. */
static const char *kept_below;

/* The files of a mailbox, which stay open. */
struct files {
    int lock_fd; /* 0: not open yet */
    int mail_fd;
    char lock_path[PATH_MAX / 4];
    char mail_path[PATH_MAX / 4];
};

static struct files *files_of(fuse_ino_t node)
{
    static struct files all[NAMES_COUNT + 1];
    struct files *files = &all[node - 1];

    if (files->lock_fd == 0) {
        snprintf(files->lock_path, sizeof(files->lock_path), "%s/locks/%lu.lock", kept_below,
                 (unsigned long)node - 1);
        snprintf(files->mail_path, sizeof(files->mail_path), "%s/mail/%lu", kept_below,
                 (unsigned long)node - 1);
        files->lock_fd = open(files->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        files->mail_fd = open(files->mail_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    return files;
}

/* Both files are those that the names are of: under the lock, at each message. */
static struct stat files_lock(const struct files *files)
{
    struct stat lock, mail = {0};

    if (flock(files->lock_fd, LOCK_EX) != 0 || lstat(files->lock_path, &lock) != 0 ||
        lstat(files->mail_path, &mail) != 0)
        perror(files->mail_path);
    return mail;
}

static void files_unlock(const struct files *files)
{
    (void)flock(files->lock_fd, LOCK_UN);
}

static void files_append(const struct files *files, const char *data, size_t size_bytes)
{
    char header[HEADER_BYTES] = {0};
    struct iovec parts[] = {{header, sizeof(header)}, {(char *)(uintptr_t)data, size_bytes}};

    (void)files_lock(files);
    if (writev(files->mail_fd, parts, 2) < 0)
        perror(files->mail_path);
    files_unlock(files);
}

/* What is there, or the end. */
static void files_take(fuse_req_t req, const struct files *files)
{
    char message[HEADER_BYTES + MESSAGE_BYTES];
    ssize_t count = 0;
    struct stat mail;

    if (lstat(files->mail_path, &mail) != 0 || mail.st_size == 0) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    mail = files_lock(files);
    if (mail.st_size > 0)
        count = pread(files->mail_fd, message, sizeof(message), 0);
    count = count < HEADER_BYTES ? 0 : count - HEADER_BYTES;
    fuse_reply_buf(req, message + HEADER_BYTES, (size_t)count);
    if (ftruncate(files->mail_fd, 0) != 0)
        perror(files->mail_path);
    files_unlock(files);
}

/* Looks at a mailbox, and notes after the answer how many were received: of those that are taken
 * many at a time, a daemon that is killed must not lose one, nor see more than one twice. */
static void messages_take(fuse_req_t req)
{
    static int note_fd;
    static uint64_t received_count;
    struct stat mail;

    if (note_fd == 0)
        note_fd = open(kept_below, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (lstat(files_of(NODE_ROOT + 1)->mail_path, &mail) != 0)
        perror(kept_below);
    fuse_reply_buf(req, zeros, MESSAGE_BYTES);
    received_count++;
    if (pwrite(note_fd, &received_count, sizeof(received_count), 0) < 0)
        perror(kept_below);
}

static bool is_kept(fuse_ino_t node)
{
    return kept_below != NULL && node > NODE_ROOT && node < NODE_MESSAGES;
}

static void attributes_of(fuse_ino_t node, struct stat *attributes)
{
    memset(attributes, 0, sizeof(*attributes));
    attributes->st_ino = node;
    attributes->st_mode = node == NODE_ROOT ? S_IFDIR | 0777 : S_IFREG | 0666;
    attributes->st_nlink = 1;
    attributes->st_size = node == NODE_ROOT ? 0 : MESSAGE_BYTES;
}

static fuse_ino_t node_named(const char *name)
{
    char *end;
    unsigned long number = strtoul(name, &end, 10);

    if (strcmp(name, "messages") == 0)
        return NODE_MESSAGES;
    if (strcmp(name, "bytes") == 0)
        return NODE_BYTES;
    return *end == '\0' && number >= 1 && number <= NAMES_COUNT ? number + 1 : 0;
}

static void op_init(void *userdata, struct fuse_conn_info *connection)
{
    (void)userdata;
    /* As gprocfs has it, for its reasons: what differs shall be the work. */
    connection->want &= ~(unsigned int)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
                                        FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ |
                                        FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.entry_timeout = name_timeout_s};

    (void)parent;
    entry.ino = node_named(name);
    if (entry.ino == 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    attributes_of(entry.ino, &entry.attr);
    fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    struct stat attributes;

    (void)info;
    attributes_of(node, &attributes);
    if (is_kept(node) && lstat(files_of(node)->mail_path, &attributes) != 0) {
        fuse_reply_err(req, errno);
        return;
    }
    fuse_reply_attr(req, &attributes, 0);
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node;
    info->direct_io = 1;
    info->noflush = (info->flags & O_TRUNC) == 0;
    fuse_reply_open(req, info);
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t size_bytes, off_t offset,
                    struct fuse_file_info *info)
{
    bool at_end = node < NODE_MESSAGES && offset > 0;

    (void)info;
    if (is_kept(node)) {
        files_take(req, files_of(node));
        return;
    }
    if (kept_below != NULL && node == NODE_MESSAGES) {
        messages_take(req);
        return;
    }
    if (node != NODE_BYTES || size_bytes > sizeof(zeros))
        size_bytes = MESSAGE_BYTES;
    fuse_reply_buf(req, zeros, at_end ? 0 : size_bytes);
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size_bytes,
                     off_t offset, struct fuse_file_info *info)
{
    (void)offset;
    (void)info;
    if (is_kept(node))
        files_append(files_of(node), data, size_bytes);
    fuse_reply_write(req, size_bytes);
}

/* Of flush and release, too. */
static void answer_ok(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node;
    (void)info;
    fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size_bytes, off_t offset,
                       struct fuse_file_info *info)
{
    char answer[16 * 1024];
    size_t room_bytes = size_bytes < sizeof(answer) ? size_bytes : sizeof(answer);
    size_t used_bytes = 0;

    (void)node;
    (void)info;
    for (off_t number = offset + 1; number <= NAMES_COUNT; number++) {
        struct stat attributes;
        char name[32];
        size_t more_bytes;

        snprintf(name, sizeof(name), "%ld", (long)number);
        attributes_of((fuse_ino_t)number + 1, &attributes);
        more_bytes = fuse_add_direntry(req, answer + used_bytes, room_bytes - used_bytes, name,
                                       &attributes, number);
        if (more_bytes > room_bytes - used_bytes)
            break;
        used_bytes += more_bytes;
    }
    fuse_reply_buf(req, answer, used_bytes);
}

static const struct fuse_lowlevel_ops operations = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = answer_ok,
    .release = answer_ok,
    .readdir = op_readdir,
    .releasedir = answer_ok,
};

/* By the loop that was asked for. Positive where a signal ended it. */
static int loop(struct fuse_session *session, bool threads, bool clones)
{
    struct fuse_loop_config *config;
    int status;

    if (!threads && !clones)
        return fuse_session_loop(session);
    config = fuse_loop_cfg_create();
    if (config == NULL)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, clones);
    status = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return status;
}

static int serve(struct fuse_args *args, const char *mountpoint, bool threads, bool clones)
{
    struct fuse_session *session = fuse_session_new(args, &operations, sizeof(operations), NULL);
    int status = -1;

    if (session == NULL)
        return EXIT_FAILURE;
    if (fuse_set_signal_handlers(session) == 0 && fuse_session_mount(session, mountpoint) == 0) {
        status = loop(session, threads, clones);
        fuse_session_unmount(session);
    }
    fuse_session_destroy(session);
    return status >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char *argv[])
{
    bool checks = false, threads = false, clones = false;
    char *arguments[] = {argv[0], (char[]){"-ofsname=emptyfs,subtype=emptyfs"},
                         (char[]){"-odefault_permissions"}, NULL};
    struct fuse_args args;
    int option, status;

    while ((option = getopt(argc, argv, "ptcm:")) != -1) {
        checks = checks || option == 'p';
        threads = threads || option == 't';
        clones = clones || option == 'c';
        kept_below = option == 'm' ? optarg : kept_below;
    }
    if (optind != argc - 1) {
        fprintf(stderr, "usage: emptyfs [-p] [-t] [-c] [-m DIRECTORY] MOUNTPOINT\n");
        return EXIT_FAILURE;
    }
    args = (struct fuse_args)FUSE_ARGS_INIT(checks ? 3 : 2, arguments);
    status = serve(&args, argv[optind], threads, clones);
    fuse_opt_free_args(&args);
    return status;
}
