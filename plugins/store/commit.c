/* Groups of requests on their way to the disk. May lose a group only before anybody was told it is
 * there. */
#include "commit.h"

#include <assert.h>

#include "timer.h"

enum { GROUP_BYTES_MAX = 16 << 20, TIMER_ACCURACY_USEC = 1000 };

struct group {
    uint64_t number;
    struct rocks_batch *batch;
    bool needed;
    bool sync;
    bool reclaim;
    struct waiter *waiters;
    size_t waiter_count, waiter_capacity;
};

struct commit {
    struct worker *worker; /* borrowed */
    struct rocks *rocks;   /* borrowed; NULL: none is open */
    const struct commit_ops *ops;
    void *userdata;
    uint64_t interval_usec;
    bool unsynced; /* interval: something is written and not synced, the timer runs */
    bool sync_due; /* interval: the timer has run out */
    struct group gathering;
    struct group writing;
    sd_event_source *defer; /* closes the group when this turn of the loop has been read */
    sd_event_source *timer;
    struct commit_counters counters;

    /* The job's, while it is under way. */
    int result;
    uint64_t usec;
    struct rocks_error error;
};

static void group_init(struct group *group, uint64_t number)
{
    *group = (struct group){ .number = number, .batch = rocks_batch_new() };
}

static void group_done(struct group *group)
{
    rocks_batch_free(group->batch);
    free(group->waiters);
    *group = (struct group){};
}

static void group_add(struct group *group, const struct waiter *waiter)
{
    xgrow(group->waiters, group->waiter_count, group->waiter_capacity);
    group->waiters[group->waiter_count++] = *waiter;
}

static void commit_job(void *userdata)
{
    struct commit *c = userdata;
    uint64_t began = now_usec();

    if (rocks_batch_count(c->writing.batch) > 0)
        c->result = rocks_write(c->rocks, c->writing.batch, c->writing.sync, &c->error);
    else
        c->result = c->writing.sync ? rocks_sync(c->rocks, &c->error) : 0;
    if (c->result == 0 && c->writing.reclaim)
        rocks_reclaim(c->rocks);
    c->usec = now_usec() - began;
}

static void commit_on_written(void *userdata);

/* Ends the group that gathers and has it written, if there is one to write and nothing is being
 * written. */
static void commit_close(struct commit *c)
{
    struct group closed = c->gathering;

    if (!c->rocks || worker_is_busy(c->worker) || !(c->gathering.needed || c->sync_due))
        return;
    c->gathering = c->writing;
    c->gathering.number = closed.number + 1;
    c->writing = closed;
    c->writing.sync |= c->sync_due;
    c->ops->on_close(c->writing.batch, c->userdata);
    if (c->writing.sync) {
        c->unsynced = c->sync_due = false;
        timer_stop(c->timer);
    }
    worker_run(c->worker, commit_job, commit_on_written, c);
}

static void commit_answer(struct commit *c, struct waiter *waiters, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        c->ops->on_answer(&waiters[i], c->userdata);
        free(waiters[i].key);
    }
}

static void commit_count(struct commit *c)
{
    c->counters.groups++;
    c->counters.syncs += c->writing.sync;
    c->counters.bytes += rocks_batch_bytes(c->writing.batch);
    c->counters.write_usec += c->usec;
}

/* The disk is given the next group before anything else: it is what everybody waits for. */
static void commit_on_written(void *userdata)
{
    struct commit *c = userdata;
    struct waiter *waiters = TAKE_PTR(c->writing.waiters);
    size_t count = c->writing.waiter_count;

    if (c->result != 0) {
        c->writing.waiters = waiters;
        c->rocks = NULL;
        c->ops->on_failed(c->result, &c->error, c->userdata);
        return;
    }
    commit_count(c);
    c->ops->on_written(c->writing.number, c->userdata);
    rocks_batch_clear(c->writing.batch);
    c->writing = (struct group){ .batch = c->writing.batch };
    commit_close(c);
    commit_answer(c, waiters, count);
    free(waiters);
    c->ops->on_turn(c->userdata);
}

static int commit_on_defer(sd_event_source *source, void *userdata)
{
    commit_close(userdata);
    return 0;
}

