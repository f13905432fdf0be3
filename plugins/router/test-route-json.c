/* What jansson takes after rewriting, and what nobody takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "mem.h"
#include "route-json.h"

/* NULL: it is refused. The caller frees it. */
static json_t *load(const char *text)
{
    struct arena *arena = arena_new();
    bool is_utf8;
    json_t *json = route_json_load(span_str(text), arena, &is_utf8);

    assert_true(is_utf8);
    arena_free(arena);
    return json;
}

static void test_route_json_rewritten(void **state)
{
    static const struct {
        const char *text;
        struct span want;
    } cases[] = {
        { "{\"v\":\"a\\ud83d\"}", SPAN("a\xef\xbf\xbd") },
        { "{\"v\":\"\\ude00a\"}", SPAN("\xef\xbf\xbd"
                                       "a") },
        { "{\"v\":\"\\ud83d\\u0041\"}", SPAN("\xef\xbf\xbd"
                                             "A") },
        { "{\"v\":\"\\ud83d\\ud83d\\ude00\"}", SPAN("\xef\xbf\xbd\xf0\x9f\x98\x80") },
        { "{\"v\":\"\\ude00\\\\ud83d\"}", SPAN("\xef\xbf\xbd\\ud83d") },
        { "{\"a\\u0000b\":1,\"v\":\"\\u0000\"}", SPAN("\0") },
        { "{\"\\\\u0000\\ud83d\" :1,\"v\":\"x\"}", SPAN("x") },
        { "{\"v\":\"1e400\",\"w\":1e400}", SPAN("1e400") },
        { "{\"w\":-2.5E+308,\"v\":\"\\\"\"}", SPAN("\"") },
        { "{\"w\":[18446744073709551616,1e999],\"v\":\"x\"}", SPAN("x") },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        json_t *json = load(cases[i].text), *v = json_object_get(json, "v");

        assert_non_null(v);
        assert_true(
            span_equal(span_of(json_string_value(v), json_string_length(v)), cases[i].want));
        json_decref(json);
    }
}

static void test_route_json_infinite(void **state)
{
    static const struct {
        const char *text;
        double want;
    } cases[] = {
        { "[1e309]", INFINITY },
        { "[-1.5e+400]", -INFINITY },
        { "[1e99999999999999999999]", INFINITY },
    };
    double number;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        json_t *json = load(cases[i].text), *v = json_array_get(json, 0);

        assert_non_null(v);
        assert_true(
            route_json_is_infinite(span_of(json_string_value(v), json_string_length(v)), &number));
        assert_true(number == cases[i].want);
        json_decref(json);
    }
    assert_false(route_json_is_infinite(SPAN("+"), &number));
    assert_false(route_json_is_infinite(SPAN("\0x"), &number));
    assert_false(route_json_is_infinite(SPAN(""), &number));
}

static void test_route_json_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "7",
        "[",
        "[1e400",
        "[1e400x]",
        "[1e400-]",
        "[01e400]",
        "[+1e400]",
        "[.1e999]",
        "[1.e400]",
        "[1e]",
        "[1e400e400]",
        "{1e400:1}",
        "[\"\\ud83d]",
        "[\"\\ud83d\\\"]",
        "[\"\\ud83d\\",
        "[\"\\ud83d\\u12\"]",
        "[\"\\ud83d\\x\"]",
        "[\"\\ud83d\"]]",
        "{\"\\ud83d\"}",
        "[\"\\ud83d\n\"]",
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_null(load(cases[i]));
}

static void test_route_json_not_utf8(void **state)
{
    struct arena *arena = arena_new();
    bool is_utf8;

    assert_null(route_json_load(SPAN("[\"\xff\"]"), arena, &is_utf8));
    assert_false(is_utf8);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_json_rewritten),
        cmocka_unit_test(test_route_json_infinite),
        cmocka_unit_test(test_route_json_refused),
        cmocka_unit_test(test_route_json_not_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
