/* The desired properties of `$edgeHub` (routing.md §1): the routes of a deployment and what
 * holds for all of them. Taken whole, or refused whole with every reason. */
#pragma once

#include "routes.h"

enum {
    ROUTE_CONFIG_BYTES_MAX = 4 << 20,
    ROUTE_PROBLEMS_MAX = 50, /* reasons that are told; of more there is no use */
};

struct route_config {
    struct routes *routes; /* their ttl_sec is what holds for them, the one for all included */
    int64_t ttl_sec;   /* for routes that say none: negative never expires, 0 always has expired */
    int64_t max_bytes; /* storeLimits.maxSizeBytes; 0: not said */
    int64_t version;   /* $version; 0: not said */
};

/* Each in the words of lastDesiredStatus.description. */
struct route_problems {
    char **texts;
    size_t count, capacity;
};

/* @json: the properties, as an object. 0, or ROUTE_E_INVALID with at least one problem. */
int route_config_parse(struct span json, struct route_config *ret_config,
                       struct route_problems *ret_problems);
void route_config_done(struct route_config *config);
void route_problems_done(struct route_problems *problems);
