/*
 * bus.Message to and from the encoded sections of an AMQP message, and the addresses of links. What comes in was written
 * by strangers: every length is checked, nothing recurses, and a message is given only when all of it was understood.
 */
#include "amqp-message.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "amqp-codec.h"
#include "message.h"

/* The hub takes this annotation from a security agent only (amqp.md §6). */
#define SECURITY_AGENT_INTERFACE "urn:azureiot:Security:SecurityAgent:1"

/* Keys of application properties and annotations that stand for a system property. */
struct named_key {
    struct span wire;
    const char *internal;
};

static const struct named_key application_keys[] = {
    { SPAN("iothub-message-schema"), MESSAGE_SCHEMA },
    { SPAN("iothub-creation-time-utc"), MESSAGE_CREATION_TIME },
    { SPAN("iothub-operation"), MESSAGE_OPERATION },
    { SPAN("iothub-outputname"), MESSAGE_OUTPUT_NAME },
};

static const struct named_key annotation_keys[] = {
    { SPAN("iothub-interface-id"), MESSAGE_INTERFACE_ID },
    { SPAN("dt-subject"), MESSAGE_SUBJECT },
};

/* ---- Out ---- */

static bool is_printable_ascii(struct span s)
{
    for (size_t n = 0; n < s.len; n++)
        if (s.at[n] < 0x20 || s.at[n] > 0x7e)
            return false;
    return true;
}

typedef void put_fn(struct buf *out, struct span s);

/* The fields of the properties section in their order, up to the last that is sent. A gap is a null. */
static const struct property_field {
    const char *internal; /* NULL: never sent */
    put_fn *put;
} property_fields[] = {
    { MESSAGE_ID, amqp_put_string },
    { MESSAGE_USER_ID, amqp_put_binary },
    { MESSAGE_TO, amqp_put_string },
    { NULL, NULL }, /* subject */
    { NULL, NULL }, /* reply-to */
    { MESSAGE_CORRELATION_ID, amqp_put_string },
    { MESSAGE_CONTENT_TYPE, amqp_put_symbol },
    { MESSAGE_CONTENT_ENCODING, amqp_put_symbol },
};

static void encode_properties(const Bus__Message *m, struct buf *out)
{
    const char *values[ELEMENTSOF(property_fields)] = {};
    uint32_t count = 0;
    size_t size = 0;

    for (uint32_t n = 0; n < ELEMENTSOF(property_fields); n++) {
        const struct property_field *f = &property_fields[n];

        values[n] = f->internal ? message_system(m, f->internal) : NULL;
        /* A symbol is ASCII: a content type that is not one is left out, the message goes. */
        if (values[n] && f->put == amqp_put_symbol && !is_printable_ascii(span_str(values[n])))
            values[n] = NULL;
        if (values[n])
            count = n + 1;
    }
    if (count == 0)
        return;
    for (uint32_t n = 0; n < count; n++)
        size += values[n] ? amqp_variable_size(strlen(values[n])) : 1;
    amqp_put_descriptor(out, AMQP_SECTION_PROPERTIES);
    amqp_put_list(out, count, size);
    for (uint32_t n = 0; n < count; n++) {
        if (values[n])
            property_fields[n].put(out, span_str(values[n]));
        else
            amqp_put_null(out);
    }
}

struct pair {
    struct span name;
    struct span value;
};

static size_t pair_size(struct pair pair)
{
    return amqp_variable_size(pair.name.len) + amqp_variable_size(pair.value.len);
}

static void encode_annotations(const Bus__Message *m, struct buf *out)
{
    const char *subject = message_system(m, MESSAGE_SUBJECT);
    const char *interface = message_system(m, MESSAGE_INTERFACE_ID);
    struct pair pairs[2];
    uint32_t count = 0;
    size_t size = 0;

    if (subject)
        pairs[count++] = (struct pair){ SPAN("dt-subject"), span_str(subject) };
    if (interface && span_equal_nocase(span_str(interface), SPAN(SECURITY_AGENT_INTERFACE)))
        pairs[count++] = (struct pair){ SPAN("iothub-interface-id"), span_str(interface) };
    if (count == 0)
        return;
    for (uint32_t n = 0; n < count; n++)
        size += pair_size(pairs[n]);
    amqp_put_descriptor(out, AMQP_SECTION_MESSAGE_ANNOTATIONS);
    amqp_put_map(out, count * 2, size);
    for (uint32_t n = 0; n < count; n++) {
        amqp_put_symbol(out, pairs[n].name);
        amqp_put_string(out, pairs[n].value);
    }
}

