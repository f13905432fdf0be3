/*
 * What the upstream asks of store and identity, and what it tells. One Fetch and one Ack are open at a time: what is settled
 * meanwhile gathers for the next Ack.
 */
#include "amqp-message.h"
#include "message.h"
#include "upstream.h"

#define QUEUE "$upstream"

enum {
    FETCH_MESSAGES_MAX = 1000,
    FETCH_BYTES_MAX = 1 << 20,
    FETCH_WAIT_MS = 20000,
    PARKS_MAX = 8,
    REFRESHES_MAX = 4,
};
#define SEC_USEC              UINT64_C(1000000)
#define RETRY_USEC            (1 * SEC_USEC)
#define CHAIN_DEADLINE_USEC   (10 * SEC_USEC)
#define REFRESH_DEADLINE_USEC (60 * SEC_USEC)
#define LOG_INTERVAL_USEC     (60 * SEC_USEC)
#define TOKEN_EARLY_SEC       (30 * 60) /* before it ends, or half its life if that is shorter */
#define TOKEN_CHECK_USEC      (60 * SEC_USEC) /* clocks jump: the expiry is looked at this often */
#define TOKEN_AGAIN_USEC      (60 * SEC_USEC) /* one that the hub refused is asked for no more often */

static void log_refused(struct upstream *up, const char *what, const Bus__Envelope *answer)
{
    unsigned suppressed;

    if (log_limit_pass(&up->fetch_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, what, F_STATUS(answer->status), F_REASON(answer->error),
                  F_NUM("suppressed", suppressed));
}

/* A newer process of ours has the queue: what we hold is its to send. */
static void upstream_superseded(struct upstream *up)
{
    if (up->superseded)
        return;
    up->superseded = true;
    log_event(LOG_INFO, 0, "a newer upstream has the queue, this one stops", F_QUEUE(QUEUE));
    connection_stop(up->connection);
}

/* ---- The token ---- */

static void token_clear(struct upstream_token *token)
{
    free(token->text);
    free(token->hub);
    free(token->gateway);
    free(token->device_id);
    *token = (struct upstream_token){};
}

static void token_ask(struct upstream *up);

static void token_arm(struct upstream *up)
{
    int64_t left = up->token.expires_sec - utc_sec();

    timer_rearm(up->token_timer, left > 0 && (uint64_t)left * SEC_USEC / 2 < TOKEN_CHECK_USEC
                                     ? (uint64_t)left * SEC_USEC / 2 + SEC_USEC
                                     : TOKEN_CHECK_USEC);
}

static void token_take(struct upstream *up, const Bus__Token *in)
{
    token_clear(&up->token);
    up->token = (struct upstream_token){
        .text = xstrdup(in->sas_token),
        .hub = xstrdup(in->hub_hostname),
        .gateway = xstrdup(in->gateway_hostname),
        .device_id = xstrdup(in->device_id),
        .expires_sec = in->expires_sec,
        .taken_usec = now_usec(),
        .life_sec = in->expires_sec - utc_sec(),
    };
    token_arm(up);
    upstream_on_token(up);
}

static void token_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct upstream *up = userdata;

    up->token_request = NULL;
    if (answer && answer->body_case == BUS__ENVELOPE__BODY_TOKEN &&
        identity_id_valid(answer->token->device_id)) {
        token_take(up, answer->token);
        return;
    }
    if (answer && !up->token.text)
        snprintf(up->last_error, sizeof(up->last_error), "no token: %s", answer->error);
    timer_rearm(up->token_timer, 2 * RETRY_USEC);
}

static void token_ask(struct upstream *up)
{
    Bus__TokenGet get = BUS__TOKEN_GET__INIT;
    Bus__Envelope request = ENVELOPE(TOKEN_GET, token_get, &get);

    if (up->token_request)
        return;
    if (bus_request(up->identity, &request, BUS_FOREVER, token_on_answer, up, &up->token_request) !=
        0)
        timer_rearm(up->token_timer, RETRY_USEC);
}

/* Identity hands out what it has while that is good for long; so asking early is cheap. */
static int token_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct upstream *up = userdata;
    int64_t early =
        up->token.life_sec / 2 < TOKEN_EARLY_SEC ? up->token.life_sec / 2 : TOKEN_EARLY_SEC;

    if (!up->token.text || up->token.expires_sec - utc_sec() <= early)
        token_ask(up);
    else
        token_arm(up);
    return 0;
}

void upstream_bus_token_again(struct upstream *up)
{
    if (now_usec() - up->token.taken_usec > TOKEN_AGAIN_USEC)
        token_ask(up);
}

/* ---- Fetching ---- */

