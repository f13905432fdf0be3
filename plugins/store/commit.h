/*
 * Group commit: while one group of requests is being written and synced by the worker, the next one
 * gathers; each request is answered when the group that it is in is on disk. One sync serves all
 * that waited for it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "mem.h"
#include "store-rocks.h"
#include "worker.h"

struct commit;

/* Who waits for a group, and what it will be told. The strings are the waiter's. */
struct waiter {
    struct bus_call *call;
    enum waiter_kind { WAITER_APPEND, WAITER_ACK, WAITER_RECORD, WAITER_DROP } kind;
    uint64_t number; /* the sequence that is expected next, the version of the record, or how many
                        were dropped */
    char *key;       /* of the record */
};

struct commit_ops {
    /* The group ends: what it changed beside the messages is to be added to its batch. */
    void (*on_close)(struct rocks_batch *batch, void *userdata);
    /* It is written. Its waiters are told after this. */
    void (*on_written)(uint64_t group, void *userdata);
    void (*on_answer)(const struct waiter *waiter, void *userdata);
    /* All that follows from it is done, and the next group is on its way. */
    void (*on_turn)(void *userdata);
    /* It could not be written, and nothing can be before commit_restart(). The waiters of this
     * group and of the next one are told by this: what they asked may be done after all, or not. */
    void (*on_failed)(int error, const struct rocks_error *text, void *userdata);
    void (*on_refuse)(const struct waiter *waiter, const char *reason, void *userdata);
};

/* @interval_usec: 0, or the durability is `interval`: written at once, synced that often. */
int commit_new(sd_event *event, struct worker *worker, uint64_t interval_usec,
               const struct commit_ops *ops, void *userdata, struct commit **ret);
struct commit *commit_free(struct commit *commit);
DEFINE_FREEP(struct commit, commit_free)

/* Begins, or begins again, with an open database (borrowed). The worker must be idle. */
void commit_restart(struct commit *commit, struct rocks *rocks);
/* Tells everybody who waits that it will not be done now, as after a failure. The worker must be
 * idle. */
void commit_abandon(struct commit *commit, const char *reason);

/* The batch of the group that gathers. Whoever adds to it says commit_need(). */
struct rocks_batch *commit_batch(struct commit *commit);
/* The group is to be written. @sync: it must survive a power cut before it is answered, if that is
 * how the store is set. */
void commit_need(struct commit *commit, bool sync);
void commit_wait(struct commit *commit, const struct waiter *waiter);
/* Waits for a group that was begun before and may be written already: false, it is. */
bool commit_wait_for(struct commit *commit, uint64_t group, const struct waiter *waiter);
/* When this group is written, what is removed is reclaimed. */
void commit_reclaim(struct commit *commit);
/* Has what is written and not synced yet synced now. */
void commit_flush(struct commit *commit);
uint64_t commit_group(const struct commit *commit);         /* the one that gathers */
bool commit_is_full(const struct commit *commit);           /* it should not grow any more */
uint64_t commit_pending_bytes(const struct commit *commit); /* on their way to the disk */
bool commit_is_idle(const struct commit *commit); /* nothing gathers, nothing is being written */

struct commit_counters {
    uint64_t groups, syncs, bytes, write_usec;
};
const struct commit_counters *commit_counters(const struct commit *commit);
