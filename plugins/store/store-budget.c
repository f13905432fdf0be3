/*
 * The disk budget: what the store takes is looked at now and then, and reckoned in between. Where
 * room is short, what is removed is reclaimed, senders are held back or old messages make room.
 */
#include "store.h"

#include <errno.h>

#include "timer.h"

enum {
    LOOK_USEC = 100000,
    PRESSED_USEC = 250000, /* looks by itself while room is short */
    RECLAIM_STEP_USEC = 500000,
    RECLAIM_STEPS = 6, /* a removal sinks through so many levels, at most */
    RECLAIM_PAUSE_USEC = 15000000,
    ODD_SHARE = 8, /* so much of the budget that nobody accounts for is garbage from earlier */
    LOG_USEC = 10000000,
    QUOTA_BYTES_MIN = 16 << 20, /* with less there is no room to reclaim anything */
};

static void store_budget_set(struct store *store, const char *path)
{
    uint64_t total = UINT64_MAX, max = store->config.max_bytes;

    if (store->quota_bytes > 0 && store->quota_bytes < max)
        max = store->quota_bytes;

    if (rocks_disk_space(path, &total, &store->disk.fs_free) < 0)
        store->disk.fs_free = UINT64_MAX; /* then max_bytes alone bounds it */
    store->budget = budget_make(max, store->config.max_share, total);
}

static struct budget_use store_use(const struct store *store)
{
    const struct queues *queues = store->image->queues;
    uint64_t since = commit_counters(store->commit)->bytes - store->disk.written +
                     commit_pending_bytes(store->commit);

    return (struct budget_use){
        .queued = queues_bytes(queues) + queues_messages(queues) * ENTRY_OVERHEAD_BYTES,
        .disk = store->disk.bytes + since,
        .fs_free = store->disk.fs_free > since ? store->disk.fs_free - since : 0,
    };
}

/* What is removed takes up its place until RocksDB has merged the removal with it. It does so by
 * itself in the end; where messages wait for the place, it is made to. */
static void store_reclaim(struct store *store, const struct budget_use *use)
{
    struct disk_use *disk = &store->disk;
    uint64_t now = now_usec();
    bool odd = use->disk > use->queued + store->budget.bytes / ODD_SHARE &&
               now > disk->reclaim_usec + RECLAIM_PAUSE_USEC;

    if (disk->reclaim_steps == 0 && (disk->removed >= store->budget.reclaim_bytes || odd)) {
        disk->reclaim_steps = RECLAIM_STEPS;
        disk->removed = 0;
    }
    if (disk->reclaim_steps == 0 || now < disk->reclaim_usec + RECLAIM_STEP_USEC)
        return;
    disk->reclaim_steps--;
    disk->reclaim_usec = now;
    commit_reclaim(store->commit);
}

void store_budget_refresh(struct store *store)
{
    struct budget_use use = store_use(store);
    bool many = use.disk - store->disk.bytes > store->budget.reclaim_bytes;

    if (now_usec() < store->disk.read_usec + LOOK_USEC && !many)
        return;
    store->disk.read_usec = now_usec();
    store->disk.written = commit_counters(store->commit)->bytes;
    store->disk.bytes = rocks_disk_bytes(store->image->rocks);
    store_budget_set(store, store->path);
    use = store_use(store);
    if (!budget_is_pressed(&store->budget, &use)) {
        timer_stop(store->disk_timer);
        return;
    }
    store_reclaim(store, &use);
    timer_rearm(store->disk_timer, PRESSED_USEC);
}

void store_set_quota(struct store *store, uint64_t bytes)
{
    if (bytes > 0 && bytes < QUOTA_BYTES_MIN) {
        log_event(LOG_WARNING, 0,
                  "the deployment's storeLimits.maxSizeBytes is too little to work with",
                  F_BYTES(bytes), F_NUM("taken_bytes", QUOTA_BYTES_MIN));
        bytes = QUOTA_BYTES_MIN;
    }
    if (bytes == store->quota_bytes)
        return;
    store->quota_bytes = bytes;
    store_budget_set(store, store->path);
    log_event(LOG_INFO, 0, "disk budget", F_BYTES(store->budget.bytes));
}

static int store_on_disk(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct store *store = userdata;

    if (store->image && !store->failing && !store->draining)
        store_budget_refresh(store);
    return 0;
}

static bool store_drop_for(struct store *store, uint32_t urgency, uint64_t bytes)
{
    uint64_t before = store->dropped, freed;
    struct rocks_error error;
    unsigned suppressed;
    int r = store_drop_oldest(store, urgency, bytes, &freed, &error);

    if (r != 0) {
        store_fail_take(store, NULL, r, &error);
        return false;
    }
    if (store->dropped > before && log_limit_pass(&store->drop_limit, LOG_USEC, &suppressed))
        log_event(LOG_WARNING, 0, "the disk budget is used up: the oldest messages make room",
                  F_COUNT(store->dropped - before), F_BYTES(store->budget.bytes));
    return freed >= bytes;
}

bool store_make_room(struct store *store, enum budget_demand demand, uint32_t urgency,
                     uint64_t bytes)
{
    struct budget_use use;
    unsigned suppressed;
    int r;

    store_budget_refresh(store);
    use = store_use(store);
    r = budget_check(&store->budget, &use, demand, bytes);
    if (r == 0)
        return true;
    if (r == BUDGET_E_QUEUED && store->config.when_full == WHEN_FULL_DROP_OLDEST &&
        store_drop_for(store, urgency, budget_excess(&store->budget, &use, demand, bytes)))
        return true;
    store->refused++;
    if (log_limit_pass(&store->full_limit, LOG_USEC, &suppressed))
        log_event(LOG_WARNING, 0,
                  r == BUDGET_E_QUEUED ? "the disk budget is used up by messages: senders are held"
                                       : "the disk budget is used up: senders are held",
                  F_BYTES(use.disk), F_NUM("queued_bytes", use.queued),
                  F_NUM("max_bytes", store->budget.bytes), F_NUM("free_bytes", use.fs_free));
    return false;
}

int store_budget_init(struct store *store, const char *state_dir)
{
    int r;

    store_budget_set(store, state_dir);
    r = store_add_timer(store, &store->disk_timer, store_on_disk, 0);
    return r < 0 ? r : timer_stop(store->disk_timer);
}
