#include "inside.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gprocfs.h"
#include "move.h"
#include "operations.h"
#include "take.h"

enum {
    MESSAGE_MOST_BYTES = 1024 * 1024,
    ANSWERS_COUNT = 64, /* of so many requests the answers are known */
    BODY_MOST_BYTES = 512 * 1024,
    WAIT_S = 20,
    RETURN_WAIT_MS = 500,
    MINOR = 34, /* of the protocol */
};

struct answer {
    uint64_t number; /* 0: none */
    bool is_there;
    int error;
};

struct inside {
    struct gprocfs fs;
    struct fuse_session *session;
    uint64_t requests_count;
    uid_t uid;
    gid_t gid;
    pid_t thread;
    bool alone;
    uint8_t request[BODY_MOST_BYTES];

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Protected by mutex. */
    struct answer answers[ANSWERS_COUNT];
    unsigned lose_count;
    unsigned told_count;
    size_t body_bytes;
    uint8_t body[BODY_MOST_BYTES];
};

/* One for all: libfuse hands the file system's data back, not ours. */
static struct inside *of_fs(void *userdata)
{
    return (struct inside *)userdata; /* the file system is its first field */
}

/* ---- The kernel's side */

static void enter_answer(struct inside *inside, const struct fuse_out_header *header,
                         const struct iovec *parts, int count)
{
    struct answer *answer = &inside->answers[header->unique % ANSWERS_COUNT];
    int i;

    if (answer->number != header->unique || answer->is_there) {
        (void)fprintf(stderr, "an answer to nobody, or a second one\n");
        abort();
    }
    answer->is_there = true;
    answer->error = header->error;
    inside->body_bytes = 0;
    for (i = 1; i < count; i++) {
        if (parts[i].iov_len > BODY_MOST_BYTES - inside->body_bytes)
            abort(); /* more than was asked for */
        memcpy(inside->body + inside->body_bytes, parts[i].iov_base, parts[i].iov_len);
        inside->body_bytes += parts[i].iov_len;
    }
}

static ssize_t hear(int fd, struct iovec *parts, int count, void *userdata)
{
    struct inside *inside = of_fs(userdata);
    struct fuse_out_header header;
    size_t whole_bytes = 0;
    bool lost = false;
    int i;

    (void)fd;
    memcpy(&header, parts[0].iov_base, sizeof(header));
    for (i = 0; i < count; i++)
        whole_bytes += parts[i].iov_len;
    (void)pthread_mutex_lock(&inside->mutex);
    if (header.unique == 0) {
        inside->told_count += header.error == FUSE_NOTIFY_POLL;
    } else {
        lost = inside->lose_count > 0;
        inside->lose_count -= lost;
        if (lost)
            header.error = -ENOENT;
        enter_answer(inside, &header, parts, lost ? 0 : count);
    }
    (void)pthread_cond_broadcast(&inside->changed);
    (void)pthread_mutex_unlock(&inside->mutex);
    if (lost) {
        errno = ENOENT;
        return -1;
    }
    return (ssize_t)whole_bytes;
}

/* Nobody reads requests: they are handed over. */
static ssize_t read_nothing(int fd, void *to, size_t size_bytes, void *userdata)
{
    (void)fd;
    (void)to;
    (void)size_bytes;
    (void)userdata;
    errno = ENODEV;
    return -1;
}

static size_t append(struct inside *inside, size_t used, const void *part, size_t part_bytes)
{
    assert_true(part_bytes <= sizeof(inside->request) - used);
    if (part_bytes > 0)
        memcpy(inside->request + used, part, part_bytes);
    return used + part_bytes;
}

