/* The message model in memory: small helpers around bus.Message. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "message.pb-c.h"

/* Internal keys of system properties (spec: hub.md §1.1). */
#define MESSAGE_ID               "messageId"
#define MESSAGE_CORRELATION_ID   "cid"
#define MESSAGE_USER_ID          "userId"
#define MESSAGE_TO               "to"
#define MESSAGE_CONTENT_TYPE     "contentType"
#define MESSAGE_CONTENT_ENCODING "contentEncoding"
#define MESSAGE_EXPIRY           "absolute-expiry-time"
#define MESSAGE_CREATION_TIME    "creationTime"
#define MESSAGE_SCHEMA           "messageSchema"
#define MESSAGE_OPERATION        "operation"
#define MESSAGE_OUTPUT_NAME      "outputName"
#define MESSAGE_INTERFACE_ID     "iothub-interface-id"
#define MESSAGE_SUBJECT          "dt-subject"
#define MESSAGE_MODEL_ID         "modelId"
#define MESSAGE_ACK              "ack"

enum { MESSAGE_BYTES_MAX = 262144, IDENTITY_ID_MAX = 128 };

/* The hub's measure: body, values of system properties, names and values of application properties.
 */
size_t message_size(const Bus__Message *m);
const char *message_system(const Bus__Message *m, const char *name); /* NULL: not set */
/* "D" or "D/M": the partition of $upstream, the name of an identity in logs and status. The caller
 * frees. */
char *identity_name(const char *device_id, const char *module_id);
/* Cuts "D" or "D/M" at the slash (device ids hold none); the module is NULL for a device. The
 * caller frees both. */
void identity_split(const char *name, char **ret_device_id, char **ret_module_id);
/* Characters and length that a device or module id may have. */
bool identity_id_valid(const char *id);
