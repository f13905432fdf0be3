#include "store-config.h"

#define AT(field) offsetof(struct store_config, field)

static const char *const durability_names[] = { "sync", "interval", NULL };
static const char *const when_full_names[] = { "reject", "drop-oldest", NULL };

const struct config_item store_config_items[] = {
    { "durability", CONFIG_ENUM, AT(durability), "sync", NULL, NULL,
      "when an append is answered: `sync`, it survives a power cut; `interval`, it survives a "
      "crash of the process, and "
      "a power cut takes what was not synced yet",
      durability_names },
    { "durability_interval_ms", CONFIG_COUNT, AT(durability_interval_ms), "1000", "1", "60000",
      "with durability `interval`: how often what was written is synced", NULL },
    { "max_bytes", CONFIG_SIZE, AT(max_bytes), "2GiB", "16MiB", "1048576GiB",
      "how much of the disk the store may take, logs and garbage included; two thirds of it are "
      "for messages, counted as they came, the rest is room to reclaim what is delivered",
      NULL },
    { "max_share", CONFIG_COUNT, AT(max_share), "75", "1", "100",
      "the same in percent of the file system; what is less counts", NULL },
    { "when_full", CONFIG_ENUM, AT(when_full), "reject", NULL, NULL,
      "what happens when that is used up: `reject`, senders are held back and nothing is lost; "
      "`drop-oldest`, the oldest messages of the lowest priority make room. Priority 0 and records "
      "have a reserve",
      when_full_names },
    { "memtable_bytes", CONFIG_SIZE, AT(memtable_bytes), "8MiB", "1MiB", "256MiB",
      "memory for what is not in table files yet, up to three times; messages that are delivered "
      "before it is full "
      "never reach a table file",
      NULL },
    { "block_cache_bytes", CONFIG_SIZE, AT(block_cache_bytes), "4MiB", "1MiB", "1GiB",
      "memory for reading table files", NULL },
    { "open_files", CONFIG_COUNT, AT(open_files), "128", "32", "65536",
      "table files that are kept open", NULL },
    {},
};
