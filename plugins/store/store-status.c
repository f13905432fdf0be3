/* What the store says of itself. */
#include "store.h"

enum { OLDEST_READS_MAX = 256 }; /* in one answer: the rest is read by the next ones */

/* When its oldest message was enqueued. Read once for each first position; until then what was
 * read last stands for it, which is a little older. */
static int stream_oldest(struct store *store, struct stream *stream, unsigned *reads,
                         struct rocks_error *ret_error)
{
    int64_t ms;

    if (stream->oldest_at == stream->meta.first)
        return 0;
    if (*reads == 0)
        return 0;
    --*reads;
    return store_enqueued_ms(store, stream, stream->meta.first, &ms, ret_error);
}

static int queue_oldest(struct store *store, struct queue *queue, unsigned *reads, int64_t *ret_ms,
                        struct rocks_error *ret_error)
{
    struct partition *p;

    *ret_ms = 0;
    TAILQ_FOREACH(p, &queue->partitions, link)
    {
        for (size_t i = 0; i < p->stream_count; i++) {
            struct stream *s = p->streams[i];
            int r;

            if (s->meta.count == 0)
                continue;
            r = stream_oldest(store, s, reads, ret_error);
            if (r != 0)
                return r;
            if (s->oldest_ms != 0 && (*ret_ms == 0 || s->oldest_ms < *ret_ms))
                *ret_ms = s->oldest_ms;
        }
    }
    return 0;
}

static Bus__PriorityStatus *store_priority_status(struct store *store, const struct level *level)
{
    Bus__PriorityStatus *status = arena_alloc(store->arena, sizeof(*status));
    const struct ledger *ledger = &level->meta.ledger;

    bus__priority_status__init(status);
    status->priority = level->meta.priority;
    status->depth = level->count;
    status->bytes = level->bytes;
    status->accepted = ledger->accepted;
    status->delivered = ledger->delivered;
    status->expired = ledger->expired;
    status->dropped = ledger->dropped;
    status->rejected = ledger->rejected;
    return status;
}

static int store_queue_status(struct store *store, struct queue *queue, unsigned *reads,
                              Bus__QueueStatus *status, struct rocks_error *ret_error)
{
    struct ledger ledger = queue_ledger(queue);

    bus__queue_status__init(status);
    status->name = queue->name;
    status->depth = queue->count;
    status->bytes = queue->bytes;
    status->accepted = ledger.accepted;
    status->delivered = ledger.delivered;
    status->expired = ledger.expired;
    status->dropped = ledger.dropped;
    status->rejected = ledger.rejected;
    status->n_priorities = queue->level_count;
    status->priorities =
        arena_alloc(store->arena, queue->level_count * sizeof(*status->priorities));
    for (size_t i = 0; i < queue->level_count; i++)
        status->priorities[i] = store_priority_status(store, queue->levels[i]);
    return queue_oldest(store, queue, reads, &status->oldest_ms, ret_error);
}

void store_queues_get_take(struct store *store, struct bus_call *call)
{
    Bus__Queues queues = BUS__QUEUES__INIT;
    Bus__Envelope answer = ENVELOPE(QUEUES, queues, &queues);
    struct rocks_error error = {};
    unsigned reads = OLDEST_READS_MAX;
    size_t count;
    int r = 0;

    if (store_refuse_take(store, call))
        return;
    count = queues_count(store->image->queues);
    queues.queues = arena_alloc(store->arena, count * sizeof(*queues.queues));
    while (r == 0 && queues.n_queues < count) {
        Bus__QueueStatus *status = arena_alloc(store->arena, sizeof(*status));

        r = store_queue_status(store, queues_at(store->image->queues, queues.n_queues), &reads,
                               status, &error);
        queues.queues[queues.n_queues++] = status;
    }
    queues.store_bytes = rocks_disk_bytes(store->image->rocks);
    queues.max_bytes = store->budget.bytes;
    if (r == 0)
        store_answer_with(store, call, &answer);
    else
        store_fail_take(store, call, r, &error);
    arena_reset(store->arena);
}
