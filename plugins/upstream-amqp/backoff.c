#include "backoff.h"

uint64_t backoff_next(struct backoff *b, uint64_t min_usec, uint64_t max_usec, uint32_t random)
{
    uint64_t delay = min_usec;

    for (unsigned n = 0; n < b->failures && delay < max_usec; n++)
        delay *= 2;
    if (delay >= max_usec)
        delay = max_usec;
    else
        b->failures++; /* counting on after the maximum would change nothing */
    return delay - delay / 2 * random / UINT32_MAX;
}

void backoff_reset(struct backoff *b)
{
    b->failures = 0;
}
