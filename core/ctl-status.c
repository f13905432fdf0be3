/* What the appliance is doing: `status`, `clients`, `queues`, `routes`. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "ctl-ask.h"
#include "ctl-print.h"

/* Answers as JSON; NULL when the role answered something else. */

static json_t *upstream_json(const Bus__Envelope *answer)
{
    const Bus__UpstreamStatus *u = answer->upstream_status;

    if (answer->body_case != BUS__ENVELOPE__BODY_UPSTREAM_STATUS)
        return NULL;
    return json_pack("{s:b, s:o, s:o, s:o, s:I, s:I, s:I, s:I}", "connected", u->connected, "since",
                     ctl_time(u->since_sec), "peer", ctl_text(u->peer), "last_error",
                     ctl_text(u->last_error), "identities", (json_int_t)u->identities, "in_flight",
                     (json_int_t)u->in_flight, "sent", (json_int_t)u->sent, "refused_identities",
                     (json_int_t)u->refused_identities);
}

static json_t *identity_json(const Bus__Envelope *answer)
{
    const Bus__IdentityStatus *i = answer->identity_status;

    if (answer->body_case != BUS__ENVELOPE__BODY_IDENTITY_STATUS)
        return NULL;
    return json_pack("{s:o, s:o, s:I, s:o, s:o}", "device_id", ctl_text(i->device_id),
                     "hub_hostname", ctl_text(i->hub_hostname), "identities",
                     (json_int_t)i->identities, "scope_refreshed", ctl_time(i->scope_refreshed_sec),
                     "last_error", ctl_text(i->last_error));
}

static json_t *router_json(const Bus__Envelope *answer)
{
    const Bus__RouterStatus *r = answer->router_status;

    if (answer->body_case != BUS__ENVELOPE__BODY_ROUTER_STATUS)
        return NULL;
    return json_pack("{s:I, s:I, s:I, s:I}", "clients", (json_int_t)r->clients, "messages_received",
                     (json_int_t)r->messages_received, "messages_unrouted",
                     (json_int_t)r->messages_unrouted, "routes", (json_int_t)r->routes);
}

/* Seconds since; null when there is no oldest. */
static json_t *age_json(int64_t oldest_ms)
{
    int64_t age = (int64_t)time(NULL) - oldest_ms / 1000;

    return oldest_ms == 0 ? json_null() : json_integer(age > 0 ? age : 0);
}

/* The ledger calls `queued` what is `depth` of a queue: accepted = delivered + expired + dropped +
 * rejected + queued. */
static json_t *priority_json(const Bus__PriorityStatus *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "priority",
                     (json_int_t)p->priority, "depth", (json_int_t)p->depth, "queued",
                     (json_int_t)p->depth, "bytes", (json_int_t)p->bytes, "accepted",
                     (json_int_t)p->accepted, "delivered", (json_int_t)p->delivered, "expired",
                     (json_int_t)p->expired, "dropped", (json_int_t)p->dropped, "rejected",
                     (json_int_t)p->rejected);
}

static json_t *queue_json(const Bus__QueueStatus *q)
{
    json_t *priorities = json_array();

    for (size_t i = 0; i < q->n_priorities; i++)
        json_array_append_new(priorities, priority_json(q->priorities[i]));
    return json_pack("{s:o, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "name",
                     ctl_text(q->name), "depth", (json_int_t)q->depth, "queued",
                     (json_int_t)q->depth, "bytes", (json_int_t)q->bytes, "oldest_s",
                     age_json(q->oldest_ms), "accepted", (json_int_t)q->accepted, "delivered",
                     (json_int_t)q->delivered, "expired", (json_int_t)q->expired, "dropped",
                     (json_int_t)q->dropped, "rejected", (json_int_t)q->rejected, "priorities",
                     priorities);
}

static json_t *store_json(const Bus__Envelope *answer)
{
    const Bus__Queues *q = answer->queues;
    json_t *queues;

    if (answer->body_case != BUS__ENVELOPE__BODY_QUEUES)
        return NULL;
    queues = json_array();
    for (size_t i = 0; i < q->n_queues; i++)
        json_array_append_new(queues, queue_json(q->queues[i]));
    return json_pack("{s:o, s:I, s:I}", "queues", queues, "bytes", (json_int_t)q->store_bytes,
                     "max_bytes", (json_int_t)q->max_bytes);
}

static json_t *client_json(const Bus__ClientConnected *c, const char *listener)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "device_id", ctl_text(c->device_id),
                     "module_id", ctl_text(c->module_id), "listener", ctl_text(listener),
                     "protocol", ctl_text(c->protocol), "peer_address", ctl_text(c->peer_address),
                     "since", ctl_time(c->since_sec), "product_info", ctl_text(c->product_info));
}

