/*
 * log - one line an event, to stderr until the daemon is in the background, then to syslog.
 *
 * May be called from any thread. Never fails: what cannot be logged is lost.
 */
#ifndef GPROCFS_LOG_H
#define GPROCFS_LOG_H

#include <stdbool.h>
#include <sys/types.h>

/* From now on to syslog. Call once, before there are threads. */
void log_to_syslog(void);

/* About the daemon as a whole. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* About mailbox `pid`: "mailbox 4711: cannot send: No space left on device". `error` is a negative
 * errno. */
void log_mailbox(pid_t pid, const char *what, int error);

/* Something worth telling that is no error. */
void log_mailbox_note(pid_t pid, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
