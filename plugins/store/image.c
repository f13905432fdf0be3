/* From the folder on disk to everything the store holds in memory. */
#include "image.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

enum { DROP_BATCH_ROWS = 1024 };

/* Reads all keys from @from to @until; @row gives 0 or ROCKS_E_CORRUPT. */
static int image_each(struct image *image, struct span from, struct span until,
                      int (*row)(struct image *image, struct span key, struct span value),
                      struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan = rocks_scan_new(image->rocks, from, until);
    struct span key, value;

    while (rocks_scan_next(scan, &key, &value)) {
        int r = row(image, key, value);

        if (r != 0) {
            snprintf(ret_error->text, sizeof(ret_error->text),
                     "the record '%c' of %zu bytes does not make sense", key.at[0], value.len);
            return r;
        }
    }
    return rocks_scan_error(scan, ret_error);
}

static int image_row_queue(struct image *image, struct span key, struct span value)
{
    struct queue_value v;
    uint32_t id;

    if (key_queue_parse(key, &id) != 0 || value_queue_parse(value, &v) != 0)
        return ROCKS_E_CORRUPT;
    return queues_restore_queue(image->queues, id, &v) ? 0 : ROCKS_E_CORRUPT;
}

static int image_row_partition(struct image *image, struct span key, struct span value)
{
    struct partition_value v;
    uint32_t queue, id;

    if (key_partition_parse(key, &queue, &id) != 0 || value_partition_parse(value, &v) != 0)
        return ROCKS_E_CORRUPT;
    return queues_restore_partition(image->queues, queue, id, &v) ? 0 : ROCKS_E_CORRUPT;
}

static int image_row_producer(struct image *image, struct span key, struct span value)
{
    _cleanup_(freep) char *name = span_xdup(key_name(key));
    uint64_t sequence, stamp;

    if (value_producer_parse(value, &sequence, &stamp) != 0)
        return ROCKS_E_CORRUPT;
    producers_restore(image->producers, name, sequence, stamp);
    return 0;
}

static int image_load_clock(struct image *image, struct rocks_error *ret_error)
{
    _cleanup_(buf_done) struct buf value = {};
    int r = rocks_get(image->rocks, KEY_CLOCK, &value, ret_error);

    if (r == ROCKS_E_NOT_FOUND)
        return 0;
    if (r != 0)
        return r;
    image->has_clock = value_clock_parse(buf_span(&value), &image->clock) == 0;
    return 0;
}

static int image_write_layout(struct image *image, struct rocks_error *ret_error)
{
    _cleanup_(rocks_batch_freep) struct rocks_batch *batch = rocks_batch_new();
    _cleanup_(buf_done) struct buf value = {};

    rocks_batch_put(batch, KEY_LAYOUT, value_layout(LAYOUT_VERSION, &value));
    return rocks_write(image->rocks, batch, true, ret_error);
}

static int image_check_layout(struct image *image, struct rocks_error *ret_error)
{
    _cleanup_(buf_done) struct buf value = {};
    uint32_t version;
    int r = rocks_get(image->rocks, KEY_LAYOUT, &value, ret_error);

    if (r == ROCKS_E_NOT_FOUND)
        return image_write_layout(image, ret_error);
    if (r != 0)
        return r;
    if (value_layout_parse(buf_span(&value), &version) == 0 && version <= LAYOUT_VERSION)
        return 0;
    snprintf(ret_error->text, sizeof(ret_error->text),
             "the database was written by a later release");
    return -EPROTONOSUPPORT;
}

static int image_load(struct image *image, struct rocks_error *ret_error)
{
    int r;

    image->queues = queues_new();
    image->producers = producers_new();
    r = image_check_layout(image, ret_error);
    if (r == 0)
        r = image_load_clock(image, ret_error);
    if (r == 0)
        r = image_each(image, KEY_KIND_QUEUES, KEY_KIND_QUEUES_END, image_row_queue, ret_error);
    if (r == 0)
        r = image_each(image, KEY_KIND_PARTITIONS, KEY_KIND_PARTITIONS_END, image_row_partition,
                       ret_error);
    if (r == 0)
        r = image_each(image, KEY_KIND_PRODUCERS, KEY_KIND_PRODUCERS_END, image_row_producer,
                       ret_error);
    return r;
}

/* Counting what a repair has left. */
struct recount {
    struct image *image;
    struct rocks_batch *orphans; /* rows that belong to nothing that has a name */
    struct message_key key;
    struct stream *stream; /* of @key */
};

static bool message_key_same_stream(const struct message_key *a, const struct message_key *b)
{
    return a->queue == b->queue && a->partition == b->partition && a->priority == b->priority;
}

