/*
 * The way around a full store. Batches of all clients go to it in one order, so one that it refuses
 * would hold back everybody: the module that would make room, and the urgent message that has a reserve.
 * Then each client has a line of its own for what it published, and the clients have their turns:
 * what is refused waits, and the next one tries. When nobody waits any more, messages of all clients
 * are batched again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "batch.h"
#include "log.h"
#include "producer.h"

struct connection;
struct listener;

/* What one client published and the store does not have. */
struct line {
    struct batch *batch;
    size_t first; /* those before are on disk */
    size_t take;  /* how many of them are tried at once */
    size_t tried; /* are under way */
    TAILQ_ENTRY(line) link;
    struct connection *connection;
};
TAILQ_HEAD(line_list, line);

struct detour {
    struct listener *listener;
    bool active;
    struct line_list lines;  /* whose turn is first is first */
    struct line_list trying; /* under way: not in @lines */
    size_t count, bytes;     /* of both */
    size_t fresh;            /* the first so many lines were not tried yet */
    unsigned width;          /* clients that are tried at once */
    unsigned sending;        /* lines that are under way */
    size_t refused;          /* so many in a row */
    bool resting; /* all were refused: until the timer fires, only who comes anew tries */
    Bus__PublishItem **items;
    size_t item_count, item_capacity;
    sd_event_source *timer;
    uint64_t times, dropped;
    struct log_limit limit;
};

int detour_init(struct detour *d, struct listener *listener);
void detour_done(struct detour *d);

/* The producer gave up: all that it holds, and all that is gathered, goes the other way. */
void detour_on_refused(struct detour *d, enum producer_refusal refusal, const char *reason);
/* What was under way is on disk. */
void detour_on_committed(struct detour *d);
/* Only while it is active. One that has a line is told (client_on_room()) when there is room again. */
bool detour_has_room(const struct detour *d, const struct connection *c);
void detour_publish(struct detour *d, struct connection *c, const Bus__Message *message,
                    size_t bytes, bool acknowledged);
/* At the end of a turn. */
void detour_send(struct detour *d);
