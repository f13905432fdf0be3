/*
 * One MQTT client: its state table. It does no I/O and knows no clock: bytes come in by
 * client_feed(), answers are appended to client.out, and all else is asked of its host by
 * client_ops, whose answers come back as events.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ack-queue.h"
#include "arena.h"
#include "buf.h"
#include "message.pb-c.h"
#include "session.h"
#include "span.h"

enum client_state {
    CLIENT_WAITING, /* for CONNECT */
    CLIENT_AUTHENTICATING,
    CLIENT_LOADING, /* its session, or removing it */
    CLIENT_CONNECTED,
    CLIENT_SAVING,  /* its session: the SUBACK waits for the disk */
    CLIENT_LEAVING, /* it is gone; its Will waits for room */
    CLIENT_CLOSED,
    _CLIENT_STATE_COUNT
};

enum client_event {
    CLIENT_GOT_CONNECT,
    CLIENT_GOT_PUBLISH,
    CLIENT_GOT_ACK, /* PUBACK, PUBREC, PUBCOMP */
    CLIENT_GOT_PUBREL,
    CLIENT_GOT_SUBSCRIBE,
    CLIENT_GOT_UNSUBSCRIBE,
    CLIENT_GOT_PINGREQ,
    CLIENT_GOT_DISCONNECT,
    CLIENT_GOT_GARBAGE,
    CLIENT_AUTHENTICATED,
    CLIENT_LOADED,
    CLIENT_SAVED,
    CLIENT_COMMITTED,
    CLIENT_ROOM,
    CLIENT_TIME,
    CLIENT_STREAM_ENDED,
    CLIENT_TAKEN_OVER,
    CLIENT_SHUTDOWN,
    _CLIENT_EVENT_COUNT
};

enum client_verdict { CLIENT_ACCEPTED, CLIENT_REFUSED, CLIENT_UNDECIDED };

/* How it ended: what there is to log of it. */
enum client_end {
    CLIENT_END_QUIET,     /* it left, or is here anew; or the listener stops */
    CLIENT_END_CLOSED,    /* by us: silent, too slow, or we cannot go on with it */
    CLIENT_END_REFUSED,   /* at CONNECT, or its credential since */
    CLIENT_END_VIOLATION, /* it broke the protocol */
};

struct client;

/* None of these frees the client, and none answers from within itself. */
struct client_ops {
    /* client_on_authenticated() follows, unless it ended before. */
    void (*authenticate)(struct client *client, bool recheck);
    /* client_on_session_loaded() follows. */
    void (*load_session)(struct client *client);
    /* client_on_session_saved() follows. @record is borrowed; NULL: remove it. */
    void (*save_session)(struct client *client, const struct span *record);
    /* May it be one client more? */
    bool (*admit)(struct client *client);
    /* It has its CONNACK 0: it is the connection of its identity now, and an older one goes. */
    void (*connected)(struct client *client);
    /* Takes a message to where it is stored; packed at once. False: no room; client_on_room()
     * follows.
     * @acknowledged: it is counted in client_on_committed() when it is on disk. */
    bool (*publish)(struct client *client, const Bus__Message *message, bool acknowledged);
    /* The module wants, or no longer wants, what comes for its inputs. */
    void (*inputs)(struct client *client, bool wanted);
    /* PUBACK for what client_send() gave this packet identifier to; or for nothing at all. */
    void (*acknowledged)(struct client *client, uint16_t packet_id);
    /* A publish was acknowledged, if it asked for that, and goes nowhere. */
    void (*dropped)(struct client *client, const char *reason);
    void (*output)(struct client *client); /* client->out has more */
    /* Once. What is in client->out is still to be written, then the stream is to be closed. */
    void (*ended)(struct client *client, enum client_end how, const char *reason);
};

struct client_limits {
    size_t connect_bytes_max; /* of the first packet: from whom it is, is not known yet */
    size_t packet_bytes_max;
    size_t will_bytes_max;
    uint32_t inflight_max;         /* unacknowledged publishes of one client */
    uint64_t connect_timeout_usec; /* until CONNECT is there */
    uint64_t login_timeout_usec;   /* from CONNECT until CONNACK */
    uint64_t keepalive_max_usec;
    uint64_t recheck_usec; /* between two looks at the credential */
};

