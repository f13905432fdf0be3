/* Pure but for client_host: no descriptor, no clock, no log. */
#include "client.h"

#include <assert.h>
#include <stdio.h>

#include "input-topic.h"
#include "mem.h"
#include "message.h"
#include "mqtt-codec.h"
#include "topic.h"
#include "username.h"

enum {
    TOKEN_BYTES_MAX = 4096, /* kept for each client; real ones have 150 to 600 */
    REASON_MAX = 192,
};

#define TWIN_ANSWER_TOPIC "$iothub/twin/res/503/?$rid="
#define TWIN_ANSWER_BODY  "{\"errorCode\":503000,\"message\":\"Twin is not available.\"}"

struct will {
    struct mqtt_publish publish; /* its spans point behind this struct */
};

/* What came with an event; each event has its own. */
struct client_input {
    const struct mqtt_packet *packet;
    const struct parse_error *error;
    enum client_verdict verdict;
    enum client_end how;
    const char *reason;
    const struct span *record;
    unsigned count;
    bool ok;
    bool too_large;
};

typedef void client_fn(struct client *c, const struct client_input *in);

/* ---- leaving ---- */

static void client_close(struct client *c, enum client_end how, const char *reason)
{
    bool told = c->state == CLIENT_LEAVING || c->state == CLIENT_CLOSED;

    c->state = CLIENT_CLOSED;
    c->blocked = false;
    if (!told)
        c->host->ops->ended(c, how, reason);
}

static bool client_publish_will(struct client *c);

/* An ungraceful end: the Will is published as if the client had done so (mqtt.md §3.6). */
static void client_lose(struct client *c, enum client_end how, const char *reason)
{
    if (!c->will) {
        client_close(c, how, reason);
        return;
    }
    c->state = CLIENT_LEAVING;
    c->blocked = false;
    c->host->ops->ended(c, how, reason);
    if (client_publish_will(c))
        c->state = CLIENT_CLOSED;
}

static void client_violate(struct client *c, const char *reason)
{
    c->host->counters.violations++;
    client_lose(c, CLIENT_END_VIOLATION, reason);
}

static void client_refuse(struct client *c, uint8_t code, const char *reason)
{
    c->host->counters.refused++;
    mqtt_encode_connack(&c->out, false, code);
    c->host->ops->output(c);
    client_close(c, CLIENT_END_REFUSED, reason);
}

static void client_on_room_for_will(struct client *c, const struct client_input *in)
{
    if (client_publish_will(c))
        c->state = CLIENT_CLOSED;
}

static void client_gone(struct client *c, const struct client_input *in)
{
    client_close(c, in->how, in->reason);
}

static void client_lost(struct client *c, const struct client_input *in)
{
    client_lose(c, in->how, in->reason);
}

static void client_disconnect(struct client *c, const struct client_input *in)
{
    client_close(c, CLIENT_END_QUIET, "DISCONNECT");
}

static void client_shut_down(struct client *c, const struct client_input *in)
{
    client_close(c, CLIENT_END_QUIET, "the listener stops");
}

/* No Will: the device is there, on another connection. */
static void client_yield(struct client *c, const struct client_input *in)
{
    client_close(c, CLIENT_END_QUIET, "a newer connection of the same identity");
}

static void client_garbage(struct client *c, const struct client_input *in)
{
    char reason[REASON_MAX];

    snprintf(reason, sizeof(reason), "packet refused at byte %zu: expected %s", in->error->offset,
             in->error->expected);
    c->host->counters.oversize += in->too_large;
    client_violate(c, reason);
}

static void client_out_of_order(struct client *c, const struct client_input *in)
{
    client_violate(c, "the first packet is not CONNECT");
}

static void client_second_connect(struct client *c, const struct client_input *in)
{
    client_violate(c, "a second CONNECT");
}

static void client_pubrel(struct client *c, const struct client_input *in)
{
    client_violate(c, "PUBREL: QoS 2 is not supported");
}

static void client_ignore(struct client *c, const struct client_input *in) {}

