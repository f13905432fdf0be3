/* REST calls on devices and modules: one by one and in bulk (identity.md §5.2, §12). */
#include <string.h>

#include "registry-json.h"
#include "rest.h"

enum { LIST_MAX = 1000, BULK_MAX = 100 };

/* How an outcome of the registry is told; what it is about is the id. */
static const struct outcome {
    unsigned status;
    const char *code;
} outcomes[] = {
    [REGISTRY_E_EXISTS] = { 409, "DeviceAlreadyExists" },
    [REGISTRY_E_NO_DEVICE] = { 404, "DeviceNotFound" },
    [REGISTRY_E_NO_MODULE] = { 404, "ModuleNotFound" },
    [REGISTRY_E_ETAG] = { 412, "PreconditionFailed" },
    [REGISTRY_E_ARGUMENT] = { 400, "ArgumentInvalid" },
    [REGISTRY_E_TOO_MANY] = { 413, "TooManyModulesOnDevice" },
};

static struct outcome outcome_of(int r, bool of_module)
{
    if (r == REGISTRY_E_EXISTS && of_module)
        return (struct outcome){ 409, "ModuleAlreadyExistsOnDevice" };
    return outcomes[r];
}

static int answer_outcome(struct rest_call *call, int r, bool of_module,
                          const struct registry_error *error)
{
    struct outcome outcome = outcome_of(r, of_module);
    const char *id = of_module && r != REGISTRY_E_NO_DEVICE ? call->params[1] : call->params[0];

    if (r == REGISTRY_E_ARGUMENT)
        return rest_answer_error(call, outcome.status, outcome.code, "%s: expected %s", id,
                                 error->expected);
    return rest_answer_error(call, outcome.status, outcome.code, "%s", id);
}

static int answer_device(struct rest_call *call)
{
    const struct device *device = registry_device(call->registry, call->params[0]);

    rest_set_etag(call, device->identity.etag);
    return rest_answer_json_take(call, 200, device_to_json(device));
}

static int answer_module(struct rest_call *call)
{
    const struct module *module = registry_module(call->registry, call->params[0], call->params[1]);

    rest_set_etag(call, module->identity.etag);
    return rest_answer_json_take(call, 200, module_to_json(module));
}

/* The etag the change is bound to; NULL: any. */
static const char *wanted_etag(const char *if_match)
{
    return if_match && strcmp(if_match, "*") != 0 ? if_match : NULL;
}

/* The body must be about the identity in the path. */
static int read_spec(struct rest_call *call, bool of_module, struct identity_spec *ret,
                     struct registry_error *ret_error)
{
    int r = identity_spec_from_json(call->body, ret, ret_error);

    if (r != 0)
        return r;
    ret_error->expected = "deviceId and moduleId of the path in the body";
    if ((ret->device_id && strcmp(ret->device_id, call->params[0]) != 0) ||
        (of_module && ret->module_id && strcmp(ret->module_id, call->params[1]) != 0)) {
        identity_spec_done(ret);
        return REGISTRY_E_ARGUMENT;
    }
    ret->device_id = call->params[0];
    ret->module_id = of_module ? call->params[1] : NULL;
    return 0;
}

/* ---- devices ---- */

static int device_put(struct rest_call *call)
{
    struct registry_error error;
    struct identity_spec spec;
    int r = read_spec(call, false, &spec, &error);

    if (r != 0)
        return answer_outcome(call, r, false, &error);
    if (call->if_match)
        r = registry_device_update(call->registry, &spec, wanted_etag(call->if_match), &error);
    else
        r = registry_device_create(call->registry, &spec, &error);
    identity_spec_done(&spec);
    if (r < 0)
        return r;
    return r > 0 ? answer_outcome(call, r, false, &error) : answer_device(call);
}

static int device_get(struct rest_call *call)
{
    if (!registry_device(call->registry, call->params[0]))
        return answer_outcome(call, REGISTRY_E_NO_DEVICE, false, NULL);
    return answer_device(call);
}

