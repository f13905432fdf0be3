#include "directory.h"

#include <search.h>

struct held {
    const char *listener;
    Bus__ClientConnected client; /* strings owned */
    struct held *prev, *next;
};

struct directory {
    void *tree; /* tsearch(3), by device and module */
    struct held *first;
    size_t count;
    directory_evict_fn *evict;
    void *userdata;
};

static int held_compare(const void *a, const void *b)
{
    const struct held *x = a, *y = b;
    int r = strcmp(x->client.device_id, y->client.device_id);

    return r != 0 ? r : strcmp(x->client.module_id, y->client.module_id);
}

static struct held *held_find(const struct directory *directory, const char *device_id,
                              const char *module_id)
{
    struct held key = { .client = { .device_id = (char *)device_id,
                                    .module_id = (char *)module_id } };
    void *node = tfind(&key, &directory->tree, held_compare);

    return node ? *(struct held **)node : NULL;
}

static void client_dup(const Bus__ClientConnected *from, Bus__ClientConnected *to)
{
    *to = *from;
    to->device_id = xstrdup(from->device_id);
    to->module_id = xstrdup(from->module_id);
    to->peer_address = xstrdup(from->peer_address);
    to->protocol = xstrdup(from->protocol);
    to->product_info = xstrdup(from->product_info);
}

static void client_clear(Bus__ClientConnected *client)
{
    free(client->device_id);
    free(client->module_id);
    free(client->peer_address);
    free(client->protocol);
    free(client->product_info);
}

static void held_remove(struct directory *directory, struct held *held)
{
    tdelete(held, &directory->tree, held_compare);
    *(held->prev ? &held->prev->next : &directory->first) = held->next;
    if (held->next)
        held->next->prev = held->prev;
    directory->count--;
    client_clear(&held->client);
    free(held);
}

static void held_add(struct directory *directory, const char *listener,
                     const Bus__ClientConnected *client)
{
    struct held *held = xnew(struct held);

    held->listener = listener;
    client_dup(client, &held->client);
    held->next = directory->first;
    if (held->next)
        held->next->prev = held;
    directory->first = held;
    directory->count++;
    if (!tsearch(held, &directory->tree, held_compare))
        abort(); /* out of memory */
}

struct directory *directory_new(directory_evict_fn *evict, void *userdata)
{
    struct directory *directory = xnew(struct directory);

    directory->evict = evict;
    directory->userdata = userdata;
    return directory;
}

struct directory *directory_free(struct directory *directory)
{
    if (!directory)
        return NULL;
    while (directory->first)
        held_remove(directory, directory->first);
    free(directory);
    return NULL;
}

static bool is_connection(const struct held *held, const char *listener, uint64_t connection)
{
    return strcmp(held->listener, listener) == 0 && held->client.connection == connection;
}

void directory_connect(struct directory *directory, const char *listener,
                       const Bus__ClientConnected *client)
{
    struct held *old = held_find(directory, client->device_id, client->module_id);

    if (old && !is_connection(old, listener, client->connection))
        directory->evict(old->listener, &old->client, directory->userdata);
    if (old)
        held_remove(directory, old);
    held_add(directory, listener, client);
}

bool directory_disconnect(struct directory *directory, const char *listener, const char *device_id,
                          const char *module_id, uint64_t connection)
{
    struct held *held = held_find(directory, device_id, module_id);

    if (!held || !is_connection(held, listener, connection))
        return false;
    held_remove(directory, held);
    return true;
}

void directory_sync(struct directory *directory, const char *listener,
                    Bus__ClientConnected **clients, size_t count)
{
    for (struct held *held = directory->first, *next; held; held = next) {
        next = held->next;
        if (strcmp(held->listener, listener) == 0)
            held_remove(directory, held);
    }
    for (size_t i = 0; i < count; i++) {
        const struct held *other =
            held_find(directory, clients[i]->device_id, clients[i]->module_id);

        if (other && other->client.since_sec > clients[i]->since_sec)
            directory->evict(listener, clients[i], directory->userdata);
        else
            directory_connect(directory, listener, clients[i]);
    }
}

size_t directory_count(const struct directory *directory)
{
    return directory->count;
}

void directory_each(const struct directory *directory,
                    void (*fn)(const char *listener, const Bus__ClientConnected *client,
                               void *userdata),
                    void *userdata)
{
    for (const struct held *held = directory->first; held; held = held->next)
        fn(held->listener, &held->client, userdata);
}
