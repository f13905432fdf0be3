/* Put-token: who the client is, and for whom it speaks (amqp.md §4). */
#include "amqp-server.h"

#include <proton/message.h>
#include <string.h>

enum { ANSWERS_QUEUED_MAX = 100 };

struct put_token {
    pn_atom_t id; /* borrowed from the message, as the rest */
    struct span operation, type, name, token;
};

static struct span span_of_pn(pn_bytes_t bytes)
{
    return span_of(bytes.start, bytes.size);
}

static struct span text_property(pn_data_t *properties, const char *name)
{
    pn_data_rewind(properties);
    if (!pn_data_next(properties) || !pn_data_enter(properties))
        return (struct span){};
    while (pn_data_next(properties)) {
        bool wanted = pn_data_type(properties) == PN_STRING &&
                      span_equal(span_of_pn(pn_data_get_string(properties)), span_str(name));

        if (!pn_data_next(properties))
            break;
        if (wanted && pn_data_type(properties) == PN_STRING)
            return span_of_pn(pn_data_get_string(properties));
    }
    return (struct span){};
}

/* NULL: it is one. Else what is missing. */
static const char *put_token_read(pn_message_t *message, struct put_token *ret)
{
    pn_data_t *properties = pn_message_properties(message), *body = pn_message_body(message);

    *ret = (struct put_token){
        .id = pn_message_get_id(message),
        .operation = text_property(properties, "operation"),
        .type = text_property(properties, "type"),
        .name = text_property(properties, "name"),
    };
    if (!span_equal(ret->operation, SPAN("put-token")))
        return "expected operation put-token";
    if (!span_equal_nocase(ret->type, SPAN("servicebus.windows.net:sastoken")) &&
        !span_equal_nocase(ret->type, SPAN("azure-devices.net:sastoken")))
        return "expected type servicebus.windows.net:sastoken or azure-devices.net:sastoken";
    if (ret->name.len == 0)
        return "expected a name";
    pn_data_rewind(body);
    if (!pn_data_next(body) || pn_data_type(body) != PN_STRING)
        return "expected the token as a string in an amqp-value";
    ret->token = span_of_pn(pn_data_get_string(body));
    return NULL;
}

/* ---- the answer ---- */

void amqp_link_send(struct amqp_connection *connection, struct amqp_link *link, struct span message)
{
    uint32_t tag = ++connection->next_tag;
    pn_delivery_t *delivery;

    if (pn_link_queued(link->pn) >= ANSWERS_QUEUED_MAX)
        return;
    delivery = pn_delivery(link->pn, pn_dtag((const char *)&tag, sizeof(tag)));
    pn_link_send(link->pn, message.at, message.len);
    pn_link_advance(link->pn);
    pn_delivery_settle(delivery);
}

static void answer_send(struct amqp_connection *connection, pn_message_t *message)
{
    char bytes[4096];
    size_t len = sizeof(bytes);

    if (pn_message_encode(message, bytes, &len) == 0)
        amqp_link_send(connection, connection->cbs_receiver, span_of(bytes, len));
}

static void put_answer(pn_message_t *message, pn_atom_t id, int status, const char *description)
{
    pn_data_t *properties = pn_message_properties(message);

    pn_message_set_correlation_id(message, id); /* of the same type as it came */
    pn_data_put_map(properties);
    pn_data_enter(properties);
    pn_data_put_string(properties, pn_bytes(strlen("status-code"), "status-code"));
    pn_data_put_int(properties, status);
    pn_data_put_string(properties, pn_bytes(strlen("status-description"), "status-description"));
    pn_data_put_string(properties, pn_bytes(strlen(description), description));
    pn_data_exit(properties);
}

static void cbs_answer(struct amqp_connection *connection, pn_atom_t id, int status,
                       const char *description)
{
    pn_message_t *answer;

    if (!connection->cbs_receiver)
        return;
    answer = pn_message();
    put_answer(answer, id, status, description);
    answer_send(connection, answer);
    pn_message_free(answer);
}

/* ---- the verdict ---- */

static int status_of(int outcome)
{
    switch (outcome) {
    case 0:
        return 200;
    case AUTHORIZE_E_MALFORMED:
        return 400;
    case AUTHORIZE_E_UNKNOWN:
        return 404;
    default:
        return 401;
    }
}

static void cbs_put_token(struct amqp_connection *connection, const struct put_token *request)
{
    struct amqp_server *server = connection->server;
    struct grant grant = {};
    int r = authorize_put_token(server->config.authority, request->token, request->name, utc_sec(),
                                &grant);

    if (r != 0) {
        server->counters.tokens_refused++;
        amqp_server_log_refused(server, NULL, authorize_text(r));
        cbs_answer(connection, request->id, status_of(r), authorize_text(r));
        return;
    }
    if (grant.device_id && !amqp_client_put(connection, &grant, request->token, request->name)) {
        cbs_answer(connection, request->id, 500, "maximum number of tokens per connection (1000)");
        return;
    }
    cbs_answer(connection, request->id, 200, "OK");
}

void cbs_on_message(struct amqp_connection *connection, pn_delivery_t *delivery, struct span bytes)
{
    pn_message_t *message = pn_message();
    struct put_token request;
    const char *missing;

    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    amqp_driver_flush(connection->driver); /* ahead of the answer: amqp.md §4.3 */
    if (pn_message_decode(message, bytes.at, bytes.len) == 0) {
        missing = put_token_read(message, &request);
        if (missing)
            cbs_answer(connection, request.id, 400, missing);
        else
            cbs_put_token(connection, &request);
    }
    pn_message_free(message);
}