/* The host's mistake: it was not asked for that, or fed a client that takes no input. */
static void client_never(struct client *c, const struct client_input *in)
{
    assert(!in); /* always false: this event cannot come in this state */
}

/* ---- CONNECT ---- */

static bool client_id_matches(struct span client_id, const struct username *username)
{
    _cleanup_(freep) char *name = identity_name(username->device_id, username->module_id);

    return span_equal(client_id, span_str(name));
}

static struct span put(char **place, struct span s)
{
    char *at = *place;

    if (s.len > 0)
        memcpy(at, s.at, s.len);
    *place += s.len;
    return span_of(at, s.len);
}

static struct will *will_new(const struct mqtt_connect *connect)
{
    struct will *will =
        xalloc0(sizeof(*will) + connect->will_topic.len + connect->will_payload.len);
    char *place = (char *)(will + 1);

    will->publish.topic = put(&place, connect->will_topic);
    will->publish.payload = put(&place, connect->will_payload);
    return will;
}

/* Server timeout is 1.5 times the client's; 0 is not "unlimited" (mqtt.md §3.5). */
static uint64_t keepalive_timeout(const struct client_limits *limits, uint16_t keep_alive_sec)
{
    uint64_t usec = UINT64_C(1500000) * keep_alive_sec;

    return usec == 0 || usec > limits->keepalive_max_usec ? limits->keepalive_max_usec : usec;
}

/* What there is against this CONNECT before anybody is asked; NULL: nothing. All of it is for good:
 * code 5. */
static const char *client_objection(const struct client *c, const struct mqtt_connect *connect,
                                    const struct username *username)
{
    if (!client_id_matches(connect->client_id, username))
        return "client id is not the identity of the user name";
    if (connect->password.len == 0 && !c->has_certificate)
        return "neither token nor certificate";
    if (connect->password.len > TOKEN_BYTES_MAX || !span_is_utf8(connect->password))
        return "password is not a token";
    if (connect->will_topic.len + connect->will_payload.len > c->host->limits.will_bytes_max)
        return "Will is larger than max_will_bytes";
    return NULL;
}

static void client_take_identity(struct client *c, const struct mqtt_connect *connect,
                                 const struct username *username)
{
    c->device_id = xstrdup(username->device_id);
    c->module_id = xstrdup(username->module_id);
    c->product_info = xstrdup(username->product_info);
    if (*username->model_id)
        c->model_id = xstrdup(username->model_id);
    if (connect->password.len > 0)
        c->token = span_xdup(connect->password);
    if (connect->has_will)
        c->will = will_new(connect);
    c->clean_session = connect->clean_session;
    c->keepalive_usec = keepalive_timeout(&c->host->limits, connect->keep_alive_sec);
}

static void client_connect(struct client *c, const struct client_input *in)
{
    const struct mqtt_connect *connect = &in->packet->connect;
    struct username username;
    struct parse_error error;
    const char *objection;
    char reason[REASON_MAX];

    c->host->counters.connects++;
    if (connect->level != MQTT_LEVEL) {
        client_refuse(c, MQTT_CONNACK_LEVEL, "protocol level is not that of MQTT 3.1.1");
        return;
    }
    if (username_parse(connect->username, c->host->scratch, &username, &error) != 0) {
        snprintf(reason, sizeof(reason), "user name at byte %zu: expected %s", error.offset,
                 error.expected);
        client_refuse(c, MQTT_CONNACK_REFUSED, reason);
        return;
    }
    objection = client_objection(c, connect, &username);
    if (objection) {
        client_refuse(c, MQTT_CONNACK_REFUSED, objection);
        return;
    }
    client_take_identity(c, connect, &username);
    c->state = CLIENT_AUTHENTICATING;
    c->deadline_usec = c->host->now_usec + c->host->limits.login_timeout_usec;
    c->host->ops->authenticate(c, false);
}

static void client_connect_expired(struct client *c, const struct client_input *in)
{
    if (c->host->now_usec < c->deadline_usec)
        return;
    c->host->counters.expired++;
    client_close(c, CLIENT_END_CLOSED, "no CONNECT in time");
}