static void put_string_pair(struct buf *out, struct pair pair)
{
    amqp_put_string(out, pair.name);
    amqp_put_string(out, pair.value);
}

static void encode_application(const Bus__Message *m, struct buf *out)
{
    const char *created = message_system(m, MESSAGE_CREATION_TIME);
    const char *schema = message_system(m, MESSAGE_SCHEMA);
    struct pair system[2];
    uint32_t system_count = 0;
    size_t size = 0;

    if (created)
        system[system_count++] =
            (struct pair){ SPAN("iothub-creation-time-utc"), span_str(created) };
    if (schema)
        system[system_count++] = (struct pair){ SPAN("iothub-message-schema"), span_str(schema) };
    if (system_count + m->n_application == 0)
        return;
    for (uint32_t n = 0; n < system_count; n++)
        size += pair_size(system[n]);
    for (size_t n = 0; n < m->n_application; n++)
        size += amqp_variable_size(strlen(m->application[n]->name)) +
                amqp_variable_size(strlen(m->application[n]->value));
    amqp_put_descriptor(out, AMQP_SECTION_APPLICATION_PROPERTIES);
    amqp_put_map(out, (uint32_t)(system_count + m->n_application) * 2, size);
    for (uint32_t n = 0; n < system_count; n++)
        put_string_pair(out, system[n]);
    for (size_t n = 0; n < m->n_application; n++)
        put_string_pair(out, (struct pair){ span_str(m->application[n]->name),
                                            span_str(m->application[n]->value) });
}

void amqp_message_encode_upstream(const Bus__Message *m, struct buf *out)
{
    encode_annotations(m, out);
    encode_properties(m, out);
    encode_application(m, out);
    amqp_put_descriptor(out, AMQP_SECTION_DATA);
    amqp_put_binary(out, span_of(m->body.data, m->body.len));
}

/* ---- In ---- */

/* Every system property that can come in: 7 of properties, those of the two tables. */
enum { SYSTEM_MAX = 7 + ELEMENTSOF(application_keys) + ELEMENTSOF(annotation_keys) };

/* The sections of one message, as they were found. Later ones of a kind that may stand only once are refused. */
struct sections {
    struct span annotations, properties, application;
    bool has_annotations, has_properties, has_application;
    struct span body; /* a single Data section, or an amqp-value */
    unsigned data_sections;
    size_t data_bytes;
    bool has_value;
};

struct decoder {
    struct arena *arena;
    Bus__Message *message;
    const char *expected;
};

static int malformed(struct decoder *d, const char *expected)
{
    d->expected = expected;
    return AMQP_MESSAGE_E_MALFORMED;
}

static int unsupported(struct decoder *d, const char *expected)
{
    d->expected = expected;
    return AMQP_MESSAGE_E_UNSUPPORTED;
}

static int section_once(struct decoder *d, const struct amqp_value *v, enum amqp_kind kind,
                        struct span *section, bool *seen)
{
    if (*seen)
        return malformed(d, "each section but Data at most once");
    if (v->kind != kind)
        return malformed(d, kind == AMQP_MAP ? "a map in the section" : "a list in the section");
    *section = v->bytes;
    *seen = true;
    return 0;
}

static int section_data(struct decoder *d, const struct amqp_value *v, struct sections *s)
{
    if (v->kind != AMQP_BINARY)
        return malformed(d, "binary in the Data section");
    if (s->has_value)
        return malformed(d, "one kind of body");
    s->body = v->bytes;
    s->data_bytes += v->bytes.len;
    s->data_sections++;
    return 0;
}

static int section_value(struct decoder *d, const struct amqp_value *v, struct sections *s)
{
    if (s->has_value || s->data_sections > 0)
        return malformed(d, "one kind of body");
    if (v->kind != AMQP_STRING && v->kind != AMQP_BINARY && v->kind != AMQP_NULL)
        return unsupported(d, "a string or binary as amqp-value");
    s->body = v->bytes;
    s->has_value = true;
    return 0;
}

