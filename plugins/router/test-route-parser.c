#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buf.h"
#include "mem.h"
#include "route-parser.h"

static const char *const node_texts[_NODE_COUNT] = {
    [NODE_NEGATE] = "neg",   [NODE_NOT] = "not",          [NODE_MULTIPLY] = "*",
    [NODE_DIVIDE] = "/",     [NODE_MODULO] = "%",         [NODE_ADD] = "+",
    [NODE_SUBTRACT] = "-",   [NODE_LESS] = "<",           [NODE_LESS_EQUAL] = "<=",
    [NODE_GREATER] = ">",    [NODE_GREATER_EQUAL] = ">=", [NODE_EQUAL] = "=",
    [NODE_NOT_EQUAL] = "!=", [NODE_AND] = "and",          [NODE_OR] = "or",
    [NODE_COALESCE] = "?\?",
};

/* The nodes in their order, calls with their number of arguments. */
static char *nodes_text(const struct route_syntax *syntax)
{
    _cleanup_(buf_done) struct buf text = {};

    for (uint32_t i = 0; i < syntax->count; i++) {
        const struct route_node *node = &syntax->nodes[i];

        if (i > 0)
            buf_append_byte(&text, ' ');
        if (node_texts[node->kind])
            buf_printf(&text, "%s", node_texts[node->kind]);
        else
            buf_append_span(&text, node->text);
        if (node->kind == NODE_CALL)
            buf_printf(&text, "#%u", node->count);
    }
    return span_xdup(buf_span(&text));
}

