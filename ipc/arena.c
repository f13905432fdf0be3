/*
 * A bump allocator. Blocks are taken as needed; the first one (64 KiB) stays over a reset, so a
 * batch of ordinary size costs no call of malloc(). What would waste most of a block gets one of
 * its own, behind the current block, which goes on to be filled.
 */
#include "arena.h"

#include <stdint.h>

#include "mem.h"

enum {
    ARENA_ALIGN = 16,
    ARENA_BLOCK_BYTES = 64 << 10,
    ARENA_HUGE_BYTES = ARENA_BLOCK_BYTES / 4,
};

struct block {
    struct block *next; /* the one taken before */
    size_t used;
    size_t capacity;
    _Alignas(ARENA_ALIGN) char data[];
};

struct arena {
    struct block *first;   /* kept */
    struct block *current; /* the newest of ordinary size; its chain ends in @first */
    struct block *huge;    /* a chain of blocks with one allocation each */
    ProtobufCAllocator allocator;
};

static struct block *block_new(size_t capacity)
{
    struct block *block;
    size_t bytes;

    if (__builtin_add_overflow(capacity, sizeof(*block), &bytes))
        bytes = SIZE_MAX; /* the allocation fails, and says so */
    block = xrealloc(NULL, bytes);
    *block = (struct block){ .capacity = capacity };
    return block;
}

static void blocks_free(struct block *block, const struct block *end)
{
    while (block != end) {
        struct block *next = block->next;

        free(block);
        block = next;
    }
}

static void *arena_on_alloc(void *userdata, size_t n)
{
    return arena_alloc(userdata, n);
}

static void arena_on_free(void *userdata, void *p)
{
    /* all at once, by arena_reset() */
}

struct arena *arena_new(void)
{
    struct arena *arena = xnew(struct arena);

    arena->first = arena->current = block_new(ARENA_BLOCK_BYTES);
    arena->allocator = (ProtobufCAllocator){ arena_on_alloc, arena_on_free, arena };
    return arena;
}

struct arena *arena_free(struct arena *arena)
{
    if (!arena)
        return NULL;
    blocks_free(arena->huge, NULL);
    blocks_free(arena->current, NULL);
    free(arena);
    return NULL;
}

static void *arena_alloc_huge(struct arena *arena, size_t n)
{
    struct block *block = block_new(n);

    block->next = arena->huge;
    arena->huge = block;
    return block->data;
}

void *arena_alloc(struct arena *arena, size_t n)
{
    struct block *block = arena->current;
    void *p;

    if (n > ARENA_HUGE_BYTES)
        return arena_alloc_huge(arena, n);
    n = (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (block->capacity - block->used < n) {
        block = block_new(ARENA_BLOCK_BYTES);
        block->next = arena->current;
        arena->current = block;
    }
    p = block->data + block->used;
    block->used += n;
    return p;
}

char *arena_strndup(struct arena *arena, const char *s, size_t n)
{
    char *copy;

    n = strnlen(s, n);
    copy = arena_alloc(arena, n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *arena_strdup(struct arena *arena, const char *s)
{
    return arena_strndup(arena, s, strlen(s));
}

void arena_reset(struct arena *arena)
{
    blocks_free(arena->huge, NULL);
    blocks_free(arena->current, arena->first);
    arena->huge = NULL;
    arena->current = arena->first;
    arena->first->used = 0;
}

ProtobufCAllocator *arena_allocator(struct arena *arena)
{
    return &arena->allocator;
}