static int section_take(struct decoder *d, const struct amqp_value *v, struct sections *s)
{
    switch (v->descriptor) {
    case AMQP_SECTION_HEADER:
    case AMQP_SECTION_DELIVERY_ANNOTATIONS:
    case AMQP_SECTION_FOOTER:
        return 0;
    case AMQP_SECTION_MESSAGE_ANNOTATIONS:
        return section_once(d, v, AMQP_MAP, &s->annotations, &s->has_annotations);
    case AMQP_SECTION_PROPERTIES:
        return section_once(d, v, AMQP_LIST, &s->properties, &s->has_properties);
    case AMQP_SECTION_APPLICATION_PROPERTIES:
        return section_once(d, v, AMQP_MAP, &s->application, &s->has_application);
    case AMQP_SECTION_DATA:
        return section_data(d, v, s);
    case AMQP_SECTION_VALUE:
        return section_value(d, v, s);
    case AMQP_SECTION_SEQUENCE:
        return unsupported(d, "a body of Data or amqp-value");
    default:
        return malformed(d, "a section of an AMQP message");
    }
}

static int sections_find(struct decoder *d, struct span encoded, struct sections *ret)
{
    struct sections s = {};

    while (encoded.len > 0) {
        struct amqp_value v;
        int r;

        if (!amqp_read(&encoded, &v))
            return malformed(d, "a whole AMQP value");
        r = section_take(d, &v, &s);
        if (r != 0)
            return r;
    }
    *ret = s;
    return 0;
}

static char *text_of_string(struct decoder *d, struct span s)
{
    return span_is_utf8(s) ? arena_strndup(d->arena, s.at, s.len) : NULL;
}

static char *arena_print(struct decoder *d, const char *format, ...) _printf_(2, 3);
static char *arena_print(struct decoder *d, const char *format, ...)
{
    char text[64];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    return arena_strdup(d->arena, text);
}

static char *text_of_uuid(struct decoder *d, struct span s)
{
    char text[37];
    char *at = text;

    for (size_t n = 0; n < 16; n++) {
        if (n == 4 || n == 6 || n == 8 || n == 10)
            *at++ = '-';
        at += sprintf(at, "%02x", (unsigned)(uint8_t)s.at[n]);
    }
    return arena_strdup(d->arena, text);
}

static char *text_of_bytes(struct decoder *d, struct span s)
{
    char *text;

    if (span_is_utf8(s))
        return arena_strndup(d->arena, s.at, s.len);
    text = arena_alloc(d->arena, s.len * 2 + 1);
    for (size_t n = 0; n < s.len; n++)
        sprintf(text + 2 * n, "%02x", (unsigned)(uint8_t)s.at[n]);
    return text;
}

/* .NET's round-trip form: it parses no other (mqtt.md, trap 10). NULL: no year of four digits. */
static char *text_of_timestamp(struct decoder *d, int64_t ms)
{
    int64_t fraction = (ms % 1000 + 1000) % 1000;
    time_t sec = (time_t)((ms - fraction) / 1000);
    struct tm tm;

    if (ms < INT64_MIN + 1000 || !gmtime_r(&sec, &tm) || tm.tm_year < -1900 || tm.tm_year > 8099)
        return NULL;
    return arena_print(d, "%04d-%02d-%02dT%02d:%02d:%02d.%03d0000Z", tm.tm_year + 1900,
                       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)fraction);
}

/* The shortest text that reads back as the same number. */
static char *text_of_real(struct decoder *d, double v)
{
    char text[64];

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return arena_strdup(d->arena, text);
}

/* NULL: it has no text form, or is a string that is not UTF-8. */
static char *text_of_value(struct decoder *d, const struct amqp_value *v)
{
    switch (v->kind) {
    case AMQP_NULL:
        return arena_strdup(d->arena, "");
    case AMQP_BOOL:
        return arena_strdup(d->arena, v->u ? "true" : "false");
    case AMQP_UINT:
    case AMQP_CHAR:
        return arena_print(d, "%llu", (unsigned long long)v->u);
    case AMQP_INT:
        return arena_print(d, "%lld", (long long)v->i);
    case AMQP_REAL:
        return text_of_real(d, v->real);
    case AMQP_TIMESTAMP:
        return text_of_timestamp(d, v->i);
    case AMQP_UUID:
        return text_of_uuid(d, v->bytes);
    case AMQP_STRING:
    case AMQP_SYMBOL:
        return text_of_string(d, v->bytes);
    case AMQP_BINARY:
        return text_of_bytes(d, v->bytes);
    default:
        return NULL;
    }
}

