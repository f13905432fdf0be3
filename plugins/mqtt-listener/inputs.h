/*
 * What comes for the inputs of a module that is connected and wants it: fetched from the store,
 * written to the client in that order, some unacknowledged at a time, and acknowledged to the store
 * by the client's PUBACK. What is not acknowledged when the client goes is given to whoever holds
 * the module next.
 */
#pragma once

#include "arena.h"
#include "buf.h"
#include "bus.h"
#include "flight.h"

struct connection;
struct inputs;
struct listener;

/* What all of them share: a position that is acknowledged must be known as such until the store
 * knows it, whoever fetches it again meanwhile. */
struct inputs_host {
    struct listener *listener;
    struct bus_peer *store;
    struct flight *flight; /* a partition for each queue */
    struct bus_request *ack_request;
    bool ack_again; /* it has failed */
    struct arena *arena;
    struct buf scratch;
    uint64_t last_lease;
    uint64_t delivered, resent, unwanted, undeliverable;
};

void inputs_host_init(struct inputs_host *host, struct listener *listener);
void inputs_host_done(struct inputs_host *host);
/* At the end of a turn: tells the store what is settled. */
void inputs_host_acknowledge(struct inputs_host *host);
void inputs_host_tick(struct inputs_host *host);
/* Does the store know all, or is it away? */
bool inputs_host_is_done(const struct inputs_host *host);

struct inputs *inputs_new(struct inputs_host *host, struct connection *connection);
struct inputs *inputs_free(struct inputs *in);
/* At the end of a turn: writes what the client may get, fetches what there is room for. */
void inputs_pump(struct inputs *in);
/* Is there something that waits for nothing but to be pumped? */
bool inputs_may_send(const struct inputs *in);
/* Is something at the client that it did not acknowledge? */
bool inputs_are_unacknowledged(const struct inputs *in);
void inputs_on_acknowledged(struct inputs *in, uint16_t packet_id);
/* When inputs_on_time() has something to do next; UINT64_MAX: never. */
uint64_t inputs_next_usec(const struct inputs *in);
void inputs_on_time(struct inputs *in);
