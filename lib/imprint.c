#include "imprint.h"

#include <string.h>

void gproc_imprint_init(struct gproc_imprint *imprint)
{
    memset(imprint, 0, sizeof(*imprint));
}

static bool same_time(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

static bool same_file(const struct stat *one, const struct stat *other)
{
    return one->st_ino == other->st_ino && one->st_dev == other->st_dev;
}

static bool stands(const struct gproc_source *source, const struct gproc_landmark *landmark)
{
    uint8_t header[GPROC_FRAME_HEADER_BYTES];

    return gproc_source_read(source, header, sizeof(header), landmark->offset) == 0 &&
           memcmp(header, landmark->header, sizeof(header)) == 0;
}

bool gproc_imprint_is_unchanged(const struct gproc_imprint *imprint, const struct stat *status)
{
    const struct stat *before = &imprint->status;

    return same_file(before, status) && before->st_size == status->st_size &&
           same_time(&before->st_mtim, &status->st_mtim) &&
           same_time(&before->st_ctim, &status->st_ctim);
}

enum gproc_imprint_change gproc_imprint_compare(const struct gproc_imprint *imprint,
                                                const struct stat *status,
                                                const struct gproc_source *source)
{
    const struct stat *before = &imprint->status;

    if (gproc_imprint_is_unchanged(imprint, status))
        return GPROC_IMPRINT_NONE;
    if (!same_file(before, status) || status->st_size < before->st_size)
        return GPROC_IMPRINT_OTHER;
    if (imprint->messages_count > 0 &&
        !(stands(source, &imprint->first) && stands(source, &imprint->last)))
        return GPROC_IMPRINT_OTHER;
    /* The other time, alone, may be that of a chmod. */
    if (status->st_size == before->st_size && !same_time(&before->st_mtim, &status->st_mtim))
        return GPROC_IMPRINT_REFILLED;
    return GPROC_IMPRINT_GROWN;
}

void gproc_imprint_note(struct gproc_imprint *imprint, const struct gproc_message *message)
{
    struct gproc_landmark *last = &imprint->last;

    last->offset = message->frame_offset;
    /* The bytes that were found, whatever the file holds by now. They fit: it had such a header. */
    (void)gproc_frame_encode(last->header, message->sender, message->payload_bytes,
                             message->checksum);
    if (imprint->messages_count++ == 0)
        imprint->first = *last;
    imprint->resume = message->payload_offset + (off_t)message->payload_bytes;
}
