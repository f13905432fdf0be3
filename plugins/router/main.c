#include "router.h"

static const struct config_item router_config_items[] = { {} };

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(router_freep) struct router *router = NULL;
    int r;

    r = plugin_new("router", argc, argv, &plugin);
    if (r < 0)
        return r;

    r = plugin_load_config(plugin, router_config_items, NULL);
    if (r < 0)
        return r;

    r = router_new(plugin, &router);
    if (r < 0)
        return r;

    r = plugin_listen(plugin, router_handlers, router);
    if (r < 0)
        return r;

    return plugin_run(plugin);
}

DEFINE_MAIN(run)
