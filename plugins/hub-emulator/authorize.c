#include "authorize.h"

#include <string.h>

enum { DECODING_DEPTH_MAX = 3 };

const char *authorize_text(int outcome)
{
    static const char *const texts[] = {
        [0] = "authorized",
        [AUTHORIZE_E_MALFORMED] = "no readable token",
        [AUTHORIZE_E_EXPIRED] = "the token has expired",
        [AUTHORIZE_E_SIGNATURE] = "the token's signature is wrong",
        [AUTHORIZE_E_AUDIENCE] = "the token is for another audience",
        [AUTHORIZE_E_POLICY] = "the policy does not exist or does not allow that",
        [AUTHORIZE_E_UNKNOWN] = "the identity does not exist",
        [AUTHORIZE_E_DISABLED] = "the device is disabled",
        [AUTHORIZE_E_KIND] = "the identity does not authenticate with keys",
        [AUTHORIZE_E_SCOPE] = "the identity is not in the scope of the edge device",
    };

    return texts[outcome];
}

/* ---- service policies ---- */

static unsigned policy_permissions(const char *name)
{
    static const struct {
        const char *name;
        unsigned permissions;
    } policies[] = {
        { "iothubowner", PERMISSION_REGISTRY_READ | PERMISSION_REGISTRY_WRITE |
                             PERMISSION_SERVICE_CONNECT | PERMISSION_DEVICE_CONNECT },
        { "service", PERMISSION_SERVICE_CONNECT },
        { "device", PERMISSION_DEVICE_CONNECT },
        { "registryRead", PERMISSION_REGISTRY_READ },
        { "registryReadWrite", PERMISSION_REGISTRY_READ | PERMISSION_REGISTRY_WRITE },
    };

    for (size_t i = 0; i < ELEMENTSOF(policies); i++)
        if (strcmp(name, policies[i].name) == 0)
            return policies[i].permissions;
    return 0;
}

static int token_read(struct span text, int64_t now_sec, struct sas_token *ret)
{
    if (sas_token_parse(text, ret) != 0)
        return AUTHORIZE_E_MALFORMED;
    return sas_token_check_expiry(ret, now_sec) == 0 ? 0 : AUTHORIZE_E_EXPIRED;
}

static int check_policy(const struct authority *authority, const struct sas_token *token,
                        enum permission permission)
{
    if (!(policy_permissions(token->policy) & permission))
        return AUTHORIZE_E_POLICY;
    return sas_token_check_signature(token, &authority->policy_key) == 0 ? 0
                                                                         : AUTHORIZE_E_SIGNATURE;
}

/* "hub", as Node writes it, or "amqps://hub:5671/", as .NET does. */
static bool is_hub_itself(const struct authority *authority, struct span resource)
{
    size_t len;
    _cleanup_(freep) char *decoded = percent_decode(resource, &len);
    struct span text = span_of(decoded, len), before;

    if (span_split(&text, SPAN("://"), &before) && span_split(&text, SPAN("/"), &before))
        text = before;
    if (span_split(&text, SPAN(":"), &before))
        text = before;
    return span_equal_nocase(text, span_str(authority->hostname));
}

int authorize_service(const struct authority *authority, struct span text,
                      enum permission permission, int64_t now_sec)
{
    struct sas_token token;
    int r = token_read(text, now_sec, &token);

    if (r != 0)
        return r;
    if (!is_hub_itself(authority, token.resource))
        return AUTHORIZE_E_AUDIENCE;
    return check_policy(authority, &token, permission);
}

/* ---- identities ---- */

static bool signed_with(const struct sas_token *token, const char *base64)
{
    struct sas_key key;
    bool valid;

    if (!base64 || !sas_key_parse(span_str(base64), &key))
        return false;
    valid = sas_token_check_signature(token, &key) == 0;
    sas_key_wipe(&key);
    return valid;
}

