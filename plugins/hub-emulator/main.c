#include "hub.h"

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(hub_config_done) struct hub_config config = {};
    _cleanup_(hub_freep) struct hub *hub = NULL;
    int r;

    r = plugin_new("hub", argc, argv, &plugin);
    if (r < 0)
        return r;

    r = plugin_load_config_checked(plugin, hub_config_items, &config, hub_config_check);
    if (r < 0)
        return r;

    r = hub_new(plugin, &config, &hub);
    if (r < 0)
        return r;

    r = plugin_listen(plugin, hub_handlers, hub);
    if (r < 0)
        return r;

    return plugin_run(plugin);
}

DEFINE_MAIN(run)
