/* RocksDB, tuned for a small box: memory bounded, few files, one thread in the background, no
 * statistics. */
#include "store-rocks.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct rocks {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *write_sync;
    rocksdb_writeoptions_t *write_lazy;
    rocksdb_readoptions_t *read;
    rocksdb_flushoptions_t *flush;
    char *path;
};

struct rocks_batch {
    rocksdb_writebatch_t *batch;
    uint64_t bytes;
};

struct rocks_scan {
    rocksdb_readoptions_t *options;
    rocksdb_iterator_t *iterator;
    char *until; /* RocksDB does not copy the bound */
    bool begun;
};

enum {
    MEMTABLES_MAX = 3,
    TABLE_BLOCK_BYTES = 16 << 10,
    TABLE_FILE_BYTES = 8 << 20,
    TABLES_PER_LEVEL = 4, /* in the first level below the newest files */
    TABLES_PER_MERGE = 12,
    NEWEST_SLOW = 8,  /* so many of the newest files wait to be merged: writing slows down, ... */
    NEWEST_STOP = 12, /* ... and waits. All of them are merged, and copied, at once */
    SYNC_STEP_BYTES =
        1 << 20, /* table files go to disk in steps, not in one burst before the WAL's sync */
    TOMBSTONE_WINDOW = 4096,  /* a table file with so many keys in a row, of which ... */
    TOMBSTONE_TRIGGER = 2048, /* ... so many are removals, is compacted soon */
    MANIFEST_BYTES = 1 << 20,
    MANIFEST_STEP_BYTES = 64 << 10,
    FILE_BYTES_MIN = 64 << 10,
    FILES_PER_DISK = 256, /* of so many table files its disk consists, or more */
    INFO_LOG_FATAL = 4,
    PROBE_BYTES = 256 << 10,
    BATCH_KEPT_BYTES = 256 << 10, /* a batch that was larger gives its memory back */
};

/* RocksDB's errors are texts; what they begin with is their kind. Takes the text. */
static int error_take(char *text, struct rocks_error *ret_error)
{
    int r = -EIO;

    if (!text)
        return 0;
    if (strncmp(text, "Corruption", strlen("Corruption")) == 0)
        r = ROCKS_E_CORRUPT;
    else if (strstr(text, "No space left on device") || strstr(text, "NoSpace") ||
             strstr(text, "Disk quota exceeded"))
        r = -ENOSPC;
    else if (strstr(text, "lock "))
        r = -EBUSY;
    snprintf(ret_error->text, sizeof(ret_error->text), "%s", text);
    rocksdb_free(text);
    return r;
}

/* Merging files makes copies of them: where the disk is small, files are, too. */
static uint64_t rocks_file_bytes(const struct rocks_options *o, uint64_t wanted)
{
    uint64_t bytes = o->disk_bytes / FILES_PER_DISK;

    if (o->disk_bytes == 0 || bytes > wanted)
        return wanted;
    return bytes < FILE_BYTES_MIN ? FILE_BYTES_MIN : bytes;
}

