/* The topic of a message for the input of a module: ids, input, property bag (mqtt.md §9.1, §9.3). */
#pragma once

#include "buf.h"
#include "message.pb-c.h"

enum {
    INPUT_TOPIC_E_TOO_LONG = 1, /* for MQTT: its properties do not fit */
    INPUT_TOPIC_E_NAME,         /* an input that MQTT cannot name: it has a wildcard */
};

/* Appends "devices/D/modules/M/inputs/I/" and the bag. On an outcome, @out is as it was. */
int input_topic_encode(const char *device_id, const char *module_id, const char *input,
                       const Bus__Message *m, struct buf *out);

/* Does a filter switch on the inputs of this module? Any that ends in a wildcard and may match them
 * (mqtt.md §6). */
bool input_filter_wants(struct span filter, const char *device_id, const char *module_id);
