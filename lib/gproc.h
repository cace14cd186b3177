/*
 * gproc - send messages to processes by their id, and receive one's own.
 *
 * Every process may have a mailbox: a file named after its process id in the mailbox directory. Who
 * sends appends a framed message to it, who receives empties it, both under an advisory lock. The
 * files are those of the Go package `gproc` of the gf framework (as of May 2018): programs of
 * either kind, and mounts of gprocfs, share every mailbox at any moment.
 *
 *     struct gproc *gproc;
 *     struct gproc_owner *owner;
 *     struct gproc_mail mail;
 *
 *     gproc_open(NULL, &gproc);
 *     gproc_send(gproc, 4711, "reload", 6, 1000);
 *
 *     gproc_owner_open(gproc, getpid(), 0, 1000, &owner);
 *     while (gproc_owner_receive(owner, &mail, GPROC_FOREVER) == 0)
 *         handle(mail.sender, mail.payload, mail.payload_bytes);
 *     gproc_owner_close(owner, 1000);
 *     gproc_close(gproc);
 *
 * WHAT IT DOES NOT DO
 *   - Nobody vouches for a sender: the id in a message is what the sender wrote there.
 *   - A message that is lost with the machine is lost: nothing is synced to disk.
 *   - What a gprocfs mount has taken from a mailbox and not delivered yet is not seen from here.
 *   - Waiting rests on inotify(7): what another machine writes to a network file system wakes
 * nobody.
 *
 * ERRORS
 *   Functions that can fail return 0 (or what is said) or a negative errno: -ENOENT, not errno.
 * Those listed at a function have that meaning there; besides, any function that touches files may
 * return what open(2), mkdir(2), read(2) and write(2) say. Nothing is ever printed, no signal is
 * blocked or handled, the program is never ended. A process that has not ignored SIGXFSZ is killed
 * by its own RLIMIT_FSIZE here as with any write.
 *
 * LOCKS
 *   Under `wait_ms` a function waits so long, in milliseconds, for the lock of a mailbox that
 * somebody else holds: GPROC_NOW not at all, GPROC_FOREVER without end. The protocol holds locks
 * for as long as it takes to write one message or to read a mailbox, so one that stays held is held
 * by a stopped process. Where a lock cannot be had nothing has been done:
 *   -EAGAIN     it is held, and wait_ms was GPROC_NOW
 *   -ETIMEDOUT  it was held all that time
 *   -EINTR      a signal arrived while waiting without end
 *   -EBUSY      somebody keeps replacing the files
 *   -EACCES, -ELOOP, -EINVAL  the lock file is somebody else's, or is no regular file
 * A wait with a limit looks again every few milliseconds, since the kernel has no lock with a limit.
 *
 * THREADS AND FORKS
 *   There is no global state. A `struct gproc` may be used by any number of threads at once, and on
 *   both sides of a fork; only gproc_close() must be alone. A `struct gproc_owner` is used by one
 * thread at a time, and after a fork by one of the two processes; the other may only exit or exec.
 */
#ifndef GPROC_H
#define GPROC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Waiting times, in milliseconds; any negative one is without end. */
enum {
    GPROC_NOW = 0,
    GPROC_FOREVER = -1 /* no comma: C++98 */
};

/* The longest payload of one message: 2147483635 bytes. */
#define GPROC_PAYLOAD_MAX_BYTES ((size_t)INT32_MAX - 12)

/* Where mailboxes and locks are. Opaque. */
struct gproc;

/* What a process needs to receive. Opaque. */
struct gproc_owner;

/* A message. Who handed it out says how long `payload` is valid; it is never the receiver's to
 * free. */
struct gproc_mail {
    int32_t sender;       /* process id, as the sender wrote it: any number at all */
    const void *payload;  /* not zero-terminated, not aligned; NULL or not when empty */
    size_t payload_bytes; /* 0 is legal */
};

/* Each NULL is a default. All of it may be freed after gproc_open(). */
struct gproc_options {
    /* "$gproc.tempdir/gproc" (the variable has a dot in its name), "$TMPDIR/gproc" or "/tmp/gproc"
     */
    const char *mailbox_directory;
    /* "$TMPDIR/gflock" or "/tmp/gflock"; all who use a mailbox must use the same */
    const char *lock_directory;
};

/* The version of this library, as "0.1.0". Static. */
const char *gproc_version(void);

