#include <errno.h>

#include "identity.h"
#include "lookups.h"
#include "message.h"
#include "plugin.h"

_Static_assert(LOOKUPS_WAITING_MAX <= BUS_WINDOW_MAX / 2, "half a window is for who is known");

/* ---- logins ---- */

/* A login that is under way. */
struct login {
    struct bus_call *call;
    bool is_edge_module;
};

static void authenticate_on_verdict(const struct auth_verdict *verdict, void *userdata)
{
    _cleanup_(freep) struct login *login = userdata;
    struct bus_call *call = login->call;
    Bus__Authenticated body = BUS__AUTHENTICATED__INIT;
    Bus__Envelope answer = ENVELOPE(AUTHENTICATED, authenticated, &body);

    if (!verdict) {
        bus_call_drop(call);
        return;
    }
    if (verdict->reason == AUTH_ACCEPTED)
        body.verdict = BUS__VERDICT__VERDICT_ACCEPTED;
    else if (verdict->reason == AUTH_NO_SCOPE_YET || verdict->reason == AUTH_NOT_ASKED)
        body.verdict = BUS__VERDICT__VERDICT_NOT_YET;
    else
        body.verdict = BUS__VERDICT__VERDICT_REFUSED;
    body.reason = (char *)auth_reason_text(verdict->reason);
    body.expires_sec = verdict->expires_sec;
    body.edge_module = login->is_edge_module;
    (void)bus_answer_with(call, &answer);
}

static int identity_on_authenticate(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__Authenticate *body = in->authenticate;
    struct identity *identity = userdata;
    struct login *login = xnew(struct login);
    struct span certificates[CLIENT_CHAIN_MAX + 1]; /* one more than is accepted is refused there */
    size_t count = body->n_certificate_chain;

    if (count > ELEMENTSOF(certificates))
        count = ELEMENTSOF(certificates);
    for (size_t i = 0; i < count; i++)
        certificates[i] = span_of(body->certificate_chain[i].data, body->certificate_chain[i].len);
    login->call = bus_call_keep(call);
    login->is_edge_module =
        *body->module_id && strcmp(body->device_id, identity_device_id(identity)) == 0;
    identity_authenticate(identity,
                          &(struct auth_client){
                              .device_id = body->device_id,
                              .module_id = body->module_id,
                              .token = span_str(body->sas_token),
                              .certificates = certificates,
                              .certificate_count = count,
                          },
                          body->recheck, authenticate_on_verdict, login);
    return 0;
}

/* ---- upstream ---- */

static int identity_on_token_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct identity *identity = userdata;
    Bus__Token body = BUS__TOKEN__INIT;
    Bus__Envelope answer = ENVELOPE(TOKEN, token, &body);
    struct identity_token token;

    if (identity_token(identity, &token) == IDENTITY_E_NO_KEY)
        return bus_answer_error(call, STATUS_UNAVAILABLE,
                                "the hub has no key of ours for $edgeHub yet");
    body.sas_token = (char *)token.text;
    body.expires_sec = token.expires_sec;
    body.hub_hostname = (char *)identity_hub_hostname(identity);
    body.gateway_hostname = (char *)identity_hub_hostname(identity);
    body.device_id = (char *)identity_device_id(identity);
    return bus_answer_with(call, &answer);
}

static int identity_on_chain_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    _cleanup_(freep) char *chain = NULL;
    Bus__Chain body = BUS__CHAIN__INIT;
    Bus__Envelope answer = ENVELOPE(CHAIN, chain, &body);
    const char *generation;
    int r;

    r = identity_chain(userdata, in->chain_get->device_id, in->chain_get->module_id, &chain,
                       &generation);
    if (r == IDENTITY_E_NO_SCOPE)
        return bus_answer_error(call, STATUS_UNAVAILABLE, "nothing is known of any device yet");
    if (r == IDENTITY_E_NO_CHAIN)
        return bus_answer_error(call, STATUS_NOT_FOUND,
                                "not in the scope of this gateway, or disabled on the way to it");
    body.auth_chain = chain;
    body.generation_id = (char *)generation;
    return bus_answer_with(call, &answer);
}

static void refresh_on_done(int result, void *userdata)
{
    struct bus_call *call = userdata;

    switch (result) {
    case 0:
        (void)bus_answer(call, STATUS_DONE);
        break;
    case -EBUSY:
        (void)bus_answer(call, STATUS_BUSY);
        break;
    case -ECANCELED:
        bus_call_drop(call);
        break;
    default:
        (void)bus_answer_error(call, STATUS_UNAVAILABLE, "the hub cannot be asked");
    }
}

