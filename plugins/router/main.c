#include "router.h"

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(router_freep) struct router *router = NULL;
    struct router_config config;
    int r;

    r = plugin_new("router", argc, argv, &plugin);
    if (r < 0)
        return r;

    plugin_on_check(plugin, router_config_check_files);
    r = plugin_load_config(plugin, router_config_items, &config);
    if (r < 0)
        return r;

    r = router_new(plugin, &config, &router);
    if (r < 0)
        return r;

    r = plugin_listen(plugin, router_handlers, router);
    if (r < 0)
        return r;

    return plugin_run(plugin);
}

DEFINE_MAIN(run)
