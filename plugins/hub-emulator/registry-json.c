/* JSON of devices and modules. The file's form is the REST form with the modules inside. */
#include "registry-json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "registry-private.h"

void time_to_text(int64_t msec, char ret[static TIME_TEXT_BYTES])
{
    time_t sec = (time_t)(msec / 1000);
    struct tm tm;
    size_t n;

    if (msec == 0) {
        snprintf(ret, TIME_TEXT_BYTES, "0001-01-01T00:00:00Z");
        return;
    }
    gmtime_r(&sec, &tm);
    n = strftime(ret, TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, TIME_TEXT_BYTES - n, ".%03dZ", (int)(msec % 1000));
}

static json_t *time_json(int64_t msec)
{
    char text[TIME_TEXT_BYTES];

    time_to_text(msec, text);
    return json_string(text);
}

static json_t *credentials_json(const struct credentials *c)
{
    return json_pack("{s:{s:s?, s:s?}, s:{s:s?, s:s?}, s:s}", "symmetricKey", "primaryKey",
                     c->primary_key, "secondaryKey", c->secondary_key, "x509Thumbprint",
                     "primaryThumbprint", c->primary_thumbprint, "secondaryThumbprint",
                     c->secondary_thumbprint, "type", credentials_kind_names[c->kind]);
}

static json_t *parent_scopes_json(const struct device *device)
{
    json_t *scopes = json_array();

    for (size_t i = 0; device->parent_scopes && device->parent_scopes[i]; i++)
        json_array_append_new(scopes, json_string(device->parent_scopes[i]));
    return scopes;
}

static const char *connection_state(const struct identity *identity)
{
    return identity->connected ? "Connected" : "Disconnected";
}

static const char *status_name(const struct device *device)
{
    return device->enabled ? "enabled" : "disabled";
}

json_t *device_to_json(const struct device *device)
{
    const struct identity *identity = &device->identity;
    json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?}", "deviceId", device->id,
                             "generationId", identity->generation_id, "etag", identity->etag,
                             "connectionState", connection_state(identity), "status",
                             status_name(device), "statusReason", device->status_reason);

    json_object_set_new(json, "connectionStateUpdatedTime",
                        time_json(identity->connection_changed_ms));
    json_object_set_new(json, "statusUpdatedTime", time_json(device->status_changed_ms));
    json_object_set_new(json, "lastActivityTime", time_json(identity->last_activity_ms));
    json_object_set_new(json, "cloudToDeviceMessageCount", json_integer(0));
    json_object_set_new(json, "authentication", credentials_json(&identity->credentials));
    json_object_set_new(json, "capabilities", json_pack("{s:b}", "iotEdge", device->edge));
    if (device->scope)
        json_object_set_new(json, "deviceScope", json_string(device->scope));
    json_object_set_new(json, "parentScopes", parent_scopes_json(device));
    return json;
}

json_t *module_to_json(const struct module *module)
{
    const struct identity *identity = &module->identity;
    json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "moduleId", module->id, "managedBy",
                             module->managed_by, "deviceId", module->device->id, "generationId",
                             identity->generation_id, "etag", identity->etag, "connectionState",
                             connection_state(identity));

    json_object_set_new(json, "connectionStateUpdatedTime",
                        time_json(identity->connection_changed_ms));
    json_object_set_new(json, "lastActivityTime", time_json(identity->last_activity_ms));
    json_object_set_new(json, "cloudToDeviceMessageCount", json_integer(0));
    json_object_set_new(json, "authentication", credentials_json(&identity->credentials));
    return json;
}

json_t *device_to_scope_json(const struct device *device)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:{s:b}, s:s?, s:o}", "deviceId", device->id,
                     "generationId", device->identity.generation_id, "status", status_name(device),
                     "authentication", credentials_json(&device->identity.credentials),
                     "capabilities", "iotEdge", device->edge, "deviceScope", device->scope,
                     "parentScopes", parent_scopes_json(device));
}

json_t *module_to_scope_json(const struct module *module)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "moduleId", module->id, "deviceId",
                     module->device->id, "managedBy", module->managed_by, "generationId",
                     module->identity.generation_id, "authentication",
                     credentials_json(&module->identity.credentials));
}

json_t *device_to_file_json(const struct device *device)
{
    json_t *json = device_to_json(device), *modules = json_array();

    for (size_t i = 0; i < device->module_count; i++)
        json_array_append_new(modules, module_to_json(device->modules[i]));
    json_object_set_new(json, "modules", modules);
    return json;
}

/* ---- in ---- */

