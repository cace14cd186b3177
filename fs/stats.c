#include "stats.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A family of samples in the text; its rows follow each other here. */
static const struct row {
    const char *name;
    const char *type;
    const char *help;
    const char *label; /* the sample's, or NULL */
} rows[STATS_COUNT] = {
    [STATS_SENT_MESSAGES] = {"gprocfs_messages_sent_total", "counter",
                             "Messages sent through this mount.", NULL},
    [STATS_RECEIVED_MESSAGES] = {"gprocfs_messages_received_total", "counter",
                                 "Messages received through this mount.", NULL},
    [STATS_SENT_BYTES] = {"gprocfs_sent_bytes_total", "counter", "Payload of the messages sent.",
                          NULL},
    [STATS_RECEIVED_BYTES] = {"gprocfs_received_bytes_total", "counter",
                              "Payload of the messages received.", NULL},
    [STATS_DAMAGED_BYTES] = {"gprocfs_damaged_bytes_total", "counter",
                             "Bytes of mailboxes passed over because they are of no message.",
                             NULL},
    [STATS_LOCK_WAITS] = {"gprocfs_lock_waits_total", "counter",
                          "Times that a lock was found held and had to be waited for.", NULL},
    [STATS_LOCK_TIMEOUTS] = {"gprocfs_lock_timeouts_total", "counter",
                             "Requests that failed because a lock was held for too long.", NULL},
    [STATS_PARKED_LOCK] = {"gprocfs_parked_requests", "gauge", "Requests that wait now.",
                           "kind=\"lock\""},
    [STATS_PARKED_MESSAGE] = {"gprocfs_parked_requests", "gauge", "Requests that wait now.",
                              "kind=\"message\""},
    [STATS_PARKED_POLL] = {"gprocfs_parked_requests", "gauge", "Requests that wait now.",
                           "kind=\"poll\""},
    [STATS_INFLIGHT_MESSAGES] = {"gprocfs_inflight_messages", "gauge",
                                 "Messages taken from mailboxes and not yet received.", NULL},
    [STATS_COLLECTED_BYTES] = {"gprocfs_collected_bytes", "gauge",
                               "Bytes written and to be sent when their file is closed.", NULL},
    [STATS_OPEN_FILES] = {"gprocfs_open_files", "gauge", "Files of this mount that are open.",
                          NULL},
};

/* Names are ours to give: strerrorname_np() is of glibc alone, and not of every one. */
#define NAMED(e) [e] = #e

static const char *const errno_names[STATS_ERRNOS_COUNT] = {
    NAMED(E2BIG),     NAMED(EACCES),     NAMED(EAGAIN),    NAMED(EBADF),        NAMED(EBADMSG),
    NAMED(EBUSY),     NAMED(EDQUOT),     NAMED(EEXIST),    NAMED(EFAULT),       NAMED(EFBIG),
    NAMED(EINTR),     NAMED(EINVAL),     NAMED(EIO),       NAMED(EISDIR),       NAMED(ELOOP),
    NAMED(EMFILE),    NAMED(EMLINK),     NAMED(EMSGSIZE),  NAMED(ENAMETOOLONG), NAMED(ENFILE),
    NAMED(ENODEV),    NAMED(ENOENT),     NAMED(ENOLCK),    NAMED(ENOMEM),       NAMED(ENOSPC),
    NAMED(ENOSYS),    NAMED(ENOTCONN),   NAMED(ENOTDIR),   NAMED(ENOTEMPTY),    NAMED(ENOTTY),
    NAMED(ENXIO),     NAMED(EOPNOTSUPP), NAMED(EOVERFLOW), NAMED(EPERM),        NAMED(EPIPE),
    NAMED(ERANGE),    NAMED(EROFS),      NAMED(ESPIPE),    NAMED(ESRCH),        NAMED(ESTALE),
    NAMED(ETIMEDOUT), NAMED(ETXTBSY),    NAMED(EXDEV),
};

void stats_error(struct stats *stats, int error)
{
    size_t index = error > -STATS_ERRNOS_COUNT && error < 0 ? (size_t)-error : 0;

    if (error == 0)
        return;
    (void)atomic_fetch_add_explicit(&stats->errors[index], 1, memory_order_relaxed);
}

struct text {
    char *data;
    size_t size_bytes;
};

static void __attribute__((format(printf, 2, 3))) append(struct text *text, const char *format, ...)
{
    size_t room_bytes = STATS_TEXT_MOST_BYTES - text->size_bytes;
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vsnprintf(text->data + text->size_bytes, room_bytes, format, arguments);
    va_end(arguments);
    assert(count >= 0 && (size_t)count < room_bytes);
    text->size_bytes += (size_t)count;
}

static void append_family(struct text *text, const char *name, const char *type, const char *help)
{
    append(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void append_values(struct text *text, const struct stats *stats)
{
    const char *family = "";

    for (size_t i = 0; i < STATS_COUNT; i++) {
        const struct row *row = &rows[i];
        int64_t value = atomic_load_explicit(&stats->values[i], memory_order_relaxed);

        if (strcmp(row->name, family) != 0)
            append_family(text, row->name, row->type, row->help);
        family = row->name;
        if (row->label == NULL)
            append(text, "%s %" PRId64 "\n", row->name, value);
        else
            append(text, "%s{%s} %" PRId64 "\n", row->name, row->label, value);
    }
}

static void append_errors(struct text *text, const struct stats *stats)
{
    static const char name[] = "gprocfs_errors_total";

    append_family(text, name, "counter", "Requests answered with an error.");
    for (size_t i = 0; i < STATS_ERRNOS_COUNT; i++) {
        int64_t value = atomic_load_explicit(&stats->errors[i], memory_order_relaxed);

        if (value == 0)
            continue;
        if (i == 0)
            append(text, "%s{kind=\"other\"} %" PRId64 "\n", name, value);
        else if (errno_names[i] != NULL)
            append(text, "%s{kind=\"%s\"} %" PRId64 "\n", name, errno_names[i], value);
        else
            append(text, "%s{kind=\"errno %zu\"} %" PRId64 "\n", name, i, value);
    }
}

int stats_print(const struct stats *stats, char **text, size_t *size_bytes)
{
    struct text printed = {.data = malloc(STATS_TEXT_MOST_BYTES)};

    if (printed.data == NULL)
        return -ENOMEM;
    append_values(&printed, stats);
    append_errors(&printed, stats);
    append_family(&printed, "gprocfs_info", "gauge", "What this daemon is.");
    append(&printed, "gprocfs_info{version=\"%s\"} 1\n", GPROC_VERSION);
    *text = printed.data;
    *size_bytes = printed.size_bytes;
    return 0;
}
