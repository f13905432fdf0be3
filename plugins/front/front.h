/*
 * The front: owns the ports and every TLS connection, hands each client's bytes to a listener, and
 * understands none of them. It keeps nothing: a client whose front dies connects again. Without a
 * certificate nobody is accepted; clients wait in the backlog of the listen socket, which is the
 * supervisor's.
 */
#pragma once

#include "plugin.h"
#include "relay.h"
#include "span.h"

struct front_config {
    char **forward; /* "socket=path" */
    uint64_t handshake_timeout_usec;
    uint64_t max_connections;
    bool ask_client_certificate;
};
extern const struct config_item front_config_items[];
int front_config_check(struct config_document *d, const void *settings,
                       struct config_error *ret_error);
/* Cuts "socket=path". False: it is none. */
bool front_forward_parse(const char *text, struct span *ret_socket, struct span *ret_path);

enum { FRONT_SOCKETS_MAX = 8, FRONT_LIMITS = 16 };

/* Listen sockets of one name (say for IPv4 and for IPv6), and where their clients go. */
struct entrance {
    struct front *front;
    char *name;
    struct target target;
    sd_event_source *sources[FRONT_SOCKETS_MAX];
    unsigned source_count;
};

struct front {
    struct plugin *plugin;
    const struct front_config *config; /* borrowed from run() */
    struct relay_host host;
    struct entrance *entrances;
    size_t entrance_count;
    uint64_t connections_max; /* what config and the limit of open files allow */
    bool accepting, starved, draining;
    sd_event_source *starved_timer, *trim_timer;
    uint64_t accepted, refused;
    struct log_limit limits[FRONT_LIMITS]; /* by reason: a flood of one does not hide another */

    SSL_CTX *context; /* for new handshakes; NULL: no certificate yet */
    struct bus_peer *identity;
    struct bus_request *asking;
    bool ask_again;
    uint64_t certificate_version;
    sd_event_source *certificate_timer;
    struct log_limit certificate_limit;
};

int front_new(struct plugin *plugin, const struct front_config *config, struct front **ret);
struct front *front_free(struct front *front);
DEFINE_FREEP(struct front, front_free)

/* Takes the certificate into use for handshakes from now on. -EINVAL (logged): unusable, the former
 * stays. */
int front_use_certificate(struct front *front, const char *chain_pem, const char *key_pem);

/* Follows the certificate that identity issues, for ever. */
int front_follow_certificate(struct front *front);
