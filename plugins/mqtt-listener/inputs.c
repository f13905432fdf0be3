/* May lose nothing: what was not acknowledged is in the store. */
#include "inputs.h"

#include "input-topic.h"
#include "listener.h"

enum {
    HELD_WINDOWS = 4, /* fetched and not acknowledged, in windows of the client */
    HELD_BYTES_MAX = 256 << 10,
    OUT_BYTES_MAX = 64 << 10, /* a client that does not read is not written to */
    FETCH_WAIT_MS = 20000,
};
static const uint64_t RETRY_USEC = 1000 * 1000;
static const uint64_t RELEASE_DEADLINE_USEC = 10 * 1000 * 1000;
static const uint64_t LOG_INTERVAL_USEC = 10 * 1000 * 1000;

/* A message in the order in which it came. */
struct slot {
    struct flight_message *message; /* NULL: done with, but not those before it */
    uint16_t packet_id;             /* of those that are sent */
};

struct inputs {
    struct inputs_host *host;
    struct connection *connection;
    char *folder; /* "modules/M/inputs/" */
    uint64_t lease, sequence;
    struct bus_request *fetch;
    bool superseded;     /* somebody else holds the module */
    uint64_t retry_usec; /* when to fetch again after a failure; 0: there was none */

    struct slot *slots; /* a ring */
    size_t capacity, first, count;
    size_t sent; /* the first so many are at the client */
    size_t bytes;
    uint64_t progress_usec; /* of the last PUBACK, or of what was sent first after a pause */
};

/* ---- acknowledging to the store ---- */

static void host_on_acked(const Bus__Envelope *answer, void *userdata)
{
    struct inputs_host *host = userdata;

    host->ack_request = NULL;
    if (answer && answer->status == STATUS_DONE)
        flight_acks_confirmed(host->flight);
    else
        host->ack_again = true; /* at the next tick */
}

static void host_send_ack(struct inputs_host *host, Bus__Ack *ack)
{
    Bus__Envelope request = ENVELOPE(ACK, ack, ack);

    host->ack_again = bus_request(host->store, &request, BUS_FOREVER, host_on_acked, host,
                                  &host->ack_request) != 0;
}

void inputs_host_acknowledge(struct inputs_host *host)
{
    Bus__Ack ack = BUS__ACK__INIT;

    if (flight_acks_take(host->flight, &ack)) /* else there are none, or those before are open */
        host_send_ack(host, &ack);
}

void inputs_host_tick(struct inputs_host *host)
{
    Bus__Ack ack = BUS__ACK__INIT;

    if (!host->ack_again)
        return;
    flight_acks_again(host->flight, &ack);
    host_send_ack(host, &ack);
}

bool inputs_host_is_done(const struct inputs_host *host)
{
    return !flight_acks_pending(host->flight) || !bus_peer_is_up(host->store);
}

void inputs_host_init(struct inputs_host *host, struct listener *listener)
{
    host->listener = listener;
    host->store = bus_peer(plugin_bus(listener->plugin), "store");
    host->flight = flight_new(FLIGHT_OF_QUEUES);
    host->arena = arena_new();
}

void inputs_host_done(struct inputs_host *host)
{
    host->ack_request = bus_request_cancel(host->ack_request);
    flight_free(host->flight);
    arena_free(host->arena);
    buf_done(&host->scratch);
}

/* ---- the ring ---- */

static struct slot *inputs_slot(const struct inputs *in, size_t i)
{
    return &in->slots[(in->first + i) % in->capacity];
}

static void inputs_push(struct inputs *in, struct flight_message *message)
{
    in->bytes += message->len;
    *inputs_slot(in, in->count++) = (struct slot){ .message = message };
}

static void inputs_settle(struct inputs *in, size_t i, Bus__Outcome outcome)
{
    struct slot *slot = inputs_slot(in, i);

    in->bytes -= slot->message->len;
    flight_settled(TAKE_PTR(slot->message), outcome);
}

/* Those in front that are done with make place. */
static void inputs_advance(struct inputs *in)
{
    while (in->sent > 0 && !inputs_slot(in, 0)->message) {
        in->first = (in->first + 1) % in->capacity;
        in->count--;
        in->sent--;
    }
}

/* ---- fetching ---- */

