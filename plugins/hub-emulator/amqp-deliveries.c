/* What comes over links: telemetry is judged and kept (amqp.md §8), the rest goes to whom it concerns. */
#include "amqp-server.h"
#include "amqp-twin.h"
#include "message.h"

/* ---- telemetry ---- */

enum verdict {
    VERDICT_TAKEN,
    VERDICT_MALFORMED,
    VERDICT_TOO_LARGE,
    _VERDICT_COUNT,
};
static const struct {
    const char *condition, *description;
} verdict_conditions[_VERDICT_COUNT] = {
    [VERDICT_MALFORMED] = { "com.microsoft:argument-error", "the message cannot be decoded" },
    [VERDICT_TOO_LARGE] = { "amqp:link:message-size-exceeded",
                            "a message has at most 262144 bytes" },
};

struct intake {
    struct amqp_server *server;
    struct telemetry_source *source;
    int64_t now_ms;
    enum verdict verdict;
};

/* What is small as encoded is small by the hub's measure too: all that counts is in there. */
static enum verdict judge_message(struct amqp_server *server, struct span encoded)
{
    const char *expected;
    Bus__Message *message;

    if (encoded.len > TELEMETRY_RECORD_BYTES_MAX)
        return VERDICT_TOO_LARGE;
    arena_reset(server->arena);
    if (amqp_message_decode(encoded, server->arena, &message, &expected) != 0)
        return VERDICT_MALFORMED;
    if (encoded.len > MESSAGE_BYTES_MAX && message_size(message) > MESSAGE_BYTES_MAX)
        return VERDICT_TOO_LARGE;
    return VERDICT_TAKEN;
}

static int intake_judge(struct span inner, void *userdata)
{
    struct intake *intake = userdata;

    intake->verdict = judge_message(intake->server, inner);
    return intake->verdict != VERDICT_TAKEN;
}

static int intake_take(struct span inner, void *userdata)
{
    struct intake *intake = userdata;

    telemetry_append(intake->server->config.telemetry, intake->source, inner, intake->now_ms);
    return 0;
}

/* All of a batch, or nothing: a client sends the whole again. */
static void intake_batch(struct intake *intake, struct span batch)
{
    if (batch.len > AMQP_BATCH_BYTES_MAX) {
        intake->verdict = VERDICT_TOO_LARGE;
        return;
    }
    if (amqp_batch_each(batch, intake_judge, intake) != 0) {
        if (intake->verdict == VERDICT_TAKEN)
            intake->verdict = VERDICT_MALFORMED; /* the envelope is */
        return;
    }
    amqp_batch_each(batch, intake_take, intake);
}

static enum verdict take_telemetry(struct amqp_link *link, pn_delivery_t *delivery,
                                   struct span encoded)
{
    struct amqp_connection *connection = link->client->connection;
    struct intake intake = { .server = connection->server,
                             .source = link->client->source,
                             .now_ms = utc_msec() };

    if (amqp_driver_message_format(connection->driver, delivery) == AMQP_MESSAGE_FORMAT_BATCH) {
        intake_batch(&intake, encoded);
    } else {
        intake_judge(encoded, &intake);
        if (intake.verdict == VERDICT_TAKEN)
            intake_take(encoded, &intake);
    }
    connection->server->got_telemetry = true;
    return intake.verdict;
}

static void settle(pn_delivery_t *delivery, enum verdict verdict)
{
    if (verdict == VERDICT_TAKEN) {
        pn_delivery_update(delivery, PN_ACCEPTED);
    } else {
        amqp_set_condition(pn_disposition_condition(pn_delivery_local(delivery)),
                           verdict_conditions[verdict].condition,
                           verdict_conditions[verdict].description);
        pn_delivery_update(delivery, PN_REJECTED);
    }
    pn_delivery_settle(delivery);
}

/* ---- deliveries ---- */

static void link_take(struct amqp_connection *connection, struct amqp_link *link,
                      pn_delivery_t *delivery, struct span message)
{
    enum verdict verdict = VERDICT_TAKEN;

    switch (link->kind) {
    case LINK_CBS_SEND:
        cbs_on_message(connection, delivery, message);
        return; /* settled in there */
    case LINK_EVENTS_SEND:
        verdict = take_telemetry(link, delivery, message);
        connection->server->counters.messages_refused += verdict != VERDICT_TAKEN;
        break;
    case LINK_TWIN_SEND:
        twin_on_request(link->client, message);
        break;
    default:
        break; /* answers to methods that nobody asked for: accepted, and gone */
    }
    settle(delivery, verdict);
}

static void link_top_up(pn_link_t *pn, bool of_client)
{
    int credit = pn_link_credit(pn);

    if (of_client && credit < AMQP_CREDIT_LOW)
        pn_link_flow(pn, AMQP_CREDIT - credit);
    else if (!of_client && credit < AMQP_CBS_CREDIT / 2)
        pn_link_flow(pn, AMQP_CBS_CREDIT - credit);
}

static struct span delivery_read(struct amqp_server *server, pn_link_t *pn, pn_delivery_t *delivery)
{
    size_t size = pn_delivery_pending(delivery);
    char *at;
    ssize_t n;

    buf_eat(&server->scratch, buf_len(&server->scratch));
    at = buf_reserve(&server->scratch, size);
    n = pn_link_recv(pn, at, size);
    pn_link_advance(pn);
    return span_of(at, n > 0 ? (size_t)n : 0);
}

void deliveries_on_event(struct amqp_connection *connection, pn_delivery_t *delivery)
{
    pn_link_t *pn = pn_delivery_link(delivery);
    struct amqp_link *link = pn_link_get_context(pn);

    if (!link || pn_link_is_sender(pn) || pn_link_current(pn) != delivery)
        return; /* a link that we closed; what we send is settled; a settlement of what we settled */
    if (pn_delivery_aborted(delivery)) {
        pn_delivery_settle(delivery);
        return;
    }
    if (pn_delivery_pending(delivery) > AMQP_TRANSFER_BYTES_MAX) {
        amqp_link_close(link, "amqp:link:message-size-exceeded",
                        "a transfer has at most 1048576 bytes");
        return;
    }
    if (pn_delivery_partial(delivery))
        return;
    link_take(connection, link, delivery, delivery_read(connection->server, pn, delivery));
    link_top_up(pn, link->client != NULL);
}
