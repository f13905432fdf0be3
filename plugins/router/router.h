/*
 * The router: listeners publish to it, it decides by the routes in force which queues of store a
 * message goes to, and it knows which listener holds which client. It keeps nothing: a batch that
 * it had when it died is sent again by its listener, under the same producer and sequence.
 */
#pragma once

#include "arena.h"
#include "deployment.h"
#include "directory.h"
#include "plugin.h"

struct router_config {
    char *routes_file;
};
extern const struct config_item router_config_items[];
plugin_check_fn router_config_check_files;

struct router {
    struct plugin *plugin;
    struct bus_peer *store;
    struct deployment *deployment;
    struct directory *directory;
    struct arena *arena; /* of the batch that is being passed on */
    uint64_t received, unrouted;
};

int router_new(struct plugin *plugin, const struct router_config *config, struct router **ret);
struct router *router_free(struct router *router);
DEFINE_FREEP(struct router, router_free)

/* One Publish becomes one Append under the same producer and sequence. Sent on; @call is
 * answered with the store's answer. Consumes @call. */
int router_pass_on_take(struct router *router, struct bus_call *call, const Bus__Publish *publish);

extern const struct bus_handler router_handlers[];