/* As it goes over the wire, in up->scratch. False: it makes no sense. */
static bool item_encode(struct upstream *up, const Bus__FetchedItem *item)
{
    Bus__Message *m =
        bus__message__unpack(arena_allocator(up->arena), item->message.len, item->message.data);

    buf_eat(&up->scratch, buf_len(&up->scratch));
    if (m)
        amqp_message_encode_upstream(m, &up->scratch);
    return m != NULL;
}

static void item_refuse(struct upstream *up, const Bus__FetchedItem *item, const char *reason)
{
    unsigned suppressed;

    flight_refuse(flight_partition(up->flight, item->partition), item->priority, item->position,
                  BUS__OUTCOME__OUTCOME_REJECTED);
    if (log_limit_pass(&up->message_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_ERR, 0, "message dropped, it cannot be sent", F_CLIENT(item->partition),
                  F_REASON(reason), F_NUM("position", item->position),
                  F_NUM("suppressed", suppressed));
}

static void item_take(struct upstream *up, const Bus__FetchedItem *item)
{
    struct identity_link *i = upstream_identity(up, item->partition);

    if (!i) {
        item_refuse(up, item, "its partition is no identity");
    } else if (i->state == IDENTITY_PAUSED) {
        upstream_bus_park(i, true); /* the store forgot that it is parked: it was restarted */
    } else if (i->gone) {
        flight_refuse(i->messages, item->priority, item->position, BUS__OUTCOME__OUTCOME_DROPPED);
    } else if (!item_encode(up, item)) {
        item_refuse(up, item, "it is no bus.Message");
    } else if (flight_add(i->messages, item->priority, item->position, buf_span(&up->scratch))) {
        upstream_on_message(i);
    }
}

static void fetch_on_items(struct upstream *up, const Bus__Fetched *fetched)
{
    for (size_t n = 0; n < fetched->n_items; n++) {
        item_take(up, fetched->items[n]);
        arena_reset(up->arena);
    }
    up->fetch_sequence++;
    upstream_bus_ack(up); /* of what was refused */
    upstream_bus_fetch(up);
}

static void fetch_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct upstream *up = userdata;

    up->fetch_request = NULL;
    if (answer && answer->body_case == BUS__ENVELOPE__BODY_FETCHED) {
        fetch_on_items(up, answer->fetched);
        return;
    }
    if (answer && answer->status == STATUS_LEASE_LOST) {
        upstream_superseded(up);
        return;
    }
    if (answer)
        log_refused(up, "fetch refused", answer);
    if (answer && answer->status == STATUS_INVALID)
        up->fetch_sequence++; /* the store is ahead of us */
    timer_rearm(up->fetch_timer, RETRY_USEC);
}

/* A fetch for the last few places of the window would cost as much as one for many. */
static bool fetch_has_room(const struct upstream *up, uint64_t *ret_messages, uint64_t *ret_bytes)
{
    const struct flight_totals *held = flight_totals(up->flight);
    uint64_t messages = up->config->window_messages, bytes = up->config->window_bytes;

    if (held->messages > messages - messages / 4 || held->bytes > bytes - bytes / 4)
        return false;
    *ret_messages = messages - held->messages;
    *ret_bytes = bytes - held->bytes;
    return *ret_messages > 0;
}

void upstream_bus_fetch(struct upstream *up)
{
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);
    uint64_t messages, bytes;

    if (up->fetch_request || !up->online || up->draining || up->superseded ||
        !fetch_has_room(up, &messages, &bytes))
        return;
    timer_stop(up->fetch_timer);
    fetch.queue = (char *)QUEUE;
    fetch.lease = plugin_generation(up->plugin);
    fetch.sequence = up->fetch_sequence;
    fetch.messages_max = messages < FETCH_MESSAGES_MAX ? (uint32_t)messages : FETCH_MESSAGES_MAX;
    fetch.bytes_max = bytes < FETCH_BYTES_MAX ? (uint32_t)bytes : FETCH_BYTES_MAX;
    fetch.wait_ms = FETCH_WAIT_MS;
    if (bus_poll(up->store, &request, fetch_on_answer, up, &up->fetch_request) != 0)
        timer_rearm(up->fetch_timer, RETRY_USEC);
}

static int fetch_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    upstream_bus_fetch(userdata);
    return 0;
}

/* ---- Acknowledging ---- */

static void ack_send(struct upstream *up, Bus__Ack *ack);

static void ack_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct upstream *up = userdata;

    up->ack_request = NULL;
    if (answer && answer->status == STATUS_DONE) {
        flight_acks_confirmed(up->flight);
        upstream_bus_ack(up);
        upstream_bus_fetch(up);
        upstream_on_confirmed(up);
        return;
    }
    if (answer && answer->status == STATUS_LEASE_LOST) {
        upstream_superseded(up);
        return;
    }
    if (answer)
        log_refused(up, "ack refused", answer);
    timer_rearm(up->ack_timer, RETRY_USEC);
}