/* It cannot be told, for now: 3, so that SDKs try again (mqtt.md §4). */
static void client_login_expired(struct client *c, const struct client_input *in)
{
    if (c->host->now_usec < c->deadline_usec)
        return;
    c->host->counters.expired++;
    client_refuse(c, MQTT_CONNACK_UNAVAILABLE,
                  c->state == CLIENT_AUTHENTICATING ? "identity did not answer in time"
                                                    : "store did not answer in time");
}

static void client_authenticated(struct client *c, const struct client_input *in)
{
    if (in->verdict == CLIENT_REFUSED) {
        client_refuse(c, MQTT_CONNACK_REFUSED, in->reason);
        return;
    }
    if (in->verdict == CLIENT_UNDECIDED) {
        client_refuse(c, MQTT_CONNACK_UNAVAILABLE, in->reason);
        return;
    }
    c->state = CLIENT_LOADING;
    c->host->ops->load_session(c);
}

/* Its subscriptions may have changed. */
static void client_review_inputs(struct client *c)
{
    bool wanted = false;

    for (size_t i = 0; c->is_edge_module && i < c->session.count; i++)
        wanted |= input_filter_wants(span_str(c->session.subscriptions[i].filter), c->device_id,
                                     c->module_id);
    if (wanted == c->inputs_wanted)
        return;
    c->inputs_wanted = wanted;
    c->host->ops->inputs(c, wanted);
}

/* mqtt.md §3.4: CONNACK, then it is the connection of its identity. */
static void client_welcome(struct client *c)
{
    if (!c->host->ops->admit(c)) {
        client_refuse(c, MQTT_CONNACK_UNAVAILABLE, "as many clients as max_clients");
        return;
    }
    c->state = CLIENT_CONNECTED;
    c->heard_usec = c->host->now_usec;
    c->recheck_usec += c->host->now_usec; /* the spread until now */
    mqtt_encode_connack(&c->out, c->session_stored, MQTT_CONNACK_ACCEPTED);
    c->host->ops->output(c);
    c->host->ops->connected(c);
    client_review_inputs(c);
}

static void client_session_loaded(struct client *c, const struct client_input *in)
{
    if (!in->ok) {
        client_refuse(c, MQTT_CONNACK_UNAVAILABLE, "session cannot be loaded");
        return;
    }
    if (in->record && c->clean_session) {
        c->host->ops->save_session(c, NULL);
        return;
    }
    /* A record that is none counts as none: the next SUBSCRIBE writes it anew. */
    c->session_stored = in->record && session_decode(&c->session, *in->record) == 0;
    client_welcome(c);
}

static void client_session_removed(struct client *c, const struct client_input *in)
{
    if (in->ok)
        client_welcome(c);
    else
        client_refuse(c, MQTT_CONNACK_UNAVAILABLE, "old session cannot be removed");
}

/* ---- subscriptions ---- */

static void client_send_held(struct client *c)
{
    buf_append_span(&c->out, buf_span(&c->held));
    buf_done(&c->held);
    c->host->ops->output(c);
    client_review_inputs(c);
}

/* The answer is in @held. It goes out when the change would survive us; for a session that is not
 * kept, at once. */
static void client_finish_change(struct client *c, bool changed)
{
    struct buf record = {};
    struct span span;

    if (c->clean_session || (!changed && c->session_stored)) {
        client_send_held(c);
        return;
    }
    session_encode(&c->session, &record);
    span = buf_span(&record);
    c->state = CLIENT_SAVING;
    c->host->ops->save_session(c, &span);
    buf_done(&record);
}

static void client_subscribe(struct client *c, const struct client_input *in)
{
    const struct mqtt_filters *packet = &in->packet->filters;
    uint8_t *codes = arena_alloc(c->host->scratch, packet->count), qos;
    struct span rest = packet->filters, filter;
    bool changed = false, one_changed;
    size_t n = 0;

    while (mqtt_filters_next(&rest, &filter, &qos)) {
        codes[n] = qos > 0; /* never more than 1, and never 0x80 (mqtt.md §6) */
        if (session_subscribe(&c->session, filter, codes[n], c->host->utc_sec, &one_changed) != 0) {
            client_violate(c, "more subscriptions than a client may have");
            return;
        }
        changed |= one_changed;
        n++;
    }
    mqtt_encode_suback(&c->held, packet->packet_id, codes, n);
    client_finish_change(c, changed);
}

