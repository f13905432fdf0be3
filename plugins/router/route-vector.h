/* Cases in the form of tests/data/routing-vectors.json (routing.md §10): a route or a condition,
 * a message, and what comes out. */
#pragma once

#include "routes.h"

struct json_t;

struct route_outcome {
    bool is_refused; /* the route; @error says why */
    struct parse_error error;
    bool is_routed;
    enum route_verdict verdict; /* of the condition */
    char *queue;                /* of the route's endpoint; NULL when refused */
};

/* 0, or ROUTE_E_INVALID when it is no such case: @ret_expected then says what is missing. */
int route_vector_run(const struct json_t *vector, struct route_outcome *ret_outcome,
                     const char **ret_expected);
void route_outcome_done(struct route_outcome *outcome);