static int expected(struct registry_error *ret_error, const char *text)
{
    ret_error->expected = text;
    return REGISTRY_E_ARGUMENT;
}

/* A member that is absent or null leaves *@ret as it is. No text holds a NUL: the JSON reader lets none in. */
static int take_text(const json_t *json, const char *name, const char **ret,
                     struct registry_error *ret_error, const char *what)
{
    const json_t *member = json_object_get(json, name);

    if (!member || json_is_null(member))
        return 0;
    if (!json_is_string(member))
        return expected(ret_error, what);
    *ret = json_string_value(member);
    return 0;
}

static int take_kind(const json_t *authentication, int *ret_kind, struct registry_error *ret_error)
{
    const char *type = NULL;
    int r = take_text(authentication, "type", &type, ret_error, "authentication.type as a string");

    if (r != 0 || !type) {
        *ret_kind = r == 0 ? CREDENTIALS_SAS : -1;
        return r;
    }
    for (int i = 0; i < _CREDENTIALS_KIND_COUNT; i++) {
        if (strcasecmp(type, credentials_kind_names[i]) == 0) {
            *ret_kind = i;
            return 0;
        }
    }
    return expected(ret_error, "authentication.type sas, selfSigned, certificateAuthority or none");
}

static int take_authentication(const json_t *json, struct identity_spec *ret,
                               struct registry_error *ret_error)
{
    const json_t *authentication = json_object_get(json, "authentication"), *keys, *prints;
    int r;

    if (!authentication || json_is_null(authentication))
        return 0;
    if (!json_is_object(authentication))
        return expected(ret_error, "authentication as an object");
    keys = json_object_get(authentication, "symmetricKey");
    prints = json_object_get(authentication, "x509Thumbprint");
    r = take_kind(authentication, &ret->credentials_kind, ret_error);
    if (r == 0)
        r = take_text(keys, "primaryKey", &ret->primary_key, ret_error,
                      "symmetricKey.primaryKey as a string");
    if (r == 0)
        r = take_text(keys, "secondaryKey", &ret->secondary_key, ret_error,
                      "symmetricKey.secondaryKey as a string");
    if (r == 0)
        r = take_text(prints, "primaryThumbprint", &ret->primary_thumbprint, ret_error,
                      "x509Thumbprint.primaryThumbprint as a string");
    if (r == 0)
        r = take_text(prints, "secondaryThumbprint", &ret->secondary_thumbprint, ret_error,
                      "x509Thumbprint.secondaryThumbprint as a string");
    return r;
}

static int take_status(const json_t *json, struct identity_spec *ret,
                       struct registry_error *ret_error)
{
    const char *status = NULL;
    int r = take_text(json, "status", &status, ret_error, "status as a string");

    if (r != 0 || !status)
        return r;
    if (strcasecmp(status, "enabled") == 0)
        ret->enabled = 1;
    else if (strcasecmp(status, "disabled") == 0)
        ret->enabled = 0;
    else
        return expected(ret_error, "status enabled or disabled");
    return 0;
}

static int take_capabilities(const json_t *json, struct identity_spec *ret,
                             struct registry_error *ret_error)
{
    const json_t *capabilities = json_object_get(json, "capabilities");
    const json_t *edge = json_object_get(capabilities, "iotEdge");

    if (!edge || json_is_null(edge))
        return 0;
    if (!json_is_boolean(edge))
        return expected(ret_error, "capabilities.iotEdge true or false");
    ret->edge = json_is_true(edge);
    return 0;
}

static int take_parent_scopes(const json_t *json, struct identity_spec *ret,
                              struct registry_error *ret_error)
{
    const json_t *scopes = json_object_get(json, "parentScopes"), *scope;
    const char **texts;
    size_t i;

    if (!scopes || json_is_null(scopes))
        return 0;
    if (!json_is_array(scopes))
        return expected(ret_error, "parentScopes as an array of strings");
    texts = xnew_n(const char *, json_array_size(scopes) + 1);
    ret->parent_scopes = texts;
    json_array_foreach(scopes, i, scope)
    {
        if (!json_is_string(scope))
            return expected(ret_error, "parentScopes as an array of strings");
        texts[i] = json_string_value(scope);
    }
    return 0;
}

static int take_members(const json_t *json, struct identity_spec *ret,
                        struct registry_error *ret_error)
{
    const struct {
        const char *name;
        const char **place;
        const char *what;
    } texts[] = {
        { "id", &ret->device_id, "id as a string" },
        { "deviceId", &ret->device_id, "deviceId as a string" },
        { "moduleId", &ret->module_id, "moduleId as a string" },
        { "managedBy", &ret->managed_by, "managedBy as a string" },
        { "statusReason", &ret->status_reason, "statusReason as a string" },
        { "deviceScope", &ret->scope, "deviceScope as a string" },
    };
    int r = 0;

