/*
 * The device scope: who may connect to this gateway, as the hub said last. Pure: a structure in
 * memory, sorted by id.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "mem.h"
#include "sas.h"

enum { SCOPE_EDGE_DEPTH_MAX = 5 }; /* edge devices in one chain */

enum scope_auth {
    SCOPE_AUTH_NONE, /* just created, or a kind that nobody knows */
    SCOPE_AUTH_SAS,
    SCOPE_AUTH_THUMBPRINT,
    SCOPE_AUTH_AUTHORITY,
    _SCOPE_AUTH_COUNT,
};

/* One device or module. Owns all it points to; keys are wiped when it is freed. */
struct scope_identity {
    char *device_id;
    char *module_id; /* NULL: a device */
    char *generation_id;
    bool enabled; /* modules always are: it is their device that is disabled */
    bool is_edge;
    enum scope_auth auth;
    struct sas_key *primary_key; /* NULL: none */
    struct sas_key *secondary_key;
    char *primary_thumbprint; /* hex, as the hub spells it; NULL: none */
    char *secondary_thumbprint;
    char *device_scope; /* NULL: none */
    char **parent_scopes;
    size_t parent_scope_count;
};

struct scope_identity *scope_identity_free(struct scope_identity *identity);
DEFINE_FREEP(struct scope_identity, scope_identity_free)
struct scope_identity *scope_identity_dup(const struct scope_identity *identity);
bool scope_identity_equal(const struct scope_identity *a, const struct scope_identity *b);

struct scope;

struct scope *scope_new(void);
struct scope *scope_free(struct scope *scope);
DEFINE_FREEP(struct scope, scope_free)

/* @module_id NULL or "": the device. NULL: not in scope. */
const struct scope_identity *scope_find(const struct scope *scope, const char *device_id,
                                        const char *module_id);
size_t scope_count(const struct scope *scope);
const struct scope_identity *scope_at(const struct scope *scope, size_t index);
bool scope_equal(const struct scope *a, const struct scope *b);

/* Adds it, or replaces the one with its id. True: something is different now. */
bool scope_put_take(struct scope *scope, struct scope_identity *identity);
/* A device goes with its modules. True: it was there. */
bool scope_remove(struct scope *scope, const char *device_id, const char *module_id);

/* "leaf;edge", "edge/module;edge", "edge": how @edge_id may act for it upstream; the caller's to
 * free. NULL: it may not (not in scope, no parent that leads to us, a disabled device on the way,
 * too deep). */
char *scope_chain(const struct scope *scope, const char *edge_id, const char *device_id,
                  const char *module_id);