struct client_counters {
    uint64_t connects, refused, violations, oversize, expired;
    uint64_t messages, message_bytes, wills;
    uint64_t dropped_malformed, dropped_too_large, dropped_unknown;
};

/* What all clients of a process share. */
struct client_host {
    const struct client_ops *ops;
    struct client_limits limits;
    struct arena *scratch; /* for one packet */
    bool acks_only;        /* draining: nothing but PUBACK is eaten any more */
    uint64_t now_usec;     /* CLOCK_MONOTONIC, of this turn of the loop */
    int64_t utc_sec;
    struct client_counters counters;
};

struct will;

struct client {
    struct client_host *host;
    enum client_state state;
    bool has_certificate;
    bool clean_session;
    bool session_stored;     /* there is a record of it */
    bool blocked;            /* a publish waits for room */
    bool is_edge_module;     /* by identity's word, set with its verdict: it has inputs here */
    bool inputs_wanted;      /* what the host was told last */
    uint16_t last_packet_id; /* of ours, but for inputs: */
    uint16_t last_input_id;
    struct ack_queue acks;
    char *device_id; /* NULL until CONNECT */
    char *module_id; /* "": a device */
    char *product_info;
    char *model_id; /* NULL: none */
    char *token;    /* NULL: its certificate is its credential */
    struct will *will;
    struct session session;
    struct buf held;        /* the SUBACK or UNSUBACK that waits for the disk */
    struct buf out;         /* for the client; whoever writes it eats from it */
    uint64_t deadline_usec; /* of CONNECT, then of CONNACK */
    uint64_t keepalive_usec;
    uint64_t heard_usec;
    uint64_t recheck_usec; /* when, next */
};

/* @spread_usec: of the first recheck, 0 to limits.recheck_usec, so that not all clients are checked
 * at once. */
void client_init(struct client *client, struct client_host *host, bool has_certificate,
                 uint64_t spread_usec);
void client_done(struct client *client);

/* Eats the packets that are whole off the front of @bytes, as long as the client takes input. */
void client_feed(struct client *client, struct span *bytes);
/* False: what comes must wait, in the socket if it can. */
bool client_takes_input(const struct client *client);

/* @reason: for the log. */
void client_on_authenticated(struct client *client, enum client_verdict verdict,
                             const char *reason);
/* @record NULL: there is none. @ok false: the store could not be asked. */
void client_on_session_loaded(struct client *client, bool ok, const struct span *record);
void client_on_session_saved(struct client *client, bool ok);
void client_on_committed(struct client *client,
                         unsigned count); /* its oldest so many acknowledged publishes */
void client_on_room(struct client *client);
void client_on_time(struct client *client);
void client_on_stream_ended(struct client *client, enum client_end how, const char *reason);
void client_on_taken_over(struct client *client);
void client_on_shutdown(struct client *client);

/* A message for an input. It goes out with the QoS that was granted; CLIENT_E_UNWANTED: no
 * subscription matches. @ret_packet_id: 0 for QoS 0, for which no PUBACK comes. Connected clients
 * only. */
enum { CLIENT_E_UNWANTED = 1 };
int client_send(struct client *client, struct span topic, struct span payload,
                uint16_t *ret_packet_id);
/* The same once more: it was not acknowledged. */
void client_send_again(struct client *client, struct span topic, struct span payload,
                       uint16_t packet_id);
/* May it be sent to, and its PUBACK be heard? */
bool client_is_reachable(const struct client *client);

/* The credential is to be looked at again at this time, if that is sooner. */
void client_recheck_at(struct client *client, uint64_t usec);
/* When client_on_time() has something to do next. */
uint64_t client_next_usec(const struct client *client);

/* Is there an action in this cell of the table? */
bool client_table_has(enum client_state state, enum client_event event);
