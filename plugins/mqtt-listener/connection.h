/*
 * One stream from the front and the client at its other end: the preamble, what was read and not
 * eaten yet, what is not written yet. Freed only by the listener's turn, so that no handler loses
 * it under its feet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "bus.h"
#include "client-map.h"
#include "client.h"
#include "io-set.h"
#include "wheel.h"

enum { CONNECTION_READ_BYTES = 64 << 10 };

struct ask;
struct inputs;
struct line;
struct listener;

struct connection {
    struct listener *listener;
    struct client client;
    int fd; /* -1: closed */
    struct io_watch watch;
    bool started;        /* the preamble is in */
    bool ended;          /* the client told; the stream is to be closed */
    bool dirty, blocked; /* in the list of that name */
    bool holds_identity; /* is, or was, in the listener's map */
    unsigned shares;     /* publishes of it that are under way */
    uint64_t number;     /* in the router's directory */
    int64_t since_sec;   /* UTC; of CONNACK */
    struct buf in;       /* read and not eaten yet */
    char *peer_address;
    ProtobufCBinaryData *chain; /* the client's certificates, in one block with their bytes */
    size_t chain_count;
    struct wheel_entry timer;
    struct client_map_entry map_entry;
    struct ask *identity_ask, *store_ask;
    struct inputs *inputs; /* NULL: it wants none */
    struct line *line;     /* what waits in the detour; NULL: nothing */
    TAILQ_ENTRY(connection) all_link, dirty_link, blocked_link;
};

/* Takes @fd whatever the result. */
int connection_new_take(struct listener *listener, int fd, uint64_t number,
                        struct connection **ret);
struct connection *connection_free(struct connection *c);
DEFINE_FREEP(struct connection, connection_free)

/* The client may take input again: what was held for it first. */
void connection_feed_held(struct connection *c);
/* At the end of a turn: writes, closes, listens for what it should. */
void connection_settle(struct connection *c);
