/* Messages are done with: what a consumer settled is deleted, and counted by its outcome. */
#include "store.h"

enum {
    ACK_MESSAGES_MAX = 65536, /* removed by one request */
    ACK_RANGES_MAX = 65536,   /* a consumer holds no more */
};

static bool outcome_parse(Bus__Outcome in, enum outcome *ret)
{
    static const struct {
        Bus__Outcome in;
        enum outcome outcome;
    } outcomes[] = {
        { BUS__OUTCOME__OUTCOME_DELIVERED, OUTCOME_DELIVERED },
        { BUS__OUTCOME__OUTCOME_REJECTED, OUTCOME_REJECTED },
        { BUS__OUTCOME__OUTCOME_EXPIRED, OUTCOME_EXPIRED },
        { BUS__OUTCOME__OUTCOME_DROPPED, OUTCOME_DROPPED },
    };

    for (size_t i = 0; i < ELEMENTSOF(outcomes); i++) {
        if (outcomes[i].in != in)
            continue;
        *ret = outcomes[i].outcome;
        return true;
    }
    return false;
}

/* A range being removed, and how many more may be. */
struct removal {
    struct store *store;
    struct stream *stream;
    uint64_t first, last;
    enum outcome outcome;
    unsigned left;
};

static void removal_one(struct removal *m, uint64_t position, uint32_t bytes)
{
    m->first = position + 1;
    if (!stream_remove(m->stream, position, bytes, m->outcome))
        return;
    store_remove(m->store, m->stream, position, bytes);
    m->left--;
}

/* What the lease holds: all is known. */
static void removal_in_flight(struct removal *m)
{
    const struct window_entry *entry;

    while (m->left > 0 && m->first <= m->last &&
           (entry = stream_in_flight(m->stream, m->first, m->last)))
        removal_one(m, entry->position, entry->bytes);
}

/* What somebody held before the store, or the lease, began: the database is asked. */
static int removal_scan(struct removal *m, struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        store_scan(m->store, m->stream, m->first, m->last);
    struct span key, value;

    while (m->left > 0) {
        struct message_value v;
        struct message_key k;

        if (!rocks_scan_next(scan, &key, &value))
            return rocks_scan_error(scan, ret_error);
        if (key_message_parse(key, &k) == 0 && value_message_parse(value, &v) == 0)
            removal_one(m, k.position, (uint32_t)v.message.len);
    }
    return 0;
}

static int removal_run(struct removal *m, struct rocks_error *ret_error)
{
    if (!stream_clip(m->stream, &m->first, &m->last))
        return 0;
    if (!stream_covers(m->stream, m->first, m->last))
        return removal_scan(m, ret_error);
    removal_in_flight(m);
    return 0;
}

/* NULL: nothing of it is there any more. */
static struct stream *store_acked_stream(struct store *store, const Bus__Ack *in,
                                         const Bus__AckRange *range)
{
    struct queue *queue = queues_find(store->image->queues, *in->queue ? in->queue : range->queue);

    return queue ? queue_find_stream(queue, range->partition, range->priority) : NULL;
}

static int store_ack_ranges(struct store *store, const Bus__Ack *in, unsigned *left,
                            struct rocks_error *ret_error)
{
    for (size_t i = 0; i<in->n_ranges && * left> 0; i++) {
        const Bus__AckRange *range = in->ranges[i];
        struct removal m = { .store = store,
                             .stream = store_acked_stream(store, in, range),
                             .first = range->first,
                             .last = range->last,
                             .left = *left };
        int r;

        if (!m.stream)
            continue;
        outcome_parse(range->outcome, &m.outcome);
        r = removal_run(&m, ret_error);
        if (r != 0)
            return r;
        store->acked += *left - m.left;
        *left = m.left;
    }
    return 0;
}

int store_remove_all(struct store *store, struct stream *stream, enum outcome outcome,
                     unsigned *left, struct rocks_error *ret_error)
{
    struct removal m = { .store = store,
                         .stream = stream,
                         .first = 0,
                         .last = UINT64_MAX,
                         .outcome = outcome,
                         .left = *left };
    int r = removal_run(&m, ret_error);

    *left = m.left;
    return r;
}

static bool ack_is_valid(const Bus__Ack *in)
{
    enum outcome outcome;

    if (in->n_ranges > ACK_RANGES_MAX)
        return false;
    for (size_t i = 0; i < in->n_ranges; i++)
        if (!outcome_parse(in->ranges[i]->outcome, &outcome) ||
            in->ranges[i]->first > in->ranges[i]->last)
            return false;
    return true;
}

/* Of any lease, even one that was taken over: what it delivered is delivered, and need not be
 * delivered again. */
void store_ack_take(struct store *store, struct bus_call *call, const Bus__Ack *in)
{
    unsigned left = ACK_MESSAGES_MAX;
    struct rocks_error error;
    int r;

    if (store_refuse_take(store, call))
        return;
    if (!ack_is_valid(in)) {
        store_answer_error(store, call, STATUS_INVALID,
                           "up to %d ranges from first to last, with an outcome, are expected",
                           ACK_RANGES_MAX);
        return;
    }
    r = store_ack_ranges(store, in, &left, &error);
    if (r != 0) {
        store_fail_take(store, call, r, &error);
        return;
    }
    if (left == 0) {
        store_answer_error(store, call, STATUS_BUSY,
                           "%d messages are removed: ask again for the rest", ACK_MESSAGES_MAX);
        return;
    }
    /* Also when nothing was there: it may be in the group that is on its way. */
    commit_need(store->commit, false);
    commit_wait(store->commit, &(struct waiter){ .call = call, .kind = WAITER_ACK });
}
