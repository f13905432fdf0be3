#include "listener.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "span.h"

enum {
    ACCEPTS_A_TURN = 64,
    STREAMS_BEYOND_CLIENTS = 1024, /* that have not said who they are */
    CONNECT_BYTES = 16 << 10,      /* of a CONNECT without its Will: ids, user name, token */
};
static const uint64_t LOGIN_TIMEOUT_USEC =
    25 * 1000 * 1000; /* C gives up after 30 s (mqtt.md §3.4) */
static const uint64_t DRAIN_ACKS_USEC = 500 * 1000;
static const uint64_t LOG_INTERVAL_USEC = 10 * 1000 * 1000;
static const uint64_t TAKE_OVER_LOG_USEC =
    60 * 1000 * 1000; /* two that evict each other do so for ever */

static struct connection *connection_of(struct client *client)
{
    return CONTAINER_OF(client, struct connection, client);
}

void listener_begin(struct listener *l)
{
    l->host.now_usec = now_usec();
    l->host.utc_sec = utc_sec();
}

void listener_touch(struct listener *l, struct connection *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    TAILQ_INSERT_TAIL(&l->dirty, c, dirty_link);
}

/* Moves the timer only forward in time: one that fires early looks again. */
void listener_arm(struct listener *l, struct connection *c)
{
    uint64_t next = client_next_usec(&c->client);

    if (c->inputs && inputs_next_usec(c->inputs) < next)
        next = inputs_next_usec(c->inputs);
    if (!c->timer.next || next < c->timer.due_usec)
        wheel_set(&l->wheel, &c->timer, next);
}

bool listener_charge(struct listener *l, size_t bytes)
{
    if (bytes > l->config->held_max_bytes - l->held_bytes)
        return false;
    l->held_bytes += bytes;
    return true;
}

void listener_release(struct listener *l, size_t bytes)
{
    l->held_bytes -= bytes;
}

/* ---- batches ---- */

static struct batch *listener_take_batch(struct listener *l)
{
    size_t i = 0;

    while (l->batches[i] && l->batches[i]->busy)
        i++;
    assert(i < ELEMENTSOF(l->batches)); /* the producer takes no more than its window */
    if (!l->batches[i])
        l->batches[i] = batch_new();
    l->batches[i]->busy = true;
    return l->batches[i];
}

static void listener_flush(struct listener *l)
{
    struct batch *batch = l->gathering;

    if (batch->count == 0 || producer_room(l->producer) == 0)
        return;
    producer_add_batch(l->producer, batch->items, batch->count, false, batch);
    l->gathering = listener_take_batch(l);
}

static bool listener_fits(const struct listener *l, size_t message_bytes)
{
    return batch_fits(l->gathering, message_bytes, l->config->batch_max_messages,
                      l->config->batch_max_bytes);
}

static void listener_on_committed(void *userdata_batch, void *userdata)
{
    struct batch *batch = userdata_batch;
    struct listener *l = userdata;
    size_t acknowledged, n;

    if (userdata_batch == &l->detour) {
        detour_on_committed(&l->detour);
        return;
    }
    listener_begin(l);
    for (size_t i = 0; i < batch->count; i += n) {
        struct connection *c = batch->entries[i].owner;

        n = batch_run(batch, i, &acknowledged);
        c->shares -= (unsigned)n;
        client_on_committed(&c->client, (unsigned)acknowledged);
        listener_touch(l, c);
    }
    batch_reset(batch);
}

static void listener_on_refused(enum producer_refusal refusal, const char *reason, void *userdata)
{
    struct listener *l = userdata;

    detour_on_refused(&l->detour, refusal, reason);
}

/* ---- what clients ask of it ---- */

static void on_authenticate(struct client *client, bool recheck)
{
    struct connection *c = connection_of(client);

    listener_bus_authenticate(c->listener, c, recheck);
}

static void on_load_session(struct client *client)
{
    struct connection *c = connection_of(client);

    listener_bus_load_session(c->listener, c);
}

static void on_save_session(struct client *client, const struct span *record)
{
    struct connection *c = connection_of(client);

    listener_bus_save_session(c->listener, c, record);
}

/* Who takes over its own older connection is not one more. */
static bool on_admit(struct client *client)
{
    struct listener *l = connection_of(client)->listener;

    return l->identities.count < l->config->max_clients ||
           client_map_find(&l->identities, client->device_id, client->module_id);
}

