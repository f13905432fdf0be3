/* Messages go out: fetching, waiting for something to fetch, parking. */
#include "store.h"

#include "timer.h"

enum {
    FETCH_CHUNK = 64, /* messages of one partition before it is another's turn */
    FETCH_MESSAGES_MAX = 16384,
    FETCH_ROWS_MAX = 16384,    /* looked at for one answer: what has expired is not given */
    FETCH_BYTES_MAX = 4 << 20, /* an answer stays well below what the bus carries */
    ITEM_OVERHEAD_BYTES = 64,
};

/* What is being put together as an answer. All in the store's arena. */
struct answer {
    struct store *store;
    bool names_queues;
    Bus__FetchedItem **items;
    size_t count, capacity;
    uint64_t bytes;
    uint32_t messages_max;
    uint32_t bytes_max;
    unsigned rows;
    bool full;
    uint64_t now_ms;
};

static bool answer_has_room(const struct answer *a, size_t bytes)
{
    return a->count == 0 || (a->count < a->messages_max && a->bytes + bytes <= a->bytes_max);
}

Bus__FetchedItem *store_item(struct store *store, const struct stream *stream, uint64_t position,
                             const struct message_value *v)
{
    Bus__FetchedItem *item = arena_alloc(store->arena, sizeof(*item));

    bus__fetched_item__init(item);
    item->partition = stream->partition->name;
    item->priority = stream->meta.priority;
    item->position = position;
    item->enqueued_ms = v->enqueued_ms;
    item->message.len = v->message.len;
    item->message.data = arena_alloc(store->arena, v->message.len);
    memcpy(item->message.data, v->message.at, v->message.len);
    return item;
}

static void answer_add(struct answer *a, const struct stream *stream, uint64_t position,
                       const struct message_value *v)
{
    Bus__FetchedItem *item = store_item(a->store, stream, position, v);

    if (a->names_queues)
        item->queue = stream->partition->queue->name;
    xgrow(a->items, a->count, a->capacity);
    a->items[a->count++] = item;
    a->bytes += v->message.len + ITEM_OVERHEAD_BYTES;
}

/* One row. False: no more of this stream in this turn. */
static bool answer_offer(struct answer *a, struct stream *stream, uint64_t position,
                         const struct message_value *v)
{
    if (!answer_has_room(a, v->message.len + ITEM_OVERHEAD_BYTES)) {
        a->full = true;
        return false;
    }
    switch (stream_offer(stream, position, (uint32_t)v->message.len, v->expires_ms <= a->now_ms)) {
    case OFFER_TAKEN:
        answer_add(a, stream, position, v);
        break;
    case OFFER_EXPIRED:
        store_remove(a->store, stream, position, v->message.len);
        break;
    case OFFER_SKIPPED:
        break;
    case OFFER_FULL:
        a->full = true;
        return false;
    }
    return true;
}

/* Up to a chunk of what is behind the cursor. */
static int answer_read(struct answer *a, struct stream *stream, struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        store_scan(a->store, stream, stream->cursor, stream->durable - 1);
    struct span key, value;
    unsigned rows = 0;
    bool more = false;

    stream_read_begin(stream);
    while (rows++ < FETCH_CHUNK && (more = rocks_scan_next(scan, &key, &value))) {
        struct message_value v;
        struct message_key k;

        if (key_message_parse(key, &k) != 0 || value_message_parse(value, &v) != 0) {
            *ret_error = (struct rocks_error){ "a message does not make sense" };
            return ROCKS_E_CORRUPT;
        }
        if (!answer_offer(a, stream, k.position, &v))
            break;
    }
    a->rows += rows;
    stream_read_end(stream, !more);
    return more ? 0 : rocks_scan_error(scan, ret_error);
}

static int answer_fill(struct answer *a, struct reader *reader, struct rocks_error *ret_error)
{
    struct stream *stream;

    while (!a->full && a->count < a->messages_max && a->rows < FETCH_ROWS_MAX &&
           (stream = reader_next(reader))) {
        int r = answer_read(a, stream, ret_error);

        if (r != 0)
            return r;
    }
    return 0;
}

static void store_send(struct store *store, struct bus_call *call, const struct answer *a)
{
    Bus__Fetched fetched = BUS__FETCHED__INIT;
    Bus__Envelope answer = ENVELOPE(FETCHED, fetched, &fetched);

    fetched.n_items = a->count;
    fetched.items = a->items;
    store->fetched += a->count;
    store_answer_with(store, call, &answer);
}

/* Answers @poll if there is something for it, or @anyway. True: it is answered. When nothing was
 * given though there is more to look at, rows were removed: it goes on when that is written. */
static bool store_try(struct store *store, const struct poll *poll, bool anyway)
{
    struct rocks_error error;
    struct answer a;
    int r;

    if (!anyway && !reader_next(poll->reader))
        return false;
    a = (struct answer){ .store = store,
                         .names_queues = strchr(poll->reader->name, '/'),
                         .messages_max = poll->messages_max,
                         .bytes_max = poll->bytes_max,
                         .now_ms = store_clock_ms(store) };
    r = answer_fill(&a, poll->reader, &error);
    if (r != 0)
        store_fail_take(store, poll->call, r, &error);
    else if (a.count > 0 || anyway)
        store_send(store, poll->call, &a);
    free(a.items);
    arena_reset(store->arena);
    return r != 0 || a.count > 0 || anyway;
}

static void store_arm_polls(struct store *store)
{
    uint64_t first = UINT64_MAX, now = now_usec();

    for (size_t i = 0; i < store->poll_count; i++)
        if (store->polls[i].deadline_usec < first)
            first = store->polls[i].deadline_usec;
    if (first == UINT64_MAX)
        timer_stop(store->poll_timer);
    else
        timer_rearm(store->poll_timer, first > now ? first - now : 0);
}

