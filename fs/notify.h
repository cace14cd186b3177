/*
 * notify - tells the service manager that started us how we are, as sd_notify(3) does, without its
 * library.
 *
 * The manager names a datagram socket in the environment variable NOTIFY_SOCKET: an absolute path,
 * or `@` and a name in the abstract namespace. Other kinds of address are refused.
 */
#ifndef GPROCFS_NOTIFY_H
#define GPROCFS_NOTIFY_H

/*
 * Sends `state`, as "READY=1", in one datagram. Waits at most half a second for a manager that does
 * not read. 0: it was sent, or nobody has asked; or a negative errno, which has been logged: -EINVAL
 * for an address that is none, -ENAMETOOLONG, -EAGAIN: not read in time; what socket(2), connect(2)
 * and send(2) say. From any thread, but getenv() is not to be disturbed by setenv().
 */
int notify_send(const char *state);

#endif
