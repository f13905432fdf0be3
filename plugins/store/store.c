/*
 * The life of the store: opening the database, closing it, and what happens when the disk fails.
 * Nothing in memory outlives a failure: requests are refused, the database is opened again and the
 * image is read from it. What was refused may have been done; whoever asks again is told so by
 * (producer, sequence).
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "timer.h"

enum {
    CLOCK_SAVE_MS = 1000,
    TIMER_ACCURACY_USEC = 1000, /* the default is a quarter of a second */
    REOPEN_MIN_USEC = 100000,
    REOPEN_MAX_USEC = 10000000,
    DAMAGE_SEPARATE_USEC = 600000000, /* later, it is another damage: it is repaired anew */
    ANNOUNCE_USEC =
        3000000, /* a repair that takes longer goes on while peers may call, and are told */
};

/* The clocks. */

/* "4f6c1d0e-…": the digits of 16 bytes. All zero when there is no such thing. */
static void boot_id_read(uint8_t ret[static BOOT_ID_BYTES])
{
    char text[64] = {};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    size_t n = 0;

    close_fd(fd);
    for (ssize_t i = 0; i + 1 < len && n < BOOT_ID_BYTES; i++) {
        unsigned byte;

        if (text[i] == '-' || sscanf(text + i, "%2x", &byte) != 1)
            continue;
        ret[n++] = (uint8_t)byte;
        i++;
    }
}

struct clock_reading store_read_clocks(const struct store *store)
{
    struct clock_reading now = { .boot_ms = boot_usec() / 1000, .utc_ms = utc_msec() };

    memcpy(now.boot_id, store->boot_id, BOOT_ID_BYTES);
    return now;
}

uint64_t store_clock_ms(const struct store *store)
{
    return clock_ms(&store->clock, boot_usec() / 1000);
}

static void store_save_clock(struct store *store, struct rocks_batch *batch)
{
    uint64_t now_ms = store_clock_ms(store);
    struct clock_reading now;
    struct clock_value v;

    if (now_ms < store->clock_saved_ms + CLOCK_SAVE_MS && store->clock_saved_ms != 0)
        return;
    now = store_read_clocks(store);
    v = clock_save(&store->clock, &now);
    rocks_batch_put(batch, KEY_CLOCK, value_clock(&v, &store->value));
    store->clock_saved_ms = now_ms;
}

/* Answers. */

void store_answer_with(struct store *store, struct bus_call *call, Bus__Envelope *answer)
{
    store->ops->answer(call, answer, store->userdata);
}

void store_answer(struct store *store, struct bus_call *call, Bus__Status status)
{
    Bus__Envelope answer = BUS__ENVELOPE__INIT;

    answer.status = status;
    store_answer_with(store, call, &answer);
}

void store_answer_error(struct store *store, struct bus_call *call, Bus__Status status,
                        const char *format, ...)
{
    Bus__Envelope answer = BUS__ENVELOPE__INIT;
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    answer.status = status;
    answer.error = text;
    store_answer_with(store, call, &answer);
}

void store_answer_expected(struct store *store, struct bus_call *call, Bus__Status status,
                           uint64_t expected)
{
    Bus__Appended appended = BUS__APPENDED__INIT;
    Bus__Envelope answer = ENVELOPE(APPENDED, appended, &appended);

    appended.expected_sequence = expected;
    answer.status = status;
    store_answer_with(store, call, &answer);
}

void store_answer_version(struct store *store, struct bus_call *call, Bus__Status status,
                          const char *key, uint64_t version)
{
    Bus__Record record = BUS__RECORD__INIT, *list[] = { &record };
    Bus__Records records = BUS__RECORDS__INIT;
    Bus__Envelope answer = ENVELOPE(RECORDS, records, &records);

    record.key = (char *)key;
    record.version = version;
    records.n_records = 1;
    records.records = list;
    answer.status = status;
    store_answer_with(store, call, &answer);
}

static void store_answer_dropped(struct store *store, struct bus_call *call, uint64_t count)
{
    Bus__QueueDropped dropped = BUS__QUEUE_DROPPED__INIT;
    Bus__Envelope answer = ENVELOPE(QUEUE_DROPPED, queue_dropped, &dropped);

    dropped.dropped = count;
    dropped.more = count == DROP_MESSAGES_MAX;
    store_answer_with(store, call, &answer);
}

bool store_refuse_take(struct store *store, struct bus_call *call)
{
    if (store->draining) {
        store->ops->answer(call, NULL, store->userdata); /* it is sent again, to who comes after */
        return true;
    }
    if (store->image && !store->failing)
        return false;
    store_answer_error(store, call, STATUS_FAILED, "the database is not open: %s", store->reason);
    return true;
}