/*
 * Opens the two directories, creating them, not their parents, where they are missing (mode 0777
 * less the umask); the environment is looked at now and not again. `options` may be NULL. Should a
 * directory be deleted or replaced later, the functions below make or find the new one themselves.
 * Costs two descriptors. 0 and `*gproc`, to be closed by the caller, or with `*gproc` untouched
 *   -ENOMEM
 *   -ENAMETOOLONG  the path of a directory does not fit into PATH_MAX
 *   -ENOTDIR, -ELOOP  its last component is something else, or a symbolic link
 */
int gproc_open(const struct gproc_options *options, struct gproc **gproc);

/* Frees it. NULL is left alone. Its owners must be closed before. */
void gproc_close(struct gproc *gproc);

/*
 * Sends one message to process `to`, whether it exists or not, with this process as its sender; the
 * mailbox is created where it is missing (mode 0666 less the umask). `payload` may be NULL where
 * `payload_bytes` is 0. On success the message is wholly in the mailbox.
 * 0; with the mailbox as it was, byte for byte (but perhaps created),
 *   -EINVAL    `to` is not positive
 *   -EMSGSIZE  more than GPROC_PAYLOAD_MAX_BYTES
 *   -EEXIST    something that is no mailbox (a link, a fifo ...) has its name
 *   -ENOSPC, -EDQUOT, -EFBIG, -EACCES, -EROFS  as write(2) and open(2)
 *   what LOCKS says
 * or, where a part was written and cutting it off failed too (a Go receiver may panic on it,
 * others pass over it),
 *   -EUCLEAN
 */
int gproc_send(struct gproc *gproc, pid_t to, const void *payload, size_t payload_bytes,
               int wait_ms);

/* The same with a sender of the caller's choice, be it a process or not. */
int gproc_send_as(struct gproc *gproc, pid_t to, int32_t sender, const void *payload,
                  size_t payload_bytes, int wait_ms);

/*
 * One to whom many messages are sent. Its mailbox and its lock file stay open from one message to
 * the next, which saves most of what a message costs; each time they are looked at under their paths,
 * so it makes no difference when they are deleted or replaced, but that a deleted mailbox keeps its
 * disk space until the next message or gproc_target_close(). Used by one thread at a time; after a
 * fork both processes may use it.
 */
struct gproc_target;

/*
 * Opens nothing yet; then costs two descriptors. 0 and `*target`, to be closed by the caller and not
 * to outlive `gproc`, or with `*target` untouched
 *   -EINVAL  `to` is not positive
 *   -ENOMEM
 */
int gproc_target_open(struct gproc *gproc, pid_t to, struct gproc_target **target);

/* As gproc_send() and gproc_send_as(), with the same errors. */
int gproc_target_send(struct gproc_target *target, const void *payload, size_t payload_bytes,
                      int wait_ms);
int gproc_target_send_as(struct gproc_target *target, int32_t sender, const void *payload,
                         size_t payload_bytes, int wait_ms);

/* Frees it. NULL is left alone. */
void gproc_target_close(struct gproc_target *target);

/*
 * Shows the messages that wait for `pid`, the oldest first, and takes none. They are copied under
 * the lock and shown after it was released, so `found` may take its time and may use this library.
 * `mail` is valid until it returns. Where it returns other than 0 that ends the showing. Memory:
 * what is waiting, damage not counted. Needs the right to read the mailbox, and the lock.
 * 0; what `found` returned; or
 *   -EINVAL  `pid` is not positive
 *   -ENOENT  it has no mailbox
 *   -ENOMEM
 *   what LOCKS says
 */
int gproc_peek(struct gproc *gproc, pid_t pid, int wait_ms,
               int (*found)(void *context, const struct gproc_mail *mail), void *context);

/* A mailbox. Later versions may have more fields, after these. */
struct gproc_mailbox_info {
    pid_t pid;
    int error;           /* 0, or a negative errno: the content could not be read, counts are 0 */
    uint64_t file_bytes; /* of the file, frames and damage and all */
    uint64_t payload_bytes; /* of the messages that wait */
    uint64_t message_count;
    int64_t modified_s; /* since 1970 */
    int32_t modified_ns;
};