static void client_unsubscribe(struct client *c, const struct client_input *in)
{
    const struct mqtt_filters *packet = &in->packet->filters;
    struct span rest = packet->filters, filter;
    bool changed = false;

    while (mqtt_filters_next(&rest, &filter, NULL))
        changed |= session_unsubscribe(&c->session, filter);
    mqtt_encode_unsuback(&c->held, packet->packet_id);
    client_finish_change(c, changed);
}

static void client_session_saved(struct client *c, const struct client_input *in)
{
    if (!in->ok) {
        client_lose(c, CLIENT_END_CLOSED, "session cannot be stored");
        return;
    }
    c->session_stored = true;
    c->state = CLIENT_CONNECTED;
    client_send_held(c);
}

/* ---- PUBLISH ---- */

static void client_send_pubacks(struct client *c)
{
    uint16_t packet_id;
    bool any = false;

    while (ack_queue_pop(&c->acks, &packet_id)) {
        mqtt_encode_puback(&c->out, packet_id);
        any = true;
    }
    if (any)
        c->host->ops->output(c);
}

/* For a publish that is done with; its PUBACK still takes its turn. */
static void client_acknowledge(struct client *c, const struct mqtt_publish *publish)
{
    if (publish->qos == 0)
        return;
    ack_queue_push(&c->acks, publish->packet_id, false);
    client_send_pubacks(c);
}

/* A close would make SDKs send it again for ever (mqtt.md §8.5). */
static void client_drop(struct client *c, const struct mqtt_publish *publish, uint64_t *counter,
                        const char *reason)
{
    ++*counter;
    c->host->ops->dropped(c, reason);
    client_acknowledge(c, publish);
}

enum { TELEMETRY_E_FOREIGN = 1, TELEMETRY_E_NOT_TEXT, TELEMETRY_E_TOO_LARGE };

/* The message a publish to a telemetry topic makes; in the scratch arena. */
static int client_make_message(const struct client *c, const struct mqtt_publish *publish,
                               const struct topic *topic, Bus__Message *ret)
{
    struct arena *arena = c->host->scratch;
    Bus__Message m = BUS__MESSAGE__INIT;

    if (!span_equal(topic->device_id, span_str(c->device_id)) ||
        !span_equal(topic->module_id, span_str(c->module_id)))
        return TELEMETRY_E_FOREIGN;
    if (bag_decode(topic->bag, arena, &m) != 0)
        return TELEMETRY_E_NOT_TEXT;
    m.device_id = c->device_id;
    m.module_id = c->module_id;
    m.body = (ProtobufCBinaryData){ publish->payload.len, (uint8_t *)publish->payload.at };
    if (c->model_id)
        message_add_system(&m, MESSAGE_MODEL_ID, c->model_id, arena);
    if (publish->retain)
        message_add_application(&m, "mqtt-retain", "true", arena);
    if (publish->dup)
        message_add_application(&m, "mqtt-dup", "true", arena);
    if (message_size(&m) > MESSAGE_BYTES_MAX)
        return TELEMETRY_E_TOO_LARGE;
    *ret = m;
    return 0;
}

static void client_telemetry(struct client *c, const struct mqtt_publish *publish,
                             const struct topic *topic)
{
    struct client_counters *counters = &c->host->counters;
    Bus__Message m;
    int r;

    r = client_make_message(c, publish, topic, &m);
    if (r == TELEMETRY_E_FOREIGN) {
        client_violate(c, "topic names another identity");
        return;
    }
    if (r == TELEMETRY_E_NOT_TEXT) {
        client_drop(c, publish, &counters->dropped_malformed, "a property is not UTF-8");
        return;
    }
    if (r == TELEMETRY_E_TOO_LARGE) {
        client_drop(c, publish, &counters->dropped_too_large, "larger than the hub takes");
        return;
    }
    if (!c->host->ops->publish(c, &m, publish->qos > 0)) {
        c->blocked = true; /* the packet is not eaten: it comes again */
        return;
    }
    counters->messages++;
    counters->message_bytes += publish->payload.len;
    if (publish->qos > 0)
        ack_queue_push(&c->acks, publish->packet_id, true);
}

