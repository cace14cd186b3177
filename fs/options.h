/*
 * options - the command line.
 */
#ifndef GPROCFS_OPTIONS_H
#define GPROCFS_OPTIONS_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>

struct options {
    struct fuse_args fuse;   /* what libfuse gets: owned */
    char *mailbox_directory; /* owned; NULL: the environment says */
    char *mountpoint;        /* owned */
    char *lock_directory;    /* owned; NULL: the environment says */
    char *lock_timeout_text; /* owned; as given, or NULL */
    char *message_most_text; /* owned; as given, or NULL */
    unsigned long long lock_timeout_s;
    unsigned long long message_most_bytes;
    char *read_most_text;               /* owned; as given, or NULL */
    unsigned long long read_most_bytes; /* 0: not given */
    int live;
    int read_only;
    int foreground;
    int debug;
    int show_help;
    int show_version;
    int pretend; /* mount -f: all but to mount */
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_SHOWN,    /* -h, -V or `mount -f`: done */
    OPTIONS_MISTAKEN, /* told on stderr */
};

/* Reads the command line, and shows what it only asks to be shown. A program that is called
 * `mount.` and something was started by mount(8), whose `-f`, `-n`, `-s`, `-t`, `-v` mean what they
 * mean there. Owned things are freed by options_release(). */
enum options_result options_parse(struct options *options, int argc, char *argv[]);

void options_release(struct options *options);

#endif
