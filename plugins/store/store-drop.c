/*
 * Which messages go when there is no room: the oldest of the lowest priority, over all queues. What
 * a consumer holds stays, for it may be delivered at this moment.
 */
#include "store.h"

enum { /* for one request: who asks again gets the rest */
       DROP_ROWS_MAX = 8192,
       SEARCH_ROWS = 32, /* what looking for the next victim counts as */
};

int store_enqueued_ms(struct store *store, struct stream *stream, uint64_t position,
                      int64_t *ret_ms, struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan = NULL;
    struct message_value v;
    struct message_key k;
    struct span key, value;

    *ret_ms = stream->oldest_ms;
    if (stream->oldest_at == position && stream->oldest_ms != 0)
        return 0;
    *ret_ms = 0;
    if (position >= stream->durable)
        return 0;
    scan = store_scan(store, stream, position, stream->durable - 1);
    while (rocks_scan_next(scan, &key, &value)) {
        if (key_message_parse(key, &k) != 0 || value_message_parse(value, &v) != 0)
            return ROCKS_E_CORRUPT;
        if (!stream_has(stream, k.position))
            continue;
        stream->oldest_at = position;
        stream->oldest_ms = *ret_ms = v.enqueued_ms;
        return 0;
    }
    return rocks_scan_error(scan, ret_error);
}

/* Looking for the stream whose front is the oldest. */
struct search {
    struct store *store;
    uint32_t urgency;
    struct stream *victim;
    int64_t oldest_ms;
    int64_t second_ms; /* of the others of that priority: up to here it is the victim's turn */
    int result;
    struct rocks_error *error;
};

static void search_take(struct search *s, struct stream *stream, int64_t ms)
{
    bool lower = !s->victim || stream->meta.priority > s->victim->meta.priority;

    if (lower || ms < s->oldest_ms) {
        s->second_ms = lower ? INT64_MAX : s->oldest_ms;
        s->oldest_ms = ms;
        s->victim = stream;
    } else if (ms < s->second_ms) {
        s->second_ms = ms;
    }
}

static bool search_visit(struct stream *stream, void *userdata)
{
    struct search *s = userdata;
    int64_t ms;

    if (stream->meta.count == 0 || stream->cursor >= stream->durable ||
        stream->meta.priority < s->urgency ||
        (s->victim && stream->meta.priority < s->victim->meta.priority))
        return false;
    s->result = store_enqueued_ms(s->store, stream, stream->cursor, &ms, s->error);
    if (s->result == 0 && ms != 0)
        search_take(s, stream, ms);
    else if (s->result == 0)
        stream_read_end(stream, true); /* what is left is held by a consumer */
    return s->result != 0;
}

struct drop {
    uint64_t wanted, freed; /* bytes */
    int rows;               /* that may still be looked at */
};

/* From the front of the victim: as long as it is the oldest. */
static int drop_run(struct drop *d, struct search *s)
{
    struct store *store = s->store;
    struct stream *stream = s->victim;
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        store_scan(store, stream, stream->cursor, stream->durable - 1);
    struct span key, value;

    while (d->rows > 0 && d->freed < d->wanted) {
        struct message_value v;
        struct message_key k;

        if (!rocks_scan_next(scan, &key, &value)) {
            stream_read_end(stream, true);
            return rocks_scan_error(scan, s->error);
        }
        if (key_message_parse(key, &k) != 0 || value_message_parse(value, &v) != 0)
            return ROCKS_E_CORRUPT;
        d->rows--;
        if (!stream_has(stream, k.position))
            continue;
        stream->oldest_at = stream->cursor;
        stream->oldest_ms = v.enqueued_ms;
        if (v.enqueued_ms > s->second_ms)
            return 0;
        stream_remove_next(stream, k.position, (uint32_t)v.message.len, OUTCOME_DROPPED);
        store_remove(store, stream, k.position, v.message.len);
        store->dropped++;
        d->freed += v.message.len + ENTRY_OVERHEAD_BYTES;
    }
    return 0;
}

int store_drop_oldest(struct store *store, uint32_t urgency, uint64_t bytes, uint64_t *ret_freed,
                      struct rocks_error *ret_error)
{
    struct drop d = { .wanted = bytes, .rows = DROP_ROWS_MAX };
    int r = 0;

    *ret_error = (struct rocks_error){ "a message does not make sense" };
    while (r == 0 && d.rows > 0 && d.freed < d.wanted) {
        struct search s = { .store = store, .urgency = urgency, .error = ret_error };

        queues_each(store->image->queues, search_visit, &s);
        d.rows -= SEARCH_ROWS;
        r = s.result;
        if (r != 0 || !s.victim)
            break;
        r = drop_run(&d, &s);
    }
    *ret_freed = d.freed;
    return r;
}
