/* A set of texts, each with a number: 0, 1, 2 in the order they came. For tables that are built
 * once and looked into often. */
#pragma once

#include <stdint.h>

#include "mem.h"
#include "span.h"

enum { NAMES_NONE = UINT32_MAX };

struct name {
    char *text;
    size_t len;
    uint32_t hash;
};

struct names {
    struct name *items;
    uint32_t count, capacity;
    uint32_t *slots; /* numbers, or NAMES_NONE; a power of two of them, half of them free */
    uint32_t slot_count;
};

void names_done(struct names *names);
/* Its number, a new one when it was not there (@ret_is_new). Copies @text. */
uint32_t names_add(struct names *names, struct span text, bool *ret_is_new);

/* The hash of a text is that of its pieces, one after the other. */
enum { NAMES_HASH_START = 2166136261 };
uint32_t names_hash(uint32_t hash, struct span piece);
uint32_t names_find(const struct names *names, struct span text, uint32_t hash);
