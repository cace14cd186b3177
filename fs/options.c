#include "options.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

#ifndef GPROC_VERSION
#define GPROC_VERSION "0.1.0"
#endif

enum {
    LOCK_TIMEOUT_S = 5,
    MESSAGE_MOST_BYTES = 64 * 1024 * 1024,
    KEY_READ_ONLY = 1,
    KEY_REMOUNT,
};

/* An option, and what is said of it; `help` NULL: it is another spelling of one that is told
 * already. */
struct row {
    struct fuse_opt option;
    const char *usage;
    const char *help;
};

#define FIELD(name, field, value)                                                                  \
    {                                                                                              \
        name, offsetof(struct options, field), value                                               \
    }

static const struct row rows[] = {
    {FIELD("-h", show_help, 1), "-h, --help", "show this and exit"},
    {FIELD("--help", show_help, 1), NULL, NULL},
    {FIELD("help", show_help, 1), NULL, NULL},
    {FIELD("-V", show_version, 1), "-V, --version", "show the versions and exit"},
    {FIELD("--version", show_version, 1), NULL, NULL},
    {FIELD("version", show_version, 1), NULL, NULL},
    {FIELD("-f", foreground, 1), "-f", "stay in the foreground"},
    {FIELD("-d", debug, 1), "-d, -o debug", "show every request on stderr; implies -f"},
    {FIELD("debug", debug, 1), NULL, NULL},
    {{"-s", UINT_MAX, FUSE_OPT_KEY_DISCARD}, "-s", "accepted, without effect"},
    {FIELD("lockdir=%s", lock_directory, 0), "-o lockdir=DIR", "where the locks are"},
    {FIELD("lock_timeout=%s", lock_timeout_text, 0), "-o lock_timeout=SECONDS",
     "how long to wait for a held lock (5; 0: for ever)"},
    {FIELD("max_message=%s", message_most_text, 0), "-o max_message=BYTES",
     "the largest message (67108864)"},
    {FIELD("max_read=%s", read_most_text, 0), NULL, NULL}, /* the kernel's; see add_read_option() */
    {FIELD("live", live, 1), "-o live", "send to no process that does not exist"},
    {{"ro", UINT_MAX, KEY_READ_ONLY}, "-o ro", "look only: nothing is sent or taken"},
    {{"remount", UINT_MAX, KEY_REMOUNT}, NULL, NULL}, /* refused, with the reason */
};

enum {
    ROWS_COUNT = sizeof(rows) / sizeof(rows[0]),
};

/* What mount(8) adds to the directories and -o when it runs us as mount.gprocfs: see its EXTERNAL
 * HELPERS. Only `-f` has a meaning here, which is not that of ours. */
static const struct fuse_opt helper_options[] = {
    FIELD("-f", pretend, 1),
    {"-n", UINT_MAX, FUSE_OPT_KEY_DISCARD},
    {"-s", UINT_MAX, FUSE_OPT_KEY_DISCARD},
    {"-v", UINT_MAX, FUSE_OPT_KEY_DISCARD},
    {"-t ", UINT_MAX, FUSE_OPT_KEY_DISCARD},
    FUSE_OPT_END,
};

/* Words of fstab that are for mount(8) and those who read it, or ask for what FUSE always does or
 * never. */
static const char *const for_others[] = {
    "_netdev",  "auto",       "comment",     "defaults", "diratime", "group",
    "lazytime", "nodiratime", "noauto",      "nofail",   "nogroup",  "nolazytime",
    "nonempty", "norelatime", "noowner",     "nouser",   "nousers",  "owner",
    "relatime", "silent",     "strictatime", "user",     "users",
};

/* A word that begins with x- or X- is somebody's by its form. */
static bool is_for_others(const char *option)
{
    size_t length = strcspn(option, "=");
    size_t i;

    for (i = 0; i < sizeof(for_others) / sizeof(for_others[0]); i++)
        if (strlen(for_others[i]) == length && strncmp(option, for_others[i], length) == 0)
            return true;
    return strncmp(option, "x-", 2) == 0 || strncmp(option, "X-", 2) == 0;
}

