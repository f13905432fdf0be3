/* Pure: no clock, no log, no descriptor, no static data. */
#include "username.h"

#include <string.h>

#include "message.h"
#include "topic.h"

enum {
    SEGMENTS_MAX = 4,           /* hub, device, module, query */
    PARAMETER_BYTES_MAX = 1024, /* they are kept for each client */
};

static struct span trim(struct span s)
{
    while (s.len > 0 && s.at[0] == ' ')
        s = span_of(s.at + 1, s.len - 1);
    while (s.len > 0 && s.at[s.len - 1] == ' ')
        s.len--;
    return s;
}

static const char *take_id(struct span s, struct arena *arena)
{
    const char *id = arena_strndup(arena, s.at, s.len);

    return identity_id_valid(id) ? id : NULL;
}

/* The first of equal keys wins, unknown ones are ignored, a trailing '&' is harmless. */
static const char *parse_query(struct span query, struct arena *arena, struct username *username)
{
    bool done = false, has_version = false;
    struct span pair, key;

    while (span_next(&query, '&', &pair, &done)) {
        const char **place = NULL;

        if (!span_split(&pair, SPAN("="), &key))
            continue;
        if (span_equal(key, SPAN("api-version")))
            has_version |= trim(pair).len > 0;
        else if (span_equal(key, SPAN("DeviceClientType")))
            place = &username->product_info;
        else if (span_equal(key, SPAN("model-id")))
            place = &username->model_id;
        if (place && !*place) {
            *place = pair.len <= PARAMETER_BYTES_MAX ? percent_text(pair, arena) : NULL;
            if (!*place)
                return "parameters that are UTF-8, of at most 1024 bytes";
        }
    }
    return has_version ? NULL : "an api-version";
}

static int fail(struct parse_error *ret_error, struct span text, struct span place,
                const char *expected)
{
    *ret_error = (struct parse_error){ (size_t)(place.at - text.at), expected };
    return USERNAME_E_MALFORMED;
}

int username_parse(struct span text, struct arena *arena, struct username *ret,
                   struct parse_error *ret_error)
{
    struct span rest = text, segments[SEGMENTS_MAX + 1] = {}, query;
    struct username username = { .module_id = "" };
    const char *expected;
    size_t count = 0;
    bool done = false;

    while (count <= SEGMENTS_MAX && span_next(&rest, '/', &segments[count], &done))
        count++;
    if (count < 3 || count > SEGMENTS_MAX)
        return fail(ret_error, text, text, "hub/device/?query or hub/device/module/?query");
    query = segments[count - 1];
    if (!span_eat(&query, SPAN("?")) &&
        !memmem(query.at, query.len, "api-version=", strlen("api-version=")))
        return fail(ret_error, text, query, "?api-version=… after the ids");

    username.device_id = take_id(trim(segments[1]), arena);
    if (!username.device_id)
        return fail(ret_error, text, segments[1], "a device id");
    if (count == SEGMENTS_MAX)
        username.module_id = take_id(trim(segments[2]), arena);
    if (!username.module_id)
        return fail(ret_error, text, segments[2], "a module id");
    expected = parse_query(query, arena, &username);
    if (expected)
        return fail(ret_error, text, query, expected);
    if (!username.product_info)
        username.product_info = "";
    if (!username.model_id)
        username.model_id = "";
    *ret = username;
    return 0;
}
