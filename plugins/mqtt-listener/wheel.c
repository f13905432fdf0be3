#include "wheel.h"

#include <stddef.h>

void wheel_init(struct wheel *w, uint64_t now_usec)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        w->slots[i].prev = w->slots[i].next = &w->slots[i];
    w->tick = now_usec / WHEEL_TICK_USEC;
}

void wheel_remove(struct wheel_entry *entry)
{
    if (!entry->next)
        return;
    entry->prev->next = entry->next;
    entry->next->prev = entry->prev;
    entry->prev = entry->next = NULL;
}

void wheel_set(struct wheel *w, struct wheel_entry *entry, uint64_t due_usec)
{
    uint64_t tick = due_usec / WHEEL_TICK_USEC;
    struct wheel_entry *head = &w->slots[(tick < w->tick ? w->tick : tick) % WHEEL_SLOTS];

    wheel_remove(entry);
    entry->due_usec = due_usec;
    entry->prev = head->prev;
    entry->next = head;
    head->prev->next = entry;
    head->prev = entry;
}

/* What is due in a later round of the wheel stays in its slot. */
static struct wheel_entry *slot_find(struct wheel_entry *head, uint64_t now_usec)
{
    for (struct wheel_entry *entry = head->next; entry != head; entry = entry->next)
        if (entry->due_usec <= now_usec)
            return entry;
    return NULL;
}

struct wheel_entry *wheel_pop(struct wheel *w, uint64_t now_usec)
{
    uint64_t last = now_usec / WHEEL_TICK_USEC;

    if (last - w->tick > WHEEL_SLOTS && last > w->tick)
        w->tick = last - WHEEL_SLOTS; /* slept through a whole round: each slot once will do */
    for (;; w->tick++) {
        struct wheel_entry *entry = slot_find(&w->slots[w->tick % WHEEL_SLOTS], now_usec);

        if (entry) {
            wheel_remove(entry);
            return entry;
        }
        if (w->tick >= last)
            return NULL;
    }
}
