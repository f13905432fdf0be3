#include "front.h"

#define AT(member) offsetof(struct front_config, member)
const struct config_item front_config_items[] = {
    { "forward", CONFIG_STRING_LIST, AT(forward), "[mqtts=streams/mqtt.sock]", "1", NULL,
      "which socket's clients go to which listener: the name of a socket in `sockets:`, `=`, the "
      "path of the "
      "listener's stream socket, relative to the run folder" },
    { "handshake_timeout_s", CONFIG_DURATION, AT(handshake_timeout_usec), "30", "1", "300",
      "a client whose TLS handshake takes longer is closed" },
    { "max_connections", CONFIG_COUNT, AT(max_connections), "10000", "1", "1000000",
      "further clients wait in the backlog" },
    { "ask_client_certificate", CONFIG_BOOL, AT(ask_client_certificate), "true", NULL, NULL,
      "ask clients for a certificate; any or none is let through, identity decides" },
    {},
};

bool front_forward_parse(const char *text, struct span *ret_socket, struct span *ret_path)
{
    struct span rest = span_str(text), socket;

    if (!span_split(&rest, SPAN("="), &socket) || socket.len == 0 || rest.len == 0)
        return false;
    *ret_socket = socket;
    *ret_path = rest;
    return true;
}

int front_config_check(struct config_document *d, const void *settings,
                       struct config_error *ret_error)
{
    const struct front_config *config = settings;

    for (size_t i = 0; config->forward[i]; i++) {
        struct span socket, path, other;

        if (!front_forward_parse(config->forward[i], &socket, &path))
            return config_refuse(d, "settings", "forward",
                                 "NAME=PATH, as in mqtts=streams/mqtt.sock", ret_error);
        for (size_t j = 0; j < i; j++)
            if (front_forward_parse(config->forward[j], &other, &path) && span_equal(socket, other))
                return config_refuse(d, "settings", "forward", "each socket once", ret_error);
    }
    return 0;
}
