/* A store of one's own in a new folder, called as the bus would call it, with answers that can be
 * looked at. */
#pragma once

#include <assert.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "log.h"
#include "store.h"
#include "timer.h"

/* A request, and what came of it. */
struct reply {
    unsigned answers; /* 1 when it is answered */
    bool dropped;
    Bus__Envelope *envelope; /* what was answered; NULL when dropped */
};

struct harness {
    char dir[64];
    sd_event *event;
    struct store_config config;
    struct store *store;
    bool opened, drained;
};

#define HARNESS_CONFIG                                                                             \
    (struct store_config)                                                                          \
    {                                                                                              \
        .durability = DURABILITY_SYNC, .durability_interval_ms = 20, .max_bytes = 64 << 20,        \
        .max_share = 100, .memtable_bytes = 1 << 20, .block_cache_bytes = 1 << 20,                 \
        .open_files = 64                                                                           \
    }

static inline Bus__Envelope *envelope_dup(const Bus__Envelope *in)
{
    size_t len = bus__envelope__get_packed_size(in);
    uint8_t *packed = xrealloc(NULL, len);
    Bus__Envelope *copy;

    bus__envelope__pack(in, packed);
    copy = bus__envelope__unpack(NULL, len, packed);
    free(packed);
    assert(copy);
    return copy;
}

static inline void harness_on_answer(struct bus_call *call, Bus__Envelope *answer, void *userdata)
{
    struct reply *reply = (struct reply *)call;

    reply->answers++;
    if (!answer) {
        reply->dropped = true;
        return;
    }
    if (answer->status == STATUS_UNSET)
        answer->status = STATUS_DONE;
    reply->envelope = envelope_dup(answer);
}

static inline void harness_on_opened(void *userdata)
{
    struct harness *h = userdata;

    h->opened = true;
}

static inline void harness_on_drained(void *userdata)
{
    struct harness *h = userdata;

    h->drained = true;
}

/* One turn of the loop; waits for the next event. */
static inline void harness_turn(struct harness *h)
{
    int r = sd_event_run(h->event, 10000000);

    assert(r > 0); /* 0: ten seconds without any event */
}

static inline void harness_open(struct harness *h)
{
    static const struct store_ops ops = { harness_on_answer, harness_on_opened,
                                          harness_on_drained };
    int r = store_new(h->event, &h->config, h->dir, &ops, h, &h->store);

    assert(r == 0);
    h->opened = h->drained = false;
    /* Until the first attempt is over, however long it takes (the store is announced before). */
    while (!h->opened || (!h->store->image && h->store->failures == 0))
        harness_turn(h);
}

static inline void harness_begin(struct harness *h, const struct store_config *config)
{
    int r;

    *h = (struct harness){ .dir = "/tmp/brink-store-XXXXXX", .config = *config };
    if (!mkdtemp(h->dir))
        abort();
    r = sd_event_new(&h->event);
    assert(r == 0);
}

/* As a crash of the process would: without drain, without waiting for what is under way. */
static inline void harness_crash(struct harness *h)
{
    h->store = store_free(h->store);
}

static inline void harness_drain(struct harness *h)
{
    store_drain(h->store);
    while (!h->drained)
        harness_turn(h);
    h->store = store_free(h->store);
}

static inline int harness_remove_one(const char *path, const struct stat *st, int kind,
                                     struct FTW *ftw)
{
    return remove(path);
}

static inline void harness_remove_dir(const char *dir)
{
    nftw(dir, harness_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void harness_end(struct harness *h)
{
    h->store = store_free(h->store);
    sd_event_unref(h->event);
    harness_remove_dir(h->dir);
}

static inline struct bus_call *reply_call(struct reply *reply)
{
    return (struct bus_call *)reply;
}

static inline void reply_done(struct reply *reply)
{
    if (reply->envelope)
        bus__envelope__free_unpacked(reply->envelope, NULL);
    *reply = (struct reply){};
}

/* Waits for the answer, and gives its status. */
static inline Bus__Status reply_wait(struct harness *h, struct reply *reply)
{
    while (reply->answers == 0)
        harness_turn(h);
    assert(reply->answers == 1 && reply->envelope);
    return reply->envelope->status;
}

struct batch_item {
    const char *queue;
    const char *partition;
    uint32_t priority;
    int64_t ttl_sec;
    const char *text;
};

static inline void harness_append(struct harness *h, struct reply *reply, const char *producer,
                                  uint64_t sequence, const struct batch_item *items, size_t count)
{
    Bus__Append append = BUS__APPEND__INIT;
    Bus__AppendTarget *targets = xnew_n(Bus__AppendTarget, count),
                      **target_list = xnew_n(Bus__AppendTarget *, count);
    Bus__AppendItem *list = xnew_n(Bus__AppendItem, count),
                    **item_list = xnew_n(Bus__AppendItem *, count);

    for (size_t i = 0; i < count; i++) {
        bus__append_target__init(&targets[i]);
        targets[i].queue = (char *)items[i].queue;
        targets[i].partition = (char *)items[i].partition;
        targets[i].priority = items[i].priority;
        targets[i].ttl_sec = items[i].ttl_sec;
        target_list[i] = &targets[i];
        bus__append_item__init(&list[i]);
        list[i].n_targets = 1;
        list[i].targets = &target_list[i];
        list[i].message = (ProtobufCBinaryData){ strlen(items[i].text), (uint8_t *)items[i].text };
        item_list[i] = &list[i];
    }
    append.producer = (char *)producer;
    append.sequence = sequence;
    append.n_items = count;
    append.items = item_list;
    store_append_take(h->store, reply_call(reply), &append);
    free(targets);
    free(target_list);
    free(list);
    free(item_list);
}

static inline void harness_fetch(struct harness *h, struct reply *reply, const char *queue,
                                 uint64_t lease, uint64_t sequence, uint32_t messages_max,
                                 uint32_t wait_ms)
{
    Bus__Fetch fetch = BUS__FETCH__INIT;

    fetch.queue = (char *)queue;
    fetch.lease = lease;
    fetch.sequence = sequence;
    fetch.messages_max = messages_max;
    fetch.wait_ms = wait_ms;
    store_fetch_take(h->store, reply_call(reply), &fetch);
}

static inline void harness_ack(struct harness *h, struct reply *reply, const char *queue,
                               uint64_t lease, const char *partition, uint32_t priority,
                               uint64_t first, uint64_t last, Bus__Outcome outcome)
{
    Bus__AckRange range = BUS__ACK_RANGE__INIT, *ranges[] = { &range };
    Bus__Ack ack = BUS__ACK__INIT;

    range.partition = (char *)partition;
    range.priority = priority;
    range.first = first;
    range.last = last;
    range.outcome = outcome;
    ack.queue = (char *)queue;
    ack.lease = lease;
    ack.n_ranges = 1;
    ack.ranges = ranges;
    store_ack_take(h->store, reply_call(reply), &ack);
}

static inline void harness_park(struct harness *h, struct reply *reply, const char *queue,
                                uint64_t lease, const char *partition, bool parked)
{
    Bus__Park park = BUS__PARK__INIT;

    park.queue = (char *)queue;
    park.lease = lease;
    park.partition = (char *)partition;
    park.parked = parked;
    store_park_take(h->store, reply_call(reply), &park);
}
