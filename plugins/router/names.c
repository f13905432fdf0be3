#include "names.h"

enum { SLOTS_MIN = 16 };

void names_done(struct names *names)
{
    for (uint32_t i = 0; i < names->count; i++)
        free(names->items[i].text);
    free(names->items);
    free(names->slots);
    *names = (struct names){};
}

/* FNV-1a. What goes into the set comes from the operator, so nobody can choose it to collide. */
uint32_t names_hash(uint32_t hash, struct span piece)
{
    for (size_t i = 0; i < piece.len; i++)
        hash = (hash ^ (unsigned char)piece.at[i]) * 16777619;
    return hash;
}

/* The slot of @text, or the free one where it belongs. */
static uint32_t slot_find(const struct names *names, struct span text, uint32_t hash)
{
    uint32_t mask = names->slot_count - 1, at = hash & mask;

    for (;; at = (at + 1) & mask) {
        const struct name *name;

        if (names->slots[at] == NAMES_NONE)
            return at;
        name = &names->items[names->slots[at]];
        if (name->hash == hash && span_equal(span_of(name->text, name->len), text))
            return at;
    }
}

static void slots_grow(struct names *names)
{
    names->slot_count = names->slot_count > 0 ? names->slot_count * 2 : SLOTS_MIN;
    names->slots = xrealloc(names->slots, names->slot_count * sizeof(names->slots[0]));
    memset(names->slots, 0xff, names->slot_count * sizeof(names->slots[0]));
    for (uint32_t i = 0; i < names->count; i++) {
        const struct name *name = &names->items[i];

        names->slots[slot_find(names, span_of(name->text, name->len), name->hash)] = i;
    }
}

uint32_t names_add(struct names *names, struct span text, bool *ret_is_new)
{
    uint32_t hash = names_hash(NAMES_HASH_START, text), number, slot;

    number = names_find(names, text, hash);
    *ret_is_new = number == NAMES_NONE;
    if (!*ret_is_new)
        return number;
    if (2 * names->count >= names->slot_count)
        slots_grow(names);
    slot = slot_find(names, text, hash);
    xgrow(names->items, names->count, names->capacity);
    names->items[names->count] = (struct name){ span_xdup(text), text.len, hash };
    names->slots[slot] = names->count;
    return names->count++;
}

uint32_t names_find(const struct names *names, struct span text, uint32_t hash)
{
    return names->slot_count > 0 ? names->slots[slot_find(names, text, hash)] : NAMES_NONE;
}