static Bus__Property *property_new(struct decoder *d, char *name, char *value)
{
    Bus__Property *p = arena_alloc(d->arena, sizeof(*p));

    bus__property__init(p);
    p->name = name;
    p->value = value;
    return p;
}

/* A key that came before stays: names are unique. */
static void add_system(struct decoder *d, const char *internal, char *value)
{
    Bus__Message *m = d->message;

    if (message_system(m, internal))
        return;
    m->system[m->n_system++] = property_new(d, (char *)internal, value);
}

static int add_system_value(struct decoder *d, const char *internal, const struct amqp_value *v)
{
    char *text = text_of_value(d, v);

    if (!text)
        return malformed(d, "a system property with a simple value, strings in UTF-8");
    add_system(d, internal, text);
    return 0;
}

static int decode_properties(struct decoder *d, struct span list)
{
    static const char *const fields[] = {
        MESSAGE_ID,    MESSAGE_USER_ID,        MESSAGE_TO,           NULL,
        NULL,          MESSAGE_CORRELATION_ID, MESSAGE_CONTENT_TYPE, MESSAGE_CONTENT_ENCODING,
        MESSAGE_EXPIRY
    };

    for (size_t n = 0; n < ELEMENTSOF(fields) && list.len > 0; n++) {
        struct amqp_value v;
        int r;

        if (!amqp_read(&list, &v))
            return malformed(d, "whole values in properties");
        if (!fields[n] || v.kind == AMQP_NULL)
            continue;
        r = add_system_value(d, fields[n], &v);
        if (r != 0)
            return r;
    }
    return 0;
}

static const char *named_key_find(const struct named_key *keys, size_t count, struct span name)
{
    for (size_t n = 0; n < count; n++)
        if (span_equal(keys[n].wire, name))
            return keys[n].internal;
    return NULL;
}

/* One key and its value off the front of a map's content. */
static int read_pair(struct decoder *d, struct span *map, struct amqp_value *ret_key,
                     struct amqp_value *ret_value)
{
    if (!amqp_read(map, ret_key) || !amqp_read(map, ret_value))
        return malformed(d, "whole pairs in a map");
    return 0;
}

static int decode_annotations(struct decoder *d, struct span map)
{
    while (map.len > 0) {
        struct amqp_value key, value;
        const char *internal;
        int r;

        r = read_pair(d, &map, &key, &value);
        if (r != 0)
            return r;
        internal = named_key_find(annotation_keys, ELEMENTSOF(annotation_keys), key.bytes);
        if (!internal || value.kind == AMQP_NULL)
            continue;
        r = add_system_value(d, internal, &value);
        if (r != 0)
            return r;
    }
    return 0;
}

static int add_application(struct decoder *d, const struct amqp_value *key,
                           const struct amqp_value *value)
{
    const char *internal =
        named_key_find(application_keys, ELEMENTSOF(application_keys), key->bytes);
    char *name, *text;

    if (internal)
        return add_system_value(d, internal, value);
    name = text_of_string(d, key->bytes);
    text = text_of_value(d, value);
    if (!name || !text)
        return malformed(d, "application properties with simple values, strings in UTF-8");
    d->message->application[d->message->n_application++] = property_new(d, name, text);
    return 0;
}

static int map_count(struct decoder *d, struct span map, size_t *ret)
{
    size_t count = 0;

    while (map.len > 0) {
        struct amqp_value key, value;
        int r = read_pair(d, &map, &key, &value);

        if (r != 0)
            return r;
        if (key.kind != AMQP_STRING && key.kind != AMQP_SYMBOL)
            return malformed(d, "strings as names of application properties");
        count++;
    }
    *ret = count;
    return 0;
}

