/*
 * table - the report: what machine this was, and a line for each measurement; on standard output
 * and in a file.
 */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include <stdio.h>

/* What the goal is compared with, and how. */
enum table_goal {
    TABLE_NO_GOAL,
    TABLE_RATIO_AT_MOST,
    TABLE_RATIO_AT_LEAST,
    TABLE_VALUE_AT_MOST, /* our value itself */
    TABLE_VALUE_AT_LEAST,
};

/* In place of a value that there is none of. */
#define TABLE_NOT_THERE (-1.0)

struct table_row {
    const char *name;
    const char *unit;
    double ours;
    double baseline;
    enum table_goal judge;
    double goal;
};

struct table {
    FILE *file; /* owned; NULL: standard output alone */
};

/* Opens the file `path`; NULL: none. Gives up where that cannot be. */
void table_begin(struct table *table, const char *path);

/* The same line to both, as printf does. */
void table_say(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A heading, and what the columns are called. */
void table_section(struct table *table, const char *heading);

void table_add(struct table *table, const struct table_row *row);

void table_end(struct table *table);

#endif
