#include "route-vector.h"

#include <jansson.h>

#include "arena.h"
#include "buf.h"
#include "message.h"
#include "route-text.h"

static const char *get_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static struct span get_span(const json_t *object, const char *key)
{
    const json_t *text = json_object_get(object, key);

    return span_of(json_string_value(text), json_string_length(text));
}

static Bus__Property *property_new(struct arena *arena, const char *name, const json_t *value)
{
    Bus__Property *property = arena_alloc(arena, sizeof(*property));

    bus__property__init(property);
    property->name = (char *)name;
    if (json_is_string(value))
        property->value = (char *)json_string_value(value);
    else
        property->is_null = true;
    return property;
}

/* @more: how many the caller adds. */
static Bus__Property **properties_new(struct arena *arena, const json_t *object, size_t more,
                                      size_t *ret_count)
{
    Bus__Property **properties =
        arena_alloc(arena, (json_object_size(object) + more) * sizeof(properties[0]));
    const char *name;
    json_t *value;
    size_t n = 0;

    json_object_foreach((json_t *)object, name, value) properties[n++] =
        property_new(arena, name, value);
    *ret_count = n;
    return properties;
}

static void put_unit(struct buf *out, uint32_t unit, size_t bytes)
{
    for (; bytes > 0; bytes--, unit >>= 8)
        buf_append_byte(out, (uint8_t)unit);
}

static void put_utf16(struct buf *out, uint32_t c)
{
    if (c >= 0x10000) {
        put_unit(out, 0xd800 + ((c - 0x10000) >> 10), 2);
        c = 0xdc00 + ((c - 0x10000) & 0x3ff);
    }
    put_unit(out, c, 2);
}

static void body_encode(struct span rest, const char *encoding, struct buf *out)
{
    struct span name = span_str(encoding);
    bool utf16 = span_equal_nocase(name, SPAN("utf-16"));

    if (!utf16 && !span_equal_nocase(name, SPAN("utf-32"))) {
        buf_append_span(out, rest);
        return;
    }
    while (rest.len > 0) {
        uint32_t c = text_next(&rest);

        if (utf16)
            put_utf16(out, c);
        else
            put_unit(out, c, 4);
    }
}

static void message_make(const json_t *from, struct arena *arena, struct buf *body,
                         Bus__Message *ret)
{
    static const char *const contents[] = { MESSAGE_CONTENT_TYPE, MESSAGE_CONTENT_ENCODING };

    bus__message__init(ret);
    ret->application = properties_new(arena, json_object_get(from, "applicationProperties"), 0,
                                      &ret->n_application);
    ret->system = properties_new(arena, json_object_get(from, "systemProperties"),
                                 ELEMENTSOF(contents), &ret->n_system);
    for (size_t i = 0; i < ELEMENTSOF(contents); i++)
        if (get_text(from, contents[i]))
            ret->system[ret->n_system++] =
                property_new(arena, contents[i], json_object_get(from, contents[i]));
    if (get_text(from, "body"))
        body_encode(get_span(from, "body"), get_text(from, MESSAGE_CONTENT_ENCODING), body);
    ret->body.data = (uint8_t *)buf_span(body).at;
    ret->body.len = buf_len(body);
}

static void routes_try(struct routes *routes, const char *source, const json_t *from,
                       struct route_outcome *outcome)
{
    struct arena *arena = arena_new();
    _cleanup_(buf_done) struct buf body = {};
    const struct route *const *matches;
    Bus__Message decoded;
    struct route_message message = { .source = span_str(source), .decoded = &decoded };

    message_make(from, arena, &body, &decoded);
    outcome->is_routed = routes_match(routes, &message, &matches) > 0;
    outcome->verdict = routes_judge(routes, &message);
    outcome->queue = xstrdup(routes_get(routes, 0)->endpoint.queue);
    arena_free(arena);
}

/* Message sources end in a slash; cases may leave it out. */
static char *source_complete(const char *source)
{
    size_t len = strlen(source);

    return xasprintf("%s%s", source, len > 0 && source[len - 1] == '/' ? "" : "/");
}

static void route_text(const json_t *vector, struct buf *out)
{
    if (!get_text(vector, "query")) {
        buf_append_span(out, get_span(vector, "route"));
        return;
    }
    buf_append_span(out, SPAN("FROM /messages WHERE "));
    buf_append_span(out, get_span(vector, "query"));
    buf_append_span(out, SPAN(" INTO $upstream"));
}

int route_vector_run(const struct json_t *vector, struct route_outcome *ret_outcome,
                     const char **ret_expected)
{
    const char *query = get_text(vector, "query"), *route = get_text(vector, "route");
    const char *source = query ? "/messages/" : get_text(vector, "source");
    _cleanup_(routes_freep) struct routes *routes = NULL;
    _cleanup_(freep) char *whole_source = NULL;
    _cleanup_(buf_done) struct buf text = {};
    struct route_outcome outcome = {};

    if (!query && !(route && source)) {
        *ret_expected = "an object with \"query\", or with \"route\" and \"source\"";
        return ROUTE_E_INVALID;
    }
    routes = routes_new();
    route_text(vector, &text);
    whole_source = source_complete(source);
    outcome.is_refused = routes_add(routes, "case", buf_span(&text), ROUTE_PRIORITY_DEFAULT, -1,
                                    &outcome.error) != 0;
    if (!outcome.is_refused)
        routes_try(routes, whole_source, json_object_get(vector, "message"), &outcome);
    *ret_outcome = outcome;
    return 0;
}

void route_outcome_done(struct route_outcome *outcome)
{
    free(outcome->queue);
    *outcome = (struct route_outcome){};
}
