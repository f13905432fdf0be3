#include "hub-json.h"

#include <assert.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>

#include "message.h"

/* What is longer is nonsense, and as if it were not there: each record must fit in the cache. */
enum { TEXT_BYTES_MAX = 4096, PARENTS_MAX = 64 };

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool text_sane(const char *text)
{
    return text && *text && strlen(text) <= TEXT_BYTES_MAX;
}

/* The empty string says the same as null. */
static char *text_dup(const json_t *object, const char *name)
{
    const char *text = text_of(object, name);

    return text_sane(text) ? xstrdup(text) : NULL;
}

static json_t *object_read(struct span text)
{
    json_t *root = json_loadb(text.at ? text.at : "", text.len, 0, NULL);

    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

/* ---- one identity ---- */

static const char *const auth_names[_SCOPE_AUTH_COUNT] = {
    [SCOPE_AUTH_NONE] = "none",
    [SCOPE_AUTH_SAS] = "sas",
    [SCOPE_AUTH_THUMBPRINT] = "selfSigned",
    [SCOPE_AUTH_AUTHORITY] = "certificateAuthority",
};

static enum scope_auth auth_of(const json_t *authentication)
{
    const char *name = text_of(authentication, "type");

    if (!name)
        return SCOPE_AUTH_SAS;
    for (enum scope_auth auth = 0; auth < _SCOPE_AUTH_COUNT; auth++)
        if (strcasecmp(name, auth_names[auth]) == 0)
            return auth;
    return SCOPE_AUTH_NONE;
}

/* NULL: there is none, or it is no key. */
static struct sas_key *key_of(const json_t *keys, const char *name)
{
    const char *text = text_of(keys, name);
    struct sas_key *key;

    if (!text)
        return NULL;
    key = xnew(struct sas_key);
    if (!sas_key_parse(span_str(text), key)) {
        free(key);
        return NULL;
    }
    return key;
}

/* What the kind of authentication needs is there; the secondary one may be missing. */
static bool credentials_read(const json_t *authentication, struct scope_identity *identity)
{
    const json_t *thumbprints;
    const json_t *keys;

    identity->auth = auth_of(authentication);
    if (identity->auth == SCOPE_AUTH_SAS) {
        keys = json_object_get(authentication, "symmetricKey");
        identity->primary_key = key_of(keys, "primaryKey");
        identity->secondary_key = key_of(keys, "secondaryKey");
        return identity->primary_key;
    }
    if (identity->auth == SCOPE_AUTH_THUMBPRINT) {
        thumbprints = json_object_get(authentication, "x509Thumbprint");
        identity->primary_thumbprint = text_dup(thumbprints, "primaryThumbprint");
        identity->secondary_thumbprint = text_dup(thumbprints, "secondaryThumbprint");
        return identity->primary_thumbprint || identity->secondary_thumbprint;
    }
    return true;
}

static void parents_read(const json_t *array, struct scope_identity *identity)
{
    size_t count = json_array_size(array) < PARENTS_MAX ? json_array_size(array) : PARENTS_MAX;

    identity->parent_scopes = count > 0 ? xnew_n(char *, count) : NULL;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));

        if (text_sane(text))
            identity->parent_scopes[identity->parent_scope_count++] = xstrdup(text);
    }
}

/* NULL: the record makes no sense. */
static struct scope_identity *identity_read(const json_t *record, bool is_module)
{
    _cleanup_(scope_identity_freep) struct scope_identity *identity = xnew(struct scope_identity);
    const char *status = text_of(record, "status");

    identity->device_id = text_dup(record, "deviceId");
    identity->module_id = is_module ? text_dup(record, "moduleId") : NULL;
    if (!identity->device_id || !identity_id_valid(identity->device_id))
        return NULL;
    if (is_module && (!identity->module_id || !identity_id_valid(identity->module_id)))
        return NULL;
    if (!credentials_read(json_object_get(record, "authentication"), identity))
        return NULL;

    identity->generation_id = text_dup(record, "generationId");
    identity->enabled = !status || strcasecmp(status, "enabled") == 0;
    identity->is_edge =
        json_is_true(json_object_get(json_object_get(record, "capabilities"), "iotEdge"));
    identity->device_scope = text_dup(record, "deviceScope");
    parents_read(json_object_get(record, "parentScopes"), identity);
    return TAKE_PTR(identity);
}

