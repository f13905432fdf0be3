#include "routes.h"

#include <assert.h>
#include <stdio.h>

struct routes {
    struct route *items;
    size_t count, capacity;
};

struct routes *routes_new(void)
{
    return xnew(struct routes);
}

struct routes *routes_new_default(void)
{
    struct routes *routes = routes_new();

    routes_add(routes, "upstream", "/messages/", ENDPOINT_UPSTREAM, "$upstream",
               ROUTE_PRIORITY_DEFAULT, -1);
    return routes;
}

struct routes *routes_free(struct routes *routes)
{
    if (!routes)
        return NULL;
    for (size_t i = 0; i < routes->count; i++) {
        free(routes->items[i].name);
        free(routes->items[i].source);
        free(routes->items[i].endpoint.queue);
    }
    free(routes->items);
    free(routes);
    return NULL;
}

void routes_add(struct routes *routes, const char *name, const char *source,
                enum endpoint_kind kind, const char *queue, uint32_t priority, int64_t ttl_sec)
{
    assert(routes->count < ROUTES_TARGETS_MAX);
    xgrow(routes->items, routes->count, routes->capacity);
    routes->items[routes->count++] = (struct route){
        .name = xstrdup(name),
        .source = xstrdup(source),
        .endpoint = { kind, xstrdup(queue) },
        .priority = priority,
        .ttl_sec = ttl_sec,
    };
}

size_t routes_count(const struct routes *routes)
{
    return routes->count;
}

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

/* An endpoint gets one copy: the better priority takes the place of the worse. */
static size_t match_add(const struct route *matches[], size_t count, const struct route *route)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(matches[i]->endpoint.queue, route->endpoint.queue) != 0)
            continue;
        if (route->priority < matches[i]->priority)
            matches[i] = route;
        return count;
    }
    matches[count] = route;
    return count + 1;
}

size_t routes_match(const struct routes *routes, struct span source,
                    const struct route *ret_matches[ROUTES_TARGETS_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < routes->count; i++) {
        struct span rest = source;

        if (span_eat_nocase(&rest, span_str(routes->items[i].source)))
            count = match_add(ret_matches, count, &routes->items[i]);
    }
    return count;
}
