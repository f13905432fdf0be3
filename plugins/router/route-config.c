#include "route-config.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "route-text.h"

enum { TTL_DEFAULT_SEC = 7200 };

struct reader {
    struct route_config config;
    struct route_problems problems;
    unsigned minor; /* of schemaVersion 1.x */
};

static void _printf_(2, 3) problem(struct reader *r, const char *format, ...)
{
    struct route_problems *p = &r->problems;
    va_list args;
    char *text;

    if (p->count == ROUTE_PROBLEMS_MAX)
        return;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    xgrow(p->texts, p->count, p->capacity);
    p->texts[p->count++] = text;
}

/* The original takes names in any case where none is right; but for schemaVersion. */
static const json_t *member(const json_t *object, const char *name)
{
    const json_t *found = json_object_get(object, name);
    const char *key;
    json_t *value;

    if (found)
        return found;
    json_object_foreach((json_t *)object, key,
                        value) if (span_equal_nocase(span_str(key), span_str(name))) return value;
    return NULL;
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n\v\f")] == '\0';
}

/* @value: NULL leaves @ret as it is. False when it is no whole number within the bounds. */
static bool get_integer(const json_t *value, int64_t min, int64_t max, int64_t *ret)
{
    if (!value)
        return true;
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max)
        return false;
    *ret = json_integer_value(value);
    return true;
}

/* schemaVersion */

static bool version_split(const char *text, uint64_t parts[static 4])
{
    struct span rest = span_str(text), part;
    bool done = false;
    size_t n = 0;

    while (span_next(&rest, '.', &part, &done))
        if (n == 4 || !span_to_uint64(part, &parts[n++]))
            return false;
    return n >= 2;
}

static bool read_schema_version(struct reader *r, const json_t *properties)
{
    const char *text = json_string_value(json_object_get(properties, "schemaVersion"));
    uint64_t parts[4];

    if (text && version_split(text, parts) && parts[0] == 1 && parts[1] <= 3) {
        r->minor = (unsigned)parts[1];
        return true;
    }
    problem(r, "schemaVersion: expected \"1.0\", \"1.1\", \"1.2\" or \"1.3\", found %s%s%s",
            text ? "\"" : "", text ? text : "none", text ? "\"" : "");
    return false;
}

/* storeAndForwardConfiguration */

static void read_store_and_forward(struct reader *r, const json_t *properties)
{
    const json_t *settings = member(properties, "storeAndForwardConfiguration");
    const json_t *limits = member(settings, "storeLimits");

    if (!json_is_object(settings)) {
        problem(r, "storeAndForwardConfiguration: expected an object");
        return;
    }
    if (!get_integer(member(settings, "timeToLiveSecs"), INT32_MIN, INT32_MAX, &r->config.ttl_sec))
        problem(r, "storeAndForwardConfiguration.timeToLiveSecs: expected a whole number of 32 "
                   "bits");
    if (limits && !json_is_null(limits) && !json_is_object(limits))
        problem(r, "storeAndForwardConfiguration.storeLimits: expected an object");
    else if (!get_integer(member(limits, "maxSizeBytes"), INT64_MIN, INT64_MAX,
                          &r->config.max_bytes))
        problem(r, "storeAndForwardConfiguration.storeLimits.maxSizeBytes: expected a whole number "
                   "of 64 bits");
}

/* Routes */

static void add_route(struct reader *r, const char *name, const char *text, uint32_t priority,
                      int64_t ttl_sec)
{
    struct parse_error error;

    if (routes_add(r->config.routes, name, span_str(text), priority,
                   ttl_sec > 0 ? ttl_sec : r->config.ttl_sec, &error) != 0)
        problem(r, "Error parsing route %s - column %zu: expected %s", name,
                text_units(span_of(text, error.offset)) + 1, error.expected);
}