/* What the waiter waited for is done. */
static void store_on_answer(const struct waiter *waiter, void *userdata)
{
    struct store *store = userdata;

    switch (waiter->kind) {
    case WAITER_APPEND:
        store_answer_expected(store, waiter->call, STATUS_DONE, waiter->number);
        break;
    case WAITER_RECORD:
        store_answer_version(store, waiter->call, STATUS_DONE, waiter->key, waiter->number);
        break;
    case WAITER_ACK:
        store_answer(store, waiter->call, STATUS_DONE);
        break;
    case WAITER_DROP:
        store_answer_dropped(store, waiter->call, waiter->number);
        break;
    }
}

bool store_admit_take(struct store *store, const char *producer, uint64_t sequence,
                      const struct waiter *waiter)
{
    uint64_t expected, group;

    switch (producers_check(store->image->producers, producer, sequence, &expected, &group)) {
    case 0:
        return true;
    case PRODUCER_E_GAP:
        store_answer_expected(store, waiter->call, STATUS_OUT_OF_ORDER, expected);
        break;
    case PRODUCER_E_DONE:
        /* It was sent again. It may be on its way to the disk just now: then it waits for that. */
        if (commit_wait_for(store->commit, group, waiter))
            return false;
        store_on_answer(waiter, store);
        break;
    }
    free(waiter->key);
    return false;
}

/* Rows. */

struct rocks_scan *store_scan(struct store *store, const struct stream *stream, uint64_t first,
                              uint64_t last)
{
    char from[KEY_MESSAGE_BYTES], until[KEY_MESSAGE_BYTES];

    return rocks_scan_new(store->image->rocks, key_message(stream_key(stream, first), from),
                          key_message(stream_key(stream, last + 1), until));
}

void store_remove(struct store *store, const struct stream *stream, uint64_t position,
                  uint64_t bytes)
{
    char key[KEY_MESSAGE_BYTES];

    rocks_batch_remove_once(commit_batch(store->commit),
                            key_message(stream_key(stream, position), key));
    commit_need(store->commit, false);
    store->disk.removed += bytes + ENTRY_OVERHEAD_BYTES;
}

/* Groups. */

struct closing {
    struct store *store;
    struct rocks_batch *batch;
};

static void store_write_queue(const struct queue *queue, void *userdata)
{
    struct closing *c = userdata;
    char key[KEY_QUEUE_BYTES];

    value_queue_begin(queue->next_partition, queue->floor, (uint16_t)queue->level_count,
                      &c->store->value);
    for (size_t i = 0; i < queue->level_count; i++)
        value_queue_level(&queue->levels[i]->meta, &c->store->value);
    rocks_batch_put(c->batch, key_queue(queue->id, key),
                    value_queue_end(span_str(queue->name), &c->store->value));
}

static void store_write_partition(const struct partition *partition, void *userdata)
{
    struct closing *c = userdata;
    char bytes[KEY_PARTITION_BYTES];
    struct span key = key_partition(partition->queue->id, partition->id, bytes);

    if (partition->gone) {
        rocks_batch_remove(c->batch, key);
        return;
    }
    value_partition_begin((uint16_t)partition->stream_count, &c->store->value);
    for (size_t i = 0; i < partition->stream_count; i++)
        value_partition_stream(&partition->streams[i]->meta, &c->store->value);
    rocks_batch_put(c->batch, key,
                    value_partition_end(span_str(partition->name), &c->store->value));
}

static void store_write_producer(const char *name, uint64_t sequence, uint64_t stamp,
                                 void *userdata)
{
    struct closing *c = userdata;

    rocks_batch_put(c->batch, key_producer(span_str(name), &c->store->key),
                    value_producer(sequence, stamp, &c->store->value));
}

static void store_remove_producer(const char *name, void *userdata)
{
    struct closing *c = userdata;

    rocks_batch_remove(c->batch, key_producer(span_str(name), &c->store->key));
}

static void store_on_close(struct rocks_batch *batch, void *userdata)
{
    static const struct queues_writer queues_writer = { store_write_queue, store_write_partition };
    static const struct producers_writer producers_writer = { store_write_producer,
                                                              store_remove_producer };
    struct store *store = userdata;
    struct closing c = { store, batch };

    queues_close(store->image->queues, &queues_writer, &c);
    producers_close(store->image->producers, &producers_writer, &c);
    store_save_clock(store, batch);
}

static void store_on_written(uint64_t group, void *userdata)
{
    struct store *store = userdata;

    store->failures = 0;
    queues_committed(store->image->queues);
    records_written(store->records, group);
}

static void store_on_refuse(const struct waiter *waiter, const char *reason, void *userdata)
{
    struct store *store = userdata;

    store_answer_error(store, waiter->call, STATUS_FAILED, "%s", reason);
}

