#include "routes.h"

#include <assert.h>
#include <stdio.h>

#include "names.h"
#include "route-eval.h"
#include "route-text.h"

struct entry {
    struct route route;
    struct route_program *condition; /* NULL: always true */
    uint32_t endpoint;
};

/* Entries of one source, the best priority first; of equal ones the first that came. */
struct bucket {
    uint32_t *entries;
    uint32_t count, capacity;
};

struct routes {
    struct entry *entries;
    uint32_t count, capacity;
    struct names sources; /* in upper case, each ending in a slash */
    struct bucket *buckets;
    uint32_t bucket_capacity;
    size_t longest_source;
    struct names queues; /* of endpoints */
    struct route_symbols symbols;
    size_t stack_max;
    uint64_t given_up;
    /* Working memory, of the size that the routes need: routes_prepare(). */
    bool is_prepared;
    struct route_eval eval;
    const struct route **matches;
    size_t match_count;
    uint32_t *places; /* by endpoint: where it is in @matches, from 1; 0: not there */
};

struct routes *routes_new(void)
{
    return xnew(struct routes);
}

struct routes *routes_new_default(void)
{
    struct routes *routes = routes_new();
    struct parse_error error;
    int r;

    r = routes_add(routes, "upstream", SPAN("FROM /messages/* INTO $upstream"),
                   ROUTE_PRIORITY_DEFAULT, -1, &error);
    assert(r == 0);
    return routes;
}

static void routes_unprepare(struct routes *routes)
{
    if (!routes->is_prepared)
        return;
    route_eval_done(&routes->eval);
    free(routes->matches);
    free(routes->places);
    routes->match_count = 0;
    routes->is_prepared = false;
}

struct routes *routes_free(struct routes *routes)
{
    if (!routes)
        return NULL;
    routes_unprepare(routes);
    for (uint32_t i = 0; i < routes->count; i++) {
        free((char *)routes->entries[i].route.name);
        free((char *)routes->entries[i].route.text);
        route_program_free(routes->entries[i].condition);
    }
    free(routes->entries);
    for (uint32_t i = 0; i < routes->sources.count; i++)
        free(routes->buckets[i].entries);
    free(routes->buckets);
    names_done(&routes->sources);
    names_done(&routes->queues);
    route_symbols_done(&routes->symbols);
    free(routes);
    return NULL;
}

/* Building */

/* "/messages/x*" and "/messages/x/" are "/MESSAGES/X/": a star is a wildcard only at the end
 * (routing.md §4.2). */
static char *source_normalize(const char *source, size_t *ret_len)
{
    struct span s = span_str(source);
    char *text = xalloc0(TEXT_MAPPED_MAX(s.len) + 1);

    while (s.len > 0 && s.at[s.len - 1] == '*')
        s.len--;
    while (s.len > 0 && s.at[s.len - 1] == '/')
        s.len--;
    *ret_len = text_map(s, TEXT_UPPER, text);
    text[(*ret_len)++] = '/';
    return text;
}

static void bucket_add(struct routes *routes, struct bucket *bucket, uint32_t number)
{
    uint32_t priority = routes->entries[number].route.priority, at = bucket->count;

    xgrow(bucket->entries, bucket->count, bucket->capacity);
    for (; at > 0 && routes->entries[bucket->entries[at - 1]].route.priority > priority; at--)
        bucket->entries[at] = bucket->entries[at - 1];
    bucket->entries[at] = number;
    bucket->count++;
}

static void index_add(struct routes *routes, const char *source, uint32_t number)
{
    size_t len;
    _cleanup_(freep) char *normal = source_normalize(source, &len);
    uint32_t place;
    bool is_new;

    place = names_add(&routes->sources, span_of(normal, len), &is_new);
    if (is_new) {
        xgrow(routes->buckets, place, routes->bucket_capacity);
        routes->buckets[place] = (struct bucket){};
    }
    if (len > routes->longest_source)
        routes->longest_source = len;
    bucket_add(routes, &routes->buckets[place], number);
}

static uint32_t endpoint_add(struct routes *routes, const struct route_syntax *syntax)
{
    _cleanup_(freep) char *queue = NULL;
    bool is_new;

    if (syntax->sink == ENDPOINT_UPSTREAM)
        return names_add(&routes->queues, SPAN("$upstream"), &is_new);
    queue = xasprintf("modules/%.*s/inputs/%.*s", (int)syntax->module_id.len, syntax->module_id.at,
                      (int)syntax->input.len, syntax->input.at);
    return names_add(&routes->queues, span_str(queue), &is_new);
}

