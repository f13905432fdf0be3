/*
 * Keeps what we know of the hub fresh, in the background and for ever: `$edgeHub` has our key
 * there, then the scope is listed; at start, every so often, when somebody says that the hub is
 * back. A failure is tried again, ever more slowly.
 */
#pragma once

#include <stdbool.h>

#include "hub-client.h"
#include "keyring.h"
#include "scope.h"

struct sync;

struct sync_ops {
    /* `$edgeHub` of this generation has our derived key in the hub. */
    void (*on_key_written)(const char *generation_id, void *userdata);
    /* A listing begins; and what it brought. What was looked up meanwhile is newer than some of it.
     */
    void (*on_listing)(void *userdata);
    void (*on_scope_take)(struct scope *scope, void *userdata);
    /* A run is over, well or not: sync_last_error(). */
    void (*on_end)(void *userdata);
    /* The hub's clock, as it said over a connection that was authenticated. */
    void (*on_hub_clock)(int64_t utc_sec, void *userdata);
};

/* Borrowed for the life of the object. */
struct sync_config {
    const char *device_id;
    const struct keyring *keyring;
    uint64_t refresh_usec;
    uint64_t retry_min_usec; /* 0: one second */
};

/* Begins at the next turn of the loop. */
int sync_new(sd_event *event, struct hub_client *hub, const struct sync_config *config,
             const struct sync_ops *ops, void *userdata, struct sync **ret);
struct sync *sync_free(struct sync *sync);
DEFINE_FREEP(struct sync, sync_free)

/* Now, or once more after the one that is under way. */
void sync_now(struct sync *sync);
/* The hub did not take the token of `$edgeHub`: look whether it still has our key. */
void sync_key_refused(struct sync *sync);
bool sync_is_listing(const struct sync *sync);
/* Why the last one failed; "" when it did not. Borrowed until the next. */
const char *sync_last_error(const struct sync *sync);
