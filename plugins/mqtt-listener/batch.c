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
    free(batch->shares);
    free(batch);
    return NULL;
}

void batch_reset(struct batch *batch)
{
    arena_reset(batch->arena);
    batch->count = batch->bytes = batch->share_count = 0;
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

static void batch_append_item(struct batch *batch, const Bus__Message *message,
                              ProtobufCBinaryData packed)
{
    const Bus__PublishItem *last = batch->count > 0 ? batch->items[batch->count - 1] : NULL;
    Bus__PublishItem *item = arena_alloc(batch->arena, sizeof(*item));
    const char *output = *message->module_id ? message_system(message, MESSAGE_OUTPUT_NAME) : NULL;

    bus__publish_item__init(item);
    item->device_id = batch_text(batch, message->device_id, last ? last->device_id : NULL);
    item->module_id = batch_text(batch, message->module_id, last ? last->module_id : NULL);
    item->output_name = batch_text(batch, output ?: "", last ? last->output_name : NULL);
    item->message = packed;
    xgrow(batch->items, batch->count, batch->capacity);
    batch->items[batch->count++] = item;
}

static bool batch_append_share(struct batch *batch, void *owner)
{
    struct batch_share *last =
        batch->share_count > 0 ? &batch->shares[batch->share_count - 1] : NULL;

    if (last && last->owner == owner) {
        last->count++;
        return false;
    }
    xgrow(batch->shares, batch->share_count, batch->share_capacity);
    batch->shares[batch->share_count++] = (struct batch_share){ owner, 1 };
    return true;
}

bool batch_add(struct batch *batch, const Bus__Message *message, size_t message_bytes, void *owner)
{
    ProtobufCBinaryData packed = { message_bytes, arena_alloc(batch->arena, message_bytes) };
    size_t written = bus__message__pack(message, packed.data);

    assert(written == message_bytes);
    batch_append_item(batch, message, packed);
    batch->bytes += message_bytes + ITEM_OVERHEAD;
    return owner && batch_append_share(batch, owner);
}