static int identity_on_scope_refresh(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__ScopeRefresh *body = in->scope_refresh;

    if (!identity_id_valid(body->device_id) ||
        (*body->module_id && !identity_id_valid(body->module_id)))
        return bus_answer_error(call, STATUS_INVALID,
                                "expected a device id, and a module id or none");
    identity_refresh(userdata, body->device_id, body->module_id, refresh_on_done,
                     bus_call_keep(call));
    return 0;
}

/* ---- front and operator ---- */

static int identity_on_certificate_get(struct bus_call *call, const Bus__Envelope *in,
                                       void *userdata)
{
    const struct server_certificate *certificate = identity_certificate(userdata);
    Bus__Certificate body = BUS__CERTIFICATE__INIT;
    Bus__Envelope answer = ENVELOPE(CERTIFICATE, certificate, &body);

    if (!certificate)
        return bus_answer_error(call, STATUS_UNAVAILABLE,
                                "there is no edge CA that can be used: see identity's log");
    body.chain_pem = certificate->chain_pem;
    body.private_key_pem = certificate->private_key_pem;
    body.not_after_sec = certificate->not_after_sec;
    body.version = certificate->version;
    return bus_answer_with(call, &answer);
}

static int identity_on_status_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct identity *identity = userdata;
    struct identity_status status = identity_status(identity);
    Bus__IdentityStatus body = BUS__IDENTITY_STATUS__INIT;
    Bus__Envelope answer = ENVELOPE(IDENTITY_STATUS, identity_status, &body);

    body.device_id = (char *)identity_device_id(identity);
    body.hub_hostname = (char *)identity_hub_hostname(identity);
    body.identities = status.identities;
    body.scope_refreshed_sec = status.scope_refreshed_sec;
    body.last_error = (char *)status.last_error;
    return bus_answer_with(call, &answer);
}

const struct bus_handler identity_handlers[] = {
    { BUS__ENVELOPE__BODY_AUTHENTICATE, PEER_LISTENERS, identity_on_authenticate },
    { BUS__ENVELOPE__BODY_TOKEN_GET, PEER_UPSTREAM, identity_on_token_get },
    { BUS__ENVELOPE__BODY_CHAIN_GET, PEER_UPSTREAM, identity_on_chain_get },
    { BUS__ENVELOPE__BODY_SCOPE_REFRESH, PEER_UPSTREAM, identity_on_scope_refresh },
    { BUS__ENVELOPE__BODY_CERTIFICATE_GET, PEER_FRONT, identity_on_certificate_get },
    { BUS__ENVELOPE__BODY_IDENTITY_STATUS_GET, PEER_OPERATOR, identity_on_status_get },
    {}
};

/* ---- announcements ---- */

/* Nobody relies on having heard one: what fails here is read by a request later. */
static void announce_scope(uint64_t version, void *userdata)
{
    Bus__ScopeChanged body = BUS__SCOPE_CHANGED__INIT;
    Bus__Envelope announcement = ENVELOPE(SCOPE_CHANGED, scope_changed, &body);

    body.version = version;
    (void)bus_announce(plugin_bus(userdata), &announcement);
}

static void announce_certificate(uint64_t version, void *userdata)
{
    Bus__CertificateChanged body = BUS__CERTIFICATE_CHANGED__INIT;
    Bus__Envelope announcement = ENVELOPE(CERTIFICATE_CHANGED, certificate_changed, &body);

    body.version = version;
    (void)bus_announce(plugin_bus(userdata), &announcement);
}

static void show_status(const struct identity_status *status, void *userdata)
{
    plugin_stat(userdata, "identities", status->identities);
    if (*status->last_error)
        plugin_status(userdata, "%s", status->last_error);
    else
        plugin_status(userdata, "%llu identities", (unsigned long long)status->identities);
}

const struct identity_ops identity_announcements = {
    .on_scope_changed = announce_scope,
    .on_certificate_changed = announce_certificate,
    .on_status = show_status,
};

/* What is missed here is made up for by the next refresh. */
static void identity_on_announcement(const Bus__Envelope *in, void *userdata)
{
    if (in && in->body_case == BUS__ENVELOPE__BODY_UPSTREAM_STATUS)
        identity_on_upstream(userdata, in->upstream_status->connected);
}

int identity_follow_upstream(struct identity *identity, struct bus *bus)
{
    return bus_subscribe(bus, "upstream", identity_on_announcement, identity);
}