static void ack_send(struct upstream *up, Bus__Ack *ack)
{
    Bus__Envelope request = ENVELOPE(ACK, ack, ack);

    ack->queue = (char *)QUEUE;
    ack->lease = plugin_generation(up->plugin);
    if (bus_request(up->store, &request, BUS_FOREVER, ack_on_answer, up, &up->ack_request) != 0)
        timer_rearm(up->ack_timer, RETRY_USEC);
}

void upstream_bus_ack(struct upstream *up)
{
    Bus__Ack ack = BUS__ACK__INIT;

    if (!up->superseded && flight_acks_take(up->flight, &ack))
        ack_send(up, &ack);
}

/* Those that were taken and not confirmed, once more. */
static int ack_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct upstream *up = userdata;
    Bus__Ack ack = BUS__ACK__INIT;

    if (up->ack_request || up->superseded)
        return 0;
    flight_acks_again(up->flight, &ack);
    ack_send(up, &ack);
    return 0;
}

/* ---- Parking ---- */

static void park_next(struct upstream *up);

static void park_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct identity_link *i = userdata;
    struct upstream *up = i->upstream;

    i->park_open = false;
    up->parks_open--;
    if (answer && answer->status == STATUS_LEASE_LOST) {
        upstream_superseded(up);
        return;
    }
    if (!answer || answer->status != STATUS_DONE) {
        if (answer)
            log_refused(up, "park refused", answer);
        upstream_bus_park(i, i->park_wanted);
        timer_rearm(up->park_timer, RETRY_USEC);
        return;
    }
    park_next(up);
}

/* False: the window of requests is full. */
static bool park_send(struct identity_link *i)
{
    Bus__Park park = BUS__PARK__INIT;
    Bus__Envelope request = ENVELOPE(PARK, park, &park);

    park.queue = (char *)QUEUE;
    park.lease = plugin_generation(i->upstream->plugin);
    park.partition = i->name;
    park.parked = i->park_wanted;
    if (bus_request(i->upstream->store, &request, BUS_FOREVER, park_on_answer, i, NULL) != 0)
        return false;
    i->park_dirty = false;
    i->park_open = true;
    i->upstream->parks_open++;
    return true;
}

/* One at a time for each identity, a few at a time for all. */
static void park_next(struct upstream *up)
{
    struct identity_link *i, *next;

    for (i = TAILQ_FIRST(&up->parks); i && up->parks_open < PARKS_MAX; i = next) {
        next = TAILQ_NEXT(i, park_link);
        if (i->park_open)
            continue;
        if (!park_send(i)) {
            timer_rearm(up->park_timer, RETRY_USEC);
            return;
        }
        TAILQ_REMOVE(&up->parks, i, park_link);
    }
}

void upstream_bus_park(struct identity_link *i, bool parked)
{
    struct upstream *up = i->upstream;

    i->park_wanted = parked;
    if (!i->park_dirty)
        TAILQ_INSERT_TAIL(&up->parks, i, park_link);
    i->park_dirty = true;
    timer_rearm(up->park_timer, 0); /* the last word of this turn counts */
}

static int park_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    park_next(userdata);
    return 0;
}

/* ---- Identity's word on an identity ---- */

static void chain_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct identity_link *i = userdata;

    i->chain_request = NULL;
    if (answer && answer->body_case == BUS__ENVELOPE__BODY_CHAIN) {
        free(i->auth_chain);
        i->auth_chain = xstrdup(answer->chain->auth_chain);
        identity_link_feed(i, IDENTITY_CHAIN_KNOWN);
    } else if (answer && answer->status == STATUS_NOT_FOUND && i->denied_since_refresh) {
        identity_link_feed(i, IDENTITY_GONE);
    } else {
        identity_link_fail(
            i, IDENTITY_FAILED,
            answer && answer->status == STATUS_NOT_FOUND ? VERDICT_UNAUTHORIZED : VERDICT_RETRY,
            60 * SEC_USEC, "no way to act for it: %s", answer ? answer->error : "no answer");
    }
}

int upstream_bus_chain_get(struct identity_link *i)
{
    Bus__ChainGet get = BUS__CHAIN_GET__INIT;
    Bus__Envelope request = ENVELOPE(CHAIN_GET, chain_get, &get);

    get.device_id = i->device_id;
    get.module_id = i->module_id;
    return bus_request(i->upstream->identity, &request, CHAIN_DEADLINE_USEC, chain_on_answer, i,
                       &i->chain_request);
}