static int check_keys(const struct sas_token *token, const struct identity *identity)
{
    if (identity->credentials.kind != CREDENTIALS_SAS)
        return AUTHORIZE_E_KIND;
    if (signed_with(token, identity->credentials.primary_key) ||
        signed_with(token, identity->credentials.secondary_key))
        return 0;
    return AUTHORIZE_E_SIGNATURE;
}

/* The device must be enabled, for its modules too. */
static int check_signer(const struct authority *authority, const struct sas_token *token,
                        const char *device_id, const char *module_id)
{
    const struct device *device = registry_device(authority->registry, device_id);
    const struct identity *identity = registry_identity(authority->registry, device_id, module_id);

    if (!identity)
        return AUTHORIZE_E_UNKNOWN;
    if (!device->enabled)
        return AUTHORIZE_E_DISABLED;
    if (token->policy[0] != '\0')
        return check_policy(authority, token, PERMISSION_DEVICE_CONNECT);
    return check_keys(token, identity);
}

int authorize_identity(const struct authority *authority, struct span text, const char *device_id,
                       const char *module_id, bool device_wide, int64_t now_sec)
{
    bool is_devices, is_module = module_id && module_id[0] != '\0';
    struct sas_token token;
    int r = token_read(text, now_sec, &token);

    if (r != 0)
        return r;
    if (sas_token_check_audience(&token, authority->hostname, NULL, device_id, module_id,
                                 &is_devices) != 0)
        return AUTHORIZE_E_AUDIENCE;
    if (is_module && is_devices && !device_wide)
        return AUTHORIZE_E_AUDIENCE;
    return check_signer(authority, &token, device_id, is_devices ? NULL : module_id);
}

/* ---- put-token ---- */

void grant_done(struct grant *grant)
{
    free(grant->device_id);
    free(grant->module_id);
    free(grant->actor_device_id);
    *grant = (struct grant){};
}

/* The identity that a resource names at the first decoding depth at which the registry knows one. Nobody has said whom to
 * expect, and producers encode none to three times. */
static int resource_identity(const struct authority *authority, const struct sas_token *token,
                             struct grant *ret)
{
    int r = AUTHORIZE_E_AUDIENCE;

    for (unsigned depth = 0; depth <= DECODING_DEPTH_MAX; depth++) {
        _cleanup_(freep) char *host = NULL;
        struct grant found = {};

        if (!sas_token_identity(token, depth, &host, &found.device_id, &found.module_id))
            continue;
        if (strcasecmp(host, authority->hostname) != 0) {
            grant_done(&found);
            continue;
        }
        if (registry_identity(authority->registry, found.device_id, found.module_id)) {
            *ret = found;
            return 0;
        }
        grant_done(&found);
        r = AUTHORIZE_E_UNKNOWN;
    }
    return r;
}

static bool same_identity(const struct grant *a, const struct grant *b)
{
    return strcmp(a->device_id, b->device_id) == 0 &&
           strcmp(a->module_id ? a->module_id : "", b->module_id ? b->module_id : "") == 0;
}

/* Is there a way up from @device to @actor? */
static bool is_below(const struct registry *registry, const struct device *device,
                     const struct device *actor)
{
    for (unsigned depth = 0; device && depth < REGISTRY_NESTING_MAX; depth++) {
        if (device == actor || registry_is_child(device, actor))
            return true;
        device = device->parent_scopes ? registry_edge_of_scope(registry, device->parent_scopes[0])
                                       : NULL;
    }
    return false;
}

