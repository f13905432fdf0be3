/*
 * What one turn of the loop read of messages, from all connections: the items of one Publish, and
 * whose acknowledgements hang on it. A message is packed once, into the batch's own memory, where
 * it stays until the batch is committed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "mem.h"
#include "message.pb-c.h"
#include "router.pb-c.h"

/* So many acknowledged publishes of @owner in a row. */
struct batch_share {
    void *owner;
    unsigned count;
};

struct batch {
    bool busy; /* gathering, or under way */
    struct arena *arena;
    Bus__PublishItem **items;
    size_t count, capacity;
    size_t bytes; /* packed messages, and what goes with each */
    struct batch_share *shares;
    size_t share_count, share_capacity;
};

struct batch *batch_new(void);
struct batch *batch_free(struct batch *batch);
DEFINE_FREEP(struct batch, batch_free)
void batch_reset(struct batch *batch); /* empty again, with its memory */

/* Would @message_bytes more be within the bounds? An empty batch takes any message. */
bool batch_fits(const struct batch *batch, size_t message_bytes, size_t count_max,
                size_t bytes_max);
/* True when @owner has a share more, which it will hear of. @owner NULL: nobody waits for it. */
bool batch_add(struct batch *batch, const Bus__Message *message, size_t message_bytes, void *owner);
