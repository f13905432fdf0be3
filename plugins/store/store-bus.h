/* The store as a plugin: its requests come over the bus, its answers go there. */
#pragma once

#include "mem.h"
#include "plugin.h"
#include "store-config.h"

struct store_bus;

/* Peers may call, and the plugin is ready, when the database is open. */
int store_bus_new(struct plugin *plugin, const struct store_config *config, struct store_bus **ret);
struct store_bus *store_bus_free(struct store_bus *service);
DEFINE_FREEP(struct store_bus, store_bus_free)