void store_serve(struct store *store)
{
    uint64_t now = now_usec();
    size_t kept = 0;

    if (!store->image || store->failing)
        return;
    for (size_t i = 0; i < store->poll_count; i++) {
        struct poll poll = store->polls[i];

        if (store->failing || !store_try(store, &poll, poll.deadline_usec <= now))
            store->polls[kept++] = poll;
    }
    store->poll_count = kept;
    store_arm_polls(store);
}

static int store_on_poll_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    store_serve(userdata);
    return 0;
}

int store_fetch_init(struct store *store)
{
    int r = store_add_timer(store, &store->poll_timer, store_on_poll_timer, 0);

    return r < 0 ? r : timer_stop(store->poll_timer);
}

void store_polls_refuse(struct store *store, const char *reason)
{
    for (size_t i = 0; i < store->poll_count; i++) {
        if (reason)
            store_answer_error(store, store->polls[i].call, STATUS_FAILED, "%s", reason);
        else
            store->ops->answer(store->polls[i].call, NULL, store->userdata);
    }
    store->poll_count = 0;
    timer_stop(store->poll_timer);
}

/* What waits there gives way to who asks now: the older lease has lost it; the same request,
 * sent again, takes the place of the first; one that went on without its answer does not want it
 * any more. */
static void store_displace(struct store *store, const struct reader *reader, uint64_t lease,
                           uint64_t sequence)
{
    for (size_t i = 0; i < store->poll_count; i++) {
        const struct poll poll = store->polls[i];

        if (poll.reader != reader)
            continue;
        store->polls[i] = store->polls[--store->poll_count];
        if (poll.lease != lease)
            store_answer(store, poll.call, STATUS_LEASE_LOST);
        else if (poll.sequence == sequence)
            store->ops->answer(poll.call, NULL, store->userdata);
        else
            store_send(store, poll.call, &(struct answer){ .store = store });
        return; /* there is one at most */
    }
}

static uint32_t limit(uint32_t asked, uint32_t max)
{
    return asked == 0 || asked > max ? max : asked;
}

static struct poll poll_make(struct bus_call *call, struct reader *reader, const Bus__Fetch *in)
{
    return (struct poll){ .call = call,
                          .reader = reader,
                          .lease = in->lease,
                          .sequence = in->sequence,
                          .messages_max = limit(in->messages_max, FETCH_MESSAGES_MAX),
                          .bytes_max = limit(in->bytes_max, FETCH_BYTES_MAX),
                          .deadline_usec = now_usec() + (uint64_t)in->wait_ms * 1000 };
}

/* What nothing was appended to yet may be fetched from: the consumer is there first. */
static struct reader *store_reader(struct store *store, struct bus_call *call, const char *name,
                                   uint64_t lease)
{
    struct reader *reader = NULL;

    if (name[0] && strlen(name) <= QUEUE_NAME_BYTES_MAX && lease > 0)
        reader = queues_reader(store->image->queues, name);
    if (!reader)
        store_answer_error(store, call, STATUS_INVALID,
                           "a lease of 1 or more is expected, and the name of a queue, or its "
                           "folder with the slash if it has one; of at most %d consumers",
                           READERS_MAX);
    return reader;
}

void store_fetch_take(struct store *store, struct bus_call *call, const Bus__Fetch *in)
{
    struct reader *reader;
    struct poll poll;

    if (store_refuse_take(store, call))
        return;
    reader = store_reader(store, call, in->queue, in->lease);
    if (!reader)
        return;
    switch (in->sequence == 0 ? QUEUE_E_SEQUENCE : reader_fetch(reader, in->lease, in->sequence)) {
    case QUEUE_E_LEASE_LOST:
        store_answer(store, call, STATUS_LEASE_LOST);
        return;
    case QUEUE_E_SEQUENCE:
        store_answer_error(store, call, STATUS_INVALID, "a sequence of %lu or more is expected",
                           (unsigned long)(reader->sequence > 0 ? reader->sequence : 1));
        return;
    }
    store_displace(store, reader, in->lease, in->sequence);
    poll = poll_make(call, reader, in);
    if (store_try(store, &poll, in->wait_ms == 0))
        return;
    xgrow(store->polls, store->poll_count, store->poll_capacity);
    store->polls[store->poll_count++] = poll;
    store_arm_polls(store);
}

void store_release_take(struct store *store, struct bus_call *call, const Bus__Release *in)
{
    struct reader *reader;

    if (store_refuse_take(store, call))
        return;
    reader = store_reader(store, call, in->queue, in->lease);
    if (!reader)
        return;
    if (in->lease == reader->lease) {
        store_displace(store, reader, in->lease, 0);
        reader_release(reader);
    }
    store_answer(store, call, STATUS_DONE);
}

void store_park_take(struct store *store, struct bus_call *call, const Bus__Park *in)
{
    struct partition *partition = NULL;
    struct reader *reader;
    struct queue *queue;

    if (store_refuse_take(store, call))
        return;
    reader = store_reader(store, call, in->queue, in->lease);
    if (!reader)
        return;
    if (in->lease > reader->lease)
        store_displace(store, reader, in->lease, 0);
    if (reader_lease(reader, in->lease) != 0) {
        store_answer(store, call, STATUS_LEASE_LOST);
        return;
    }
    queue = queues_find(store->image->queues, in->queue);
    if (queue)
        partition = queue_find_partition(queue, in->partition);
    if (partition)
        partition_park(partition, in->parked);
    store_answer(store, call, STATUS_DONE);
    store_serve(store);
}
