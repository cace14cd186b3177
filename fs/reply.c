#include "reply.h"

#include "gprocfs.h"
#include "stats.h"

int reply_no(fuse_req_t req, int error)
{
    return fuse_reply_err(req, -error);
}

int reply_error(fuse_req_t req, int error)
{
    struct gprocfs *fs = fuse_req_userdata(req);

    if (error < 0)
        stats_error(&fs->stats, error);
    return reply_no(req, error);
}
