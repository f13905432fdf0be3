/* Conditions on messages. What tests/data/routing-vectors.json has is not repeated here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "buf.h"
#include "route-eval.h"
#include "routes.h"

#define UNKNOWN VERDICT_UNDEFINED
#define NO      VERDICT_FALSE
#define YES     VERDICT_TRUE

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)name;
    if (value)
        p.value = (char *)value;
    p.is_null = !value;
    return p;
}

static struct routes *condition_new(const char *condition)
{
    _cleanup_(freep) char *text = xasprintf("FROM /messages WHERE %s INTO $upstream", condition);
    struct routes *routes = routes_new();
    struct parse_error error = {};

    if (routes_add(routes, "r", span_str(text), 0, 0, &error) != 0)
        fail_msg("%s: %zu: expected %s", text, error.offset, error.expected);
    return routes;
}

/* @properties: ends with one of no name. */
static enum route_verdict judge(const char *condition, Bus__Property *properties, struct span body,
                                const char *content_type, const char *content_encoding)
{
    _cleanup_(routes_freep) struct routes *routes = condition_new(condition);
    Bus__Property type = property("contentType", content_type);
    Bus__Property encoding = property("contentEncoding", content_encoding);
    Bus__Property *system[] = { &type, &encoding }, *application[8];
    Bus__Message m = BUS__MESSAGE__INIT;
    struct route_message message = { .source = SPAN("/messages/"), .decoded = &m };

    m.application = application;
    for (; properties && properties[m.n_application].name; m.n_application++)
        application[m.n_application] = &properties[m.n_application];
    m.system = system;
    m.n_system = content_type ? 2 : 0;
    m.body.data = (uint8_t *)body.at;
    m.body.len = body.len;
    m.device_id = (char *)"dev";
    return routes_judge(routes, &message);
}

static enum route_verdict judge_body(const char *condition, struct span body)
{
    return judge(condition, NULL, body, "application/json", "utf-8");
}

