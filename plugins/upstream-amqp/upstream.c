#include "upstream.h"

#include <inttypes.h>
#include <stdio.h>

#include "message.h"

enum {
    SEND_MESSAGES_MAX = 64,      /* of one identity, before it is another's turn */
    SEND_BYTES_MAX = 256 << 10,  /* a turn: dispositions want to be read, too */
    SEND_CHUNK_BYTES = 64 << 10, /* given to proton before it is written out */
};
#define TOKENS_FULL_USEC                                                                           \
    (60 *                                                                                          \
     UINT64_C(1000000)) /* a connection lives as long, even with as many tokens as it may have */
#define DRAIN_RESERVE_USEC UINT64_C(1000000) /* of the deadline: for acks and an orderly close */

/* ---- Lists ---- */

static struct identity_list *list_of(struct identity_link *i)
{
    return i->list == IDENTITY_LIST_READY ? &i->upstream->ready : &i->upstream->waiting;
}

void identity_list_put(struct identity_link *i, enum identity_list_kind list)
{
    if (i->list == list)
        return;
    if (i->list != IDENTITY_LIST_NONE)
        TAILQ_REMOVE(list_of(i), i, list_link);
    i->list = list;
    if (i->list != IDENTITY_LIST_NONE)
        TAILQ_INSERT_TAIL(list_of(i), i, list_link);
}

void upstream_open_next(struct upstream *up)
{
    struct identity_link *i;

    while (up->online && up->opening < UPSTREAM_OPENING_MAX && (i = TAILQ_FIRST(&up->waiting))) {
        identity_list_put(i, IDENTITY_LIST_NONE);
        identity_link_feed(i, IDENTITY_WORK);
    }
}

/* ---- What others see ---- */

void upstream_fill_status(struct upstream *up, Bus__UpstreamStatus *status)
{
    status->connected = up->online;
    status->since_sec = up->since_sec;
    status->peer = (char *)connection_peer(up->connection);
    status->last_error = up->last_error;
    status->identities = up->open_count;
    status->in_flight = flight_totals(up->flight)->in_flight;
    status->sent = up->sent;
    status->refused_identities = up->paused_count;
}

static void upstream_count(struct upstream *up)
{
    plugin_stat(up->plugin, "identities", up->open_count);
    plugin_stat(up->plugin, "identities_paused", up->paused_count);
    plugin_stat(up->plugin, "in_flight", flight_totals(up->flight)->in_flight);
    plugin_stat(up->plugin, "held", flight_totals(up->flight)->messages);
    plugin_stat(up->plugin, "sent", up->sent);
}

/* One line for each change: a hub that is away is not told of at every try. */
static void upstream_tell(struct upstream *up)
{
    if (up->told && up->told_online == up->online)
        return;
    up->told = true;
    up->told_online = up->online;
    up->since_sec = utc_sec();
    if (up->online) {
        log_event(LOG_INFO, 0, "hub reached", F_PEER(connection_peer(up->connection)));
        plugin_status(up->plugin, "connected to %s", connection_peer(up->connection));
    } else {
        log_event(LOG_INFO, 0, "hub is away", F_PEER(connection_peer(up->connection)),
                  F_REASON(up->last_error));
        plugin_status(up->plugin, "hub is away: %s", up->last_error);
    }
    upstream_bus_announce(up);
}

/* ---- Identities ---- */

static bool name_is_valid(const char *name)
{
    _cleanup_(freep) char *device_id = NULL;
    _cleanup_(freep) char *module_id = NULL;

    identity_split(name, &device_id, &module_id);
    return identity_id_valid(device_id) && (!module_id || identity_id_valid(module_id));
}

static struct identity_link *identity_get(struct upstream *up, const char *name, bool is_edge_hub)
{
    struct flight_partition *messages = flight_partition(up->flight, name);
    struct identity_link *i = messages->userdata;

    if (i || identity_link_new(up, name, messages, is_edge_hub, &i) < 0)
        return i;
    messages->userdata = i;
    TAILQ_INSERT_TAIL(&up->identities, i, all_link);
    return i;
}

struct identity_link *upstream_identity(struct upstream *up, const char *name)
{
    return name_is_valid(name) ? identity_get(up, name, false) : NULL;
}

void upstream_on_message(struct identity_link *i)
{
    identity_link_feed(i, IDENTITY_WORK);
    upstream_send_soon(i->upstream);
}

