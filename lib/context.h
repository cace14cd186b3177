/*
 * context - what a `struct gproc` is, for the modules that implement gproc.h. Not installed.
 */
#ifndef GPROC_CONTEXT_H
#define GPROC_CONTEXT_H

#include "place.h"

struct gproc {
    /* Both change only by gproc_place_renew(), which threads may call at once; so no lock. */
    struct gproc_place mailboxes;
    struct gproc_place locks;
};

#endif
