/* Pure: no descriptor, no clock, no log, no static data. */
#include "mqtt-codec.h"

#include <assert.h>
#include <string.h>

#include "mem.h"

enum {
    LENGTH_BYTES_MAX = 4,
    CONNECT_RESERVED = 0x01,
    CONNECT_CLEAN = 0x02,
    CONNECT_WILL = 0x04,
    CONNECT_WILL_QOS = 0x18,
    CONNECT_WILL_RETAIN = 0x20,
    CONNECT_PASSWORD = 0x40,
    CONNECT_USERNAME = 0x80,
};

/* Reads on after a fault are harmless and give zeros; the first fault is kept. */
struct reader {
    struct span rest;
    size_t item_left;     /* bytes that were left where the last item begins */
    const char *expected; /* NULL: no fault so far */
    size_t fault_left;    /* bytes that were left where the fault is */
};

static void expect(struct reader *r, bool holds, const char *expected)
{
    if (holds || r->expected)
        return;
    r->expected = expected;
    r->fault_left = r->item_left;
}

static struct span take(struct reader *r, size_t len, const char *expected)
{
    struct span taken;

    expect(r, r->rest.len >= len, expected);
    if (r->expected)
        return (struct span){ "", 0 };
    taken = span_of(r->rest.at, len);
    r->rest = span_of(r->rest.at + len, r->rest.len - len);
    return taken;
}

static uint8_t take_byte(struct reader *r, const char *expected)
{
    struct span s;

    r->item_left = r->rest.len;
    s = take(r, 1, expected);
    return s.len == 1 ? (uint8_t)s.at[0] : 0;
}

static uint16_t take_be16(struct reader *r, const char *expected)
{
    struct span s;

    r->item_left = r->rest.len;
    s = take(r, 2, expected);
    if (s.len != 2)
        return 0;
    return (uint16_t)((uint8_t)s.at[0] << 8 | (uint8_t)s.at[1]);
}

static struct span take_binary(struct reader *r, const char *expected)
{
    return take(r, take_be16(r, expected), expected);
}

static struct span take_text(struct reader *r, const char *expected)
{
    struct span s = take_binary(r, expected);

    expect(r, span_is_utf8(s), expected);
    return s;
}

static uint16_t take_packet_id(struct reader *r)
{
    uint16_t id = take_be16(r, "packet id");

    expect(r, id != 0, "packet id other than 0");
    return id;
}

/* ---- packets ---- */

static void check_connect_flags(struct reader *r, uint8_t flags)
{
    bool will = flags & CONNECT_WILL;

    expect(r, !(flags & CONNECT_RESERVED), "reserved connect flag 0");
    expect(r, will || !(flags & (CONNECT_WILL_QOS | CONNECT_WILL_RETAIN)),
           "no Will QoS and retain without a Will");
    expect(r, (flags & CONNECT_WILL_QOS) != CONNECT_WILL_QOS, "Will QoS 0 to 2");
    expect(r, (flags & CONNECT_USERNAME) || !(flags & CONNECT_PASSWORD),
           "no password without a user name");
}

static void decode_connect(struct reader *r, uint8_t header, struct mqtt_packet *packet)
{
    struct mqtt_connect *c = &packet->connect;
    uint8_t flags;

    expect(r, span_equal(take_text(r, "protocol name"), SPAN("MQTT")), "protocol name MQTT");
    c->level = take_byte(r, "protocol level");
    if (!r->expected && c->level != MQTT_LEVEL) {
        r->rest.len = 0; /* another language from here */
        return;
    }
    flags = take_byte(r, "connect flags");
    check_connect_flags(r, flags);
    c->clean_session = flags & CONNECT_CLEAN;
    c->has_will = flags & CONNECT_WILL;
    c->will_qos = (uint8_t)((flags & CONNECT_WILL_QOS) >> 3);
    c->will_retain = flags & CONNECT_WILL_RETAIN;
    c->keep_alive_sec = take_be16(r, "keep-alive");
    c->client_id = take_text(r, "client id");
    if (c->has_will) {
        c->will_topic = take_text(r, "Will topic");
        c->will_payload = take_binary(r, "Will message");
    }
    if (flags & CONNECT_USERNAME)
        c->username = take_text(r, "user name");
    if (flags & CONNECT_PASSWORD)
        c->password = take_binary(r, "password");
}