/* True: it is on its way, or of no use. */
static bool client_publish_will(struct client *c)
{
    const struct mqtt_publish *publish = &c->will->publish;
    struct topic topic;
    Bus__Message m;

    topic_parse(publish->topic, &topic);
    if (topic.kind != TOPIC_TELEMETRY || client_make_message(c, publish, &topic, &m) != 0)
        return true;
    message_add_application(&m, "iothub-MessageType", "Will", c->host->scratch);
    message_add_application(&m, "MessageType", "Will", c->host->scratch);
    c->blocked = !c->host->ops->publish(c, &m, false);
    if (!c->blocked)
        c->host->counters.wills++;
    return !c->blocked;
}

/* Two halves, so that an answer never has the identifier of an input message that waits for long. */
enum { INPUT_ID_FIRST = 1, INPUT_ID_LAST = 0x7fff };

static uint16_t client_next_packet_id(struct client *c)
{
    c->last_packet_id = (uint16_t)(c->last_packet_id | (INPUT_ID_LAST + 1));
    return c->last_packet_id++;
}

static uint16_t client_next_input_id(struct client *c)
{
    c->last_input_id =
        (uint16_t)(c->last_input_id == INPUT_ID_LAST ? INPUT_ID_FIRST : c->last_input_id + 1);
    return c->last_input_id;
}

/* Sent only where there is a subscription for it, with the QoS granted there. */
static void client_deliver(struct client *c, struct span topic, struct span payload)
{
    int qos = session_qos(&c->session, topic);

    if (qos < 0)
        return;
    mqtt_encode_publish(&c->out, topic, payload, (uint8_t)qos,
                        qos > 0 ? client_next_packet_id(c) : 0, false);
    c->host->ops->output(c);
}

int client_send(struct client *c, struct span topic, struct span payload, uint16_t *ret_packet_id)
{
    int qos = session_qos(&c->session, topic);

    if (qos < 0)
        return CLIENT_E_UNWANTED;
    *ret_packet_id = qos > 0 ? client_next_input_id(c) : 0;
    mqtt_encode_publish(&c->out, topic, payload, (uint8_t)qos, *ret_packet_id, false);
    c->host->ops->output(c);
    return 0;
}

void client_send_again(struct client *c, struct span topic, struct span payload, uint16_t packet_id)
{
    mqtt_encode_publish(&c->out, topic, payload, 1, packet_id, true);
    c->host->ops->output(c);
}

static void client_got_ack(struct client *c, const struct client_input *in)
{
    if (in->packet->type == MQTT_PUBACK)
        c->host->ops->acknowledged(c, in->packet->packet_id);
}

/* Twins have no owner yet. Node hangs for ever without an answer, and dies of one with an empty
 * body (mqtt.md §9.5). */
static void client_twin(struct client *c, const struct mqtt_publish *publish,
                        const struct topic *topic)
{
    size_t head = sizeof(TWIN_ANSWER_TOPIC) - 1;
    char *answer = arena_alloc(c->host->scratch, head + topic->rid.len + 1);

    client_acknowledge(c, publish);
    if (topic->rid.len == 0)
        return;
    memcpy(answer, TWIN_ANSWER_TOPIC, head);
    memcpy(answer + head, topic->rid.at, topic->rid.len);
    client_deliver(c, span_of(answer, head + topic->rid.len), SPAN(TWIN_ANSWER_BODY));
}

static void client_method_response(struct client *c, const struct mqtt_publish *publish,
                                   const struct topic *topic)
{
    client_acknowledge(c, publish); /* nobody asked */
}

static void client_unknown_topic(struct client *c, const struct mqtt_publish *publish,
                                 const struct topic *topic)
{
    client_drop(c, publish, &c->host->counters.dropped_unknown, "nobody listens to its topic");
}

