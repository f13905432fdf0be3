/* The MQTT 3.1.1 server for devices and modules. It may lose nothing that it acknowledged, since it
 * has nothing of its own. */
#include "listener.h"

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(listener_freep) struct listener *listener = NULL;
    struct listener_config config;
    int r;

    r = plugin_new("mqtt-listener", argc, argv, &plugin); /* options, log, signals, event loop */
    if (r < 0)
        return r;

    r = plugin_load_config(plugin, listener_config_items, &config);
    if (r < 0)
        return r;

    r = listener_new(plugin, &config, &listener);
    if (r < 0)
        return r;

    r = plugin_listen(plugin, listener_handlers, listener); /* from here peers may call */
    if (r < 0)
        return r;

    return plugin_run(plugin); /* READY=1, loop, drain, STOPPING=1 */
}

DEFINE_MAIN(run)
