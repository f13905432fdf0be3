/* Every case of tests/data/routing-vectors.json, which were made by running the original, and of
 * routing-vectors-more.json, which were derived from routing.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "route-vector.h"

static const char *text_of(const json_t *vector, const char *key)
{
    return json_string_value(json_object_get(vector, key));
}

/* "M/I" in the cases; "$upstream", or nothing where there is an error. */
static char *queue_wanted(const json_t *vector)
{
    const char *endpoint = text_of(vector, "endpoint"), *slash;

    if (!endpoint || endpoint[0] == '$')
        return endpoint ? xstrdup(endpoint) : NULL;
    slash = strchr(endpoint, '/');
    assert_non_null(slash);
    return xasprintf("modules/%.*s/inputs/%s", (int)(slash - endpoint), endpoint, slash + 1);
}

static bool is_as_wanted(const struct route_outcome *outcome, const json_t *want)
{
    if (json_is_string(want))
        return outcome->is_refused && strcmp(json_string_value(want), "error") == 0;
    return !outcome->is_refused && outcome->is_routed == json_is_true(want);
}

static const char *value_of(const struct route_outcome *outcome)
{
    static const char *const names[] = {
        [VERDICT_UNDEFINED] = "undefined",
        [VERDICT_FALSE] = "false",
        [VERDICT_TRUE] = "true",
    };

    return outcome->is_refused ? "error" : names[outcome->verdict];
}

/* Not of all cases is it known whether they are false or undefined. */
static bool run_condition(const json_t *vector, const struct route_outcome *outcome)
{
    const char *value = text_of(vector, "value");

    return is_as_wanted(outcome, json_object_get(vector, "expect")) &&
           (!value || strcmp(value_of(outcome), value) == 0);
}

static bool run_route(const json_t *vector, const struct route_outcome *outcome)
{
    _cleanup_(freep) char *want = queue_wanted(vector);

    if (!is_as_wanted(outcome, json_object_get(vector, "expectMatch")))
        return false;
    return want ? outcome->queue && strcmp(outcome->queue, want) == 0 : !outcome->queue;
}

static void run_file(const char *path)
{
    json_t *vectors = json_load_file(path, 0, NULL), *vector;
    size_t i, failed = 0;

    assert_true(json_array_size(vectors) > 0);
    json_array_foreach(vectors, i, vector)
    {
        struct route_outcome outcome = {};
        const char *expected;

        assert_int_equal(route_vector_run(vector, &outcome, &expected), 0);
        if (!(text_of(vector, "query") ? run_condition : run_route)(vector, &outcome)) {
            print_error("%s: %s: %s\n", text_of(vector, "id"), value_of(&outcome),
                        outcome.error.expected ? outcome.error.expected : "");
            failed++;
        }
        route_outcome_done(&outcome);
    }
    json_decref(vectors);
    assert_int_equal(failed, 0);
}

static void test_route_vectors(void **state)
{
    run_file(ROUTING_VECTORS "/routing-vectors.json");
}

static void test_route_vectors_more(void **state)
{
    run_file(ROUTING_VECTORS "/routing-vectors-more.json");
}

static void test_route_vector_malformed(void **state)
{
    static const char *const cases[] = { "{}", "[]", "{\"route\": \"FROM /a INTO $upstream\"}",
                                         "{\"query\": 1}" };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        json_t *vector = json_loads(cases[i], 0, NULL);
        struct route_outcome outcome;
        const char *expected = NULL;

        assert_int_equal(route_vector_run(vector, &outcome, &expected), ROUTE_E_INVALID);
        assert_non_null(expected);
        json_decref(vector);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_vectors),
        cmocka_unit_test(test_route_vectors_more),
        cmocka_unit_test(test_route_vector_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
