/*
 * Many processes on one mailbox, from both sides of the mount: each message arrives exactly once,
 * and each sender's in order where one receiver takes them all.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "gproc.h"
#include "mount.h"
#include "through.h"

enum {
    BOX = 4711,
    SENDERS = 8,
    RECEIVERS_MAX = 4,
    MESSAGES = 200000,
    PAYLOAD_MAX_BYTES = 256,
    READ_BYTES = 1 << 16,
    EXCHANGE_MS = 90000, /* the usual is a few seconds */
    WAIT_MS = 30000,     /* for a lock, or for the next message */
};

enum way {
    WAY_REPLACE, /* through the mount, an open and a close for each message */
    WAY_APPEND,  /* through the mount, one descriptor */
    WAY_LIBRARY, /* by libgproc */
    WAY_BEHIND,  /* at the file, under its lock, by code of the tests */
};

/* What is wrong, for the test to tell; the first one counts. */
enum trouble {
    TROUBLE_NONE,
    TROUBLE_SEND,     /* the call failed: errno */
    TROUBLE_RECEIVE,  /* likewise */
    TROUBLE_FOREIGN,  /* a message that nobody sent */
    TROUBLE_TWICE,    /* received a second time: its number */
    TROUBLE_DISORDER, /* before one that was sent earlier: its number */
    TROUBLE_SENDER,   /* under another process's id: that */
};

/* In memory that all processes share. */
struct exchange {
    atomic_size_t received;
    atomic_int trouble;
    atomic_int trouble_detail;
    atomic_int senders[SENDERS]; /* process ids; 0: not known yet */
    bool one_receiver;
    size_t each; /* messages of a sender */
    size_t total;
    atomic_uchar seen[]; /* of sender s, number n: at s * each + n */
};

static void tell(struct exchange *exchange, enum trouble trouble, int detail)
{
    int none = TROUBLE_NONE;

    if (atomic_compare_exchange_strong(&exchange->trouble, &none, (int)trouble))
        atomic_store(&exchange->trouble_detail, detail);
}

static bool goes_on(struct exchange *exchange)
{
    return atomic_load(&exchange->trouble) == TROUBLE_NONE &&
           atomic_load(&exchange->received) < exchange->total;
}

/* "s<sender> <number> " and then letters, as many as come of the number. */
static size_t compose(char payload[PAYLOAD_MAX_BYTES], int sender, size_t number)
{
    int head = snprintf(payload, PAYLOAD_MAX_BYTES, "s%d %zu ", sender, number);
    size_t bytes = (size_t)head + number * 7 % 200;

    memset(payload + head, 'a' + sender, bytes - (size_t)head);
    return bytes;
}

/* --- Senders --------------------------------------------------------------------------------- */

static struct gproc *open_library(const struct mount *mount)
{
    const struct gproc_options places = {mount->mail, mount->locks};
    struct gproc *library = NULL;

    return gproc_open(&places, &library) == 0 ? library : NULL;
}

static int send_one(struct mount *mount, enum way way, int fd, struct gproc *library,
                    const char *payload, size_t bytes)
{
    int error = 0;

    switch (way) {
    case WAY_REPLACE:
        fd = open(through_box(mount, BOX), THROUGH_REPLACE, 0666);
        if (fd < 0)
            return errno;
        error = through_write(fd, payload, bytes);
        if (close(fd) != 0 && error == 0)
            error = errno;
        break;
    case WAY_APPEND:
        error = through_write(fd, payload, bytes);
        break;
    case WAY_LIBRARY:
        error = library != NULL ? -gproc_send(library, BOX, payload, bytes, WAIT_MS) : ENOMEM;
        break;
    case WAY_BEHIND:
        error = -behind_send(mount, BOX, getpid(), payload, bytes);
        break;
    }
    return error;
}

static int sender_main(struct mount *mount, struct exchange *exchange, int sender, enum way way)
{
    struct gproc *library = way == WAY_LIBRARY ? open_library(mount) : NULL;
    char payload[PAYLOAD_MAX_BYTES];
    int fd = -1;

    atomic_store(&exchange->senders[sender], getpid());
    if (way == WAY_APPEND)
        fd = open(through_box(mount, BOX), THROUGH_APPEND, 0666);
    for (size_t number = 0; number < exchange->each; number++) {
        size_t bytes = compose(payload, sender, number);
        int error = send_one(mount, way, fd, library, payload, bytes);

        if (error != 0)
            tell(exchange, TROUBLE_SEND, error);
        if (atomic_load(&exchange->trouble) != TROUBLE_NONE)
            return 1;
    }
    gproc_close(library);
    return 0;
}

/* --- Receivers ------------------------------------------------------------------------------- */

