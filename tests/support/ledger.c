#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "behind.h"
#include "envelope.h"

enum {
    READ_BYTES = 1 << 20,
    NUMBER_BYTES = 4,
};

struct ledger *ledger_new(void)
{
    struct ledger *ledger =
        mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return ledger == MAP_FAILED ? NULL : ledger;
}

void ledger_free(struct ledger *ledger)
{
    munmap(ledger, sizeof(*ledger));
}

void ledger_clear(struct ledger *ledger)
{
    memset((void *)ledger, 0, sizeof(*ledger));
}

int ledger_add(struct ledger *ledger, int box, size_t payload_bytes)
{
    struct ledger_entry *entry = &ledger->entries[ledger->count];

    if (ledger->count == LEDGER_MESSAGES_MOST || payload_bytes > LEDGER_PAYLOAD_MOST_BYTES ||
        payload_bytes < LEDGER_PAYLOAD_LEAST_BYTES)
        abort(); /* the test asks for more than there is */
    entry->box = box;
    entry->payload_bytes = payload_bytes;
    return (int)ledger->count++;
}

const uint8_t *ledger_payload(const struct ledger *ledger, int which)
{
    static uint8_t payload[LEDGER_PAYLOAD_MOST_BYTES];
    size_t payload_bytes = ledger->entries[which].payload_bytes;
    char number[NUMBER_BYTES + 1];

    snprintf(number, sizeof(number), "%03d:", which);
    memcpy(payload, number, NUMBER_BYTES);
    for (size_t i = NUMBER_BYTES; i < payload_bytes; i++)
        payload[i] = (uint8_t)('a' + (i / 16 + (size_t)which * 7 + payload_bytes) % 26);
    payload[payload_bytes - 1] = '\n';
    return payload;
}

int ledger_send_behind(struct ledger *ledger, struct mount *mount, int box, size_t payload_bytes)
{
    int which = ledger_add(ledger, box, payload_bytes);
    int result = behind_send(mount, box, which + 1, ledger_payload(ledger, which), payload_bytes);

    ledger->entries[which].state = result == 0 ? LEDGER_SENT : LEDGER_TRIED;
    return result < 0 ? result : which;
}

int ledger_identify(const struct ledger *ledger, const uint8_t *payload, size_t payload_bytes)
{
    int which;

    if (payload_bytes < LEDGER_PAYLOAD_LEAST_BYTES || payload[0] < '0' || payload[0] > '9')
        return -1;
    which = atoi((const char *)payload); /* a colon ends it */
    if (which < 0 || (unsigned)which >= ledger->count ||
        ledger->entries[which].payload_bytes != payload_bytes)
        return -1;
    return memcmp(ledger_payload(ledger, which), payload, payload_bytes) == 0 ? which : -1;
}

static void note_error(struct ledger *ledger, struct ledger_entry *entry)
{
    entry->error = errno;
    ledger->errors++;
}

void ledger_send(struct ledger *ledger, struct mount *mount, int box, size_t payload_bytes,
                 int flags, unsigned pieces)
{
    int which = ledger_add(ledger, box, payload_bytes);
    struct ledger_entry *entry = &ledger->entries[which];
    const uint8_t *payload = ledger_payload(ledger, which);
    size_t piece_bytes = (payload_bytes + pieces - 1) / pieces;
    char path[PATH_MAX];
    bool failed = false;
    size_t done = 0;
    int fd;

    snprintf(path, sizeof(path), "%s/%d", mount->mnt, box);
    fd = open(path, flags, 0666);
    if (fd < 0) {
        note_error(ledger, entry);
        return;
    }
    entry->state = LEDGER_TRIED;
    while (!failed && done < payload_bytes) {
        size_t left = payload_bytes - done;
        ssize_t wrote = write(fd, payload + done, left < piece_bytes ? left : piece_bytes);

        failed = wrote <= 0;
        if (failed)
            note_error(ledger, entry);
        else
            done += (size_t)wrote;
    }
    if (close(fd) != 0) {
        note_error(ledger, entry);
        failed = true;
    }
    entry->state = failed ? LEDGER_FAILED : LEDGER_SENT;
}

/* A later one of this box has come out already. */
static bool is_behind(const struct ledger *ledger, int which, bool afterwards)
{
    for (unsigned i = (unsigned)which + 1; i < ledger->count; i++) {
        const struct ledger_entry *later = &ledger->entries[i];

        if (later->box == ledger->entries[which].box &&
            (afterwards ? later->after : later->before) > 0)
            return true;
    }
    return false;
}

