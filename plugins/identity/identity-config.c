#include <stddef.h>
#include <string.h>

#include "identity.h"

enum { HOSTNAME_BYTES_MAX = 253 };
#define AT(member) offsetof(struct identity_config, member)

/* clang-format off */
const struct config_item identity_config_items[] = {
    { "connection_string", CONFIG_STRING, AT(connection_string), "", NULL, "2048",
      "of the edge device: HostName=…;DeviceId=…;SharedAccessKey=… A secret: better in a file" },
    { "connection_string_file", CONFIG_STRING, AT(connection_string_file), "", NULL, "4096",
      "a file of mode 0600 that holds the connection string" },
    { "edge_ca_cert", CONFIG_STRING, AT(edge_ca_cert), "", NULL, "4096",
      "the edge CA that issues the server certificate, and what is above it, as PEM; "
      "without it one is made that lasts 90 days" },
    { "edge_ca_key", CONFIG_STRING, AT(edge_ca_key), "", NULL, "4096",
      "its private key, a PEM file of mode 0600" },
    { "upstream_ca_file", CONFIG_STRING, AT(upstream_ca_file), "", NULL, "4096",
      "the authorities to trust for the hub, as PEM; the system's when empty" },
    { "upstream_port", CONFIG_COUNT, AT(upstream_port), "443", "1", "65535",
      "port of the hub's REST API" },
    { "server_names", CONFIG_STRING_LIST, AT(server_names), "[]", NULL, "32",
      "more names and addresses by which clients call this gateway, for its certificate" },
    { "client_ca_file", CONFIG_STRING, AT(client_ca_file), "", NULL, "4096",
      "the authorities that issue certificates to devices, as PEM; "
      "the edge CA never counts as one" },
    { "scope_refresh_s", CONFIG_COUNT, AT(scope_refresh_sec), "3600", "10", "86400",
      "seconds between two full readings of the devices that may connect here" },
    { "scope_refresh_min_s", CONFIG_COUNT, AT(scope_refresh_min_sec), "120", "1", "86400",
      "seconds for which an identity that the hub had nothing new about is not asked again" },
    { "certificate_days", CONFIG_COUNT, AT(certificate_days), "30", "1", "825",
      "days that a server certificate lasts; it is renewed when 80 % are over" },
    {}
};
/* clang-format on */

/* A host name or an address: what stands in a certificate unseen must at least be text that a
 * client could ask for. */
static bool server_name_valid(const char *name)
{
    size_t len =
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:*");

    return len > 0 && len <= HOSTNAME_BYTES_MAX && name[len] == '\0';
}

int identity_config_check(struct config_document *d, const void *settings,
                          struct config_error *ret_error)
{
    const struct identity_config *c = settings;

    if (!*c->connection_string == !*c->connection_string_file)
        return config_refuse(d, "settings", "connection_string_file",
                             "either this or connection_string, and not both", ret_error);
    if (!*c->edge_ca_cert != !*c->edge_ca_key)
        return config_refuse(d, "settings", *c->edge_ca_cert ? "edge_ca_key" : "edge_ca_cert",
                             "edge_ca_cert and edge_ca_key together", ret_error);
    for (char **name = c->server_names; name && *name; name++)
        if (!server_name_valid(*name))
            return config_refuse(d, "settings", "server_names", "host names and addresses",
                                 ret_error);
    return 0;
}