/* Decides nothing but how long the test takes. */
static void leave_the_processor_to_senders(void)
{
    static const struct timespec while_some_messages_come = {.tv_nsec = 1000000};

    nanosleep(&while_some_messages_come, NULL);
}

/* `sender_id` is 0 where the way of receiving does not tell it. */
static void check(struct exchange *exchange, const char *payload, size_t bytes, int32_t sender_id)
{
    char expected[PAYLOAD_MAX_BYTES];
    char head[64];
    size_t number;
    int sender;
    atomic_uchar *seen;

    snprintf(head, sizeof(head), "%.*s", (int)(bytes < 63 ? bytes : 63), payload);
    if (sscanf(head, "s%d %zu ", &sender, &number) != 2 || sender < 0 || sender >= SENDERS ||
        number >= exchange->each || compose(expected, sender, number) != bytes ||
        memcmp(expected, payload, bytes) != 0) {
        tell(exchange, TROUBLE_FOREIGN, (int)bytes);
        return;
    }
    if (sender_id != 0 && sender_id != atomic_load(&exchange->senders[sender]))
        tell(exchange, TROUBLE_SENDER, sender_id);
    seen = &exchange->seen[(size_t)sender * exchange->each + number];
    if (atomic_exchange(seen, 1) != 0)
        tell(exchange, TROUBLE_TWICE, (int)number);
    if (exchange->one_receiver && number > 0 && atomic_load(seen - 1) == 0)
        tell(exchange, TROUBLE_DISORDER, (int)number);
    atomic_fetch_add(&exchange->received, 1);
}

static void receive_through(struct mount *mount, struct exchange *exchange)
{
    static char buffer[READ_BYTES];
    int fd = open(through_box(mount, BOX), O_RDONLY | O_CREAT | O_CLOEXEC, 0666);

    if (fd < 0)
        tell(exchange, TROUBLE_RECEIVE, errno);
    while (goes_on(exchange)) {
        ssize_t got = read(fd, buffer, sizeof(buffer));

        if (got < 0)
            tell(exchange, TROUBLE_RECEIVE, errno);
        else if (got == 0)
            leave_the_processor_to_senders();
        else
            check(exchange, buffer, (size_t)got, 0);
    }
    close(fd);
}

static void receive_behind(struct mount *mount, struct exchange *exchange)
{
    while (goes_on(exchange)) {
        struct behind_message message;
        uint8_t *bytes;
        ssize_t left = behind_drain(mount, BOX, &bytes);
        const uint8_t *at = bytes;
        ssize_t frame_bytes;

        if (left == -ENOENT)
            left = 0;
        if (left < 0)
            tell(exchange, TROUBLE_RECEIVE, (int)-left);
        if (left == 0)
            leave_the_processor_to_senders();
        while (left > 0 && (frame_bytes = behind_parse(at, (size_t)left, &message)) > 0) {
            check(exchange, (const char *)message.payload, message.payload_bytes, message.sender);
            at += frame_bytes;
            left -= frame_bytes;
        }
        if (left > 0)
            tell(exchange, TROUBLE_FOREIGN, (int)left);
        free(bytes);
    }
}

static void receive_by_library(struct mount *mount, struct exchange *exchange)
{
    enum { LOOK_AGAIN_MS = 100 }; /* whether the others have received the rest */
    struct gproc *library = open_library(mount);
    struct gproc_owner *owner = NULL;
    int result = library == NULL
                     ? -ENOMEM
                     : gproc_owner_open(library, BOX, GPROC_OWNER_KEEP, WAIT_MS, &owner);

    if (result != 0)
        tell(exchange, TROUBLE_RECEIVE, -result);
    while (goes_on(exchange)) {
        struct gproc_mail mail;

        result = gproc_owner_receive(owner, &mail, LOOK_AGAIN_MS);
        if (result == 0)
            check(exchange, mail.payload, mail.payload_bytes, mail.sender);
        else if (result != -ETIMEDOUT)
            tell(exchange, TROUBLE_RECEIVE, -result);
    }
    if (owner != NULL)
        (void)gproc_owner_close(owner, WAIT_MS); /* what it should have put back would be missing */
    gproc_close(library);
}

/* --- The exchange ---------------------------------------------------------------------------- */

static struct exchange *exchange_new(bool one_receiver, size_t *size_bytes)
{
    size_t each = MESSAGES / SENDERS / mount_scale();
    struct exchange *exchange;

