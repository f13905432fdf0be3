/* Who holds an identity: at most one connection each. Entries live in their owners. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct client_map_entry {
    struct client_map_entry *next;
    const char *device_id; /* the owner's; not to change while it is in the map */
    const char *module_id;
    uint32_t hash;
};

/* {} is a valid empty one. */
struct client_map {
    struct client_map_entry **buckets;
    size_t size, count;
};

void client_map_done(struct client_map *map);
/* The one that held the identity until now, or NULL; it is out of the map. */
struct client_map_entry *client_map_put(struct client_map *map, struct client_map_entry *entry);
struct client_map_entry *client_map_find(const struct client_map *map, const char *device_id,
                                         const char *module_id);
void client_map_remove(struct client_map *map,
                       struct client_map_entry *entry); /* unless it is not in there */
