/* Listen sockets of a plugin: what the config says, and the descriptors, which outlive the
 * plugin's process. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "config.h"

struct listen_address {
    struct sockaddr_storage storage;
    socklen_t len;
};

/* "127.0.0.1:8883", "[::]:8883", "unix:streams/x.sock" (relative to @run_dir). Numbers only:
 * nothing is looked up. Returns 0, or LISTEN_E_SYNTAX with @ret_expected a literal. */
enum { LISTEN_E_SYNTAX = 1 };
int listen_address_parse(const char *text, const char *run_dir, struct listen_address *ret,
                         const char **ret_expected);
/* @type: SOCK_STREAM or SOCK_SEQPACKET. @group: who else may connect to a unix socket (mode 0660),
 * or -1 (mode 0600). */
int listen_address_open(const struct listen_address *address, int type, gid_t group, int *ret_fd);

struct listen_socket {
    char *name;   /* what the plugin asks for; several may share it */
    char *listen; /* as configured */
    struct listen_address address;
    int fd;            /* -1: not open */
    bool from_systemd; /* stays open when the plugin is stopped: systemd does not give it twice */
};

struct listen_sockets {
    struct listen_socket *sockets;
    size_t count, capacity;
};

enum { LISTEN_SOCKETS_MAX = 16 }; /* as many descriptors as a Hello carries */

/* Takes `sockets:` out of @d. */
int listen_sockets_take(struct config_document *d, const char *run_dir, struct listen_sockets *ret,
                        struct config_error *ret_error);
void listen_sockets_done(struct listen_sockets *s);

/* Opens what is not open. On failure *ret_failed is the one that could not be opened. */
int listen_sockets_open(struct listen_sockets *s, gid_t group,
                        const struct listen_socket **ret_failed);
/* Closes what can be opened again. */
void listen_sockets_close(struct listen_sockets *s);
/* Gives a descriptor to the first unopened socket of that @name. One that is not @from_systemd must
 * be bound to the address that is configured now. False: none, or it is no listening stream socket;
 * @fd stays the caller's then. */
bool listen_sockets_give(struct listen_sockets *s, const char *name, int fd, bool from_systemd);
