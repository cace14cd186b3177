/*
 * rows - the measurements: each function adds its lines to the table. What a row measures is said
 * where it is defined; how, in sample.h.
 */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "stage.h"
#include "table.h"

/* ---- With both file systems mounted */

/* One message at a time through the mount. */
void rows_exchange(struct stage *stage, struct table *table);

/* A million of them. */
void rows_drain(struct stage *stage, struct table *table);

/* `ls -l` of ten thousand mailboxes. */
void rows_names(struct stage *stage, struct table *table);

/* ---- Without a mount */

/* Sending by the library; and what else there is to send with. */
void rows_library(struct stage *stage, struct table *table);

/* Finding messages in memory. */
void rows_scan(struct stage *stage, struct table *table);

/* ---- Mounts by itself */

/* The daemon's memory. */
void rows_memory(struct stage *stage, struct table *table);

#endif
