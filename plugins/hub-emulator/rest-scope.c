/*
 * Who is in the scope of an edge device: itself, its modules, its direct children and their modules (identity.md §9). The
 * edge asks with the token of its $edgeHub; through a chain of ids it may ask for an edge device below it.
 */
#include <stdio.h>
#include <string.h>

#include "registry-json.h"
#include "rest.h"

enum { PAGE_DEFAULT = 10, PAGE_MAX = 1000 };

/* ---- answers ---- */

/* All three members are always there: clients fail without. */
static json_t *scope_answer(json_t *devices, json_t *modules, json_t *link)
{
    return json_pack("{s:o, s:o, s:o}", "devices", devices, "modules", modules, "continuationLink",
                     link);
}

static void add_device(json_t *devices, json_t *modules, const struct device *device)
{
    json_array_append_new(devices, device_to_scope_json(device));
    for (size_t i = 0; i < device->module_count; i++)
        json_array_append_new(modules, module_to_scope_json(device->modules[i]));
}

/* One page of the scope of @edge, from the first id behind @after. @ret_last: the last id on the page, when there are more. */
static void scope_page(const struct registry *registry, const struct device *edge,
                       const char *after, size_t page_size, json_t *devices, json_t *modules,
                       const char **ret_last)
{
    const char *last = NULL;

    for (size_t i = registry_index_after(registry, after); i < registry_count(registry); i++) {
        const struct device *device = registry_device_at(registry, i);

        if (device != edge && !registry_is_child(device, edge))
            continue;
        if (json_array_size(devices) == page_size) {
            *ret_last = last;
            return;
        }
        add_device(devices, modules, device);
        last = device->id;
    }
}

/* ---- whose scope ---- */

/* @chain is "target;…;actor", the actor being the caller; "" or absent: the caller itself. NULL: it leads not there. */
static const struct device *chain_target(const struct rest_call *call, const char *chain)
{
    struct span rest = span_str(chain), first;
    _cleanup_(freep) char *target = NULL;
    const struct device *device;

    if (rest.len == 0 || span_equal(rest, span_str(call->params[0])))
        return registry_device(call->registry, call->params[0]);
    if (!span_split(&rest, SPAN(";"), &first))
        return NULL;
    target = span_xdup(first);
    device = registry_device(call->registry, target);
    if (!device || !device->edge ||
        authorize_on_behalf(call->authority, call->params[0], target, NULL, span_str(chain)) != 0)
        return NULL;
    return device;
}

static int answer_no_chain(struct rest_call *call, const char *chain)
{
    return rest_answer_error(call, 403, "DeviceNotInScope", "authChain '%s' does not lead to %s",
                             chain, call->params[0]);
}

/* ---- the whole scope ---- */

static bool read_page_size(const json_t *body, size_t *ret)
{
    const json_t *member = json_object_get(body, "pageSize");

    *ret = PAGE_DEFAULT;
    if (!member || json_is_null(member))
        return true;
    if (!json_is_integer(member) || json_integer_value(member) < 0 ||
        json_integer_value(member) > PAGE_MAX)
        return false;
    if (json_integer_value(member) > 0)
        *ret = (size_t)json_integer_value(member);
    return true;
}

static int scope_post(struct rest_call *call)
{
    const char *chain = json_string_value(json_object_get(call->body, "authChain"));
    const char *after = json_string_value(json_object_get(call->body, "continuationLink"));
    const struct device *edge = chain_target(call, chain);
    json_t *devices, *modules;
    const char *last = NULL;
    size_t page_size;

    if (!edge)
        return answer_no_chain(call, chain);
    if (!read_page_size(call->body, &page_size))
        return rest_answer_error(call, 400, "ArgumentInvalid", "pageSize: expected 0 to %d",
                                 PAGE_MAX);
    devices = json_array();
    modules = json_array();
    scope_page(call->registry, edge, after && after[0] ? after : NULL, page_size, devices, modules,
               &last);
    return rest_answer_json_take(
        call, 200, scope_answer(devices, modules, last ? json_string(last) : json_null()));
}

