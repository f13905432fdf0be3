#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "route-lexer.h"

enum { TOKENS_MAX = 8 };

/* routing.md §3: the greatest match, of equal ones the first rule. */
static void test_lexer_next_kinds(void **state)
{
    static const struct {
        const char *text;
        enum token_kind want[TOKENS_MAX];
    } cases[] = {
        { "sElEcT from WHERE Into",
          { TOKEN_SELECT, TOKEN_FROM, TOKEN_WHERE, TOKEN_INTO, TOKEN_END } },
        { "fromage", { TOKEN_NAME, TOKEN_END } },
        { "'a' \"b\"", { TOKEN_STRING, TOKEN_STRING, TOKEN_END } },
        { "'it\"s' \"it's\"", { TOKEN_STRING, TOKEN_STRING, TOKEN_END } },
        { "'it\\'s\\u00e9\\\\'", { TOKEN_STRING, TOKEN_END } },
        { "'a\nb'", { TOKEN_STRING, TOKEN_END } },
        { "'a b", { TOKEN_UNTERMINATED, TOKEN_END } },
        { "'a\\t'", { TOKEN_UNTERMINATED, TOKEN_UNKNOWN, TOKEN_NAME, TOKEN_END } },
        { "'\\u12'", { TOKEN_UNTERMINATED, TOKEN_UNKNOWN, TOKEN_NAME, TOKEN_END } },
        { "'it's'", { TOKEN_NAME, TOKEN_END } },
        { "'a'||'b'", { TOKEN_NAME, TOKEN_END } },
        { "\"a\"||\"b\"", { TOKEN_STRING, TOKEN_CONCAT, TOKEN_STRING, TOKEN_END } },
        { "0 007 -5 12",
          { TOKEN_INTEGER, TOKEN_INTEGER, TOKEN_INTEGER, TOKEN_INTEGER, TOKEN_END } },
        { "0x1F 0XfF", { TOKEN_HEX, TOKEN_HEX, TOKEN_END } },
        { "-0x10 0x 0xG", { TOKEN_NAME, TOKEN_NAME, TOKEN_NAME, TOKEN_END } },
        { ".25 1.5 -.5 1e3 2.5E-3",
          { TOKEN_REAL, TOKEN_REAL, TOKEN_REAL, TOKEN_REAL, TOKEN_REAL, TOKEN_END } },
        { "e5 E10 -e1", { TOKEN_REAL, TOKEN_REAL, TOKEN_REAL, TOKEN_END } },
        { "7. 1.e3 1.2.3 1e", { TOKEN_NAME, TOKEN_NAME, TOKEN_NAME, TOKEN_NAME, TOKEN_END } },
        { "5-3 5 -3", { TOKEN_NAME, TOKEN_INTEGER, TOKEN_INTEGER, TOKEN_END } },
        { "true false null undefined",
          { TOKEN_TRUE, TOKEN_FALSE, TOKEN_NULL, TOKEN_UNDEFINED, TOKEN_END } },
        { "True NULL truer", { TOKEN_NAME, TOKEN_NAME, TOKEN_NAME, TOKEN_END } },
        { "( ) , + - * /",
          { TOKEN_OPEN, TOKEN_CLOSE, TOKEN_COMMA, TOKEN_PLUS, TOKEN_MINUS, TOKEN_STAR, TOKEN_SLASH,
            TOKEN_END } },
        { "% AND Or nOt", { TOKEN_PERCENT, TOKEN_AND, TOKEN_OR, TOKEN_NOT, TOKEN_END } },
        { "= != <> <= >= > <",
          { TOKEN_EQUAL, TOKEN_NOT_EQUAL, TOKEN_NOT_EQUAL, TOKEN_LESS_EQUAL, TOKEN_GREATER_EQUAL,
            TOKEN_GREATER, TOKEN_LESS, TOKEN_END } },
        { "|| ??", { TOKEN_CONCAT, TOKEN_COALESCE, TOKEN_END } },
        { "a!='x'", { TOKEN_NAME, TOKEN_EQUAL, TOKEN_STRING, TOKEN_END } },
        { "a>='x'", { TOKEN_NAME, TOKEN_GREATER_EQUAL, TOKEN_STRING, TOKEN_END } },
        { "==", { TOKEN_EQUAL, TOKEN_EQUAL, TOKEN_END } },
        { "&& | !", { TOKEN_NAME, TOKEN_NAME, TOKEN_NAME, TOKEN_END } },
        { "2+2", { TOKEN_NAME, TOKEN_END } },
        { "8/2=4",
          { TOKEN_INTEGER, TOKEN_SLASH, TOKEN_INTEGER, TOKEN_EQUAL, TOKEN_INTEGER, TOKEN_END } },
        { "$a $body.x[0] $ {$a}",
          { TOKEN_SYSTEM_NAME, TOKEN_SYSTEM_NAME, TOKEN_NAME, TOKEN_OPEN_BRACE, TOKEN_SYSTEM_NAME,
            TOKEN_CLOSE_BRACE, TOKEN_END } },
        { "a[0] [1]", { TOKEN_BRACKETED, TOKEN_BRACKETED, TOKEN_END } },
        { "\xc3\xa9t\xc3\xa9", { TOKEN_NAME, TOKEN_END } },
        { "@;:\\?",
          { TOKEN_UNKNOWN, TOKEN_UNKNOWN, TOKEN_UNKNOWN, TOKEN_UNKNOWN, TOKEN_UNKNOWN,
            TOKEN_END } },
        { "a/* b */c /**/", { TOKEN_NAME, TOKEN_NAME, TOKEN_END } },
        { "a/*b", { TOKEN_NAME, TOKEN_SLASH, TOKEN_NAME, TOKEN_END } },
        { "/*/ a */ b */", { TOKEN_NAME, TOKEN_STAR, TOKEN_SLASH, TOKEN_END } },
        { "/* */ \t\r\n", { TOKEN_END } },
        { "", { TOKEN_END } },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct route_lexer lexer = { .text = span_str(cases[i].text) };
        size_t n = 0;

        for (struct token t = {}; t.kind != TOKEN_END; n++) {
            t = lexer_next(&lexer);
            assert_true(n < TOKENS_MAX);
            assert_int_equal(t.kind, cases[i].want[n]);
        }
    }
}

static void test_lexer_next_texts(void **state)
{
    struct route_lexer lexer = { .text = SPAN(" 'a b' /* c */ $d.e[1]  ") };
    struct token t = lexer_next(&lexer);

    assert_int_equal(t.offset, 1);
    assert_true(span_equal(t.text, SPAN("'a b'")));
    t = lexer_next(&lexer);
    assert_int_equal(t.offset, 15);
    assert_true(span_equal(t.text, SPAN("$d.e[1]")));
    for (int again = 0; again < 2; again++) {
        t = lexer_next(&lexer);
        assert_int_equal(t.kind, TOKEN_END);
        assert_int_equal(t.offset, 24);
        assert_int_equal(t.text.len, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lexer_next_kinds),
        cmocka_unit_test(test_lexer_next_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
