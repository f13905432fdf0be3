#include "authenticate.h"

#include <assert.h>

static const struct {
    const char *text;
    bool perhaps_stale;
} reasons[_AUTH_REASON_COUNT] = {
    [AUTH_ACCEPTED] = { "accepted", false },
    [AUTH_NO_CREDENTIALS] = { "neither token nor certificate", false },
    [AUTH_TOKEN_MALFORMED] = { "token is malformed", false },
    [AUTH_TOKEN_EXPIRED] = { "token has expired", false },
    [AUTH_UNKNOWN_IDENTITY] = { "identity is not in scope", true },
    [AUTH_DISABLED] = { "device is disabled", true },
    [AUTH_NOT_BY_TOKEN] = { "identity has no symmetric key", true },
    [AUTH_NOT_BY_CERTIFICATE] = { "identity does not authenticate by certificate", true },
    [AUTH_WRONG_KEY] = { "token was signed with another key", true },
    [AUTH_WRONG_AUDIENCE] = { "token is for another resource", false },
    [AUTH_CERTIFICATE_MALFORMED] = { "certificate is malformed", false },
    [AUTH_CERTIFICATE_DATES] = { "certificate has expired or is not valid yet", false },
    [AUTH_CERTIFICATE_THUMBPRINT] = { "certificate has another thumbprint", true },
    [AUTH_CERTIFICATE_NAME] = { "common name of the certificate is not the device id", false },
    [AUTH_CERTIFICATE_PURPOSE] = { "certificate is not a client's", false },
    [AUTH_CERTIFICATE_UNTRUSTED] = { "certificate was issued by nobody who is trusted", false },
    [AUTH_NO_SCOPE_YET] = { "nothing is known of any device yet", true },
    [AUTH_NOT_ASKED] = { "too many others are being looked up in the hub", true },
};

const char *auth_reason_text(enum auth_reason reason)
{
    assert(reason < _AUTH_REASON_COUNT);
    return reasons[reason].text;
}

bool auth_reason_is_perhaps_stale(enum auth_reason reason)
{
    assert(reason < _AUTH_REASON_COUNT);
    return reasons[reason].perhaps_stale;
}

static struct auth_verdict refuse(enum auth_reason reason)
{
    return (struct auth_verdict){ .reason = reason };
}

static bool is_module(const struct auth_client *client)
{
    return client->module_id && *client->module_id;
}

/* Who it is and that its device is enabled. The original takes every module for enabled, and
 * accepts the device's key even for modules that do not exist; we want module and device to be
 * there. */
static enum auth_reason look_up(const struct scope *scope, const struct auth_client *client,
                                const struct scope_identity **ret_identity,
                                const struct scope_identity **ret_device)
{
    const struct scope_identity *device, *identity;

    if (!scope)
        return AUTH_NO_SCOPE_YET;
    device = scope_find(scope, client->device_id, NULL);
    identity = is_module(client) ? scope_find(scope, client->device_id, client->module_id) : device;
    if (!device || !identity)
        return AUTH_UNKNOWN_IDENTITY;
    if (!device->enabled || !identity->enabled)
        return AUTH_DISABLED;
    *ret_device = device;
    *ret_identity = identity;
    return AUTH_ACCEPTED;
}

/* ---- by token ---- */

static bool signed_by(const struct sas_token *token, const struct scope_identity *identity)
{
    if (identity->auth != SCOPE_AUTH_SAS)
        return false;
    return (identity->primary_key &&
            sas_token_check_signature(token, identity->primary_key) == 0) ||
           (identity->secondary_key &&
            sas_token_check_signature(token, identity->secondary_key) == 0);
}

