/* Records: small values with a version each. */
#include "store.h"

#include <stdio.h>

enum {
    RECORD_KEY_BYTES_MAX = 1024,
    RECORDS_BYTES_MAX = 4 << 20, /* in one answer */
};

static const char *record_put_check(const Bus__RecordPut *in)
{
    if (!in->key[0] || strlen(in->key) > RECORD_KEY_BYTES_MAX)
        return "a key of 1 to 1024 bytes is expected";
    if (!in->producer[0] != (in->sequence == 0))
        return "a producer and its sequence are expected, or neither";
    if (strlen(in->producer) > PRODUCER_NAME_BYTES_MAX)
        return "a producer's name of up to 256 bytes is expected";
    return NULL;
}

/* The version that is valid for who comes now, 0 if there is no such record: decided, though
 * perhaps not on disk yet. */
static int store_record_version(struct store *store, const char *key, uint64_t *ret_version,
                                struct rocks_error *ret_error)
{
    _cleanup_(buf_done) struct buf value = {};
    struct span content;
    int r;

    *ret_version = 0;
    if (records_find(store->records, key, ret_version))
        return 0;
    r = rocks_get(store->image->rocks, key_record(span_str(key), &store->key), &value, ret_error);
    if (r == ROCKS_E_NOT_FOUND)
        return 0;
    if (r != 0)
        return r;
    if (value_record_parse(buf_span(&value), ret_version, &content) == 0)
        return 0;
    snprintf(ret_error->text, sizeof(ret_error->text), "the record %s does not make sense", key);
    return ROCKS_E_CORRUPT;
}

static void store_record_apply(struct store *store, const Bus__RecordPut *in,
                               const struct waiter *waiter)
{
    struct span key = key_record(span_str(in->key), &store->key);

    if (in->remove)
        rocks_batch_remove(commit_batch(store->commit), key);
    else
        rocks_batch_put(
            commit_batch(store->commit), key,
            value_record(waiter->number, span_of(in->value.data, in->value.len), &store->value));
    records_change(store->records, in->key, waiter->number, commit_group(store->commit));
    if (in->sequence > 0)
        producers_apply(store->image->producers, in->producer, in->sequence,
                        commit_group(store->commit));
    commit_need(store->commit, true);
    commit_wait(store->commit, waiter);
}

void store_record_put_take(struct store *store, struct bus_call *call, const Bus__RecordPut *in)
{
    const char *wrong = record_put_check(in);
    struct rocks_error error;
    struct waiter waiter;
    uint64_t version;
    int r;

    if (store_refuse_take(store, call))
        return;
    if (wrong) {
        store_answer_error(store, call, STATUS_INVALID, "%s", wrong);
        return;
    }
    if (commit_is_full(store->commit)) {
        store_answer(store, call, STATUS_BUSY);
        return;
    }
    if (!in->remove && !store_make_room(store, DEMAND_RECORD, 0, in->value.len)) {
        store_answer(store, call, STATUS_FULL);
        return;
    }
    r = store_record_version(store, in->key, &version, &error);
    if (r != 0) {
        store_fail_take(store, call, r, &error);
        return;
    }
    /* Who sent it again is told the version that there is now. */
    waiter = (struct waiter){ call, WAITER_RECORD, version, xstrdup(in->key) };
    if (in->sequence > 0 && !store_admit_take(store, in->producer, in->sequence, &waiter))
        return;
    if (in->expected_version != 0 && in->expected_version != version) {
        store_answer_version(store, call, STATUS_CONFLICT, in->key, version);
        free(waiter.key);
        return;
    }
    waiter.number = in->remove ? 0 : version + 1;
    store_record_apply(store, in, &waiter);
}

/* What is on disk: a record that is answered can never be un-written by a crash. */
struct listing {
    struct store *store;
    Bus__Record **records;
    size_t count, capacity;
    size_t bytes;
};

static int listing_add(struct listing *l, struct span name, struct span value)
{
    struct span content;
    Bus__Record *record = arena_alloc(l->store->arena, sizeof(*record));

    bus__record__init(record);
    if (value_record_parse(value, &record->version, &content) != 0)
        return ROCKS_E_CORRUPT;
    record->key = arena_strndup(l->store->arena, name.at, name.len);
    record->value.len = content.len;
    record->value.data = arena_alloc(l->store->arena, content.len);
    memcpy(record->value.data, content.at, content.len);
    xgrow(l->records, l->count, l->capacity);
    l->records[l->count++] = record;
    l->bytes += name.len + content.len;
    return 0;
}

static int listing_one(struct listing *l, const char *key, struct rocks_error *ret_error)
{
    _cleanup_(buf_done) struct buf value = {};
    int r = rocks_get(l->store->image->rocks, key_record(span_str(key), &l->store->key), &value,
                      ret_error);

    return r != 0 ? r : listing_add(l, span_str(key), buf_span(&value));
}

/* @ret_more: the answer is full. */
static int listing_prefix(struct listing *l, const Bus__RecordGet *in, bool *ret_more,
                          struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan = NULL;
    _cleanup_(buf_done) struct buf from = {}, until = {};
    struct span key, value;
    int r = 0;

    key_prefix_end(key_record(span_str(in->key), &from), &until);
    if (in->after[0] && strcmp(in->after, in->key) >= 0) {
        key_record(span_str(in->after), &from);
        buf_append_byte(&from, 0); /* the least key that is greater */
    }
    scan = rocks_scan_new(l->store->image->rocks, buf_span(&from), buf_span(&until));
    while (r == 0 && rocks_scan_next(scan, &key, &value)) {
        if (l->count > 0 && l->bytes + key.len + value.len > RECORDS_BYTES_MAX) {
            *ret_more = true;
            return 0;
        }
        r = listing_add(l, key_name(key), value);
    }
    return r != 0 ? r : rocks_scan_error(scan, ret_error);
}

void store_record_get_take(struct store *store, struct bus_call *call, const Bus__RecordGet *in)
{
    Bus__Records records = BUS__RECORDS__INIT;
    Bus__Envelope answer = ENVELOPE(RECORDS, records, &records);
    struct rocks_error error = { "a record does not make sense" };
    struct listing l = { .store = store };
    bool more = false;
    int r;

    if (store_refuse_take(store, call))
        return;
    r = in->prefix ? listing_prefix(&l, in, &more, &error) : listing_one(&l, in->key, &error);
    records.n_records = l.count;
    records.records = l.records;
    records.more = more;
    if (r == 0)
        store_answer_with(store, call, &answer);
    else if (r == ROCKS_E_NOT_FOUND)
        store_answer(store, call, STATUS_NOT_FOUND);
    else
        store_fail_take(store, call, r, &error);
    free(l.records);
    arena_reset(store->arena);
}