static void decode_publish(struct reader *r, uint8_t header, struct mqtt_packet *packet)
{
    struct mqtt_publish *p = &packet->publish;

    p->dup = header & 0x08;
    p->qos = (header >> 1) & 0x03;
    p->retain = header & 0x01;
    p->topic = take_text(r, "topic name");
    expect(r, mqtt_topic_valid(p->topic), "topic name that is not empty and has no wildcard");
    if (p->qos > 0)
        p->packet_id = take_packet_id(r);
    p->payload = take(r, r->rest.len, "payload");
}

static void decode_ack(struct reader *r, uint8_t header, struct mqtt_packet *packet)
{
    packet->packet_id = take_packet_id(r);
}

static void decode_filters(struct reader *r, bool with_qos, struct mqtt_packet *packet)
{
    struct mqtt_filters *f = &packet->filters;

    f->packet_id = take_packet_id(r);
    f->filters = r->rest;
    do {
        expect(r, mqtt_filter_valid(take_text(r, "topic filter")), "valid topic filter");
        if (with_qos)
            expect(r, take_byte(r, "requested QoS") <= 2, "requested QoS 0 to 2");
        f->count++;
    } while (!r->expected && r->rest.len > 0);
}

static void decode_subscribe(struct reader *r, uint8_t header, struct mqtt_packet *packet)
{
    decode_filters(r, true, packet);
}

static void decode_unsubscribe(struct reader *r, uint8_t header, struct mqtt_packet *packet)
{
    decode_filters(r, false, packet);
}

static void decode_nothing(struct reader *r, uint8_t header, struct mqtt_packet *packet) {}

typedef void decode_fn(struct reader *r, uint8_t header, struct mqtt_packet *packet);

/* What clients may send. */
static const struct kind {
    decode_fn *decode;
    uint8_t flags;
    bool any_flags;
} kinds[16] = {
    [MQTT_CONNECT] = { decode_connect, 0, false },
    [MQTT_PUBLISH] = { decode_publish, 0, true },
    [MQTT_PUBACK] = { decode_ack, 0, false },
    [MQTT_PUBREC] = { decode_ack, 0, false },
    [MQTT_PUBREL] = { decode_ack, 2, false },
    [MQTT_PUBCOMP] = { decode_ack, 0, false },
    [MQTT_SUBSCRIBE] = { decode_subscribe, 2, false },
    [MQTT_UNSUBSCRIBE] = { decode_unsubscribe, 2, false },
    [MQTT_PINGREQ] = { decode_nothing, 0, false },
    [MQTT_DISCONNECT] = { decode_nothing, 0, false },
};

/* ---- the fixed header ---- */

static int fail(struct parse_error *ret_error, int outcome, size_t offset, const char *expected)
{
    *ret_error = (struct parse_error){ .offset = offset, .expected = expected };
    return outcome;
}

/* Remaining length: 7 bits a byte, lowest first. */
static int decode_length(struct span in, size_t *ret_header_len, size_t *ret_len,
                         struct parse_error *ret_error)
{
    size_t len = 0;

    for (size_t i = 0; i < LENGTH_BYTES_MAX; i++) {
        if (in.len <= 1 + i)
            return MQTT_E_MORE;
        len |= (size_t)(in.at[1 + i] & 0x7f) << (7 * i);
        if (!(in.at[1 + i] & 0x80)) {
            *ret_header_len = 2 + i;
            *ret_len = 2 + i + len;
            return 0;
        }
    }
    return fail(ret_error, MQTT_E_MALFORMED, 1 + LENGTH_BYTES_MAX,
                "remaining length of at most 4 bytes");
}

static bool flags_valid(const struct kind *kind, uint8_t flags)
{
    if (kind->any_flags)
        return (flags & 0x06) != 0x06; /* QoS 3 */
    return flags == kind->flags;
}

int mqtt_decode(struct span in, size_t bytes_max, struct mqtt_packet *ret,
                struct parse_error *ret_error)
{
    struct mqtt_packet packet = {};
    const struct kind *kind;
    struct reader reader;
    size_t header_len;
    uint8_t first;
    int r;

    if (in.len == 0)
        return MQTT_E_MORE;
    first = (uint8_t)in.at[0];
    kind = &kinds[first >> 4];
    if (!kind->decode)
        return fail(ret_error, MQTT_E_MALFORMED, 0, "a packet type that clients send");
    if (!flags_valid(kind, first & 0x0f))
        return fail(ret_error, MQTT_E_MALFORMED, 0, "the header flags of this packet type");
    packet.type = first >> 4;
    r = decode_length(in, &header_len, &packet.len, ret_error);
    if (r != 0)
        return r;
    if (packet.len > bytes_max)
        return fail(ret_error, MQTT_E_TOO_LARGE, 1, "a smaller packet");
    if (in.len < packet.len)
        return MQTT_E_MORE;

