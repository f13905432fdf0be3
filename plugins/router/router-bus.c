#include "router.h"

static int router_on_publish(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    return router_pass_on_take(userdata, call, in->publish);
}

/* The role of a listener, by what the kernel says of the caller. */
static const char *listener_role(const struct bus_call *call)
{
    switch (bus_call_peer(call)) {
    case PEER_MQTT:
        return "mqtt-listener";
    case PEER_AMQP:
        return "amqp-listener";
    default:
        return "http-listener";
    }
}

static int router_on_client_connected(struct bus_call *call, const Bus__Envelope *in,
                                      void *userdata)
{
    struct router *router = userdata;

    directory_connect(router->directory, listener_role(call), in->client_connected);
    plugin_stat(router->plugin, "clients", directory_count(router->directory));
    return bus_answer(call, STATUS_DONE);
}

static int router_on_client_disconnected(struct bus_call *call, const Bus__Envelope *in,
                                         void *userdata)
{
    struct router *router = userdata;
    const Bus__ClientDisconnected *client = in->client_disconnected;

    directory_disconnect(router->directory, listener_role(call), client->device_id,
                         client->module_id, client->connection);
    plugin_stat(router->plugin, "clients", directory_count(router->directory));
    return bus_answer(call, STATUS_DONE);
}

static int router_on_clients_sync(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct router *router = userdata;

    directory_sync(router->directory, listener_role(call), in->clients_sync->clients,
                   in->clients_sync->n_clients);
    plugin_stat(router->plugin, "clients", directory_count(router->directory));
    return bus_answer(call, STATUS_DONE);
}

struct listing {
    Bus__Clients clients;
    size_t capacity, listener_capacity;
};

static void listing_add(const char *listener, const Bus__ClientConnected *client, void *userdata)
{
    struct listing *listing = userdata;

    xgrow(listing->clients.clients, listing->clients.n_clients, listing->capacity);
    xgrow(listing->clients.listeners, listing->clients.n_listeners, listing->listener_capacity);
    listing->clients.clients[listing->clients.n_clients++] = (Bus__ClientConnected *)client;
    listing->clients.listeners[listing->clients.n_listeners++] = (char *)listener;
}

static int router_on_clients_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct router *router = userdata;
    struct listing listing = { .clients = BUS__CLIENTS__INIT };
    Bus__Envelope answer = ENVELOPE(CLIENTS, clients, &listing.clients);
    int r;

    directory_each(router->directory, listing_add, &listing);
    r = bus_answer_with(call, &answer);
    free(listing.clients.clients);
    free(listing.clients.listeners);
    return r;
}

static int router_on_status_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct router *router = userdata;
    Bus__RouterStatus status = BUS__ROUTER_STATUS__INIT;
    Bus__Envelope answer = ENVELOPE(ROUTER_STATUS, router_status, &status);

    status.clients = directory_count(router->directory);
    status.messages_received = router->received;
    status.messages_unrouted = router->unrouted;
    if (deployment_routes(router->deployment))
        status.routes = routes_count(deployment_routes(router->deployment));
    return bus_answer_with(call, &answer);
}

static int router_on_routes_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct router *router = userdata;
    Bus__Routes routes = BUS__ROUTES__INIT;
    Bus__Envelope answer = ENVELOPE(ROUTES, routes, &routes);
    int r;

    deployment_fill(router->deployment, router->arena, &routes);
    r = bus_answer_with(call, &answer);
    arena_reset(router->arena);
    return r;
}

const struct bus_handler router_handlers[] = {
    { BUS__ENVELOPE__BODY_PUBLISH, PEER_LISTENERS, router_on_publish },
    { BUS__ENVELOPE__BODY_CLIENT_CONNECTED, PEER_LISTENERS, router_on_client_connected },
    { BUS__ENVELOPE__BODY_CLIENT_DISCONNECTED, PEER_LISTENERS, router_on_client_disconnected },
    { BUS__ENVELOPE__BODY_CLIENTS_SYNC, PEER_LISTENERS, router_on_clients_sync },
    { BUS__ENVELOPE__BODY_CLIENTS_GET, PEER_OPERATOR, router_on_clients_get },
    { BUS__ENVELOPE__BODY_ROUTER_STATUS_GET, PEER_OPERATOR, router_on_status_get },
    { BUS__ENVELOPE__BODY_ROUTES_GET, PEER_OPERATOR, router_on_routes_get },
    {},
};
