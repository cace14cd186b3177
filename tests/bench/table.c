#include "table.h"

#include <stdarg.h>
#include <stdbool.h>

#include "stage.h"

void table_begin(struct table *table, const char *path)
{
    table->file = NULL;
    if (path == NULL)
        return;
    table->file = fopen(path, "we");
    if (table->file == NULL)
        give_up(path);
}

void table_say(struct table *table, const char *format, ...)
{
    FILE *const files[] = {stdout, table->file};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        va_list arguments;

        if (files[i] == NULL)
            continue;
        va_start(arguments, format);
        (void)vfprintf(files[i], format, arguments); /* table_end() looks whether all went well */
        va_end(arguments);
        (void)fputc('\n', files[i]);
        (void)fflush(files[i]); /* it takes minutes: what is known is shown */
    }
}

void table_section(struct table *table, const char *heading)
{
    table_say(table, "\n%-46s %9s %9s %-6s %6s  %s", heading, "ours", "baseline", "", "ratio",
              "goal");
}

/* A number in nine characters, or `-`. */
static const char *show(char text[32], double value)
{
    if (value < 0)
        (void)snprintf(text, 32, "-");
    else
        (void)snprintf(text, 32, value < 100 ? "%.2f" : "%.0f", value);
    return text;
}

static void show_goal(char text[32], const struct table_row *row, double ratio)
{
    enum table_goal judge = row->judge;
    bool of_ratio = judge == TABLE_RATIO_AT_MOST || judge == TABLE_RATIO_AT_LEAST;
    bool at_most = judge == TABLE_RATIO_AT_MOST || judge == TABLE_VALUE_AT_MOST;
    double value = of_ratio ? ratio : row->ours;
    const char *verdict = "";

    text[0] = '\0';
    if (judge == TABLE_NO_GOAL)
        return;
    if (value < 0)
        verdict = " not there";
    else if (at_most ? value > row->goal : value < row->goal)
        verdict = " MISSED";
    (void)snprintf(text, 32, "%s %g%s%s%s", at_most ? "<=" : ">=", row->goal, of_ratio ? "" : " ",
                   of_ratio ? "" : row->unit, verdict);
}

void table_add(struct table *table, const struct table_row *row)
{
    bool both = row->ours >= 0 && row->baseline > 0;
    double ratio = both ? row->ours / row->baseline : TABLE_NOT_THERE;
    char ours[32], baseline[32], shown[32], goal[32];

    show_goal(goal, row, ratio);
    table_say(table, "%-46s %9s %9s %-6s %6s  %s", row->name, show(ours, row->ours),
              show(baseline, row->baseline), row->unit, show(shown, ratio), goal);
}

void table_end(struct table *table)
{
    bool bad = table->file != NULL && ferror(table->file);

    if (table->file != NULL && fclose(table->file) != 0)
        bad = true;
    table->file = NULL;
    if (bad)
        give_up("the report");
}