static json_t *clients_json(const Bus__Envelope *answer)
{
    const Bus__Clients *c = answer->clients;
    json_t *clients;

    if (answer->body_case != BUS__ENVELOPE__BODY_CLIENTS)
        return NULL;
    clients = json_array();
    for (size_t i = 0; i < c->n_clients; i++)
        json_array_append_new(
            clients, client_json(c->clients[i], i < c->n_listeners ? c->listeners[i] : ""));
    return clients;
}

static const char *state_name(Bus__ChildState state)
{
    switch (state) {
    case BUS__CHILD_STATE__CHILD_STATE_STOPPED:
        return "stopped";
    case BUS__CHILD_STATE__CHILD_STATE_STARTING:
        return "starting";
    case BUS__CHILD_STATE__CHILD_STATE_READY:
        return "ready";
    case BUS__CHILD_STATE__CHILD_STATE_DRAINING:
        return "draining";
    case BUS__CHILD_STATE__CHILD_STATE_BACKOFF:
        return "backoff";
    case BUS__CHILD_STATE__CHILD_STATE_FAILED:
        return "failed";
    default:
        return "unknown"; /* a later supervisor's */
    }
}

static json_t *number_or_null(uint64_t value)
{
    return value == 0 ? json_null() : json_integer((json_int_t)value);
}

/* Its share of memory; 0: not known. Reading this waits for the process's own locks, which a plugin
 * that is stuck may hold: no job for the supervisor. */
static uint64_t process_pss_bytes(uint64_t pid)
{
    _cleanup_(freep) char *path = xasprintf("/proc/%" PRIu64 "/smaps_rollup", pid);
    uint64_t kib = 0;
    char line[128];
    FILE *file = fopen(path, "re");

    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file) && sscanf(line, "Pss: %" SCNu64 " kB", &kib) != 1)
        ;
    fclose(file);
    return kib * 1024;
}

static json_t *plugin_json(const Bus__PluginStatus *p)
{
    uint64_t pss_bytes = p->pid > 0 ? process_pss_bytes(p->pid) : 0;
    json_t *stats = json_object();

    for (size_t i = 0; i < p->n_stats; i++)
        json_object_set_new(stats, p->stats[i]->name, json_integer((json_int_t)p->stats[i]->value));
    return json_pack("{s:o, s:o, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "name",
                     ctl_text(p->name), "role", ctl_text(p->role), "state", state_name(p->state),
                     "pid", number_or_null(p->pid), "generation", (json_int_t)p->generation,
                     "restarts", (json_int_t)p->restarts, "uptime_s", (json_int_t)p->uptime_sec,
                     "version", ctl_text(p->version), "pss_bytes", number_or_null(pss_bytes),
                     "exec", ctl_text(p->exec), "status", ctl_text(p->status), "stats", stats);
}

/* status */

static int supervisor_ask(struct ctl *ctl, json_t *status)
{
    Bus__StatusGet get = BUS__STATUS_GET__INIT;
    Bus__Control request = CONTROL_INIT(STATUS_GET, status_get, &get);
    Bus__Control *answer = NULL;
    json_t *plugins = json_array();
    int r;

    json_object_set_new(status, "plugins", plugins);
    r = ctl_ask_supervisor(ctl, &request, BUS__CONTROL__BODY_STATUS, CTL_ANSWER_USEC, &answer);
    if (r != 0)
        return r;
    for (size_t i = 0; i < answer->status->n_plugins; i++)
        json_array_append_new(plugins, plugin_json(answer->status->plugins[i]));
    json_object_set_new(status, "supervisor",
                        json_pack("{s:o, s:I, s:I}", "version", ctl_text(answer->status->version),
                                  "pid", (json_int_t)answer->status->pid, "uptime_s",
                                  (json_int_t)answer->status->uptime_sec));
    bus__control__free_unpacked(answer, NULL);
    return 0;
}

static void set_or_null(json_t *object, const char *key, json_t *value)
{
    json_object_set(object, key, value ? value : json_null());
}

