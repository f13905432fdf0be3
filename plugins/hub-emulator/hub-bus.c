/* What the operator may ask of the local hub. Answers are JSON texts: the operator's tool prints them. */
#include <stdio.h>
#include <string.h>

#include "hub.h"
#include "registry-json.h"

static int answer_json_take(struct bus_call *call, json_t *json)
{
    _cleanup_(freep) char *text = json_dumps(json, JSON_COMPACT);
    Bus__HubJson body = BUS__HUB_JSON__INIT;
    Bus__Envelope answer = ENVELOPE(HUB_JSON, hub_json, &body);

    json_decref(json);
    body.json = text;
    return bus_answer_with(call, &answer);
}

/* ---- what is shown ---- */

static json_t *connection_string_json(const struct hub *hub, const char *device_id,
                                      const char *module_id, const struct credentials *credentials)
{
    _cleanup_(freep) char *text = NULL;

    if (credentials->kind != CREDENTIALS_SAS)
        return json_null();
    text = xasprintf("HostName=%s;DeviceId=%s%s%s;SharedAccessKey=%s", hub->config->hostname,
                     device_id, module_id ? ";ModuleId=" : "", module_id ? module_id : "",
                     credentials->primary_key);
    return json_string(text);
}

static json_t *credentials_json(const struct hub *hub, const char *device_id, const char *module_id,
                                const struct identity *identity)
{
    const struct credentials *credentials = &identity->credentials;

    return json_pack(
        "{s:s, s:s?, s:s?, s:o, s:s, s:b}", "auth", credentials_kind_names[credentials->kind],
        "primary_key", credentials->primary_key, "secondary_key", credentials->secondary_key,
        "connection_string", connection_string_json(hub, device_id, module_id, credentials),
        "generation_id", identity->generation_id, "connected", identity->connected);
}

static json_t *module_json(const struct hub *hub, const struct module *module)
{
    json_t *json =
        json_pack("{s:s, s:s}", "device_id", module->device->id, "module_id", module->id);

    json_object_update_new(
        json, credentials_json(hub, module->device->id, module->id, &module->identity));
    return json;
}

static const char *parent_of(const struct hub *hub, const struct device *device)
{
    const struct device *parent =
        device->parent_scopes ? registry_edge_of_scope(hub->registry, device->parent_scopes[0])
                              : NULL;

    return parent ? parent->id : NULL;
}

static json_t *device_json(const struct hub *hub, const struct device *device)
{
    json_t *modules = json_array();
    json_t *json = json_pack("{s:s, s:s, s:b, s:s?, s:s?}", "device_id", device->id, "status",
                             device->enabled ? "enabled" : "disabled", "edge", device->edge,
                             "parent", parent_of(hub, device), "scope", device->scope);

    for (size_t i = 0; i < device->module_count; i++)
        json_array_append_new(modules, json_string(device->modules[i]->id));
    json_object_update_new(json, credentials_json(hub, device->id, NULL, &device->identity));
    json_object_set_new(json, "modules", modules);
    return json;
}

static int answer_device(struct hub *hub, struct bus_call *call, const char *device_id)
{
    const struct device *device = registry_device(hub->registry, device_id);

    if (!device)
        return bus_answer_error(call, STATUS_NOT_FOUND, "no device '%s'", device_id);
    return answer_json_take(call, device_json(hub, device));
}

/* How a change ended, when not well. */
static int answer_outcome(struct bus_call *call, int r, const char *id,
                          const struct registry_error *error)
{
    switch (r) {
    case REGISTRY_E_EXISTS:
        return bus_answer_error(call, STATUS_CONFLICT, "'%s' exists already", id);
    case REGISTRY_E_NO_DEVICE:
    case REGISTRY_E_NO_MODULE:
        return bus_answer_error(call, STATUS_NOT_FOUND, "no '%s'", id);
    case REGISTRY_E_TOO_MANY:
        return bus_answer_error(call, STATUS_FULL, "a device has at most %d modules",
                                REGISTRY_MODULES_MAX);
    case REGISTRY_E_ARGUMENT:
        return bus_answer_error(call, STATUS_INVALID, "'%s': expected %s", id, error->expected);
    default:
        return bus_answer_error(call, STATUS_FAILED, "the registry cannot be written: %s",
                                strerror(-r));
    }
}

