/* Connections, and the identities on them: which token each has, and which connection has an identity's links. */
#include "amqp-server.h"

#include <assert.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "accept.h"

#define HANDSHAKE_USEC    UINT64_C(30000000)
#define LOG_INTERVAL_USEC UINT64_C(5000000)
#define RECHECK_USEC      UINT64_C(10000000) /* how late the end of a token may be noticed */

enum {
    IDLE_MSEC = 480000, /* advertised halved, and kept whole (amqp.md §17) */
    CHANNEL_MAX = 8191,
};

static struct amqp_connection *connection_free(struct amqp_connection *connection);

/* ---- clients ---- */

static int client_compare(const void *a, const void *b)
{
    const struct amqp_client *x = a, *y = b;
    int order = strcmp(x->grant.device_id, y->grant.device_id);

    if (order != 0)
        return order;
    return strcmp(x->grant.module_id ? x->grant.module_id : "",
                  y->grant.module_id ? y->grant.module_id : "");
}

struct amqp_client *amqp_client_find(const struct amqp_connection *connection,
                                     const char *device_id, const char *module_id)
{
    const struct amqp_client wanted = { .grant = { .device_id = (char *)(uintptr_t)device_id,
                                                   .module_id = (char *)(uintptr_t)module_id } };
    struct amqp_client *const *found = tfind(&wanted, &connection->clients_tree, client_compare);

    return found ? *found : NULL;
}

static struct amqp_client *client_new(struct amqp_connection *connection)
{
    struct amqp_client *client = xnew(struct amqp_client);

    client->connection = connection;
    client->next = connection->clients;
    connection->clients = client;
    connection->client_count++;
    return client;
}

/* Messages are stamped with the generation of who sends them. */
static void client_know_source(struct amqp_client *client)
{
    struct amqp_server *server = client->connection->server;
    const struct grant *grant = &client->grant;
    const struct identity *identity =
        registry_identity(server->config.registry, grant->device_id, grant->module_id);

    if (!client->source || strcmp(client->source->generation_id, identity->generation_id) != 0)
        client->source = telemetry_source(server->config.telemetry, grant->device_id,
                                          grant->module_id, identity->generation_id);
}

struct amqp_client *amqp_client_put(struct amqp_connection *connection, struct grant *grant,
                                    struct span token, struct span name)
{
    struct amqp_client *client = amqp_client_find(connection, grant->device_id, grant->module_id);
    bool is_new = !client;

    if (is_new && connection->client_count >= AMQP_TOKENS_MAX) {
        grant_done(grant);
        return NULL;
    }
    if (is_new)
        client = client_new(connection);
    grant_done(&client->grant);
    client->grant = *grant;
    *grant = (struct grant){};
    if (is_new)
        tsearch(client, &connection->clients_tree, client_compare);
    free(client->token);
    free(client->name);
    client->token = span_xdup(token);
    client->name = span_xdup(name);
    client_know_source(client);
    return client;
}

static void client_free(struct amqp_client *client)
{
    struct amqp_connection *connection = client->connection;
    struct amqp_client **place = &connection->clients;

    while (*place != client)
        place = &(*place)->next;
    *place = client->next;
    connection->client_count--;
    tdelete(client, &connection->clients_tree, client_compare);
    grant_done(&client->grant);
    free(client->token);
    free(client->name);
    free(client);
}

void amqp_client_drop(struct amqp_client *client, const char *condition, const char *description)
{
    struct amqp_driver *driver = client->connection->driver;

    for (int kind = 0; kind < _LINK_KIND_COUNT; kind++)
        if (client->links[kind])
            amqp_link_close(client->links[kind], condition, description);
    client_free(client);
    amqp_driver_wake(driver);
}

struct amqp_client *amqp_client_rival(const struct amqp_client *client)
{
    struct amqp_client *const *found =
        tfind(client, &client->connection->server->attached_tree, client_compare);

    return found && *found != client ? *found : NULL;
}

void amqp_client_attached(struct amqp_client *client)
{
    struct amqp_server *server = client->connection->server;

    assert(!amqp_client_rival(client));
    tsearch(client, &server->attached_tree, client_compare);
    server->counters.identities++;
    registry_set_connected(server->config.registry, client->grant.device_id,
                           client->grant.module_id, true, utc_msec());
}

void amqp_client_detached(struct amqp_client *client)
{
    struct amqp_server *server = client->connection->server;

    tdelete(client, &server->attached_tree, client_compare);
    server->counters.identities--;
    registry_set_connected(server->config.registry, client->grant.device_id,
                           client->grant.module_id, false, utc_msec());
}