static int device_delete(struct rest_call *call)
{
    int r = registry_device_remove(call->registry, call->params[0], wanted_etag(call->if_match));

    if (r < 0)
        return r;
    return r > 0 ? answer_outcome(call, r, false, NULL) : rest_answer_empty(call, 204);
}

static int devices_list(struct rest_call *call)
{
    size_t count = registry_count(call->registry);
    json_t *list = json_array();

    for (size_t i = 0; i < count && i < LIST_MAX; i++)
        json_array_append_new(list, device_to_json(registry_device_at(call->registry, i)));
    return rest_answer_json_take(call, 200, list);
}

/* ---- modules ---- */

static int module_put(struct rest_call *call)
{
    struct registry_error error;
    struct identity_spec spec;
    int r = read_spec(call, true, &spec, &error);

    if (r != 0)
        return answer_outcome(call, r, true, &error);
    if (call->if_match) {
        r = registry_module_update(call->registry, &spec, wanted_etag(call->if_match), &error);
    } else {
        if (spec.credentials_kind < 0)
            spec.credentials_kind =
                CREDENTIALS_NONE; /* keys follow: they are made of the generation id */
        r = registry_module_create(call->registry, &spec, &error);
    }
    identity_spec_done(&spec);
    if (r < 0)
        return r;
    return r > 0 ? answer_outcome(call, r, true, &error) : answer_module(call);
}

static int module_get(struct rest_call *call)
{
    if (!registry_device(call->registry, call->params[0]))
        return answer_outcome(call, REGISTRY_E_NO_DEVICE, true, NULL);
    if (!registry_module(call->registry, call->params[0], call->params[1]))
        return answer_outcome(call, REGISTRY_E_NO_MODULE, true, NULL);
    return answer_module(call);
}

static int module_delete(struct rest_call *call)
{
    int r = registry_module_remove(call->registry, call->params[0], call->params[1],
                                   wanted_etag(call->if_match));

    if (r < 0)
        return r;
    return r > 0 ? answer_outcome(call, r, true, NULL) : rest_answer_empty(call, 204);
}

static int modules_list(struct rest_call *call)
{
    const struct device *device = registry_device(call->registry, call->params[0]);
    json_t *list;

    if (!device)
        return answer_outcome(call, REGISTRY_E_NO_DEVICE, false, NULL);
    list = json_array();
    for (size_t i = 0; i < device->module_count; i++)
        json_array_append_new(list, module_to_json(device->modules[i]));
    return rest_answer_json_take(call, 200, list);
}

/* ---- bulk ---- */

struct bulk_entry {
    struct identity_spec spec;
    const char *etag; /* NULL: any */
};

static int bulk_create(struct registry *registry, const struct bulk_entry *entry,
                       struct registry_error *error)
{
    return entry->spec.module_id ? registry_module_create(registry, &entry->spec, error)
                                 : registry_device_create(registry, &entry->spec, error);
}

static int bulk_update(struct registry *registry, const struct bulk_entry *entry,
                       struct registry_error *error)
{
    return entry->spec.module_id
               ? registry_module_update(registry, &entry->spec, entry->etag, error)
               : registry_device_update(registry, &entry->spec, entry->etag, error);
}

static int bulk_create_or_update(struct registry *registry, const struct bulk_entry *entry,
                                 struct registry_error *error)
{
    return registry_identity(registry, entry->spec.device_id, entry->spec.module_id)
               ? bulk_update(registry, entry, error)
               : bulk_create(registry, entry, error);
}

static int bulk_delete(struct registry *registry, const struct bulk_entry *entry,
                       struct registry_error *error)
{
    return entry->spec.module_id
               ? registry_module_remove(registry, entry->spec.device_id, entry->spec.module_id,
                                        entry->etag)
               : registry_device_remove(registry, entry->spec.device_id, entry->etag);
}

static const struct bulk_mode {
    const char *name;
    bool by_etag;
    int (*fn)(struct registry *registry, const struct bulk_entry *entry,
              struct registry_error *error);
} bulk_modes[] = {
    { "create", false, bulk_create },
    { "update", false, bulk_update },
    { "updateIfMatchETag", true, bulk_update },
    { "createOrUpdate", false, bulk_create_or_update },
    { "createOrUpdateIfMatchETag", true, bulk_create_or_update },
    { "delete", false, bulk_delete },
    { "deleteIfMatchETag", true, bulk_delete },
};