uint64_t inside_send(struct inside *inside, uint32_t operation, uint64_t node, const void *first,
                     size_t first_bytes, const void *second, size_t second_bytes)
{
    struct fuse_in_header header = {
        .opcode = operation,
        .unique = ++inside->requests_count,
        .nodeid = node,
        .uid = inside->uid,
        .gid = inside->gid,
        .pid = (uint32_t)inside->thread,
    };
    struct fuse_buf buffer = {.mem = inside->request};
    struct answer *answer = &inside->answers[header.unique % ANSWERS_COUNT];

    header.len = (uint32_t)(sizeof(header) + first_bytes + second_bytes);
    buffer.size = append(inside, 0, &header, sizeof(header));
    buffer.size = append(inside, buffer.size, first, first_bytes);
    buffer.size = append(inside, buffer.size, second, second_bytes);
    (void)pthread_mutex_lock(&inside->mutex);
    *answer = (struct answer){.number = header.unique};
    (void)pthread_mutex_unlock(&inside->mutex);
    fuse_session_process_buf(inside->session, &buffer);
    return header.unique;
}

bool inside_is_answered(struct inside *inside, uint64_t number)
{
    bool is_there;

    (void)pthread_mutex_lock(&inside->mutex);
    is_there = inside->answers[number % ANSWERS_COUNT].is_there;
    (void)pthread_mutex_unlock(&inside->mutex);
    return is_there;
}

static void end_waiting(struct box *box)
{
    box_end_parked(box, -EINTR);
}

int inside_await(struct inside *inside, uint64_t number)
{
    const struct answer *answer = &inside->answers[number % ANSWERS_COUNT];
    struct timespec until;
    int error, waited = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    if (inside->alone && !inside_is_answered(inside, number))
        boxes_each(&inside->fs.boxes, end_waiting);
    (void)pthread_mutex_lock(&inside->mutex);
    while (!answer->is_there && waited == 0)
        waited = pthread_cond_timedwait(&inside->changed, &inside->mutex, &until);
    error = answer->is_there ? answer->error : -ETIME;
    (void)pthread_mutex_unlock(&inside->mutex);
    return error;
}

void inside_interrupt(struct inside *inside, uint64_t number)
{
    struct fuse_interrupt_in of = {.unique = number};

    (void)inside_send(inside, FUSE_INTERRUPT, 0, &of, sizeof(of), NULL, 0); /* it has no answer */
}

void inside_interrupt_next(struct inside *inside)
{
    inside_interrupt(inside, inside->requests_count + 2); /* the interruption is a request, too */
}

void inside_lose(struct inside *inside, unsigned answers_count)
{
    (void)pthread_mutex_lock(&inside->mutex);
    inside->lose_count = answers_count;
    (void)pthread_mutex_unlock(&inside->mutex);
}

unsigned inside_told_count(struct inside *inside)
{
    unsigned count;

    (void)pthread_mutex_lock(&inside->mutex);
    count = inside->told_count;
    (void)pthread_mutex_unlock(&inside->mutex);
    return count;
}

const void *inside_bytes(struct inside *inside, size_t *size_bytes)
{
    (void)pthread_mutex_lock(&inside->mutex);
    *size_bytes = inside->body_bytes;
    (void)pthread_mutex_unlock(&inside->mutex);
    return inside->body;
}

/* ---- The mount */

static void open_place(struct gproc_place *place, const char *root, const char *name)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    assert_int_equal(gproc_place_init(place, path, 0777), 0);
}

static int load(void *context, pid_t pid, uint64_t serial)
{
    struct gprocfs *fs = context;
    struct box *box = box_get(fs, pid);

    assert_non_null(box);
    assert_int_equal(gproc_inflight_load(&box->inflight, serial), 0);
    box_put(box);
    return 0;
}

/* One that never does anything. */
static void make_idle_keeper(struct keeper *keeper, struct gprocfs *fs)
{
    keeper->fs = fs;
    keeper->bell = -1;
    (void)pthread_mutex_init(&keeper->mutex, NULL);
}

static void start_session(struct inside *inside)
{
    static const struct fuse_custom_io io = {.writev = hear, .read = read_nothing};
    struct fuse_init_in init = {.major = FUSE_KERNEL_VERSION, .minor = MINOR};
    char name[] = "inside";
    char *argv[] = {name, NULL};
    struct fuse_args arguments = FUSE_ARGS_INIT(1, argv);
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    inside->session = fuse_session_new(&arguments, &operations, sizeof(operations), inside);
    assert_non_null(inside->session);
    fuse_opt_free_args(&arguments);
    assert_int_equal(fuse_session_custom_io(inside->session, &io, fd), 0);
    inside->fs.session = inside->session;
    assert_int_equal(
        inside_await(inside, inside_send(inside, FUSE_INIT, 0, &init, sizeof(init), NULL, 0)), 0);
}

