/* One full listing of the scope: page after page, and the children of child gateways, breadth first
 * (identity.md §9.2). */
#pragma once

#include "hub-client.h"
#include "scope.h"

struct scope_listing;

struct scope_listing_result {
    enum hub_outcome outcome;
    struct scope *scope; /* the handler takes it; NULL unless HUB_DONE */
    size_t skipped;      /* records that made no sense */
    int64_t date_sec;    /* the hub's clock; 0: unknown */
    const char *error;   /* borrowed, when not HUB_DONE */
};
/* Runs once. The listing is over; the owner frees it, there or later. */
typedef void scope_listing_fn(struct scope_listing_result *result, void *userdata);

struct scope_listing *scope_listing_start(struct hub_client *hub, const char *edge_id,
                                          scope_listing_fn *fn, void *userdata);
/* Before the end: it is given up, and the handler never runs. */
struct scope_listing *scope_listing_free(struct scope_listing *listing);
DEFINE_FREEP(struct scope_listing, scope_listing_free)
