/*
 * hand - hands over what is in flight.
 *
 * What is to be handed over next is in the handle's hand, whole or from where the last answer ended.
 * It is gone once its last byte has been handed over; whoever goes away before the answer reached
 * him has had nothing.
 *
 * Where envelopes are shown an answer has as many whole messages as fit, and is noted on disk by one
 * write; elsewhere it has one.
 *
 * By whoever is at work on the box. Nothing here waits but for the file system.
 */
#ifndef GPROCFS_HAND_H
#define GPROCFS_HAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handle.h"
#include "job.h"
#include "scan.h"

/* Whether the reader is told who sent what, and so can have several messages in one answer. */
bool hand_shows_envelopes(const struct job *job);

/* What `.envelope` says before a payload: its length. */
size_t hand_write_envelope(char text[HAND_ENVELOPE_BYTES], const struct gproc_message *message);

/* So much has been received, for `.stats`. */
void hand_count_received(const struct job *job, size_t messages_count, uint64_t payload_bytes);

/* Logs and counts the damage that was passed over since the last time, and `more_bytes`. */
void hand_tell_damage(struct box *box, uint64_t more_bytes);

/* Puts the next message in flight into the handle's hand, which is empty: 1, 0 where there is none,
 * or a negative errno. */
int hand_pick_up(struct job *job);

/* Gives it back: it is the next one again. */
void hand_put_down(struct job *job);

/* Answers with the message in hand, or its next part, or with as many as fit. */
void hand_over(struct job *job);

#endif
