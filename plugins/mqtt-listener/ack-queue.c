#include "ack-queue.h"

#include <assert.h>

#include "mem.h"

enum { WAITS = 1 << 16 }; /* beside the packet id */

void ack_queue_done(struct ack_queue *q)
{
    free(q->entries);
    *q = (struct ack_queue){};
}

/* Capacities are powers of two. */
static uint32_t *ack_queue_at(const struct ack_queue *q, uint32_t index)
{
    return &q->entries[(q->first + index) & (q->capacity - 1)];
}

static void ack_queue_grow(struct ack_queue *q)
{
    struct ack_queue larger = { .count = q->count, .capacity = q->capacity ? q->capacity * 2 : 8 };

    larger.entries = xnew_n(uint32_t, larger.capacity);
    for (uint32_t i = 0; i < q->count; i++)
        larger.entries[i] = *ack_queue_at(q, i);
    free(q->entries);
    *q = larger;
}

void ack_queue_push(struct ack_queue *q, uint16_t packet_id, bool waits)
{
    if (q->count == q->capacity)
        ack_queue_grow(q);
    *ack_queue_at(q, q->count++) = packet_id | (waits ? WAITS : 0);
}

/* Only the head can be the oldest that waits: what does not wait leaves at once when it gets there.
 */
void ack_queue_commit(struct ack_queue *q)
{
    assert(q->count > 0 && (*ack_queue_at(q, 0) & WAITS));
    *ack_queue_at(q, 0) &= ~(uint32_t)WAITS;
}

bool ack_queue_pop(struct ack_queue *q, uint16_t *ret_packet_id)
{
    if (q->count == 0 || (*ack_queue_at(q, 0) & WAITS))
        return false;
    *ret_packet_id = (uint16_t)*ack_queue_at(q, 0);
    q->first = (q->first + 1) & (q->capacity - 1);
    q->count--;
    return true;
}

void ack_queue_trim(struct ack_queue *q)
{
    if (q->count == 0)
        ack_queue_done(q);
}
