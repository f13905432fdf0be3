/* What an operator may do to a queue: look into it, and empty it. */
#include "store.h"

enum {
    PEEK_MESSAGES_MAX = 1000,
    PEEK_BYTES_MAX = 1 << 20,
};

struct peek {
    struct store *store;
    uint32_t priority; /* the one whose turn it is */
    Bus__FetchedItem *items[PEEK_MESSAGES_MAX];
    size_t count, messages_max;
    size_t bytes;
};

static bool peek_is_full(const struct peek *p)
{
    return p->count == p->messages_max || p->bytes >= PEEK_BYTES_MAX;
}

static int peek_stream(struct peek *p, struct stream *stream, struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        store_scan(p->store, stream, stream->meta.first, stream->durable - 1);
    struct span key, value;

    while (!peek_is_full(p)) {
        struct message_value v;
        struct message_key k;

        if (!rocks_scan_next(scan, &key, &value))
            return rocks_scan_error(scan, ret_error);
        if (key_message_parse(key, &k) != 0 || value_message_parse(value, &v) != 0)
            return ROCKS_E_CORRUPT;
        if (!stream_has(stream, k.position))
            continue;
        p->items[p->count++] = store_item(p->store, stream, k.position, &v);
        p->bytes += v.message.len;
    }
    return 0;
}

static int peek_level(struct peek *p, const struct queue *queue, const struct level *level,
                      struct rocks_error *ret_error)
{
    const struct partition *partition;

    TAILQ_FOREACH(partition, &queue->partitions, link)
    {
        for (size_t i = 0; i < partition->stream_count && !peek_is_full(p); i++) {
            struct stream *stream = partition->streams[i];
            int r = 0;

            if (stream->level == level && stream->meta.count > 0)
                r = peek_stream(p, stream, ret_error);
            if (r != 0)
                return r;
        }
    }
    return 0;
}

/* NULL, and @call was told: there is no such queue. */
static struct queue *store_known_queue(struct store *store, struct bus_call *call, const char *name)
{
    struct queue *queue = queues_find(store->image->queues, name);

    if (!queue)
        store_answer_error(store, call, STATUS_NOT_FOUND, "there is no queue %s", name);
    return queue;
}

void store_queue_peek_take(struct store *store, struct bus_call *call, const Bus__QueuePeek *in)
{
    struct rocks_error error = { "a message does not make sense" };
    struct peek p = { .store = store, .messages_max = PEEK_MESSAGES_MAX };
    Bus__Fetched fetched = BUS__FETCHED__INIT;
    Bus__Envelope answer = ENVELOPE(FETCHED, fetched, &fetched);
    struct queue *queue;
    int r = 0;

    if (store_refuse_take(store, call))
        return;
    queue = store_known_queue(store, call, in->queue);
    if (!queue)
        return;
    if (in->messages_max > 0 && in->messages_max < PEEK_MESSAGES_MAX)
        p.messages_max = in->messages_max;
    for (size_t i = 0; r == 0 && i < queue->level_count; i++)
        r = peek_level(&p, queue, queue->levels[i], &error);
    fetched.n_items = p.count;
    fetched.items = p.items;
    if (r == 0)
        store_answer_with(store, call, &answer);
    else
        store_fail_take(store, call, r, &error);
    arena_reset(store->arena);
}

/* Also what a consumer holds: its acks will find nothing. */
void store_queue_drop_take(struct store *store, struct bus_call *call, const Bus__QueueDrop *in)
{
    unsigned left = DROP_MESSAGES_MAX, dropped;
    struct rocks_error error;
    struct partition *p;
    struct queue *queue;
    int r = 0;

    if (store_refuse_take(store, call))
        return;
    queue = store_known_queue(store, call, in->queue);
    if (!queue)
        return;
    TAILQ_FOREACH(p, &queue->partitions, link)
    for (size_t i = 0; r == 0 && left > 0 && i < p->stream_count; i++)
        r = store_remove_all(store, p->streams[i], OUTCOME_DROPPED, &left, &error);
    if (r != 0) {
        store_fail_take(store, call, r, &error);
        return;
    }
    dropped = DROP_MESSAGES_MAX - left;
    store->dropped += dropped;
    log_event(LOG_NOTICE, 0, "an operator drops messages", F_QUEUE(queue->name), F_COUNT(dropped));
    commit_need(store->commit, true);
    commit_wait(store->commit,
                &(struct waiter){ .call = call, .kind = WAITER_DROP, .number = dropped });
}
