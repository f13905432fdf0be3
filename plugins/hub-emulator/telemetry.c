#include "telemetry.h"

#include <assert.h>
#include <search.h>
#include <stdio.h>
#include <string.h>

#include "amqp-message.h"
#include "message.h"
#include "registry-json.h"
#include "sas.h"

enum { CHUNK_BYTES = 1 << 20, RECORD_ALIGN = 8 };

/* In front of each message in its chunk. */
struct record {
    struct telemetry_source *source;
    int64_t enqueued_ms;
    uint32_t bytes; /* of the message behind it */
};

struct chunk {
    uint64_t first_sequence; /* of the record at `start` */
    size_t start, end;
    char data[CHUNK_BYTES];
};

struct telemetry {
    uint64_t keep_messages, keep_bytes;
    struct chunk **chunks; /* oldest first, from `head` */
    size_t head, chunk_count, chunk_capacity;
    uint64_t last;
    void *sources; /* tsearch tree of struct telemetry_source */
    struct telemetry_counters counters;
};

static size_t record_size(uint32_t bytes)
{
    size_t size = sizeof(struct record) + bytes;

    return (size + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1);
}
_Static_assert(sizeof(struct record) + TELEMETRY_RECORD_BYTES_MAX + RECORD_ALIGN < CHUNK_BYTES,
               "a message fits a chunk");

struct telemetry *telemetry_new(uint64_t keep_messages, uint64_t keep_bytes)
{
    struct telemetry *telemetry = xnew(struct telemetry);

    telemetry->keep_messages = keep_messages;
    telemetry->keep_bytes = keep_bytes;
    return telemetry;
}

/* ---- sources ---- */

static int source_compare(const void *a, const void *b)
{
    const struct telemetry_source *x = a, *y = b;
    int order = strcmp(x->device_id, y->device_id);

    if (order == 0)
        order = strcmp(x->module_id ? x->module_id : "", y->module_id ? y->module_id : "");
    if (order == 0)
        order = strcmp(x->generation_id, y->generation_id);
    return order;
}

static void source_free(void *p)
{
    struct telemetry_source *source = p;

    free(source->device_id);
    free(source->module_id);
    free(source->generation_id);
    free(source);
}

struct telemetry_source *telemetry_source(struct telemetry *telemetry, const char *device_id,
                                          const char *module_id, const char *generation_id)
{
    struct telemetry_source *source = xnew(struct telemetry_source);
    struct telemetry_source **place;

    *source = (struct telemetry_source){ .device_id = xstrdup(device_id),
                                         .module_id = xstrdup(module_id),
                                         .generation_id = xstrdup(generation_id) };
    place = tsearch(source, &telemetry->sources, source_compare);
    if (*place != source)
        source_free(source);
    return *place;
}

static void source_count(const void *node, VISIT which, void *userdata)
{
    const struct telemetry_source *source = *(struct telemetry_source *const *)node;
    _cleanup_(freep) char *name = NULL;
    json_int_t before;

    if (which != postorder && which != leaf)
        return;
    /* An identity that was made anew has two generations, and one count. */
    name = identity_name(source->device_id, source->module_id);
    before = json_integer_value(json_object_get(userdata, name));
    json_object_set_new(userdata, name, json_integer(before + (json_int_t)source->messages));
}

json_t *telemetry_sources_json(const struct telemetry *telemetry)
{
    json_t *json = json_object();

    twalk_r(telemetry->sources, source_count, json);
    return json;
}

/* ---- the ring ---- */

static const struct record *record_at(const struct chunk *chunk, size_t offset)
{
    return (const struct record *)(const void *)(chunk->data + offset);
}

static void drop_first_chunk(struct telemetry *telemetry)
{
    free(telemetry->chunks[telemetry->head]);
    telemetry->head++;
    telemetry->chunk_count--;
}

static void evict_oldest(struct telemetry *telemetry)
{
    struct chunk *chunk = telemetry->chunks[telemetry->head];
    const struct record *record = record_at(chunk, chunk->start);
    size_t size = record_size(record->bytes);

    telemetry->counters.kept_messages--;
    telemetry->counters.kept_bytes -= size;
    chunk->start += size;
    chunk->first_sequence++;
    if (chunk->start == chunk->end)
        drop_first_chunk(telemetry);
}

static bool is_full(const struct telemetry *telemetry, size_t size)
{
    return telemetry->counters.kept_messages >= telemetry->keep_messages ||
           telemetry->counters.kept_bytes + size > telemetry->keep_bytes;
}