/* A role that is absent is null: it is no failure of the question. */
static int roles_ask(struct ctl *ctl, json_t *status)
{
    enum { STORE, UPSTREAM, ROUTER, IDENTITY, ROLES };
    Bus__QueuesGet queues_get = BUS__QUEUES_GET__INIT;
    Bus__UpstreamStatusGet upstream_get = BUS__UPSTREAM_STATUS_GET__INIT;
    Bus__RouterStatusGet router_get = BUS__ROUTER_STATUS_GET__INIT;
    Bus__IdentityStatusGet identity_get = BUS__IDENTITY_STATUS_GET__INIT;
    Bus__Envelope requests[ROLES] = {
        [STORE] = ENVELOPE(QUEUES_GET, queues_get, &queues_get),
        [UPSTREAM] = ENVELOPE(UPSTREAM_STATUS_GET, upstream_status_get, &upstream_get),
        [ROUTER] = ENVELOPE(ROUTER_STATUS_GET, router_status_get, &router_get),
        [IDENTITY] = ENVELOPE(IDENTITY_STATUS_GET, identity_status_get, &identity_get),
    };
    struct ctl_question questions[ROLES] = {
        [STORE] = { "store", &requests[STORE], store_json },
        [UPSTREAM] = { "upstream", &requests[UPSTREAM], upstream_json },
        [ROUTER] = { "router", &requests[ROUTER], router_json },
        [IDENTITY] = { "identity", &requests[IDENTITY], identity_json },
    };
    json_t *queues;
    int r;

    r = ctl_ask(ctl, questions, ROLES, CTL_ANSWER_USEC);
    if (r < 0)
        return ctl_fail("cannot ask on the bus: %s", strerror(-r));
    set_or_null(status, "upstream", questions[UPSTREAM].result);
    set_or_null(status, "clients", json_object_get(questions[ROUTER].result, "clients"));
    queues = json_object_get(questions[STORE].result, "queues");
    set_or_null(status, "queues", queues);
    json_object_del(questions[STORE].result, "queues");
    set_or_null(status, "store", questions[STORE].result);
    set_or_null(status, "router", questions[ROUTER].result);
    set_or_null(status, "identity", questions[IDENTITY].result);
    ctl_questions_done(questions, ROLES);
    return 0;
}

static const struct ctl_column queue_columns[] = {
    { "name", "QUEUE", FORM_TEXT },
    { "depth", "DEPTH", FORM_NUMBER },
    { "bytes", "BYTES", FORM_BYTES, .spare = 1 },
    { "oldest_s", "OLDEST", FORM_SECONDS },
    { "accepted", "ACCEPTED", FORM_NUMBER, .spare = 3 },
    { "delivered", "DELIVERED", FORM_NUMBER, .spare = 2 },
    { "expired", "EXPIRED", FORM_NUMBER },
    { "dropped", "DROPPED", FORM_NUMBER },
    { "rejected", "REJECTED", FORM_NUMBER },
    {},
};

static const struct ctl_column plugin_columns[] = {
    { "name", "PLUGIN", FORM_TEXT },
    { "role", "ROLE", FORM_TEXT, .spare = 1 },
    { "state", "STATE", FORM_STATE },
    { "pid", "PID", FORM_NUMBER },
    { "generation", "GEN", FORM_NUMBER, .spare = 2 },
    { "restarts", "RESTARTS", FORM_NUMBER },
    { "uptime_s", "UPTIME", FORM_SECONDS },
    { "pss_bytes", "MEMORY", FORM_BYTES },
    { "version", "VERSION", FORM_TEXT, .spare = 3 },
    { "status", "STATUS", FORM_TEXT },
    {},
};

static const struct ctl_column client_columns[] = {
    { "device_id", "DEVICE", FORM_TEXT },
    { "module_id", "MODULE", FORM_TEXT },
    { "protocol", "PROTOCOL", FORM_TEXT },
    { "peer_address", "FROM", FORM_TEXT },
    { "since", "SINCE", FORM_TEXT, .spare = 1 },
    { "product_info", "PRODUCT", FORM_TEXT },
    {},
};

static const struct ctl_column route_columns[] = {
    { "name", "NAME", FORM_TEXT },
    { "priority", "PRIORITY", FORM_NUMBER },
    { "time_to_live_s", "TTL", FORM_SECONDS },
    { "route", "ROUTE", FORM_TEXT },
    {},
};

static char *format_key(const json_t *object, const char *key, enum ctl_form form)
{
    return ctl_format(json_object_get(object, key), form);
}

static void print_upstream(const json_t *upstream)
{
    _cleanup_(freep) char *since = format_key(upstream, "since", FORM_TEXT);
    const char *last_error = json_string_value(json_object_get(upstream, "last_error"));
    bool connected = json_is_true(json_object_get(upstream, "connected"));

    if (!json_is_object(upstream)) {
        puts("upstream  \xe2\x80\x94");
        return;
    }
    printf("upstream  %s since %s", connected ? "connected" : "not connected", since);
    if (!connected && last_error && *last_error) {
        _cleanup_(freep) char *reason = format_key(upstream, "last_error", FORM_TEXT);

        printf(" (%s)", reason);
    }
    putchar('\n');
}