static void client_forbidden_topic(struct client *c, const struct mqtt_publish *publish,
                                   const struct topic *topic)
{
    client_violate(c, "topic under $iothub/twin/ that is no request");
}

typedef void topic_fn(struct client *c, const struct mqtt_publish *publish,
                      const struct topic *topic);

static topic_fn *const topic_actions[_TOPIC_KIND_COUNT] = {
    [TOPIC_OTHER] = client_unknown_topic,
    [TOPIC_TELEMETRY] = client_telemetry,
    [TOPIC_TWIN_GET] = client_twin,
    [TOPIC_TWIN_REPORTED] = client_twin,
    [TOPIC_METHOD_RESPONSE] = client_method_response,
    [TOPIC_FORBIDDEN] = client_forbidden_topic,
};

static void client_publish(struct client *c, const struct client_input *in)
{
    const struct mqtt_publish *publish = &in->packet->publish;
    struct topic topic;

    if (publish->qos > 1) {
        client_violate(c, "PUBLISH with QoS 2");
        return;
    }
    topic_parse(publish->topic, &topic);
    topic_actions[topic.kind](c, publish, &topic);
}

static void client_committed(struct client *c, const struct client_input *in)
{
    for (unsigned n = 0; n < in->count; n++) {
        ack_queue_commit(&c->acks);
        client_send_pubacks(c);
    }
}

static void client_unblock(struct client *c, const struct client_input *in)
{
    c->blocked = false;
}

/* ---- while connected ---- */

static void client_ping(struct client *c, const struct client_input *in)
{
    mqtt_encode_pingresp(&c->out);
    c->host->ops->output(c);
}

/* A client that we do not read cannot be heard. */
static bool client_is_silent(const struct client *c)
{
    return client_takes_input(c) && c->host->now_usec >= c->heard_usec + c->keepalive_usec;
}

static void client_tick(struct client *c, const struct client_input *in)
{
    if (client_is_silent(c)) {
        c->host->counters.expired++;
        client_lose(c, CLIENT_END_CLOSED, "keep-alive expired");
        return;
    }
    ack_queue_trim(&c->acks);
    if (c->host->now_usec >= c->recheck_usec) {
        c->recheck_usec = c->host->now_usec + c->host->limits.recheck_usec;
        c->host->ops->authenticate(c, true);
    }
}

/* Undecided keeps it: identity is away, which is not the client's fault. A refused one has no Will
 * (mqtt.md §3.6). */
static void client_rechecked(struct client *c, const struct client_input *in)
{
    if (in->verdict == CLIENT_REFUSED)
        client_close(c, CLIENT_END_REFUSED, in->reason);
}

/* ---- the table ---- */