/* The token is good for @own. When it is a $edgeHub's and @name is somebody else, the edge wants to act for that one. */
static int grant_on_behalf(const struct authority *authority, struct grant *own, struct span name)
{
    const struct sas_token named = { .resource = name };
    const struct registry *registry = authority->registry;
    const struct device *device;
    struct grant leaf = {};
    int r;

    if (!own->module_id || strcmp(own->module_id, "$edgeHub") != 0)
        return 0;
    r = resource_identity(authority, &named, &leaf);
    if (r == AUTHORIZE_E_AUDIENCE)
        return 0; /* @name is free text: whose the token is, it says itself */
    if (r != 0)
        return r;
    if (same_identity(&leaf, own)) {
        grant_done(&leaf);
        return 0;
    }
    device = registry_device(registry, leaf.device_id);
    if (!device->enabled)
        r = AUTHORIZE_E_DISABLED;
    else if (!is_below(registry, device, registry_device(registry, own->device_id)))
        r = AUTHORIZE_E_SCOPE;
    if (r != 0) {
        grant_done(&leaf);
        return r;
    }
    leaf.actor_device_id = TAKE_PTR(own->device_id);
    leaf.expires_sec = own->expires_sec;
    grant_done(own);
    *own = leaf;
    return 0;
}

int authorize_put_token(const struct authority *authority, struct span text, struct span name,
                        int64_t now_sec, struct grant *ret)
{
    struct sas_token token;
    struct grant grant = {};
    int r = token_read(text, now_sec, &token);

    if (r != 0)
        return r;
    if (is_hub_itself(authority, token.resource)) {
        *ret = (struct grant){ .expires_sec = token.expires_sec };
        return check_policy(authority, &token, PERMISSION_SERVICE_CONNECT);
    }
    r = resource_identity(authority, &token, &grant);
    if (r != 0)
        return r;
    grant.expires_sec = token.expires_sec;
    r = check_signer(authority, &token, grant.device_id, grant.module_id);
    if (r == 0)
        r = grant_on_behalf(authority, &grant, name);
    if (r != 0) {
        grant_done(&grant);
        return r;
    }
    *ret = grant;
    return 0;
}

/* ---- on behalf of ---- */

/* The first element is the identity itself; a module's device may follow. What is left of @chain are edge devices. */
static bool chain_eat_leaf(struct span *chain, const char *device_id, const char *module_id)
{
    _cleanup_(freep) char *name =
        module_id ? xasprintf("%s/%s", device_id, module_id) : xstrdup(device_id);
    struct span rest = *chain, first;

    if (!span_split(&rest, SPAN(";"), &first) || !span_equal(first, span_str(name)))
        return false;
    *chain = rest;
    if (module_id && span_split(&rest, SPAN(";"), &first) && span_equal(first, span_str(device_id)))
        *chain = rest;
    return true;
}

/* Each element is an enabled edge device, the parent of the one before; the last is the one that acts. */
static bool chain_leads_up(const struct registry *registry, const struct device *from,
                           struct span chain, const struct device *actor)
{
    const struct device *below = from;
    struct span name;
    bool done = false;

    for (unsigned depth = 0; span_next(&chain, ';', &name, &done); depth++) {
        _cleanup_(freep) char *id = span_xdup(name);
        const struct device *edge = registry_device(registry, id);

        if (!edge || !edge->edge || !edge->enabled || depth >= REGISTRY_NESTING_MAX)
            return false;
        if (edge != below && !registry_is_child(below, edge))
            return false;
        below = edge;
    }
    return below == actor;
}

int authorize_on_behalf(const struct authority *authority, const char *actor_device_id,
                        const char *device_id, const char *module_id, struct span chain)
{
    const struct device *actor = registry_device(authority->registry, actor_device_id);
    const struct device *device = registry_device(authority->registry, device_id);

    if (!actor || !registry_identity(authority->registry, device_id, module_id))
        return AUTHORIZE_E_UNKNOWN;
    if (!actor->enabled || !device->enabled)
        return AUTHORIZE_E_DISABLED;
    if (chain.len == 0)
        return device == actor || registry_is_child(device, actor) ? 0 : AUTHORIZE_E_SCOPE;
    if (!chain_eat_leaf(&chain, device_id, module_id) ||
        !chain_leads_up(authority->registry, device, chain, actor))
        return AUTHORIZE_E_SCOPE;
    return 0;
}
