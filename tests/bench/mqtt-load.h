/* One MQTT 3.1.1 client of the load generator: connects over TLS, publishes with a window, or just
 * stays. */
#pragma once

#include <netdb.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "histogram.h"

/* The same for all clients. */
struct load {
    SSL_CTX *tls;
    const struct addrinfo *address;
    const char *server_name;
    int epoll;
    uint64_t messages; /* of each client */
    unsigned window;   /* unacknowledged publishes of each client */
    unsigned qos;
    size_t payload_bytes;
    uint16_t keep_alive_sec;
    bool clean_session;

    struct histogram latency;
    unsigned connecting, ready, finished, failed;
    uint64_t published, acked, out_of_order;
    uint64_t first_ns, last_ns; /* first publish, last PUBACK */
    char failure[160];          /* the first */
};

enum load_state { LOAD_NEW, LOAD_TCP, LOAD_TLS, LOAD_MQTT, LOAD_READY, LOAD_FINISHED, LOAD_FAILED };

struct load_slot {
    uint64_t sent_ns; /* 0: acknowledged */
};

struct load_client {
    struct load *load;
    char *id, *username, *password, *topic; /* its own; username and password may be NULL */
    unsigned index;
    enum load_state state;
    int fd;
    SSL *ssl;
    struct buf out;
    unsigned char in[4]; /* the beginning of a packet that is not whole */
    unsigned in_len;
    char *packet; /* a PUBLISH to copy from, with places for its id and its number */
    size_t packet_len, id_at, number_at;
    uint64_t sent, oldest; /* messages given to TLS; the first not acknowledged */
    struct load_slot *slots;
    uint64_t written_ns;
};

void load_client_start(struct load_client *c);
/* epoll says that something may be done on its socket. */
void load_client_run(struct load_client *c);
/* Publishes what window and @budget allow. Returns how many. */
uint64_t load_client_publish(struct load_client *c, uint64_t budget);
/* PINGREQ when it was silent for longer than half of its keep-alive. */
void load_client_ping(struct load_client *c, uint64_t now_ns);
void load_client_done(struct load_client *c);
