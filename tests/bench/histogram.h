/* Latencies, kept with a relative error below 2 %: 64 steps for each power of two. {} is an empty
 * one. */
#pragma once

#include <stdint.h>

enum {
    HISTOGRAM_STEPS = 64,
    HISTOGRAM_BUCKETS = HISTOGRAM_STEPS * 42
}; /* up to 2^47 ns: a day and a half */

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, max;
};

void histogram_add(struct histogram *h, uint64_t ns);
/* The value that @share (0.99) of all do not exceed; 0 when it is empty. */
uint64_t histogram_at(const struct histogram *h, double share);

uint64_t bench_now_ns(void);
