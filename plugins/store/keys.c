/* Keys and values of the database, and back. */
#include "keys.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

enum {
    VALUE_VERSION = 1,
    STREAM_BYTES = 4 + 1 + 5 * 8,
    LEVEL_BYTES = 4 + 5 * 8,
    PARTITION_HEADER_BYTES = 1 + 2,
    QUEUE_HEADER_BYTES = 1 + 4 + 8 + 2,
};

static char *put_u32(char *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof(v));
    return at + sizeof(v);
}

static char *put_u64(char *at, uint64_t v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof(v));
    return at + sizeof(v);
}

/* Readers of what was measured before: they never run over the end. */
static uint8_t take_u8(struct span *s)
{
    uint8_t v;

    assert(s->len >= sizeof(v));
    v = (uint8_t)s->at[0];
    *s = span_of(s->at + sizeof(v), s->len - sizeof(v));
    return v;
}

static uint16_t take_u16(struct span *s)
{
    uint16_t v;

    assert(s->len >= sizeof(v));
    memcpy(&v, s->at, sizeof(v));
    *s = span_of(s->at + sizeof(v), s->len - sizeof(v));
    return be16toh(v);
}

static uint32_t take_u32(struct span *s)
{
    uint32_t v;

    assert(s->len >= sizeof(v));
    memcpy(&v, s->at, sizeof(v));
    *s = span_of(s->at + sizeof(v), s->len - sizeof(v));
    return be32toh(v);
}

static uint64_t take_u64(struct span *s)
{
    uint64_t v;

    assert(s->len >= sizeof(v));
    memcpy(&v, s->at, sizeof(v));
    *s = span_of(s->at + sizeof(v), s->len - sizeof(v));
    return be64toh(v);
}

static void empty(struct buf *out)
{
    buf_eat(out, buf_len(out));
}

struct span key_message(struct message_key k, char at[static KEY_MESSAGE_BYTES])
{
    char *end = at;

    *end++ = 'M';
    end = put_u32(end, k.queue);
    end = put_u32(end, k.partition);
    end = put_u32(end, k.priority);
    put_u64(end, k.position);
    return span_of(at, KEY_MESSAGE_BYTES);
}

struct span key_partition(uint32_t queue, uint32_t partition, char at[static KEY_PARTITION_BYTES])
{
    at[0] = 'P';
    put_u32(put_u32(at + 1, queue), partition);
    return span_of(at, KEY_PARTITION_BYTES);
}

struct span key_queue(uint32_t queue, char at[static KEY_QUEUE_BYTES])
{
    at[0] = 'Q';
    put_u32(at + 1, queue);
    return span_of(at, KEY_QUEUE_BYTES);
}

static struct span key_named(uint8_t kind, struct span name, struct buf *out)
{
    empty(out);
    buf_append_byte(out, kind);
    buf_append_span(out, name);
    return buf_span(out);
}

struct span key_record(struct span name, struct buf *out)
{
    return key_named('R', name, out);
}

struct span key_producer(struct span name, struct buf *out)
{
    return key_named('S', name, out);
}

int key_message_parse(struct span key, struct message_key *ret)
{
    if (key.len != KEY_MESSAGE_BYTES || take_u8(&key) != 'M')
        return KEYS_E_MALFORMED;
    ret->queue = take_u32(&key);
    ret->partition = take_u32(&key);
    ret->priority = take_u32(&key);
    ret->position = take_u64(&key);
    return 0;
}

int key_partition_parse(struct span key, uint32_t *ret_queue, uint32_t *ret_partition)
{
    if (key.len != KEY_PARTITION_BYTES || take_u8(&key) != 'P')
        return KEYS_E_MALFORMED;
    *ret_queue = take_u32(&key);
    *ret_partition = take_u32(&key);
    return 0;
}

int key_queue_parse(struct span key, uint32_t *ret_queue)
{
    if (key.len != KEY_QUEUE_BYTES || take_u8(&key) != 'Q')
        return KEYS_E_MALFORMED;
    *ret_queue = take_u32(&key);
    return 0;
}

struct span key_name(struct span key)
{
    return key.len > 0 ? span_of(key.at + 1, key.len - 1) : key;
}

struct span key_prefix_end(struct span prefix, struct buf *out)
{
    char *last;

    while (prefix.len > 0 && (uint8_t)prefix.at[prefix.len - 1] == UINT8_MAX)
        prefix.len--; /* nothing of this length is greater: carry */
    empty(out);
    if (prefix.len == 0)
        return buf_span(out);
    last = buf_reserve(out, prefix.len);
    memcpy(last, prefix.at, prefix.len);
    last += prefix.len - 1;
    *last = (char)((uint8_t)*last + 1);
    buf_commit(out, prefix.len);
    return buf_span(out);
}

struct span value_message(const struct message_value *v, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be64(out, (uint64_t)v->enqueued_ms);
    buf_append_be64(out, v->expires_ms);
    buf_append_span(out, v->message);
    return buf_span(out);
}

