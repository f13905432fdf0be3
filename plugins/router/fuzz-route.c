/* Any bytes as a condition, then a property and a body, with NUL between: no crash, no endless
 * work, and the same verdict each time. The same bytes as a whole route. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "routes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)name;
    p.value = (char *)value;
    return p;
}

static bool add(struct routes *routes, struct span text)
{
    struct parse_error error = { .offset = SIZE_MAX };

    if (routes_add(routes, "r", text, 0, 0, &error) == 0)
        return true;
    assert(error.offset <= text.len && error.expected);
    return false;
}

static void judge(struct routes *routes, const char *value, struct span body)
{
    Bus__Property level = property("level", value),
                  type = property("contentType", "application/json");
    Bus__Property encoding = property("contentEncoding", "utf-8");
    Bus__Property *application[] = { &level }, *system[] = { &type, &encoding };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct route_message message = { .source = SPAN("/messages/modules/m/"), .decoded = &m };
    const struct route *const *matches;
    enum route_verdict verdict;

    m.application = application;
    m.n_application = 1;
    m.system = system;
    m.n_system = 2;
    m.body.data = (uint8_t *)body.at;
    m.body.len = body.len;
    verdict = routes_judge(routes, &message);
    assert(routes_judge(routes, &message) == verdict);
    assert(routes_match(routes, &message, &matches) == (verdict == VERDICT_TRUE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(routes_freep) struct routes *one = routes_new(), *all = routes_new();
    struct span rest = span_of(data, size), condition = rest, value = {};
    _cleanup_(freep) char *text = NULL, *level = NULL;

    add(all, rest);
    if (span_split(&rest, SPAN("\0"), &condition))
        span_split(&rest, SPAN("\0"), &value);
    text = xasprintf("FROM /messages WHERE %.*s INTO $upstream", (int)condition.len, condition.at);
    level = span_xdup(value);
    if (add(one, span_str(text)))
        judge(one, level, rest);
    return 0;
}
