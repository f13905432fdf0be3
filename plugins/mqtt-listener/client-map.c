#include "client-map.h"

#include <string.h>

#include "mem.h"

enum { SIZE_MIN = 64 };

void client_map_done(struct client_map *map)
{
    free(map->buckets);
    *map = (struct client_map){};
}

/* FNV-1a. Nobody gets into the map who is not authenticated, so names are not chosen to collide. */
static uint32_t hash_text(uint32_t hash, const char *s)
{
    for (; *s; s++)
        hash = (hash ^ (uint8_t)*s) * 16777619u;
    return (hash ^ '/') * 16777619u;
}

static uint32_t hash_identity(const char *device_id, const char *module_id)
{
    return hash_text(hash_text(2166136261u, device_id), module_id);
}

static struct client_map_entry **client_map_place(const struct client_map *map, uint32_t hash,
                                                  const char *device_id, const char *module_id)
{
    struct client_map_entry **place = &map->buckets[hash & (map->size - 1)];

    while (*place && ((*place)->hash != hash || strcmp((*place)->device_id, device_id) != 0 ||
                      strcmp((*place)->module_id, module_id) != 0))
        place = &(*place)->next;
    return place;
}

static void client_map_grow(struct client_map *map)
{
    struct client_map larger = { .size = map->size ? map->size * 2 : SIZE_MIN };

    larger.buckets = xnew_n(struct client_map_entry *, larger.size);
    for (size_t i = 0; i < map->size; i++) {
        while (map->buckets[i]) {
            struct client_map_entry *entry = map->buckets[i];
            struct client_map_entry **bucket = &larger.buckets[entry->hash & (larger.size - 1)];

            map->buckets[i] = entry->next;
            entry->next = *bucket;
            *bucket = entry;
        }
    }
    free(map->buckets);
    map->buckets = larger.buckets;
    map->size = larger.size;
}

struct client_map_entry *client_map_put(struct client_map *map, struct client_map_entry *entry)
{
    struct client_map_entry **place, *older;

    if (map->count >= map->size)
        client_map_grow(map);
    entry->hash = hash_identity(entry->device_id, entry->module_id);
    place = client_map_place(map, entry->hash, entry->device_id, entry->module_id);
    older = *place;
    entry->next = older ? older->next : NULL;
    *place = entry;
    if (!older)
        map->count++;
    return older;
}

struct client_map_entry *client_map_find(const struct client_map *map, const char *device_id,
                                         const char *module_id)
{
    if (map->count == 0)
        return NULL;
    return *client_map_place(map, hash_identity(device_id, module_id), device_id, module_id);
}

void client_map_remove(struct client_map *map, struct client_map_entry *entry)
{
    struct client_map_entry **place;

    if (map->count == 0 || !entry->device_id)
        return;
    place = client_map_place(map, entry->hash, entry->device_id, entry->module_id);
    if (*place != entry)
        return;
    *place = entry->next;
    map->count--;
}
