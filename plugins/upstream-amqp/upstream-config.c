#include "upstream.h"

static const char *const protocol_names[] = { "amqp", NULL };

#define AT(member) offsetof(struct upstream_config, member)
const struct config_item upstream_config_items[] = {
    { "ca_file", CONFIG_STRING, AT(ca_file), "", NULL, NULL,
      "PEM file with the authorities that may vouch for the hub; empty: those of the system",
      NULL },
    { "port", CONFIG_COUNT, AT(port), "5671", "1", "65535", "of the hub", NULL },
    { "protocol", CONFIG_ENUM, AT(protocol), "amqp", NULL, NULL, "how the hub is spoken to",
      protocol_names },
    { "window_messages", CONFIG_COUNT, AT(window_messages), "4000", "1", "60000",
      "messages held in memory: on their way to the hub, or about to be", NULL },
    { "window_bytes", CONFIG_SIZE, AT(window_bytes), "8MiB", "512KiB", "1GiB", "the same in bytes",
      NULL },
    { "idle_s", CONFIG_DURATION, AT(idle_usec), "1h", "1s", "24h",
      "an identity that sends nothing for so long gives up its place on the connection", NULL },
    { "reconnect_min", CONFIG_DURATION, AT(reconnect_min_usec), "100ms", "10ms", "60s",
      "wait before the first try to connect again", NULL },
    { "reconnect_max", CONFIG_DURATION, AT(reconnect_max_usec), "30s", "10ms", "60s",
      "the wait doubles with each failed try, up to this", NULL },
    {},
};

int upstream_config_check(struct config_document *d, const void *settings,
                          struct config_error *ret_error)
{
    const struct upstream_config *config = settings;

    if (config->reconnect_max_usec < config->reconnect_min_usec)
        return config_refuse(d, "settings", "reconnect_max", "no less than reconnect_min",
                             ret_error);
    return 0;
}