static void inputs_log(struct inputs *in, const char *queue, const char *what, const char *reason)
{
    struct listener *l = in->host->listener;
    unsigned suppressed;

    if (log_limit_pass(&l->client_log_limits[in->connection->map_entry.hash % CLIENT_LOG_LIMITS],
                       LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, what, F_QUEUE(queue), F_REASON(reason), F_COUNT(suppressed));
}

static void inputs_log_dropped(struct inputs *in, const char *queue, const char *reason)
{
    inputs_log(in, queue, "message for an input dropped", reason);
}

/* What the client is to get, in the host's scratch: the topic's length, the topic, the payload. NULL,
 * or why it cannot be delivered. */
static const char *inputs_encode(struct inputs *in, const Bus__FetchedItem *item)
{
    struct inputs_host *host = in->host;
    const struct client *client = &in->connection->client;
    const char *input = item->queue + strlen(in->folder);
    Bus__Message *m =
        bus__message__unpack(arena_allocator(host->arena), item->message.len, item->message.data);
    uint16_t topic_len;
    int r;

    if (!m)
        return "it is no bus.Message";
    buf_eat(&host->scratch, buf_len(&host->scratch));
    buf_append_be16(&host->scratch, 0);
    r = input_topic_encode(client->device_id, client->module_id, input, m, &host->scratch);
    if (r == INPUT_TOPIC_E_NAME)
        return "MQTT cannot name the input";
    if (r == INPUT_TOPIC_E_TOO_LONG)
        return "its properties are too long for MQTT";
    topic_len = (uint16_t)(buf_len(&host->scratch) - sizeof(topic_len));
    memcpy(host->scratch.data + host->scratch.start, &topic_len, sizeof(topic_len));
    buf_append(&host->scratch, m->body.data, m->body.len);
    return NULL;
}

static void inputs_take(struct inputs *in, const Bus__FetchedItem *item)
{
    struct inputs_host *host = in->host;
    struct flight_partition *partition = flight_partition(host->flight, item->queue);
    const char *reason = inputs_encode(in, item);
    struct flight_message *message;

    if (reason) {
        host->undeliverable++;
        inputs_log_dropped(in, item->queue, reason);
        flight_refuse(partition, item->priority, item->position, BUS__OUTCOME__OUTCOME_REJECTED);
        return;
    }
    message = flight_add(partition, item->priority, item->position, buf_span(&host->scratch));
    if (message)
        inputs_push(in, message);
}

static void inputs_take_all(struct inputs *in, const Bus__Fetched *fetched)
{
    for (size_t i = 0; i < fetched->n_items && in->count < in->capacity; i++) {
        struct span queue = span_str(fetched->items[i]->queue);

        if (span_eat(&queue, span_str(in->folder)))
            inputs_take(in, fetched->items[i]);
        arena_reset(in->host->arena);
    }
    in->sequence++;
}

static void inputs_on_fetched(const Bus__Envelope *answer, void *userdata)
{
    struct inputs *in = userdata;
    struct listener *l = in->host->listener;

    in->fetch = NULL;
    listener_begin(l);
    listener_touch(l, in->connection); /* whose turn goes on from here */
    if (answer && answer->body_case == BUS__ENVELOPE__BODY_FETCHED) {
        inputs_take_all(in, answer->fetched);
        return;
    }
    if (answer && answer->status == STATUS_LEASE_LOST) {
        in->superseded = true; /* and is told to close by the router */
        return;
    }
    if (answer && answer->status == STATUS_INVALID)
        in->sequence++; /* if the store is ahead of us */
    inputs_log(in, in->folder, "cannot fetch for a module, trying again",
               answer && *answer->error ? answer->error : "no reason given");
    in->retry_usec = l->host.now_usec + RETRY_USEC;
}

/* A fetch for the last few places would cost as much as one for many. */
static bool inputs_has_room(const struct inputs *in)
{
    return in->count <= in->capacity / 2 && in->bytes < HELD_BYTES_MAX;
}

static void inputs_fetch(struct inputs *in)
{
    struct listener *l = in->host->listener;
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);

    if (in->fetch || in->superseded || l->draining || !inputs_has_room(in) ||
        l->host.now_usec < in->retry_usec)
        return;
    in->retry_usec = 0;
    fetch.queue = in->folder;
    fetch.lease = in->lease;
    fetch.sequence = in->sequence;
    fetch.messages_max = (uint32_t)(in->capacity - in->count);
    fetch.bytes_max = HELD_BYTES_MAX;
    fetch.wait_ms = FETCH_WAIT_MS;
    if (bus_poll(in->host->store, &request, inputs_on_fetched, in, &in->fetch) != 0)
        in->retry_usec = l->host.now_usec + RETRY_USEC;
}

/* ---- delivering ---- */

static struct span message_topic(const struct flight_message *m, struct span *ret_payload)
{
    uint16_t topic_len;

    memcpy(&topic_len, m->data, sizeof(topic_len));
    *ret_payload =
        span_of(m->data + sizeof(topic_len) + topic_len, m->len - sizeof(topic_len) - topic_len);
    return span_of(m->data + sizeof(topic_len), topic_len);
}

/* QoS 0 is done with when it is written, and what no subscription wants is not waited for (mqtt.md
 * §9.3). */
static void inputs_send_next(struct inputs *in)
{
    struct slot *slot = inputs_slot(in, in->sent);
    struct inputs_host *host = in->host;
    struct span topic, payload;

    topic = message_topic(slot->message, &payload);
    if (client_send(&in->connection->client, topic, payload, &slot->packet_id) != 0) {
        host->unwanted++;
        inputs_log_dropped(in, flight_name(slot->message),
                           "its module subscribed to other inputs only");
        inputs_settle(in, in->sent, BUS__OUTCOME__OUTCOME_REJECTED);
    } else if (slot->packet_id == 0) {
        host->delivered++;
        inputs_settle(in, in->sent, BUS__OUTCOME__OUTCOME_DELIVERED);
    }
    in->sent++;
}

