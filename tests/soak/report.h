/*
 * report - what a soak writes: who did what, a line for each time between two kills, the totals,
 * and whether every promise was kept. Names neither the machine nor a place on it.
 */
#ifndef SOAK_REPORT_H
#define SOAK_REPORT_H

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "crowd.h"
#include "gauge.h"

/* From one kill to the next. */
struct report_row {
    unsigned end_s;                      /* since the start */
    unsigned next[TALLY_SENDERS_MOST];   /* of each sender, the number of the next message, at its
                                          end */
    unsigned long sent, received, twice; /* in this time */
    unsigned long lost;                  /* of what was sent in this time */
    unsigned kills, unmounts;
    bool steady; /* one daemon lived all the time: first and last tell of growth */
    struct gauge first, last;
};

struct report {
    struct crowd *crowd;
    time_t started; /* wall clock */
    unsigned kill_every_s;
    struct report_row *rows; /* owned */
    size_t rows_count;
    size_t rows_most;
    struct gauge idle_first, idle_last; /* without anybody, before and after all */
    bool store_clean;                   /* at the end nothing was left in flight */
    bool ended_well;                    /* all daemons that were told to end did */
    bool log_empty;                     /* and none of them had anything to say */
};

/* Room for so many rows. 0, or -1. */
int report_init(struct report *report, struct crowd *crowd, unsigned kill_every_s,
                size_t rows_most);
void report_release(struct report *report);

/* The headings of the table, and a row of it. */
void report_print_heading(FILE *to);
void report_print_row(FILE *to, const struct report_row *row);

/* What the crowd complains of, from complaint number `from` on. How many there are. */
unsigned report_print_complaints(FILE *to, const struct crowd *crowd, unsigned from);

/* All of it, after the end. Whether every promise was kept. */
bool report_write(struct report *report, FILE *to);

#endif