static client_fn *const client_actions[_CLIENT_STATE_COUNT][_CLIENT_EVENT_COUNT] = {
    [CLIENT_WAITING] = {
        [CLIENT_GOT_CONNECT] = client_connect,
        [CLIENT_GOT_PUBLISH ... CLIENT_GOT_DISCONNECT] = client_out_of_order,
        [CLIENT_GOT_GARBAGE] = client_garbage,
        [CLIENT_AUTHENTICATED ... CLIENT_ROOM] = client_never,
        [CLIENT_TIME] = client_connect_expired,
        [CLIENT_STREAM_ENDED] = client_gone,
        [CLIENT_TAKEN_OVER] = client_never,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_AUTHENTICATING] = {
        [CLIENT_GOT_CONNECT ... CLIENT_GOT_GARBAGE] = client_never,
        [CLIENT_AUTHENTICATED] = client_authenticated,
        [CLIENT_LOADED ... CLIENT_ROOM] = client_never,
        [CLIENT_TIME] = client_login_expired,
        [CLIENT_STREAM_ENDED] = client_gone,
        [CLIENT_TAKEN_OVER] = client_never,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_LOADING] = {
        [CLIENT_GOT_CONNECT ... CLIENT_AUTHENTICATED] = client_never,
        [CLIENT_LOADED] = client_session_loaded,
        [CLIENT_SAVED] = client_session_removed,
        [CLIENT_COMMITTED ... CLIENT_ROOM] = client_never,
        [CLIENT_TIME] = client_login_expired,
        [CLIENT_STREAM_ENDED] = client_gone,
        [CLIENT_TAKEN_OVER] = client_never,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_CONNECTED] = {
        [CLIENT_GOT_CONNECT] = client_second_connect,
        [CLIENT_GOT_PUBLISH] = client_publish,
        [CLIENT_GOT_ACK] = client_got_ack,
        [CLIENT_GOT_PUBREL] = client_pubrel,
        [CLIENT_GOT_SUBSCRIBE] = client_subscribe,
        [CLIENT_GOT_UNSUBSCRIBE] = client_unsubscribe,
        [CLIENT_GOT_PINGREQ] = client_ping,
        [CLIENT_GOT_DISCONNECT] = client_disconnect,
        [CLIENT_GOT_GARBAGE] = client_garbage,
        [CLIENT_AUTHENTICATED] = client_rechecked,
        [CLIENT_LOADED ... CLIENT_SAVED] = client_never,
        [CLIENT_COMMITTED] = client_committed,
        [CLIENT_ROOM] = client_unblock,
        [CLIENT_TIME] = client_tick,
        [CLIENT_STREAM_ENDED] = client_lost,
        [CLIENT_TAKEN_OVER] = client_yield,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_SAVING] = {
        [CLIENT_GOT_CONNECT ... CLIENT_GOT_GARBAGE] = client_never,
        [CLIENT_AUTHENTICATED] = client_rechecked,
        [CLIENT_LOADED] = client_never,
        [CLIENT_SAVED] = client_session_saved,
        [CLIENT_COMMITTED] = client_committed,
        [CLIENT_ROOM] = client_never,
        [CLIENT_TIME] = client_ignore, /* one request at a time; the host bounds it */
        [CLIENT_STREAM_ENDED] = client_lost,
        [CLIENT_TAKEN_OVER] = client_yield,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_LEAVING] = {
        [CLIENT_GOT_CONNECT ... CLIENT_SAVED] = client_never,
        [CLIENT_COMMITTED] = client_ignore,
        [CLIENT_ROOM] = client_on_room_for_will,
        [CLIENT_TIME ... CLIENT_TAKEN_OVER] = client_ignore,
        [CLIENT_SHUTDOWN] = client_shut_down,
    },
    [CLIENT_CLOSED] = {
        [CLIENT_GOT_CONNECT ... CLIENT_SAVED] = client_never,
        [CLIENT_COMMITTED ... CLIENT_SHUTDOWN] = client_ignore,
    },
};

static const enum client_event packet_events[] = {
    [MQTT_CONNECT] = CLIENT_GOT_CONNECT,     [MQTT_PUBLISH] = CLIENT_GOT_PUBLISH,
    [MQTT_PUBACK] = CLIENT_GOT_ACK,          [MQTT_PUBREC] = CLIENT_GOT_ACK,
    [MQTT_PUBREL] = CLIENT_GOT_PUBREL,       [MQTT_PUBCOMP] = CLIENT_GOT_ACK,
    [MQTT_SUBSCRIBE] = CLIENT_GOT_SUBSCRIBE, [MQTT_UNSUBSCRIBE] = CLIENT_GOT_UNSUBSCRIBE,
    [MQTT_PINGREQ] = CLIENT_GOT_PINGREQ,     [MQTT_DISCONNECT] = CLIENT_GOT_DISCONNECT,
};

bool client_table_has(enum client_state state, enum client_event event)
{
    return client_actions[state][event] != NULL;
}

static void client_step(struct client *c, enum client_event event, struct client_input in)
{
    client_actions[c->state][event](c, &in);
    arena_reset(c->host->scratch);
}

/* ---- doors ---- */

bool client_takes_input(const struct client *c)
{
    if (c->state == CLIENT_WAITING)
        return true;
    return c->state == CLIENT_CONNECTED && !c->blocked &&
           c->acks.count < c->host->limits.inflight_max;
}