static void store_close_when_idle(struct store *store);
static void store_fall(struct store *store, const char *reason);

static void store_on_turn(void *userdata)
{
    struct store *store = userdata;

    if (store->failing) {
        if (!worker_is_busy(store->worker)) /* else the group that was gathering goes first */
            store_fall(store, store->reason);
        return;
    }
    store_sweep_go_on(store);
    store_budget_refresh(store);
    store_serve(store);
    if (store->draining)
        store_close_when_idle(store);
}

/* Failing. */

static void store_set_reason(struct store *store, const char *reason)
{
    char *copy = xstrdup(reason); /* it may be the old one */

    free(store->reason);
    store->reason = copy;
}

static void store_reopen_later(struct store *store)
{
    uint64_t usec = (uint64_t)REOPEN_MIN_USEC << (store->failures < 8 ? store->failures : 8);

    store->failures++;
    timer_rearm(store->reopen_timer, usec < REOPEN_MAX_USEC ? usec : REOPEN_MAX_USEC);
}

/* Everything in memory goes: what the database holds is read again when it is open again. The
 * worker is idle. */
static void store_fall(struct store *store, const char *reason)
{
    store_set_reason(store, reason);
    store->failing = store->sweeping = false;
    commit_abandon(store->commit, store->reason);
    store_polls_refuse(store, store->reason);
    store->fallen = TAKE_PTR(store->image);
    store->records = records_free(store->records);
    if (store->draining)
        store->ops->drained(store->userdata);
    else
        store_reopen_later(store);
}

static void store_note_damage(struct store *store, int error)
{
    uint64_t now = now_usec();

    if (error != ROCKS_E_CORRUPT)
        return;
    if (now > store->damaged_usec + DAMAGE_SEPARATE_USEC)
        store->damages = 0;
    store->damaged_usec = now;
    store->damage = ++store->damages > 1 ? DAMAGE_STAYED : DAMAGE_FOUND;
}

static void store_on_failed(int error, const struct rocks_error *text, void *userdata)
{
    struct store *store = userdata;

    log_event(LOG_ERR, error < 0 ? error : 0, "cannot write to the database", F_PATH(store->path),
              F_REASON(text->text));
    store_note_damage(store, error);
    store_fall(store, text->text);
}

void store_fail_take(struct store *store, struct bus_call *call, int error,
                     const struct rocks_error *text)
{
    if (call)
        store_answer_error(store, call, STATUS_FAILED, "reading the database: %s", text->text);
    if (store->failing)
        return;
    log_event(LOG_ERR, error < 0 ? error : 0, "cannot read the database", F_PATH(store->path),
              F_REASON(text->text));
    store_note_damage(store, error);
    store_set_reason(store, text->text);
    store->failing = true;
    if (!worker_is_busy(store->worker))
        timer_rearm(store->reopen_timer, 0); /* not from here: the caller stands in the image */
}

/* Opening. */

static void store_open_job(void *userdata)
{
    struct store *store = userdata;
    struct rocks_options options = { .memtable_bytes = store->config.memtable_bytes,
                                     .block_cache_bytes = store->config.block_cache_bytes,
                                     .open_files = store->config.open_files,
                                     .disk_bytes = store->budget.bytes };

    store->fallen = image_free(store->fallen); /* closing what has failed may take a second */
    store->open_result =
        image_open(store->path, &options, store->damage, &store->opened_image, &store->open_error);
}

static void store_announce(struct store *store)
{
    if (store->announced || store->draining)
        return;
    store->announced = true;
    timer_stop(store->announce_timer);
    store->ops->opened(store->userdata);
}

static void store_log_opened(const struct store *store)
{
    const struct image *image = store->image;

    if (image->repaired)
        log_event(LOG_ERR, 0, "the database was damaged and is repaired", F_PATH(store->path),
                  F_REASON(image->damage.text), F_NUM("missing", image->missing));
    if (image->aside)
        log_event(
            LOG_ERR, 0,
            "the database was damaged beyond repair and is moved aside; the store starts empty",
            F_PATH(image->aside), F_REASON(image->damage.text));
    log_event(LOG_INFO, 0, "database open", F_PATH(store->path),
              F_COUNT(queues_messages(image->queues)), F_BYTES(queues_bytes(image->queues)));
}

