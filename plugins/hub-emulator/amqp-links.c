/* Links: who may open which, and what becomes of them (amqp.md §5, §14). */
#include "amqp-server.h"

#include <string.h>

/* ---- which link ---- */

enum link_kind link_kind_of(const struct amqp_address *address, bool client_sends)
{
    static const struct {
        enum link_kind client_sends, client_receives;
    } kinds[] = {
        [AMQP_NODE_CBS] = { LINK_CBS_SEND, LINK_CBS_RECEIVE },
        [AMQP_NODE_EVENTS] = { LINK_EVENTS_SEND, LINK_EVENTS_RECEIVE },
        [AMQP_NODE_DEVICEBOUND] = { _LINK_KIND_COUNT, LINK_DEVICEBOUND_RECEIVE },
        [AMQP_NODE_METHODS] = { LINK_METHODS_SEND, LINK_METHODS_RECEIVE },
        [AMQP_NODE_TWIN] = { LINK_TWIN_SEND, LINK_TWIN_RECEIVE },
    };

    if (address->node == AMQP_NODE_EVENTS && !client_sends && address->module_id.len == 0)
        return _LINK_KIND_COUNT; /* only modules have inputs */
    return client_sends ? kinds[address->node].client_sends : kinds[address->node].client_receives;
}

const char *amqp_condition_of(int outcome)
{
    return outcome == AUTHORIZE_E_UNKNOWN ? "amqp:not-found" : "amqp:unauthorized-access";
}

/* ---- closing ---- */

void amqp_set_condition(pn_condition_t *condition, const char *name, const char *description)
{
    pn_condition_set_name(condition, name);
    pn_condition_set_description(condition, description);
}

/* Without source and target in our attach the client knows that a detach follows. */
void amqp_link_refuse(pn_link_t *pn, const char *condition, const char *description)
{
    pn_link_open(pn);
    amqp_set_condition(pn_link_condition(pn), condition, description);
    pn_link_close(pn);
}

static void link_refuse(struct amqp_connection *connection, pn_link_t *pn, const char *address,
                        const char *condition, const char *description)
{
    connection->server->counters.links_refused++;
    amqp_server_log_refused(connection->server, address, description);
    amqp_link_refuse(pn, condition, description);
}

void amqp_link_gone(struct amqp_link *link)
{
    struct amqp_client *client = link->client;

    pn_link_set_context(link->pn, NULL);
    if (client) {
        client->links[link->kind] = NULL;
        client->connection->server->counters.links--;
        if (--client->link_count == 0)
            amqp_client_detached(client);
    }
    free(link);
}

void amqp_link_close(struct amqp_link *link, const char *condition, const char *description)
{
    pn_link_t *pn = link->pn;

    amqp_link_gone(link);
    amqp_set_condition(pn_link_condition(pn), condition, description);
    pn_link_close(pn);
}

/* ---- attach ---- */

static const char *link_address(pn_link_t *pn)
{
    pn_terminus_t *terminus =
        pn_link_is_receiver(pn) ? pn_link_remote_target(pn) : pn_link_remote_source(pn);
    const char *address = pn_terminus_get_address(terminus);

    return address ? address : "";
}

/* A text in the attach's properties, whose keys are symbols. */
static struct span link_property(pn_link_t *pn, const char *name)
{
    pn_data_t *properties = pn_link_remote_properties(pn);

    if (!properties)
        return (struct span){};
    pn_data_rewind(properties);
    if (!pn_data_next(properties) || pn_data_type(properties) != PN_MAP ||
        !pn_data_enter(properties))
        return (struct span){};
    while (pn_data_next(properties)) {
        pn_bytes_t key = pn_data_type(properties) == PN_SYMBOL ? pn_data_get_symbol(properties)
                                                               : pn_bytes(0, NULL);

        if (!pn_data_next(properties))
            break;
        if (span_equal(span_of(key.start, key.size), span_str(name)) &&
            pn_data_type(properties) == PN_STRING) {
            pn_bytes_t value = pn_data_get_string(properties);

            return span_of(value.start, value.size);
        }
    }
    return (struct span){};
}

/* Both ends as the client wants them, or it takes the answer for a refusal. */
static void link_open(struct amqp_connection *connection, pn_link_t *pn, struct amqp_client *client,
                      enum link_kind kind)
{
    struct amqp_link *link = xnew(struct amqp_link);

    *link = (struct amqp_link){ .kind = kind, .client = client, .pn = pn };
    pn_link_set_context(pn, link);
    pn_terminus_copy(pn_link_source(pn), pn_link_remote_source(pn));
    pn_terminus_copy(pn_link_target(pn), pn_link_remote_target(pn));
    pn_link_set_snd_settle_mode(pn, pn_link_remote_snd_settle_mode(pn));
    pn_link_set_rcv_settle_mode(pn, pn_link_remote_rcv_settle_mode(pn));
    pn_link_set_max_message_size(pn, AMQP_TRANSFER_BYTES_MAX);
    pn_link_open(pn);
    if (pn_link_is_receiver(pn))
        pn_link_flow(pn, client ? AMQP_CREDIT : AMQP_CBS_CREDIT);
    if (kind == LINK_CBS_RECEIVE)
        connection->cbs_receiver = link;
    if (!client)
        return;
    client->links[kind] = link;
    connection->server->counters.links++;
    if (client->link_count++ == 0)
        amqp_client_attached(client);
}