void ledger_see(struct ledger *ledger, int box, const uint8_t *payload, size_t payload_bytes,
                bool afterwards)
{
    int which = ledger_identify(ledger, payload, payload_bytes);

    if (which < 0 || ledger->entries[which].box != box) {
        ledger->strange++;
        return;
    }
    /* One that is seen again comes in its old order with those of its answer. */
    if (ledger->entries[which].before + ledger->entries[which].after == 0 &&
        is_behind(ledger, which, afterwards))
        ledger->disorder++;
    if (afterwards) {
        ledger->entries[which].after++;
    } else {
        ledger->entries[which].before++;
        ledger->entries[which].answer = ledger->answers;
    }
}

/* What an answer of `.envelope` holds: whole messages. */
static void see_envelopes(struct ledger *ledger, int box, const char *bytes, size_t size_bytes,
                          bool afterwards)
{
    struct behind_message message;
    ssize_t took;

    while ((took = envelope_parse(bytes, size_bytes, &message)) > 0) {
        ledger_see(ledger, box, message.payload, message.payload_bytes, afterwards);
        bytes += took;
        size_bytes -= (size_t)took;
    }
    if (took < 0)
        ledger->strange++;
}

int ledger_receive(struct ledger *ledger, struct mount *mount, const char *view, int box, int most,
                   bool afterwards)
{
    static char buffer[READ_BYTES + 1];
    bool envelopes = strcmp(view, ".envelope/") == 0;
    char path[PATH_MAX];
    ssize_t got = 0;
    int answers;
    int fd;

    snprintf(path, sizeof(path), "%s/%s%d", mount->mnt, view, box);
    fd = open(path, O_RDONLY | O_CLOEXEC | (view[0] != '\0' ? O_NONBLOCK : 0));
    if (fd < 0)
        return -errno;
    for (answers = 0; answers < most; answers++) {
        got = read(fd, buffer, READ_BYTES);
        if (got <= 0)
            break;
        if (!afterwards)
            ledger->answers++;
        buffer[got] = '\0';
        if (envelopes)
            see_envelopes(ledger, box, buffer, (size_t)got, afterwards);
        else
            ledger_see(ledger, box, (const uint8_t *)buffer, (size_t)got, afterwards);
    }
    if (got < 0 && errno != EAGAIN)
        answers = -errno;
    (void)close(fd); /* nothing was written */
    return answers;
}

void ledger_killed(struct ledger *ledger)
{
    for (unsigned i = 0; i < ledger->count; i++) {
        struct ledger_entry *entry = &ledger->entries[i];

        if (entry->before > 0 && entry->answer == ledger->answers)
            entry->repeats++;
    }
    ledger->answers++; /* none that will come is that one */
}

static const char *judge_entry(const struct ledger *ledger, const struct ledger_entry *entry,
                               unsigned leave, struct ledger_totals *totals)
{
    unsigned seen = entry->before + entry->after;

    if (seen > 0 && entry->state == LEDGER_UNSENT)
        return "one is seen that was never sent, or had been delivered";
    if (seen > 0 && entry->state == LEDGER_FAILED && (leave & LEDGER_FAILED_SEEN) == 0)
        return "one was sent although its sender got an error";
    if (seen > 1) {
        totals->twice++;
        if (seen > 1 + entry->repeats + ((leave & LEDGER_ANY_TWICE) != 0 ? 1 : 0))
            return "one is seen again";
    }
    if (entry->after > 0 && ledger->emptied)
        return "one is seen that had been thrown away";
    if (seen == 0 && entry->state == LEDGER_SENT && !ledger->cleared) {
        totals->lost++;
        return "one is lost";
    }
    return NULL;
}

/* One comes out only afterwards, although a later one had before, or was left by an rm. */
static const char *judge_order(const struct ledger *ledger, unsigned which)
{
    const struct ledger_entry *entry = &ledger->entries[which];

    for (unsigned i = which + 1; i < ledger->count; i++) {
        const struct ledger_entry *later = &ledger->entries[i];

        if (later->box != entry->box)
            continue;
        if (entry->before == 0 && entry->after > 0 && later->before > 0)
            return "one comes after a later one";
        if (ledger->cleared && entry->before == 0 && entry->after > 0 && later->after == 0 &&
            later->state == LEDGER_SENT && later->before == 0)
            return "one is thrown away, and an earlier one not";
    }
    return NULL;
}

const char *ledger_judge(const struct ledger *ledger, unsigned leave, struct ledger_totals *totals)
{
    const char *wrong = NULL;

    if (ledger->strange > 0)
        wrong = "something came out that is no message";
    if (ledger->disorder > 0)
        wrong = "they are out of order";
    for (unsigned i = 0; i < ledger->count; i++) {
        const char *of_entry = judge_entry(ledger, &ledger->entries[i], leave, totals);

        if (of_entry == NULL)
            of_entry = judge_order(ledger, i);
        if (wrong == NULL)
            wrong = of_entry;
    }
    return wrong;
}