void amqp_server_log_refused(struct amqp_server *server, const char *address, const char *reason)
{
    unsigned suppressed;

    if (log_limit_pass(&server->refused_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, address ? "link refused" : "put-token refused",
                  F_STR("address", address), F_REASON(reason), F_COUNT(suppressed));
}

/* ---- tokens end, the registry changes ---- */

static void client_recheck(struct amqp_client *client, int64_t now_sec)
{
    struct amqp_server *server = client->connection->server;
    struct grant grant;
    int r = authorize_put_token(server->config.authority, span_str(client->token),
                                span_str(client->name), now_sec, &grant);

    if (r == 0) {
        grant_done(&grant);
        client_know_source(client);
        return;
    }
    log_event(LOG_INFO, 0, "identity detached", F_DEVICE(client->grant.device_id),
              F_MODULE(client->grant.module_id), F_REASON(authorize_text(r)));
    amqp_client_drop(client, amqp_condition_of(r), authorize_text(r));
}

static void server_recheck(struct amqp_server *server)
{
    int64_t now_sec = utc_sec();

    for (struct amqp_connection *connection = server->connections; connection;
         connection = connection->next) {
        struct amqp_client *next;

        for (struct amqp_client *client = connection->clients; client; client = next) {
            next = client->next;
            client_recheck(client, now_sec);
        }
    }
}

static int server_on_recheck_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct amqp_server *server = userdata;

    server_recheck(server);
    return timer_rearm(server->recheck_timer, RECHECK_USEC);
}

static int server_on_recheck_soon(sd_event_source *source, void *userdata)
{
    server_recheck(userdata);
    return 0;
}

void amqp_server_recheck(struct amqp_server *server)
{
    sd_event_source_set_enabled(server->recheck_soon, SD_EVENT_ONESHOT);
}

/* ---- connections ---- */

static void connection_on_event(struct amqp_driver *driver, pn_event_t *event, void *userdata)
{
    struct amqp_connection *connection = userdata;

    switch (pn_event_type(event)) {
    case PN_CONNECTION_REMOTE_OPEN:
        pn_connection_open(pn_event_connection(event));
        break;
    case PN_SESSION_REMOTE_OPEN:
        pn_session_open(pn_event_session(event));
        break;
    case PN_SESSION_REMOTE_CLOSE:
        links_on_session_close(connection, pn_event_session(event));
        break;
    case PN_LINK_REMOTE_OPEN:
        links_on_attach(connection, pn_event_link(event));
        break;
    case PN_LINK_REMOTE_CLOSE:
    case PN_LINK_REMOTE_DETACH:
        links_on_remote_close(connection, pn_event_link(event),
                              pn_event_type(event) == PN_LINK_REMOTE_CLOSE);
        break;
    case PN_DELIVERY:
        deliveries_on_event(connection, pn_event_delivery(event));
        break;
    default:
        break; /* local events, flow: nothing waits for credit that is not sent at once */
    }
}

static void connection_on_batch_end(struct amqp_driver *driver, void *userdata)
{
    struct amqp_server *server = ((struct amqp_connection *)userdata)->server;

    if (!server->got_telemetry)
        return;
    server->got_telemetry = false;
    server->config.on_telemetry(server->config.userdata);
}

static void connection_on_closed(struct amqp_driver *driver, const char *reason, void *userdata)
{
    log_event(LOG_DEBUG, 0, "AMQP connection over", F_REASON(reason));
    connection_free(userdata);
}

static const struct amqp_driver_ops connection_ops = {
    .on_event = connection_on_event,
    .on_batch_end = connection_on_batch_end,
    .on_closed = connection_on_closed,
};

/* As the hub names itself: DeviceGateway_ and 32 hexadecimal digits. */
static void set_container(pn_connection_t *pn)
{
    unsigned char id[16];
    char name[64] = "DeviceGateway_", *at = name + strlen(name);
    ssize_t n = getrandom(id, sizeof(id), 0);

    for (ssize_t i = 0; i < n; i++)
        at += sprintf(at, "%02x", id[i]);
    pn_connection_set_container(pn, name);
}

static void connection_link(struct amqp_connection *connection)
{
    struct amqp_server *server = connection->server;

    connection->next = server->connections;
    if (connection->next)
        connection->next->previous = connection;
    server->connections = connection;
    server->counters.connections++;
    server->counters.connections_total++;
}

