/*
 * queue - what waits in one mailbox, as the model has it: the bytes of the file, and in front of
 * them the messages that the mount has taken and not delivered.
 *
 * Every byte that was ever appended has a position, and so has every message: that of its first
 * byte. Of two messages the one with the smaller position is delivered first. Pure. Running out of
 * memory ends the program.
 */
#ifndef MODEL_QUEUE_H
#define MODEL_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QUEUE_HEADER_BYTES = 12,
};

struct queue_message {
    uint64_t position;
    int32_t sender;
    uint8_t *payload; /* owned */
    size_t payload_bytes;
    bool held; /* in flight, in somebody's hand */
};

struct queue {
    uint8_t *file; /* owned */
    size_t file_bytes;
    uint64_t file_position;         /* of its first byte */
    struct queue_message *inflight; /* owned, in order */
    size_t inflight_count;
};

void queue_init(struct queue *queue);
void queue_release(struct queue *queue);

void queue_append(struct queue *queue, const void *bytes, size_t size_bytes);
void queue_send(struct queue *queue, int32_t sender, const void *payload, size_t payload_bytes);

/* The position of what is appended next. */
uint64_t queue_end(const struct queue *queue);

/* The file is empty; what it held is nowhere. */
void queue_empty_file(struct queue *queue);

/* Throws away what is in flight and in nobody's hand. */
void queue_clear_inflight(struct queue *queue);

/* All messages of the file are in flight; damage is gone. */
void queue_move(struct queue *queue);

/* All that is in flight is at the beginning of the file, in nobody's hand; positions are new. */
void queue_return(struct queue *queue);

/* Nothing in flight is in anybody's hand. */
void queue_let_go(struct queue *queue);

/*
 * The first message in flight that is in nobody's hand: where it is, or -1. `empty_too`: also one
 * without payload; else those before it are thrown away, as received, and counted.
 */
long queue_first(struct queue *queue, bool empty_too, uint64_t *passed_count);

/* It is no longer in flight. */
void queue_deliver(struct queue *queue, uint64_t position);

/* The one in flight with this position. */
struct queue_message *queue_find(struct queue *queue, uint64_t position);

/* All messages, from in flight and from the file: a copy, to be freed by queue_free_list(). */
struct queue_message *queue_list(const struct queue *queue, size_t *count);
void queue_free_list(struct queue_message *list, size_t count);

uint64_t queue_payload_bytes(const struct queue *queue);

#endif