/* One connection for an identity, and one link of a kind: the newest (amqp.md §14). */
static void displace(struct amqp_client *client, enum link_kind kind)
{
    struct amqp_client *rival = amqp_client_rival(client);

    if (rival) {
        for (int k = 0; k < _LINK_KIND_COUNT; k++)
            if (rival->links[k])
                amqp_link_close(rival->links[k], "amqp:link:stolen", "the identity connected anew");
        amqp_driver_wake(rival->connection->driver);
    }
    if (client->links[kind])
        amqp_link_close(client->links[kind], "amqp:link:stolen",
                        "the identity opened such a link anew");
}

/* The ids as written, or else percent-decoded: whichever has a token on this connection. */
static struct amqp_client *address_client(const struct amqp_connection *connection,
                                          const struct amqp_address *address, bool *ret_exists)
{
    _cleanup_(freep) char *device_id = span_xdup(address->device_id);
    _cleanup_(freep) char *module_id =
        address->module_id.len > 0 ? span_xdup(address->module_id) : NULL;
    struct amqp_client *client = amqp_client_find(connection, device_id, module_id);
    size_t len;

    *ret_exists =
        client || registry_identity(connection->server->config.registry, device_id, module_id);
    if (client)
        return client;
    free(device_id);
    free(module_id);
    device_id = percent_decode(address->device_id, &len);
    module_id = address->module_id.len > 0 ? percent_decode(address->module_id, &len) : NULL;
    client = amqp_client_find(connection, device_id, module_id);
    *ret_exists |=
        client || registry_identity(connection->server->config.registry, device_id, module_id);
    return client;
}

static int authorize_link(struct amqp_connection *connection, pn_link_t *pn,
                          const struct amqp_client *client)
{
    const struct grant *grant = &client->grant;

    if (!grant->actor_device_id)
        return 0;
    return authorize_on_behalf(connection->server->config.authority, grant->actor_device_id,
                               grant->device_id, grant->module_id,
                               link_property(pn, "com.microsoft:auth-chain"));
}

void links_on_attach(struct amqp_connection *connection, pn_link_t *pn)
{
    const char *text = link_address(pn);
    struct amqp_address address;
    struct amqp_client *client;
    enum link_kind kind;
    bool exists;
    int r;

    if (!amqp_address_parse(span_str(text), &address)) {
        link_refuse(connection, pn, text, "amqp:not-found", "the hub has no such address");
        return;
    }
    kind = link_kind_of(&address, pn_link_is_receiver(pn));
    if (kind == _LINK_KIND_COUNT) {
        link_refuse(connection, pn, text, "amqp:not-allowed", "nobody may open such a link");
        return;
    }
    if (address.node == AMQP_NODE_CBS) {
        link_open(connection, pn, NULL, kind);
        return;
    }
    client = address_client(connection, &address, &exists);
    if (!client) {
        r = exists ? AUTHORIZE_E_MALFORMED : AUTHORIZE_E_UNKNOWN;
        link_refuse(connection, pn, text, amqp_condition_of(r), authorize_text(r));
        return;
    }
    r = authorize_link(connection, pn, client);
    if (r != 0) {
        link_refuse(connection, pn, text, amqp_condition_of(r), authorize_text(r));
        return;
    }
    displace(client, kind);
    link_open(connection, pn, client, kind);
}

/* ---- detach, end ---- */

static void link_forget(struct amqp_connection *connection, pn_link_t *pn)
{
    struct amqp_link *link = pn_link_get_context(pn);

    if (!link)
        return;
    if (link == connection->cbs_receiver)
        connection->cbs_receiver = NULL;
    amqp_link_gone(link);
}

/* Freed when both sides have closed it: a client may attach again under the same name. */
void links_on_remote_close(struct amqp_connection *connection, pn_link_t *pn, bool closed)
{
    link_forget(connection, pn);
    if (closed)
        pn_link_close(pn);
    else
        pn_link_detach(pn);
    pn_link_free(pn);
}

void links_on_session_close(struct amqp_connection *connection, pn_session_t *session)
{
    pn_link_t *next;

    for (pn_link_t *pn = pn_link_head(amqp_driver_connection(connection->driver), 0); pn;
         pn = next) {
        next = pn_link_next(pn, 0);
        if (pn_link_session(pn) == session)
            link_forget(connection, pn);
    }
    pn_session_close(session);
    pn_session_free(session);
}