void listener_take_over(struct listener *l, struct connection *older, const char *newer_address)
{
    unsigned suppressed;

    l->taken_over++;
    if (log_limit_pass(&l->client_log_limits[older->map_entry.hash % CLIENT_LOG_LIMITS],
                       TAKE_OVER_LOG_USEC, &suppressed))
        log_event(LOG_INFO, 0, "client connected anew, the older connection is closed",
                  F_DEVICE(older->client.device_id), F_MODULE(older->client.module_id),
                  F_PEER(newer_address), F_STR("older_peer", older->peer_address),
                  F_COUNT(suppressed));
    client_on_taken_over(&older->client);
    listener_touch(l, older);
}

static void on_connected(struct client *client)
{
    struct connection *c = connection_of(client);
    struct listener *l = c->listener;
    struct client_map_entry *older;

    c->since_sec = l->host.utc_sec;
    c->holds_identity = true;
    c->map_entry.device_id = client->device_id;
    c->map_entry.module_id = client->module_id;
    older = client_map_put(&l->identities, &c->map_entry);
    listener_bus_connected(l, c);
    if (older)
        listener_take_over(l, CONTAINER_OF(older, struct connection, map_entry), c->peer_address);
}

static void on_inputs(struct client *client, bool wanted)
{
    struct connection *c = connection_of(client);

    c->inputs = wanted ? inputs_new(&c->listener->inputs, c) : inputs_free(c->inputs);
    listener_touch(c->listener, c);
}

static void on_acknowledged(struct client *client, uint16_t packet_id)
{
    struct connection *c = connection_of(client);

    if (c->inputs)
        inputs_on_acknowledged(c->inputs, packet_id);
}

static bool listener_block(struct listener *l, struct connection *c)
{
    if (c->blocked)
        return false;
    c->blocked = true;
    if (l->resuming) /* it was the first, and stays it */
        TAILQ_INSERT_HEAD(&l->blocked, c, blocked_link);
    else
        TAILQ_INSERT_TAIL(&l->blocked, c, blocked_link);
    return false;
}

static bool on_publish(struct client *client, const Bus__Message *message, bool acknowledged)
{
    struct connection *c = connection_of(client);
    struct listener *l = c->listener;
    size_t bytes = bus__message__get_packed_size(message);

    if (l->detour.active) {
        if (detour_has_room(&l->detour, c)) {
            detour_publish(&l->detour, c, message, bytes, acknowledged);
            return true;
        }
        return c->line ? false : listener_block(l, c);
    }
    if (!l->resuming && !TAILQ_EMPTY(&l->blocked)) /* there is a line */
        return listener_block(l, c);
    if (!listener_fits(l, bytes))
        listener_flush(l);
    if (!listener_fits(l, bytes))
        return listener_block(l, c);
    batch_add(l->gathering, message, bytes, c, acknowledged);
    c->shares++;
    return true;
}

static void on_output(struct client *client)
{
    struct connection *c = connection_of(client);

    listener_touch(c->listener, c);
}

static const struct {
    int level;
    const char *what;
} end_logs[] = {
    [CLIENT_END_QUIET] = { LOG_DEBUG, "client left" },
    [CLIENT_END_CLOSED] = { LOG_INFO, "client closed" },
    [CLIENT_END_REFUSED] = { LOG_WARNING, "client refused" },
    [CLIENT_END_VIOLATION] = { LOG_WARNING, "client broke the protocol, closed" },
};

/* One line for each client and reason in an interval; strangers cannot make more than the table is
 * large. */
static bool listener_may_log(struct listener *l, const struct connection *c, const char *reason,
                             unsigned *ret_suppressed)
{
    unsigned hash = 5381;

    for (const char *s = c->client.device_id ?: ""; *s; s++)
        hash = hash * 33 + (unsigned char)*s;
    for (const char *s = reason; *s; s++)
        hash = hash * 33 + (unsigned char)*s;
    return log_limit_pass(&l->client_log_limits[hash % CLIENT_LOG_LIMITS], LOG_INTERVAL_USEC,
                          ret_suppressed);
}

static void listener_log_client(struct listener *l, const struct connection *c, int level,
                                const char *what, const char *reason)
{
    unsigned suppressed = 0;

    if (!log_enabled(level))
        return;
    if (level < LOG_DEBUG && !listener_may_log(l, c, reason, &suppressed))
        return;
    log_event(level, 0, what, F_REASON(reason), F_DEVICE(c->client.device_id ?: ""),
              F_MODULE(c->client.module_id ?: ""), F_PEER(c->peer_address ?: ""),
              F_COUNT(suppressed));
}

