/*
 * Telemetry that arrived, newest kept: bounded by count and bytes, the oldest goes first. A message is kept as it was
 * encoded on the wire, in chunks of memory; it becomes JSON only for who asks.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "mem.h"
#include "span.h"

struct telemetry;

/* Who sends, and how it was authenticated. Lives as long as the telemetry: there are as many as identities were seen. */
struct telemetry_source {
    char *device_id;
    char *module_id; /* NULL: a device */
    char *generation_id;
    uint64_t messages, bytes; /* received, kept or not */
};

struct telemetry *telemetry_new(uint64_t keep_messages, uint64_t keep_bytes);
struct telemetry *telemetry_free(struct telemetry *telemetry);
DEFINE_FREEP(struct telemetry, telemetry_free)

/* The same arguments give the same source. */
struct telemetry_source *telemetry_source(struct telemetry *telemetry, const char *device_id,
                                          const char *module_id, const char *generation_id);

/* @encoded: one AMQP message that can be decoded, smaller than the hub's largest; @now_ms: UTC. */
enum { TELEMETRY_RECORD_BYTES_MAX = 1 << 19 };
void telemetry_append(struct telemetry *telemetry, struct telemetry_source *source,
                      struct span encoded, int64_t now_ms);

/* Sequence numbers are 1, 2, 3, … for the life of the process. 0: none yet. */
uint64_t telemetry_last(const struct telemetry *telemetry);
uint64_t
telemetry_first(const struct telemetry *telemetry); /* the oldest that is kept; last + 1: none is */

struct telemetry_event {
    uint64_t sequence;
    int64_t enqueued_ms;
    const struct telemetry_source *source;
    struct span encoded; /* until the next append */
};
/* Reads on from where it was; good until the next append. */
struct telemetry_cursor {
    size_t chunk;
    size_t offset;
    uint64_t sequence;
};
/* To the first message behind @after that is kept. */
void telemetry_seek(const struct telemetry *telemetry, uint64_t after,
                    struct telemetry_cursor *ret);
bool telemetry_next(const struct telemetry *telemetry, struct telemetry_cursor *cursor,
                    struct telemetry_event *ret);

/* One line of JSON, the caller's. @arena is used and may be reset after. */
char *telemetry_render(const struct telemetry_event *event, struct arena *arena);

struct telemetry_counters {
    uint64_t messages, bytes; /* received */
    uint64_t kept_messages, kept_bytes;
};
const struct telemetry_counters *telemetry_counters(const struct telemetry *telemetry);
/* {"D": n, "D/M": n}, the caller's. */
json_t *telemetry_sources_json(const struct telemetry *telemetry);
