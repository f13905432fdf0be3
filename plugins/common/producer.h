/*
 * The listener's side of "acknowledged when, and only when, it is on disk": batches go to the
 * router in order, a few at a time, and are sent again from the first unanswered one until the
 * store has them, however often router or store die on the way. Each batch commits once and in
 * order: (producer, sequence) see to it.
 */
#pragma once

#include "bus.h"

enum { PRODUCER_WINDOW = 4 }; /* batches under way at once */

struct producer;

/* @batch is what producer_add_batch() was given. Called in the order of adding, never from within
 * producer_add_batch(). */
typedef void producer_committed_fn(void *batch, void *userdata);

/* @name must be new for every process life: it is made so from @name (the plugin's) and the
 * generation. */
int producer_new(struct bus_peer *router, const char *name, uint64_t generation,
                 producer_committed_fn *committed, void *userdata, sd_event *event,
                 struct producer **ret);
struct producer *producer_free(struct producer *producer);
DEFINE_FREEP(struct producer, producer_free)

/* How many more batches it takes now. 0: hold your messages, stop reading your clients. */
unsigned producer_room(const struct producer *producer);
/* Runs when producer_room() became non-zero again. */
void producer_on_room(struct producer *producer, void (*fn)(void *userdata), void *userdata);
/* @items, and all they point to, are borrowed until @batch comes back in @committed: they are
 * packed again when they must be sent again. Asserts room. Together they must fit a bus message. */
void producer_add_batch(struct producer *producer, Bus__PublishItem **items, size_t count,
                        void *batch);
unsigned producer_outstanding(const struct producer *producer);
