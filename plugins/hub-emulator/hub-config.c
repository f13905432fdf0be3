#include "hub-config.h"

#include <stddef.h>

#define AT(member) offsetof(struct hub_config, member)

const struct config_item hub_config_items[] = {
    { "hostname", CONFIG_STRING, AT(hostname), NULL, NULL, "255",
      "the hub's name: in connection strings and tokens", NULL },
    { "server_cert", CONFIG_STRING, AT(server_cert), NULL, NULL, "4096",
      "PEM file: server certificate, then its chain", NULL },
    { "server_key", CONFIG_STRING, AT(server_key), NULL, NULL, "4096",
      "PEM file: private key of the certificate", NULL },
    { "policy_key_file", CONFIG_STRING, AT(policy_key_file), NULL, NULL, "4096",
      "file with the base64 key of the policies iothubowner, service, device, registryRead and "
      "registryReadWrite",
      NULL },
    { "edge_device_id", CONFIG_STRING, AT(edge_device_id), "", NULL, "128",
      "an edge device that is registered at start when it is not there", NULL },
    { "edge_device_key_file", CONFIG_STRING, AT(edge_device_key_file), "", NULL, "4096",
      "file with the base64 primary key that it is registered with", NULL },
    { "keep_messages", CONFIG_COUNT, AT(keep_messages), "500000", "1", "100000000",
      "telemetry messages kept to be shown", NULL },
    { "keep_bytes", CONFIG_SIZE, AT(keep_bytes), "256MiB", "1MiB", "64GiB",
      "and how much memory they may take", NULL },
    {}
};

int hub_config_check(struct config_document *d, const void *settings,
                     struct config_error *ret_error)
{
    const struct hub_config *config = settings;

    if ((config->edge_device_id[0] == '\0') != (config->edge_device_key_file[0] == '\0'))
        return config_refuse(d, "settings", "edge_device_key_file",
                             "it and edge_device_id together, or neither", ret_error);
    return 0;
}

void hub_config_done(struct hub_config *config)
{
    config_clear(hub_config_items, config);
}
