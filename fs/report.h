/*
 * report - an open `.stats`: the text as it was when the file was opened.
 */
#ifndef GPROCFS_REPORT_H
#define GPROCFS_REPORT_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <sys/types.h>

#include "gprocfs.h"

struct report;

/* 0 and `*report`, which report_close() frees; or -ENOMEM. */
int report_open(struct gprocfs *fs, struct report **report);
void report_close(struct report *report);

/* Answers. */
void report_read(const struct report *report, fuse_req_t req, size_t size_bytes, off_t offset);

#endif
