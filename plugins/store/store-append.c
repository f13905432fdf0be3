/* Messages come in: each batch once, whole, and in the order of its producer. */
#include "store.h"

#include "timer.h"

enum {
    PARTITION_NAME_BYTES_MAX = 512,
};

/* NULL, or what is wrong with it. */
static const char *append_check(const Bus__Append *in)
{
    if (!in->producer[0] || strlen(in->producer) > PRODUCER_NAME_BYTES_MAX)
        return "a producer's name of 1 to 256 bytes is expected";
    if (in->sequence == 0)
        return "a sequence of 1 or more is expected";
    for (size_t i = 0; i < in->n_items; i++) {
        for (size_t j = 0; j < in->items[i]->n_targets; j++) {
            const Bus__AppendTarget *target = in->items[i]->targets[j];
            size_t len = strlen(target->queue);

            if (len == 0 || len > QUEUE_NAME_BYTES_MAX || target->queue[len - 1] == '/')
                return "a queue's name of 1 to 512 bytes, without a slash at its end, is expected";
            if (strlen(target->partition) > PARTITION_NAME_BYTES_MAX)
                return "a partition's name of up to 512 bytes is expected";
        }
    }
    return NULL;
}

static uint64_t append_bytes(const Bus__Append *in)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < in->n_items; i++)
        sum += in->items[i]->n_targets * (in->items[i]->message.len + ENTRY_OVERHEAD_BYTES);
    return sum;
}

/* Whether every target has, or can have, its place: before the first of them is touched. */
static bool store_has_places(struct store *store, const Bus__Append *in)
{
    for (size_t i = 0; i < in->n_items; i++) {
        for (size_t j = 0; j < in->items[i]->n_targets; j++) {
            const Bus__AppendTarget *target = in->items[i]->targets[j];
            struct queue *queue = queues_get(store->image->queues, target->queue);

            if (!queue || !queue_get_stream(queue, target->partition, target->priority))
                return false;
        }
    }
    return true;
}

static uint64_t expires_ms(int64_t ttl_sec, uint64_t now_ms)
{
    uint64_t ttl_ms, at;

    if (ttl_sec < 0 || __builtin_mul_overflow((uint64_t)ttl_sec, 1000, &ttl_ms) ||
        __builtin_add_overflow(now_ms, ttl_ms, &at))
        return EXPIRES_NEVER;
    return at;
}

struct moment {
    uint64_t clock_ms;
    int64_t utc_ms;
};

static void store_append_target(struct store *store, const Bus__AppendTarget *target,
                                const ProtobufCBinaryData *message, const struct moment *now)
{
    struct queue *queue = queues_get(store->image->queues, target->queue);
    struct stream *stream = queue_get_stream(queue, target->partition, target->priority);
    struct message_value v = { .enqueued_ms = now->utc_ms,
                               .expires_ms = expires_ms(target->ttl_sec, now->clock_ms),
                               .message = span_of(message->data, message->len) };
    char key[KEY_MESSAGE_BYTES];
    uint64_t position;

    position = stream_append(stream, message->len, v.enqueued_ms, v.expires_ms, now->clock_ms);
    rocks_batch_put(commit_batch(store->commit), key_message(stream_key(stream, position), key),
                    value_message(&v, &store->value));
    store->appended++;
}

static void store_append_items(struct store *store, const Bus__Append *in)
{
    struct moment now = { store_clock_ms(store), utc_msec() };

    for (size_t i = 0; i < in->n_items; i++)
        for (size_t j = 0; j < in->items[i]->n_targets; j++)
            store_append_target(store, in->items[i]->targets[j], &in->items[i]->message, &now);
}

/* The priority of the most urgent message, and of the least. */
static void append_priorities(const Bus__Append *in, uint32_t *ret_first, uint32_t *ret_last)
{
    *ret_first = UINT32_MAX;
    *ret_last = 0;
    for (size_t i = 0; i < in->n_items; i++) {
        for (size_t j = 0; j < in->items[i]->n_targets; j++) {
            uint32_t priority = in->items[i]->targets[j]->priority;

            if (priority < *ret_first)
                *ret_first = priority;
            if (priority > *ret_last)
                *ret_last = priority;
        }
    }
}

static bool store_has_room(struct store *store, const Bus__Append *in)
{
    uint64_t bytes = append_bytes(in);
    uint32_t first, last;

    if (bytes == 0)
        return true;
    append_priorities(in, &first, &last);
    return store_make_room(store, last == 0 || in->reserve ? DEMAND_URGENT : DEMAND_MESSAGES, first,
                           bytes);
}

void store_append_take(struct store *store, struct bus_call *call, const Bus__Append *in)
{
    struct waiter waiter = { .call = call, .kind = WAITER_APPEND, .number = in->sequence + 1 };
    const char *wrong = append_check(in);

    if (store_refuse_take(store, call))
        return;
    if (wrong) {
        store_answer_error(store, call, STATUS_INVALID, "%s", wrong);
        return;
    }
    if (!store_admit_take(store, in->producer, in->sequence, &waiter))
        return;
    if (commit_is_full(store->commit)) {
        store_answer(store, call, STATUS_BUSY);
        return;
    }
    if (!store_has_places(store, in)) {
        store_answer_error(store, call, STATUS_INVALID,
                           "there are too many queues, or priorities in a queue");
        return;
    }
    if (append_bytes(in) > store->budget.queued_max) {
        store_answer_error(
            store, call, STATUS_INVALID,
            "%lu bytes, a copy for each queue, are more than the disk budget allows for",
            (unsigned long)append_bytes(in));
        return;
    }
    if (!store_has_room(store, in)) {
        store_answer(store, call, STATUS_FULL);
        return;
    }
    store_append_items(store, in);
    producers_apply(store->image->producers, in->producer, in->sequence,
                    commit_group(store->commit));
    commit_need(store->commit, true);
    commit_wait(store->commit, &waiter);
}