/* ---- devices and modules ---- */

static int auth_kind(const char *auth)
{
    static const struct {
        const char *name;
        enum credentials_kind kind;
    } kinds[] = {
        { "", CREDENTIALS_SAS },
        { "sas", CREDENTIALS_SAS },
        { "x509-thumbprint", CREDENTIALS_SELF_SIGNED },
        { "x509-ca", CREDENTIALS_CERTIFICATE_AUTHORITY },
    };

    for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
        if (strcmp(auth, kinds[i].name) == 0)
            return (int)kinds[i].kind;
    return -1;
}

static int hub_on_device_put(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__HubDevicePut *put = in->hub_device_put;
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    const char *parents[2] = { NULL, NULL };
    struct registry_error error;
    struct hub *hub = userdata;
    int r;

    spec.device_id = put->device_id;
    spec.edge = put->edge;
    spec.credentials_kind = auth_kind(put->auth);
    spec.primary_thumbprint = put->primary_thumbprint[0] != '\0' ? put->primary_thumbprint : NULL;
    if (spec.credentials_kind < 0)
        return bus_answer_error(call, STATUS_INVALID,
                                "auth: expected sas, x509-thumbprint or x509-ca, found '%s'",
                                put->auth);
    if (put->parent[0] != '\0') {
        const struct device *parent = registry_device(hub->registry, put->parent);

        if (!parent || !parent->edge)
            return bus_answer_error(call, STATUS_INVALID,
                                    "parent: expected an edge device, found '%s'", put->parent);
        parents[0] = parent->scope;
        spec.parent_scopes = parents;
    }
    r = registry_device_create(hub->registry, &spec, &error);
    if (r != 0)
        return answer_outcome(call, r, put->device_id, &error);
    return answer_device(hub, call, put->device_id);
}

static int hub_on_module_put(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__HubModulePut *put = in->hub_module_put;
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    struct registry_error error;
    struct hub *hub = userdata;
    int r;

    spec.device_id = put->device_id;
    spec.module_id = put->module_id;
    spec.credentials_kind = CREDENTIALS_SAS;
    r = registry_module_create(hub->registry, &spec, &error);
    if (r != 0)
        return answer_outcome(call, r, r == REGISTRY_E_NO_DEVICE ? put->device_id : put->module_id,
                              &error);
    return answer_json_take(
        call, module_json(hub, registry_module(hub->registry, put->device_id, put->module_id)));
}

static int device_list(struct hub *hub, struct bus_call *call, const char *device_id)
{
    json_t *list = json_array();

    for (size_t i = 0; i < registry_count(hub->registry); i++)
        json_array_append_new(list, device_json(hub, registry_device_at(hub->registry, i)));
    return answer_json_take(call, list);
}

static int device_enable(struct hub *hub, struct bus_call *call, const char *device_id,
                         bool enabled)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    struct registry_error error;
    int r;

    spec.device_id = device_id;
    spec.enabled = enabled;
    r = registry_device_update(hub->registry, &spec, NULL, &error);
    if (r != 0)
        return answer_outcome(call, r, device_id, &error);
    return answer_device(hub, call, device_id);
}

static int device_action_enable(struct hub *hub, struct bus_call *call, const char *device_id)
{
    return device_enable(hub, call, device_id, true);
}

static int device_action_disable(struct hub *hub, struct bus_call *call, const char *device_id)
{
    return device_enable(hub, call, device_id, false);
}

