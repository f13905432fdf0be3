/*
 * The publishes of one client that are not acknowledged yet, in the order in which they came:
 * PUBACKs go out in that order
 * (.NET tears the connection down otherwise), whichever of them wait for the disk.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* {} is a valid empty one. Holds no memory while it is empty for long: ack_queue_trim(). */
struct ack_queue {
    uint32_t *entries; /* a ring */
    uint32_t first, count, capacity;
};

void ack_queue_done(struct ack_queue *q);
/* @waits: until it is said to be on disk. */
void ack_queue_push(struct ack_queue *q, uint16_t packet_id, bool waits);
/* The oldest of those that wait is on disk. */
void ack_queue_commit(struct ack_queue *q);
/* The next that may be acknowledged now. False: none, or the oldest still waits. */
bool ack_queue_pop(struct ack_queue *q, uint16_t *ret_packet_id);
void ack_queue_trim(struct ack_queue *q); /* an empty queue gives its memory back */