static void add_route_object(struct reader *r, const char *name, const json_t *route)
{
    const char *text = json_string_value(member(route, "route"));
    int64_t priority = ROUTE_PRIORITY_DEFAULT, ttl_sec = 0;

    if (!text || is_blank(text))
        problem(r, "Error parsing route %s - route: expected a text", name);
    else if (!get_integer(member(route, "priority"), 0, ROUTE_PRIORITY_DEFAULT, &priority) ||
             (priority > 9 && priority != ROUTE_PRIORITY_DEFAULT))
        problem(r, "Error parsing route %s - priority: expected 0 to 9, or 2000000000", name);
    else if (!get_integer(member(route, "timeToLiveSecs"), 0, UINT32_MAX, &ttl_sec))
        problem(r, "Error parsing route %s - timeToLiveSecs: expected 0 to 4294967295", name);
    else
        add_route(r, name, text, (uint32_t)priority, ttl_sec);
}

/* Schema 1.0 knows texts only, and leaves out empty ones. */
static void read_route(struct reader *r, const char *name, const json_t *route)
{
    const char *text = json_string_value(route);
    bool is_first_schema = r->minor == 0;

    if (is_first_schema && (json_is_null(route) || (text && is_blank(text))))
        return;
    if (!is_first_schema && is_blank(name))
        problem(r, "Error parsing route \"%s\" - expected a name", name);
    else if (text && !is_blank(text))
        add_route(r, name, text, ROUTE_PRIORITY_DEFAULT, 0);
    else if (!is_first_schema && json_is_object(route))
        add_route_object(r, name, route);
    else
        problem(r, "Error parsing route %s - expected a text%s", name,
                is_first_schema ? " in schema 1.0" : " or an object");
}

static void read_routes(struct reader *r, const json_t *properties)
{
    const json_t *routes = member(properties, "routes");
    const char *name;
    json_t *route;

    if (r->minor == 0 && (!routes || json_is_null(routes)))
        return;
    if (!json_is_object(routes)) {
        problem(r, "routes: expected an object");
        return;
    }
    json_object_foreach((json_t *)routes, name, route) read_route(r, name, route);
    if (routes_endpoints(r->config.routes) > ENDPOINTS_MAX)
        problem(r, "routes: expected at most %d different endpoints, found %zu", ENDPOINTS_MAX,
                routes_endpoints(r->config.routes));
}

static void read_properties(struct reader *r, const json_t *properties)
{
    if (!json_is_object(properties)) {
        problem(r, "expected an object of desired properties");
        return;
    }
    get_integer(json_object_get(properties, "$version"), 0, INT64_MAX, &r->config.version);
    if (!read_schema_version(r, properties))
        return; /* what else it says, it says in a language unknown */
    read_store_and_forward(r, properties);
    read_routes(r, properties);
}

int route_config_parse(struct span json, struct route_config *ret_config,
                       struct route_problems *ret_problems)
{
    /* Ours where it says nothing of a time to live (hub.md §11); the original lets all expire. */
    struct reader r = { .config = { .routes = routes_new(), .ttl_sec = TTL_DEFAULT_SEC } };
    json_error_t error = {};
    json_t *properties = NULL;

    if (json.len <= ROUTE_CONFIG_BYTES_MAX)
        properties = json_loadb(json.at, json.len, JSON_REJECT_DUPLICATES, &error);
    if (properties)
        read_properties(&r, properties);
    else if (json.len > ROUTE_CONFIG_BYTES_MAX)
        problem(&r, "expected at most %d bytes", ROUTE_CONFIG_BYTES_MAX);
    else
        problem(&r, "line %d, column %d: expected JSON: %s", error.line, error.column, error.text);
    json_decref(properties);
    if (r.problems.count > 0) {
        route_config_done(&r.config);
        *ret_problems = r.problems;
        return ROUTE_E_INVALID;
    }
    *ret_config = r.config;
    return 0;
}

void route_config_done(struct route_config *config)
{
    routes_free(config->routes);
    *config = (struct route_config){};
}

void route_problems_done(struct route_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->texts[i]);
    free(problems->texts);
    *problems = (struct route_problems){};
}