static struct chunk *add_chunk(struct telemetry *telemetry)
{
    struct chunk *chunk =
        malloc(sizeof(*chunk)); /* not zeroed: its pages come as they are written */

    assert(chunk);
    chunk->first_sequence = telemetry->last + 1;
    chunk->start = chunk->end = 0;
    if (telemetry->head > telemetry->chunk_count) { /* more gaps than entries: close up */
        memmove(telemetry->chunks, telemetry->chunks + telemetry->head,
                telemetry->chunk_count * sizeof(*telemetry->chunks));
        telemetry->head = 0;
    }
    xgrow(telemetry->chunks, telemetry->head + telemetry->chunk_count, telemetry->chunk_capacity);
    telemetry->chunks[telemetry->head + telemetry->chunk_count++] = chunk;
    return chunk;
}

static struct chunk *chunk_with_room(struct telemetry *telemetry, size_t size)
{
    if (telemetry->chunk_count > 0) {
        struct chunk *newest = telemetry->chunks[telemetry->head + telemetry->chunk_count - 1];

        if (CHUNK_BYTES - newest->end >= size)
            return newest;
    }
    return add_chunk(telemetry);
}

void telemetry_append(struct telemetry *telemetry, struct telemetry_source *source,
                      struct span encoded, int64_t now_ms)
{
    size_t size = record_size((uint32_t)encoded.len);
    struct chunk *chunk;

    assert(encoded.len <= TELEMETRY_RECORD_BYTES_MAX);
    source->messages++;
    source->bytes += encoded.len;
    telemetry->counters.messages++;
    telemetry->counters.bytes += encoded.len;
    while (telemetry->counters.kept_messages > 0 && is_full(telemetry, size))
        evict_oldest(telemetry);
    chunk = chunk_with_room(telemetry, size);
    *(struct record *)(void *)(chunk->data + chunk->end) =
        (struct record){ .source = source, .enqueued_ms = now_ms, .bytes = (uint32_t)encoded.len };
    memcpy(chunk->data + chunk->end + sizeof(struct record), encoded.at, encoded.len);
    chunk->end += size;
    telemetry->last++;
    telemetry->counters.kept_messages++;
    telemetry->counters.kept_bytes += size;
}

uint64_t telemetry_last(const struct telemetry *telemetry)
{
    return telemetry->last;
}

uint64_t telemetry_first(const struct telemetry *telemetry)
{
    return telemetry->last + 1 - telemetry->counters.kept_messages;
}

const struct telemetry_counters *telemetry_counters(const struct telemetry *telemetry)
{
    return &telemetry->counters;
}

/* ---- reading ---- */

