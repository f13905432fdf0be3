/*
 * What is decided is in send-window.c; here it is done. Nothing here is on disk: what was not
 * committed when this process dies was not acknowledged, and its client sends it again.
 */
#include "producer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

#include "log.h"
#include "send-window.h"
#include "timer.h"

static const uint64_t LOG_INTERVAL_USEC = 10 * 1000 * 1000;

struct producer_slot {
    struct producer *producer;
    uint64_t sequence;
    Bus__PublishItem **items;
    size_t count;
    bool reserve;
    void *batch;
    struct bus_request *request; /* NULL: none is open */
};

struct producer {
    struct bus_peer *router;
    char *base_name;
    uint64_t generation;
    char *name;      /* what the store knows it by */
    uint64_t offset; /* sequences under this name begin after it */
    bool rename;     /* the store does not know this name's past: go on under another */
    struct send_window window;
    struct producer_slot slots[SEND_WINDOW_MAX];
    sd_event_source *retry_timer;
    producer_committed_fn *committed;
    void *userdata;
    void (*on_room)(void *userdata);
    void *room_userdata;
    producer_refused_fn *on_refused;
    void *refused_userdata;
    enum producer_refusal refusal; /* of the first that is not done; 0: none */
    char *reason;
    uint64_t take_back, take_back_end; /* the sequences of those that were refused */
    struct log_limit retry_limit;
};

static int producer_take_new_name(struct producer *producer)
{
    uint64_t unique;

    if (getrandom(&unique, sizeof(unique), 0) != sizeof(unique))
        return -EIO;
    free(producer->name);
    producer->name =
        xasprintf("%s.%" PRIu64 ".%016" PRIx64, producer->base_name, producer->generation, unique);
    producer->offset = producer->window.base - 1;
    producer->rename = false;
    return 0;
}

static struct producer_slot *producer_slot(struct producer *producer, uint64_t sequence)
{
    return &producer->slots[sequence % SEND_WINDOW_MAX];
}

/* ---- answers ---- */

/* The store expects what was committed long ago, or what was never sent: it forgot this name (it
 * was idle for long, or the store was replaced), and a new one starts at 1. What is under way was
 * refused as a gap, so nothing is stored twice. */
static bool producer_is_forgotten(const struct producer *producer, const Bus__Envelope *answer)
{
    uint64_t expected;

    if (answer->body_case != BUS__ENVELOPE__BODY_APPENDED)
        return false;
    expected = answer->appended->expected_sequence + producer->offset;
    return expected < producer->window.base || expected > producer->window.next;
}

static enum send_answer producer_judge(struct producer *producer, const Bus__Envelope *answer)
{
    unsigned suppressed;

    if (answer->status == STATUS_DONE)
        return SEND_DONE;
    if (answer->status == STATUS_OUT_OF_ORDER) {
        producer->rename |= producer_is_forgotten(producer, answer);
        return SEND_GAP;
    }
    if (producer->on_refused &&
        (answer->status == STATUS_FULL || answer->status == STATUS_INVALID)) {
        producer->refusal = answer->status == STATUS_FULL ? PRODUCER_FULL : PRODUCER_INVALID;
        free(producer->reason);
        producer->reason = xstrdup(answer->error);
        return SEND_RETRY;
    }
    if (log_limit_pass(&producer->retry_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, "batch is not taken yet, sending it again",
                  F_STATUS(answer->status), F_REASON(answer->error), F_COUNT(suppressed));
    return SEND_RETRY;
}

static void producer_report_committed(struct producer *producer)
{
    bool was_full = send_window_room(&producer->window) == 0;
    uint64_t sequence;

    while (send_window_commit(&producer->window, &sequence))
        producer->committed(TAKE_PTR(producer_slot(producer, sequence)->batch), producer->userdata);
    if (was_full && send_window_room(&producer->window) > 0 && producer->on_room)
        producer->on_room(producer->room_userdata);
}

static void producer_send(struct producer *producer);

/* Those behind the one that was refused found a gap, so none of them is done. */
static void producer_give_up(struct producer *producer)
{
    enum producer_refusal refusal = producer->refusal;
    _cleanup_(freep) char *reason = TAKE_PTR(producer->reason);

    producer->refusal = 0;
    producer->take_back = producer->window.base;
    producer->take_back_end = producer->window.next;
    send_window_give_up(&producer->window);
    producer->on_refused(refusal, reason, producer->refused_userdata);
}

static void producer_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct producer_slot *slot = userdata;
    struct producer *producer = slot->producer;
    uint64_t delay;