/* Those that could not ask. */
static void upstream_on_identity_room(void *userdata)
{
    struct upstream *up = userdata;
    struct identity_link *i;

    TAILQ_FOREACH(i, &up->identities, all_link)
    if (i->state == IDENTITY_CHAIN && !i->chain_request && upstream_bus_chain_get(i) != 0)
        return;
}

static void refresh_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct identity_link *i = userdata;

    i->upstream->refreshes_open--;
    if (answer && answer->status == STATUS_DONE)
        i->denied_since_refresh = i->denied;
}

/* Best effort: who is refused again asks again. */
void upstream_bus_scope_refresh(struct identity_link *i)
{
    Bus__ScopeRefresh refresh = BUS__SCOPE_REFRESH__INIT;
    Bus__Envelope request = ENVELOPE(SCOPE_REFRESH, scope_refresh, &refresh);

    if (i->upstream->refreshes_open >= REFRESHES_MAX)
        return;
    refresh.device_id = i->device_id;
    refresh.module_id = i->module_id;
    if (bus_request(i->upstream->identity, &request, REFRESH_DEADLINE_USEC, refresh_on_answer, i,
                    NULL) == 0)
        i->upstream->refreshes_open++;
}

/* The scope is another: who was refused for its sake may be taken now. */
static void upstream_on_identity_announcement(const Bus__Envelope *in, void *userdata)
{
    struct upstream *up = userdata;
    struct identity_link *i;

    if (in && in->body_case != BUS__ENVELOPE__BODY_SCOPE_CHANGED)
        return;
    TAILQ_FOREACH(i, &up->identities, all_link)
    {
        i->gone = false;
        if (i->failure.verdict == VERDICT_UNAUTHORIZED ||
            i->failure.verdict == VERDICT_UNKNOWN_IDENTITY)
            identity_link_resume(i);
    }
}

/* ---- What we are asked, and tell ---- */

static int upstream_on_status_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    Bus__UpstreamStatus status = BUS__UPSTREAM_STATUS__INIT;
    Bus__Envelope answer = ENVELOPE(UPSTREAM_STATUS, upstream_status, &status);

    upstream_fill_status(userdata, &status);
    return bus_answer_with(call, &answer);
}

const struct bus_handler upstream_handlers[] = {
    { BUS__ENVELOPE__BODY_UPSTREAM_STATUS_GET, PEER_ANY, upstream_on_status_get },
    {},
};

/* Nobody relies on having heard it. */
void upstream_bus_announce(struct upstream *up)
{
    Bus__UpstreamStatus status = BUS__UPSTREAM_STATUS__INIT;
    Bus__Envelope announcement = ENVELOPE(UPSTREAM_STATUS, upstream_status, &status);

    upstream_fill_status(up, &status);
    (void)bus_announce(plugin_bus(up->plugin), &announcement);
}

/* ---- Life ---- */

static int add_stopped_timer(struct upstream *up, sd_event_time_handler_t fn, sd_event_source **ret)
{
    int r = plugin_add_timer(up->plugin, 0, fn, up, ret);

    return r < 0 ? r : timer_stop(*ret);
}

int upstream_bus_start(struct upstream *up)
{
    struct bus *bus = plugin_bus(up->plugin);
    int r;

    up->fetch_sequence = 1;
    up->identity = bus_peer(bus, "identity");
    up->store = bus_peer(bus, "store");
    bus_peer_on_room(up->identity, upstream_on_identity_room, up);
    r = add_stopped_timer(up, token_on_timer, &up->token_timer);
    if (r < 0)
        return r;
    r = add_stopped_timer(up, fetch_on_timer, &up->fetch_timer);
    if (r < 0)
        return r;
    r = add_stopped_timer(up, ack_on_timer, &up->ack_timer);
    if (r < 0)
        return r;
    r = add_stopped_timer(up, park_on_timer, &up->park_timer);
    if (r < 0)
        return r;
    r = bus_subscribe(bus, "identity", upstream_on_identity_announcement, up);
    if (r < 0)
        return r;
    token_ask(up);
    return 0;
}

void upstream_bus_stop(struct upstream *up)
{
    up->token_request = bus_request_cancel(up->token_request);
    up->fetch_request = bus_request_cancel(up->fetch_request);
    up->ack_request = bus_request_cancel(up->ack_request);
    sd_event_source_disable_unref(up->token_timer);
    sd_event_source_disable_unref(up->fetch_timer);
    sd_event_source_disable_unref(up->ack_timer);
    sd_event_source_disable_unref(up->park_timer);
    token_clear(&up->token);
}
