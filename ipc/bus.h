/*
 * The bus: requests and answers between roles over Unix stream sockets, RUN_DIR/bus/<role>.ipc; announcements on
 * <role>.pub.ipc. One thread, under sd-event.
 *
 * A request waits while its peer is away and is sent again, in order, when the peer is back, until its deadline. So a
 * request may arrive twice, and every request must be idempotent.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "bus.pb-c.h"
#include "mem.h"
#include "peer.h"

#define STATUS_UNSET        BUS__STATUS__STATUS_UNSET
#define STATUS_DONE         BUS__STATUS__STATUS_DONE
#define STATUS_BUSY         BUS__STATUS__STATUS_BUSY
#define STATUS_UNAVAILABLE  BUS__STATUS__STATUS_UNAVAILABLE
#define STATUS_UNSUPPORTED  BUS__STATUS__STATUS_UNSUPPORTED
#define STATUS_REFUSED      BUS__STATUS__STATUS_REFUSED
#define STATUS_INVALID      BUS__STATUS__STATUS_INVALID
#define STATUS_NOT_FOUND    BUS__STATUS__STATUS_NOT_FOUND
#define STATUS_CONFLICT     BUS__STATUS__STATUS_CONFLICT
#define STATUS_OUT_OF_ORDER BUS__STATUS__STATUS_OUT_OF_ORDER
#define STATUS_LEASE_LOST   BUS__STATUS__STATUS_LEASE_LOST
#define STATUS_FULL         BUS__STATUS__STATUS_FULL
#define STATUS_FAILED       BUS__STATUS__STATUS_FAILED

enum {
    BUS_PROTOCOL = 1,
    BUS_E_BUSY = 1,       /* the window towards the peer is full */
    BUS_WINDOW_MAX = 32,  /* requests towards one peer */
    BUS_POLLS_MAX = 1024, /* long polls, which are beside that window */
    BUS_MESSAGE_BYTES_MAX =
        8 << 20, /* larger ones are refused when sent, and cut the peer when received */
};
#define BUS_FOREVER UINT64_MAX /* a deadline that never comes */

struct bus;
struct bus_peer;
struct bus_request;
struct bus_subscription;

/* One request that came in. Answered exactly once; whoever answers, consumes it. */
struct bus_call;

/* @in is borrowed until the handler returns (it lives in an arena). The handler answers, or keeps @call
 * (bus_call_keep) and answers later. Returning with neither ends the process: a caller would wait for ever.
 * A negative return ends the process. */
typedef int bus_handler_fn(struct bus_call *call, const Bus__Envelope *in, void *userdata);

struct bus_handler {
    Bus__Envelope__BodyCase body;
    uint64_t peers;     /* PEER_*: who may; others are answered REFUSED and logged */
    bus_handler_fn *fn; /* NULL ends the table */
};

/* Runs once: with the answer (borrowed until it returns; its status may be an error), or with NULL when the deadline passed. */
typedef void bus_answer_fn(const Bus__Envelope *answer, void *userdata);

/* An announcement came; or, with @in NULL, the publisher was (re)connected: read the state by a request now. */
typedef void bus_announce_fn(const Bus__Envelope *in, void *userdata);

/* How the bus asks who a process is. Returns PEER_* of the pid, or 0: it has no business here. */
typedef uint64_t bus_who_fn(int64_t pid, uint32_t uid, void *userdata);

/* @role names this process in envelopes, and its address if it listens. */
int bus_new(sd_event *event, const char *bus_dir, const char *role, uint64_t generation,
            bus_who_fn *who, void *userdata, struct bus **ret);
struct bus *bus_free(struct bus *bus);

/* From here peers may call. The address is taken over from a dead predecessor. Errors: -EADDRINUSE and other errnos. */
int bus_listen(struct bus *bus, const struct bus_handler *handlers, void *userdata);

/* A role to send requests to; dials in the background and for ever. Owned by the bus. The same role gives the same peer. */
struct bus_peer *bus_peer(struct bus *bus, const char *role);
bool bus_peer_is_up(const struct bus_peer *peer);
unsigned bus_peer_outstanding(const struct bus_peer *peer);

/* Sends one request; @request is packed at once and stays the caller's (id, caller and so on are filled in here).
 * @deadline_usec: from now; BUS_FOREVER to wait however long the peer is away.
 * Returns BUS_E_BUSY when the window is full; @on_answer then never runs. -EMSGSIZE: larger than BUS_MESSAGE_BYTES_MAX.
 * @ret_request may be NULL. */
int bus_request(struct bus_peer *peer, Bus__Envelope *request, uint64_t deadline_usec,
                bus_answer_fn *on_answer, void *userdata, struct bus_request **ret_request);
/* A request that the peer answers when there is something to tell (bus_call_keep_poll()). It waits as long as it takes, and
 * takes no place from those that are work. BUS_E_BUSY: there are BUS_POLLS_MAX. */
int bus_poll(struct bus_peer *peer, Bus__Envelope *request, bus_answer_fn *on_answer,
             void *userdata, struct bus_request **ret_request);
/* Forgets it; @on_answer never runs. NULL is fine. Not after @on_answer ran. */
struct bus_request *bus_request_cancel(struct bus_request *request);

/* Runs from the loop whenever the window of @peer has room again after BUS_E_BUSY. There is one for each peer. */
void bus_peer_on_room(struct bus_peer *peer, void (*fn)(void *userdata), void *userdata);

/* Answers; each consumes @call. Without body: */
int bus_answer(struct bus_call *call, Bus__Status status);
int bus_answer_error(struct bus_call *call, Bus__Status status, const char *format, ...)
    _printf_(3, 4);
/* With a body: @answer's body is packed at once and stays the caller's; its status is set to DONE if it is unset. */
int bus_answer_with(struct bus_call *call, Bus__Envelope *answer);
/* The handler will answer later. */
struct bus_call *bus_call_keep(struct bus_call *call);
/* The same of a long poll: the caller may wait for many things, and is still heard. */
struct bus_call *bus_call_keep_poll(struct bus_call *call);
/* What is kept is answered nobody: the caller is gone, or the process ends. */
struct bus_call *bus_call_drop(struct bus_call *call);
uint64_t bus_call_peer(const struct bus_call *call);       /* PEER_* of the caller */
uint64_t bus_call_generation(const struct bus_call *call); /* of the caller */
const char *bus_call_caller(const struct bus_call *call);  /* role, as it says itself; for logs */
uint64_t
bus_call_id(const struct bus_call *call); /* the caller's request id; the same when sent again */
uint64_t
bus_call_connection(const struct bus_call *call); /* differs when the caller connected anew */

/* Tells every subscriber; nobody may rely on having heard it. Packed at once. */
int bus_announce(struct bus *bus, Bus__Envelope *announcement);
/* Follows the announcements of @role, for ever. Owned by the bus. */
int bus_subscribe(struct bus *bus, const char *role, bus_announce_fn *fn, void *userdata);

struct bus_counters {
    uint64_t requests_sent, requests_received, answers_sent, answers_received, resent, refused,
        bytes_sent, bytes_received;
};
const struct bus_counters *bus_counters(const struct bus *bus);

#define ENVELOPE(case_, field, value)                                                              \
    (Bus__Envelope)                                                                                \
    {                                                                                              \
        .base = PROTOBUF_C_MESSAGE_INIT(&bus__envelope__descriptor), .caller = (char *)"",         \
        .error = (char *)"", .body_case = BUS__ENVELOPE__BODY_##case_, .field = (value)            \
    }
