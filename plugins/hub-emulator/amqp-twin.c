#include "amqp-twin.h"

#include <proton/message.h>
#include <string.h>

/* amqp.md §12.2: SDKs parse the body of an error, so there must be one, of JSON. */
static const char unavailable[] =
    "{\"errorCode\":503001,\"message\":\"twins are not available here\"}";

static void put_annotation_int(pn_data_t *annotations, const char *name, int value)
{
    pn_data_put_map(annotations);
    pn_data_enter(annotations);
    pn_data_put_symbol(annotations, pn_bytes(strlen(name), name));
    pn_data_put_int(annotations, value);
    pn_data_exit(annotations);
}

static void answer_encode(pn_atom_t correlation_id, char *at, size_t *len)
{
    pn_message_t *answer = pn_message();

    pn_message_set_correlation_id(answer, correlation_id);
    put_annotation_int(pn_message_annotations(answer), "status", 503);
    pn_message_set_inferred(answer, true); /* a Data section */
    pn_data_put_binary(pn_message_body(answer), pn_bytes(sizeof(unavailable) - 1, unavailable));
    if (pn_message_encode(answer, at, len) != 0)
        *len = 0;
    pn_message_free(answer);
}

void twin_on_request(struct amqp_client *client, struct span bytes)
{
    pn_message_t *message = pn_message();
    char answer[1024];
    size_t len = sizeof(answer);

    if (client->links[LINK_TWIN_RECEIVE] && pn_message_decode(message, bytes.at, bytes.len) == 0) {
        answer_encode(pn_message_get_correlation_id(message), answer, &len);
        if (len > 0)
            amqp_link_send(client->connection, client->links[LINK_TWIN_RECEIVE],
                           span_of(answer, len));
    }
    pn_message_free(message);
}
