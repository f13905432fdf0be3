/*
 * The database: RocksDB behind a few calls. Only store-rocks.c knows its API. Writing and opening
 * may be done by another thread than reading (RocksDB allows it); everything else is for one thread
 * at a time.
 *
 * Keys of messages are written once and removed once (batch_remove_once), so that a message that
 * was fetched before its memtable was flushed leaves no trace in any table file.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "mem.h"
#include "span.h"

struct rocks;
struct rocks_batch;
struct rocks_scan;

struct rocks_options {
    uint64_t memtable_bytes; /* one of up to three; less where disk_bytes is small */
    uint64_t block_cache_bytes;
    uint64_t open_files;
    uint64_t disk_bytes; /* how much there is: files and the copies made of them are small against
                            it */
};

/* Beside -errno (-ENOSPC, -EIO, -EBUSY: another process has it open): */
enum {
    ROCKS_E_CORRUPT = 1, /* what is on disk is not what was written */
    ROCKS_E_NOT_FOUND,
};

/* What RocksDB said. */
struct rocks_error {
    char text[256];
};

/* Makes the database when it is not there. */
int rocks_open(const char *path, const struct rocks_options *options, struct rocks **ret,
               struct rocks_error *ret_error);
struct rocks *rocks_free(struct rocks *rocks);
DEFINE_FREEP(struct rocks, rocks_free)
/* Saves what can be read of a damaged database, in place. */
int rocks_repair(const char *path, const struct rocks_options *options,
                 struct rocks_error *ret_error);

struct rocks_batch *rocks_batch_new(void);
struct rocks_batch *rocks_batch_free(struct rocks_batch *batch);
DEFINE_FREEP(struct rocks_batch, rocks_batch_free)
void rocks_batch_put(struct rocks_batch *batch, struct span key, struct span value);
void rocks_batch_remove(struct rocks_batch *batch, struct span key);
/* Of a key that was put exactly once, and is removed exactly once. */
void rocks_batch_remove_once(struct rocks_batch *batch, struct span key);
uint64_t rocks_batch_bytes(const struct rocks_batch *batch);
unsigned rocks_batch_count(const struct rocks_batch *batch);
void rocks_batch_clear(struct rocks_batch *batch);

/* All of the batch or nothing. It survives a crash of the process; with @sync a power cut too. */
int rocks_write(struct rocks *rocks, struct rocks_batch *batch, bool sync,
                struct rocks_error *ret_error);
/* From here everything written before survives a power cut. */
int rocks_sync(struct rocks *rocks, struct rocks_error *ret_error);

/* The value, appended to @ret_value. */
int rocks_get(struct rocks *rocks, struct span key, struct buf *ret_value,
              struct rocks_error *ret_error);

/* Reads the keys from @from on that are less than @until, in order, as they are now. */
struct rocks_scan *rocks_scan_new(struct rocks *rocks, struct span from, struct span until);
struct rocks_scan *rocks_scan_free(struct rocks_scan *scan);
DEFINE_FREEP(struct rocks_scan, rocks_scan_free)
/* True: the next one, borrowed until the next call. False: the end, or rocks_scan_error(). */
bool rocks_scan_next(struct rocks_scan *scan, struct span *ret_key, struct span *ret_value);
int rocks_scan_error(struct rocks_scan *scan, struct rocks_error *ret_error);

/* What its files take up on disk: logs, tables, what is deleted and not reclaimed, and what is
 * being copied just now. Costs a stat() for each file. */
uint64_t rocks_disk_bytes(const struct rocks *rocks);
/* Starts to give back what is removed: removals leave memory, and meet what they remove one level of
 * tables deeper each time. It goes on in the background. */
void rocks_reclaim(struct rocks *rocks);

/* The file system that holds @path, or will: how large it is, and how much of it is free for us. */
int rocks_disk_space(const char *path, uint64_t *ret_total, uint64_t *ret_free);
