/*
 * refused - calls that a mount must refuse, whatever else is going on.
 */
#ifndef MODEL_REFUSED_H
#define MODEL_REFUSED_H

enum {
    REFUSED_COUNT = 14,
};

/* With which errno; and the call itself, below the mount point: what it returned. */
int refused_error(long which);
long refused_call(long which, const char *mount_point);

#endif
