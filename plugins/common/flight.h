/*
 * What a consumer fetched and is not confirmed as acknowledged: the messages that wait or are on their way to the receiver,
 * and the positions that are settled while the store does not know it yet. Pure.
 *
 * A position that is fetched again while it is in here is a duplicate (the store came back, or was asked twice). Nothing
 * else is one. Messages of a partition stay in the order they were fetched in until they are settled, so whatever
 * happens to the connection, they are sent again in that order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "mem.h"
#include "span.h"
#include "store.pb-c.h"

struct flight;
struct flight_stream;
struct flight_partition;

struct flight_message {
    TAILQ_ENTRY(flight_message) link;
    struct flight_stream *stream;
    uint64_t position;
    bool sent;
    uint32_t len;
    char data[]; /* as it goes over the wire */
};
TAILQ_HEAD(flight_list, flight_message);

/* What has one order: the messages of one identity, or of one queue. */
struct flight_partition {
    struct flight *flight;
    char *name;
    struct flight_list messages;
    struct flight_message *next_to_send; /* NULL: all that is there is sent */
    unsigned count, in_flight;
    struct flight_stream *streams; /* one for each priority seen */
    void *userdata;
};

/* What the name of a partition stands for in acks. */
enum flight_names { FLIGHT_OF_PARTITIONS, FLIGHT_OF_QUEUES };

struct flight *flight_new(enum flight_names names);
struct flight *flight_free(struct flight *f);
DEFINE_FREEP(struct flight, flight_free)

/* Makes it when it is not there. Lives as long as the flight. */
struct flight_partition *flight_partition(struct flight *f, const char *name);

/* Fetched. NULL: a duplicate, and nothing to do. @data is copied. */
struct flight_message *flight_add(struct flight_partition *p, uint32_t priority, uint64_t position,
                                  struct span data);
/* Fetched, but not to be sent: settled at once. A duplicate does no harm. */
void flight_refuse(struct flight_partition *p, uint32_t priority, uint64_t position,
                   Bus__Outcome outcome);

const char *flight_name(const struct flight_message *m); /* of its partition */

/* The oldest that was not sent; NULL: none. */
struct flight_message *flight_next(struct flight_partition *p);
void flight_sent(struct flight_message *m);                          /* of flight_next() */
void flight_settled(struct flight_message *m, Bus__Outcome outcome); /* gone; its ack waits */
void flight_returned(
    struct flight_message *m); /* the hub gave it back; not sent again before flight_rewind() */
/* Whatever was sent has to be sent again, in order. */
void flight_rewind(struct flight_partition *p);
/* Forgets one, or all: the store has them and gives them again. Acks that wait stay. */
void flight_forget(struct flight_message *m);
void flight_give_back(struct flight_partition *p);
/* The messages will never be sent: all are settled. */
unsigned flight_settle_all(struct flight_partition *p, Bus__Outcome outcome);

/* The ranges to acknowledge now, in @ack; borrowed until flight_acks_confirmed(). False: there are none, or those taken before
 * are not confirmed yet. */
bool flight_acks_take(struct flight *f, Bus__Ack *ack);
/* What was taken is done. Until then it may be sent any number of times. */
void flight_acks_confirmed(struct flight *f);
/* The ranges that were taken before, to be sent once more. */
void flight_acks_again(struct flight *f, Bus__Ack *ack);
bool flight_acks_pending(const struct flight *f); /* any, taken or not */

struct flight_totals {
    uint64_t messages, bytes; /* waiting or in flight */
    uint64_t in_flight;
};
const struct flight_totals *flight_totals(const struct flight *f);