static void store_adopt(struct store *store)
{
    struct clock_reading now = store_read_clocks(store);

    store->image = TAKE_PTR(store->opened_image);
    store->records = records_new();
    if (!store->clock_runs || store->image->aside)
        clock_init(&store->clock, store->image->has_clock ? &store->image->clock : NULL, &now);
    store->clock_runs = true;
    store->damage = DAMAGE_NONE;
    store->disk = (struct disk_use){};
    if (store->image->aside)
        store->damages = 0;
    commit_restart(store->commit, store->image->rocks);
    if (queues_dirty(store->image->queues))
        commit_need(store->commit, true); /* what a repair has counted */
    store_log_opened(store);
}

static void store_on_opened(void *userdata)
{
    struct store *store = userdata;

    if (store->draining)
        return;
    if (store->open_result == 0) {
        store_adopt(store);
    } else {
        log_event(LOG_ERR, store->open_result < 0 ? store->open_result : 0,
                  "cannot open the database", F_PATH(store->path),
                  F_REASON(store->open_error.text));
        store_set_reason(store, store->open_error.text);
        store_reopen_later(store);
    }
    store_announce(store);
}

static int store_on_reopen(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct store *store = userdata;

    if (worker_is_busy(store->worker))
        return 0; /* a write is under way: store_on_turn() or store_on_failed() goes on */
    if (store->image)
        store_fall(store, store->reason);
    else
        worker_run(store->worker, store_open_job, store_on_opened, store);
    return 0;
}

static int store_on_announce(sd_event_source *source, uint64_t usec, void *userdata)
{
    store_announce(userdata);
    return 0;
}

/* Beginning and end. */

int store_add_timer(struct store *store, sd_event_source **ret, sd_event_time_handler_t fn,
                    uint64_t usec)
{
    int r = sd_event_add_time(store->event, ret, CLOCK_MONOTONIC, now_usec() + usec,
                              TIMER_ACCURACY_USEC, fn, store);

    return r < 0 ? r : sd_event_source_set_exit_on_failure(*ret, true);
}

int store_new(sd_event *event, const struct store_config *config, const char *state_dir,
              const struct store_ops *ops, void *userdata, struct store **ret)
{
    static const struct commit_ops commit_ops = {
        .on_close = store_on_close,
        .on_written = store_on_written,
        .on_answer = store_on_answer,
        .on_turn = store_on_turn,
        .on_failed = store_on_failed,
        .on_refuse = store_on_refuse,
    };
    _cleanup_(store_freep) struct store *store = xnew(struct store);
    uint64_t interval =
        config->durability == DURABILITY_INTERVAL ? config->durability_interval_ms * 1000 : 0;
    int r;

    store->event = sd_event_ref(event);
    store->config = *config;
    store->path = xasprintf("%s/db", state_dir);
    store->reason = xstrdup("it is being opened");
    store->ops = ops;
    store->userdata = userdata;
    store->arena = arena_new();
    boot_id_read(store->boot_id);
    r = worker_new(event, &store->worker);
    if (r < 0)
        return r;
    r = commit_new(event, store->worker, interval, &commit_ops, store, &store->commit);
    if (r < 0)
        return r;
    r = store_add_timer(store, &store->reopen_timer, store_on_reopen,
                        0); /* the first opening, too */
    if (r < 0)
        return r;
    r = store_add_timer(store, &store->announce_timer, store_on_announce, ANNOUNCE_USEC);
    if (r < 0)
        return r;
    r = store_budget_init(store, state_dir);
    if (r < 0)
        return r;
    r = store_fetch_init(store);
    if (r < 0)
        return r;
    r = store_sweep_init(store);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(store);
    return 0;
}

struct store *store_free(struct store *store)
{
    if (!store)
        return NULL;
    store->worker = worker_free(store->worker); /* first: it works on what follows */
    sd_event_source_disable_unref(store->reopen_timer);
    sd_event_source_disable_unref(store->announce_timer);
    sd_event_source_disable_unref(store->poll_timer);
    sd_event_source_disable_unref(store->sweep_timer);
    sd_event_source_disable_unref(store->disk_timer);
    commit_free(store->commit);
    image_free(store->image);
    image_free(store->opened_image);
    image_free(store->fallen);
    records_free(store->records);
    arena_free(store->arena);
    buf_done(&store->key);
    buf_done(&store->value);
    sd_event_unref(store->event);
    free(store->polls);
    free(store->reason);
    free(store->path);
    free(store);
    return NULL;
}

static void store_close_when_idle(struct store *store)
{
    if (!commit_is_idle(store->commit)) {
        commit_flush(store->commit);
        return;
    }
    store->image = image_free(store->image);
    store->ops->drained(store->userdata);
}

/* Who waits for messages is not told: its bus sends the request again, to who comes after. */
void store_drain(struct store *store)
{
    store->draining = true;
    store->sweeping = false;
    store_polls_refuse(store, NULL);
    if (store->image)
        store_close_when_idle(store);
    else
        store->ops->drained(store->userdata);
}
