/*
 * The time by which tokens and certificates expire. A gateway without a battery starts in the past,
 * and an old token would be good again: so the time is never before the last one that was saved,
 * nor before what the hub said over TLS, and goes on from there. A clock that was once far ahead
 * would refuse everybody for ever: the hub's word sets that right.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

enum { TRUSTED_CLOCK_SLACK_SEC = 300, TRUSTED_CLOCK_SAVE_SEC = 600 };

struct trusted_clock {
    int64_t floor_sec;   /* UTC, at… */
    uint64_t floor_usec; /* …this CLOCK_BOOTTIME */
};

/* Pure. @utc_sec: what the system says. */
int64_t trusted_clock_at(const struct trusted_clock *clock, int64_t utc_sec, uint64_t boot_usec);
/* The hub's clock. True: the floor was wrong by more than the slack, and is another now. */
bool trusted_clock_correct(struct trusted_clock *clock, int64_t hub_sec, int64_t utc_sec,
                           uint64_t boot_usec);

/* The floor on disk. A file that is not there or makes no sense is no floor. */
void trusted_clock_load(struct trusted_clock *clock, const char *path, uint64_t boot_usec);
/* The content of the file. */
void trusted_clock_print(int64_t now_sec, struct buf *out);
