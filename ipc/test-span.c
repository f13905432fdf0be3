#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "span.h"

static void assert_span(struct span s, const char *want)
{
    assert_int_equal(s.len, strlen(want));
    assert_memory_equal(s.at ? s.at : "", want, s.len);
}

static void test_span_equal(void **state)
{
    assert_true(span_equal(SPAN("abc"), span_str("abc")));
    assert_false(span_equal(SPAN("abc"), SPAN("abC")));
    assert_false(span_equal(SPAN("abc"), SPAN("ab")));
    assert_true(span_equal(span_str(NULL), SPAN("")));
    assert_true(span_equal_nocase(SPAN("ABc"), SPAN("abC")));
    assert_false(span_equal_nocase(SPAN("ABc"), SPAN("abd")));
    assert_true(span_equal_nocase(span_str(NULL), span_str(NULL)));
}

static void test_span_eat(void **state)
{
    struct span s = SPAN("HostName=x");

    assert_false(span_eat(&s, SPAN("hostname=")));
    assert_span(s, "HostName=x");
    assert_true(span_eat_nocase(&s, SPAN("hostname=")));
    assert_span(s, "x");
    assert_false(span_eat(&s, SPAN("xx")));
    assert_true(span_eat(&s, SPAN("")));
    assert_true(span_eat(&s, SPAN("x")));
    assert_int_equal(s.len, 0);
    s = (struct span){};
    assert_true(span_eat(&s, SPAN("")));
    assert_false(span_eat(&s, SPAN("x")));
}

static void test_span_split(void **state)
{
    struct span s = SPAN("a/inputs/b/inputs/c"), before = SPAN("untouched");

    assert_true(span_split(&s, SPAN("/inputs/"), &before));
    assert_span(before, "a");
    assert_span(s, "b/inputs/c");
    assert_true(span_split(&s, SPAN("/inputs/"), &before));
    assert_span(before, "b");
    assert_false(span_split(&s, SPAN("/inputs/"), &before));
    assert_span(before, "b");
    assert_span(s, "c");
    s = (struct span){};
    assert_false(span_split(&s, SPAN("x"), &before));
}

static void test_span_next(void **state)
{
    static const struct {
        const char *in;
        const char *pieces[5];
    } cases[] = {
        { "", { "" } },
        { "a", { "a" } },
        { "a/b", { "a", "b" } },
        { "/a//", { "", "a", "", "" } },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct span s = span_str(cases[i].in), piece;
        bool done = false;
        size_t n = 0;

        while (span_next(&s, '/', &piece, &done))
            assert_span(piece, cases[i].pieces[n++]);
        assert_null(cases[i].pieces[n]);
    }
}

static void test_span_is_utf8(void **state)
{
    static const struct {
        struct span in;
        bool want;
    } cases[] = {
        { SPAN(""), true },
        { SPAN("plain"), true },
        { SPAN("a\0b"), false },
        { SPAN("\x7f"), true },
        { SPAN("\x80"), false },
        { SPAN("\xc1\xbf"), false }, /* overlong */
        { SPAN("\xc2\x80"), true },
        { SPAN("\xc2"), false },
        { SPAN("\xdf\xbf"), true },
        { SPAN("\xdf\xc0"), false },
        { SPAN("\xe0\x9f\xbf"), false }, /* overlong */
        { SPAN("\xe0\xa0\x80"), true },
        { SPAN("\xe2\x82\xac"), true },
        { SPAN("\xe2\x82"), false },
        { SPAN("\xed\x9f\xbf"), true },
        { SPAN("\xed\xa0\x80"), false }, /* surrogate */
        { SPAN("\xef\xbf\xbf"), true },
        { SPAN("\xf0\x8f\xbf\xbf"), false }, /* overlong */
        { SPAN("\xf0\x90\x80\x80"), true },
        { SPAN("\xf4\x8f\xbf\xbf"), true },
        { SPAN("\xf4\x90\x80\x80"), false }, /* beyond U+10FFFF */
        { SPAN("\xf5\x80\x80\x80"), false },
        { SPAN("ok\xff"), false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(span_is_utf8(cases[i].in), cases[i].want);
}

static void test_span_to_uint64(void **state)
{
    static const struct {
        const char *in;
        bool want;
        uint64_t value;
    } cases[] = {
        { "0", true, 0 },
        { "007", true, 7 },
        { "18446744073709551615", true, UINT64_MAX },
        { "18446744073709551616", false, 42 },
        { "99999999999999999999", false, 42 },
        { "", false, 42 },
        { "-1", false, 42 },
        { "+1", false, 42 },
        { " 1", false, 42 },
        { "1x", false, 42 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        uint64_t value = 42;

        assert_int_equal(span_to_uint64(span_str(cases[i].in), &value), cases[i].want);
        assert_int_equal(value, cases[i].value);
    }
}

static void test_span_xdup(void **state)
{
    _cleanup_(freep) char *copy = span_xdup(SPAN("abc"));
    _cleanup_(freep) char *empty = span_xdup((struct span){});

    assert_string_equal(copy, "abc");
    assert_string_equal(empty, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_span_equal),   cmocka_unit_test(test_span_eat),
        cmocka_unit_test(test_span_split),   cmocka_unit_test(test_span_next),
        cmocka_unit_test(test_span_is_utf8), cmocka_unit_test(test_span_to_uint64),
        cmocka_unit_test(test_span_xdup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