/*
 * Shows the mailboxes there are, in no order, empty ones too; what is no mailbox is passed over.
 * `info` is valid until `found` returns; where it returns other than 0 that ends the showing.
 * `found` may use this library. Takes no locks and never waits: a mailbox that is written or
 * emptied at this moment may be shown as before or after, or with the count of neither. Every
 * mailbox is read once. Memory does not grow with them, but for damaged ones (1 / 16 of the size).
 * 0; what `found` returned; -ENOMEM.
 */
int gproc_list(struct gproc *gproc,
               int (*found)(void *context, const struct gproc_mailbox_info *info), void *context);

/*
 * ---- Receiving
 *
 * An owner receives what is sent to a process, usually the one it is in. As the Go package does, it
 * takes the whole mailbox at once, and hands out message by message from memory. So its memory is
 * what was waiting when it looked last (damage is left out), given back when the last of it was
 * received; a mailbox that does not fit stays where it is, with -ENOMEM. A process that is killed
 * takes what it had not received with it; gproc_owner_close() puts it back.
 *
 * Two owners of one mailbox are possible, also in two processes: each message goes to one of them.
 */

enum gproc_owner_flags {
    GPROC_OWNER_KEEP = 1 << 0 /* keeps what is waiting, however old it is */
};

/*
 * Opens the mailbox of `pid`, creating it where it is missing. What is in it stays if the file was
 * modified less than ten seconds ago; else it was meant for an earlier process of that number, and
 * is thrown away. `flags` is 0 or GPROC_OWNER_KEEP. Costs a descriptor, and as many inotify watches
 * as there are kinds of things to see: two, at times three.
 * 0 and `*owner`, to be closed by the caller and not to outlive `gproc`, or with `*owner` untouched
 *   -EINVAL  `pid` is not positive, or an unknown flag
 *   -ENOMEM, -EMFILE
 *   -ENOSPC  also: this user has too many inotify watches (fs.inotify.max_user_watches)
 *   -EEXIST  something that is no mailbox has its name
 *   -EACCES  it may not be read and written
 *   what LOCKS says
 */
int gproc_owner_open(struct gproc *gproc, pid_t pid, int flags, int wait_ms,
                     struct gproc_owner **owner);

/*
 * Receives the next message, waiting for one for `timeout_ms` milliseconds. Asleep it is woken by
 * whoever writes to the mailbox, with or without this library, and by nothing else; the mailbox or
 * its directory may vanish and come back meanwhile.
 * 0 and `*mail`, valid until the next call with this owner but gproc_owner_fd(). With nothing
 * received and nothing lost:
 *   -EAGAIN     nothing is there, and timeout_ms was GPROC_NOW; or the lock is held at the moment
 *   -ETIMEDOUT  nothing came in all that time, or its lock was held
 *   -EINTR      a signal arrived while waiting
 *   -ENOMEM     the mailbox does not fit into memory
 *   -ENOENT     the directory in which the mailbox directory is to be is gone
 *   -EACCES ... the mailbox or its lock can no longer be opened
 */
int gproc_owner_receive(struct gproc_owner *owner, struct gproc_mail *mail, int timeout_ms);

/*
 * A descriptor for poll, select and epoll: readable when there is something to receive. Wait for it
 * to be readable, then receive with GPROC_NOW, once or until -EAGAIN as you like: it stays readable
 * while there is more, and may be readable when there is nothing after all. After an error, and
 * where the lock is held, it becomes readable again after a while (1 to 100 ms). Do nothing else
 * with it; it is the owner's, and always the same one. Costs two descriptors at the first call. It,
 * or -ENOMEM, -EMFILE.
 */
int gproc_owner_fd(struct gproc_owner *owner);

/*
 * Puts back what was taken from the mailbox and not received, in front of what came since.
 * 0; with all of it still to be received here,
 *   -ENOSPC, -EDQUOT, -EFBIG  no room for it; the mailbox is as it was
 *   what LOCKS says, and what gproc_send() says
 * or, where writing failed in the midst of bringing it to the front,
 *   -EUCLEAN  messages of the mailbox may be damaged, doubled or out of order
 * Killed in the midst of it, a process leaves no more harm than the last.
 */
int gproc_owner_put_back(struct gproc_owner *owner, int wait_ms);

/*
 * Puts back what was not received, and frees the owner, whatever comes of that; the mailbox stays.
 * NULL is left alone. 0, or as gproc_owner_put_back(): then those messages are lost.
 */
int gproc_owner_close(struct gproc_owner *owner, int wait_ms);

#ifdef __cplusplus
}
#endif

#endif
