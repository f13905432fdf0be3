/*
 * What this process is: the streams that the front handed over, the MQTT client on each, the
 * messages that they sent and that are not on disk yet. Nothing of it is needed after a restart:
 * clients connect again, sessions are in the store, and what was not acknowledged comes again.
 *
 * A turn: the streams that are readable (a batch of common/io-set) are read once each and their
 * packets are acted upon; then what they published goes out as one batch, and what they are to be
 * told is written, once for each.
 */
#pragma once

#include <sys/queue.h>

#include "batch.h"
#include "connection.h"
#include "detour.h"
#include "inputs.h"
#include "log.h"
#include "plugin.h"
#include "producer.h"

struct listener_config {
    uint64_t max_clients;
    uint64_t inflight_max;
    uint64_t connect_timeout_sec;
    uint64_t keepalive_max_sec;
    uint64_t recheck_sec;
    uint64_t packet_max_bytes;
    uint64_t will_max_bytes;
    uint64_t held_max_bytes;
    uint64_t input_window;
    uint64_t input_ack_timeout_sec;
    uint64_t batch_max_messages;
    uint64_t batch_max_bytes;
};

extern const struct config_item listener_config_items[];
extern const struct bus_handler listener_handlers[];

TAILQ_HEAD(connection_list, connection);
TAILQ_HEAD(ask_list, ask);

/* Requests to one role, a bounded number at a time; the others wait in line. */
struct lane {
    struct bus_peer *peer;
    struct ask_list waiting, open;
    unsigned open_count;
};

enum { CLIENT_LOG_LIMITS = 256 };

struct listener {
    struct plugin *plugin;
    const struct listener_config *config;
    struct client_host host;
    bool draining;
    uint64_t acks_until_usec; /* draining */

    sd_event_source *accept_source, *tick_timer, *turn_source, *acks_timer;
    char *read_buffer; /* CONNECTION_READ_BYTES; one for all */
    struct wheel wheel;

    struct connection_list connections, dirty, blocked;
    size_t connection_count;
    uint64_t last_number;
    struct client_map identities; /* of those that are connected */
    size_t held_bytes;            /* read and not eaten yet, over all */

    struct producer *producer;
    struct batch *batches[PRODUCER_WINDOW + 1]; /* all there are: one is gathering */
    struct batch *gathering;
    struct detour detour;
    struct inputs_host inputs;
    bool resuming; /* those that are blocked have their turn */

    /* listener-bus.c */
    struct lane identity, store;
    struct bus_peer *router;
    unsigned notices_open; /* requests that keep the router's directory up to date */
    bool directory_stale;  /* it has to be told all */

    uint64_t bytes_in, bytes_out, taken_over, refused_streams;
    struct log_limit client_log_limits[CLIENT_LOG_LIMITS], accept_limit;
};

int listener_new(struct plugin *plugin, const struct listener_config *config,
                 struct listener **ret);
struct listener *listener_free(struct listener *listener);
DEFINE_FREEP(struct listener, listener_free)

/* For connection.c and listener-bus.c: */
void listener_begin(struct listener *l); /* a turn: looks at the clock */
void listener_touch(struct listener *l,
                    struct connection *c); /* it is settled at the end of this turn */
void listener_arm(struct listener *l, struct connection *c); /* its timer */
bool listener_charge(struct listener *l, size_t bytes);      /* false: more than may be held */
void listener_release(struct listener *l, size_t bytes);
void listener_recheck_all(struct listener *l, uint64_t spread_usec);
/* Draining: a module's acknowledgements of what it has are waited for, for a while. */
bool listener_awaits_acks(const struct listener *l, const struct connection *c);
void listener_take_over(struct listener *l, struct connection *older, const char *newer_address);

/* listener-bus.c */
int listener_bus_open(struct listener *l);
void listener_bus_close(struct listener *l);
void listener_bus_authenticate(struct listener *l, struct connection *c, bool recheck);
void listener_bus_load_session(struct listener *l, struct connection *c);
void listener_bus_save_session(struct listener *l, struct connection *c, const struct span *record);
void listener_bus_forget(struct listener *l,
                         struct connection *c); /* nobody is there to be told the answers */
void listener_bus_connected(struct listener *l, const struct connection *c);
void listener_bus_disconnected(struct listener *l, const struct connection *c);
void listener_bus_tick(struct listener *l);           /* what could not be sent */
bool listener_bus_told_all(const struct listener *l); /* to the router, if that is there */
