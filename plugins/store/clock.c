/* A clock that a jump of the wall clock cannot shake. */
#include "clock.h"

#include <string.h>

#define UTC_BELIEVABLE_MS INT64_C(1577836800000) /* 2020: earlier is a clock that was never set */

void clock_init(struct clock *c, const struct clock_value *saved, const struct clock_reading *now)
{
    *c = (struct clock){ .boot_start_ms = now->boot_ms, .settled = true };
    if (!saved)
        return;
    c->start_ms = c->saved_ms = saved->clock_ms;
    c->saved_utc_ms = saved->utc_ms;
    if (memcmp(saved->boot_id, now->boot_id, BOOT_ID_BYTES) == 0) {
        if (now->boot_ms > saved->boot_ms)
            c->start_ms += now->boot_ms - saved->boot_ms;
        return;
    }
    c->start_ms +=
        now->boot_ms; /* it was off until then, for a time that clock_settle() finds out */
    c->settled = saved->utc_ms < UTC_BELIEVABLE_MS;
    clock_settle(c, now);
}

uint64_t clock_ms(const struct clock *c, uint64_t boot_ms)
{
    return c->start_ms + (boot_ms > c->boot_start_ms ? boot_ms - c->boot_start_ms : 0);
}

bool clock_settle(struct clock *c, const struct clock_reading *now)
{
    uint64_t shown = clock_ms(c, now->boot_ms), passed;

    if (c->settled || now->utc_ms < c->saved_utc_ms)
        return false;
    passed = (uint64_t)(now->utc_ms - c->saved_utc_ms);
    if (c->saved_ms + passed < shown)
        return false; /* less than this boot alone has lasted: not set yet */
    c->start_ms += c->saved_ms + passed - shown;
    c->settled = true;
    return true;
}

struct clock_value clock_save(const struct clock *c, const struct clock_reading *now)
{
    struct clock_value v = { .clock_ms = clock_ms(c, now->boot_ms),
                             .boot_ms = now->boot_ms,
                             .utc_ms = now->utc_ms };

    if (!c->settled) /* our own reckoning: the next boot must not measure from 1970 */
        v.utc_ms = c->saved_utc_ms + (int64_t)(v.clock_ms - c->saved_ms);
    memcpy(v.boot_id, now->boot_id, BOOT_ID_BYTES);
    return v;
}
