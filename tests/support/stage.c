#include "stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum {
    HELD_MOST_BYTES = 4096,
};

static void join(char path[PATH_MAX], const char *parent, const char *name)
{
    const int length = snprintf(path, PATH_MAX, "%s/%s", parent, name);

    assert_in_range(length, 1, PATH_MAX - 1);
}

void stage_init(struct stage *stage, struct temporary *temporary)
{
    *stage = (struct stage){.temporary = temporary};
    join(stage->parent, temporary->root, "parent");
    join(stage->mailboxes, stage->parent, "gproc");
    join(stage->locks, stage->parent, "gflock");
    join(stage->box, stage->mailboxes, "4711");
    join(stage->lock_file, stage->locks, "4711.lock");
}

void stage_set(struct stage *stage)
{
    const struct gproc_options options = {stage->mailboxes, stage->locks};

    temporary_mkdir(stage->parent);
    assert_int_equal(gproc_open(&options, &stage->gproc), 0);
}

void stage_clear(struct stage *stage)
{
    gproc_close(stage->gproc);
    stage->gproc = NULL;
    if (temporary_exists(stage->parent))
        temporary_remove(stage->parent);
}

void stage_put(const struct stage *stage, const char *text)
{
    temporary_append_text(stage->box, STAGE_SENDER, text);
}

void stage_expect(const struct stage *stage, ...)
{
    uint8_t bytes[HELD_MOST_BYTES];
    const char *text;
    size_t size = 0;
    va_list texts;

    va_start(texts, stage);
    while ((text = va_arg(texts, const char *)) != NULL) {
        assert_true(size + TEMPORARY_HEADER_BYTES + strlen(text) <= sizeof(bytes));
        size += temporary_frame(bytes + size, STAGE_SENDER, text, strlen(text));
    }
    va_end(texts);
    temporary_expect(stage->box, bytes, size);
}
