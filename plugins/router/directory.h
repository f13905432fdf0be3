/*
 * The directory of connected clients: which listener holds whom. One connection for each identity over all listeners; the
 * newest wins. Pure: it says whom to tell. Lives in memory only: listeners tell it anew after a restart.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"
#include "router.pb-c.h"

struct directory;

/* A connection that lost its place to a newer one. */
typedef void directory_evict_fn(const char *listener, const Bus__ClientConnected *old,
                                void *userdata);

struct directory *directory_new(directory_evict_fn *evict, void *userdata);
struct directory *directory_free(struct directory *directory);
DEFINE_FREEP(struct directory, directory_free)

/* @listener is a literal. The client is copied. */
void directory_connect(struct directory *directory, const char *listener,
                       const Bus__ClientConnected *client);
/* False: it is another connection that holds the identity now; nothing is changed. */
bool directory_disconnect(struct directory *directory, const char *listener, const char *device_id,
                          const char *module_id, uint64_t connection);
/* Replaces all that is known of @listener. Where two listeners claim an identity, the connection made later wins. */
void directory_sync(struct directory *directory, const char *listener,
                    Bus__ClientConnected **clients, size_t count);

size_t directory_count(const struct directory *directory);
void directory_each(const struct directory *directory,
                    void (*fn)(const char *listener, const Bus__ClientConnected *client,
                               void *userdata),
                    void *userdata);
