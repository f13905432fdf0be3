/*
 * MQTT 3.1.1, the server's side: packets that clients send are decoded, packets that a server sends
 * are encoded. What the protocol forbids whatever the state (mqtt.md §2) is found here; what
 * depends on the state is the client's matter.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "span.h"

enum mqtt_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_PUBACK = 4,
    MQTT_PUBREC = 5,
    MQTT_PUBREL = 6,
    MQTT_PUBCOMP = 7,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_UNSUBSCRIBE = 10,
    MQTT_UNSUBACK = 11,
    MQTT_PINGREQ = 12,
    MQTT_PINGRESP = 13,
    MQTT_DISCONNECT = 14,
};

enum {
    MQTT_LEVEL = 4, /* 3.1.1 */
    MQTT_CONNACK_ACCEPTED = 0,
    MQTT_CONNACK_LEVEL = 1,
    MQTT_CONNACK_UNAVAILABLE = 3,
    MQTT_CONNACK_REFUSED = 5, /* 2 and 4 are never sent: the C SDK stops for good */
};

/* @level other than MQTT_LEVEL: nothing else is decoded. */
struct mqtt_connect {
    uint8_t level;
    bool clean_session;
    bool has_will;
    bool will_retain;
    uint8_t will_qos;
    uint16_t keep_alive_sec;
    struct span client_id;
    struct span will_topic;
    struct span will_payload;
    struct span username; /* len 0 when absent */
    struct span password; /* any bytes; len 0 when absent */
};

struct mqtt_publish {
    bool dup;
    bool retain;
    uint8_t qos;
    uint16_t packet_id; /* 0 for QoS 0 */
    struct span topic;
    struct span payload;
};

/* SUBSCRIBE and UNSUBSCRIBE. @filters is whole and valid: mqtt_filters_next() takes it apart. */
struct mqtt_filters {
    uint16_t packet_id;
    unsigned count; /* at least 1 */
    struct span filters;
};

/* All spans point into the input. */
struct mqtt_packet {
    enum mqtt_type type;
    size_t len; /* in the input, fixed header included */
    union {
        struct mqtt_connect connect;
        struct mqtt_publish publish;
        struct mqtt_filters filters;
        uint16_t packet_id; /* PUBACK, PUBREC, PUBREL, PUBCOMP */
    };
};

enum {
    MQTT_E_MORE = 1, /* so far it is fine, but it is not all there */
    MQTT_E_TOO_LARGE,
    MQTT_E_MALFORMED, /* or not for a client to send */
};

/* The first packet in @in, of at most @bytes_max. @ret_error is set on MQTT_E_TOO_LARGE and
 * MQTT_E_MALFORMED. */
int mqtt_decode(struct span in, size_t bytes_max, struct mqtt_packet *ret,
                struct parse_error *ret_error);

/* Eats the next filter of a SUBSCRIBE, or with @ret_qos NULL of an UNSUBSCRIBE. False: that was
 * all. */
bool mqtt_filters_next(struct span *filters, struct span *ret_filter, uint8_t *ret_qos);

bool mqtt_topic_valid(struct span topic); /* what may be published to: not empty, no wildcard */
bool mqtt_filter_valid(struct span filter);
bool mqtt_filter_matches(struct span filter, struct span topic);

/* These append one packet each. */
void mqtt_encode_connack(struct buf *out, bool session_present, uint8_t code);
void mqtt_encode_puback(struct buf *out, uint16_t packet_id);
void mqtt_encode_suback(struct buf *out, uint16_t packet_id, const uint8_t *codes, size_t count);
void mqtt_encode_unsuback(struct buf *out, uint16_t packet_id);
void mqtt_encode_pingresp(struct buf *out);
/* RETAIN is never set, DUP only where it is sent again (mqtt.md §9.1). @packet_id: 0 for QoS 0. */
void mqtt_encode_publish(struct buf *out, struct span topic, struct span payload, uint8_t qos,
                         uint16_t packet_id, bool dup);