    for (size_t i = 0; i < ELEMENTSOF(texts) && r == 0; i++)
        r = take_text(json, texts[i].name, texts[i].place, ret_error, texts[i].what);
    if (r == 0)
        r = take_authentication(json, ret, ret_error);
    if (r == 0)
        r = take_status(json, ret, ret_error);
    if (r == 0)
        r = take_capabilities(json, ret, ret_error);
    if (r == 0)
        r = take_parent_scopes(json, ret, ret_error);
    return r;
}

int identity_spec_from_json(const json_t *json, struct identity_spec *ret,
                            struct registry_error *ret_error)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    int r;

    if (!json_is_object(json))
        return expected(ret_error, "a JSON object");
    r = take_members(json, &spec, ret_error);
    if (r != 0) {
        identity_spec_done(&spec);
        return r;
    }
    *ret = spec;
    return 0;
}

void identity_spec_done(struct identity_spec *spec)
{
    free((void *)spec->parent_scopes);
    spec->parent_scopes = NULL;
}

/* ---- from the file ---- */

/* What is common to devices and modules, as it was: nothing is made up here. */
static int identity_from_file(const json_t *json, const struct identity_spec *spec,
                              struct identity *ret)
{
    const char *generation = json_string_value(json_object_get(json, "generationId"));
    const char *etag = json_string_value(json_object_get(json, "etag"));

    if (!generation || !etag || spec->credentials_kind < 0)
        return -EBADMSG;
    ret->generation_id = xstrdup(generation);
    ret->etag = xstrdup(etag);
    ret->credentials = (struct credentials){
        .kind = (enum credentials_kind)spec->credentials_kind,
        .primary_key = xstrdup(spec->primary_key),
        .secondary_key = xstrdup(spec->secondary_key),
        .primary_thumbprint = xstrdup(spec->primary_thumbprint),
        .secondary_thumbprint = xstrdup(spec->secondary_thumbprint),
    };
    return 0;
}

static int module_from_file_json(const json_t *json, struct device *device)
{
    struct registry_error error;
    struct identity_spec spec;
    struct module *module;
    int r;

    if (identity_spec_from_json(json, &spec, &error) != 0)
        return -EBADMSG;
    if (!spec.module_id) {
        r = -EBADMSG;
        goto out;
    }
    module = xnew(struct module);
    module->id = xstrdup(spec.module_id);
    module->managed_by = xstrdup(spec.managed_by ? spec.managed_by : "");
    module->device = device;
    xgrow(device->modules, device->module_count, device->module_capacity);
    device->modules[device->module_count++] = module; /* they were written in order */
    r = identity_from_file(json, &spec, &module->identity);
out:
    identity_spec_done(&spec);
    return r;
}

static char **strings_dup(const char *const *strings)
{
    size_t count = 0;
    char **copy;

    while (strings && strings[count])
        count++;
    if (count == 0)
        return NULL;
    copy = xnew_n(char *, count + 1);
    for (size_t i = 0; i < count; i++)
        copy[i] = xstrdup(strings[i]);
    return copy;
}

static int device_fill(struct device *device, const json_t *json, const struct identity_spec *spec)
{
    const json_t *module;
    size_t i;
    int r;

    if (!spec->device_id || spec->enabled < 0 || spec->edge < 0 || (spec->edge && !spec->scope))
        return -EBADMSG;
    device->id = xstrdup(spec->device_id);
    device->enabled = spec->enabled != 0;
    device->status_reason = xstrdup(spec->status_reason);
    device->edge = spec->edge != 0;
    device->scope = xstrdup(spec->scope);
    device->parent_scopes = strings_dup(spec->parent_scopes);
    r = identity_from_file(json, spec, &device->identity);
    json_array_foreach(json_object_get(json, "modules"), i, module)
    {
        if (r < 0)
            return r;
        r = module_from_file_json(module, device);
    }
    return r;
}

int device_from_file_json(const json_t *json, struct device **ret)
{
    _cleanup_(device_freep) struct device *device = xnew(struct device);
    struct registry_error error;
    struct identity_spec spec;
    int r;

    if (identity_spec_from_json(json, &spec, &error) != 0)
        return -EBADMSG;
    r = device_fill(device, json, &spec);
    identity_spec_done(&spec);
    if (r == 0)
        *ret = TAKE_PTR(device);
    return r;
}