void upstream_on_edge_hub_open(struct upstream *up)
{
    struct identity_link *i;

    if (up->online)
        return;
    up->online = true;
    connection_proved(up->connection);
    up->last_error[0] = '\0';
    upstream_tell(up);
    TAILQ_FOREACH(i, &up->identities, all_link)
    if (i->messages->count > 0)
        identity_link_feed(i, IDENTITY_WORK);
    upstream_bus_fetch(up);
}

void upstream_on_edge_hub_refused(struct upstream *up, const char *reason)
{
    connection_fail(up->connection, NULL, reason);
}

/* Tokens stay with a connection to its end. When it has all it may have, somebody waits: with time, it begins anew, and only
 * those who have something to send come back. */
bool upstream_admit_token(struct upstream *up)
{
    if (up->tokens < UPSTREAM_TOKENS_MAX) {
        up->tokens++;
        return true;
    }
    if (now_usec() - up->connected_usec > TOKENS_FULL_USEC)
        connection_fail(up->connection, NULL,
                        "begins anew: more identities want to send than one connection takes");
    return false;
}

bool upstream_on_hang(struct upstream *up, uint64_t hang_usec)
{
    if (now_usec() - up->heard_usec < hang_usec)
        return false;
    connection_fail(up->connection, NULL, "the hub fell silent");
    return true;
}

/* ---- The connection ---- */

void upstream_send_soon(struct upstream *up)
{
    struct amqp_driver *driver = connection_driver(up->connection);

    if (driver)
        amqp_driver_wake(driver);
}

void upstream_on_token(struct upstream *up)
{
    struct identity_link *i;

    if (!up->edge_hub) {
        _cleanup_(freep) char *name = xasprintf("%s/$edgeHub", up->token.device_id);

        up->edge_hub = identity_get(up, name, true);
    }
    if (!up->draining)
        connection_start(up->connection, up->token.gateway);
    if (!up->cbs)
        return;
    TAILQ_FOREACH(i, &up->identities, all_link)
    identity_link_renew_token(i);
}

static void upstream_on_open(struct amqp_driver *driver, void *userdata)
{
    struct upstream *up = userdata;

    up->connection_number++;
    up->connected_usec = up->heard_usec = now_usec();
    up->heard_bytes = 0;
    up->tokens = 0;
    up->cbs = cbs_new(amqp_driver_connection(driver));
    identity_link_feed(up->edge_hub, IDENTITY_WORK);
}

/* A session that is no identity's any more is done when both sides have ended it, whoever began. */
static void upstream_on_orphan(pn_event_t *event)
{
    pn_session_t *session = pn_event_session(event);

    if (pn_event_type(event) != PN_SESSION_LOCAL_CLOSE &&
        pn_event_type(event) != PN_SESSION_REMOTE_CLOSE)
        return;
    if (pn_session_state(session) == (PN_LOCAL_CLOSED | PN_REMOTE_CLOSED))
        pn_session_free(session);
}

static void upstream_on_event(pn_event_t *event, void *userdata)
{
    struct upstream *up = userdata;
    pn_session_t *session = pn_event_session(event);
    const char *broken = NULL;
    struct identity_link *i;

    if (!session || !up->cbs)
        return;
    if (cbs_take_event(up->cbs, event, &broken)) {
        if (broken)
            connection_fail(up->connection, NULL, *broken ? broken : "the hub closed $cbs");
        return;
    }
    i = pn_session_get_context(session);
    if (i)
        identity_link_take_event(i, event);
    else
        upstream_on_orphan(event);
}

static void upstream_send(struct upstream *up)
{
    struct amqp_driver *driver = connection_driver(up->connection);
    size_t total = 0, chunk = 0;
    struct identity_link *i;

    while (total < SEND_BYTES_MAX && amqp_driver_output_pending(driver) == 0 &&
           (i = TAILQ_FIRST(&up->ready))) {
        size_t bytes = identity_link_send(i, SEND_MESSAGES_MAX);

        total += bytes;
        chunk += bytes;
        if (chunk < SEND_CHUNK_BYTES)
            continue;
        amqp_driver_flush(driver); /* what the socket does not take now stops us */
        chunk = 0;
    }
    if (!TAILQ_EMPTY(&up->ready) && amqp_driver_output_pending(driver) == 0)
        amqp_driver_wake(driver);
}

static void upstream_note_heard(struct upstream *up)
{
    uint64_t bytes = amqp_driver_bytes_in(connection_driver(up->connection));

    if (bytes == up->heard_bytes)
        return;
    up->heard_bytes = bytes;
    up->heard_usec = now_usec();
}

