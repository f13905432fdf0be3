/*
 * The one physical connection to the hub: finding its addresses, TCP, TLS, AMQP open; and again after it was lost, ever
 * more rarely, until it is of use again. What happens on it is its owner's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "amqp-driver.h"
#include "plugin.h"

struct connection;

struct connection_config {
    const char *ca_file; /* "": the system's authorities */
    uint16_t port;
    uint64_t reconnect_min_usec, reconnect_max_usec;
};

struct connection_ops {
    void (*on_open)(struct amqp_driver *driver, void *userdata);
    void (*on_event)(pn_event_t *event, void *userdata);
    void (*on_batch_end)(void *userdata);
    /* It was open, and the driver is about to go. Or it could not be opened. Called once for each try. */
    void (*on_lost)(const char *reason, void *userdata);
    /* It is not wanted any more, and closed. */
    void (*on_stopped)(void *userdata);
};

/* @config and @ops are borrowed for its life. */
int connection_new(struct plugin *plugin, const struct connection_config *config,
                   const struct connection_ops *ops, void *userdata, struct connection **ret);
struct connection *connection_free(struct connection *c);
DEFINE_FREEP(struct connection, connection_free)

/* From here it is kept open. With another host: from the next try on. */
void connection_start(struct connection *c, const char *host);
/* Closes it; on_stopped follows, from the loop. */
void connection_stop(struct connection *c);
/* Closes it, to open it again: what it carries is of no use. @condition: a literal, or NULL. */
void connection_fail(struct connection *c, const char *condition, const char *reason);
/* It proved useful: the next loss is waited for no longer than the first. */
void connection_proved(struct connection *c);
struct amqp_driver *connection_driver(struct connection *c); /* NULL: not open */
const char *connection_peer(const struct connection *c);     /* "host:port", borrowed */

/* For the test that walks the table. */
enum connection_state {
    CONNECTION_STOPPED,
    CONNECTION_WAITING, /* for the next try */
    CONNECTION_RESOLVING,
    CONNECTION_OPENING, /* TCP, TLS, AMQP open */
    CONNECTION_OPEN,
    CONNECTION_CLOSING,  /* our close is on its way; then wait for the next try */
    CONNECTION_STOPPING, /* the same; then stopped */
    _CONNECTION_STATE_COUNT,
};
enum connection_event {
    CONNECTION_WANTED,
    CONNECTION_UNWANTED,
    CONNECTION_RESOLVED,
    CONNECTION_UNRESOLVED,
    CONNECTION_OPENED,
    CONNECTION_FAILED, /* the owner says so */
    CONNECTION_LOST,   /* the driver says so */
    CONNECTION_TIMEOUT,
    _CONNECTION_EVENT_COUNT,
};
enum connection_state connection_state(const struct connection *c);
bool connection_table_has(enum connection_state state, enum connection_event event);