static void on_dropped(struct client *client, const char *reason)
{
    struct connection *c = connection_of(client);

    listener_log_client(c->listener, c, LOG_WARNING, "message dropped", reason);
}

static void on_ended(struct client *client, enum client_end how, const char *reason)
{
    struct connection *c = connection_of(client);
    struct listener *l = c->listener;

    c->ended = true;
    listener_log_client(l, c, end_logs[how].level, end_logs[how].what, reason);
    listener_bus_forget(l, c);
    c->inputs = inputs_free(c->inputs);
    if (c->holds_identity) {
        client_map_remove(&l->identities, &c->map_entry);
        listener_bus_disconnected(l, c);
    }
    listener_touch(l, c);
}

static const struct client_ops listener_client_ops = {
    .authenticate = on_authenticate,
    .load_session = on_load_session,
    .save_session = on_save_session,
    .admit = on_admit,
    .connected = on_connected,
    .inputs = on_inputs,
    .acknowledged = on_acknowledged,
    .publish = on_publish,
    .dropped = on_dropped,
    .output = on_output,
    .ended = on_ended,
};

/* ---- the turn ---- */

/* Those that found no room, in the order in which they did not. */
static void listener_resume_blocked(struct listener *l)
{
    struct connection *c;

    l->resuming = true;
    while ((c = TAILQ_FIRST(&l->blocked))) {
        c->blocked = false;
        TAILQ_REMOVE(&l->blocked, c, blocked_link);
        listener_touch(l, c);
        client_on_room(&c->client);
        connection_feed_held(c);
        if (c->blocked)
            break;
    }
    l->resuming = false;
}

static void listener_drop_if_over(struct listener *l, struct connection *c)
{
    if (c->client.state != CLIENT_CLOSED || c->shares > 0 || c->fd >= 0)
        return;
    if (c->blocked)
        TAILQ_REMOVE(&l->blocked, c, blocked_link);
    TAILQ_REMOVE(&l->connections, c, all_link);
    l->connection_count--;
    connection_free(c);
}

bool listener_awaits_acks(const struct listener *l, const struct connection *c)
{
    return c->inputs && inputs_are_unacknowledged(c->inputs) && c->fd >= 0 &&
           l->host.now_usec < l->acks_until_usec;
}

/* Draining: all that was read is on disk and acknowledged. Clients find another listener, or this
 * one's successor. */
static void listener_shut_down_clients(struct listener *l)
{
    struct connection *c;

    if (l->gathering->count > 0 || producer_outstanding(l->producer) > 0 || l->detour.active)
        return;
    TAILQ_FOREACH(c, &l->connections, all_link)
    {
        if (listener_awaits_acks(l, c))
            return;
    }
    TAILQ_FOREACH(c, &l->connections, all_link)
    {
        client_on_shutdown(&c->client);
        listener_touch(l, c);
    }
}

static void listener_settle_dirty(struct listener *l)
{
    struct connection *c;

    while ((c = TAILQ_FIRST(&l->dirty))) {
        TAILQ_REMOVE(&l->dirty, c, dirty_link);
        c->dirty = false;
        connection_settle(c);
        if (!c->dirty)
            listener_drop_if_over(l, c);
    }
}

static int listener_on_turn(sd_event_source *source, void *userdata)
{
    struct listener *l = userdata;
    struct connection *c;

    listener_begin(l);
    listener_resume_blocked(l);
    TAILQ_FOREACH(c, &l->dirty, dirty_link)
    {
        connection_feed_held(c);
    }
    listener_flush(l);
    detour_send(&l->detour);
    if (l->draining)
        listener_shut_down_clients(l);
    listener_settle_dirty(l);
    listener_flush(l); /* the Will of who could not be written to */
    inputs_host_acknowledge(&l->inputs);
    if (l->draining && l->connection_count == 0 && listener_bus_told_all(l) &&
        inputs_host_is_done(&l->inputs))
        plugin_drained(l->plugin);
    return 0;
}

/* ---- accepting ---- */

