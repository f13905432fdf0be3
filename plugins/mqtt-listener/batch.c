#include "batch.h"

#include <assert.h>
#include <string.h>

#include "message.h"

enum { ITEM_OVERHEAD = 64 }; /* ids and framing of an item, roughly */

struct batch *batch_new(void)
{
    struct batch *batch = xnew(struct batch);

    batch->arena = arena_new();
    return batch;
}

struct batch *batch_free(struct batch *batch)
{
    if (!batch)
        return NULL;
    arena_free(batch->arena);
    free(batch->items);
    free(batch->entries);
    free(batch);
    return NULL;
}

void batch_reset(struct batch *batch)
{
    arena_reset(batch->arena);
    batch->count = batch->bytes = 0;
    batch->busy = false;
}

bool batch_fits(const struct batch *batch, size_t message_bytes, size_t count_max, size_t bytes_max)
{
    if (batch->count == 0)
        return true;
    return batch->count < count_max && batch->bytes + message_bytes + ITEM_OVERHEAD <= bytes_max;
}

/* A client sends many in a row: its ids are there already. */
static char *batch_text(struct batch *batch, const char *text, char *previous)
{
    if (previous && strcmp(previous, text) == 0)
        return previous;
    return arena_strdup(batch->arena, text);
}

static void batch_append(struct batch *batch, const Bus__PublishItem *like,
                         ProtobufCBinaryData packed, struct batch_entry entry)
{
    const Bus__PublishItem *last = batch->count > 0 ? batch->items[batch->count - 1] : NULL;
    Bus__PublishItem *item = arena_alloc(batch->arena, sizeof(*item));

    bus__publish_item__init(item);
    item->device_id = batch_text(batch, like->device_id, last ? last->device_id : NULL);
    item->module_id = batch_text(batch, like->module_id, last ? last->module_id : NULL);
    item->output_name = batch_text(batch, like->output_name, last ? last->output_name : NULL);
    item->message = packed;
    batch->bytes += packed.len + ITEM_OVERHEAD;
    xgrow(batch->items, batch->count, batch->capacity);
    xgrow(batch->entries, batch->count, batch->entry_capacity);
    batch->items[batch->count] = item;
    batch->entries[batch->count++] = entry;
}

void batch_add(struct batch *batch, const Bus__Message *message, size_t message_bytes, void *owner,
               bool acknowledged)
{
    ProtobufCBinaryData packed = { message_bytes, arena_alloc(batch->arena, message_bytes) };
    const char *output = *message->module_id ? message_system(message, MESSAGE_OUTPUT_NAME) : NULL;
    Bus__PublishItem like = BUS__PUBLISH_ITEM__INIT;
    size_t written = bus__message__pack(message, packed.data);

    assert(written == message_bytes);
    like.device_id = message->device_id;
    like.module_id = message->module_id;
    like.output_name = (char *)(output ?: "");
    batch_append(batch, &like, packed, (struct batch_entry){ owner, acknowledged });
}

void batch_add_copy(struct batch *batch, const Bus__PublishItem *item, void *owner,
                    bool acknowledged)
{
    ProtobufCBinaryData packed = { item->message.len,
                                   arena_alloc(batch->arena, item->message.len) };

    memcpy(packed.data, item->message.data, packed.len);
    batch_append(batch, item, packed, (struct batch_entry){ owner, acknowledged });
}

size_t batch_run(const struct batch *batch, size_t first, size_t *ret_acknowledged)
{
    size_t i = first;

    *ret_acknowledged = 0;
    for (; i < batch->count && batch->entries[i].owner == batch->entries[first].owner; i++)
        *ret_acknowledged += batch->entries[i].acknowledged;
    return i - first;
}
