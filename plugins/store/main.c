#include <malloc.h>

#include "plugin.h"
#include "store-bus.h"

enum { MMAP_THRESHOLD_BYTES = 128 << 10 };

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(store_bus_freep) struct store_bus *service = NULL;
    struct store_config config;
    int r;

    /* One heap for all threads, and what a memtable or a batch took goes back to the system when it
     * is freed. */
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);

    r = plugin_new("store", argc, argv, &plugin);
    if (r < 0)
        return r;

    r = plugin_load_config(plugin, store_config_items, &config);
    if (r < 0)
        return r;

    r = store_bus_new(plugin, &config,
                      &service); /* begins to open the database; peers may call when it is */
    if (r < 0)
        return r;

    return plugin_run(plugin);
}

DEFINE_MAIN(run)
