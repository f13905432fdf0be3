#include "route-lexer.h"

#include <ctype.h>

#include "mem.h"

/* How much of the front of a text a rule takes; 0: it does not fit. The text is not empty. */
typedef size_t scan_fn(struct span text);

static size_t scan_while(struct span text, size_t from, bool (*fits)(char c))
{
    size_t n = from;

    while (n < text.len && fits(text.at[n]))
        n++;
    return n;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c)
{
    return isxdigit((unsigned char)c);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_path_char(char c)
{
    return !is_blank(c) && (c == '\0' || !strchr("()<>@,;:\\\"/?={}", c));
}

static bool is_name_char(char c)
{
    return is_path_char(c) && c != '[' && c != ']';
}

/* The escape at @at, a backslash. */
static size_t scan_escape(struct span text, size_t at)
{
    char c = at + 1 < text.len ? text.at[at + 1] : '\0';

    if (c == '"' || c == '\'' || c == '\\')
        return 2;
    if (c != 'u' || text.len - at < 6)
        return 0;
    return scan_while(span_of(text.at, at + 6), at + 2, is_hex_digit) == at + 6 ? 6 : 0;
}

/* As far as a string goes, its closing quote left out. */
static size_t scan_unterminated(struct span text)
{
    char quote = text.at[0];
    size_t n = 1;

    if (quote != '"' && quote != '\'')
        return 0;
    while (n < text.len && text.at[n] != quote) {
        size_t step = text.at[n] == '\\' ? scan_escape(text, n) : 1;

        if (step == 0)
            break;
        n += step;
    }
    return n;
}

static size_t scan_string(struct span text)
{
    size_t n = scan_unterminated(text);

    return n > 0 && n < text.len && text.at[n] == text.at[0] ? n + 1 : 0;
}

static size_t scan_sign(struct span text)
{
    return text.at[0] == '-';
}

static size_t scan_integer(struct span text)
{
    size_t sign = scan_sign(text), n = scan_while(text, sign, is_digit);

    return n > sign ? n : 0;
}

static size_t scan_hex(struct span text)
{
    size_t n;

    if (!span_equal_nocase(span_of(text.at, text.len < 2 ? text.len : 2), SPAN("0x")))
        return 0;
    n = scan_while(text, 2, is_hex_digit);
    return n > 2 ? n : 0;
}

/* Behind the exponent at @at; @at when there is none. */
static size_t scan_exponent(struct span text, size_t at)
{
    size_t digits = at + 1, n;

    if (at >= text.len || (text.at[at] != 'e' && text.at[at] != 'E'))
        return at;
    if (digits < text.len && (text.at[digits] == '+' || text.at[digits] == '-'))
        digits++;
    n = scan_while(text, digits, is_digit);
    return n > digits ? n : at;
}

/* Digits may be missing before the point, or altogether where there is an exponent. */
static size_t scan_real(struct span text)
{
    size_t whole = scan_while(text, scan_sign(text), is_digit), n;

    if (whole < text.len && text.at[whole] == '.') {
        n = scan_while(text, whole + 1, is_digit);
        return n > whole + 1 ? scan_exponent(text, n) : 0;
    }
    n = scan_exponent(text, whole);
    return n > whole ? n : 0;
}

static size_t scan_system_name(struct span text)
{
    size_t n = text.at[0] == '$' ? scan_while(text, 1, is_path_char) : 0;

    return n > 1 ? n : 0;
}

static size_t scan_name(struct span text)
{
    return scan_while(text, 0, is_name_char);
}

static size_t scan_bracketed(struct span text)
{
    return scan_while(text, 0, is_path_char);
}

static size_t scan_blank(struct span text)
{
    return scan_while(text, 0, is_blank);
}

static size_t scan_comment(struct span text)
{
    struct span rest = text, comment;

    if (!span_eat(&rest, SPAN("/*")) || !span_split(&rest, SPAN("*/"), &comment))
        return 0;
    return text.len - rest.len;
}

enum { SKIPPED = _TOKEN_COUNT };

static const struct rule {
    int kind; /* or SKIPPED */
    const char *word;
    bool any_case;
    scan_fn *scan; /* instead of the word */
} rules[] = {
    { TOKEN_SELECT, "select", true, NULL },
    { TOKEN_FROM, "from", true, NULL },
    { TOKEN_WHERE, "where", true, NULL },
    { TOKEN_INTO, "into", true, NULL },
    { TOKEN_STRING, .scan = scan_string },
    { TOKEN_UNTERMINATED, .scan = scan_unterminated },
    { TOKEN_INTEGER, .scan = scan_integer },
    { TOKEN_HEX, .scan = scan_hex },
    { TOKEN_REAL, .scan = scan_real },
    { TOKEN_TRUE, "true", false, NULL },
    { TOKEN_FALSE, "false", false, NULL },
    { TOKEN_NULL, "null", false, NULL },
    { TOKEN_UNDEFINED, "undefined", false, NULL },
    { TOKEN_OPEN, "(", false, NULL },
    { TOKEN_CLOSE, ")", false, NULL },
    { TOKEN_COMMA, ",", false, NULL },
    { TOKEN_PLUS, "+", false, NULL },
    { TOKEN_MINUS, "-", false, NULL },
    { TOKEN_STAR, "*", false, NULL },
    { TOKEN_SLASH, "/", false, NULL },
    { TOKEN_PERCENT, "%", false, NULL },
    { TOKEN_AND, "and", true, NULL },
    { TOKEN_OR, "or", true, NULL },
    { TOKEN_NOT, "not", true, NULL },
    { TOKEN_EQUAL, "=", false, NULL },
    { TOKEN_NOT_EQUAL, "!=", false, NULL },
    { TOKEN_NOT_EQUAL, "<>", false, NULL },
    { TOKEN_LESS_EQUAL, "<=", false, NULL },
    { TOKEN_GREATER_EQUAL, ">=", false, NULL },
    { TOKEN_GREATER, ">", false, NULL },
    { TOKEN_LESS, "<", false, NULL },
    { TOKEN_CONCAT, "||", false, NULL },
    { TOKEN_COALESCE, "??", false, NULL },
    { TOKEN_SYSTEM_NAME, .scan = scan_system_name },
    { TOKEN_NAME, .scan = scan_name },
    { TOKEN_BRACKETED, .scan = scan_bracketed },
    { TOKEN_OPEN_BRACE, "{", false, NULL },
    { TOKEN_CLOSE_BRACE, "}", false, NULL },
    { SKIPPED, .scan = scan_blank },
    { SKIPPED, .scan = scan_comment },
};

static size_t rule_scan(const struct rule *rule, struct span text)
{
    struct span rest = text;

    if (rule->scan)
        return rule->scan(text);
    if (rule->any_case ? !span_eat_nocase(&rest, span_str(rule->word))
                       : !span_eat(&rest, span_str(rule->word)))
        return 0;
    return text.len - rest.len;
}

static size_t lexer_cut(struct span text, int *ret_kind)
{
    size_t best = 0;

    *ret_kind = TOKEN_UNKNOWN;
    for (size_t i = 0; i < ELEMENTSOF(rules); i++) {
        size_t n = rule_scan(&rules[i], text);

        if (n > best) {
            best = n;
            *ret_kind = rules[i].kind;
        }
    }
    return best > 0 ? best : 1;
}

struct token lexer_next(struct route_lexer *lexer)
{
    while (lexer->at < lexer->text.len) {
        struct span rest = span_of(lexer->text.at + lexer->at, lexer->text.len - lexer->at);
        size_t offset = lexer->at;
        int kind;

        rest.len = lexer_cut(rest, &kind);
        lexer->at += rest.len;
        if (kind != SKIPPED)
            return (struct token){ (enum token_kind)kind, rest, offset };
    }
    return (struct token){ .kind = TOKEN_END, .offset = lexer->text.len };
}
