/*
 * table - the lines of `.list`, for people and for awk.
 *
 *    NUMBER      SENDER      BYTES CHECKSUM PREVIEW
 *         1        4711          7 0000028d reload\n
 *         -           -         45        - damaged at offset 19
 *
 * Five columns, no wider than 80 characters together unless a number needs more. Pure functions.
 */
#ifndef GPROCFS_TABLE_H
#define GPROCFS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "scan.h"

enum {
    TABLE_PREVIEW_BYTES = 40, /* of a payload: more are never needed */
    TABLE_LINE_BYTES = 160,   /* with its newline and a zero */
};

/* Each writes a line and returns its length, without the zero. */
size_t table_head(char line[TABLE_LINE_BYTES]);

/* `payload` is its beginning: TABLE_PREVIEW_BYTES of it, or all where it has less. */
size_t table_message(char line[TABLE_LINE_BYTES], uint64_t number,
                     const struct gproc_message *message, const uint8_t *payload);

size_t table_damage(char line[TABLE_LINE_BYTES], bool in_flight, off_t offset, off_t size_bytes);

#endif
