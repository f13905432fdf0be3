/*
 * Who exists in the hub: devices and their modules, with keys, state, scope and versions. One JSON file in the state
 * folder, replaced whole and synced with every change: changes are an operator's, rare, and worth a disk's wait.
 *
 * What is handed out is borrowed and good until the next change.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

enum {
    REGISTRY_E_EXISTS = 1,
    REGISTRY_E_NO_DEVICE,
    REGISTRY_E_NO_MODULE,
    REGISTRY_E_ETAG,     /* If-Match names another version */
    REGISTRY_E_ARGUMENT, /* struct registry_error says what was expected */
    REGISTRY_E_TOO_MANY, /* modules on one device */
};
enum { REGISTRY_MODULES_MAX = 50, REGISTRY_NESTING_MAX = 5 };

enum credentials_kind {
    CREDENTIALS_NONE,
    CREDENTIALS_SAS,
    CREDENTIALS_SELF_SIGNED, /* certificates by thumbprint */
    CREDENTIALS_CERTIFICATE_AUTHORITY,
    _CREDENTIALS_KIND_COUNT,
};
extern const char *const credentials_kind_names[_CREDENTIALS_KIND_COUNT];

struct credentials {
    enum credentials_kind kind;
    char *primary_key; /* base64; NULL: not set */
    char *secondary_key;
    char *primary_thumbprint; /* hex as it was given; NULL: not set */
    char *secondary_thumbprint;
};

/* What a device and a module have in common. */
struct identity {
    char *generation_id; /* never the same twice, not even for the same name */
    char *etag;
    struct credentials credentials;
    bool connected;                /* this and the times are not kept over a restart */
    int64_t connection_changed_ms; /* UTC; 0: never */
    int64_t last_activity_ms;
};

struct module {
    char *id;
    char *managed_by; /* "" when nobody said */
    struct device *device;
    struct identity identity;
};

struct device {
    char *id;
    struct identity identity;
    bool enabled;
    char *status_reason; /* NULL: none */
    int64_t status_changed_ms;
    bool edge;
    char *scope;             /* an edge device's own, a leaf's parent's; NULL: none */
    char **parent_scopes;    /* NULL-terminated; NULL: none */
    struct module **modules; /* by name */
    size_t module_count, module_capacity;
};

/* What a caller wants of a device or a module. NULL and negative mean "not said": keep what is there, or the default. */
struct identity_spec {
    const char *device_id;
    const char *module_id;   /* modules only */
    const char *managed_by;  /* modules only */
    int credentials_kind;    /* enum credentials_kind */
    const char *primary_key; /* an empty key of CREDENTIALS_SAS is made up here */
    const char *secondary_key;
    const char *primary_thumbprint;
    const char *secondary_thumbprint;
    int enabled;
    const char *status_reason;
    int edge;
    const char *scope;                /* "": take it out of its parent's scope */
    const char *const *parent_scopes; /* NULL-terminated; empty: as above */
};
#define IDENTITY_SPEC_INIT                                                                         \
    ((struct identity_spec){ .credentials_kind = -1, .enabled = -1, .edge = -1 })

struct registry_error {
    const char *expected; /* a literal */
};

struct registry;

/* @path need not exist. -EBADMSG: the file is not ours, or damaged; it is left alone. */
int registry_open(const char *path, struct registry **ret);
struct registry *registry_free(struct registry *registry);
DEFINE_FREEP(struct registry, registry_free)

/* Runs after each change of a device, its modules included, and after its removal. */
typedef void registry_changed_fn(const char *device_id, void *userdata);
void registry_on_change(struct registry *registry, registry_changed_fn *fn, void *userdata);

struct device *registry_device(const struct registry *registry, const char *device_id);
struct module *registry_module(const struct registry *registry, const char *device_id,
                               const char *module_id);
/* Of a device (@module_id NULL or ""), or of a module. */
struct identity *registry_identity(const struct registry *registry, const char *device_id,
                                   const char *module_id);
/* In order of the ids. @after: only ids behind it, NULL: from the first. */
size_t registry_count(const struct registry *registry);
size_t registry_index_after(const struct registry *registry, const char *after);
struct device *registry_device_at(const struct registry *registry, size_t index);
/* The edge device whose own scope that is; NULL: nobody's. */
struct device *registry_edge_of_scope(const struct registry *registry, const char *scope);
/* One step up: is @child, a leaf or an edge device, in the scope of @parent? */
bool registry_is_child(const struct device *child, const struct device *parent);

/* Each is on disk when it returns 0. -errno: done in memory, not on disk. @if_match: NULL or an etag that must be
 * the current one. An edge device is made with its system modules. */
int registry_device_create(struct registry *registry, const struct identity_spec *spec,
                           struct registry_error *ret_error);
int registry_device_update(struct registry *registry, const struct identity_spec *spec,
                           const char *if_match, struct registry_error *ret_error);
int registry_device_remove(struct registry *registry, const char *device_id, const char *if_match);
int registry_module_create(struct registry *registry, const struct identity_spec *spec,
                           struct registry_error *ret_error);
int registry_module_update(struct registry *registry, const struct identity_spec *spec,
                           const char *if_match, struct registry_error *ret_error);
int registry_module_remove(struct registry *registry, const char *device_id, const char *module_id,
                           const char *if_match);

/* Many changes, one file written: between the two nothing is. */
void registry_hold(struct registry *registry);
int registry_release(struct registry *registry);

void registry_set_connected(struct registry *registry, const char *device_id, const char *module_id,
                            bool connected, int64_t now_ms);