static void upstream_drain_step(struct upstream *up);

static void upstream_on_batch_end(void *userdata)
{
    struct upstream *up = userdata;

    upstream_note_heard(up);
    if (!up->draining && !up->superseded)
        upstream_send(up);
    upstream_bus_ack(up);
    upstream_bus_fetch(up);
    upstream_count(up);
    upstream_drain_step(up);
}

static void upstream_on_lost(const char *reason, void *userdata)
{
    struct upstream *up = userdata;
    struct identity_link *i;

    up->online = false;
    snprintf(up->last_error, sizeof(up->last_error), "%s", reason);
    TAILQ_FOREACH(i, &up->identities, all_link)
    identity_link_feed(i, IDENTITY_OFFLINE);
    up->cbs = cbs_free(up->cbs);
    upstream_tell(up);
    upstream_count(up);
    upstream_drain_step(up);
}

/* ---- Draining ---- */

static void upstream_on_stopped(void *userdata)
{
    struct upstream *up = userdata;

    if (up->draining)
        plugin_drained(up->plugin);
}

/* What is in flight is settled, what is settled is acknowledged, then the connection is closed. */
static void upstream_drain_step(struct upstream *up)
{
    if (!up->draining || up->drained)
        return;
    if (up->online && up->drain_timer && flight_totals(up->flight)->in_flight > 0)
        return;
    if (flight_acks_pending(up->flight) && !up->superseded) {
        upstream_bus_ack(up);
        return; /* upstream_on_confirmed() follows, or the deadline */
    }
    up->drained = true;
    connection_stop(up->connection);
}

void upstream_on_confirmed(struct upstream *up)
{
    upstream_drain_step(up);
}

static int upstream_on_drain_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct upstream *up = userdata;

    up->drain_timer = sd_event_source_disable_unref(up->drain_timer);
    upstream_drain_step(up);
    return 0;
}

static void upstream_on_drain(uint64_t deadline_usec, void *userdata)
{
    struct upstream *up = userdata;
    uint64_t wait = deadline_usec > 2 * DRAIN_RESERVE_USEC ? deadline_usec - DRAIN_RESERVE_USEC
                                                           : deadline_usec / 2;

    up->draining = true;
    if (plugin_add_timer(up->plugin, wait, upstream_on_drain_timer, up, &up->drain_timer) < 0)
        up->drain_timer = NULL; /* nothing is waited for then */
    upstream_drain_step(up);
}

/* ---- Life ---- */

static const struct connection_ops connection_ops = {
    .on_open = upstream_on_open,
    .on_event = upstream_on_event,
    .on_batch_end = upstream_on_batch_end,
    .on_lost = upstream_on_lost,
    .on_stopped = upstream_on_stopped,
};

int upstream_new(struct plugin *plugin, const struct upstream_config *config, struct upstream **ret)
{
    _cleanup_(upstream_freep) struct upstream *up = xnew(struct upstream);
    int r;

    up->plugin = plugin;
    up->config = config;
    TAILQ_INIT(&up->identities);
    TAILQ_INIT(&up->waiting);
    TAILQ_INIT(&up->ready);
    TAILQ_INIT(&up->parks);
    up->flight = flight_new(FLIGHT_OF_PARTITIONS);
    up->arena = arena_new();
    up->connection_config = (struct connection_config){
        .ca_file = config->ca_file,
        .port = (uint16_t)config->port,
        .reconnect_min_usec = config->reconnect_min_usec,
        .reconnect_max_usec = config->reconnect_max_usec,
    };
    up->since_sec = utc_sec();
    r = connection_new(plugin, &up->connection_config, &connection_ops, up, &up->connection);
    if (r < 0)
        return r;
    plugin_on_drain(plugin, upstream_on_drain, up);
    *ret = TAKE_PTR(up);
    return 0;
}

struct upstream *upstream_free(struct upstream *up)
{
    struct identity_link *i;

    if (!up)
        return NULL;
    sd_event_source_disable_unref(up->drain_timer);
    upstream_bus_stop(up);
    while ((i = TAILQ_FIRST(&up->identities))) {
        TAILQ_REMOVE(&up->identities, i, all_link);
        identity_link_free(i);
    }
    cbs_free(up->cbs);
    connection_free(up->connection);
    flight_free(up->flight);
    arena_free(up->arena);
    buf_done(&up->scratch);
    free(up);
    return NULL;
}
