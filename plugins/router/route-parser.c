#include "route-parser.h"

#include <math.h>

#include "buf.h"
#include "mem.h"
#include "route-lexer.h"
#include "route-number.h"

/* A function that returns false has set @error. */
struct parser {
    struct route_lexer lexer;
    struct token token; /* the next */
    struct route_syntax *syntax;
    unsigned depth;
    struct parse_error error;
};

static bool fail_at(struct parser *p, size_t offset, const char *expected)
{
    p->error = (struct parse_error){ offset, expected };
    return false;
}

static bool fail(struct parser *p, const char *expected)
{
    return fail_at(p, p->token.offset, expected);
}

static void advance(struct parser *p)
{
    p->token = lexer_next(&p->lexer);
}

static bool eat(struct parser *p, enum token_kind kind)
{
    if (p->token.kind != kind)
        return false;
    advance(p);
    return true;
}

static bool expect(struct parser *p, enum token_kind kind, const char *expected)
{
    return eat(p, kind) || fail(p, expected);
}

/* Conditions */

static struct route_node *node_add(struct parser *p, enum node_kind kind, const struct token *token)
{
    struct route_syntax *s = p->syntax;

    xgrow(s->nodes, s->count, s->capacity);
    s->nodes[s->count] = (struct route_node){ kind, token->offset, token->text };
    return &s->nodes[s->count++];
}

/* "e5" has no digits, 0x with 17 of them no value: neither is an error. */
static void number_add(struct parser *p, const struct token *token)
{
    bool is_hex = token->kind == TOKEN_HEX;
    double number = is_hex ? number_parse_hex(span_of(token->text.at + 2, token->text.len - 2))
                           : number_parse(token->text);

    node_add(p, isnan(number) ? NODE_UNDEFINED : NODE_NUMBER, token)->number = number;
}

static void string_add(struct parser *p, const struct token *token)
{
    node_add(p, NODE_STRING, token)->text = span_of(token->text.at + 1, token->text.len - 2);
}

static bool literal_parse(struct parser *p)
{
    const struct token token = p->token;

    switch (token.kind) {
    case TOKEN_STRING:
        string_add(p, &token);
        break;
    case TOKEN_INTEGER:
    case TOKEN_HEX:
    case TOKEN_REAL:
        number_add(p, &token);
        break;
    case TOKEN_TRUE:
        node_add(p, NODE_TRUE, &token);
        break;
    case TOKEN_FALSE:
        node_add(p, NODE_FALSE, &token);
        break;
    case TOKEN_NULL:
        node_add(p, NODE_NULL, &token);
        break;
    case TOKEN_UNDEFINED:
        node_add(p, NODE_UNDEFINED, &token);
        break;
    case TOKEN_UNTERMINATED:
        return fail(p,
                    "a string with its closing quote, and of escapes \\\" \\' \\\\ \\uXXXX only");
    default:
        return fail(p, "a value: a property, $name, $body.path, a literal, a function or (");
    }
    advance(p);
    return true;
}

static bool expression_parse(struct parser *p, unsigned level_min);

static bool call_parse(struct parser *p, const struct token *name)
{
    struct route_node *node;
    uint32_t count = 0;

    if (!eat(p, TOKEN_CLOSE)) {
        do {
            if (!expression_parse(p, 0))
                return false;
            count++;
        } while (eat(p, TOKEN_COMMA));
        if (!expect(p, TOKEN_CLOSE, "an operator, a comma, or ) after the arguments"))
            return false;
    }
    node = node_add(p, NODE_CALL, name);
    node->count = count;
    return true;
}

static bool name_parse(struct parser *p)
{
    const struct token token = p->token;

    advance(p);
    if (eat(p, TOKEN_OPEN))
        return call_parse(p, &token);
    node_add(p, NODE_APPLICATION, &token);
    return true;
}

static bool braced_parse(struct parser *p)
{
    advance(p);
    if (p->token.kind != TOKEN_SYSTEM_NAME)
        return fail(p, "$name or $body.path between the braces");
    node_add(p, NODE_SYSTEM_ONLY, &p->token);
    advance(p);
    return expect(p, TOKEN_CLOSE_BRACE, "} after the name");
}

