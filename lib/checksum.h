/*
 * checksum - the sum of bytes that a frame carries, modulo 2^32.
 *
 * Cost: one pass over the bytes, no memory. Pure functions; any thread.
 */
#ifndef GPROC_CHECKSUM_H
#define GPROC_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The sum of `size_bytes` bytes at `data`, modulo 2^32; 0 for none. `data` may be NULL then. */
uint32_t gproc_checksum(const void *data, size_t size_bytes);

#endif