int value_message_parse(struct span value, struct message_value *ret)
{
    if (value.len < VALUE_MESSAGE_HEADER_BYTES || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    ret->enqueued_ms = (int64_t)take_u64(&value);
    ret->expires_ms = take_u64(&value);
    ret->message = value;
    return 0;
}

void value_partition_begin(uint16_t streams, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be16(out, streams);
}

void value_partition_stream(const struct stream_meta *meta, struct buf *out)
{
    buf_append_be32(out, meta->priority);
    buf_append_byte(out, meta->unordered);
    buf_append_be64(out, meta->first);
    buf_append_be64(out, meta->next);
    buf_append_be64(out, meta->count);
    buf_append_be64(out, meta->bytes);
    buf_append_be64(out, meta->expires_last_ms);
}

struct span value_partition_end(struct span name, struct buf *out)
{
    buf_append_span(out, name);
    return buf_span(out);
}

int value_partition_parse(struct span value, struct partition_value *ret)
{
    size_t rows;

    if (value.len < PARTITION_HEADER_BYTES || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    ret->streams = take_u16(&value);
    rows = (size_t)ret->streams * STREAM_BYTES;
    if (value.len < rows)
        return KEYS_E_MALFORMED;
    ret->rows = span_of(value.at, rows);
    ret->name = span_of(value.at + rows, value.len - rows);
    return 0;
}

struct stream_meta value_partition_stream_at(const struct partition_value *v, uint16_t i)
{
    struct span row = span_of(v->rows.at + (size_t)i * STREAM_BYTES, STREAM_BYTES);
    struct stream_meta meta;

    assert(i < v->streams);
    meta.priority = take_u32(&row);
    meta.unordered = take_u8(&row) != 0;
    meta.first = take_u64(&row);
    meta.next = take_u64(&row);
    meta.count = take_u64(&row);
    meta.bytes = take_u64(&row);
    meta.expires_last_ms = take_u64(&row);
    return meta;
}

void value_queue_begin(uint32_t next_partition, uint64_t floor, uint16_t levels, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be32(out, next_partition);
    buf_append_be64(out, floor);
    buf_append_be16(out, levels);
}

void value_queue_level(const struct level_meta *meta, struct buf *out)
{
    buf_append_be32(out, meta->priority);
    buf_append_be64(out, meta->ledger.accepted);
    buf_append_be64(out, meta->ledger.delivered);
    buf_append_be64(out, meta->ledger.expired);
    buf_append_be64(out, meta->ledger.dropped);
    buf_append_be64(out, meta->ledger.rejected);
}

struct span value_queue_end(struct span name, struct buf *out)
{
    buf_append_span(out, name);
    return buf_span(out);
}

int value_queue_parse(struct span value, struct queue_value *ret)
{
    size_t rows;

    if (value.len < QUEUE_HEADER_BYTES || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    ret->next_partition = take_u32(&value);
    ret->floor = take_u64(&value);
    ret->levels = take_u16(&value);
    rows = (size_t)ret->levels * LEVEL_BYTES;
    if (value.len < rows)
        return KEYS_E_MALFORMED;
    ret->rows = span_of(value.at, rows);
    ret->name = span_of(value.at + rows, value.len - rows);
    return 0;
}

struct level_meta value_queue_level_at(const struct queue_value *v, uint16_t i)
{
    struct span row = span_of(v->rows.at + (size_t)i * LEVEL_BYTES, LEVEL_BYTES);
    struct level_meta meta;

    assert(i < v->levels);
    meta.priority = take_u32(&row);
    meta.ledger.accepted = take_u64(&row);
    meta.ledger.delivered = take_u64(&row);
    meta.ledger.expired = take_u64(&row);
    meta.ledger.dropped = take_u64(&row);
    meta.ledger.rejected = take_u64(&row);
    return meta;
}

struct span value_record(uint64_t version, struct span content, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be64(out, version);
    buf_append_span(out, content);
    return buf_span(out);
}

int value_record_parse(struct span value, uint64_t *ret_version, struct span *ret_content)
{
    if (value.len < 1 + 8 || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    *ret_version = take_u64(&value);
    *ret_content = value;
    return 0;
}

struct span value_producer(uint64_t sequence, uint64_t stamp, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be64(out, sequence);
    buf_append_be64(out, stamp);
    return buf_span(out);
}

int value_producer_parse(struct span value, uint64_t *ret_sequence, uint64_t *ret_stamp)
{
    if (value.len != 1 + 8 + 8 || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    *ret_sequence = take_u64(&value);
    *ret_stamp = take_u64(&value);
    return 0;
}

struct span value_layout(uint32_t version, struct buf *out)
{
    empty(out);
    buf_append_be32(out, version);
    return buf_span(out);
}

int value_layout_parse(struct span value, uint32_t *ret_version)
{
    if (value.len != 4)
        return KEYS_E_MALFORMED;
    *ret_version = take_u32(&value);
    return 0;
}

struct span value_clock(const struct clock_value *v, struct buf *out)
{
    empty(out);
    buf_append_byte(out, VALUE_VERSION);
    buf_append_be64(out, v->clock_ms);
    buf_append_be64(out, v->boot_ms);
    buf_append_be64(out, (uint64_t)v->utc_ms);
    buf_append(out, v->boot_id, sizeof(v->boot_id));
    return buf_span(out);
}

int value_clock_parse(struct span value, struct clock_value *ret)
{
    if (value.len != 1 + 3 * 8 + BOOT_ID_BYTES || take_u8(&value) != VALUE_VERSION)
        return KEYS_E_MALFORMED;
    ret->clock_ms = take_u64(&value);
    ret->boot_ms = take_u64(&value);
    ret->utc_ms = (int64_t)take_u64(&value);
    memcpy(ret->boot_id, value.at, BOOT_ID_BYTES);
    return 0;
}