struct inside *inside_mount(const char *root, const struct inside_options *options)
{
    static const struct inside_options usual;
    struct inside *inside = calloc(1, sizeof(*inside));
    struct gprocfs *fs;

    assert_non_null(inside);
    options = options != NULL ? options : &usual;
    fs = &inside->fs;
    (void)pthread_mutex_init(&inside->mutex, NULL);
    (void)pthread_cond_init(&inside->changed, NULL);
    inside_become(inside, getuid(), getgid(), gettid());
    fs->message_most_bytes =
        options->message_most_bytes != 0 ? options->message_most_bytes : MESSAGE_MOST_BYTES;
    fs->lock_timeout_ms = options->lock_timeout_ms;
    fs->read_only = options->read_only;
    fs->live = options->live;
    fs->gives_away = geteuid() == 0;
    fs->store.fd = -1;
    fs->store.lock_fd = -1;
    boxes_init(&fs->boxes);
    opened_init(&fs->opened);
    open_place(&fs->mailboxes, root, "gproc");
    open_place(&fs->locks, root, "gflock");
    if (!fs->read_only) {
        assert_int_equal(gproc_store_open(&fs->store, &fs->mailboxes), 0);
        assert_true(gproc_store_adopt(&fs->store) >= 0);
        assert_int_equal(gproc_store_list(&fs->store, load, fs), 0);
    }
    crew_init(&fs->crew);
    inside->alone = options->alone;
    if (inside->alone) {
        make_idle_keeper(&fs->keeper, fs);
        assert_int_equal(lookout_init(&fs->lookout, fs), 0);
    } else {
        assert_int_equal(keeper_start(&fs->keeper, fs), 0);
        assert_int_equal(lookout_start(&fs->lookout, fs), 0);
    }
    start_session(inside);
    return inside;
}

static void end_parked(struct box *box)
{
    box_end_parked(box, -ENOTCONN);
}

void inside_unmount(struct inside *inside)
{
    struct gprocfs *fs = &inside->fs;

    fuse_session_exit(inside->session);
    if (!inside->alone) {
        keeper_stop(&fs->keeper);
        lookout_stop(&fs->lookout);
    }
    boxes_each(&fs->boxes, end_parked);
    crew_stop(&fs->crew);
    keeper_release(&fs->keeper);
    lookout_release(&fs->lookout);
    boxes_each(&fs->boxes, end_parked);
    fs->return_until_ms = keeper_now_ms() + RETURN_WAIT_MS;
    boxes_each(&fs->boxes, take_return);
    opened_release(&fs->opened);
    boxes_release(&fs->boxes);
    gproc_store_close(&fs->store);
    gproc_place_release(&fs->locks);
    gproc_place_release(&fs->mailboxes);
    fuse_session_destroy(inside->session);
    (void)pthread_cond_destroy(&inside->changed);
    (void)pthread_mutex_destroy(&inside->mutex);
    free(inside);
}

struct gprocfs *inside_fs(struct inside *inside)
{
    return &inside->fs;
}

void inside_become(struct inside *inside, uid_t uid, gid_t gid, pid_t thread)
{
    inside->uid = uid;
    inside->gid = gid;
    inside->thread = thread;
}

/* ---- Requests */

/* Asks and waits. The answer's first bytes go to `answer`, which has to be filled where all is well. */
static int ask(struct inside *inside, uint32_t operation, uint64_t node, const void *first,
               size_t first_bytes, const void *second, size_t second_bytes, void *answer,
               size_t answer_bytes)
{
    uint64_t number =
        inside_send(inside, operation, node, first, first_bytes, second, second_bytes);
    int result = inside_await(inside, number);
    size_t size_bytes;
    const void *bytes = inside_bytes(inside, &size_bytes);

    if (result == 0 && answer_bytes > 0) {
        assert_true(size_bytes >= answer_bytes);
        memcpy(answer, bytes, answer_bytes);
    }
    return result;
}

