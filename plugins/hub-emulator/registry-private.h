/* The registry's members, its checks and its file. Of the registry-*.c only. */
#pragma once

#include "registry.h"

struct registry {
    char *path;
    struct device **devices; /* by name */
    size_t device_count, device_capacity;
    uint64_t last_generation;
    unsigned holds;
    bool dirty; /* newer than the file */
    registry_changed_fn *on_change;
    void *on_change_userdata;
};

struct device *device_free(struct device *device);
DEFINE_FREEP(struct device, device_free)

void registry_insert(struct registry *registry, struct device *device);

/* 0 or REGISTRY_E_ARGUMENT. @current: NULL when it is to be made. */
int registry_check_device(const struct registry *registry, const struct device *current,
                          const struct identity_spec *spec, struct registry_error *ret_error);
int registry_check_module(const struct identity_spec *spec, struct registry_error *ret_error);
/* How the parents of a device are to be, after @spec: NULL-terminated and borrowed; NULL: as they are. A leaf's scope is
 * its parent's; of two that are told, the one that is news counts. */
const char *const *registry_wanted_parents(const struct device *current,
                                           const struct identity_spec *spec, bool edge,
                                           const char *place[static 2]);

/* A missing file is an empty registry. -EBADMSG, logged: damaged, or not a registry. */
int registry_load(struct registry *registry);
/* Replaces the file: the old one, or the new one whole, is there after a power cut. */
int registry_save(struct registry *registry);