static bool listener_accepts(struct listener *l, int fd)
{
    const char *reason = NULL;
    unsigned suppressed;

    if (!(plugin_peer_of(l->plugin, fd) & PEER_FRONT))
        reason = "the peer is not the front";
    else if (l->connection_count >= l->config->max_clients + STREAMS_BEYOND_CLIENTS)
        reason = "more streams than max_clients allows for";
    if (!reason)
        return true;
    l->refused_streams++;
    if (log_limit_pass(&l->accept_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, "stream refused", F_REASON(reason), F_COUNT(suppressed));
    return false;
}

static int listener_add_stream_take(struct listener *l, int fd)
{
    struct connection *c;
    int r;

    if (!listener_accepts(l, fd)) {
        close_fd(fd);
        return 0;
    }
    r = connection_new_take(l, fd, ++l->last_number, &c);
    if (r < 0)
        return r;
    TAILQ_INSERT_TAIL(&l->connections, c, all_link);
    l->connection_count++;
    listener_arm(l, c);
    return 0;
}

static int listener_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct listener *l = userdata;
    unsigned suppressed;

    listener_begin(l);
    for (unsigned n = 0; n < ACCEPTS_A_TURN; n++) {
        int stream = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

        if (stream < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                return 0;
            if (log_limit_pass(&l->accept_limit, LOG_INTERVAL_USEC, &suppressed))
                log_event(LOG_WARNING, errno, "cannot accept a stream", F_COUNT(suppressed));
            /* out of descriptors: until the next tick, or it would spin */
            return sd_event_source_set_enabled(source, SD_EVENT_OFF);
        }
        r = listener_add_stream_take(l, stream);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- time ---- */

void listener_recheck_all(struct listener *l, uint64_t spread_usec)
{
    struct connection *c;
    uint64_t i = 0;

    listener_begin(l);
    TAILQ_FOREACH(c, &l->connections, all_link)
    {
        if (c->client.state != CLIENT_CONNECTED && c->client.state != CLIENT_SAVING)
            continue;
        client_recheck_at(&c->client, l->host.now_usec + spread_usec * i++ / l->connection_count);
        listener_arm(l, c);
    }
}

static void listener_publish_stats(struct listener *l)
{
    const struct client_counters *n = &l->host.counters;
    const struct {
        const char *name;
        uint64_t value;
    } stats[] = {
        { "clients", l->identities.count },
        { "streams", l->connection_count },
        { "messages", n->messages },
        { "message_bytes", n->message_bytes },
        { "bytes_in", l->bytes_in },
        { "bytes_out", l->bytes_out },
        { "detours", l->detour.times },
        { "dropped_unstorable", l->detour.dropped },
        { "inputs_delivered", l->inputs.delivered },
        { "inputs_resent", l->inputs.resent },
        { "inputs_unwanted", l->inputs.unwanted },
        { "inputs_undeliverable", l->inputs.undeliverable },
        { "batches_open", producer_outstanding(l->producer) },
        { "connects", n->connects },
        { "refused", n->refused },
        { "refused_streams", l->refused_streams },
        { "violations", n->violations },
        { "oversize", n->oversize },
        { "expired", n->expired },
        { "taken_over", l->taken_over },
        { "wills", n->wills },
        { "dropped_malformed", n->dropped_malformed },
        { "dropped_too_large", n->dropped_too_large },
        { "dropped_unknown_topic", n->dropped_unknown },
    };

    for (size_t i = 0; i < ELEMENTSOF(stats); i++)
        plugin_stat(l->plugin, stats[i].name, stats[i].value);
    plugin_status(l->plugin, "%zu connected", l->identities.count);
}

static int listener_on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct listener *l = userdata;
    struct wheel_entry *entry;

    listener_begin(l);
    while ((entry = wheel_pop(&l->wheel, l->host.now_usec))) {
        struct connection *c = CONTAINER_OF(entry, struct connection, timer);

        client_on_time(&c->client);
        if (c->inputs)
            inputs_on_time(c->inputs);
        listener_touch(l, c); /* which arms it again */
    }
    listener_bus_tick(l);
    inputs_host_tick(&l->inputs);
    listener_publish_stats(l);
    if (!l->draining)
        sd_event_source_set_enabled(l->accept_source, SD_EVENT_ON);
    return timer_rearm(source, WHEEL_TICK_USEC);
}

/* ---- the end ---- */

/* The turn that follows sees that it is over. */
static int listener_on_acks_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    return 0;
}

static void listener_on_drain(uint64_t deadline_usec, void *userdata)
{
    struct listener *l = userdata;
    struct connection *c;

    listener_begin(l);
    l->draining = l->host.acks_only = true;
    l->acks_until_usec = l->host.now_usec + DRAIN_ACKS_USEC;
    timer_rearm(l->acks_timer, DRAIN_ACKS_USEC);
    sd_event_source_set_enabled(l->accept_source, SD_EVENT_OFF);
    TAILQ_FOREACH(c, &l->connections, all_link)
    listener_touch(l, c); /* not read any more */
}