static void test_route_parse_condition(void **state)
{
    static const struct {
        const char *condition, *want;
    } cases[] = {
        { "a", "a" },
        { "a = 'x'", "a x =" },
        { "1 + 2 * 3", "1 2 3 * +" },
        { "(1 + 2) * 3", "1 2 + 3 *" },
        { "1 - 2 - 3", "1 2 - 3 -" },
        { "1 - (2 - 3)", "1 2 3 - -" },
        { "a or b and c", "a b c and or" },
        { "a and b or c", "a b and c or" },
        { "a = b < c + d * e", "a b c d e * + < =" },
        { "a ?? b or c", "a b c or ?\?" },
        { "a ?? b ?? c", "a b ?\? c ?\?" },
        { "not a = b", "a not b =" },
        { "not not a", "a not not" },
        { "- (1) + 2", "1 neg 2 +" },
        { "5 - -3", "5 -3 -" },
        { "a || b || c", "a b concat#2 c concat#2" },
        { "f()", "f#0" },
        { "f (a, g(b), 1 + 2)", "a b g#1 1 2 + f#3" },
        { "{ $x } <> $y", "$x $y !=" },
        { "((a))", "a" },
        { "1 < 2 = true", "1 2 < true =" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text =
                                  xasprintf("FROM /m WHERE %s INTO $upstream", cases[i].condition),
                              *got = NULL;
        struct route_syntax syntax;
        struct parse_error error;

        assert_int_equal(route_parse(span_str(text), &syntax, &error), 0);
        assert_true(syntax.has_condition);
        got = nodes_text(&syntax);
        assert_string_equal(got, cases[i].want);
        route_syntax_done(&syntax);
    }
}

static void test_route_parse_route(void **state)
{
    static const struct {
        const char *text, *source, *module_id, *input; /* NULL: $upstream */
    } cases[] = {
        { "FROM /messages/* INTO $upstream", "/messages/*", NULL, NULL },
        { "select * from /a into $UPSTREAM", "/a", NULL, NULL },
        { "FROM/a/b/c*INTO $upstream", NULL, NULL, NULL },
        { "FROM / a /* b */ / c INTO $upstream", "/a/c", NULL, NULL },
        { "FROM /a INTO BrokeredEndpoint(\"/modules/M/inputs/I\")", "/a", "M", "I" },
        { "FROM /a INTO BROKEREDENDPOINT ( 'modules/M/inputs/I/' )", "/a", "M", "I" },
        { "FROM /a INTO BrokeredEndpoint(' /x/M/y/I ')", "/a", "M", "I" },
        { "FROM /a INTO BrokeredEndpoint('/modules/\\u0041/inputs/I')", "/a", "\\u0041", "I" },
        { "FROM /a INTO $upstream junk ' (", "/a", NULL, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct route_syntax syntax;
        struct parse_error error;
        int r = route_parse(span_str(cases[i].text), &syntax, &error);

        assert_int_equal(r, cases[i].source ? 0 : ROUTE_E_INVALID);
        if (r != 0)
            continue;
        assert_false(syntax.has_condition);
        assert_string_equal(syntax.source, cases[i].source);
        assert_int_equal(syntax.sink, cases[i].module_id ? ENDPOINT_INPUT : ENDPOINT_UPSTREAM);
        assert_true(span_equal(syntax.module_id, span_str(cases[i].module_id)));
        assert_true(span_equal(syntax.input, span_str(cases[i].input)));
        route_syntax_done(&syntax);
    }
}

/* Where it is refused, by the grammar or by the types. */
static void test_route_refused(void **state)
{
    static const struct {
        const char *text;
        size_t offset;
        const char *expected; /* begins so */
    } cases[] = {
        { "", 0, "FROM" },
        { "SELECT a FROM /a INTO $upstream", 7, "*: messages" },
        { "FROM a INTO $upstream", 5, "a source that begins with /" },
        { "FROM / INTO $upstream", 7, "a name or * after the /" },
        { "FROM /42 INTO $upstream", 6, "a name or * after the /" },
        { "FROM /a", 7, "/, WHERE or INTO" },
        { "FROM /a WHERE INTO $upstream", 14, "a value:" },
        { "FROM /a WHERE a", 15, "an operator, or INTO" },
        { "FROM /a WHERE a b INTO $upstream", 16, "an operator, or INTO" },
        { "FROM /a WHERE (a INTO $upstream", 17, "an operator, or )" },
        { "FROM /a WHERE a) INTO $upstream", 15, "an operator, or INTO" },
        { "FROM /a WHERE a == b INTO $upstream", 17, "a value:" },
        { "FROM /a WHERE a = 'b INTO $upstream", 18, "a string with its closing quote" },
        { "FROM /a WHERE a[0] = 'b' INTO $upstream", 14, "a value:" },
        { "FROM /a WHERE {a} = 'b' INTO $upstream", 15, "$name or $body.path" },
        { "FROM /a WHERE {$a = 'b' INTO $upstream", 18, "} after the name" },
        { "FROM /a WHERE f(a b) INTO $upstream", 18, "an operator, a comma, or )" },
        { "FROM /a WHERE f(a,) INTO $upstream", 18, "a value:" },
        { "FROM /a INTO cloud", 13, "$upstream or BrokeredEndpoint" },
        { "FROM /a INTO $cloud", 13, "$upstream or BrokeredEndpoint" },
        { "FROM /a INTO 'x'", 13, "$upstream or BrokeredEndpoint" },
        { "FROM /a INTO BrokeredEndpoint", 29, "( after BrokeredEndpoint" },
        { "FROM /a INTO BrokeredEndpoint(a)", 30, "\"/modules/MODULE" },
        { "FROM /a INTO BrokeredEndpoint('/modules/M')", 30, "an address of four parts" },
        { "FROM /a INTO BrokeredEndpoint('/a/b/c/d/e')", 30, "an address of four parts" },
        { "FROM /a INTO BrokeredEndpoint('/modules/M/inputs/ ')", 30, "an address of four" },
        { "FROM /a INTO BrokeredEndpoint('/modules/M/inputs/I'", 51, ") after the address" },
        { "FROM /a INTO $upstream\xff", 0, "UTF-8 without NUL" },
        /* types */
        { "FROM /a WHERE b > 10 INTO $upstream", 16, "the same type on both sides" },
        { "FROM /a WHERE $b = true INTO $upstream", 17, "the same type on both sides" },
        { "FROM /a WHERE $body.x = undefined INTO $upstream", 22, "the same type" },
        { "FROM /a WHERE 1 + '1' = 2 INTO $upstream", 16, "numbers or body values" },
        { "FROM /a WHERE $body.a % 2 = 0 INTO $upstream", 22, "numbers on both sides" },
        { "FROM /a WHERE - ($body.a) = 0 INTO $upstream", 14, "a number after the -" },
        { "FROM /a WHERE not b = 'x' INTO $upstream", 14, "a condition after NOT" },
        { "FROM /a WHERE b and true INTO $upstream", 16, "conditions on both sides of AND" },
        { "FROM /a WHERE true or b INTO $upstream", 19, "conditions on both sides of OR" },
        { "FROM /a WHERE b ?? 1 INTO $upstream", 16, "the same type on both sides of ?" },
        { "FROM /a WHERE 'n' || 1 = 'n1' INTO $upstream", 18, "texts: concat" },
        { "FROM /a WHERE nofn(b) INTO $upstream", 14, "the name of a function" },
        { "FROM /a WHERE abs(b) = 1 INTO $upstream", 14, "abs(number)" },
        { "FROM /a WHERE substring(b) = 'x' INTO $upstream", 14, "substring(text, start" },
        { "FROM /a WHERE twin_change_includes(b) INTO $upstream", 14, "the name of a function" },
        { "FROM /a WHERE $body. = 1 INTO $upstream", 20, "the name of a member" },
        { "FROM /a WHERE $body.a..b = 1 INTO $upstream", 22, "the name of a member" },
        { "FROM /a WHERE $body.a.5 = 1 INTO $upstream", 22, "the name of a member" },
        { "FROM /a WHERE $body.a[] = 1 INTO $upstream", 21, "an index like [0]" },
        { "FROM /a WHERE $body.a['x'] = 1 INTO $upstream", 21, "an index like [0]" },
        { "FROM /a WHERE {$body.a[x]} = 1 INTO $upstream", 22, "an index like [0]" },
        { "FROM /a WHERE $body.a[0]b = 1 INTO $upstream", 24, "an index like [0]" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct route_syntax syntax = {};
        struct parse_error error = {};
        int r = route_parse(span_str(cases[i].text), &syntax, &error);

        if (r == 0)
            r = route_check(&syntax, &error);
        assert_int_equal(r, ROUTE_E_INVALID);
        assert_non_null(error.expected);
        if (strncmp(error.expected, cases[i].expected, strlen(cases[i].expected)) != 0)
            fail_msg("%s: %s", cases[i].text, error.expected);
        assert_int_equal(error.offset, cases[i].offset);
        route_syntax_done(&syntax);
    }
}

/* routing.md §6.1: which types go together. */
static void test_route_check_types(void **state)
{
    static const struct {
        const char *condition;
        enum route_type want;
    } cases[] = {
        { "level", TYPE_STRING },
        { "$x", TYPE_STRING },
        { "$body", TYPE_STRING },
        { "$body[0]", TYPE_UNDEFINED },
        { "$body.a", TYPE_DYNAMIC },
        { "{$BODY.a}", TYPE_DYNAMIC },
        { "e5", TYPE_UNDEFINED },
        { "0x10000000000000000", TYPE_UNDEFINED },
        { "0xffffffffffffffff", TYPE_NUMBER },
        { "1 + 1", TYPE_NUMBER },
        { "1 + $body.a", TYPE_DYNAMIC },
        { "$body.a || 'x'", TYPE_STRING },
        { "undefined = undefined", TYPE_BOOL },
        { "null = null", TYPE_BOOL },
        { "not null", TYPE_BOOL },
        { "not $body.a", TYPE_BOOL },
        { "null and true", TYPE_NULL },
        { "null or true", TYPE_BOOL },
        { "null or null", TYPE_NULL },
        { "undefined and false", TYPE_BOOL },
        { "$body.a and 'x'", TYPE_BOOL },
        { "$body.a or null", TYPE_BOOL },
        { "1 ?? 2", TYPE_NUMBER },
        { "1 ?? $body.a", TYPE_DYNAMIC },
        { "undefined ?? undefined", TYPE_UNDEFINED },
        { "length($body.a)", TYPE_NUMBER },
        { "is_null(undefined)", TYPE_BOOL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text =
            xasprintf("FROM /m WHERE %s INTO $upstream", cases[i].condition);
        struct route_syntax syntax;
        struct parse_error error;

        assert_int_equal(route_parse(span_str(text), &syntax, &error), 0);
        assert_int_equal(route_check(&syntax, &error), 0);
        assert_int_equal(syntax.nodes[syntax.count - 1].type, cases[i].want);
        route_syntax_done(&syntax);
    }
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

static int parse_and_check(const char *text, struct parse_error *error)
{
    struct route_syntax syntax;
    int r = route_parse(span_str(text), &syntax, error);

    if (r != 0)
        return r;
    r = route_check(&syntax, error);
    route_syntax_done(&syntax);
    return r;
}

/* Depth is bounded, width is not but by the length of the text. */
static void test_route_parse_bounds(void **state)
{
    static const struct {
        const char *before, *what;
        size_t n;
        const char *behind;
        const char *expected; /* NULL: it is taken */
    } cases[] = {
        { "FROM /a WHERE ", "not ", 99, "true INTO $upstream", NULL },
        { "FROM /a WHERE ", "not ", 100, "true INTO $upstream", "at most 100" },
        { "FROM /a WHERE ", "(", 30000, "", "at most 100" },
        { "FROM /a WHERE ", "f(", 15000, "", "at most 100" },
        { "FROM /a WHERE ", "- ", 15000, "", "at most 100" },
        { "FROM /a WHERE true", " and true", 3600, " INTO $upstream", NULL },
        { "FROM /a WHERE 1", " + 1", 8000, " = 1 INTO $upstream", NULL },
        { "FROM /a WHERE is_string(concat('a'", ",'a'", 8000, ")) INTO $upstream", NULL },
        { "FROM /a WHERE $body.a", ".a", 16000, " = 1 INTO $upstream", NULL },
        { "FROM /a", "/a", 16000, " INTO $upstream", NULL },
        { "FROM /a INTO BrokeredEndpoint('/modules/M/inputs/", "i", 496, "')", "names of at most" },
        { "FROM /a INTO BrokeredEndpoint('/modules/M/inputs/", "i", 495, "')", NULL },
        { "FROM /a", " ", 32768, "", "at most 32768 bytes" },
        { "FROM /a WHERE ", "/* ", 10900, "", "a value" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text =
            repeat(cases[i].before, cases[i].what, cases[i].n, cases[i].behind);
        struct parse_error error = {};

        assert_int_equal(parse_and_check(text, &error), cases[i].expected ? ROUTE_E_INVALID : 0);
        if (cases[i].expected)
            assert_int_equal(strncmp(error.expected, cases[i].expected, strlen(cases[i].expected)),
                             0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_parse_condition), cmocka_unit_test(test_route_parse_route),
        cmocka_unit_test(test_route_refused),         cmocka_unit_test(test_route_check_types),
        cmocka_unit_test(test_route_parse_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