    *size_bytes = sizeof(*exchange) + each * SENDERS;
    exchange = mmap(NULL, *size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (exchange == MAP_FAILED)
        return NULL;
    exchange->one_receiver = one_receiver;
    exchange->each = each;
    exchange->total = each * SENDERS;
    return exchange;
}

static const char *trouble_text(int trouble)
{
    static const char *const texts[] = {
        [TROUBLE_NONE] = "nothing wrong",
        [TROUBLE_SEND] = "could not send: errno",
        [TROUBLE_RECEIVE] = "could not receive: errno",
        [TROUBLE_FOREIGN] = "received what nobody sent: bytes",
        [TROUBLE_TWICE] = "received twice: number",
        [TROUBLE_DISORDER] = "received before an earlier one: number",
        [TROUBLE_SENDER] = "received under another's id:",
    };

    return texts[trouble];
}

static pid_t start_receiver(struct mount *mount, struct exchange *exchange, enum way way)
{
    pid_t pid = process_fork(0);

    if (pid != 0)
        return pid;
    if (way == WAY_LIBRARY)
        receive_by_library(mount, exchange);
    else if (way == WAY_BEHIND)
        receive_behind(mount, exchange);
    else
        receive_through(mount, exchange);
    _exit(atomic_load(&exchange->trouble) == TROUBLE_NONE ? 0 : 1);
}

static void run_exchange(struct mount *mount, int receivers, const enum way *receiving)
{
    static const enum way ways[SENDERS] = {WAY_REPLACE, WAY_LIBRARY, WAY_APPEND, WAY_BEHIND,
                                           WAY_REPLACE, WAY_LIBRARY, WAY_APPEND, WAY_BEHIND};
    int64_t deadline_ms = process_clock_ms() + EXCHANGE_MS;
    size_t size_bytes;
    struct exchange *exchange = exchange_new(receivers == 1, &size_bytes);
    pid_t children[SENDERS + RECEIVERS_MAX];
    size_t missing = 0;
    size_t received;
    int trouble;
    int detail;
    int failed = 0;

    assert_non_null(exchange);
    for (int i = 0; i < receivers; i++)
        children[i] = start_receiver(mount, exchange, receiving[i]);
    for (int i = 0; i < SENDERS; i++) {
        children[receivers + i] = process_fork(0);
        if (children[receivers + i] == 0)
            _exit(sender_main(mount, exchange, i, ways[i]));
    }
    /* The senders end first; a receiver ends with the last message. */
    for (int i = receivers + SENDERS - 1; i >= 0; i--) {
        int64_t left_ms = deadline_ms - process_clock_ms();

        if (children[i] <= 0 || process_wait(children[i], left_ms > 0 ? (int)left_ms : 0) != 0)
            failed++;
    }
    for (size_t i = 0; i < exchange->total; i++)
        missing += atomic_load(&exchange->seen[i]) == 0;
    received = atomic_load(&exchange->received);
    trouble = atomic_load(&exchange->trouble);
    detail = atomic_load(&exchange->trouble_detail);
    if (failed != 0 || trouble != TROUBLE_NONE || missing != 0 || received != exchange->total)
        fail_msg("%zu of %zu received, %zu missing, %d processes failed: %s %d", received,
                 exchange->total, missing, failed, trouble_text(trouble), detail);
    munmap(exchange, size_bytes);
    behind_expect_texts(mount, BOX, NULL);
    through_expect_texts(mount, BOX, NULL);
}

static void each_message_arrives_exactly_once(void **state)
{
    struct mount *mount = mount_of(state);

    static const enum way receiving[] = {WAY_APPEND, WAY_APPEND, WAY_LIBRARY, WAY_BEHIND};

    run_exchange(mount, 4, receiving);
}

static void one_receiver_through_the_mount_gets_each_senders_in_order(void **state)
{
    struct mount *mount = mount_of(state);

    static const enum way receiving[] = {WAY_APPEND};

    run_exchange(mount, 1, receiving);
}

static void one_receiver_behind_the_mount_gets_each_senders_in_order(void **state)
{
    struct mount *mount = mount_of(state);

    static const enum way receiving[] = {WAY_BEHIND};

    run_exchange(mount, 1, receiving);
}

static void one_receiver_by_the_library_gets_each_senders_in_order(void **state)
{
    struct mount *mount = mount_of(state);
    static const enum way receiving[] = {WAY_LIBRARY};

    run_exchange(mount, 1, receiving);
}

int main(void)
{
    static const struct mount_options options = {.seconds = 100};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(each_message_arrives_exactly_once, &options),
        MOUNT_TEST_WITH(one_receiver_through_the_mount_gets_each_senders_in_order, &options),
        MOUNT_TEST_WITH(one_receiver_behind_the_mount_gets_each_senders_in_order, &options),
        MOUNT_TEST_WITH(one_receiver_by_the_library_gets_each_senders_in_order, &options),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("exchange", tests, NULL, NULL) == 0 ? 0 : 1;
}