    reader = (struct reader){ .rest = span_of(in.at + header_len, packet.len - header_len) };
    kind->decode(&reader, first, &packet);
    reader.item_left = reader.rest.len;
    expect(&reader, reader.rest.len == 0, "the end of the packet");
    if (reader.expected)
        return fail(ret_error, MQTT_E_MALFORMED, packet.len - reader.fault_left, reader.expected);
    *ret = packet;
    return 0;
}

bool mqtt_filters_next(struct span *filters, struct span *ret_filter, uint8_t *ret_qos)
{
    struct reader reader = { .rest = *filters };

    if (filters->len == 0)
        return false;
    *ret_filter = take_binary(&reader, "topic filter");
    if (ret_qos)
        *ret_qos = take_byte(&reader, "requested QoS");
    assert(!reader.expected); /* mqtt_decode() has seen it */
    *filters = reader.rest;
    return true;
}

/* ---- topics ---- */

bool mqtt_topic_valid(struct span topic)
{
    return topic.len > 0 && !memchr(topic.at, '+', topic.len) && !memchr(topic.at, '#', topic.len);
}

/* MQTT-4.7.1: '#' is the last level, '+' a whole one. */
bool mqtt_filter_valid(struct span filter)
{
    struct span rest = filter, level;
    bool done = false;

    if (filter.len == 0)
        return false;
    while (span_next(&rest, '/', &level, &done)) {
        if (!mqtt_topic_valid(level) && level.len > 1)
            return false;
        if (span_equal(level, SPAN("#")) && !done)
            return false;
    }
    return true;
}

bool mqtt_filter_matches(struct span filter, struct span topic)
{
    bool filter_done = false, topic_done = false;
    struct span want, level;

    /* MQTT-4.7.2-1: a wildcard in the first place does not match what begins with '$' */
    if (topic.len > 0 && topic.at[0] == '$' && filter.len > 0 &&
        (filter.at[0] == '#' || filter.at[0] == '+'))
        return false;
    while (span_next(&filter, '/', &want, &filter_done)) {
        if (span_equal(want, SPAN("#")))
            return true; /* "X/#" also matches "X" */
        if (!span_next(&topic, '/', &level, &topic_done))
            return false;
        if (!span_equal(want, SPAN("+")) && !span_equal(want, level))
            return false;
    }
    return topic_done;
}

/* ---- encoding ---- */

static void encode_header(struct buf *out, uint8_t first, size_t len)
{
    assert(len < 1u << 28);
    buf_append_byte(out, first);
    do {
        buf_append_byte(out, (uint8_t)((len & 0x7f) | (len > 0x7f ? 0x80 : 0)));
        len >>= 7;
    } while (len > 0);
}

void mqtt_encode_connack(struct buf *out, bool session_present, uint8_t code)
{
    encode_header(out, MQTT_CONNACK << 4, 2);
    buf_append_byte(out, session_present);
    buf_append_byte(out, code);
}

void mqtt_encode_puback(struct buf *out, uint16_t packet_id)
{
    const uint8_t packet[] = { MQTT_PUBACK << 4, 2, (uint8_t)(packet_id >> 8), (uint8_t)packet_id };

    buf_append(out, packet, sizeof(packet));
}

void mqtt_encode_suback(struct buf *out, uint16_t packet_id, const uint8_t *codes, size_t count)
{
    encode_header(out, MQTT_SUBACK << 4, 2 + count);
    buf_append_be16(out, packet_id);
    buf_append(out, codes, count);
}

void mqtt_encode_unsuback(struct buf *out, uint16_t packet_id)
{
    encode_header(out, MQTT_UNSUBACK << 4, 2);
    buf_append_be16(out, packet_id);
}

void mqtt_encode_pingresp(struct buf *out)
{
    encode_header(out, MQTT_PINGRESP << 4, 0);
}

void mqtt_encode_publish(struct buf *out, struct span topic, struct span payload, uint8_t qos,
                         uint16_t packet_id, bool dup)
{
    assert(topic.len <= UINT16_MAX && (qos == 0) == (packet_id == 0) && (qos > 0 || !dup));
    encode_header(out, (uint8_t)(MQTT_PUBLISH << 4 | (dup ? 0x08 : 0) | qos << 1),
                  2 + topic.len + (qos > 0 ? 2 : 0) + payload.len);
    buf_append_be16(out, (uint16_t)topic.len);
    buf_append_span(out, topic);
    if (qos > 0)
        buf_append_be16(out, packet_id);
    buf_append_span(out, payload);
}
