/*
 * The clock that messages grow old by. It runs with CLOCK_BOOTTIME, so that setting the wall clock
 * neither expires a backlog nor makes it young again; it goes on over restarts of the process; and
 * for the time the machine was off it takes the wall clock's word, once that can be believed: a
 * gateway without a battery starts in 1970, and is not believed before its time is later than what
 * was last seen. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "keys.h"

struct clock_reading {
    uint64_t boot_ms; /* CLOCK_BOOTTIME */
    int64_t utc_ms;
    uint8_t boot_id[BOOT_ID_BYTES];
};

struct clock {
    uint64_t start_ms; /* what it showed at boot_start_ms */
    uint64_t boot_start_ms;
    bool settled;      /* the time the machine was off is counted */
    uint64_t saved_ms; /* what it showed when the wall clock showed saved_utc_ms */
    int64_t saved_utc_ms;
};

/* @saved: what was stored last, or NULL when the store is new. */
void clock_init(struct clock *c, const struct clock_value *saved, const struct clock_reading *now);
uint64_t clock_ms(const struct clock *c, uint64_t boot_ms);
/* Counts the time the machine was off, when the wall clock has become believable. True: it just
 * did. */
bool clock_settle(struct clock *c, const struct clock_reading *now);
/* What to store now. */
struct clock_value clock_save(const struct clock *c, const struct clock_reading *now);