int routes_add(struct routes *routes, const char *name, struct span text, uint32_t priority,
               int64_t ttl_sec, struct parse_error *ret_error)
{
    _cleanup_(route_syntax_done) struct route_syntax syntax = {};
    struct entry *entry;
    int r;

    if (routes->count == ROUTES_MAX) {
        *ret_error = (struct parse_error){ 0, "at most 4096 routes" };
        return ROUTE_E_INVALID;
    }
    r = route_parse(text, &syntax, ret_error);
    if (r == 0)
        r = route_check(&syntax, ret_error);
    if (r != 0)
        return r;

    routes_unprepare(routes);
    xgrow(routes->entries, routes->count, routes->capacity);
    entry = &routes->entries[routes->count];
    *entry = (struct entry){
        .route = { .name = xstrdup(name),
                   .text = span_xdup(text),
                   .priority = priority,
                   .ttl_sec = ttl_sec,
                   .endpoint.kind = syntax.sink },
        .condition = syntax.has_condition ? route_program_new(&syntax, &routes->symbols) : NULL,
        .endpoint = endpoint_add(routes, &syntax),
    };
    entry->route.endpoint.queue = routes->queues.items[entry->endpoint].text;
    if (syntax.stack_max > routes->stack_max)
        routes->stack_max = syntax.stack_max;
    index_add(routes, syntax.source, routes->count++);
    return 0;
}

size_t routes_count(const struct routes *routes)
{
    return routes->count;
}

size_t routes_endpoints(const struct routes *routes)
{
    return routes->queues.count;
}

const struct route *routes_get(const struct routes *routes, size_t i)
{
    return &routes->entries[i].route;
}

/* Matching */

size_t routes_source(const char *module_id, const char *output_name, char *text, size_t size)
{
    int n;

    if (!*module_id)
        n = snprintf(text, size, "/messages/");
    else if (!*output_name)
        n = snprintf(text, size, "/messages/modules/%s/", module_id);
    else
        n = snprintf(text, size, "/messages/modules/%s/outputs/%s/", module_id, output_name);
    return (size_t)n;
}

static void routes_prepare(struct routes *routes)
{
    if (routes->is_prepared)
        return;
    route_eval_init(&routes->eval, &routes->symbols, routes->stack_max);
    routes->matches = xnew_n(const struct route *, routes->queues.count);
    routes->places = xnew_n(uint32_t, routes->queues.count);
    routes->is_prepared = true;
}

static bool entry_wants(const struct entry *entry, struct route_eval *eval)
{
    return !entry->condition || route_program_run(entry->condition, eval) == VERDICT_TRUE;
}

/* An endpoint gets one copy, at the best priority. What would come after one that is there need
 * not be judged. */
static void entry_consider(struct routes *routes, const struct entry *entry)
{
    uint32_t place = routes->places[entry->endpoint];

    if (place > 0 && routes->matches[place - 1]->priority <= entry->route.priority)
        return;
    if (!entry_wants(entry, &routes->eval))
        return;
    if (place == 0)
        place = routes->places[entry->endpoint] = (uint32_t)++routes->match_count;
    routes->matches[place - 1] = &entry->route;
}

static void bucket_consider(struct routes *routes, const struct bucket *bucket)
{
    for (uint32_t i = 0; i < bucket->count; i++)
        entry_consider(routes, &routes->entries[bucket->entries[i]]);
}

/* Routes match by whole path segments: those whose source is the message's own up to one of its
 * slashes. */
static void source_consider(struct routes *routes, struct span source)
{
    uint32_t hash = NAMES_HASH_START;
    size_t begin = 0;

    if (source.len > routes->longest_source)
        source.len = routes->longest_source;
    for (size_t i = 0; i < source.len; i++) {
        uint32_t place;

        if (source.at[i] != '/')
            continue;
        hash = names_hash(hash, span_of(source.at + begin, i + 1 - begin));
        begin = i + 1;
        place = names_find(&routes->sources, span_of(source.at, begin), hash);
        if (place != NAMES_NONE)
            bucket_consider(routes, &routes->buckets[place]);
    }
}

static void matches_clear(struct routes *routes)
{
    for (size_t i = 0; i < routes->match_count; i++)
        routes->places[CONTAINER_OF(routes->matches[i], struct entry, route)->endpoint] = 0;
    routes->match_count = 0;
}

size_t routes_match(struct routes *routes, struct route_message *message,
                    const struct route *const **ret_matches)
{
    struct span source = message->source;
    char *upper;

    routes_prepare(routes);
    matches_clear(routes);
    route_eval_begin(&routes->eval, message);
    upper = arena_alloc(routes->eval.work.arena, TEXT_MAPPED_MAX(source.len));
    source_consider(routes, span_of(upper, text_map(source, TEXT_UPPER, upper)));
    routes->given_up += !route_eval_end(&routes->eval);
    *ret_matches = routes->matches;
    return routes->match_count;
}

enum route_verdict routes_judge(struct routes *routes, struct route_message *message)
{
    enum route_verdict verdict = VERDICT_TRUE;

    assert(routes->count > 0);
    routes_prepare(routes);
    route_eval_begin(&routes->eval, message);
    if (routes->entries[0].condition)
        verdict = route_program_run(routes->entries[0].condition, &routes->eval);
    routes->given_up += !route_eval_end(&routes->eval);
    return verdict;
}

uint64_t routes_given_up(const struct routes *routes)
{
    return routes->given_up;
}