static void show_help(FILE *to)
{
    size_t i;

    (void)fprintf(to, "usage: gprocfs [options] [mailbox-directory] mountpoint\n\n"
                      "Makes process mailboxes usable as files.\n\n");
    for (i = 0; i < ROWS_COUNT; i++)
        if (rows[i].help != NULL)
            (void)fprintf(to, "    %-26s%s\n", rows[i].usage, rows[i].help);
    (void)fprintf(to, "    %-26s%s\n", "-o allow_other, ...", "any mount option of FUSE\n");
    (void)fprintf(to, "    gprocfs /mnt/gproc                 mount the default mailbox directory\n"
                      "    echo reload > /mnt/gproc/4711      send a message to process 4711\n");
}

/* libfuse's complaints about the command line, in our name. */
static void say_as_ours(enum fuse_log_level level, const char *format, va_list arguments)
{
    static const char theirs[] = "fuse: ";

    (void)level;
    if (strncmp(format, theirs, sizeof(theirs) - 1) == 0) {
        (void)fputs("gprocfs: ", stderr);
        format += sizeof(theirs) - 1;
    }
    (void)vfprintf(stderr, format, arguments);
}

static int take_argument(void *data, const char *argument, int key, struct fuse_args *rest)
{
    struct options *options = data;

    (void)rest;
    if (key == KEY_READ_ONLY) {
        options->read_only = 1;
        return 1; /* the kernel is told too */
    }
    if (key == KEY_REMOUNT) {
        (void)fprintf(stderr, "gprocfs: a mount cannot be changed: unmount, and mount again\n");
        return -1;
    }
    if (key == FUSE_OPT_KEY_OPT && is_for_others(argument))
        return 0;
    if (key != FUSE_OPT_KEY_NONOPT)
        return 1; /* libfuse's, or nobody's: it will say */
    if (options->mountpoint != NULL && options->mailbox_directory != NULL) {
        (void)fprintf(stderr, "gprocfs: one directory too many: %s\n", argument);
        return -1;
    }
    options->mailbox_directory = options->mountpoint;
    options->mountpoint = strdup(argument);
    return options->mountpoint != NULL ? 0 : -1;
}

/* The source in the table of mounts is what the command line or fstab says, since `mount -a` finds by
 * it what is mounted already. Where -o has an fsname, that. */
static bool add_source_option(struct options *options)
{
    const char *source =
        options->mailbox_directory != NULL ? options->mailbox_directory : "gprocfs";
    char *text = NULL;
    char *list = NULL;
    bool added = asprintf(&text, "fsname=%s", source) >= 0 &&
                 fuse_opt_add_opt_escaped(&list, text) == 0 &&
                 fuse_opt_insert_arg(&options->fuse, 1, list) == 0 &&
                 fuse_opt_insert_arg(&options->fuse, 1, "-o") == 0;

    free(text);
    free(list);
    return added;
}

/* mount(8) has a word for "from nowhere"; a directory called so is ./none. */
static void forget_none(struct options *options)
{
    if (options->mailbox_directory == NULL || strcmp(options->mailbox_directory, "none") != 0)
        return;
    free(options->mailbox_directory);
    options->mailbox_directory = NULL;
}

/* True and `*value` for a decimal number up to `most`; `text` NULL leaves the value as it is. */
static bool is_number(const char *text, unsigned long long most, unsigned long long *value)
{
    unsigned long long read;
    char *end;

    if (text == NULL)
        return true;
    errno = 0;
    read = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || read > most)
        return false;
    *value = read;
    return true;
}

/* Says so where a directory was given as "". */
static bool is_nameless(const char *path, const char *what)
{
    if (path == NULL || path[0] != '\0')
        return false;
    (void)fprintf(stderr, "gprocfs: %s has no name\n", what);
    return true;
}

