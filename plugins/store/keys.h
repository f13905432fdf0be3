/*
 * How everything durable is laid out in the database: keys that sort in the order they are read,
 * numbers big-endian, and values that begin with a version byte. Pure.
 *
 *   'C'                                     the store's clock
 *   'F'                                     the version of this layout
 *   'M' queue partition priority position   a message
 *   'P' queue partition                     a partition: its name, and where each priority stands
 *   'Q' queue                               a queue: its name, and its ledger for each priority
 *   'R' key                                 a record
 *   'S' producer                            the last sequence applied
 *
 * 'P' and 'Q' are written in the batch that changes the messages they count, so a start reads these
 * alone: its time does not depend on the backlog, and the counts are exact.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "span.h"

enum {
    KEY_MESSAGE_BYTES = 1 + 4 + 4 + 4 + 8,
    KEY_PARTITION_BYTES = 1 + 4 + 4,
    KEY_QUEUE_BYTES = 1 + 4,
    VALUE_MESSAGE_HEADER_BYTES = 1 + 8 + 8,
    LAYOUT_VERSION = 1,
};

#define KEY_CLOCK  SPAN("C")
#define KEY_LAYOUT SPAN("F")

/* The first letter of each kind, and the first key behind all of its kind. */
#define KEY_KIND_MESSAGES       SPAN("M")
#define KEY_KIND_MESSAGES_END   SPAN("N")
#define KEY_KIND_PARTITIONS     SPAN("P")
#define KEY_KIND_PARTITIONS_END SPAN("Q")
#define KEY_KIND_QUEUES         SPAN("Q")
#define KEY_KIND_QUEUES_END     SPAN("R")
#define KEY_KIND_PRODUCERS      SPAN("S")
#define KEY_KIND_PRODUCERS_END  SPAN("T")

/* A value or key that is not what this file writes. */
enum { KEYS_E_MALFORMED = 1 };

struct message_key {
    uint32_t queue;
    uint32_t partition;
    uint32_t priority;
    uint64_t position;
};

#define EXPIRES_NEVER UINT64_MAX

struct message_value {
    int64_t enqueued_ms; /* UTC */
    uint64_t expires_ms; /* by the store's clock (clock.h), or EXPIRES_NEVER */
    struct span message; /* borrowed */
};

/* Custody: accepted = delivered + expired + dropped + rejected + what is queued. */
struct ledger {
    uint64_t accepted;
    uint64_t delivered;
    uint64_t expired;
    uint64_t dropped;
    uint64_t rejected;
};

/* Where a stream, one (queue, partition, priority), stands. */
struct stream_meta {
    uint32_t priority;
    bool unordered; /* a message expires before one that was appended earlier */
    uint64_t first; /* nothing is stored below */
    uint64_t next;  /* the position of the next message */
    uint64_t count;
    uint64_t bytes;
    uint64_t expires_last_ms; /* the latest there is */
};

struct level_meta {
    uint32_t priority;
    struct ledger ledger;
};

/* Keys into memory of the caller; the span returned is over it. */
struct span key_message(struct message_key k, char at[static KEY_MESSAGE_BYTES]);
struct span key_partition(uint32_t queue, uint32_t partition, char at[static KEY_PARTITION_BYTES]);
struct span key_queue(uint32_t queue, char at[static KEY_QUEUE_BYTES]);
/* Appended to @out, which is emptied first. */
struct span key_record(struct span name, struct buf *out);
struct span key_producer(struct span name, struct buf *out);

int key_message_parse(struct span key, struct message_key *ret);
int key_partition_parse(struct span key, uint32_t *ret_queue, uint32_t *ret_partition);
int key_queue_parse(struct span key, uint32_t *ret_queue);
struct span key_name(struct span key); /* of a record or producer: what follows the letter */

/* The least key that is greater than every key that begins with @prefix. Emptied first; empty when
 * there is none. */
struct span key_prefix_end(struct span prefix, struct buf *out);

/* Values, appended to @out, which is emptied first. */
struct span value_message(const struct message_value *v, struct buf *out);
int value_message_parse(struct span value, struct message_value *ret);

/* A value with a list: begin, each entry, end. */
void value_partition_begin(uint16_t streams, struct buf *out);
void value_partition_stream(const struct stream_meta *meta, struct buf *out);
struct span value_partition_end(struct span name, struct buf *out);

void value_queue_begin(uint32_t next_partition, uint64_t floor, uint16_t levels, struct buf *out);
void value_queue_level(const struct level_meta *meta, struct buf *out);
struct span value_queue_end(struct span name, struct buf *out);

/* What they say when read. Borrowed from the value. */
struct partition_value {
    uint16_t streams;
    struct span name;
    struct span rows;
};
struct queue_value {
    uint32_t next_partition; /* ids below were given once and are never given again */
    uint64_t floor;          /* new streams begin here: positions are never given twice either */
    uint16_t levels;
    struct span name;
    struct span rows;
};
int value_partition_parse(struct span value, struct partition_value *ret);
struct stream_meta value_partition_stream_at(const struct partition_value *v, uint16_t i);
int value_queue_parse(struct span value, struct queue_value *ret);
struct level_meta value_queue_level_at(const struct queue_value *v, uint16_t i);

struct span value_record(uint64_t version, struct span content, struct buf *out);
int value_record_parse(struct span value, uint64_t *ret_version, struct span *ret_content);

struct span value_producer(uint64_t sequence, uint64_t stamp, struct buf *out);
int value_producer_parse(struct span value, uint64_t *ret_sequence, uint64_t *ret_stamp);

struct span value_layout(uint32_t version, struct buf *out);
int value_layout_parse(struct span value, uint32_t *ret_version);

enum { BOOT_ID_BYTES = 16 };
struct clock_value {
    uint64_t clock_ms;
    uint64_t boot_ms;
    int64_t utc_ms;
    uint8_t boot_id[BOOT_ID_BYTES];
};
struct span value_clock(const struct clock_value *v, struct buf *out);
int value_clock_parse(struct span value, struct clock_value *ret);