static void rocks_tune_memory(struct rocks *rocks, const struct rocks_options *o)
{
    rocksdb_options_set_write_buffer_size(rocks->options, rocks_file_bytes(o, o->memtable_bytes));
    rocksdb_options_set_max_write_buffer_number(rocks->options, MEMTABLES_MAX);
    rocksdb_options_set_max_write_buffer_size_to_maintain(rocks->options, 0);
    rocksdb_options_set_max_open_files(rocks->options, (int)o->open_files);
    rocks->cache = rocksdb_cache_create_lru(o->block_cache_bytes);
    rocksdb_block_based_options_set_block_cache(rocks->table, rocks->cache);
    rocksdb_block_based_options_set_block_size(rocks->table, TABLE_BLOCK_BYTES);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(rocks->table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(rocks->table, 1);
    rocksdb_options_set_block_based_table_factory(rocks->options, rocks->table);
}

static void rocks_tune_disk(struct rocks *rocks, const struct rocks_options *o)
{
    uint64_t file_bytes = rocks_file_bytes(o, TABLE_FILE_BYTES);

    rocksdb_options_set_compression(rocks->options, rocksdb_lz4_compression);
    rocksdb_options_set_target_file_size_base(rocks->options, file_bytes);
    rocksdb_options_set_max_bytes_for_level_base(rocks->options, file_bytes * TABLES_PER_LEVEL);
    rocksdb_options_set_max_compaction_bytes(rocks->options, file_bytes * TABLES_PER_MERGE);
    rocksdb_options_set_level0_slowdown_writes_trigger(rocks->options, NEWEST_SLOW);
    rocksdb_options_set_level0_stop_writes_trigger(rocks->options, NEWEST_STOP);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(rocks->options, 1);
    rocksdb_options_set_bytes_per_sync(rocks->options, SYNC_STEP_BYTES);
    rocksdb_options_set_max_manifest_file_size(rocks->options, MANIFEST_BYTES);
    rocksdb_options_set_manifest_preallocation_size(rocks->options, MANIFEST_STEP_BYTES);
    rocksdb_options_add_compact_on_deletion_collector_factory(rocks->options, TOMBSTONE_WINDOW,
                                                              TOMBSTONE_TRIGGER);
    /* Up to the first record of the WAL that is torn: exactly what was synced, and perhaps more. It
     * rules out recycling logs, in which the end cannot be told from what was there before. */
    rocksdb_options_set_wal_recovery_mode(rocks->options, rocksdb_point_in_time_recovery);
    rocksdb_options_set_paranoid_checks(rocks->options, 1);
}

static void rocks_tune_work(struct rocks *rocks)
{
    rocksdb_env_t *env = rocksdb_create_default_env();

    rocksdb_env_set_background_threads(env, 1);
    rocksdb_env_set_high_priority_background_threads(env, 1);
    rocksdb_env_lower_thread_pool_io_priority(env);
    rocksdb_env_destroy(env); /* the handle: the environment is the process's */
    rocksdb_options_set_max_background_jobs(rocks->options, 2);
    rocksdb_options_set_allow_concurrent_memtable_write(rocks->options,
                                                        0); /* there is one writer */
    rocksdb_options_set_stats_dump_period_sec(rocks->options, 0);
    rocksdb_options_set_stats_persist_period_sec(rocks->options, 0);
    rocksdb_options_set_skip_stats_update_on_db_open(rocks->options, 1);
    rocksdb_options_set_info_log_level(rocks->options, INFO_LOG_FATAL);
    rocksdb_options_set_max_log_file_size(rocks->options, 0);
    rocksdb_options_set_keep_log_file_num(rocks->options, 1);
}

static struct rocks *rocks_new(const char *path, const struct rocks_options *options)
{
    struct rocks *rocks = xnew(struct rocks);

    rocks->path = xstrdup(path);
    rocks->options = rocksdb_options_create();
    rocks->table = rocksdb_block_based_options_create();
    rocksdb_options_set_create_if_missing(rocks->options, 1);
    rocks_tune_memory(rocks, options);
    rocks_tune_disk(rocks, options);
    rocks_tune_work(rocks);
    rocks->write_lazy = rocksdb_writeoptions_create();
    rocks->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(rocks->write_sync, 1);
    rocks->read = rocksdb_readoptions_create();
    rocks->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(rocks->flush, 0);
    return rocks;
}

/*
 * Is there room to open it at all? RocksDB writes 20 KB to a log of its own when it opens. Where
 * that cannot be written, RocksDB as Debian builds it, with assertions, ends the process; so it is
 * not let near a full disk, and logs nothing more once it is open (INFO_LOG_FATAL).
 */
static int rocks_probe(const char *path, struct rocks_error *ret_error)
{
    _cleanup_(freep) char *name = xasprintf("%s.probe", path), *zeros = xalloc0(PROBE_BYTES);
    _cleanup_(closep) int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = fd >= 0 ? write(fd, zeros, PROBE_BYTES) : -1;
    int r = n < 0 ? -errno : n < PROBE_BYTES ? -ENOSPC : 0;

    if (r != 0)
        snprintf(ret_error->text, sizeof(ret_error->text), "%s cannot be written: %s", name,
                 strerror(-r));
    unlink(name);
    return r;
}

/* Each opening that fails leaves an empty log of RocksDB's behind, and only one that succeeds tidies
 * up: a disk that stays full would run out of inodes. */
static void rocks_remove_old_logs(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir)))
        if (strncmp(entry->d_name, "LOG.old.", strlen("LOG.old.")) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

/* The folder's own entry is to survive a power cut too: RocksDB sees to what is in it. */
static int rocks_sync_parent(const char *path)
{
    _cleanup_(freep) char *parent = xasprintf("%s/..", path);
    _cleanup_(closep) int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int rocks_open(const char *path, const struct rocks_options *options, struct rocks **ret,
               struct rocks_error *ret_error)
{
    _cleanup_(rocks_freep) struct rocks *rocks = rocks_new(path, options);
    char *text = NULL;
    int r;

    r = rocks_probe(path, ret_error);
    if (r != 0)
        return r;
    rocks_remove_old_logs(path);
    rocks->db = rocksdb_open(rocks->options, path, &text);
    r = error_take(text, ret_error);
    if (r != 0)
        return r;
    r = rocks_sync_parent(path);
    if (r < 0) {
        snprintf(ret_error->text, sizeof(ret_error->text), "syncing its folder: %s", strerror(-r));
        return r;
    }
    *ret = TAKE_PTR(rocks);
    return 0;
}

struct rocks *rocks_free(struct rocks *rocks)
{
    if (!rocks)
        return NULL;
    if (rocks->db)
        rocksdb_close(rocks->db);
    rocksdb_flushoptions_destroy(rocks->flush);
    rocksdb_readoptions_destroy(rocks->read);
    rocksdb_writeoptions_destroy(rocks->write_sync);
    rocksdb_writeoptions_destroy(rocks->write_lazy);
    rocksdb_block_based_options_destroy(rocks->table);
    rocksdb_cache_destroy(rocks->cache);
    rocksdb_options_destroy(rocks->options);
    free(rocks->path);
    free(rocks);
    return NULL;
}

int rocks_repair(const char *path, const struct rocks_options *options,
                 struct rocks_error *ret_error)
{
    _cleanup_(rocks_freep) struct rocks *rocks = rocks_new(path, options);
    char *text = NULL;
    int r;

    r = rocks_probe(path, ret_error);
    if (r != 0)
        return r;
    rocksdb_repair_db(rocks->options, path, &text);
    return error_take(text, ret_error);
}

struct rocks_batch *rocks_batch_new(void)
{
    struct rocks_batch *batch = xnew(struct rocks_batch);

    batch->batch = rocksdb_writebatch_create();
    return batch;
}

struct rocks_batch *rocks_batch_free(struct rocks_batch *batch)
{
    if (!batch)
        return NULL;
    rocksdb_writebatch_destroy(batch->batch);
    free(batch);
    return NULL;
}

void rocks_batch_put(struct rocks_batch *batch, struct span key, struct span value)
{
    rocksdb_writebatch_put(batch->batch, key.at, key.len, value.at, value.len);
    batch->bytes += key.len + value.len;
}

void rocks_batch_remove(struct rocks_batch *batch, struct span key)
{
    rocksdb_writebatch_delete(batch->batch, key.at, key.len);
    batch->bytes += key.len;
}

void rocks_batch_remove_once(struct rocks_batch *batch, struct span key)
{
    rocksdb_writebatch_singledelete(batch->batch, key.at, key.len);
    batch->bytes += key.len;
}

uint64_t rocks_batch_bytes(const struct rocks_batch *batch)
{
    return batch->bytes;
}

unsigned rocks_batch_count(const struct rocks_batch *batch)
{
    return (unsigned)rocksdb_writebatch_count(batch->batch);
}

void rocks_batch_clear(struct rocks_batch *batch)
{
    if (batch->bytes > BATCH_KEPT_BYTES) {
        rocksdb_writebatch_destroy(batch->batch);
        batch->batch = rocksdb_writebatch_create();
    } else {
        rocksdb_writebatch_clear(batch->batch);
    }
    batch->bytes = 0;
}

int rocks_write(struct rocks *rocks, struct rocks_batch *batch, bool sync,
                struct rocks_error *ret_error)
{
    char *text = NULL;

    rocksdb_write(rocks->db, sync ? rocks->write_sync : rocks->write_lazy, batch->batch, &text);
    return error_take(text, ret_error);
}

int rocks_sync(struct rocks *rocks, struct rocks_error *ret_error)
{
    char *text = NULL;

    rocksdb_flush_wal(rocks->db, 1, &text);
    return error_take(text, ret_error);
}

int rocks_get(struct rocks *rocks, struct span key, struct buf *ret_value,
              struct rocks_error *ret_error)
{
    rocksdb_pinnableslice_t *value;
    char *text = NULL;
    const char *at;
    size_t len;
    int r;

    value = rocksdb_get_pinned(rocks->db, rocks->read, key.at, key.len, &text);
    r = error_take(text, ret_error);
    if (r != 0)
        return r;
    if (!value)
        return ROCKS_E_NOT_FOUND;
    at = rocksdb_pinnableslice_value(value, &len);
    buf_append(ret_value, at, len);
    rocksdb_pinnableslice_destroy(value);
    return 0;
}

struct rocks_scan *rocks_scan_new(struct rocks *rocks, struct span from, struct span until)
{
    struct rocks_scan *scan = xnew(struct rocks_scan);

    scan->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(scan->options, 0); /* it is read once, and then removed */
    if (until.len > 0) {
        scan->until = xmemdup(until.at, until.len);
        rocksdb_readoptions_set_iterate_upper_bound(scan->options, scan->until, until.len);
    }
    scan->iterator = rocksdb_create_iterator(rocks->db, scan->options);
    rocksdb_iter_seek(scan->iterator, from.at, from.len);
    return scan;
}

struct rocks_scan *rocks_scan_free(struct rocks_scan *scan)
{
    if (!scan)
        return NULL;
    rocksdb_iter_destroy(scan->iterator);
    rocksdb_readoptions_destroy(scan->options);
    free(scan->until);
    free(scan);
    return NULL;
}

bool rocks_scan_next(struct rocks_scan *scan, struct span *ret_key, struct span *ret_value)
{
    if (scan->begun)
        rocksdb_iter_next(scan->iterator);
    scan->begun = true;
    if (!rocksdb_iter_valid(scan->iterator))
        return false;
    ret_key->at = rocksdb_iter_key(scan->iterator, &ret_key->len);
    ret_value->at = rocksdb_iter_value(scan->iterator, &ret_value->len);
    return true;
}

int rocks_scan_error(struct rocks_scan *scan, struct rocks_error *ret_error)
{
    char *text = NULL;

    rocksdb_iter_get_error(scan->iterator, &text);
    return error_take(text, ret_error);
}

uint64_t rocks_disk_bytes(const struct rocks *rocks)
{
    DIR *dir = opendir(rocks->path);
    struct dirent *entry;
    uint64_t sum = 0;

    if (!dir)
        return 0;
    while ((entry = readdir(dir))) {
        struct stat st;

        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_blocks * 512;
    }
    closedir(dir);
    return sum;
}

/* Errors are not told: where the database is in trouble, the next write says so. */
void rocks_reclaim(struct rocks *rocks)
{
    char *text = NULL;

    rocksdb_flush(rocks->db, rocks->flush, &text);
    rocksdb_free(text);
    text = NULL;
    rocksdb_suggest_compact_range(rocks->db, NULL, 0, NULL, 0, &text);
    rocksdb_free(text);
}

int rocks_disk_space(const char *path, uint64_t *ret_total, uint64_t *ret_free)
{
    struct statvfs fs;

    if (statvfs(path, &fs) < 0)
        return -errno;
    *ret_total = (uint64_t)fs.f_blocks * fs.f_frsize;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}