int inside_look_up(struct inside *inside, uint64_t parent, const char *name, uint64_t *node)
{
    struct fuse_entry_out entry = {.nodeid = 0};
    int result =
        ask(inside, FUSE_LOOKUP, parent, name, strlen(name) + 1, NULL, 0, &entry, sizeof(entry));

    *node = entry.nodeid;
    return result;
}

int inside_get_attributes(struct inside *inside, uint64_t node, struct stat *attributes)
{
    struct fuse_getattr_in in = {.getattr_flags = 0};
    struct fuse_attr_out out = {.attr_valid = 0};
    int result = ask(inside, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    *attributes = (struct stat){
        .st_mode = out.attr.mode,
        .st_size = (off_t)out.attr.size,
        .st_nlink = out.attr.nlink,
        .st_uid = out.attr.uid,
        .st_ino = out.attr.ino,
    };
    return result;
}

int inside_open(struct inside *inside, uint64_t node, int flags, uint64_t *handle)
{
    struct fuse_open_in in = {.flags = (uint32_t)flags};
    struct fuse_open_out out = {.fh = 0};
    int result = ask(inside, FUSE_OPEN, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    *handle = out.fh;
    return result;
}

int inside_create(struct inside *inside, uint64_t parent, const char *name, int flags,
                  uint64_t *node, uint64_t *handle)
{
    struct fuse_create_in in = {.flags = (uint32_t)flags, .mode = S_IFREG | 0644};
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {.entry = {.nodeid = 0}};
    int result = ask(inside, FUSE_CREATE, parent, &in, sizeof(in), name, strlen(name) + 1, &out,
                     sizeof(out));

    *node = out.entry.nodeid;
    *handle = out.open.fh;
    return result;
}

uint64_t inside_send_read(struct inside *inside, uint64_t node, uint64_t handle, size_t size_bytes,
                          off_t offset, int flags)
{
    struct fuse_read_in in = {
        .fh = handle,
        .offset = (uint64_t)offset,
        .size = (uint32_t)size_bytes,
        .flags = (uint32_t)flags,
    };

    return inside_send(inside, FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

int inside_read(struct inside *inside, uint64_t node, uint64_t handle, size_t size_bytes,
                off_t offset)
{
    return inside_await(inside,
                        inside_send_read(inside, node, handle, size_bytes, offset, O_RDONLY));
}

int inside_write(struct inside *inside, uint64_t node, uint64_t handle, const void *bytes,
                 size_t size_bytes, off_t offset)
{
    struct fuse_write_in in = {
        .fh = handle,
        .offset = (uint64_t)offset,
        .size = (uint32_t)size_bytes,
    };

    return ask(inside, FUSE_WRITE, node, &in, sizeof(in), bytes, size_bytes, NULL, 0);
}

int inside_flush(struct inside *inside, uint64_t node, uint64_t handle)
{
    struct fuse_flush_in in = {.fh = handle};

    return ask(inside, FUSE_FLUSH, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

int inside_release(struct inside *inside, uint64_t node, uint64_t handle)
{
    struct fuse_release_in in = {.fh = handle};

    return ask(inside, FUSE_RELEASE, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

int inside_set_size(struct inside *inside, uint64_t node, off_t size_bytes)
{
    struct fuse_setattr_in in = {.valid = FATTR_SIZE, .size = (uint64_t)size_bytes};

    return ask(inside, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

int inside_unlink(struct inside *inside, uint64_t parent, const char *name)
{
    return ask(inside, FUSE_UNLINK, parent, name, strlen(name) + 1, NULL, 0, NULL, 0);
}

int inside_poll(struct inside *inside, uint64_t node, uint64_t handle, bool tell)
{
    struct fuse_poll_in in = {
        .fh = handle,
        .kh = handle,
        .flags = tell ? FUSE_POLL_SCHEDULE_NOTIFY : 0,
    };
    struct fuse_poll_out out = {.revents = 0};
    int result = ask(inside, FUSE_POLL, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    return result < 0 ? result : (int)out.revents;
}
