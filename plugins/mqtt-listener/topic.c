/* Pure: no clock, no log, no descriptor, no static data. */
#include "topic.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "message.h"

/* ---- topics ---- */

/* One level: up to the next slash, which is eaten, or the end. */
static bool eat_level(struct span *s, struct span *ret_level)
{
    return span_split(s, SPAN("/"), ret_level);
}

/* "devices/D[/modules/M]/messages/events[/[bag][/]]" */
static bool parse_telemetry(struct span s, struct topic *topic)
{
    if (!span_eat(&s, SPAN("devices/")) || !eat_level(&s, &topic->device_id))
        return false;
    if (span_eat(&s, SPAN("modules/")) && !eat_level(&s, &topic->module_id))
        return false;
    if (!span_eat(&s, SPAN("messages/events")))
        return false;
    if (s.len > 0 && !span_eat(&s, SPAN("/")))
        return false;
    topic->bag = s;
    return true;
}

/* "?$rid=<rid>[&…]" */
static bool parse_rid(struct span s, struct span *ret_rid)
{
    struct span rid;

    if (!span_eat(&s, SPAN("?$rid=")))
        return false;
    if (!span_split(&s, SPAN("&"), &rid))
        rid = s;
    *ret_rid = rid;
    return rid.len > 0;
}

static enum topic_kind parse_twin(struct span s, struct topic *topic)
{
    if (span_eat(&s, SPAN("GET/")))
        return parse_rid(s, &topic->rid) ? TOPIC_TWIN_GET : TOPIC_FORBIDDEN;
    if (!span_eat(&s, SPAN("PATCH/properties/reported/")))
        return TOPIC_FORBIDDEN;
    if (s.len > 0 && s.at[0] != '?')
        return TOPIC_FORBIDDEN; /* more path before the parameters */
    parse_rid(s, &topic->rid);  /* without one it is applied and not answered */
    return TOPIC_TWIN_REPORTED;
}

void topic_parse(struct span text, struct topic *ret)
{
    struct topic telemetry = { .kind = TOPIC_TELEMETRY }, topic = {};
    struct span rest = text;

    if (parse_telemetry(text, &telemetry))
        topic = telemetry;
    else if (span_eat(&rest, SPAN("$iothub/twin/")))
        topic.kind = parse_twin(rest, &topic);
    else if (span_eat(&rest, SPAN("$iothub/methods/res/")))
        topic.kind = TOPIC_METHOD_RESPONSE;
    if (topic.rid.len > TOPIC_RID_BYTES_MAX) /* the topic of the answer repeats it */
        topic.kind = TOPIC_FORBIDDEN;
    *ret = topic;
}

/* ---- property bags ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

char *percent_text(struct span s, struct arena *arena)
{
    char *text = arena_alloc(arena, s.len + 1);
    size_t len = 0;

    for (size_t i = 0; i < s.len; i++) {
        int high = s.at[i] == '%' && i + 2 < s.len ? hex_value(s.at[i + 1]) : -1;
        int low = high >= 0 ? hex_value(s.at[i + 2]) : -1;

        if (low >= 0) {
            text[len++] = (char)(high << 4 | low);
            i += 2;
        } else {
            text[len++] = s.at[i];
        }
    }
    text[len] = '\0';
    return span_is_utf8(span_of(text, len)) ? text : NULL;
}

/* mqtt.md §8.3. NULL: the server alone says it. */
static const struct system_key {
    const char *wire, *internal;
} system_keys[] = {
    { "$.mid", MESSAGE_ID },
    { "$.cid", MESSAGE_CORRELATION_ID },
    { "$.uid", MESSAGE_USER_ID },
    { "$.to", MESSAGE_TO },
    { "$.ct", MESSAGE_CONTENT_TYPE },
    { "$.ce", MESSAGE_CONTENT_ENCODING },
    { "$.ctime", MESSAGE_CREATION_TIME },
    { "$.exp", MESSAGE_EXPIRY },
    { "$.on", MESSAGE_OUTPUT_NAME },
    { "$.schema", MESSAGE_SCHEMA },
    { "$.sub", MESSAGE_SUBJECT },
    { "$.ifid", MESSAGE_INTERFACE_ID },
    { "$.cdid", NULL },
    { "$.cmid", NULL },
    { "ack", MESSAGE_ACK },
    { "iothub-ack", MESSAGE_ACK },
    { "iothub-operation", MESSAGE_OPERATION },
};

static const struct system_key *system_key_find(const char *wire)
{
    for (size_t i = 0; i < ELEMENTSOF(system_keys); i++)
        if (strcmp(system_keys[i].wire, wire) == 0)
            return &system_keys[i];
    return NULL;
}

/* A decoded piece, and where it stood. */
struct piece {
    Bus__Property property;
    size_t index;
};

