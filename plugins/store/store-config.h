/* The store's settings. */
#pragma once

#include <stdint.h>

#include "config.h"

enum durability { DURABILITY_SYNC, DURABILITY_INTERVAL };
enum when_full { WHEN_FULL_REJECT, WHEN_FULL_DROP_OLDEST };

struct store_config {
    int durability;
    uint64_t durability_interval_ms;
    uint64_t max_bytes;
    uint64_t max_share;
    int when_full;
    uint64_t memtable_bytes;
    uint64_t block_cache_bytes;
    uint64_t open_files;
};

extern const struct config_item store_config_items[];