static int decode_application(struct decoder *d, struct span map)
{
    size_t count;
    int r;

    r = map_count(d, map, &count);
    if (r != 0)
        return r;
    d->message->application = arena_alloc(d->arena, count * sizeof(Bus__Property *));
    while (map.len > 0) {
        struct amqp_value key, value;

        r = read_pair(d, &map, &key, &value);
        if (r == 0)
            r = add_application(d, &key, &value);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Several Data sections are one body. The sections were read once already: reading cannot fail. */
static void decode_body(struct decoder *d, struct span encoded, const struct sections *s)
{
    ProtobufCBinaryData *body = &d->message->body;
    struct amqp_value v;

    if (s->data_sections <= 1) {
        body->len = s->body.len;
        body->data = arena_alloc(d->arena, body->len);
        if (body->len > 0)
            memcpy(body->data, s->body.at, body->len);
        return;
    }
    body->data = arena_alloc(d->arena, s->data_bytes);
    while (encoded.len > 0 && amqp_read(&encoded, &v)) {
        if (v.descriptor != AMQP_SECTION_DATA || v.bytes.len == 0)
            continue;
        memcpy(body->data + body->len, v.bytes.at, v.bytes.len);
        body->len += v.bytes.len;
    }
}

static int decode(struct decoder *d, struct span encoded)
{
    struct sections s;
    int r;

    r = sections_find(d, encoded, &s);
    if (r != 0)
        return r;
    d->message = arena_alloc(d->arena, sizeof(*d->message));
    bus__message__init(d->message);
    d->message->system = arena_alloc(d->arena, SYSTEM_MAX * sizeof(Bus__Property *));
    r = decode_properties(d, s.properties);
    if (r == 0)
        r = decode_application(d, s.application);
    if (r == 0)
        r = decode_annotations(d, s.annotations);
    if (r != 0)
        return r;
    decode_body(d, encoded, &s);
    return 0;
}

int amqp_message_decode(struct span encoded, struct arena *arena, Bus__Message **ret,
                        const char **ret_expected)
{
    struct decoder d = { .arena = arena };
    int r = decode(&d, encoded);

    if (r == 0)
        *ret = d.message;
    else
        *ret_expected = d.expected;
    return r;
}

int amqp_batch_each(struct span encoded, int (*fn)(struct span inner, void *userdata),
                    void *userdata)
{
    while (encoded.len > 0) {
        struct amqp_value v;
        int r;

        if (!amqp_read(&encoded, &v) || v.descriptor < AMQP_SECTION_HEADER ||
            v.descriptor > AMQP_SECTION_FOOTER)
            return AMQP_MESSAGE_E_MALFORMED;
        if (v.descriptor != AMQP_SECTION_DATA) /* the envelope's own, never those of a message */
            continue;
        if (v.kind != AMQP_BINARY)
            return AMQP_MESSAGE_E_MALFORMED;
        r = fn(v.bytes, userdata);
        if (r != 0)
            return r;
    }
    return 0;
}

/* ---- Addresses ---- */

static const struct node_name {
    struct span name;
    enum amqp_node node;
} node_names[] = {
    { SPAN("messages/events"), AMQP_NODE_EVENTS },
    { SPAN("messages/deviceBound"), AMQP_NODE_DEVICEBOUND },
    { SPAN("methods/deviceBound"), AMQP_NODE_METHODS },
    { SPAN("twin"), AMQP_NODE_TWIN },
};

static bool node_parse(struct span s, enum amqp_node *ret)
{
    for (size_t n = 0; n < ELEMENTSOF(node_names); n++)
        if (span_equal_nocase(s, node_names[n].name)) {
            *ret = node_names[n].node;
            return true;
        }
    return false;
}

bool amqp_address_parse(struct span address, struct amqp_address *ret)
{
    struct amqp_address a = {};
    struct span rest = address, host;

    if (span_eat_nocase(&rest, SPAN("amqps://")) && !span_split(&rest, SPAN("/"), &host))
        return false;
    span_eat(&rest, SPAN("/"));
    if (span_equal_nocase(rest, SPAN("$cbs"))) {
        *ret = (struct amqp_address){ .node = AMQP_NODE_CBS };
        return true;
    }
    if (!span_eat_nocase(&rest, SPAN("devices/")) || !span_split(&rest, SPAN("/"), &a.device_id) ||
        a.device_id.len == 0)
        return false;
    if (span_eat_nocase(&rest, SPAN("modules/")) &&
        (!span_split(&rest, SPAN("/"), &a.module_id) || a.module_id.len == 0))
        return false;
    if (!node_parse(rest, &a.node))
        return false;
    *ret = a;
    return true;
}
