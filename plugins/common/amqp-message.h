/* bus.Message to and from the encoded sections of an AMQP message (amqp.md §6). Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "buf.h"
#include "message.pb-c.h"
#include "span.h"

enum { AMQP_MESSAGE_FORMAT_BATCH = 0x80013700 };
enum { AMQP_MESSAGE_E_MALFORMED = 1, AMQP_MESSAGE_E_UNSUPPORTED };

/* Telemetry on its way up: properties, annotations that the hub reads, application properties, one Data section. Output
 * name, expiry, ack and connection ids are not sent. Appends to @out. */
void amqp_message_encode_upstream(const Bus__Message *m, struct buf *out);

/* A received message (any section order; uuid, ulong and binary ids become text; numbers and booleans in application properties
 * become text; several Data sections are joined). Into @arena; device and module id are left empty. */
int amqp_message_decode(struct span encoded, struct arena *arena, Bus__Message **ret,
                        const char **ret_expected);

/* The inner messages of a batch (message-format 0x80013700): @fn for each, in order. Stops at its non-zero return. */
int amqp_batch_each(struct span encoded, int (*fn)(struct span inner, void *userdata),
                    void *userdata);

/* "/devices/D/messages/events", "/devices/D/modules/M/…", with or without "amqps://host[:port]" and leading slash; fixed
 * words without case, ids raw. */
enum amqp_node {
    AMQP_NODE_CBS,
    AMQP_NODE_EVENTS,
    AMQP_NODE_DEVICEBOUND,
    AMQP_NODE_METHODS,
    AMQP_NODE_TWIN
};
struct amqp_address {
    enum amqp_node node;
    struct span device_id;
    struct span module_id; /* len 0: a device */
};
bool amqp_address_parse(struct span address, struct amqp_address *ret);
