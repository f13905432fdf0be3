#include "listener.h"

#define AT(field) offsetof(struct listener_config, field)

const struct config_item listener_config_items[] = {
    { "max_clients", CONFIG_COUNT, AT(max_clients), "20000", "1", "100000",
      "clients connected at once; one more is told to try again later", NULL },
    { "inflight_max", CONFIG_COUNT, AT(inflight_max), "1024", "1", "65535",
      "unacknowledged publishes of one client; then it is not read until some are on disk", NULL },
    { "connect_timeout_s", CONFIG_COUNT, AT(connect_timeout_sec), "60", "1", "3600",
      "seconds in which CONNECT must have come", NULL },
    { "keepalive_max_s", CONFIG_COUNT, AT(keepalive_max_sec), "600", "1", "86400",
      "seconds of silence after which a client is closed, whatever keep-alive it asked for", NULL },
    { "recheck_s", CONFIG_COUNT, AT(recheck_sec), "300", "1", "86400",
      "seconds between two looks at the credential of a connected client", NULL },
    { "max_packet_bytes", CONFIG_SIZE, AT(packet_max_bytes), "262144", "1024", "262144",
      "largest MQTT packet, header included; a larger one closes the connection", NULL },
    { "max_will_bytes", CONFIG_SIZE, AT(will_max_bytes), "16KiB", "0", "128KiB",
      "largest Will, topic and message together; it is kept as long as the client is connected",
      NULL },
    { "max_held_bytes", CONFIG_SIZE, AT(held_max_bytes), "64MiB", "1MiB", "4GiB",
      "memory for incomplete and waiting packets of all clients together", NULL },
    { "input_window", CONFIG_COUNT, AT(input_window), "16", "1", "4096",
      "messages for the inputs of a module that it has not acknowledged; the original has 1",
      NULL },
    { "input_ack_timeout_s", CONFIG_COUNT, AT(input_ack_timeout_sec), "30", "1", "86400",
      "seconds without any acknowledgement after which a module gets them again", NULL },
    { "batch_max_messages", CONFIG_COUNT, AT(batch_max_messages), "1000", "1", "5000",
      "messages that are stored together", NULL },
    { "batch_max_bytes", CONFIG_SIZE, AT(batch_max_bytes), "512KiB", "4KiB", "4MiB",
      "bytes of messages that are stored together", NULL },
    {},
};
