/* A registry in memory with devices whose keys the tests know. Never written: it is held for ever. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "authorize.h"
#include "registry.h"
#include "sas.h"

#define WORLD_HOST     "Hub.example.net"
#define WORLD_NOW      INT64_C(1767225600)
#define WORLD_KEY      "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define WORLD_SECOND   "bXktc2Vjb25kLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define WORLD_POLICY   "bXktcG9saWN5LWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define WORLD_STRANGER "bXktb3RoZXJzLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="

struct world {
    struct registry *registry;
    struct authority authority;
};

static inline void world_add(struct world *w, const char *device_id, const char *parent, int edge)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    const char *parents[2] = { parent ? registry_device(w->registry, parent)->scope : NULL, NULL };
    struct registry_error error;

    spec.device_id = device_id;
    spec.primary_key = WORLD_KEY;
    spec.secondary_key = WORLD_SECOND;
    spec.edge = edge;
    spec.parent_scopes = parents;
    assert_int_equal(registry_device_create(w->registry, &spec, &error), 0);
}

static inline void world_add_module(struct world *w, const char *device_id, const char *module_id)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    struct registry_error error;

    spec.device_id = device_id;
    spec.module_id = module_id;
    spec.credentials_kind = CREDENTIALS_SAS;
    spec.primary_key = WORLD_KEY;
    spec.secondary_key = WORLD_SECOND;
    if (registry_module(w->registry, device_id, module_id))
        assert_int_equal(registry_module_update(w->registry, &spec, NULL, &error), 0);
    else
        assert_int_equal(registry_module_create(w->registry, &spec, &error), 0);
}

static inline void world_enable(struct world *w, const char *device_id, int enabled)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    struct registry_error error;

    spec.device_id = device_id;
    spec.enabled = enabled;
    assert_int_equal(registry_device_update(w->registry, &spec, NULL, &error), 0);
}

/* edge1 with a module and two leaves; child1 below edge1 with a leaf of its own; a device on its own. */
static inline struct world *world_new(void)
{
    struct world *w = xnew(struct world);

    assert_int_equal(registry_open("/nowhere/registry.json", &w->registry), 0);
    registry_hold(w->registry);
    world_add(w, "edge1", NULL, 1);
    world_add_module(w, "edge1", "$edgeHub");
    world_add_module(w, "edge1", "cam");
    world_add(w, "leaf1", "edge1", 0);
    world_add_module(w, "leaf1", "m");
    world_add(w, "leaf2", "edge1", 0);
    world_add(w, "child1", "edge1", 1);
    world_add_module(w, "child1", "$edgeHub");
    world_add(w, "leaf9", "child1", 0);
    world_add(w, "alone", NULL, 0);
    world_add_module(w, "alone", "m");
    w->authority = (struct authority){ .registry = w->registry, .hostname = WORLD_HOST };
    assert_true(sas_key_parse(SPAN(WORLD_POLICY), &w->authority.policy_key));
    return w;
}

static inline struct world *world_free(struct world *w)
{
    registry_free(w->registry);
    free(w);
    return NULL;
}

/* The caller frees. */
static inline char *world_token_until(const char *resource, const char *base64, const char *policy,
                                      int64_t expires)
{
    struct sas_key key;

    assert_true(sas_key_parse(span_str(base64), &key));
    return sas_token_make(resource, &key, policy, expires);
}

static inline char *world_token(const char *resource, const char *base64, const char *policy)
{
    return world_token_until(resource, base64, policy, WORLD_NOW + 3600);
}

static inline int world_set_up(void **state)
{
    *state = world_new();
    return 0;
}

static inline int world_tear_down(void **state)
{
    *state = world_free(*state);
    return 0;
}
