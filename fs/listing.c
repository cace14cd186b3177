#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"
#include "paths.h"

struct listing {
    struct gprocfs *fs;
    struct tree_node node;
    DIR *stream;
    off_t position;         /* what readdir returns next has this offset before it */
    struct dirent *waiting; /* read, but it did not fit any more */
};

/* What is being filled. */
struct page {
    fuse_req_t req;
    char *bytes;
    size_t used;
    size_t room;
    bool plus;
};

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
    *listing = made;
    return 0;
}

void listing_close(struct listing *listing)
{
    (void)closedir(listing->stream); /* it was only read */
    free(listing);
}

/* False: the page is full. */
static bool add(struct page *page, const char *name, const struct fuse_entry_param *entry,
                off_t next)
{
    char *at = page->bytes + page->used;
    size_t left = page->room - page->used;
    size_t need = page->plus ? fuse_add_direntry_plus(page->req, at, left, name, entry, next)
                             : fuse_add_direntry(page->req, at, left, name, &entry->attr, next);

    if (need > left)
        return false;
    page->used += need;
    return true;
}

/* False: it is no mailbox. */
static bool describe(const struct listing *listing, const char *name,
                     struct fuse_entry_param *entry)
{
    struct tree_node node = listing->node;

    return gproc_pid_parse(name, &node.pid) == 0 && look_entry(listing->fs, node, entry) == 0;
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The next entry of the stream, or the one that did not fit. NULL at the end, with `*result` 0 or
 * the error. */
static struct dirent *next_entry(struct listing *listing, int *result)
{
    struct dirent *entry = listing->waiting;

    listing->waiting = NULL;
    if (entry == NULL) {
        errno = 0;
        entry = readdir(listing->stream);
        if (entry == NULL)
            *result = -errno;
    }
    return entry;
}

static int fill(struct listing *listing, struct page *page)
{
    struct dirent *found;
    int result = 0;

    while ((found = next_entry(listing, &result)) != NULL) {
        struct fuse_entry_param entry;

        memset(&entry, 0, sizeof(entry));
        if (is_dot(found->d_name)) {
            entry.attr.st_ino = tree_inode(listing->node);
            entry.attr.st_mode = S_IFDIR;
        } else if (!describe(listing, found->d_name, &entry)) {
            listing->position = found->d_off;
            continue;
        }
        if (!add(page, found->d_name, &entry, found->d_off)) {
            listing->waiting = found; /* it is valid until the stream is read again */
            break;
        }
        listing->position = found->d_off;
    }
    return page->used > 0 ? 0 : result; /* an error is told when there is nothing else to tell */
}

void listing_read(struct listing *listing, fuse_req_t req, size_t size_bytes, off_t offset,
                  bool plus)
{
    struct page page = {.req = req, .room = size_bytes, .plus = plus};
    int result;

    page.bytes = malloc(size_bytes);
    if (page.bytes == NULL) {
        (void)fuse_reply_err(req, ENOMEM);
        return;
    }
    if (offset != listing->position) {
        if (offset == 0)
            rewinddir(listing->stream);
        else
            seekdir(listing->stream, offset);
        listing->position = offset;
        listing->waiting = NULL;
    }
    result = fill(listing, &page);
    if (result < 0)
        (void)fuse_reply_err(req, -result);
    else
        (void)fuse_reply_buf(req, page.bytes, page.used);
    free(page.bytes);
}
