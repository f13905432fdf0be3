/*
 * Once a minute: messages whose time is over are removed where no consumer comes to find them;
 * partitions that have been empty for long are forgotten; the time the machine was off is counted
 * when the wall clock can be believed at last. Goes in slices, each with a group of its own, so
 * that nobody waits for it.
 */
#include "store.h"

#include "log.h"
#include "timer.h"

enum {
    SWEEP_USEC = 60000000,
    SLICE_ROWS = 1000,
    FORGET_MS = 10 * 60 * 1000,
};

/* One row. False: the stream is swept, since it is in order and this one lives on. */
static bool sweep_row(struct store *store, struct stream *stream, uint64_t position,
                      const struct message_value *v, uint64_t now_ms, uint64_t *first_ms)
{
    if (v->expires_ms > now_ms) {
        if (v->expires_ms < *first_ms)
            *first_ms = v->expires_ms;
        return stream->meta.unordered;
    }
    if (stream_remove(stream, position, (uint32_t)v->message.len, OUTCOME_EXPIRED))
        store_remove(store, stream, position, v->message.len);
    return true;
}

struct slice {
    struct store *store;
    uint64_t now_ms;
    unsigned rows; /* how many more may be looked at */
    int result;
    struct rocks_error error;
};

/* As much as the slice allows of one stream that is due. */
static int sweep_stream(struct slice *slice, struct stream *stream)
{
    uint64_t from = stream->sweep_at > stream->cursor ? stream->sweep_at : stream->cursor;
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        store_scan(slice->store, stream, from, stream->durable - 1);
    uint64_t first_ms = stream->sweep_at == 0 ? EXPIRES_NEVER : stream->sweep_first_ms;
    struct span key, value;

    for (; slice->rows > 0; slice->rows--) {
        struct message_value v;
        struct message_key k;

        if (!rocks_scan_next(scan, &key, &value)) {
            stream_swept(stream, first_ms);
            return rocks_scan_error(scan, &slice->error);
        }
        if (key_message_parse(key, &k) != 0 || value_message_parse(value, &v) != 0)
            return ROCKS_E_CORRUPT;
        if (!sweep_row(slice->store, stream, k.position, &v, slice->now_ms, &first_ms)) {
            stream_swept(stream, first_ms);
            return 0;
        }
        stream->sweep_at = k.position + 1;
    }
    stream->sweep_first_ms = first_ms;
    return 0;
}

/* True: the slice ends here. */
static bool sweep_visit(struct stream *stream, void *userdata)
{
    struct slice *slice = userdata;

    if (stream_is_due(stream, slice->now_ms))
        slice->result = sweep_stream(slice, stream);
    return slice->result != 0 || slice->rows == 0;
}

/* The next slice; it goes on when that is written, until nothing is due. */
void store_sweep_go_on(struct store *store)
{
    struct slice slice = { .store = store,
                           .now_ms = store_clock_ms(store),
                           .rows = SLICE_ROWS,
                           .error = { "a message does not make sense" } };

    if (!store->sweeping || !store->image || store->failing)
        return;
    queues_each(store->image->queues, sweep_visit, &slice);
    if (slice.result != 0) {
        store_fail_take(store, NULL, slice.result, &slice.error);
        return;
    }
    store->sweeping = slice.rows == 0;
    if (store->sweeping)
        commit_need(store->commit, false);
}

static void store_settle_clock(struct store *store)
{
    struct clock_reading now = store_read_clocks(store);

    if (clock_settle(&store->clock, &now))
        log_event(LOG_INFO, 0,
                  "the wall clock is set: the time the machine was off counts for messages");
}

void store_sweep(struct store *store)
{
    uint64_t now_ms = store_clock_ms(store);

    queues_forget(store->image->queues, now_ms > FORGET_MS ? now_ms - FORGET_MS : 0);
    if (queues_dirty(store->image->queues))
        commit_need(store->commit, false);
    store->sweeping = true;
    store_sweep_go_on(store);
}

static int store_on_sweep(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct store *store = userdata;

    timer_rearm(store->sweep_timer, SWEEP_USEC);
    if (!store->image || store->failing || store->draining)
        return 0;
    store_settle_clock(store);
    store_sweep(store);
    return 0;
}

int store_sweep_init(struct store *store)
{
    return store_add_timer(store, &store->sweep_timer, store_on_sweep, SWEEP_USEC);
}