    slot->request = NULL;
    send_window_answered(&producer->window, slot->sequence, producer_judge(producer, answer));
    producer_report_committed(producer);
    if (producer->refusal && send_window_stuck(&producer->window, &delay))
        producer_give_up(producer);
    producer_send(producer);
}

/* ---- sending ---- */

static void producer_send_slot(struct producer *producer, struct producer_slot *slot)
{
    Bus__Publish publish = BUS__PUBLISH__INIT;
    Bus__Envelope request = ENVELOPE(PUBLISH, publish, &publish);
    int r;

    publish.producer = producer->name;
    publish.sequence = slot->sequence - producer->offset;
    publish.reserve = slot->reserve;
    publish.n_items = slot->count;
    publish.items = slot->items;
    r = bus_request(producer->router, &request, BUS_FOREVER, producer_on_answer, slot,
                    &slot->request);
    assert(r != -EMSGSIZE); /* whoever makes batches keeps them below it */
    if (r == 0)
        return;
    if (r < 0)
        log_event(LOG_WARNING, r, "cannot send batch, trying again");
    send_window_answered(&producer->window, slot->sequence, SEND_RETRY);
}

/* Sends what may be sent; when it is stuck, arms the timer after which it goes back. */
static void producer_send(struct producer *producer)
{
    uint64_t sequence, delay;

    while (send_window_take(&producer->window, &sequence))
        producer_send_slot(producer, producer_slot(producer, sequence));
    if (send_window_stuck(&producer->window, &delay) &&
        sd_event_source_get_enabled(producer->retry_timer, NULL) == 0)
        timer_rearm(producer->retry_timer, delay);
}

static int producer_on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct producer *producer = userdata;
    int r;

    if (producer->rename) {
        r = producer_take_new_name(producer);
        if (r < 0)
            return r;
        log_event(LOG_INFO, 0, "the store forgot this producer, going on under a new name",
                  F_CLIENT(producer->name));
    }
    send_window_go_back(&producer->window);
    producer_send(producer);
    return 0;
}

void producer_on_refused(struct producer *producer, producer_refused_fn *fn, void *userdata)
{
    producer->on_refused = fn;
    producer->refused_userdata = userdata;
}

void *producer_take_back(struct producer *producer)
{
    if (producer->take_back == producer->take_back_end)
        return NULL;
    return TAKE_PTR(producer_slot(producer, producer->take_back++)->batch);
}

void producer_add_batch(struct producer *producer, Bus__PublishItem **items, size_t count,
                        bool reserve, void *batch)
{
    uint64_t sequence = send_window_add(&producer->window);

    *producer_slot(producer, sequence) = (struct producer_slot){
        .producer = producer,
        .sequence = sequence,
        .items = items,
        .count = count,
        .reserve = reserve,
        .batch = batch,
    };
    producer_send(producer);
}

unsigned producer_room(const struct producer *producer)
{
    return send_window_room(&producer->window);
}

unsigned producer_outstanding(const struct producer *producer)
{
    return producer->window.size - send_window_room(&producer->window);
}

void producer_on_room(struct producer *producer, void (*fn)(void *userdata), void *userdata)
{
    producer->on_room = fn;
    producer->room_userdata = userdata;
}

/* ---- life ---- */

int producer_new(struct bus_peer *router, const char *name, uint64_t generation,
                 producer_committed_fn *committed, void *userdata, sd_event *event,
                 struct producer **ret)
{
    _cleanup_(producer_freep) struct producer *producer = xnew(struct producer);
    int r;

    producer->router = router;
    producer->base_name = xstrdup(name);
    producer->generation = generation;
    producer->committed = committed;
    producer->userdata = userdata;
    send_window_init(&producer->window, PRODUCER_WINDOW);
    r = producer_take_new_name(producer);
    if (r < 0)
        return r;
    r = sd_event_add_time(event, &producer->retry_timer, CLOCK_MONOTONIC, UINT64_MAX, 1000,
                          producer_on_retry, producer);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(producer->retry_timer, true);
    if (r >= 0)
        r = timer_stop(producer->retry_timer);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(producer);
    return 0;
}

struct producer *producer_free(struct producer *producer)
{
    if (!producer)
        return NULL;
    producer->retry_timer = sd_event_source_disable_unref(producer->retry_timer);
    for (unsigned i = 0; i < SEND_WINDOW_MAX; i++)
        bus_request_cancel(producer->slots[i].request);
    free(producer->reason);
    free(producer->base_name);
    free(producer->name);
    free(producer);
    return NULL;
}
