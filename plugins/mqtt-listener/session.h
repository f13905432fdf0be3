/*
 * What an MQTT session is: subscriptions, each with the QoS that was granted and when it was first
 * made. A persistent one is a record in the store, "mqtt/session/<D or D/M>"; it outlives the
 * connection, the listener and the machine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "span.h"

enum {
    SESSION_SUBSCRIPTIONS_MAX = 64,
    SESSION_FILTER_BYTES_MAX = 16 << 10, /* all filters together: they are kept for each client */
};

struct subscription {
    char *filter;
    uint8_t qos;
    int64_t created_sec; /* UTC */
};

struct session {
    struct subscription *subscriptions;
    size_t count, capacity;
    size_t filter_bytes;
};

void session_done(struct session *s);

/* SESSION_E_FULL: it would be too much; nothing changed. @ret_changed: there is something new to
 * store. */
enum { SESSION_E_FULL = 1, SESSION_E_MALFORMED };
int session_subscribe(struct session *s, struct span filter, uint8_t qos, int64_t now_sec,
                      bool *ret_changed);
bool session_unsubscribe(struct session *s, struct span filter); /* false: it was not there */

/* The highest QoS granted among the filters that match; -1: none does. */
int session_qos(const struct session *s, struct span topic);

void session_encode(const struct session *s, struct buf *out);
/* Into an empty session. SESSION_E_MALFORMED: no session record; @s stays empty. */
int session_decode(struct session *s, struct span record);

/* Key of the record; the caller frees. */
char *session_key(const char *device_id, const char *module_id);
