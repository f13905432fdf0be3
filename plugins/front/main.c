/* The TLS front: see front.h. */
#include "front.h"

#include <errno.h>
#include <sys/prctl.h>

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(front_freep) struct front *front = NULL;
    struct front_config config;
    int r;

    r = plugin_new("front", argc, argv, &plugin);
    if (r < 0)
        return r;

    /* A core would hold the server's private key, and what clients say. */
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return -errno;

    r = plugin_load_config_checked(plugin, front_config_items, &config, front_config_check);
    if (r < 0)
        return r;

    r = front_new(plugin, &config, &front);
    if (r < 0)
        return r;

    r = front_follow_certificate(front);
    if (r < 0)
        return r;

    r = plugin_run(plugin); /* ready without a certificate: clients wait in the backlog */
    config_clear(front_config_items, &config);
    return r;
}

DEFINE_MAIN(run)
