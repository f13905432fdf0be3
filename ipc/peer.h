/* Who may speak on the bus, as bits for the dispatch tables. The kernel's peer credentials and the supervisor's roster decide. */
#pragma once

#include <stdint.h>

#define PEER_OPERATOR                                                                              \
    (UINT64_C(1) << 0) /* an allowed uid that is no plugin: the operator's command */
#define PEER_FRONT             (UINT64_C(1) << 1)
#define PEER_MQTT              (UINT64_C(1) << 2)
#define PEER_AMQP              (UINT64_C(1) << 3)
#define PEER_HTTP              (UINT64_C(1) << 4)
#define PEER_ROUTER            (UINT64_C(1) << 5)
#define PEER_STORE             (UINT64_C(1) << 6)
#define PEER_TWIN_SYNC         (UINT64_C(1) << 7)
#define PEER_IDENTITY          (UINT64_C(1) << 8)
#define PEER_UPSTREAM          (UINT64_C(1) << 9)
#define PEER_CONTAINER_MANAGER (UINT64_C(1) << 10)
#define PEER_HUB               (UINT64_C(1) << 11)
#define PEER_OTHER             (UINT64_C(1) << 12) /* a plugin with a role of its own */
#define PEER_PLUGIN            (~PEER_OPERATOR)
#define PEER_ANY               (~UINT64_C(0))
#define PEER_LISTENERS         (PEER_MQTT | PEER_AMQP | PEER_HTTP)

/* Roles in config: front, mqtt-listener, amqp-listener, http-listener, router, store, twin-sync, identity, upstream,
 * container-manager, hub. Any other name is PEER_OTHER. */
uint64_t peer_from_role(const char *role);