static bool primary_parse(struct parser *p)
{
    switch (p->token.kind) {
    case TOKEN_OPEN:
        advance(p);
        return expression_parse(p, 0) && expect(p, TOKEN_CLOSE, "an operator, or )");
    case TOKEN_NAME:
        return name_parse(p);
    case TOKEN_SYSTEM_NAME:
        node_add(p, NODE_SYSTEM, &p->token);
        advance(p);
        return true;
    case TOKEN_OPEN_BRACE:
        return braced_parse(p);
    default:
        return literal_parse(p);
    }
}

static bool unary_parse(struct parser *p)
{
    const struct token token = p->token;
    bool parsed;

    if (p->depth >= ROUTE_DEPTH_MAX)
        return fail(p, "at most 100 parentheses, calls and signs inside each other");
    p->depth++;
    if (eat(p, TOKEN_MINUS) || eat(p, TOKEN_NOT)) {
        parsed = unary_parse(p);
        if (parsed)
            node_add(p, token.kind == TOKEN_NOT ? NODE_NOT : NODE_NEGATE, &token);
    } else {
        parsed = primary_parse(p);
    }
    p->depth--;
    return parsed;
}

/* Level 1 binds least; 0 is no operator. */
static const struct {
    unsigned level;
    enum node_kind node;
} operators[_TOKEN_COUNT] = {
    [TOKEN_COALESCE] = { 1, NODE_COALESCE },
    [TOKEN_OR] = { 2, NODE_OR },
    [TOKEN_AND] = { 3, NODE_AND },
    [TOKEN_EQUAL] = { 4, NODE_EQUAL },
    [TOKEN_NOT_EQUAL] = { 4, NODE_NOT_EQUAL },
    [TOKEN_LESS] = { 5, NODE_LESS },
    [TOKEN_LESS_EQUAL] = { 5, NODE_LESS_EQUAL },
    [TOKEN_GREATER] = { 5, NODE_GREATER },
    [TOKEN_GREATER_EQUAL] = { 5, NODE_GREATER_EQUAL },
    [TOKEN_PLUS] = { 6, NODE_ADD },
    [TOKEN_MINUS] = { 6, NODE_SUBTRACT },
    [TOKEN_CONCAT] = { 6, NODE_CALL },
    [TOKEN_STAR] = { 7, NODE_MULTIPLY },
    [TOKEN_SLASH] = { 7, NODE_DIVIDE },
    [TOKEN_PERCENT] = { 7, NODE_MODULO },
};

/* All operators go together from the left: what stands right of one is of higher levels. */
static bool expression_parse(struct parser *p, unsigned level_min)
{
    if (!unary_parse(p))
        return false;
    for (;;) {
        struct token token = p->token;
        unsigned level = operators[token.kind].level;
        uint32_t left = p->syntax->count - 1;
        struct route_node *node;

        if (level == 0 || level < level_min)
            return true;
        advance(p);
        if (!expression_parse(p, level + 1))
            return false;
        if (token.kind == TOKEN_CONCAT)
            token.text = SPAN("concat");
        node = node_add(p, operators[token.kind].node, &token);
        node->left = left;
        node->count = 2;
    }
}

/* Sources and sinks */

static bool source_parse(struct parser *p)
{
    _cleanup_(buf_done) struct buf source = {};

    if (p->token.kind != TOKEN_SLASH)
        return fail(p, "a source that begins with /");
    while (p->token.kind == TOKEN_SLASH) {
        buf_append_span(&source, p->token.text);
        advance(p);
        if (p->token.kind != TOKEN_NAME && p->token.kind != TOKEN_STAR)
            return fail(p, "a name or * after the /");
        buf_append_span(&source, p->token.text);
        advance(p);
    }
    p->syntax->source = span_xdup(buf_span(&source));
    return true;
}

static struct span trim(struct span s)
{
    static const char blanks[] = " \t\r\n\v\f";

    while (s.len > 0 && memchr(blanks, s.at[0], sizeof(blanks) - 1))
        s = span_of(s.at + 1, s.len - 1);
    while (s.len > 0 && memchr(blanks, s.at[s.len - 1], sizeof(blanks) - 1))
        s.len--;
    return s;
}

