#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"
#include "mailbox.h"
#include "paths.h"
#include "reply.h"

struct listing {
    struct opened opened;
    struct gprocfs *fs;
    struct tree_node node;
    DIR *stream;
    off_t position;         /* what readdir returns next has this offset before it */
    struct dirent *waiting; /* read, but it did not fit any more */
};

/*
 * Offsets are those of the directory below, which may be any. In the root, the views come last, at
 * the far end of all offsets, where file systems have nothing but their end.
 */
static const off_t views_offset = INT64_MAX - 1 - TREE_VIEWS_END;

/* Whether an offset is one of the directory below. Its end may be the last there is. */
static bool is_below(off_t offset)
{
    return offset <= views_offset || offset == INT64_MAX;
}

/* What is being filled. */
struct page {
    fuse_req_t req;
    char *bytes;
    size_t used;
    size_t room;
};

static void close_listing(struct opened *opened)
{
    struct listing *listing = (struct listing *)opened; /* its first field */

    (void)closedir(listing->stream); /* it was only read */
    free(listing);
}

int listing_open(struct gprocfs *fs, struct tree_node node, struct listing **listing)
{
    struct listing *made = calloc(1, sizeof(*made));
    int fd, result;

    if (made == NULL)
        return -ENOMEM;
    made->fs = fs;
    made->node = node;
    result = gproc_place_renew(&fs->mailboxes); /* what is listed is what the path leads to now */
    fd = result < 0 ? result : openat(fs->mailboxes.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (result == 0 && fd < 0)
        result = -errno;
    if (result == 0) {
        made->stream = fdopendir(fd);
        if (made->stream == NULL) {
            result = -errno;
            (void)close(fd);
        }
    }
    if (result < 0) {
        free(made);
        return result;
    }
    opened_add(&fs->opened, &made->opened, close_listing);
    *listing = made;
    return 0;
}

void listing_close(struct listing *listing)
{
    opened_remove(&listing->fs->opened, &listing->opened);
}

/* False: the page is full. */
static bool add(struct page *page, const char *name, struct tree_node node, mode_t type, off_t next)
{
    struct stat attributes = {.st_ino = tree_inode(node), .st_mode = type};
    size_t left = page->room - page->used;
    size_t need =
        fuse_add_direntry(page->req, page->bytes + page->used, left, name, &attributes, next);

    if (need > left)
        return false;
    page->used += need;
    return true;
}

/*
 * Whether it is a mailbox, and which. What readdir says of it is believed, since asking each file
 * would make a directory of a hundred thousand dear for who wants no more than names: of a file
 * with several links, which is no mailbox, the name is shown, and there is nothing behind it.
 */
static bool is_mailbox(const struct listing *listing, const struct dirent *found, pid_t *pid)
{
    struct stat status;

    if (gproc_pid_parse(found->d_name, pid) < 0)
        return false;
    if (found->d_type != DT_UNKNOWN)
        return found->d_type == DT_REG;
    return gproc_mailbox_stat(&listing->fs->mailboxes, *pid, &status) == 0;
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The next entry of the stream, or the one that did not fit. NULL at the end; on an error with
 * `*result` that. */
static struct dirent *next_entry(struct listing *listing, int *result)
{
    struct dirent *entry = listing->waiting;

    listing->waiting = NULL;
    if (entry == NULL) {
        errno = 0;
        entry = readdir(listing->stream);
        if (entry == NULL && errno != 0)
            *result = -errno;
    }
    return entry;
}

/* What the directory below has. 1: all of it; 0: the page is full; or a negative errno. */
static int fill_mailboxes(struct listing *listing, struct page *page)
{
    struct dirent *found;
    int result = 1;

    while ((found = next_entry(listing, &result)) != NULL) {
        struct tree_node node = listing->node;
        bool dot = is_dot(found->d_name);

        if ((dot || is_mailbox(listing, found, &node.pid)) &&
            !add(page, found->d_name, node, dot ? S_IFDIR : S_IFREG, found->d_off)) {
            listing->waiting = found; /* it is valid until the stream is read again */
            return 0;
        }
        listing->position = found->d_off;
    }
    return result;
}

static void fill_views(struct listing *listing, struct page *page)
{
    off_t first = is_below(listing->position) ? 0 : listing->position - views_offset;
    off_t i;

    for (i = TREE_MAILBOX + 1 + first; i < TREE_VIEWS_END; i++) {
        struct tree_node node = {.view = (enum tree_view_id)i};
        off_t next = views_offset + i - TREE_MAILBOX;

        if (!add(page, tree_view(node.view)->name, node,
                 tree_is_directory(node) ? S_IFDIR : S_IFREG, next))
            return;
        listing->position = next;
    }
}

static int fill(struct listing *listing, struct page *page)
{
    int result = 1;

    if (is_below(listing->position))
        result = fill_mailboxes(listing, page);
    if (result == 1 && listing->node.view == TREE_MAILBOX)
        fill_views(listing, page);
    return result > 0 || page->used > 0 ? 0 : result; /* an error is told when nothing else is */
}

/* Goes on from another offset than the last. */
static void move_to(struct listing *listing, off_t offset)
{
    if (offset == 0)
        rewinddir(listing->stream);
    else if (is_below(offset))
        seekdir(listing->stream, offset);
    listing->position = offset;
    listing->waiting = NULL;
}

void listing_read(struct listing *listing, fuse_req_t req, size_t size_bytes, off_t offset)
{
    struct page page = {.req = req, .room = size_bytes};
    int result;

    page.bytes = malloc(size_bytes);
    if (page.bytes == NULL) {
        (void)reply_error(req, -ENOMEM);
        return;
    }
    if (offset != listing->position)
        move_to(listing, offset);
    result = fill(listing, &page);
    if (result < 0)
        (void)reply_error(req, result);
    else
        (void)fuse_reply_buf(req, page.bytes, page.used);
    free(page.bytes);
}
