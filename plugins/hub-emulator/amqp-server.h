/* What the amqp-*.c share. */
#pragma once

#include <proton/engine.h>

#include "amqp-driver.h"
#include "amqp-message.h"
#include "amqp.h"
#include "arena.h"
#include "buf.h"

enum {
    AMQP_TOKENS_MAX = 1000, /* on one connection */
    AMQP_CREDIT = 1000,     /* for a client's messages */
    AMQP_CREDIT_LOW = 500,  /* topped up below this */
    AMQP_CBS_CREDIT = 100,
    AMQP_TRANSFER_BYTES_MAX = 1 << 20, /* max-message-size of every link */
    AMQP_BATCH_BYTES_MAX = 600 << 10,
};

/* From the client's point of view. One of each for an identity. */
enum link_kind {
    LINK_EVENTS_SEND,
    LINK_EVENTS_RECEIVE, /* inputs of a module */
    LINK_DEVICEBOUND_RECEIVE,
    LINK_METHODS_SEND,
    LINK_METHODS_RECEIVE,
    LINK_TWIN_SEND,
    LINK_TWIN_RECEIVE,
    _LINK_KIND_COUNT,
    LINK_CBS_SEND, /* these belong to the connection */
    LINK_CBS_RECEIVE,
};

/* A link that is open on our side. The context of its pn_link_t. */
struct amqp_link {
    enum link_kind kind;
    struct amqp_client *client; /* NULL: $cbs */
    pn_link_t *pn;
};

/* One identity on one connection: its token, and the links it opened. */
struct amqp_client {
    struct amqp_connection *connection;
    struct amqp_client *next; /* of the connection */
    struct grant grant;
    char *token, *name; /* of the put-token, to be judged again */
    struct telemetry_source *source;
    struct amqp_link *links[_LINK_KIND_COUNT];
    unsigned link_count;
};

struct amqp_connection {
    struct amqp_server *server;
    struct amqp_connection *previous, *next;
    int fd; /* the stream's */
    struct amqp_driver *driver;
    struct amqp_client *clients;
    void *clients_tree; /* tsearch, by identity */
    unsigned client_count;
    struct amqp_link *cbs_receiver; /* the newest; answers to put-token go there */
    uint32_t next_tag;
};

struct amqp_server {
    struct plugin *plugin;
    struct amqp_server_config config;
    SSL_CTX *tls;
    struct acceptor *acceptor;
    struct amqp_connection *connections;
    void *
        attached_tree; /* tsearch: the client that has an identity's links now, whichever connection */
    sd_event_source *recheck_timer;
    sd_event_source *recheck_soon;
    bool got_telemetry; /* in this turn */
    struct log_limit refused_limit;
    struct buf scratch; /* one transfer at a time */
    struct arena *arena;
    struct amqp_server_counters counters;
};

/* ---- amqp.c ---- */

struct amqp_client *amqp_client_find(const struct amqp_connection *connection,
                                     const char *device_id, const char *module_id);
/* The identity of @grant (taken) has a token now, or a newer one. NULL: too many on this connection. */
struct amqp_client *amqp_client_put(struct amqp_connection *connection, struct grant *grant,
                                    struct span token, struct span name);
/* Detaches its links with @condition and forgets its token. */
void amqp_client_drop(struct amqp_client *client, const char *condition, const char *description);
/* Strangers cause these at will: one line in a while. @address: of a link; NULL: a token was. */
void amqp_server_log_refused(struct amqp_server *server, const char *address, const char *reason);
/* The client has links now, or none any more: who has them for the whole server. */
void amqp_client_attached(struct amqp_client *client);
void amqp_client_detached(struct amqp_client *client);
/* Another connection's client of the same identity that has links; NULL: none. */
struct amqp_client *amqp_client_rival(const struct amqp_client *client);

/* ---- amqp-cbs.c ---- */

void cbs_on_message(struct amqp_connection *connection, pn_delivery_t *delivery,
                    struct span message);
/* Sends one message, settled; nothing when the client does not read what it is sent. */
void amqp_link_send(struct amqp_connection *connection, struct amqp_link *link,
                    struct span message);

/* ---- amqp-links.c ---- */

/* _LINK_KIND_COUNT: no client may open that. */
enum link_kind link_kind_of(const struct amqp_address *address, bool client_sends);
void links_on_attach(struct amqp_connection *connection, pn_link_t *pn);
void links_on_remote_close(struct amqp_connection *connection, pn_link_t *pn, bool closed);
void links_on_session_close(struct amqp_connection *connection, pn_session_t *session);
/* Closes it from our side; the client's answer frees it. */
void amqp_link_refuse(pn_link_t *pn, const char *condition, const char *description);
void amqp_link_close(struct amqp_link *link, const char *condition, const char *description);
/* Forgets our part of it. */
void amqp_link_gone(struct amqp_link *link);
/* The condition an outcome of authorize.h is told by. */
const char *amqp_condition_of(int outcome);
void amqp_set_condition(pn_condition_t *condition, const char *name, const char *description);

/* ---- amqp-deliveries.c ---- */

void deliveries_on_event(struct amqp_connection *connection, pn_delivery_t *delivery);
