#include <openssl/crypto.h>
#include <string.h>

#include "identity.h"
#include "keyring.h"
#include "plugin.h"

static void config_done(struct identity_config *config)
{
    if (config->connection_string)
        OPENSSL_cleanse(config->connection_string, strlen(config->connection_string));
    config_clear(identity_config_items, config);
}

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL; /* freed last */
    _cleanup_(config_done) struct identity_config config = {};
    _cleanup_(identity_freep) struct identity *identity = NULL;
    int r;

    r = plugin_new("identity", argc, argv, &plugin);
    if (r < 0)
        return r;

    r = keyring_protect_process(); /* before the first secret is read */
    if (r < 0)
        return r;

    r = plugin_load_config_checked(plugin, identity_config_items, &config, identity_config_check);
    if (r < 0)
        return r;

    r = identity_new(&(struct identity_place){ .event = plugin_event(plugin),
                                               .state_dir = plugin_state_dir(plugin),
                                               .hostname = plugin_hostname(plugin) },
                     &config, &identity_announcements, plugin, &identity);
    if (r < 0)
        return r;

    r = identity_follow_upstream(identity, plugin_bus(plugin));
    if (r < 0)
        return r;

    r = plugin_listen(plugin, identity_handlers, identity); /* from here peers may call */
    if (r < 0)
        return r;

    return plugin_run(plugin);
}

DEFINE_MAIN(run)
