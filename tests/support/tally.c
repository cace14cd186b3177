#include "tally.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "envelope.h"

enum {
    HEAD_BYTES = 36, /* three numbers, and a colon */
};

struct tally *tally_new(unsigned senders_count, unsigned each_most)
{
    size_t map_bytes =
        sizeof(struct tally) + sizeof(struct tally_entry) * (size_t)senders_count * each_most;
    struct tally *tally;

    if (senders_count > TALLY_SENDERS_MOST)
        abort(); /* the test asks for more than there is */
    tally = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (tally == MAP_FAILED)
        return NULL;
    tally->senders_count = senders_count;
    tally->each_most = each_most;
    tally->map_bytes = map_bytes;
    return tally;
}

void tally_free(struct tally *tally)
{
    munmap(tally, tally->map_bytes);
}

static size_t index_of(const struct tally *tally, struct tally_id id)
{
    return (size_t)id.sender * tally->each_most + id.which;
}

void tally_set(struct tally *tally, struct tally_id id, enum tally_fate fate)
{
    atomic_store(&tally->entries[index_of(tally, id)].fate, (unsigned char)fate);
    if (fate == TALLY_SENT)
        atomic_fetch_add(&tally->sent, 1);
}

size_t tally_payload(struct tally_id id, size_t payload_bytes, uint8_t *to)
{
    size_t length;

    if (payload_bytes < TALLY_PAYLOAD_LEAST_BYTES)
        payload_bytes = TALLY_PAYLOAD_LEAST_BYTES;
    if (payload_bytes > TALLY_PAYLOAD_MOST_BYTES)
        payload_bytes = TALLY_PAYLOAD_MOST_BYTES;
    length =
        (size_t)snprintf((char *)to, HEAD_BYTES, "%u %u %zu:", id.sender, id.which, payload_bytes);
    for (size_t i = length; i < payload_bytes; i++)
        to[i] = (uint8_t)('a' + (i / 16 + (size_t)id.which * 7 + id.sender) % 26);
    to[payload_bytes - 1] = '\n';
    return payload_bytes;
}

bool tally_identify(const struct tally *tally, const uint8_t *bytes, size_t size_bytes,
                    struct tally_id *id, size_t *payload_bytes)
{
    static uint8_t expected[TALLY_PAYLOAD_MOST_BYTES];
    char head[HEAD_BYTES] = "";
    size_t told = 0;

    memcpy(head, bytes, size_bytes < sizeof(head) ? size_bytes : sizeof(head) - 1);
    if (sscanf(head, "%u %u %zu:", &id->sender, &id->which, &told) != 3 || told > size_bytes ||
        id->sender >= tally->senders_count || id->which >= tally->each_most)
        return false;
    *payload_bytes = tally_payload(*id, told, expected);
    return *payload_bytes == told && memcmp(expected, bytes, told) == 0;
}

void tally_open(struct tally_reader *reader)
{
    memset(reader->next, 0, sizeof(reader->next));
}

void tally_answer(struct tally_reader *reader)
{
    reader->hand_count = 0;
}

void tally_see(struct tally *tally, struct tally_reader *reader, const uint8_t *payload,
               size_t payload_bytes)
{
    struct tally_entry *entry;
    struct tally_id id;
    unsigned seen;
    size_t told;

    if (!tally_identify(tally, payload, payload_bytes, &id, &told) || told != payload_bytes) {
        atomic_fetch_add(&tally->strange, 1);
        return;
    }
    if (reader->ordered && id.which < reader->next[id.sender])
        atomic_fetch_add(&tally->disorder, 1);
    reader->next[id.sender] = id.which + 1;
    if (reader->hand_count == TALLY_HAND_MOST)
        abort(); /* the test reads more at once than there is room for */
    reader->hand[reader->hand_count++] = id;
    entry = &tally->entries[index_of(tally, id)];
    seen = atomic_load(&entry->seen);
    while (seen < UCHAR_MAX) {
        unsigned char expected = (unsigned char)seen;

        if (atomic_compare_exchange_weak(&entry->seen, &expected, (unsigned char)(seen + 1)))
            break;
        seen = expected;
    }
    atomic_fetch_add(seen == 0 ? &tally->received : &tally->twice, 1);
}

void tally_see_envelopes(struct tally *tally, struct tally_reader *reader, const char *bytes,
                         size_t size_bytes)
{
    struct behind_message message;
    ssize_t took;

    while ((took = envelope_parse(bytes, size_bytes, &message)) > 0) {
        tally_see(tally, reader, message.payload, message.payload_bytes);
        bytes += took;
        size_bytes -= (size_t)took;
    }
    if (took < 0)
        atomic_fetch_add(&tally->strange, 1);
}

void tally_killed(struct tally *tally, struct tally_reader *reader)
{
    for (size_t i = 0; i < reader->hand_count; i++)
        atomic_fetch_add(&tally->entries[index_of(tally, reader->hand[i])].repeats, 1);
    reader->hand_count = 0;
}

static void add_entry(struct tally_account *account, const struct tally_entry *entry)
{
    unsigned fate = atomic_load(&entry->fate);
    unsigned seen = atomic_load(&entry->seen);

    account->sent += fate == TALLY_SENT;
    account->unanswered += fate == TALLY_TRIED;
    account->withdrawn += fate == TALLY_WITHDRAWN;
    account->lost += fate == TALLY_SENT && seen == 0;
    account->twice += seen > 1;
    account->doubled += seen > 1U + atomic_load(&entry->repeats);
    account->forged += seen > 0 && (fate == TALLY_UNTRIED || fate == TALLY_WITHDRAWN);
}

struct tally_account tally_account(const struct tally *tally, const unsigned from[],
                                   const unsigned to[])
{
    struct tally_account account = {0};

    for (unsigned sender = 0; sender < tally->senders_count; sender++) {
        unsigned which = from != NULL ? from[sender] : 0;
        unsigned end = to != NULL ? to[sender] : tally->each_most;

        for (; which < end; which++)
            add_entry(&account, &tally->entries[index_of(tally, (struct tally_id){sender, which})]);
    }
    return account;
}
