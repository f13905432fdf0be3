/*
 * The hub's AMQPS side: devices and modules that connect directly, and edges that carry many identities over one
 * connection. Telemetry is taken; what else an SDK opens is accepted, so that it works, and gets nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "authorize.h"
#include "plugin.h"
#include "registry.h"
#include "telemetry.h"

struct amqp_server;

struct amqp_server_config {
    const char *chain_pem, *key_pem;
    const struct authority *authority; /* borrowed, as all that follows */
    struct registry *registry;
    struct telemetry *telemetry;
    void (*on_telemetry)(void *userdata); /* once a turn in which some was taken */
    void *userdata;
};

/* Accepts on the inherited socket `amqps`. @config is copied. */
int amqp_server_new(struct plugin *plugin, const struct amqp_server_config *config,
                    struct amqp_server **ret);
/* Ends all connections without a word: told of a forced close, the Node SDK waits 45 s for an answer to its detaches and then
 * gives up, while a connection that is gone it opens anew at once. */
struct amqp_server *amqp_server_free(struct amqp_server *server);
DEFINE_FREEP(struct amqp_server, amqp_server_free)

/* Resets every connection, and each new one; until it is online again. */
void amqp_server_set_offline(struct amqp_server *server, bool offline);
/* The registry changed: soon, every token is judged again, and who may not be connected any more is detached. */
void amqp_server_recheck(struct amqp_server *server);

struct amqp_server_counters {
    uint64_t connections, connections_total;
    uint64_t identities, links; /* open now; `$cbs` links not counted */
    uint64_t tokens_refused, links_refused, messages_refused;
    uint64_t bytes_in, bytes_out; /* AMQP, without TLS */
};
void amqp_server_count(const struct amqp_server *server, struct amqp_server_counters *ret);