static struct auth_verdict by_token(const struct auth_rules *rules, const struct scope *scope,
                                    const struct auth_client *client, int64_t now_sec)
{
    const struct scope_identity *identity, *device;
    struct sas_token token;
    enum auth_reason reason;
    bool device_wide;

    if (sas_token_parse(client->token, &token) != 0)
        return refuse(AUTH_TOKEN_MALFORMED);
    if (sas_token_check_expiry(&token, now_sec) != 0)
        return refuse(AUTH_TOKEN_EXPIRED); /* before anything is looked up */
    reason = look_up(scope, client, &identity, &device);
    if (reason != AUTH_ACCEPTED)
        return refuse(reason);
    if (identity->auth != SCOPE_AUTH_SAS && device->auth != SCOPE_AUTH_SAS)
        return refuse(AUTH_NOT_BY_TOKEN);
    /* The key of a device is good for its modules: that is how tools of leaf devices work. */
    if (!signed_by(&token, identity) && !(device != identity && signed_by(&token, device)))
        return refuse(AUTH_WRONG_KEY);
    if (sas_token_check_audience(&token, rules->hub_hostname, rules->gateway_hostname,
                                 client->device_id, client->module_id, &device_wide) != 0)
        return refuse(AUTH_WRONG_AUDIENCE);
    return (struct auth_verdict){ AUTH_ACCEPTED, token.expires_sec };
}

/* ---- by certificate ---- */

static enum auth_reason certificate_reason(int r)
{
    static const enum auth_reason table[] = {
        [0] = AUTH_ACCEPTED,
        [CLIENT_CERTIFICATE_E_MALFORMED] = AUTH_CERTIFICATE_MALFORMED,
        [CLIENT_CERTIFICATE_E_DATES] = AUTH_CERTIFICATE_DATES,
        [CLIENT_CERTIFICATE_E_THUMBPRINT] = AUTH_CERTIFICATE_THUMBPRINT,
        [CLIENT_CERTIFICATE_E_NAME] = AUTH_CERTIFICATE_NAME,
        [CLIENT_CERTIFICATE_E_PURPOSE] = AUTH_CERTIFICATE_PURPOSE,
        [CLIENT_CERTIFICATE_E_UNTRUSTED] = AUTH_CERTIFICATE_UNTRUSTED,
    };

    assert(r >= 0 && (size_t)r < ELEMENTSOF(table));
    return table[r];
}

static int certificate_check(const struct auth_rules *rules, const struct scope_identity *device,
                             const struct client_certificate *certificate, int64_t now_sec)
{
    if (device->auth == SCOPE_AUTH_THUMBPRINT)
        return client_certificate_check_thumbprint(certificate, device->primary_thumbprint,
                                                   device->secondary_thumbprint, now_sec);
    return client_certificate_check_authority(certificate, rules->trust, device->device_id,
                                              now_sec);
}

static struct auth_verdict by_certificate(const struct auth_rules *rules, const struct scope *scope,
                                          const struct auth_client *client, int64_t now_sec)
{
    _cleanup_(client_certificate_freep) struct client_certificate *certificate = NULL;
    const struct scope_identity *identity, *device;
    enum auth_reason reason;
    int r;

    r = client_certificate_parse(client->certificates, client->certificate_count, &certificate);
    if (r != 0)
        return refuse(certificate_reason(r));
    reason = look_up(scope, client, &identity, &device);
    if (reason != AUTH_ACCEPTED)
        return refuse(reason);
    if (is_module(client) ||
        (identity->auth != SCOPE_AUTH_THUMBPRINT && identity->auth != SCOPE_AUTH_AUTHORITY))
        return refuse(AUTH_NOT_BY_CERTIFICATE);
    r = certificate_check(rules, identity, certificate, now_sec);
    if (r != 0)
        return refuse(certificate_reason(r));
    return (struct auth_verdict){ AUTH_ACCEPTED, client_certificate_not_after(certificate) };
}

struct auth_verdict authenticate(const struct auth_rules *rules, const struct scope *scope,
                                 const struct auth_client *client, int64_t now_sec)
{
    if (client->token.len > 0)
        return by_token(rules, scope, client, now_sec);
    if (client->certificate_count > 0)
        return by_certificate(rules, scope, client, now_sec);
    return refuse(AUTH_NO_CREDENTIALS);
}