/* The last chunk whose first record is not behind @sequence. */
static size_t chunk_of(const struct telemetry *telemetry, uint64_t sequence)
{
    size_t low = telemetry->head, high = telemetry->head + telemetry->chunk_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (telemetry->chunks[middle]->first_sequence <= sequence)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void telemetry_seek(const struct telemetry *telemetry, uint64_t after, struct telemetry_cursor *ret)
{
    uint64_t wanted =
        after + 1 > telemetry_first(telemetry) ? after + 1 : telemetry_first(telemetry);
    size_t place = chunk_of(telemetry, wanted);
    struct telemetry_event event;

    *ret = (struct telemetry_cursor){ .chunk = place };
    if (telemetry->chunk_count == 0)
        return;
    ret->offset = telemetry->chunks[place]->start;
    ret->sequence = telemetry->chunks[place]->first_sequence;
    while (ret->sequence < wanted && telemetry_next(telemetry, ret, &event))
        ;
}

bool telemetry_next(const struct telemetry *telemetry, struct telemetry_cursor *cursor,
                    struct telemetry_event *ret)
{
    const struct chunk *chunk;
    const struct record *record;

    if (telemetry->chunk_count == 0)
        return false;
    chunk = telemetry->chunks[cursor->chunk];
    if (cursor->offset == chunk->end) {
        if (cursor->chunk + 1 == telemetry->head + telemetry->chunk_count)
            return false;
        chunk = telemetry->chunks[++cursor->chunk];
        cursor->offset = chunk->start;
    }
    record = record_at(chunk, cursor->offset);
    *ret = (struct telemetry_event){
        .sequence = cursor->sequence,
        .enqueued_ms = record->enqueued_ms,
        .source = record->source,
        .encoded = span_of(chunk->data + cursor->offset + sizeof(*record), record->bytes),
    };
    cursor->offset += record_size(record->bytes);
    cursor->sequence++;
    return true;
}

/* ---- JSON ---- */

/* The message model's keys as the hub shows them. */
static const char *shown_name(const char *key)
{
    static const struct {
        const char *key, *shown;
    } names[] = {
        { MESSAGE_ID, "message-id" },
        { MESSAGE_CORRELATION_ID, "correlation-id" },
        { MESSAGE_USER_ID, "user-id" },
        { MESSAGE_CONTENT_TYPE, "content-type" },
        { MESSAGE_CONTENT_ENCODING, "content-encoding" },
        { MESSAGE_CREATION_TIME, "iothub-creation-time-utc" },
        { MESSAGE_SCHEMA, "iothub-message-schema" },
        { MESSAGE_OPERATION, "iothub-operation" },
        { MESSAGE_OUTPUT_NAME, "iothub-outputname" },
        { MESSAGE_ACK, "iothub-ack" },
    };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (strcmp(key, names[i].key) == 0)
            return names[i].shown;
    return key; /* to, absolute-expiry-time, iothub-interface-id, dt-subject */
}

/* A client may send text that is no UTF-8; it is shown, not trusted. */
static json_t *text_json(const char *text)
{
    struct span s = span_str(text);
    json_t *json;
    char *base64;

    if (span_is_utf8(s))
        return json_stringn_nocheck(s.at, s.len);
    base64 = base64_encode(s.at, s.len);
    json = json_string(base64);
    free(base64);
    return json;
}

static void set_property(json_t *json, const char *name, const char *value)
{
    if (span_is_utf8(span_str(name)))
        json_object_set_new_nocheck(json, name, text_json(value));
}

static json_t *system_properties_json(const struct telemetry_event *event,
                                      const Bus__Message *message, const char *enqueued)
{
    const struct telemetry_source *source = event->source;
    const char *scope = source->module_id ? "module" : "device";
    json_t *json = json_object();
    char method[128];

    for (size_t i = 0; i < message->n_system; i++)
        set_property(json, shown_name(message->system[i]->name), message->system[i]->value);
    snprintf(method, sizeof(method), "{\"scope\":\"%s\",\"type\":\"sas\",\"issuer\":\"iothub\"}",
             scope);
    set_property(json, "iothub-connection-device-id", source->device_id);
    if (source->module_id)
        set_property(json, "iothub-connection-module-id", source->module_id);
    set_property(json, "iothub-connection-auth-method", method);
    set_property(json, "iothub-connection-auth-generation-id", source->generation_id);
    set_property(json, "iothub-enqueuedtime", enqueued);
    set_property(json, "iothub-message-source", "Telemetry");
    return json;
}

static void set_body(json_t *json, const ProtobufCBinaryData *body)
{
    struct span s = span_of(body->data, body->len);

    if (span_is_utf8(s)) {
        json_object_set_new_nocheck(json, "body",
                                    json_stringn_nocheck(s.len > 0 ? s.at : "", s.len));
    } else {
        char *base64 = base64_encode(body->data, body->len);

        json_object_set_new_nocheck(json, "body_base64", json_string_nocheck(base64));
        free(base64);
    }
}

char *telemetry_render(const struct telemetry_event *event, struct arena *arena)
{
    const struct telemetry_source *source = event->source;
    char enqueued[TIME_TEXT_BYTES];
    const char *expected;
    Bus__Message *message;
    json_t *json, *application = json_object();
    char *text;
    int r;

    r = amqp_message_decode(event->encoded, arena, &message, &expected);
    assert(r == 0); /* it was decoded when it came in */
    time_to_text(event->enqueued_ms, enqueued);
    for (size_t i = 0; i < message->n_application; i++)
        set_property(application, message->application[i]->name, message->application[i]->value);
    json = json_pack("{s:s, s:s?, s:s, s:I, s:o, s:o}", "device_id", source->device_id, "module_id",
                     source->module_id, "enqueued_time", enqueued, "sequence_number",
                     (json_int_t)event->sequence, "system_properties",
                     system_properties_json(event, message, enqueued), "application_properties",
                     application);
    set_body(json, &message->body);
    text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}

struct telemetry *telemetry_free(struct telemetry *telemetry)
{
    if (!telemetry)
        return NULL;
    while (telemetry->chunk_count > 0)
        drop_first_chunk(telemetry);
    free(telemetry->chunks);
    tdestroy(telemetry->sources, source_free);
    free(telemetry);
    return NULL;
}
