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

/* Whose an item is, and whether its owner waits to be told that it is on disk. */
struct batch_entry {
    void *owner;
    bool acknowledged;
};

struct batch {
    bool busy; /* gathering, or under way */
    struct arena *arena;
    Bus__PublishItem **items;
    struct batch_entry *entries; /* one for each item */
    size_t count, capacity, entry_capacity;
    size_t bytes; /* packed messages, and what goes with each */
};

struct batch *batch_new(void);
struct batch *batch_free(struct batch *batch);
DEFINE_FREEP(struct batch, batch_free)
void batch_reset(struct batch *batch); /* empty again, with its memory */

/* Would @message_bytes more be within the bounds? An empty batch takes any message. */
bool batch_fits(const struct batch *batch, size_t message_bytes, size_t count_max,
                size_t bytes_max);
void batch_add(struct batch *batch, const Bus__Message *message, size_t message_bytes, void *owner,
               bool acknowledged);
/* One of another batch; copied. */
void batch_add_copy(struct batch *batch, const Bus__PublishItem *item, void *owner,
                    bool acknowledged);

/* From @first on: how many items in a row are of one owner, and how many of them it waits for. */
size_t batch_run(const struct batch *batch, size_t first, size_t *ret_acknowledged);