/* "/modules/M/inputs/I": the second and the fourth of four parts; the slashes around it may be
 * missing. */
static bool address_split(struct span address, struct span *ret_module_id, struct span *ret_input)
{
    struct span rest = trim(address), parts[4], part;
    bool done = false;
    size_t n = 0;

    span_eat(&rest, SPAN("/"));
    if (rest.len > 0 && rest.at[rest.len - 1] == '/')
        rest.len--;
    while (span_next(&rest, '/', &part, &done)) {
        if (n == ELEMENTSOF(parts))
            return false;
        parts[n++] = part;
    }
    if (n != ELEMENTSOF(parts) || trim(parts[3]).len == 0)
        return false;
    *ret_module_id = parts[1];
    *ret_input = parts[3];
    return true;
}

static bool input_parse(struct parser *p)
{
    struct route_syntax *s = p->syntax;
    struct span text;

    if (!span_equal_nocase(p->token.text, SPAN("BrokeredEndpoint")))
        return fail(p, "$upstream or BrokeredEndpoint(\"/modules/MODULE/inputs/INPUT\")");
    advance(p);
    if (!expect(p, TOKEN_OPEN, "( after BrokeredEndpoint"))
        return false;
    if (p->token.kind != TOKEN_STRING)
        return fail(p, "\"/modules/MODULE/inputs/INPUT\", in quotes");
    text = p->token.text;
    if (!address_split(span_of(text.at + 1, text.len - 2), &s->module_id, &s->input))
        return fail(p, "an address of four parts: /modules/MODULE/inputs/INPUT");
    if (s->module_id.len + s->input.len + strlen("modules//inputs/") > ROUTE_QUEUE_MAX)
        return fail(p, "names of at most 496 bytes together");
    advance(p);
    s->sink = ENDPOINT_INPUT;
    return expect(p, TOKEN_CLOSE, ") after the address");
}

static bool sink_parse(struct parser *p)
{
    if (p->token.kind == TOKEN_NAME)
        return input_parse(p);
    if (p->token.kind != TOKEN_SYSTEM_NAME || !span_equal_nocase(p->token.text, SPAN("$upstream")))
        return fail(p, "$upstream or BrokeredEndpoint(\"/modules/MODULE/inputs/INPUT\")");
    p->syntax->sink = ENDPOINT_UPSTREAM;
    return true;
}

static bool parse(struct parser *p)
{
    if (eat(p, TOKEN_SELECT) && !expect(p, TOKEN_STAR, "*: messages are passed on whole"))
        return false;
    if (!expect(p, TOKEN_FROM, "FROM") || !source_parse(p))
        return false;
    p->syntax->has_condition = eat(p, TOKEN_WHERE);
    if (p->syntax->has_condition) {
        if (!expression_parse(p, 0))
            return false;
        if (!eat(p, TOKEN_INTO))
            return fail(p, "an operator, or INTO after the condition");
    } else if (!eat(p, TOKEN_INTO)) {
        return fail(p, "/, WHERE or INTO after the source");
    }
    return sink_parse(p); /* what stands behind a sink was never looked at, and is not now */
}

int route_parse(struct span text, struct route_syntax *ret_syntax, struct parse_error *ret_error)
{
    struct route_syntax syntax = {};
    struct parser p = { .lexer = { .text = text }, .syntax = &syntax };

    if (text.len > ROUTE_TEXT_MAX) {
        *ret_error = (struct parse_error){ ROUTE_TEXT_MAX, "at most 32768 bytes" };
        return ROUTE_E_INVALID;
    }
    if (!span_is_utf8(text)) {
        *ret_error = (struct parse_error){ 0, "UTF-8 without NUL" };
        return ROUTE_E_INVALID;
    }
    advance(&p);
    if (!parse(&p)) {
        route_syntax_done(&syntax);
        *ret_error = p.error;
        return ROUTE_E_INVALID;
    }
    *ret_syntax = syntax;
    return 0;
}

void route_syntax_done(struct route_syntax *syntax)
{
    free(syntax->source);
    free(syntax->nodes);
    *syntax = (struct route_syntax){};
}