int scope_identity_parse(struct span text, struct scope_identity **ret)
{
    _cleanup_(json_decrefp) json_t *root = object_read(text);
    struct scope_identity *identity;

    if (!root)
        return HUB_JSON_E_MALFORMED;
    identity = identity_read(root, json_object_get(root, "moduleId") != NULL);
    if (!identity)
        return HUB_JSON_E_MALFORMED;
    *ret = identity;
    return 0;
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *key_or_null(const struct sas_key *key)
{
    char *text;
    json_t *json;

    if (!key)
        return json_null();
    text = base64_encode(key->bytes, key->len);
    json = json_string(text);
    OPENSSL_cleanse(text, strlen(text));
    free(text);
    return json;
}

/* Out of memory ends the process, as everywhere. */
static char *print(json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    assert(text);
    return text;
}

char *scope_identity_print(const struct scope_identity *identity)
{
    _cleanup_(json_decrefp) json_t *root = NULL;
    json_t *parents = json_array();

    for (size_t i = 0; i < identity->parent_scope_count; i++)
        json_array_append_new(parents, json_string(identity->parent_scopes[i]));
    root = json_pack(
        "{s:s, s:o, s:s, s:{s:s, s:{s:o, s:o}, s:{s:o, s:o}}, s:{s:b}, s:o, s:o}", "deviceId",
        identity->device_id, "generationId", text_or_null(identity->generation_id), "status",
        identity->enabled ? "enabled" : "disabled", "authentication", "type",
        auth_names[identity->auth], "symmetricKey", "primaryKey",
        key_or_null(identity->primary_key), "secondaryKey", key_or_null(identity->secondary_key),
        "x509Thumbprint", "primaryThumbprint", text_or_null(identity->primary_thumbprint),
        "secondaryThumbprint", text_or_null(identity->secondary_thumbprint), "capabilities",
        "iotEdge", identity->is_edge, "deviceScope", text_or_null(identity->device_scope),
        "parentScopes", parents);
    if (identity->module_id)
        json_object_set_new(root, "moduleId", json_string(identity->module_id));
    return print(root);
}

/* ---- a page ---- */

static void page_add(struct scope_page *page, const json_t *records, bool is_module)
{
    const json_t *record;
    size_t i;

    json_array_foreach((json_t *)records, i, record)
    {
        struct scope_identity *identity = identity_read(record, is_module);

        if (!identity) {
            page->skipped++;
            continue;
        }
        xgrow(page->identities, page->count, page->capacity);
        page->identities[page->count++] = identity;
    }
}

static bool array_or_null(const json_t *json)
{
    return !json || json_is_array(json) || json_is_null(json);
}

int scope_page_parse(struct span text, struct scope_page *ret, const char **ret_expected)
{
    _cleanup_(json_decrefp) json_t *root = object_read(text);
    const char *continuation = text_of(root, "continuationLink");
    struct scope_page page = {};

    if (!root) {
        *ret_expected = "a JSON object";
        return HUB_JSON_E_MALFORMED;
    }
    if (!array_or_null(json_object_get(root, "devices")) ||
        !array_or_null(json_object_get(root, "modules"))) {
        *ret_expected = "devices and modules, arrays";
        return HUB_JSON_E_MALFORMED;
    }
    /* An object of neither is no listing: it must not look like an empty scope, which disconnects
     * everyone. */
    if (!json_object_get(root, "devices") && !json_object_get(root, "modules")) {
        *ret_expected = "devices or modules";
        return HUB_JSON_E_MALFORMED;
    }

    page_add(&page, json_object_get(root, "devices"), false);
    page.device_count = page.count;
    page_add(&page, json_object_get(root, "modules"), true);
    page.continuation = continuation && *continuation ? xstrdup(continuation) : NULL;
    *ret = page;
    return 0;
}

void scope_page_done(struct scope_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        scope_identity_free(page->identities[i]);
    free(page->identities);
    free(page->continuation);
    *page = (struct scope_page){};
}

/* ---- a module ---- */

int hub_module_parse(struct span text, struct hub_module *ret, const char **ret_expected)
{
    _cleanup_(json_decrefp) json_t *root = object_read(text);
    struct hub_module m = {};
    json_t *authentication;

    m.generation_id = text_dup(root, "generationId");
    if (!m.generation_id) {
        *ret_expected = "a JSON object with generationId";
        return HUB_JSON_E_MALFORMED;
    }
    m.managed_by = text_dup(root, "managedBy");
    authentication = json_object_get(root, "authentication");
    if (auth_of(authentication) == SCOPE_AUTH_SAS)
        m.primary_key = key_of(json_object_get(authentication, "symmetricKey"), "primaryKey");
    *ret = m;
    return 0;
}

void hub_module_done(struct hub_module *m)
{
    free(m->generation_id);
    free(m->managed_by);
    if (m->primary_key)
        sas_key_wipe(m->primary_key);
    free(m->primary_key);
    *m = (struct hub_module){};
}

/* ---- requests ---- */

char *hub_json_scope_listing(unsigned page_size, const char *continuation, const char *auth_chain)
{
    _cleanup_(json_decrefp) json_t *root = NULL;

    root = json_pack("{s:i, s:s*, s:s}", "pageSize", (int)page_size, "continuationLink",
                     continuation, "authChain", auth_chain);
    return print(root);
}

char *hub_json_scope_lookup(const char *device_id, const char *module_id, const char *auth_chain)
{
    _cleanup_(json_decrefp) json_t *root = NULL;

    root = json_pack("{s:s, s:s*, s:s}", "targetDeviceId", device_id, "targetModuleId",
                     module_id && *module_id ? module_id : NULL, "authChain", auth_chain);
    return print(root);
}

char *hub_json_module_keys(const char *device_id, const char *module_id, const char *managed_by,
                           const struct sas_key *primary, const struct sas_key *secondary)
{
    _cleanup_(json_decrefp) json_t *root = NULL;

    root = json_pack("{s:s, s:s, s:s*, s:{s:s, s:{s:o, s:o}}}", "moduleId", module_id, "deviceId",
                     device_id, "managedBy", managed_by, "authentication", "type", "sas",
                     "symmetricKey", "primaryKey", key_or_null(primary), "secondaryKey",
                     key_or_null(secondary));
    return print(root);
}