bool client_is_reachable(const struct client *c)
{
    return c->state == CLIENT_CONNECTED && client_takes_input(c);
}

static size_t client_packet_bytes_max(const struct client *c)
{
    const struct client_limits *limits = &c->host->limits;

    return c->state == CLIENT_WAITING ? limits->connect_bytes_max : limits->packet_bytes_max;
}

void client_feed(struct client *c, struct span *bytes)
{
    while (bytes->len > 0 && client_takes_input(c)) {
        struct mqtt_packet packet;
        struct parse_error error;
        int r = mqtt_decode(*bytes, client_packet_bytes_max(c), &packet, &error);

        if (r == MQTT_E_MORE)
            return;
        if (r != 0) {
            client_step(
                c, CLIENT_GOT_GARBAGE,
                (struct client_input){ .error = &error, .too_large = r == MQTT_E_TOO_LARGE });
            return;
        }
        if (c->host->acks_only && packet.type != MQTT_PUBACK)
            return;
        c->heard_usec = c->host->now_usec;
        client_step(c, packet_events[packet.type], (struct client_input){ .packet = &packet });
        if (c->blocked)
            return;
        *bytes = span_of(bytes->at + packet.len, bytes->len - packet.len);
    }
}

void client_on_authenticated(struct client *c, enum client_verdict verdict, const char *reason)
{
    client_step(c, CLIENT_AUTHENTICATED,
                (struct client_input){ .verdict = verdict, .reason = reason });
}

void client_on_session_loaded(struct client *c, bool ok, const struct span *record)
{
    client_step(c, CLIENT_LOADED, (struct client_input){ .ok = ok, .record = record });
}

void client_on_session_saved(struct client *c, bool ok)
{
    client_step(c, CLIENT_SAVED, (struct client_input){ .ok = ok });
}

void client_on_committed(struct client *c, unsigned count)
{
    client_step(c, CLIENT_COMMITTED, (struct client_input){ .count = count });
}

void client_on_room(struct client *c)
{
    client_step(c, CLIENT_ROOM, (struct client_input){});
}

void client_on_time(struct client *c)
{
    client_step(c, CLIENT_TIME, (struct client_input){});
}

void client_on_stream_ended(struct client *c, enum client_end how, const char *reason)
{
    client_step(c, CLIENT_STREAM_ENDED, (struct client_input){ .how = how, .reason = reason });
}

void client_on_taken_over(struct client *c)
{
    client_step(c, CLIENT_TAKEN_OVER, (struct client_input){});
}

void client_on_shutdown(struct client *c)
{
    client_step(c, CLIENT_SHUTDOWN, (struct client_input){});
}

void client_recheck_at(struct client *c, uint64_t usec)
{
    if (usec < c->recheck_usec)
        c->recheck_usec = usec;
}

uint64_t client_next_usec(const struct client *c)
{
    uint64_t silent = c->heard_usec + c->keepalive_usec;

    switch (c->state) {
    case CLIENT_WAITING:
    case CLIENT_AUTHENTICATING:
    case CLIENT_LOADING:
        return c->deadline_usec;
    case CLIENT_CONNECTED:
    case CLIENT_SAVING:
        return silent < c->recheck_usec ? silent : c->recheck_usec;
    default:
        return UINT64_MAX;
    }
}

void client_init(struct client *c, struct client_host *host, bool has_certificate,
                 uint64_t spread_usec)
{
    *c = (struct client){
        .host = host,
        .state = CLIENT_WAITING,
        .has_certificate = has_certificate,
        .deadline_usec = host->now_usec + host->limits.connect_timeout_usec,
        .recheck_usec = spread_usec,
    };
}

void client_done(struct client *c)
{
    if (c->token)
        explicit_bzero(c->token, strlen(c->token));
    free(c->token);
    free(c->device_id);
    free(c->module_id);
    free(c->product_info);
    free(c->model_id);
    free(c->will);
    ack_queue_done(&c->acks);
    session_done(&c->session);
    buf_done(&c->held);
    buf_done(&c->out);
}
