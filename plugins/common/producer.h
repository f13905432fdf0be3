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

/* The store will not have a batch: now (FULL), or never as it is (INVALID). Instead of sending it again
 * and again, with all others behind it, the producer is empty: the batches that are not committed are
 * given back by producer_take_back(), and what is added next takes their sequences. Called when all is
 * answered, never from within producer_add_batch(). */
enum producer_refusal { PRODUCER_FULL = 1, PRODUCER_INVALID };
typedef void producer_refused_fn(enum producer_refusal refusal, const char *reason, void *userdata);

/* @name must be new for every process life: it is made so from @name (the plugin's) and the
 * generation. */
int producer_new(struct bus_peer *router, const char *name, uint64_t generation,
                 producer_committed_fn *committed, void *userdata, sd_event *event,
                 struct producer **ret);
struct producer *producer_free(struct producer *producer);
DEFINE_FREEP(struct producer, producer_free)

void producer_on_refused(struct producer *producer, producer_refused_fn *fn, void *userdata);
/* Within producer_refused_fn: the next that was refused, in the order of adding; NULL: no more. */
void *producer_take_back(struct producer *producer);

/* How many more batches it takes now. 0: hold your messages, stop reading your clients. */
unsigned producer_room(const struct producer *producer);
/* Runs when producer_room() became non-zero again. */
void producer_on_room(struct producer *producer, void (*fn)(void *userdata), void *userdata);
/* @items, and all they point to, are borrowed until @batch comes back in @committed: they are
 * packed again when they must be sent again. Asserts room. Together they must fit a bus message.
 * @reserve: they may use the store's reserve, for whoever sends them makes room elsewhere. */
void producer_add_batch(struct producer *producer, Bus__PublishItem **items, size_t count,
                        bool reserve, void *batch);
unsigned producer_outstanding(const struct producer *producer);
