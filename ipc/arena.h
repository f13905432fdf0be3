/* Memory that is given back all at once: protobuf messages are decoded into it and gone with the batch. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

struct arena;

struct arena *arena_new(void);
struct arena *arena_free(struct arena *arena);
void *arena_alloc(struct arena *arena, size_t n); /* 16-byte aligned, not zeroed, does not fail */
char *arena_strdup(struct arena *arena, const char *s);
char *arena_strndup(struct arena *arena, const char *s, size_t n);
void arena_reset(struct arena *arena); /* keeps its first block, gives the others back */
ProtobufCAllocator *arena_allocator(struct arena *arena);
