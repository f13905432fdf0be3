/*
 * The routes in force: which endpoints a message goes to. A set is built whole, and replaced whole
 * between two messages. Pure, but for the set's working memory: one thread at a time.
 *
 * A route is found by the source of a message, through a table: what others look at costs nothing.
 * Conditions of those that are left share what they look up. What a message may cost is bounded, by
 * what route-parser.h, route-body.h and route-functions.h say.
 */
#pragma once

#include "route-parser.h"

#include "mem.h"
#include "route-message.h"

enum {
    ROUTE_PRIORITY_DEFAULT = 2000000000,
    ROUTES_MAX = 4096, /* of a set */
    ENDPOINTS_MAX =
        512, /* of a set, half of what the store holds: those of the set before wait there */
};

/* Where a route delivers; its queue is named after it. */
struct endpoint {
    enum endpoint_kind kind;
    const char *queue; /* "$upstream", "modules/M/inputs/I" */
};

struct route {
    const char *name;
    const char *text;
    struct endpoint endpoint;
    uint32_t priority; /* 0 first */
    int64_t ttl_sec;   /* negative: never expires */
};

struct routes;

struct routes *routes_new(void);
/* What a gateway does before a deployment says otherwise: FROM /messages/[*] INTO $upstream. */
struct routes *routes_new_default(void);
struct routes *routes_free(struct routes *routes);
DEFINE_FREEP(struct routes, routes_free)

/* Compiles the route of text @text ("FROM … [WHERE …] INTO …"). 0, or ROUTE_E_INVALID. */
int routes_add(struct routes *routes, const char *name, struct span text, uint32_t priority,
               int64_t ttl_sec, struct parse_error *ret_error);
size_t routes_count(const struct routes *routes);
size_t routes_endpoints(const struct routes *routes);                  /* different ones */
const struct route *routes_get(const struct routes *routes, size_t i); /* as they were added */

/* The source of a telemetry message: "/messages/", "/messages/modules/M/",
 * "/messages/modules/M/outputs/O/". Writes at most @size bytes and gives the whole length, as
 * snprintf does. */
size_t routes_source(const char *module_id, const char *output_name, char *text, size_t size);

/* The routes that want it, one for each endpoint: of several the one with the best priority.
 * Returns how many; they are borrowed from the set, the list until the next call. */
size_t routes_match(struct routes *routes, struct route_message *message,
                    const struct route *const **ret_matches);
/* What the condition of the first route says of a message, whatever its source; true when it has
 * none. */
enum route_verdict routes_judge(struct routes *routes, struct route_message *message);
/* Messages on which conditions were given up, for they would have cost more than they may. */
uint64_t routes_given_up(const struct routes *routes);
