/*
 * leavings - what dead mounts leave in `.gprocfs`, in every state in which they can be killed; made
 * by hand after the format in lib/segment.h, without a line of lib/.
 *
 * All of it fails the test (cmocka) if anything fails.
 */
#ifndef TEST_LEAVINGS_H
#define TEST_LEAVINGS_H

#include "ledger.h"
#include "mount.h"

enum {
    LEAVINGS_BOXES = 7,
};

/*
 * Two dead mounts' directories, of which one has its lock file still; from `box` on one mailbox for
 * each state. The ledger has the messages: those that had been delivered as unsent.
 */
void leavings_make(struct ledger *ledger, struct mount *mount, int box);

#endif
