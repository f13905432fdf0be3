/*
 * The local hub: a registry behind REST, telemetry taken over AMQP, and the operator's requests on the bus. It keeps the
 * registry over a restart; telemetry and being offline it forgets.
 */
#pragma once

#include "amqp.h"
#include "authorize.h"
#include "hub-config.h"
#include "plugin.h"
#include "registry.h"
#include "rest-http.h"
#include "telemetry.h"

struct hub_watch;

struct hub {
    struct plugin *plugin;
    const struct hub_config *config; /* borrowed */
    struct registry *registry;
    struct telemetry *telemetry;
    struct authority authority;
    struct rest_http *rest;
    struct amqp_server *amqp;
    bool online;
    struct arena *arena;       /* for rendering */
    struct hub_watch *watches; /* who waits for telemetry */
    unsigned watch_count;
    sd_event_source *watches_soon; /* telemetry came in this turn */
};

int hub_new(struct plugin *plugin, const struct hub_config *config, struct hub **ret);
struct hub *hub_free(struct hub *hub);
DEFINE_FREEP(struct hub, hub_free)
void hub_set_online(struct hub *hub, bool online);

/* ---- hub-bus.c ---- */

extern const struct bus_handler hub_handlers[];

/* ---- hub-watch.c ---- */

/* Answers HubMonitor: at once when there is something, else when there is, or after the time it gave. */
int hub_on_monitor(struct bus_call *call, const Bus__Envelope *in, void *userdata);
int hub_watches_start(struct hub *hub);
void hub_watches_free(struct hub *hub);
/* Something came in: soon, once for many. */
void hub_watches_wake(struct hub *hub);