struct piece_list {
    struct piece **items;
    size_t count;
};

static struct piece_list piece_list_new(size_t capacity, struct arena *arena)
{
    return (struct piece_list){ arena_alloc(arena, sizeof(struct piece *) * capacity), 0 };
}

static void piece_list_add(struct piece_list *list, char *name, char *value, struct arena *arena)
{
    struct piece *piece = arena_alloc(arena, sizeof(*piece));

    bus__property__init(&piece->property);
    piece->property.name = name;
    piece->property.value = value;
    piece->index = list->count;
    list->items[list->count++] = piece;
}

static int piece_compare_name(const void *a, const void *b)
{
    const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;
    int c = strcmp(x->property.name, y->property.name);

    return c ? c : (x->index > y->index) - (x->index < y->index);
}

static int piece_compare_index(const void *a, const void *b)
{
    const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;

    return (x->index > y->index) - (x->index < y->index);
}

/* Of equal names the last one stays, in its place. Sorting, since a topic has room for 30,000 names
 * that a stranger chose. */
static void piece_list_unique(struct piece_list *list)
{
    size_t kept = 0;

    if (list->count < 2)
        return;
    qsort(list->items, list->count, sizeof(list->items[0]), piece_compare_name);
    for (size_t i = 0; i < list->count; i++) {
        if (i + 1 < list->count &&
            strcmp(list->items[i]->property.name, list->items[i + 1]->property.name) == 0)
            continue;
        list->items[kept++] = list->items[i];
    }
    list->count = kept;
    qsort(list->items, list->count, sizeof(list->items[0]), piece_compare_index);
}

static void piece_list_to(const struct piece_list *list, struct arena *arena, size_t *ret_count,
                          Bus__Property ***ret_properties)
{
    Bus__Property **properties = arena_alloc(arena, sizeof(*properties) * list->count);

    for (size_t i = 0; i < list->count; i++)
        properties[i] = &list->items[i]->property;
    *ret_count = list->count;
    *ret_properties = properties;
}

static size_t count_pieces(struct span bag)
{
    size_t count = 1;

    for (size_t i = 0; i < bag.len; i++)
        count += bag.at[i] == '&';
    return count;
}

static int decode_piece(struct span piece, struct piece_list *system,
                        struct piece_list *application, struct arena *arena)
{
    const struct system_key *key;
    struct span encoded_name;
    char *name, *value;

    if (!span_split(&piece, SPAN("="), &encoded_name)) {
        encoded_name = piece;
        piece = (struct span){};
    }
    name = percent_text(encoded_name, arena);
    value = percent_text(piece, arena);
    if (!name || !value)
        return BAG_E_NOT_TEXT;
    key = system_key_find(name);
    if (!key)
        piece_list_add(application, name, value, arena);
    else if (key->internal)
        piece_list_add(system, (char *)key->internal, value, arena);
    return 0;
}

int bag_decode(struct span bag, struct arena *arena, Bus__Message *m)
{
    struct piece_list system, application;
    struct span piece;
    bool done = false;

    if (bag.len > 0 && bag.at[bag.len - 1] == '/')
        bag.len--;
    span_eat(&bag, SPAN("?"));
    if (bag.len == 0)
        return 0;
    system = piece_list_new(count_pieces(bag), arena);
    application = piece_list_new(count_pieces(bag), arena);
    while (span_next(&bag, '&', &piece, &done)) {
        int r = piece.len > 0 ? decode_piece(piece, &system, &application, arena) : 0;

        if (r != 0)
            return r;
    }
    piece_list_unique(&system);
    piece_list_unique(&application);
    piece_list_to(&system, arena, &m->n_system, &m->system);
    piece_list_to(&application, arena, &m->n_application, &m->application);
    return 0;
}

/* ---- what the server adds ---- */

static void property_set(size_t *count, Bus__Property ***properties, const char *name,
                         const char *value, struct arena *arena)
{
    Bus__Property **more, *property;

    for (size_t i = 0; i < *count; i++) {
        if (strcmp((*properties)[i]->name, name) == 0) {
            (*properties)[i]->value = (char *)value;
            return;
        }
    }
    property = arena_alloc(arena, sizeof(*property));
    bus__property__init(property);
    property->name = (char *)name;
    property->value = (char *)value;
    more = arena_alloc(arena, sizeof(*more) * (*count + 1));
    if (*count > 0)
        memcpy(more, *properties, sizeof(*more) * *count);
    more[(*count)++] = property;
    *properties = more;
}

void message_add_application(Bus__Message *m, const char *name, const char *value,
                             struct arena *arena)
{
    property_set(&m->n_application, &m->application, name, value, arena);
}

void message_add_system(Bus__Message *m, const char *name, const char *value, struct arena *arena)
{
    property_set(&m->n_system, &m->system, name, value, arena);
}