static bool are_sound(struct options *options)
{
    if (is_nameless(options->mailbox_directory, "the mailbox directory") ||
        is_nameless(options->mountpoint, "the mountpoint") ||
        is_nameless(options->lock_directory, "lockdir"))
        return false;
    if (options->mountpoint == NULL) {
        (void)fprintf(stderr, "gprocfs: no mountpoint; try gprocfs -h\n");
        return false;
    }
    /* Only who mounts can tell the kernel to check permissions. */
    if (strncmp(options->mountpoint, "/dev/fd/", 8) == 0) {
        (void)fprintf(stderr,
                      "gprocfs: drop_privileges: cannot be used with a mount that was made by "
                      "somebody else\n");
        return false;
    }
    if (!is_number(options->lock_timeout_text, UINT32_MAX, &options->lock_timeout_s)) {
        (void)fprintf(stderr, "gprocfs: lock_timeout=%s: must be from 0 to %lu seconds\n",
                      options->lock_timeout_text, (unsigned long)UINT32_MAX);
        return false;
    }
    if (!is_number(options->read_most_text, UINT32_MAX, &options->read_most_bytes)) {
        (void)fprintf(stderr, "gprocfs: max_read=%s: must be a number of bytes\n",
                      options->read_most_text);
        return false;
    }
    if (!is_number(options->message_most_text, UINT64_MAX, &options->message_most_bytes) ||
        options->message_most_bytes == 0 ||
        options->message_most_bytes > GPROC_FRAME_PAYLOAD_MAX_BYTES) {
        (void)fprintf(stderr, "gprocfs: max_message=%s: must be from 1 to %zu bytes\n",
                      options->message_most_text, GPROC_FRAME_PAYLOAD_MAX_BYTES);
        return false;
    }
    return true;
}

/* The kernel is told of it in the mount's options, by libfuse; and libfuse by us, see op_init(). */
static bool add_read_option(struct options *options)
{
    char text[64];

    if (options->read_most_text == NULL)
        return true;
    (void)snprintf(text, sizeof(text), "-omax_read=%llu", options->read_most_bytes); /* it fits */
    return fuse_opt_add_arg(&options->fuse, text) == 0;
}

static int keep_argument(void *data, const char *argument, int key, struct fuse_args *rest)
{
    (void)data;
    (void)argument;
    (void)key;
    (void)rest;
    return 1;
}

static bool is_mount_helper(const char *program)
{
    const char *slash = strrchr(program, '/');

    return strncmp(slash != NULL ? slash + 1 : program, "mount.", 6) == 0;
}

enum options_result options_parse(struct options *options, int argc, char *argv[])
{
    struct fuse_opt table[ROWS_COUNT + 1];
    size_t i;
    int result = 0;

    memset(options, 0, sizeof(*options));
    options->fuse = (struct fuse_args)FUSE_ARGS_INIT(argc, argv);
    options->lock_timeout_s = LOCK_TIMEOUT_S;
    options->message_most_bytes = MESSAGE_MOST_BYTES;
    for (i = 0; i < ROWS_COUNT; i++)
        table[i] = rows[i].option;
    table[ROWS_COUNT] = (struct fuse_opt)FUSE_OPT_END;
    fuse_set_log_func(say_as_ours);
    if (argc > 0 && is_mount_helper(argv[0]))
        result = fuse_opt_parse(&options->fuse, options, helper_options, keep_argument);
    if (result == 0)
        result = fuse_opt_parse(&options->fuse, options, table, take_argument);
    fuse_set_log_func(NULL); /* as it was */
    if (result < 0)
        return OPTIONS_MISTAKEN;
    if (options->show_help) {
        show_help(stdout);
        return OPTIONS_SHOWN;
    }
    if (options->show_version) {
        (void)printf("gprocfs %s, libfuse %s\n", GPROC_VERSION, fuse_pkgversion());
        return OPTIONS_SHOWN;
    }
    if (!are_sound(options) || !add_source_option(options) || !add_read_option(options))
        return OPTIONS_MISTAKEN;
    forget_none(options);
    return options->pretend ? OPTIONS_SHOWN : OPTIONS_RUN;
}

void options_release(struct options *options)
{
    fuse_opt_free_args(&options->fuse);
    free(options->mailbox_directory);
    free(options->mountpoint);
    free(options->lock_directory);
    free(options->lock_timeout_text);
    free(options->message_most_text);
    free(options->read_most_text);
}
