/*
 * How much of the disk the store may take, and what that means for who wants to add to it. Two
 * things are bounded, for they differ: what is *queued* (messages as they came, so that the limit
 * does not depend on how they compress), and what is *on disk* (logs, tables, and garbage: what is
 * deleted and not reclaimed yet). Between the two lies room for the copies that RocksDB makes when
 * it reclaims. Pure.
 *
 *   0 ──────────────────── queued_max ─ queued_urgent_max ─ disk_max ─ disk_urgent_max ─ bytes
 *     what is queued, all priorities  │  priority 0 only  │        garbage, copies        │
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct budget {
    uint64_t bytes; /* all in all */
    uint64_t queued_max, queued_urgent_max;
    uint64_t disk_max, disk_urgent_max, disk_record_max;
    uint64_t reclaim_bytes; /* so much garbage is worth the trouble */
};

/* What the file system says. */
struct disk_space {
    uint64_t total, free;
};

/* @max_share: percent of the file system. */
struct budget budget_make(uint64_t max_bytes, uint64_t max_share, uint64_t fs_bytes);

/* What counts now. */
struct budget_use {
    uint64_t queued;
    uint64_t disk;
    uint64_t fs_free;
};

enum budget_demand { DEMAND_MESSAGES, DEMAND_URGENT, DEMAND_RECORD };
enum {
    BUDGET_E_FULL = 1, /* the disk is: nothing helps but to wait */
    BUDGET_E_QUEUED,   /* too much is queued: dropping helps */
};
int budget_check(const struct budget *b, const struct budget_use *use, enum budget_demand demand,
                 uint64_t bytes);
/* How many bytes of messages have to go, if so many are to come. */
uint64_t budget_excess(const struct budget *b, const struct budget_use *use,
                       enum budget_demand demand, uint64_t bytes);
/* Garbage takes up what messages could. */
bool budget_is_pressed(const struct budget *b, const struct budget_use *use);
