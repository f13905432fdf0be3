/* The routes in force: which endpoints a message goes to. Pure. A set is built whole, is const, and is replaced whole. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"
#include "span.h"

enum { ROUTE_PRIORITY_DEFAULT = 2000000000 };

enum endpoint_kind { ENDPOINT_UPSTREAM, ENDPOINT_INPUT };

/* Where a route delivers; its queue is named after it. */
struct endpoint {
    enum endpoint_kind kind;
    char *queue; /* "$upstream", "modules/M/inputs/I" */
};

struct route {
    char *name;
    char *source; /* ends in one slash; a message's source begins with it, without regard to case */
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

void routes_add(struct routes *routes, const char *name, const char *source,
                enum endpoint_kind kind, const char *queue, uint32_t priority, int64_t ttl_sec);
size_t routes_count(const struct routes *routes);

/* The source of a telemetry message: "/messages/", "/messages/modules/M/", "/messages/modules/M/outputs/O/". Writes at most
 * @size bytes and gives the whole length, as snprintf does. */
size_t routes_source(const char *module_id, const char *output_name, char *text, size_t size);

enum { ROUTES_TARGETS_MAX = 64 };

/* The routes that want it, one for each endpoint: of several the one with the best priority. Returns how many; they are
 * borrowed from the set. */
size_t routes_match(const struct routes *routes, struct span source,
                    const struct route *ret_matches[ROUTES_TARGETS_MAX]);
