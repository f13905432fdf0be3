/*
 * One client: its TLS connection on one side, the stream to its listener on the other, and what is
 * on the way between. The stream begins with a preamble that says who is calling. What one side
 * does not take is kept, and no more is read from the other: at most one read of it. An idle relay
 * keeps no buffer.
 */
#pragma once

#include <netinet/in.h>
#include <systemd/sd-event.h>

#include "mem.h"
#include "target.h"
#include "tls-stream.h"

enum { RELAY_SCRATCH_BYTES = 64 << 10, RELAY_ADDRESS_TEXT = 64 };

enum relay_end {
    RELAY_END_HANDSHAKE,   /* never became a client */
    RELAY_END_NO_LISTENER, /* the listener did not come back in time */
    RELAY_END_CLIENT,      /* the client went */
    RELAY_END_LISTENER,    /* the listener closed it */
    _RELAY_END_COUNT
};

struct relay;

/* Runs once for each relay, which is freed after. @reason is borrowed. */
typedef void relay_end_fn(struct relay *relay, enum relay_end end, const char *reason,
                          void *userdata);

/* What all relays of the process share. */
struct relay_host {
    sd_event *event; /* borrowed */
    uint64_t handshake_usec;
    uint64_t linger_usec; /* for last words, after one side has ended */
    relay_end_fn *on_end;
    void *userdata;
    struct relay *relays; /* all there are */
    size_t count;
    char scratch[RELAY_SCRATCH_BYTES]; /* what was just read, by whichever relay has its turn */
};

union relay_address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* Takes @fd whatever the result. @socket_name: of the listen socket, for the preamble; borrowed for
 * the life of the relay. */
int relay_new_take(struct relay_host *host, SSL_CTX *context, int fd,
                   const union relay_address *peer, const char *socket_name, struct target *target,
                   struct relay **ret);
struct relay *relay_free(struct relay *relay);
DEFINE_FREEP(struct relay, relay_free)

/* The process ends: the goodbye is sent, as far as the socket takes it now. */
void relay_say_goodbye(struct relay *relay);

/* "192.0.2.7:50123", "[2001:db8::1]:50123"; an IPv4 client of an IPv6 socket is the former. */
const char *relay_address_text(const union relay_address *address,
                               char ret[static RELAY_ADDRESS_TEXT]);
const union relay_address *relay_peer(const struct relay *relay);
const char *relay_socket_name(const struct relay *relay);
