/* A message as conditions see it: decoded when the first of them asks for a property, its body
 * parsed when one asks for that, and each only once. */
#pragma once

#include "arena.h"
#include "message.pb-c.h"
#include "route-value.h"

struct json_t;

struct route_message {
    /* The caller's; all borrowed. */
    struct span source;          /* as routes_source() writes it */
    struct span encoded;         /* bus.Message */
    const Bus__Message *decoded; /* instead of @encoded, where it is at hand */
    /* Made on demand, in an arena: between route_message_begin() and route_message_end(). */
    struct arena *arena;
    bool was_decoded;
    struct json_t *body;
    bool body_was_read;
};

void route_message_begin(struct route_message *message, struct arena *arena);
void route_message_end(struct route_message *message);

/* Names without regard to case. Undefined when there is none. @ret_looked_at: properties, for
 * the budget. */
struct route_value route_message_application(struct route_message *message, struct span name,
                                             size_t *ret_looked_at);
struct route_value route_message_system(struct route_message *message, struct span name,
                                        size_t *ret_looked_at);
/* NULL: it is not readable. Borrowed. */
const struct json_t *route_message_body(struct route_message *message);