static void print_status(const json_t *status)
{
    const json_t *store = json_object_get(status, "store"),
                 *queues = json_object_get(status, "queues");
    _cleanup_(freep) char *clients = format_key(status, "clients", FORM_NUMBER);
    _cleanup_(freep) char *bytes = format_key(store, "bytes", FORM_BYTES);
    _cleanup_(freep) char *max_bytes = format_key(store, "max_bytes", FORM_BYTES);

    ctl_print_table(json_object_get(status, "plugins"), plugin_columns);
    putchar('\n');
    print_upstream(json_object_get(status, "upstream"));
    printf("clients   %s\n", clients);
    printf("store     %s%s%s\n", bytes, store ? " of " : "", store ? max_bytes : "");
    if (json_array_size(queues) > 0) {
        putchar('\n');
        ctl_print_table(queues, queue_columns);
    }
}

static int status_once(struct ctl *ctl, json_t **ret)
{
    json_t *status = json_object();
    int r;

    r = supervisor_ask(ctl, status);
    if (r == 0)
        r = roles_ask(ctl, status);
    if (r != 0) {
        json_decref(status);
        return r;
    }
    *ret = status;
    return 0;
}

/* One role, one question */

static int clients_once(struct ctl *ctl, json_t **ret)
{
    Bus__ClientsGet get = BUS__CLIENTS_GET__INIT;
    Bus__Envelope request = ENVELOPE(CLIENTS_GET, clients_get, &get);

    return ctl_ask_one(ctl, "router", &request, CTL_ANSWER_USEC, clients_json, ret);
}

static json_t *queues_json(const Bus__Envelope *answer)
{
    json_t *store = store_json(answer), *queues = json_incref(json_object_get(store, "queues"));

    json_decref(store);
    return queues;
}

static int queues_once(struct ctl *ctl, json_t **ret)
{
    Bus__QueuesGet get = BUS__QUEUES_GET__INIT;
    Bus__Envelope request = ENVELOPE(QUEUES_GET, queues_get, &get);

    return ctl_ask_one(ctl, "store", &request, CTL_ANSWER_USEC, queues_json, ret);
}

/* No time to live: it never expires. */
static json_t *route_json(const Bus__Route *route)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:o}", "name", ctl_text(route->name), "route",
                     ctl_text(route->text), "queue", ctl_text(route->queue), "priority",
                     (json_int_t)route->priority, "time_to_live_s",
                     route->ttl_sec < 0 ? json_null() : json_integer(route->ttl_sec));
}

/* What was refused since is said beside the answer: the routes in force are not those of the file. */
static json_t *routes_json(const Bus__Envelope *answer)
{
    const Bus__Routes *r = answer->routes;
    json_t *routes;

    if (answer->body_case != BUS__ENVELOPE__BODY_ROUTES)
        return NULL;
    for (size_t i = 0; i < r->n_problems; i++)
        ctl_fail("%s refused: %s", r->refused, r->problems[i]);
    if (!*r->source)
        ctl_fail("no routes are known yet: nothing is accepted");
    else if (r->n_problems > 0)
        ctl_fail("in force are those of before");
    routes = json_array();
    for (size_t i = 0; i < r->n_routes; i++)
        json_array_append_new(routes, route_json(r->routes[i]));
    return routes;
}

static int routes_once(struct ctl *ctl, json_t **ret)
{
    Bus__RoutesGet get = BUS__ROUTES_GET__INIT;
    Bus__Envelope request = ENVELOPE(ROUTES_GET, routes_get, &get);

    return ctl_ask_one(ctl, "router", &request, CTL_ANSWER_USEC, routes_json, ret);
}

static void print_routes(const json_t *routes)
{
    ctl_print_table(routes, route_columns);
}

static void print_clients(const json_t *clients)
{
    ctl_print_table(clients, client_columns);
}

static void print_queues(const json_t *queues)
{
    ctl_print_table(queues, queue_columns);
}

int ctl_status(struct ctl *ctl, int argc, char **argv)
{
    return ctl_show(ctl, status_once, print_status);
}

int ctl_clients(struct ctl *ctl, int argc, char **argv)
{
    return ctl_show(ctl, clients_once, print_clients);
}

int ctl_queues(struct ctl *ctl, int argc, char **argv)
{
    return ctl_show(ctl, queues_once, print_queues);
}

int ctl_routes(struct ctl *ctl, int argc, char **argv)
{
    return ctl_show(ctl, routes_once, print_routes);
}