/* ---- life ---- */

static struct client_limits listener_limits(const struct listener_config *config)
{
    return (struct client_limits){
        .connect_bytes_max = config->will_max_bytes + CONNECT_BYTES,
        .packet_bytes_max = config->packet_max_bytes,
        .will_bytes_max = config->will_max_bytes,
        .inflight_max = (uint32_t)config->inflight_max,
        .connect_timeout_usec = config->connect_timeout_sec * 1000000,
        .login_timeout_usec = LOGIN_TIMEOUT_USEC,
        .keepalive_max_usec = config->keepalive_max_sec * 1000000,
        .recheck_usec = config->recheck_sec * 1000000,
    };
}

static int listener_open_sources(struct listener *l)
{
    int fd, r;

    fd = plugin_socket(l->plugin, "streams", 0);
    if (fd < 0) {
        log_event(LOG_ERR, fd, "no socket named streams in `sockets:`");
        return fd;
    }
    r = plugin_add_io(l->plugin, fd, EPOLLIN, listener_on_accept, l, &l->accept_source);
    if (r >= 0)
        r = plugin_add_timer(l->plugin, WHEEL_TICK_USEC, listener_on_tick, l, &l->tick_timer);
    if (r >= 0)
        r = plugin_add_timer(l->plugin, 0, listener_on_acks_timer, l, &l->acks_timer);
    if (r >= 0)
        r = timer_stop(l->acks_timer);
    if (r >= 0)
        /* After whatever else was handled. A deferred source that arms itself again would keep its
         * first place in the loop's order for ever, and starve all others. */
        r = plugin_add_post(l->plugin, listener_on_turn, l, &l->turn_source);
    return r;
}

int listener_new(struct plugin *plugin, const struct listener_config *config, struct listener **ret)
{
    _cleanup_(listener_freep) struct listener *l = xnew(struct listener);
    int r;

    l->plugin = plugin;
    l->config = config;
    l->host.ops = &listener_client_ops;
    l->host.limits = listener_limits(config);
    l->host.scratch = arena_new();
    l->read_buffer = xnew_n(char, CONNECTION_READ_BYTES);
    l->gathering = listener_take_batch(l);
    l->last_number = plugin_generation(plugin) << 32; /* differs from any number of a life before */
    TAILQ_INIT(&l->connections);
    TAILQ_INIT(&l->dirty);
    TAILQ_INIT(&l->blocked);
    listener_begin(l);
    wheel_init(&l->wheel, l->host.now_usec);
    inputs_host_init(&l->inputs, l);
    r = listener_open_sources(l);
    if (r < 0)
        return r;
    r = listener_bus_open(l);
    if (r < 0)
        return r;
    r = producer_new(l->router, plugin_name(plugin), plugin_generation(plugin),
                     listener_on_committed, l, plugin_event(plugin), &l->producer);
    if (r < 0)
        return r;
    producer_on_refused(l->producer, listener_on_refused, l);
    r = detour_init(&l->detour, l);
    if (r < 0)
        return r;
    plugin_on_drain(plugin, listener_on_drain, l);
    *ret = TAKE_PTR(l);
    return 0;
}

struct listener *listener_free(struct listener *l)
{
    struct connection *c;

    if (!l)
        return NULL;
    l->accept_source = sd_event_source_disable_unref(l->accept_source);
    l->tick_timer = sd_event_source_disable_unref(l->tick_timer);
    l->acks_timer = sd_event_source_disable_unref(l->acks_timer);
    l->turn_source = sd_event_source_disable_unref(l->turn_source);
    listener_bus_close(l);
    producer_free(l->producer);
    if (l->detour.timer)
        detour_done(&l->detour);
    while ((c = TAILQ_FIRST(&l->connections))) {
        TAILQ_REMOVE(&l->connections, c, all_link);
        connection_free(c);
    }
    if (l->inputs.flight)
        inputs_host_done(&l->inputs);
    client_map_done(&l->identities);
    for (size_t i = 0; i < ELEMENTSOF(l->batches); i++)
        batch_free(l->batches[i]);
    arena_free(l->host.scratch);
    free(l->read_buffer);
    free(l);
    return NULL;
}