static int device_remove(struct hub *hub, struct bus_call *call, const char *device_id)
{
    int r = registry_device_remove(hub->registry, device_id, NULL);

    if (r != 0)
        return answer_outcome(call, r, device_id, NULL);
    return answer_json_take(call, json_pack("{s:s}", "device_id", device_id));
}

static int hub_on_device_action(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    static const struct {
        const char *name;
        int (*fn)(struct hub *hub, struct bus_call *call, const char *device_id);
    } actions[] = {
        { "list", device_list },
        { "show", answer_device },
        { "enable", device_action_enable },
        { "disable", device_action_disable },
        { "remove", device_remove },
    };
    const Bus__HubDeviceAction *ask = in->hub_device_action;

    for (size_t i = 0; i < ELEMENTSOF(actions); i++)
        if (strcmp(ask->action, actions[i].name) == 0)
            return actions[i].fn(userdata, call, ask->device_id);
    return bus_answer_error(call, STATUS_INVALID,
                            "action: expected list, show, enable, disable or remove, found '%s'",
                            ask->action);
}

/* ---- the hub itself ---- */

static int hub_on_online(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct hub *hub = userdata;

    hub_set_online(hub, in->hub_online->online);
    return answer_json_take(call, json_pack("{s:b}", "online", hub->online));
}

static json_t *telemetry_json(const struct hub *hub)
{
    const struct telemetry_counters *counters = telemetry_counters(hub->telemetry);

    return json_pack("{s:I, s:I, s:I, s:I}", "messages", (json_int_t)counters->messages, "bytes",
                     (json_int_t)counters->bytes, "kept_messages",
                     (json_int_t)counters->kept_messages, "kept_bytes",
                     (json_int_t)counters->kept_bytes);
}

static json_t *https_json(const struct hub *hub)
{
    const struct rest_http_counters *counters = rest_http_counters(hub->rest);

    return json_pack("{s:I, s:I, s:I, s:I}", "connections", (json_int_t)counters->connections,
                     "requests", (json_int_t)counters->requests, "bytes_in",
                     (json_int_t)counters->bytes_in, "bytes_out", (json_int_t)counters->bytes_out);
}

static int hub_on_stats(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct hub *hub = userdata;
    struct amqp_server_counters amqp;
    json_t *json;

    amqp_server_count(hub->amqp, &amqp);
    json = json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "online", hub->online, "connections",
        (json_int_t)amqp.connections, "connections_total", (json_int_t)amqp.connections_total,
        "identities", (json_int_t)amqp.identities, "links", (json_int_t)amqp.links,
        "tokens_refused", (json_int_t)amqp.tokens_refused, "links_refused",
        (json_int_t)amqp.links_refused, "messages_refused", (json_int_t)amqp.messages_refused,
        "bytes_in", (json_int_t)amqp.bytes_in, "bytes_out", (json_int_t)amqp.bytes_out);
    json_object_set_new(json, "telemetry", telemetry_json(hub));
    json_object_set_new(json, "devices", telemetry_sources_json(hub->telemetry));
    json_object_set_new(json, "https", https_json(hub));
    return answer_json_take(call, json);
}

const struct bus_handler hub_handlers[] = {
    { BUS__ENVELOPE__BODY_HUB_DEVICE_PUT, PEER_OPERATOR, hub_on_device_put },
    { BUS__ENVELOPE__BODY_HUB_MODULE_PUT, PEER_OPERATOR, hub_on_module_put },
    { BUS__ENVELOPE__BODY_HUB_DEVICE_ACTION, PEER_OPERATOR, hub_on_device_action },
    { BUS__ENVELOPE__BODY_HUB_ONLINE, PEER_OPERATOR, hub_on_online },
    { BUS__ENVELOPE__BODY_HUB_MONITOR, PEER_OPERATOR, hub_on_monitor },
    { BUS__ENVELOPE__BODY_HUB_STATS_GET, PEER_OPERATOR, hub_on_stats },
    {}
};
