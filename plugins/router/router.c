#include "router.h"

#include "message.h"

/* Of this listener, the older connection must go. Idempotent there, and not worth waiting for an
 * absent listener: one that comes back holds no connection. */
enum { EVICT_DEADLINE_USEC = 5 * 1000 * 1000 };

static void router_on_evict_answered(const Bus__Envelope *answer, void *userdata) {}

static void router_evict(const char *listener, const Bus__ClientConnected *old, void *userdata)
{
    struct router *router = userdata;
    Bus__ClientTakenOver taken = BUS__CLIENT_TAKEN_OVER__INIT;
    Bus__Envelope request = ENVELOPE(CLIENT_TAKEN_OVER, client_taken_over, &taken);
    int r;

    taken.device_id = old->device_id;
    taken.module_id = old->module_id;
    taken.connection = old->connection;
    r = bus_request(bus_peer(plugin_bus(router->plugin), listener), &request, EVICT_DEADLINE_USEC,
                    router_on_evict_answered, router, NULL);
    if (r != 0)
        log_event(LOG_WARNING, r < 0 ? r : 0, "cannot tell of a take-over", F_PEER(listener),
                  F_DEVICE(old->device_id), F_MODULE(old->module_id));
}

int router_new(struct plugin *plugin, const struct router_config *config, struct router **ret)
{
    _cleanup_(router_freep) struct router *router = xnew(struct router);
    int r;

    router->plugin = plugin;
    router->store = bus_peer(plugin_bus(plugin), "store");
    router->directory = directory_new(router_evict, router);
    router->arena = arena_new();
    r = deployment_new(plugin, config->routes_file, &router->deployment);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(router);
    return 0;
}

struct router *router_free(struct router *router)
{
    if (!router)
        return NULL;
    deployment_free(router->deployment);
    directory_free(router->directory);
    arena_free(router->arena);
    free(router);
    return NULL;
}

/* "D" or "D/M". */
static char *partition_of(struct arena *arena, const Bus__PublishItem *item)
{
    size_t device_len, module_len;
    char *name;

    if (!*item->module_id)
        return item->device_id;
    device_len = strlen(item->device_id);
    module_len = strlen(item->module_id);
    name = arena_alloc(arena, device_len + module_len + 2);
    memcpy(name, item->device_id, device_len);
    name[device_len] = '/';
    memcpy(name + device_len + 1, item->module_id, module_len + 1);
    return name;
}

static Bus__AppendTarget *target_new(struct arena *arena, const struct route *route,
                                     const Bus__PublishItem *item)
{
    Bus__AppendTarget *target = arena_alloc(arena, sizeof(*target));

    bus__append_target__init(target);
    target->queue = (char *)route->endpoint.queue;
    /* An input has one reader that takes messages in one order; the hub takes each sender's on
     * its own. */
    target->partition =
        route->endpoint.kind == ENDPOINT_UPSTREAM ? partition_of(arena, item) : (char *)"";
    target->priority = route->priority;
    target->ttl_sec = route->ttl_sec;
    return target;
}

/* The source of an item. An output name may be of any length. */
static struct span item_source(struct arena *arena, const Bus__PublishItem *item)
{
    enum { USUAL = sizeof("/messages/modules//outputs//") + 2 * IDENTITY_ID_MAX };
    char *text = arena_alloc(arena, USUAL);
    size_t len = routes_source(item->module_id, item->output_name, text, USUAL);

    if (len >= USUAL) {
        text = arena_alloc(arena, len + 1);
        routes_source(item->module_id, item->output_name, text, len + 1);
    }
    return span_of(text, len);
}

static Bus__AppendItem *item_route(struct router *router, struct routes *routes,
                                   const Bus__PublishItem *item)
{
    struct route_message message = {
        .source = item_source(router->arena, item),
        .encoded = span_of(item->message.data, item->message.len),
    };
    const struct route *const *matches;
    Bus__AppendItem *append;
    size_t count;

    count = routes_match(routes, &message, &matches);
    if (count == 0)
        return NULL;

    append = arena_alloc(router->arena, sizeof(*append));
    bus__append_item__init(append);
    append->message = item->message;
    append->targets = arena_alloc(router->arena, count * sizeof(append->targets[0]));
    append->n_targets = count;
    for (size_t i = 0; i < count; i++)
        append->targets[i] = target_new(router->arena, matches[i], item);
    return append;
}

static void router_on_appended(const Bus__Envelope *answer, void *userdata)
{
    struct bus_call *call = userdata;
    Bus__Envelope back;
    int r;

    back = ENVELOPE(APPENDED, appended, NULL);
    back.status = answer->status;
    back.error = answer->error;
    back.appended = answer->body_case == BUS__ENVELOPE__BODY_APPENDED ? answer->appended : NULL;
    if (!back.appended)
        back.body_case = BUS__ENVELOPE__BODY__NOT_SET;
    r = bus_answer_with(call, &back);
    if (r < 0)
        abort(); /* logged there; its caller would wait for ever */
}

int router_pass_on_take(struct router *router, struct bus_call *call, const Bus__Publish *publish)
{
    struct routes *routes = deployment_routes(router->deployment);
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope request = ENVELOPE(APPEND, append, &append);
    int r;

    if (!routes) /* it would match none, and be dropped */
        return bus_answer_error(call, STATUS_BUSY, "no routes are known: %s",
                                deployment_reason(router->deployment));
    append.producer = publish->producer;
    append.sequence = publish->sequence;
    append.reserve = publish->reserve;
    append.items = arena_alloc(router->arena, (publish->n_items + 1) * sizeof(append.items[0]));
    for (size_t i = 0; i < publish->n_items; i++) {
        Bus__AppendItem *item = item_route(router, routes, publish->items[i]);

        if (item)
            append.items[append.n_items++] = item;
    }
    /* Goes on even when no route wanted any of it: the store counts the sequence. */
    r = bus_request(router->store, &request, BUS_FOREVER, router_on_appended, call, NULL);
    arena_reset(router->arena);
    if (r == BUS_E_BUSY)
        return bus_answer(call, STATUS_BUSY);
    if (r < 0)
        return bus_answer_error(call, STATUS_INVALID,
                                "batch of %zu messages cannot be passed on: %s", publish->n_items,
                                strerror(-r));
    router->received += publish->n_items;
    router->unrouted += publish->n_items - append.n_items;
    plugin_stat(router->plugin, "messages", router->received);
    plugin_stat(router->plugin, "unrouted", router->unrouted);
    plugin_stat(router->plugin, "conditions_given_up", routes_given_up(routes));
    bus_call_keep(call);
    return 0;
}