static int recount_row(struct recount *c, struct span key, struct span value,
                       struct rocks_error *ret_error)
{
    struct message_value v;
    struct message_key k;
    int r;

    if (key_message_parse(key, &k) != 0)
        return 0;
    if (!c->stream || !message_key_same_stream(&k, &c->key))
        c->stream = queues_find_row(c->image->queues, &k);
    c->key = k;
    if (c->stream && value_message_parse(value, &v) == 0) {
        stream_recount(c->stream, k.position, v.message.len, v.expires_ms);
        return 0;
    }
    rocks_batch_remove_once(c->orphans, key);
    if (rocks_batch_count(c->orphans) < DROP_BATCH_ROWS)
        return 0;
    r = rocks_write(c->image->rocks, c->orphans, false, ret_error);
    rocks_batch_clear(c->orphans);
    return r;
}

static int image_recount(struct image *image, struct rocks_error *ret_error)
{
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan =
        rocks_scan_new(image->rocks, KEY_KIND_MESSAGES, KEY_KIND_MESSAGES_END);
    _cleanup_(rocks_batch_freep) struct rocks_batch *orphans = rocks_batch_new();
    struct recount c = { .image = image, .orphans = orphans };
    struct span key, value;
    int r;

    queues_recount_begin(image->queues);
    while (rocks_scan_next(scan, &key, &value)) {
        r = recount_row(&c, key, value, ret_error);
        if (r != 0)
            return r;
    }
    image->missing = queues_recount_end(image->queues);
    r = rocks_scan_error(scan, ret_error);
    return r != 0 ? r : rocks_write(image->rocks, orphans, true, ret_error);
}

struct image *image_free(struct image *image)
{
    if (!image)
        return NULL;
    queues_free(image->queues);
    producers_free(image->producers);
    rocks_free(image->rocks);
    free(image->aside);
    free(image);
    return NULL;
}

static int image_try(const char *path, const struct rocks_options *options, bool recount,
                     struct image **ret, struct rocks_error *ret_error)
{
    _cleanup_(image_freep) struct image *image = xnew(struct image);
    int r;

    r = rocks_open(path, options, &image->rocks, ret_error);
    if (r == 0)
        r = image_load(image, ret_error);
    if (r == 0 && recount)
        r = image_recount(image, ret_error);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(image);
    return 0;
}

static int image_move_aside(const char *path, char **ret_aside, struct rocks_error *ret_error)
{
    _cleanup_(freep) char *aside = NULL;
    char utc[sizeof("20260101T000000Z")];
    time_t now = time(NULL);
    struct tm tm;

    strftime(utc, sizeof(utc), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    aside = xasprintf("%s.corrupt-%s", path, utc);
    if (rename(path, aside) < 0) {
        int r = -errno;

        snprintf(ret_error->text, sizeof(ret_error->text), "moving it to %s: %s", aside,
                 strerror(-r));
        return r;
    }
    *ret_aside = TAKE_PTR(aside);
    return 0;
}

/* A repair that the system refuses may succeed later; one that RocksDB gives up never will. */
static int image_repair(const char *path, const struct rocks_options *options, struct image **ret,
                        struct rocks_error *ret_error)
{
    int r = rocks_repair(path, options, ret_error);

    if (r != 0)
        return r < 0 && r != -EIO ? r : ROCKS_E_CORRUPT;
    r = image_try(path, options, true, ret, ret_error);
    if (r == 0)
        (*ret)->repaired = true;
    return r;
}

static int image_replace(const char *path, const struct rocks_options *options, struct image **ret,
                         struct rocks_error *ret_error)
{
    _cleanup_(freep) char *aside = NULL;
    int r = image_move_aside(path, &aside, ret_error);

    if (r == 0)
        r = image_try(path, options, false, ret, ret_error);
    if (r == 0)
        (*ret)->aside = TAKE_PTR(aside);
    return r;
}

int image_open(const char *path, const struct rocks_options *options, enum damage damage,
               struct image **ret, struct rocks_error *ret_error)
{
    struct rocks_error found = { "a row could not be read" };
    int r = ROCKS_E_CORRUPT;

    if (damage == DAMAGE_NONE) {
        r = image_try(path, options, false, ret, ret_error);
        found = *ret_error;
    }
    if (r == ROCKS_E_CORRUPT && damage != DAMAGE_STAYED)
        r = image_repair(path, options, ret, ret_error);
    if (r == ROCKS_E_CORRUPT)
        r = image_replace(path, options, ret, ret_error);
    if (r == 0)
        (*ret)->damage = found;
    return r;
}
