#include "router.h"

#define AT(field) offsetof(struct router_config, field)

const struct config_item router_config_items[] = {
    { "routes_file", CONFIG_STRING, AT(routes_file), "", NULL, "4096",
      "JSON file with the desired properties of `$edgeHub` (routes, storeAndForwardConfiguration); "
      "read again when it changes. Empty: everything goes upstream, and never expires",
      NULL },
    {},
};

int router_config_check_files(struct config_document *d, const void *settings,
                              struct config_error *ret_error)
{
    const struct router_config *config = settings;
    _cleanup_(freep) char *problem = NULL;
    _cleanup_(freep) char *expected = NULL;

    if (!*config->routes_file || deployment_check_file(config->routes_file, &problem) == 0)
        return 0;
    expected = xasprintf("a file of good routes; %s: %s", config->routes_file, problem);
    return config_refuse(d, "settings", "routes_file", expected, ret_error);
}