bool inputs_are_unacknowledged(const struct inputs *in)
{
    return in->sent > 0;
}

static bool inputs_is_open(const struct inputs *in)
{
    return client_is_reachable(&in->connection->client) && !in->host->listener->draining;
}

bool inputs_may_send(const struct inputs *in)
{
    return inputs_is_open(in) && in->sent < in->count &&
           in->sent < in->host->listener->config->input_window &&
           buf_len(&in->connection->client.out) < OUT_BYTES_MAX;
}

void inputs_pump(struct inputs *in)
{
    while (inputs_may_send(in)) {
        if (in->sent == 0)
            in->progress_usec = in->host->listener->host.now_usec;
        inputs_send_next(in);
        inputs_advance(in);
    }
    if (inputs_is_open(in))
        inputs_fetch(in);
}

/* They come in order from nearly all, so the first is nearly always the one. */
void inputs_on_acknowledged(struct inputs *in, uint16_t packet_id)
{
    for (size_t i = 0; i < in->sent; i++) {
        const struct slot *slot = inputs_slot(in, i);

        if (!slot->message || slot->packet_id != packet_id)
            continue;
        in->host->delivered++;
        in->progress_usec = in->host->listener->host.now_usec;
        inputs_settle(in, i, BUS__OUTCOME__OUTCOME_DELIVERED);
        inputs_advance(in);
        return;
    }
}

/* ---- time ---- */

static uint64_t inputs_ack_due_usec(const struct inputs *in)
{
    return in->sent == 0
               ? UINT64_MAX
               : in->progress_usec + in->host->listener->config->input_ack_timeout_sec * 1000000;
}

uint64_t inputs_next_usec(const struct inputs *in)
{
    uint64_t due = inputs_ack_due_usec(in);

    return in->retry_usec > 0 && in->retry_usec < due ? in->retry_usec : due;
}

/* The client has it and does not say so: the C SDK, for one, lets go of a message so (mqtt.md §9.3).
 * With the same identifier, so that a late PUBACK counts. */
static void inputs_send_again(struct inputs *in)
{
    for (size_t i = 0; i < in->sent; i++) {
        const struct slot *slot = inputs_slot(in, i);
        struct span topic, payload;

        if (!slot->message)
            continue;
        topic = message_topic(slot->message, &payload);
        client_send_again(&in->connection->client, topic, payload, slot->packet_id);
        in->host->resent++;
    }
}

void inputs_on_time(struct inputs *in)
{
    const struct client *client = &in->connection->client;

    if (in->host->listener->host.now_usec < inputs_ack_due_usec(in))
        return;
    in->progress_usec = in->host->listener->host.now_usec;
    /* One that is not read cannot say so, and one that does not read has it still to come. */
    if (client_is_reachable(client) && buf_len(&client->out) == 0)
        inputs_send_again(in);
}

/* ---- life ---- */

/* Greater than that of anybody who held the module before, in whatever process. */
static uint64_t inputs_take_lease(struct inputs_host *host)
{
    uint64_t now = boot_usec();

    host->last_lease = now > host->last_lease ? now : host->last_lease + 1;
    return host->last_lease;
}

struct inputs *inputs_new(struct inputs_host *host, struct connection *connection)
{
    struct inputs *in = xnew(struct inputs);

    in->host = host;
    in->connection = connection;
    in->folder = xasprintf("modules/%s/inputs/", connection->client.module_id);
    in->lease = inputs_take_lease(host);
    in->sequence = 1;
    in->capacity = HELD_WINDOWS * host->listener->config->input_window;
    in->slots = xnew_n(struct slot, in->capacity);
    return in;
}

static void inputs_on_released(const Bus__Envelope *answer, void *userdata) {}

/* So that it can expire meanwhile. Best effort: who comes next takes it over anyway. */
static void inputs_release(struct inputs *in)
{
    Bus__Release release = BUS__RELEASE__INIT;
    Bus__Envelope request = ENVELOPE(RELEASE, release, &release);

    release.queue = in->folder;
    release.lease = in->lease;
    (void)bus_request(in->host->store, &request, RELEASE_DEADLINE_USEC, inputs_on_released, NULL,
                      NULL);
}

struct inputs *inputs_free(struct inputs *in)
{
    if (!in)
        return NULL;
    bus_request_cancel(in->fetch);
    inputs_host_acknowledge(in->host); /* before: what is acknowledged must not expire */
    if (!in->superseded)
        inputs_release(in);
    for (size_t i = 0; i < in->count; i++)
        if (inputs_slot(in, i)->message)
            flight_forget(inputs_slot(in, i)->message);
    free(in->slots);
    free(in->folder);
    free(in);
    return NULL;
}
