/*
 * The upstream: fetches what the store has for the hub, sends it on the senders' own identities over one connection, and
 * acknowledges to the store what the hub has settled. It keeps nothing: what was not acknowledged is fetched again.
 */
#pragma once

#include "arena.h"
#include "buf.h"
#include "connection.h"
#include "flight.h"
#include "identity-link.h"
#include "plugin.h"

struct upstream_config {
    char *ca_file;
    uint64_t port;
    int protocol;
    uint64_t window_messages, window_bytes;
    uint64_t idle_usec;
    uint64_t reconnect_min_usec, reconnect_max_usec;
};
extern const struct config_item upstream_config_items[];
int upstream_config_check(struct config_document *d, const void *settings,
                          struct config_error *ret_error);

enum {
    UPSTREAM_TOKENS_MAX = 995, /* on one connection; the hub takes 1000 at most (amqp.md §15.4) */
    UPSTREAM_OPENING_MAX = 16, /* identities that are being opened at a time */
};

/* The token of $edgeHub: it stands for every identity in the scope (amqp.md §15.2). */
struct upstream_token {
    char *text;
    char *hub;       /* in audiences */
    char *gateway;   /* to connect to */
    char *device_id; /* of this edge */
    int64_t expires_sec;
    int64_t life_sec; /* when it was taken */
    uint64_t taken_usec;
};

struct upstream {
    struct plugin *plugin;
    const struct upstream_config *config; /* borrowed from run() */
    struct connection_config connection_config;
    struct connection *connection;
    struct cbs *cbs; /* while the connection is open */
    uint64_t connection_number;
    uint64_t connected_usec;
    unsigned tokens;      /* identities that have one on this connection */
    uint64_t heard_bytes; /* that had come on it at heard_usec */
    uint64_t heard_usec;
    unsigned opening;

    struct flight *flight;
    struct identity_list identities, waiting, ready;
    struct identity_link *edge_hub;
    unsigned open_count, paused_count;
    uint64_t last_tag;
    uint64_t sent;

    bool online; /* $edgeHub is taken on this connection */
    bool told;   /* what the log was told last: */
    bool told_online;
    int64_t since_sec;
    char last_error[256];
    bool draining, drained;
    sd_event_source *drain_timer;

    /* upstream-bus.c */
    struct upstream_token token;
    struct bus_peer *identity, *store;
    struct bus_request *token_request, *fetch_request, *ack_request;
    sd_event_source *token_timer, *fetch_timer, *ack_timer, *park_timer;
    uint64_t fetch_sequence;
    bool superseded; /* a newer process has our lease */
    struct identity_list parks;
    unsigned parks_open, refreshes_open;
    struct arena *arena;
    struct buf scratch;
    struct log_limit fetch_limit, reject_limit, message_limit;
};

int upstream_new(struct plugin *plugin, const struct upstream_config *config,
                 struct upstream **ret);
struct upstream *upstream_free(struct upstream *up);
DEFINE_FREEP(struct upstream, upstream_free)

/* Makes it. NULL: no identity has such a name. */
struct identity_link *upstream_identity(struct upstream *up, const char *name);
/* There is a token, and where to connect to. */
void upstream_on_token(struct upstream *up);
/* One more message was put into its partition. */
void upstream_on_message(struct identity_link *i);
/* Acks were confirmed: somebody may wait for that. */
void upstream_on_confirmed(struct upstream *up);

/* $edgeHub is there: everybody may come. */
void upstream_on_edge_hub_open(struct upstream *up);
/* $edgeHub was refused: without it the connection is of no use. */
void upstream_on_edge_hub_refused(struct upstream *up, const char *reason);
/* One more identity wants a token on this connection. False: it has as many as it may. */
bool upstream_admit_token(struct upstream *up);
/* Nothing moves for an identity. True: nothing at all came for so long, so the connection is dead, and is ended. */
bool upstream_on_hang(struct upstream *up, uint64_t hang_usec);

/* Puts it at the end of a list, out of the one that it was in. */
void identity_list_put(struct identity_link *i, enum identity_list_kind list);
void upstream_open_next(struct upstream *up);
void upstream_send_soon(struct upstream *up);
void upstream_fill_status(struct upstream *up, Bus__UpstreamStatus *status);

/* ---- upstream-bus.c ---- */

extern const struct bus_handler upstream_handlers[];
int upstream_bus_start(struct upstream *up);
void upstream_bus_stop(struct upstream *up);
void upstream_bus_fetch(struct upstream *up); /* if there is room, and none is open */
void upstream_bus_ack(struct upstream *up);   /* what is settled, if none is open */
void upstream_bus_park(struct identity_link *i, bool parked);
int upstream_bus_chain_get(struct identity_link *i); /* 0 or BUS_E_BUSY */
void upstream_bus_scope_refresh(struct identity_link *i);
void upstream_bus_token_again(struct upstream *up); /* the hub did not like it */
void upstream_bus_announce(struct upstream *up);
