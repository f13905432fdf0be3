/*
 * One identity on the connection: its token, its session, its telemetry sender. A failure is its own: it pauses, gives its
 * messages back to the store and comes again later, while the others go on.
 */
#pragma once

#include <proton/engine.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "backoff.h"
#include "bus.h"
#include "cbs.h"
#include "classification.h"
#include "flight.h"

struct upstream;

enum identity_state {
    IDENTITY_CLOSED, /* nothing of it is on the connection */
    IDENTITY_CHAIN,  /* identity is asked how we may act for it */
    IDENTITY_TOKEN,  /* put-token is open */
    IDENTITY_ATTACHING,
    IDENTITY_OPEN,
    IDENTITY_SETTLING, /* nothing new is sent, what is in flight is waited for; then a pause */
    IDENTITY_PAUSED,   /* its messages are the store's */
    _IDENTITY_STATE_COUNT,
};
enum identity_event {
    IDENTITY_WORK, /* there is something to send, and a connection */
    IDENTITY_CHAIN_KNOWN,
    IDENTITY_GONE, /* neither the hub nor the scope knows it */
    IDENTITY_TOKEN_TAKEN,
    IDENTITY_ATTACHED,
    IDENTITY_FAILED,   /* the step that is under way, or the link; `failure` says how */
    IDENTITY_RETURNED, /* the hub wants a message later; `failure` says how */
    IDENTITY_SETTLED,  /* nothing is in flight */
    IDENTITY_TIMEOUT,
    IDENTITY_OFFLINE, /* the connection is gone, and all on it */
    _IDENTITY_EVENT_COUNT,
};

/* Why it pauses. */
struct identity_failure {
    enum verdict verdict;
    uint64_t wait_max_usec;
    char reason[192];
};

enum identity_list_kind { IDENTITY_LIST_NONE, IDENTITY_LIST_WAITING, IDENTITY_LIST_READY };

struct identity_link {
    struct upstream *upstream;
    char *name;                  /* "D" or "D/M": the partition */
    char *device_id, *module_id; /* module_id empty: a device */
    struct flight_partition *messages;
    enum identity_state state;
    bool is_edge_hub;

    pn_link_t *link; /* NULL: none */
    char *auth_chain;
    struct bus_request *chain_request;
    struct cbs_request *token_request, *renewal;
    uint64_t token_connection; /* the number of the connection that has a token of it */

    sd_event_source *timer; /* of the state */
    uint64_t progress_usec; /* when something was last sent or settled, or work came */
    bool busy;              /* the timer watches over work, not over idleness */
    struct backoff backoff;
    struct identity_failure failure;
    bool told;                 /* the log knows that it fails */
    bool denied;               /* the hub does not know it; cleared when it took something */
    bool denied_since_refresh; /* and the scope was looked at again after that */
    bool gone;                 /* so it exists nowhere: its messages are dropped */

    /* upstream-bus.c: what the store is to know, whether it must be told, whether it is being told */
    bool park_wanted, park_dirty, park_open;
    TAILQ_ENTRY(identity_link) park_link;

    enum identity_list_kind list;
    TAILQ_ENTRY(identity_link) list_link;
    TAILQ_ENTRY(identity_link) all_link;
};
TAILQ_HEAD(identity_list, identity_link);

int identity_link_new(struct upstream *upstream, const char *name,
                      struct flight_partition *messages, bool is_edge_hub,
                      struct identity_link **ret);
struct identity_link *identity_link_free(struct identity_link *i);
DEFINE_FREEP(struct identity_link, identity_link_free)

void identity_link_feed(struct identity_link *i, enum identity_event event);
void identity_link_fail(struct identity_link *i, enum identity_event event, enum verdict verdict,
                        uint64_t wait_max_usec, const char *format, ...) _printf_(5, 6);

/* Sends what credit allows, at most @messages_max; returns bytes. Then it is in the ready list if there is more. */
size_t identity_link_send(struct identity_link *i, unsigned messages_max);
/* Events of its link and its deliveries. */
void identity_link_take_event(struct identity_link *i, pn_event_t *event);
/* The token of the connection is a new one. */
void identity_link_renew_token(struct identity_link *i);
/* Try now rather than when the pause is over. */
void identity_link_resume(struct identity_link *i);

bool identity_table_has(enum identity_state state, enum identity_event event);
