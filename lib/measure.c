#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "mailbox.h"
#include "scan.h"

void gproc_measure_init(struct gproc_measure *measure)
{
    memset(measure, 0, sizeof(*measure));
}

static bool same_time(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

static bool same_file(const struct stat *one, const struct stat *other)
{
    return one->st_ino == other->st_ino && one->st_dev == other->st_dev;
}

static bool unchanged(const struct stat *one, const struct stat *other)
{
    return same_file(one, other) && one->st_size == other->st_size &&
           same_time(&one->st_mtim, &other->st_mtim) && same_time(&one->st_ctim, &other->st_ctim);
}

static bool stands(const struct gproc_source *source, const struct gproc_landmark *landmark)
{
    uint8_t header[GPROC_FRAME_HEADER_BYTES];

    return gproc_source_read(source, header, sizeof(header), landmark->offset) == 0 &&
           memcmp(header, landmark->header, sizeof(header)) == 0;
}

/* Whether the file is the one that was counted, with nothing but bytes added. */
static bool has_grown(const struct gproc_measure *measure, const struct stat *status,
                      const struct gproc_source *source)
{
    return same_file(&measure->status, status) && status->st_size >= measure->status.st_size &&
           measure->resume_messages_count > 0 && stands(source, &measure->first) &&
           stands(source, &measure->last);
}

static int note(const struct gproc_source *source, const struct gproc_message *message,
                struct gproc_landmark *landmark)
{
    landmark->offset = message->frame_offset;
    return gproc_source_read(source, landmark->header, sizeof(landmark->header), landmark->offset);
}

/* Counts from `resume` on. What comes before anything undecided becomes the new `resume`. */
static int count(struct gproc_measure *measure, const struct gproc_source *source)
{
    struct gproc_message message, first = {0}, last = {0};
    struct gproc_scan scan;
    bool anew = measure->resume_messages_count == 0;
    uint64_t decided_count = 0;
    int result;

    measure->payload_bytes = measure->resume_payload_bytes;
    measure->messages_count = measure->resume_messages_count;
    gproc_scan_init(&scan, source, measure->resume);
    while ((result = gproc_scan_next(&scan, &message)) == 1) {
        measure->payload_bytes += message.payload_bytes;
        measure->messages_count++;
        if (scan.unresolved >= 0 && scan.unresolved < message.frame_offset)
            continue;
        if (decided_count++ == 0)
            first = message;
        last = message;
        measure->resume = scan.position;
        measure->resume_payload_bytes = measure->payload_bytes;
        measure->resume_messages_count = measure->messages_count;
    }
    gproc_scan_release(&scan);
    if (result == 0 && decided_count > 0 && anew)
        result = note(source, &first, &measure->first);
    if (result == 0 && decided_count > 0)
        result = note(source, &last, &measure->last);
    return result;
}

int gproc_measure_update(struct gproc_measure *measure, struct gproc_place *directory, pid_t pid,
                         struct stat *status)
{
    struct gproc_mailbox mailbox;
    struct gproc_source source;
    int result = gproc_mailbox_stat(directory, pid, status);

    if (result < 0) {
        gproc_measure_init(measure);
        return result;
    }
    if (unchanged(&measure->status, status))
        return 0;
    if (status->st_size == 0) {
        gproc_measure_init(measure);
        measure->status = *status;
        return 0;
    }
    result = gproc_mailbox_open(&mailbox, directory, pid, O_RDONLY);
    if (result < 0) {
        gproc_measure_init(measure);
        return result;
    }
    *status = mailbox.status;
    source = gproc_mailbox_source(&mailbox);
    if (!has_grown(measure, status, &source))
        gproc_measure_init(measure);
    result = count(measure, &source);
    if (result < 0)
        gproc_measure_init(measure);
    else
        measure->status = *status;
    gproc_mailbox_close(&mailbox);
    return result == -EIO
               ? 0
               : result; /* emptied while it was read: what is left will be counted next time */
}