static void connection_unlink(struct amqp_connection *connection)
{
    struct amqp_server *server = connection->server;

    if (connection->previous)
        connection->previous->next = connection->next;
    else
        server->connections = connection->next;
    if (connection->next)
        connection->next->previous = connection->previous;
    server->counters.connections--;
}

static int connection_start(struct amqp_connection *connection)
{
    struct amqp_server *server = connection->server;
    sd_event *event = plugin_event(server->plugin);
    struct tls_stream *stream;
    int r;

    r = tls_stream_new_take(event, server->tls, connection->fd, NULL, HANDSHAKE_USEC, NULL, NULL,
                            &stream);
    if (r < 0)
        return r;
    r = amqp_driver_new_take(event, stream, true, &connection_ops, connection, &connection->driver);
    if (r < 0)
        return r;
    set_container(amqp_driver_connection(connection->driver));
    pn_transport_set_idle_timeout(amqp_driver_transport(connection->driver), IDLE_MSEC);
    pn_transport_set_channel_max(amqp_driver_transport(connection->driver), CHANNEL_MAX);
    return 0;
}

static void server_on_accept(int fd, void *userdata)
{
    struct amqp_connection *connection = xnew(struct amqp_connection);
    int r;

    connection->server = userdata;
    connection->fd = fd;
    r = connection_start(connection);
    if (r < 0) {
        log_event(LOG_WARNING, r, "AMQP connection not taken");
        free(connection);
        return;
    }
    connection_link(connection);
}

static void client_forget_links(struct amqp_client *client)
{
    for (int kind = 0; kind < _LINK_KIND_COUNT; kind++)
        if (client->links[kind])
            amqp_link_gone(client->links[kind]);
}

static struct amqp_connection *connection_free(struct amqp_connection *connection)
{
    struct amqp_server *server = connection->server;

    while (connection->clients) {
        client_forget_links(connection->clients);
        client_free(connection->clients);
    }
    for (pn_link_t *pn = pn_link_head(amqp_driver_connection(connection->driver), 0); pn;
         pn = pn_link_next(pn, 0))
        if (pn_link_get_context(pn))
            amqp_link_gone(pn_link_get_context(pn)); /* of $cbs */
    server->counters.bytes_in += amqp_driver_bytes_in(connection->driver);
    server->counters.bytes_out += amqp_driver_bytes_out(connection->driver);
    connection_unlink(connection);
    amqp_driver_free(connection->driver);
    free(connection);
    return NULL;
}

/* ---- the server ---- */

static int server_start(struct amqp_server *server)
{
    int r;

    r = tls_server_context(server->config.chain_pem, server->config.key_pem, false, &server->tls);
    if (r < 0)
        return r;
    r = plugin_add_timer(server->plugin, RECHECK_USEC, server_on_recheck_timer, server,
                         &server->recheck_timer);
    if (r < 0)
        return r;
    r = plugin_add_defer(server->plugin, server_on_recheck_soon, server, &server->recheck_soon);
    if (r < 0)
        return r;
    sd_event_source_set_enabled(server->recheck_soon, SD_EVENT_OFF);
    return acceptor_new(server->plugin, "amqps", server_on_accept, server, &server->acceptor);
}

int amqp_server_new(struct plugin *plugin, const struct amqp_server_config *config,
                    struct amqp_server **ret)
{
    _cleanup_(amqp_server_freep) struct amqp_server *server = xnew(struct amqp_server);
    int r;

    server->plugin = plugin;
    server->config = *config;
    server->arena = arena_new();
    r = server_start(server);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(server);
    return 0;
}

struct amqp_server *amqp_server_free(struct amqp_server *server)
{
    if (!server)
        return NULL;
    acceptor_free(server->acceptor);
    while (server->connections)
        connection_free(server->connections);
    sd_event_source_disable_unref(server->recheck_timer);
    sd_event_source_disable_unref(server->recheck_soon);
    SSL_CTX_free(server->tls);
    buf_done(&server->scratch);
    arena_free(server->arena);
    free(server);
    return NULL;
}

void amqp_server_set_offline(struct amqp_server *server, bool offline)
{
    acceptor_set_offline(server->acceptor, offline);
    while (offline && server->connections) {
        socket_reset(server->connections->fd);
        connection_free(server->connections);
    }
}

void amqp_server_count(const struct amqp_server *server, struct amqp_server_counters *ret)
{
    *ret = server->counters;
    for (const struct amqp_connection *connection = server->connections; connection;
         connection = connection->next) {
        ret->bytes_in += amqp_driver_bytes_in(connection->driver);
        ret->bytes_out += amqp_driver_bytes_out(connection->driver);
    }
}
