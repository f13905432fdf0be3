#include "peer.h"

#include <string.h>

#include "mem.h"

uint64_t peer_from_role(const char *role)
{
    static const struct {
        const char *role;
        uint64_t peer;
    } roles[] = {
        { "front", PEER_FRONT },
        { "mqtt-listener", PEER_MQTT },
        { "amqp-listener", PEER_AMQP },
        { "http-listener", PEER_HTTP },
        { "router", PEER_ROUTER },
        { "store", PEER_STORE },
        { "twin-sync", PEER_TWIN_SYNC },
        { "identity", PEER_IDENTITY },
        { "upstream", PEER_UPSTREAM },
        { "container-manager", PEER_CONTAINER_MANAGER },
        { "hub", PEER_HUB },
    };

    for (size_t i = 0; i < ELEMENTSOF(roles); i++)
        if (strcmp(role, roles[i].role) == 0)
            return roles[i].peer;
    return PEER_OTHER;
}
