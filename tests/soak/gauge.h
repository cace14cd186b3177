/*
 * gauge - how much of the machine a daemon uses at a moment, seen from outside.
 */
#ifndef SOAK_GAUGE_H
#define SOAK_GAUGE_H

#include <stddef.h>

#include "mount.h"

enum gauge_id {
    GAUGE_RESIDENT_KIB,
    GAUGE_DESCRIPTORS,
    GAUGE_INFLIGHT_FILES, /* in `.gprocfs`, of whatever mount, with their lock files */
    GAUGES,
};

struct gauge {
    long values[GAUGES]; /* -1: not known */
};

/* What it is called, and by how much its median may grow. */
const char *gauge_name(enum gauge_id id);
long gauge_slack(enum gauge_id id);

struct gauge gauge_take(const struct mount *mount);

/* The median of `count` numbers, -1 left out; -1 where there is none. Sorts them. */
long gauge_median(long *numbers, size_t count);

#endif
