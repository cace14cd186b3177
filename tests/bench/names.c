/* `ls -l` of ten thousand mailboxes with mail, not for the first time. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "rows.h"
#include "sample.h"

/* Reads the directory and asks for each name's attributes, as ls does. */
static double list(const char *path)
{
    double begin_s = sample_now_s();
    DIR *directory = opendir(path);
    int names_count = 0;
    struct dirent *entry;

    if (directory == NULL)
        give_up(path);
    while ((entry = readdir(directory)) != NULL) {
        struct stat status;

        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            give_up(entry->d_name);
        names_count += S_ISREG(status.st_mode) && status.st_size == STAGE_MESSAGE_BYTES;
    }
    closedir(directory);
    if (names_count != STAGE_NAMES_COUNT)
        give_up("not all names are there");
    return sample_now_s() - begin_s;
}

static double list_ours(void *context)
{
    struct stage *stage = context;

    return list(stage->mnt);
}

static double list_empty(void *context)
{
    struct stage *stage = context;

    return list(stage->empty[STAGE_EMPTY]);
}

void rows_names(struct stage *stage, struct table *table)
{
    struct sample sample;

    for (int i = 1; i <= STAGE_NAMES_COUNT; i++)
        stage_fill(stage, i, 1, STAGE_MESSAGE_BYTES);
    sample = sample_both(list_ours, list_empty, stage);
    table_add(table, &(struct table_row){"ls -l of 10,000 mailboxes with mail, again", "ms",
                                         sample.ours_s * 1e3, sample.baseline_s * 1e3,
                                         TABLE_RATIO_AT_MOST, 1.5});
}
