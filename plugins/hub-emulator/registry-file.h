/* The registry's members, and its file. Of registry.c and registry-file.c only. */
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

/* A missing file is an empty registry. -EBADMSG, logged: damaged, or not a registry. */
int registry_load(struct registry *registry);
/* Replaces the file: the old one, or the new one whole, is there after a power cut. */
int registry_save(struct registry *registry);