static void test_literals(void **state)
{
    static const struct {
        const char *condition;
        enum route_verdict want;
    } cases[] = {
        { "'\\u0041\\u00e9\\u20ac\\ud83d\\ude00' = 'A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80'", YES },
        { "'\\\\u0041' = '\\\\A'", YES }, /* first \uXXXX, then the others */
        { "length('\\\\u0041') = 2", YES },
        { "length('\\u005c\\u005c') = 1", YES },
        { "length('\\ud83d') = 1", YES },
        { "length('\\u0000') = 1", YES },
        { "'\\'' = \"'\"", YES },
        { "1e999 = 1 / 0", YES },
        { "-1e999 = 0 - 1 / 0", YES },
        { "0x7fffffffffffffff > 9e18", YES },
        { "0x00000000000000001F = 31", YES },
        { "is_defined(0x1ffffffffffffffff)", NO },
        { "4.9e-324 > 0", YES },
        { "0.1 + 0.2 = 0.3", NO },
        { "9007199254740993 = 9007199254740992", YES },
        { "7 % 0 = 0", UNKNOWN },
        { "is_defined(0 / 0)", NO },
        { "(0 - 7) % 3 = -1", YES },
        { "0 = -(0)", YES },
        { "1 / -(0) < 0", YES },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(judge_body(cases[i].condition, SPAN("")), cases[i].want);
}

static void test_logic(void **state)
{
    static const struct {
        const char *condition;
        enum route_verdict want;
    } cases[] = {
        { "$f = 'x' and false", NO },
        { "false and $f = 'x'", NO },
        { "true and $f = 'x'", UNKNOWN },
        { "$f = 'x' or true", YES },
        { "true or $f = 'x'", YES },
        { "false or $f = 'x'", UNKNOWN },
        { "$f = 'x' or false", UNKNOWN },
        { "not (false and $f = 'x')", YES },
        { "false and false or true", YES },
        { "true or true and false", YES },
        { "false or false or true", YES },
        { "true and true and false", NO },
        { "not (true and true) or true and not false", YES },
        { "$f = 'x' ?? $g = 'x' ?? true", YES },
        { "true ?? false", YES },
        { "false ?? true", NO },
        { "(false ?? true) or true", YES },
        { "true and ('a' ?? 'b') = 'a'", YES },
        { "is_null(null and true)", YES },
        { "(null and false) = null", YES },
        { "not (false and null)", YES }, /* it is null, so no short cut */
        { "null or true", YES },
        { "false or null", NO },
        { "null or null", NO },
        { "undefined or true", YES },
        { "undefined and undefined", UNKNOWN },
        { "undefined = undefined", UNKNOWN },
        { "null <= null", YES },
        { "null < null", NO },
        { "true > false", YES },
        { "(undefined ?? undefined) ?? undefined", UNKNOWN },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (judge_body(cases[i].condition, SPAN("")) != cases[i].want)
            fail_msg("%s", cases[i].condition);
}

static void test_properties(void **state)
{
    static const struct {
        const char *condition;
        enum route_verdict want;
    } cases[] = {
        { "\xc3\x84rger = 'x'", YES }, /* Ä, ä */
        { "\xc3\xa4RGER = 'x'", YES },
        { "nul = 'x'", UNKNOWN },
        { "nul != 'x'", UNKNOWN },
        { "nul < 'x'", UNKNOWN },
        { "is_null(nul)", YES },
        { "is_null(absent)", NO },
        { "is_string(nul)", NO },
        { "is_defined(nul)", YES },
        { "is_defined(lower(nul))", NO },
        { "concat(nul, 'a', nul) = 'a'", YES },
        { "(nul ?? 'x') = 'x'", UNKNOWN },
        { "$connectionDeviceId = 'dev'", YES },
        { "$CONNECTIONDEVICEID = 'dev'", YES },
        { "is_defined($connectionModuleId)", NO },
        { "connectionDeviceId = 'dev'", UNKNOWN },
        { "$tag = 'app'", YES },
        { "is_defined({$tag})", NO },
        { "$CONTENTTYPE = 'application/json'", YES },
        /* a property that looks like a path: bare it goes first, without a body behind it */
        { "$body.v = 'app'", YES },
        { "is_null($body.n)", YES },
        { "$body.n < 'a'", YES }, /* without a text it is below all texts, as a body value */
        { "$body.n = 'a'", NO },
        { "is_string($body.n)", NO },
    };
    Bus__Property properties[] = {
        property("\xc3\xa4rger", "x"), property("nul", NULL),     property("$tag", "app"),
        property("$body.v", "app"),    property("$body.n", NULL), property(NULL, ""),
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (judge(cases[i].condition, properties, SPAN("{}"), "application/json", "utf-8") !=
            cases[i].want)
            fail_msg("%s", cases[i].condition);
}

/* Bytes of a client that are no UTF-8 go through all functions. */
static void test_texts_malformed(void **state)
{
    static const char *const texts[] = { "\xfe", "\xc3", "a\xe2\x82", "\xf0\x9f\x98", "\x80\x80" };
    static const char condition[] = "upper(t) = upper(t) and lower(t) = lower(t) and "
                                    "is_defined(substring(t, 0)) and is_defined(substring(t, 1, 0) "
                                    "?? 'x') and length(t || t) >= 0 and not (t < t)";

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        Bus__Property properties[] = { property("t", texts[i]), property(NULL, "") };

        assert_int_equal(judge(condition, properties, SPAN(""), NULL, NULL), YES);
    }
}

/* Code units of UTF-16: an emoji is two. */
static void test_texts(void **state)
{
    static const struct {
        const char *condition;
        enum route_verdict want;
    } cases[] = {
        { "length('a\xf0\x9f\x98\x80\xc3\xa9') = 4", YES },
        { "substring('a\xf0\x9f\x98\x80z', 3) = 'z'", YES },
        { "substring('a\xf0\x9f\x98\x80z', 1, 2) = '\xf0\x9f\x98\x80'", YES },
        { "substring('a\xf0\x9f\x98\x80z', 2) = '\\ude00z'", YES },
        { "substring('a\xf0\x9f\x98\x80z', 0, 2) = 'a\\ud83d'", YES },
        { "substring('a\xf0\x9f\x98\x80z', 2, 0) = ''", YES },
        { "substring('\xf0\x9f\x98\x80\xf0\x9f\x98\x81', 1, 2) = '\\ude00\\ud83d'", YES },
        { "length(substring('\xf0\x9f\x98\x80\xf0\x9f\x98\x81', 1, 2)) = 2", YES },
        { "substring('abc', -1) = 'abc'", UNKNOWN },
        { "substring('abc', 0, 4) = 'abc'", UNKNOWN },
        { "substring('abc', 1.9, 1.1) = 'b'", YES },
        { "substring('abc', 1.9, 1.2) = 'b'", UNKNOWN },
        { "substring('abc', 1 / 0) = ''", UNKNOWN },
        { "substring('', 0) = ''", YES },
        { "substring('', 0, 0) = ''", UNKNOWN },
        { "index_of('a\xf0\x9f\x98\x80z', 'z') = 3", YES },
        { "index_of('', '') = 0", YES },
        { "index_of('abc', 'C') = -1", YES },
        { "starts_with('ab', 'abc')", NO },
        { "ends_with('abc', 'bc') and ends_with('abc', '')", YES },
        { "ends_with('c', 'bc')", NO },
        /* U+FFFD is above the surrogates that U+1F600 is made of, but not above it */
        { "'\xef\xbf\xbd' > '\xf0\x9f\x98\x80'", YES },
        { "'\xf0\x9f\x98\x80' < '\xee\x80\x80'", YES },
        { "'\xed\x9f\xbf' < '\xf0\x9f\x98\x80'", YES },
        { "'\xf0\x9f\x98\x80' < '\xf0\x9f\x98\x81'", YES },
        { "'ab' < 'abc' and 'B' < 'a'", YES },
        { "lower('\xc3\x84\xd0\x96Z') = '\xc3\xa4\xd0\xb6z'", YES },
        { "upper('\xc3\xa4\xd0\xb6z') = '\xc3\x84\xd0\x96Z'", YES },
        { "upper('\xc9\x90') = '\xe2\xb1\xaf'", YES }, /* which is longer */
        { "lower('\xc4\xb0') = '\xc4\xb0' and upper('\xc4\xb1') = '\xc4\xb1'", YES },
        { "lower('\xf0\x90\x90\x80') = '\xf0\x90\x90\xa8'", YES },
        { "upper('\\ud83d') = '\\ud83d'", YES },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (judge_body(cases[i].condition, SPAN("")) != cases[i].want)
            fail_msg("%s", cases[i].condition);
}

static void test_as_number(void **state)
{
    static const struct {
        const char *text, *want; /* NULL: it is none */
    } cases[] = {
        { "12", "12" },
        { " +12\\u0009", "12" },
        { "12-", "-12" },
        { "1,000.5", "1000.5" },
        { "1,,0", "10" },
        { ".5", "0.5" },
        { "5.", "5" },
        { "1e3", "1000" },
        { "1E-3", "0.001" },
        { "(1e2)", "-100" },
        { "(5 )", "-5" },
        { "0005", "5" },
        { "0.0005e4", "5" },
        { "1e99999999999", "1 / 0" },
        { "-1e999", "0 - 1 / 0" },
        { "1e-99999999999", "0" },
        { "0e5", "0" },
        { "Infinity", "1 / 0" },
        { "-infinity", "0 - 1 / 0" },
        { "5 -", "-5" },
        { "1.7976931348623157e308", "1.7976931348623157e308" },
        { "", NULL },
        { " ", NULL },
        { ".", NULL },
        { "NaN", NULL },
        { "- 5", NULL },
        { "( 5)", NULL },
        { "(5", NULL },
        { "5)", NULL },
        { "-5-", NULL },
        { "(-5)", NULL },
        { "1.000,5", NULL },
        { "1e", NULL },
        { "1e5.0", NULL },
        { "0x10", NULL },
        { "1 000", NULL },
        { "five", NULL },
        { ",5", NULL },
        { "1.2.3", NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *condition =
            cases[i].want ? xasprintf("as_number('%s') = %s", cases[i].text, cases[i].want)
                          : xasprintf("not is_defined(as_number('%s'))", cases[i].text);

        if (judge_body(condition, SPAN("")) != YES)
            fail_msg("%s", condition);
    }
}

/* More digits than a double has: half way between two of them, and a little more than that. */
static void test_as_number_long(void **state)
{
    _cleanup_(freep) char *zeros = xasprintf("%02000d", 0);
    _cleanup_(freep) char *half =
        xasprintf("as_number('9007199254740993.%s') = 9007199254740992", zeros);
    _cleanup_(freep) char *more =
        xasprintf("as_number('9007199254740993.%s1') = 9007199254740994", zeros);
    _cleanup_(freep) char *large = xasprintf("as_number('1%s') = 1 / 0", zeros);

    assert_int_equal(judge_body(half, SPAN("")), YES);
    assert_int_equal(judge_body(more, SPAN("")), YES);
    assert_int_equal(judge_body(large, SPAN("")), YES);
}

static void test_body_values(void **state)
{
    static const char body[] =
        "{\"n\":7,\"z\":0,\"s\":\"x\",\"t\":true,\"u\":null,\"o\":{\"k\":1,\"*\":2},"
        "\"one\":{\"k\":3},\"none\":{},\"l\":[1,[2,{\"m\":4}]],\"\":5,\"big\":1e300,"
        "\"nul\":\"a\\u0000b\",\"deep\":{\"a\":{\"b\":8}}}";
    static const struct {
        const char *condition;
        enum route_verdict want;
    } cases[] = {
        { "$body.l[1][1].m = 4", YES },
        { "$body.l[1][2] = null", YES },
        { "$body.l[99999999999999999999] = null", YES },
        { "$body.n[0] = null", YES },
        { "$body.l.k = null", YES },
        { "$body.u.x = null", YES },
        { "$body.one.* = 3", YES },
        { "$body.*.a.b = 8", YES },
        { "$body.deep.*.* = 8", YES },
        { "$body.o.* = 1", UNKNOWN }, /* two */
        { "$body.none.* = null", YES },
        { "$body.*.*.*.* = null", YES },
        { "length($body.nul) = 3", YES },
        /* bool < number < string < null */
        { "$body.t < $body.n and $body.n < $body.s and $body.s < $body.u", YES },
        { "$body.t = 'true'", NO },
        { "$body.u = $body.missing", YES },
        { "$body.o = $body.o", UNKNOWN },
        { "$body.o <> 1", UNKNOWN },
        { "$body.s = 'x' and $body.s < 'y'", YES },
        { "$body.big * $body.big > 1e308", YES },
        { "not $body.n", UNKNOWN },
        { "not $body.u", UNKNOWN },
        { "$body.n and true", UNKNOWN },
        { "$body.t and false", NO },
        { "$body.t or 'x'", UNKNOWN },
        { "$body.t or null", UNKNOWN },
        { "$body.n + $body.s = 1", UNKNOWN },
        /* a NaN of body values is a number below all others */
        { "is_defined($body.z / $body.z)", YES },
        { "$body.z / $body.z < 0 - $body.big", YES },
        { "is_number($body.z / $body.z)", NO },
        { "is_defined(abs($body.z / $body.z))", NO },
        { "is_null($body.missing)", NO },
        { "is_null($body.u)", YES },
        { "is_null($body.o)", UNKNOWN },
        { "is_null($body.missing ?? 5)", NO },
        { "is_bool($body.o)", UNKNOWN },
        { "is_bool($body.n)", NO },
        { "is_string($body.o)", NO },
        { "concat($body.s, $body.n) = 'x7'", UNKNOWN },
        { "concat($body.s, $body.missing) = 'x'", UNKNOWN },
        { "as_number($body.n) = 7 and as_number($body.t) = 1", UNKNOWN },
        { "(1 ?? $body.n) = 1", YES },
        { "($body.o ?? $body.n) = 7", YES },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (judge_body(cases[i].condition, span_str(body)) != cases[i].want)
            fail_msg("%s", cases[i].condition);
    assert_int_equal(judge_body("$body.one.'x' = 1", span_str(body)), NO); /* a quote is a letter */
}

static void test_body_dates(void **state)
{
    static const struct {
        const char *text;
        bool is_date;
    } cases[] = {
        { "2024-05-06T07:08:09", true },
        { "2024-05-06T07:08:09z", true },
        { "2024-05-06T07:08:09.1Z", true },
        { "2024-05-06T07:08:09+01", true },
        { "2024-05-06T07:08:09-0130", true },
        { "2024-05-06T07:08:09.1234567-01:30", true },
        { "2000-02-29T24:00:00", true },
        { "/Date(0)/", true },
        { "/Date(-5+0100)/", true },
        { "2024-05-06t07:08:09", false },
        { "0000-05-06T07:08:09", false },
        { "1900-02-29T07:08:09", false },
        { "2024-13-06T07:08:09", false },
        { "2024-05-32T07:08:09", false },
        { "2024-05-06T24:00:01", false },
        { "2024-05-06T07:60:09", false },
        { "2024-05-06T07:08:09.", false },
        { "2024-05-06T07:08:09.Z", false },
        { "2024-05-06T07:08:09+1", false },
        { "2024-05-06T07:08:09+01:3", false },
        { "2024-05-06T07:08:09ZZ", false },
        { "2024-05-06T07:08:0", false },
        { "x024-05-06T07:08:09", false },
        { "/Date()/", false },
        { "/Date(x)/", false },
        { "/Date(5)", false },
        { "/Date(5)/x", false },
        { "/", false },
        { "", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *body = xasprintf("{\"d\":\"%s\"}", cases[i].text);

        if (judge_body("is_string($body.d)", span_str(body)) != (cases[i].is_date ? NO : YES))
            fail_msg("%s", cases[i].text);
    }
}

static char *nested(size_t depth)
{
    char *text = xalloc0(2 * depth + 16);

    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', depth);
    memset(text + 5 + depth, ']', depth);
    memcpy(text + 5 + 2 * depth, ",\"v\":1}", 8);
    return text;
}

static void test_body_readable(void **state)
{
    static const struct {
        struct span body;
        const char *type, *encoding;
        bool want;
    } cases[] = {
        { SPAN("{\"v\":1}"), "application/json", "utf-8", true },
        { SPAN(" \t\r\n{\"v\":1}\n"), "APPLICATION/json", "Utf-8", true },
        { SPAN("{\"v\":1}"), "application/json", "utf8", false },
        { SPAN("{\"v\":1}"), " application/json", "utf-8", false },
        { SPAN("{\"v\":1} x"), "application/json", "utf-8", false },
        { SPAN("{\"v\":1,}"), "application/json", "utf-8", false },
        { SPAN("7"), "application/json", "utf-8", false },
        { { NULL, 0 }, "application/json", "utf-8", false },
        /* what is no UTF-8 is replaced, where no condition looks */
        { SPAN("{\"v\":1,\"w\":\"\xff\xc3\"}"), "application/json", "utf-8", true },
        { SPAN("{\xff\"v\":1}"), "application/json", "utf-8", false },
        { SPAN("{\0\"\0v\0\"\0:\0001\0}\0"), "application/json", "utf-16", true },
        { SPAN("{\0\"\0v\0\"\0:\0001\0}\0 "), "application/json", "utf-16", false },
        { SPAN("{\0\"\0v\0\"\0:\0001\0,\0\"\0\0\xd8\"\0:\0002\0}\0"), "application/json", "utf-16",
          true }, /* half a pair */
        { SPAN("{\0\0\0\"\0\0\0v\0\0\0\"\0\0\0:\0\0\0001\0\0\0}\0\0\0"), "application/json",
          "utf-32", true },
        { SPAN("{\0\0\0\"\0\0\0v\0\0\0\"\0\0\0:\0\0\0001\0\0\0}\0\0"), "application/json", "utf-32",
          false },
        { SPAN("\0{\0\"\0v\0\"\0:\0001\0}"), "application/json", "utf-16", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        enum route_verdict got =
            judge("$body.v = 1", NULL, cases[i].body, cases[i].type, cases[i].encoding);

        if (got != (cases[i].want ? YES : UNKNOWN))
            fail_msg("case %zu", i);
    }
}

/* Deep or large ones are not parsed. */
static void test_body_bounds(void **state)
{
    _cleanup_(freep) char *deep = nested(63), *deeper = nested(64), *deepest = nested(100000);
    _cleanup_(freep) char *large = xalloc0(BODY_BYTES_MAX + 2);

    assert_int_equal(judge_body("$body.v = 1", span_str(deep)), YES);
    assert_int_equal(judge_body("$body.v = 1", span_str(deeper)), UNKNOWN);
    assert_int_equal(judge_body("$body.v = 1", span_str(deepest)), UNKNOWN);
    assert_int_equal(judge_body("$body.v = 1", SPAN("{\"a\":\"[[[[\\\"[[[[[[[\",\"v\":1}")), YES);
    memset(large, ' ', BODY_BYTES_MAX + 1);
    memcpy(large, "{\"v\":1}", 7);
    assert_int_equal(judge_body("$body.v = 1", span_of(large, BODY_BYTES_MAX)), YES);
    assert_int_equal(judge_body("$body.v = 1", span_of(large, BODY_BYTES_MAX + 1)), UNKNOWN);
}

static char *repeat(const char *before, const char *what, size_t n, const char *behind)
{
    _cleanup_(buf_done) struct buf text = {};

    buf_append_span(&text, span_str(before));
    for (size_t i = 0; i < n; i++)
        buf_append_span(&text, span_str(what));
    buf_append_span(&text, span_str(behind));
    return span_xdup(buf_span(&text));
}

/* Work has an end, whatever route and message say; the next message is judged again. */
static void test_work_bounds(void **state)
{
    _cleanup_(freep) char *large = repeat("", "x", 200000, "");
    _cleanup_(freep) char *texts = repeat("length(concat(big", ", big", 1000, ")) > 0");
    _cleanup_(freep) char *scans =
        repeat("not contains(big, 'xy')", " and not contains(big, 'xy')", 1000, "");
    _cleanup_(freep) char *maps = repeat("", "upper(", 90, "big");
    _cleanup_(freep) char *all_maps = repeat(maps, ")", 90, " = 'X'");
    const char *const conditions[] = { texts, scans, all_maps };
    Bus__Property big = property("big", large), *application[] = { &big };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct route_message message = { .source = SPAN("/messages/"), .decoded = &m };

    m.application = application;
    m.n_application = 1;
    for (size_t i = 0; i < ELEMENTSOF(conditions); i++) {
        _cleanup_(routes_freep) struct routes *routes = condition_new(conditions[i]);

        big.value = large;
        assert_int_equal(routes_judge(routes, &message), UNKNOWN);
        assert_int_equal(routes_given_up(routes), 1);
        big.value = (char *)"x";
        assert_int_equal(routes_judge(routes, &message), YES);
        assert_int_equal(routes_given_up(routes), 1);
    }
}

/* Wildcards look at a body as often as it has members, not more: and then no more at all. */
static void test_work_bounds_of_wildcards(void **state)
{
    _cleanup_(freep) char *members = repeat("{\"a\":1", ",\"b\":{\"a\":{}}", 10000, "}");
    _cleanup_(freep) char *condition =
        repeat("$body.*.*.*.z = 1", " and $body.*.*.*.z = 1", 500, "");

    assert_int_equal(judge_body(condition, span_str(members)), NO);
}

/* Nothing is decoded that no condition asks for. */
static void test_lazy(void **state)
{
    static const struct {
        const char *condition;
        bool decodes, reads_body;
    } cases[] = {
        { "true", false, false },
        { "1 + 1 = 2", false, false },
        { "level = 'x'", true, false },
        { "level = 'x' and $body.v = 1", true, false },
        { "level = 'high' or $body.v = 1", true, false },
        { "level = 'high' and $body.v = 1", true, true },
        { "(level ?? lower('X')) = 'high' or is_defined($body.v)", true, false },
    };
    Bus__Property level = property("level", "high"), *application[] = { &level };
    Bus__Message m = BUS__MESSAGE__INIT;
    uint8_t bytes[64];
    size_t len;

    m.application = application;
    m.n_application = 1;
    len = bus__message__pack(&m, bytes);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text =
            xasprintf("FROM /m WHERE %s INTO $upstream", cases[i].condition);
        struct route_symbols symbols = {};
        struct route_message message = { .encoded = span_of(bytes, len) };
        struct route_program *program;
        struct route_syntax syntax;
        struct parse_error error;
        struct route_eval eval;

        assert_int_equal(route_parse(span_str(text), &syntax, &error), 0);
        assert_int_equal(route_check(&syntax, &error), 0);
        program = route_program_new(&syntax, &symbols);
        route_eval_init(&eval, &symbols, syntax.stack_max);
        route_eval_begin(&eval, &message);
        route_program_run(program, &eval);
        assert_int_equal(message.decoded != NULL, cases[i].decodes);
        assert_int_equal(message.body_was_read, cases[i].reads_body);
        assert_true(route_eval_end(&eval));
        assert_null(message.decoded);
        route_eval_done(&eval);
        route_program_free(program);
        route_symbols_done(&symbols);
        route_syntax_done(&syntax);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_logic),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_texts_malformed),
        cmocka_unit_test(test_as_number),
        cmocka_unit_test(test_as_number_long),
        cmocka_unit_test(test_body_values),
        cmocka_unit_test(test_body_dates),
        cmocka_unit_test(test_body_readable),
        cmocka_unit_test(test_body_bounds),
        cmocka_unit_test(test_work_bounds),
        cmocka_unit_test(test_work_bounds_of_wildcards),
        cmocka_unit_test(test_lazy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