/* The next page of the older call is asked for at the link itself. */
static json_t *page_link(const struct rest_call *call, const char *last, size_t page_size)
{
    _cleanup_(freep) char *version = rest_query(call, "api-version");
    _cleanup_(freep) char *edge = percent_encode(span_str(call->params[0]));
    _cleanup_(freep) char *after = percent_encode(span_str(last));
    _cleanup_(freep) char *link =
        xasprintf("/devices/%s/modules/$edgeHub/"
                  "devicesAndModulesInDeviceScope?deviceCount=%zu&continuationToken=%s"
                  "&api-version=%s",
                  edge, page_size, after, version ? version : "");

    return json_string(link);
}

static int scope_get(struct rest_call *call)
{
    _cleanup_(freep) char *after = rest_query(call, "continuationToken");
    _cleanup_(freep) char *count_text = rest_query(call, "deviceCount");
    uint64_t count = PAGE_DEFAULT;
    json_t *devices, *modules;
    const char *last = NULL;

    if (count_text && (!span_to_uint64(span_str(count_text), &count) || count > PAGE_MAX))
        return rest_answer_error(call, 400, "ArgumentInvalid", "deviceCount: expected 0 to %d",
                                 PAGE_MAX);
    if (count == 0)
        count = PAGE_DEFAULT;
    devices = json_array();
    modules = json_array();
    scope_page(call->registry, registry_device(call->registry, call->params[0]),
               after && after[0] ? after : NULL, count, devices, modules, &last);
    return rest_answer_json_take(
        call, 200,
        scope_answer(devices, modules, last ? page_link(call, last, count) : json_null()));
}

/* ---- one identity ---- */

static int answer_one(struct rest_call *call, const struct device *edge, const char *device_id,
                      const char *module_id)
{
    const struct device *device = device_id ? registry_device(call->registry, device_id) : NULL;
    const struct module *module = NULL;
    json_t *modules;

    if (!device)
        return rest_answer_error(call, 404, "DeviceNotFound", "%s",
                                 device_id ? device_id : "targetDeviceId is missing");
    if (device != edge && !registry_is_child(device, edge))
        return rest_answer_error(call, 403, "DeviceNotInScope", "%s is not in the scope of %s",
                                 device_id, edge->id);
    if (module_id && module_id[0]) {
        module = registry_module(call->registry, device_id, module_id);
        if (!module)
            return rest_answer_error(call, 404, "ModuleNotFound", "%s/%s", device_id, module_id);
    }
    modules = json_array();
    if (module)
        json_array_append_new(modules, module_to_scope_json(module));
    return rest_answer_json_take(
        call, 200,
        scope_answer(json_pack("[o]", device_to_scope_json(device)), modules, json_null()));
}

static int identity_post(struct rest_call *call)
{
    const char *chain = json_string_value(json_object_get(call->body, "authChain"));
    const struct device *edge = chain_target(call, chain);

    if (!edge)
        return answer_no_chain(call, chain);
    return answer_one(call, edge, json_string_value(json_object_get(call->body, "targetDeviceId")),
                      json_string_value(json_object_get(call->body, "targetModuleId")));
}

static int identity_get(struct rest_call *call)
{
    _cleanup_(freep) char *device_id = rest_query(call, "targetDeviceId");
    _cleanup_(freep) char *module_id = rest_query(call, "targetModuleId");

    return answer_one(call, registry_device(call->registry, call->params[0]), device_id, module_id);
}

const struct rest_route rest_scope_routes[] = {
    { "POST", "/devices/{edge}/modules/$edgeHub/devicesAndModulesInTargetDeviceScope",
      REST_EDGE_HUB, scope_post },
    { "POST", "/devices/{edge}/modules/$edgeHub/getDeviceAndModuleOnBehalfOf", REST_EDGE_HUB,
      identity_post },
    { "GET", "/devices/{edge}/modules/$edgeHub/devicesAndModulesInDeviceScope", REST_EDGE_HUB,
      scope_get },
    { "GET", "/devices/{edge}/modules/$edgeHub/deviceAndModuleInDeviceScope", REST_EDGE_HUB,
      identity_get },
    {}
};