static const struct bulk_mode *bulk_mode_of(const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "importMode"));

    for (size_t i = 0; name && i < ELEMENTSOF(bulk_modes); i++)
        if (strcasecmp(name, bulk_modes[i].name) == 0)
            return &bulk_modes[i];
    return NULL;
}

static const char *bulk_etag(const json_t *entry)
{
    const char *etag = json_string_value(json_object_get(entry, "eTag"));

    return etag ? etag : json_string_value(json_object_get(entry, "etag"));
}

static int bulk_apply(struct registry *registry, const json_t *json, struct registry_error *error)
{
    const struct bulk_mode *mode = bulk_mode_of(json);
    struct bulk_entry entry = {};
    int r;

    error->expected =
        "importMode create, update, createOrUpdate or delete, or one of them with IfMatchETag";
    if (!mode)
        return REGISTRY_E_ARGUMENT;
    r = identity_spec_from_json(json, &entry.spec, error);
    if (r != 0)
        return r;
    entry.etag = mode->by_etag ? wanted_etag(bulk_etag(json)) : NULL;
    error->expected = "an id";
    r = entry.spec.device_id ? mode->fn(registry, &entry, error) : REGISTRY_E_ARGUMENT;
    identity_spec_done(&entry.spec);
    return r;
}

static json_t *bulk_error_json(const json_t *entry, int r, const struct registry_error *error)
{
    const char *module_id = json_string_value(json_object_get(entry, "moduleId"));
    const char *id = json_string_value(json_object_get(entry, "id"));
    struct outcome outcome = outcome_of(r, module_id != NULL);

    return json_pack("{s:s?, s:s*, s:s, s:s}", "deviceId", id, "moduleId", module_id, "errorCode",
                     outcome.code, "errorStatus",
                     r == REGISTRY_E_ARGUMENT ? error->expected : outcome.code);
}

static int devices_bulk(struct rest_call *call)
{
    size_t count = json_array_size(call->body);
    struct registry_error error = {};
    json_t *errors, *entry;
    size_t i;
    int r, failed = 0;

    if (!json_is_array(call->body) || count == 0 || count > BULK_MAX)
        return rest_answer_error(call, 400, "ArgumentInvalid",
                                 "expected an array of 1 to %d devices", BULK_MAX);
    errors = json_array();
    registry_hold(call->registry);
    json_array_foreach(call->body, i, entry)
    {
        r = bulk_apply(call->registry, entry, &error);
        if (r > 0)
            json_array_append_new(errors, bulk_error_json(entry, r, &error));
        else if (r < 0)
            failed = r;
    }
    r = registry_release(call->registry);
    if (r < 0 || failed < 0) {
        json_decref(errors);
        return r < 0 ? r : failed;
    }
    return rest_answer_json_take(call, json_array_size(errors) > 0 ? 400 : 200,
                                 json_pack("{s:b, s:o, s:[]}", "isSuccessful",
                                           json_array_size(errors) == 0, "errors", errors,
                                           "warnings"));
}

const struct rest_route rest_registry_routes[] = {
    { "GET", "/devices", REST_REGISTRY_READ, devices_list },
    { "POST", "/devices", REST_REGISTRY_WRITE, devices_bulk },
    { "GET", "/devices/{device}", REST_REGISTRY_READ, device_get },
    { "PUT", "/devices/{device}", REST_REGISTRY_WRITE, device_put },
    { "DELETE", "/devices/{device}", REST_REGISTRY_WRITE, device_delete },
    { "GET", "/devices/{device}/modules", REST_MODULES_READ, modules_list },
    { "GET", "/devices/{device}/modules/{module}", REST_MODULES_READ, module_get },
    { "PUT", "/devices/{device}/modules/{module}", REST_MODULES_WRITE, module_put },
    { "DELETE", "/devices/{device}/modules/{module}", REST_MODULES_WRITE, module_delete },
    {}
};
