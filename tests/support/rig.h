/*
 * rig - daemon after daemon on one test's directories, each traced, with the account of what was
 * sent and received; and at the end a fresh one, from which everything must come that is owed.
 *
 * Functions that say what is wrong return NULL where nothing is. rig_open() and rig_begin() fail
 * the test (cmocka); only to be called in the test's own thread and process, but
 * rig_all_is_closed().
 */
#ifndef TEST_RIG_H
#define TEST_RIG_H

#include <stdbool.h>
#include <sys/types.h>

#include "ledger.h"
#include "mount.h"
#include "tracer.h"

struct rig {
    struct mount *mount;
    struct ledger *ledger; /* owned */
    struct tracer tracer;
    pid_t daemon; /* of the last life: for its client to signal, while it lives */
};

/* For main(): where root runs the test, what it mounts ends with it, however it ends. */
void rig_isolate(void);

/* The test's mount without a daemon; does not return where nothing can be traced. */
void rig_open(struct rig *rig, void **state);
void rig_close(struct rig *rig);

/* No mailbox, no lock, nothing in flight, nothing in the ledger. */
void rig_begin(struct rig *rig);

/* Starts a traced daemon (see tracer_start()); the next thing to do is tracer_next(). */
const char *rig_start(struct rig *rig, bool from_start);

/* Kills it where it still lives, waits for the client and takes the dead mount away. */
const char *rig_bury(struct rig *rig);

/* Whether the daemon has heard of all closes (it does after close(2) has returned); or is dead. */
bool rig_all_is_closed(const struct mount *mount);

/* Receives all that waits in the boxes of the ledger, from the daemon that lives. */
const char *rig_receive_all(struct rig *rig);

/* Whether there is nothing in .gprocfs but the directory of the one mount that lives. */
bool rig_store_is_clean(struct mount *mount);

/* Receives everything from a fresh daemon, and judges. `leave`, `totals`: see ledger_judge(). */
const char *rig_look(struct rig *rig, unsigned leave, struct ledger_totals *totals);

#endif
