/* How long to wait before the next try: doubles with each failure, with jitter so that many gateways do not come back as one.
 * Pure. {} has not failed yet. */
#pragma once

#include <stdint.h>

struct backoff {
    unsigned failures; /* in a row */
};

/* One more failure. @random is any 32 random bits: the delay lies between half and all of min·2ⁿ, n counting from 0, and
 * of max. */
uint64_t backoff_next(struct backoff *b, uint64_t min_usec, uint64_t max_usec, uint32_t random);
void backoff_reset(struct backoff *b);