void commit_flush(struct commit *c)
{
    c->sync_due = c->unsynced;
    commit_close(c);
}

static int commit_on_interval(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct commit *c = userdata;

    commit_flush(c);
    return 0;
}

int commit_new(sd_event *event, struct worker *worker, uint64_t interval_usec,
               const struct commit_ops *ops, void *userdata, struct commit **ret)
{
    _cleanup_(commit_freep) struct commit *c = xnew(struct commit);
    int r;

    c->worker = worker;
    c->ops = ops;
    c->userdata = userdata;
    c->interval_usec = interval_usec;
    group_init(&c->gathering, 1);
    group_init(&c->writing, 0);
    r = sd_event_add_defer(event, &c->defer, commit_on_defer, c);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(c->defer, SD_EVENT_OFF);
    if (r < 0)
        return r;
    r = sd_event_source_set_exit_on_failure(c->defer, true);
    if (r < 0)
        return r;
    r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_USEC,
                          commit_on_interval, c);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
    if (r < 0)
        return r;
    r = sd_event_source_set_exit_on_failure(c->timer, true);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(c);
    return 0;
}

static void commit_refuse(struct commit *c, struct group *group, const char *reason)
{
    struct waiter *waiters = TAKE_PTR(group->waiters);
    size_t count = group->waiter_count;

    rocks_batch_clear(group->batch);
    *group = (struct group){ .number = group->number, .batch = group->batch };
    for (size_t i = 0; i < count; i++) {
        c->ops->on_refuse(&waiters[i], reason, c->userdata);
        free(waiters[i].key);
    }
    free(waiters);
}

void commit_abandon(struct commit *c, const char *reason)
{
    assert(!worker_is_busy(c->worker));
    c->rocks = NULL;
    commit_refuse(c, &c->writing, reason);
    c->writing.number = 0;
    commit_refuse(c, &c->gathering, reason);
}

struct commit *commit_free(struct commit *c)
{
    if (!c)
        return NULL;
    sd_event_source_disable_unref(c->defer);
    sd_event_source_disable_unref(c->timer);
    group_done(&c->gathering);
    group_done(&c->writing);
    free(c);
    return NULL;
}

void commit_restart(struct commit *c, struct rocks *rocks)
{
    assert(!worker_is_busy(c->worker));
    assert(c->gathering.waiter_count == 0 && c->writing.waiter_count == 0);
    c->rocks = rocks;
    c->unsynced = c->sync_due = false;
}

struct rocks_batch *commit_batch(struct commit *c)
{
    return c->gathering.batch;
}

void commit_need(struct commit *c, bool sync)
{
    c->gathering.needed = true;
    if (sync && c->interval_usec == 0)
        c->gathering.sync = true;
    if (sync && c->interval_usec > 0 && !c->unsynced) {
        c->unsynced = true;
        timer_rearm(c->timer, c->interval_usec);
    }
    if (!worker_is_busy(c->worker))
        sd_event_source_set_enabled(c->defer, SD_EVENT_ONESHOT);
}

void commit_wait(struct commit *c, const struct waiter *waiter)
{
    group_add(&c->gathering, waiter);
}

bool commit_wait_for(struct commit *c, uint64_t group, const struct waiter *waiter)
{
    if (group == c->gathering.number)
        group_add(&c->gathering, waiter);
    else if (group == c->writing.number && group != 0)
        group_add(&c->writing, waiter);
    else
        return false;
    return true;
}

void commit_reclaim(struct commit *c)
{
    c->gathering.reclaim = true;
    commit_need(c, false);
}

uint64_t commit_pending_bytes(const struct commit *c)
{
    return rocks_batch_bytes(c->gathering.batch) + rocks_batch_bytes(c->writing.batch);
}

uint64_t commit_group(const struct commit *c)
{
    return c->gathering.number;
}

bool commit_is_full(const struct commit *c)
{
    return rocks_batch_bytes(c->gathering.batch) >= GROUP_BYTES_MAX;
}

bool commit_is_idle(const struct commit *c)
{
    return !c->gathering.needed && !c->sync_due && !c->unsynced && c->writing.number == 0;
}

const struct commit_counters *commit_counters(const struct commit *c)
{
    return &c->counters;
}
