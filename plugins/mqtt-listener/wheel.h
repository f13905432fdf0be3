/*
 * Many coarse timers for the price of a list link each: they fire up to a tick late, in no
 * particular order. An sd-event source for each of 10,000 clients would cost ten times the memory,
 * and an update for each packet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { WHEEL_SLOTS = 1024, WHEEL_TICK_USEC = 1000 * 1000 };

struct wheel_entry {
    struct wheel_entry *prev, *next; /* NULL: it is in no wheel */
    uint64_t due_usec;
};

struct wheel {
    struct wheel_entry slots[WHEEL_SLOTS]; /* heads of rings */
    uint64_t tick;                         /* the first that is not done with */
};

void wheel_init(struct wheel *w, uint64_t now_usec);
void wheel_set(struct wheel *w, struct wheel_entry *entry, uint64_t due_usec); /* also moves it */
void wheel_remove(struct wheel_entry *entry);
/* Takes out one that is due. NULL: there is none. */
struct wheel_entry *wheel_pop(struct wheel *w, uint64_t now_usec);
