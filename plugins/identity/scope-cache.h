/*
 * The scope on disk, so that clients authenticate while the hub is away, for however long. One
 * file, replaced whole; each record is sealed for itself, bound to its id and to the version of the
 * snapshot it belongs to. What may be lost: the file; then the hub must be reached before anybody
 * can connect.
 */
#pragma once

#include "keyring.h"
#include "scope.h"

struct scope_cache {
    char *hub_hostname; /* it is of this device in this hub, and of no use to another */
    char *device_id;
    /* For which `$edgeHub` has our key in the hub; NULL: it was never written. */
    char *edge_hub_generation;
    uint64_t version; /* grows with each change */
    /* UTC seconds of the last full listing; 0: there was none, and scope is NULL. */
    int64_t refreshed_sec;
    struct scope *scope;
};
void scope_cache_done(struct scope_cache *cache);

enum {
    SCOPE_CACHE_E_ABSENT = 1,
    SCOPE_CACHE_E_DAMAGED, /* does not decrypt, or makes no sense: the file was set aside */
};
/* Either outcome, or an errno, leaves @ret as it was. */
int scope_cache_load(const struct keyring *keyring, const char *path, struct scope_cache *ret);

/* The content of the file, to be written by whoever may wait for the disk. */
void scope_cache_encode(const struct keyring *keyring, const struct scope_cache *cache,
                        struct buf *out);
/* The other way, without the file. */
int scope_cache_decode(const struct keyring *keyring, struct span in, struct scope_cache *ret);
