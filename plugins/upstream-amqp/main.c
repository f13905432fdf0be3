/* The upstream over AMQP: see upstream.h. */
#include "upstream.h"

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(upstream_freep) struct upstream *upstream = NULL;
    struct upstream_config config;
    int r;

    r = plugin_new("upstream", argc, argv, &plugin);
    if (r < 0)
        return r;

    r = plugin_load_config_checked(plugin, upstream_config_items, &config, upstream_config_check);
    if (r < 0)
        return r;

    r = upstream_new(plugin, &config, &upstream);
    if (r < 0)
        return r;

    r = plugin_listen(plugin, upstream_handlers, upstream);
    if (r < 0)
        return r;

    r = upstream_bus_start(upstream);
    if (r < 0)
        return r;

    r = plugin_run(plugin); /* ready while the hub is away: that is what it is for */
    upstream = upstream_free(upstream);
    config_clear(upstream_config_items, &config);
    return r;
}

DEFINE_MAIN(run)
