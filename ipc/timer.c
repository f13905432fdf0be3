/* The clocks, and arming timers of sd-event by a time from now. */
#include "timer.h"

#include <time.h>

static uint64_t clock_usec(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t now_usec(void)
{
    return clock_usec(CLOCK_MONOTONIC);
}

uint64_t boot_usec(void)
{
    return clock_usec(CLOCK_BOOTTIME);
}

int64_t utc_sec(void)
{
    return (int64_t)(clock_usec(CLOCK_REALTIME) / 1000000);
}

int64_t utc_msec(void)
{
    return (int64_t)(clock_usec(CLOCK_REALTIME) / 1000);
}

int timer_rearm(sd_event_source *timer, uint64_t usec_from_now)
{
    int r = sd_event_source_set_time(timer, now_usec() + usec_from_now);

    if (r >= 0)
        r = sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
    return r < 0 ? r : 0;
}

int timer_stop(sd_event_source *timer)
{
    return timer ? sd_event_source_set_enabled(timer, SD_EVENT_OFF) : 0;
}
