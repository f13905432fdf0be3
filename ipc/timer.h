/* The clocks, and arming timers of sd-event by a time from now. */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

int timer_rearm(sd_event_source *timer, uint64_t usec_from_now); /* one shot */
int timer_stop(sd_event_source *timer);

uint64_t now_usec(void);  /* CLOCK_MONOTONIC */
uint64_t boot_usec(void); /* CLOCK_BOOTTIME: goes on while suspended */
int64_t utc_sec(void);
int64_t utc_msec(void);
