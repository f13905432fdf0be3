/* The user name of a CONNECT (mqtt.md §3.2):
 * "HUB/D[/M]/?api-version=…&DeviceClientType=…&model-id=…", and older spellings. */
#pragma once

#include "arena.h"
#include "span.h"

struct username {
    const char *device_id;    /* valid ids; in the arena */
    const char *module_id;    /* "": a device */
    const char *product_info; /* DeviceClientType, decoded; "" when absent */
    const char *model_id;     /* "" when absent */
};

enum { USERNAME_E_MALFORMED = 1 };
int username_parse(struct span text, struct arena *arena, struct username *ret,
                   struct parse_error *ret_error);
