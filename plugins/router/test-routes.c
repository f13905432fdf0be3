#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "routes.h"

static void test_routes_source(void **state)
{
    static const struct {
        const char *module_id, *output_name, *want;
    } cases[] = {
        { "", "", "/messages/" },
        { "", "ignored", "/messages/" },
        { "M", "", "/messages/modules/M/" },
        { "M", "out1", "/messages/modules/M/outputs/out1/" },
    };
    char text[64];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        assert_int_equal(
            routes_source(cases[i].module_id, cases[i].output_name, text, sizeof(text)),
            strlen(cases[i].want));
        assert_string_equal(text, cases[i].want);
    }
    assert_int_equal(routes_source("M", "out1", text, 4), 33); /* the whole length, though cut */
}

/* routing.md §4.2, its table. */
static void test_routes_match_source(void **state)
{
    static const struct {
        const char *route, *message;
        bool want;
    } cases[] = {
        { "/", "/messages/", true },
        { "/messages/", "/messages/", true },
        { "/messages/", "/messages/modules/M/outputs/out10/", true },
        { "/messages/modules/", "/messages/", false },
        { "/messages/modules/M/", "/messages/modules/m/", true },
        { "/messages/modules/M/", "/messages/modules/M2/", false },
        { "/messages/modules/M/outputs/out1/", "/messages/modules/M/outputs/out1/", true },
        { "/messages/modules/M/outputs/out1/", "/messages/modules/M/outputs/out10/", false },
        { "/twinChangeNotifications/", "/messages/", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(routes_freep) struct routes *routes = routes_new();
        const struct route *matches[ROUTES_TARGETS_MAX];

        routes_add(routes, "r", cases[i].route, ENDPOINT_UPSTREAM, "$upstream", 0, -1);
        assert_int_equal(routes_match(routes, span_str(cases[i].message), matches), cases[i].want);
    }
}

static void test_routes_match_one_copy_for_each_endpoint(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *matches[ROUTES_TARGETS_MAX];

    routes_add(routes, "late", "/messages/", ENDPOINT_UPSTREAM, "$upstream", 9, -1);
    routes_add(routes, "input", "/messages/", ENDPOINT_INPUT, "modules/M/inputs/I", 3, 60);
    routes_add(routes, "soon", "/", ENDPOINT_UPSTREAM, "$upstream", 1, 5);
    routes_add(routes, "later", "/", ENDPOINT_UPSTREAM, "$upstream", 4, 7);
    assert_int_equal(routes_match(routes, SPAN("/messages/"), matches), 2);
    assert_string_equal(matches[0]->name, "soon");
    assert_int_equal(matches[0]->ttl_sec, 5);
    assert_string_equal(matches[1]->name, "input");
}

static void test_routes_default(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new_default();
    const struct route *matches[ROUTES_TARGETS_MAX];

    assert_int_equal(routes_count(routes), 1);
    assert_int_equal(routes_match(routes, SPAN("/messages/"), matches), 1);
    assert_string_equal(matches[0]->endpoint.queue, "$upstream");
    assert_int_equal(routes_match(routes, SPAN("/twinChangeNotifications/"), matches), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes_source),
        cmocka_unit_test(test_routes_match_source),
        cmocka_unit_test(test_routes_match_one_copy_for_each_endpoint),
        cmocka_unit_test(test_routes_default),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
