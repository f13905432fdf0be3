#include "route-json.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>

#include "mem.h"
#include "route-number.h"

/* What a number beyond a double is rewritten to, for jansson has no infinities. A message that has
 * such a text of its own sees a number in it, to nobody's harm. */
#define INFINITE          "\"\\u0000+\""
#define INFINITE_NEGATIVE "\"\\u0000-\""

/* The shortest of them is 1e309. */
enum { GROWTH = 2 };

bool route_json_is_infinite(struct span text, double *ret_number)
{
    if (text.len != 2 || text.at[0] != '\0' || (text.at[1] != '+' && text.at[1] != '-'))
        return false;
    *ret_number = text.at[1] == '-' ? -INFINITY : INFINITY;
    return true;
}

/* Rewriting. What is not well-formed is left as it is, and refused again. */

struct rewriter {
    struct span rest;
    char *out;
    size_t len;
    bool changed;
};

static void put(struct rewriter *w, struct span s)
{
    memcpy(w->out + w->len, s.at, s.len);
    w->len += s.len;
}

static void copy(struct rewriter *w, size_t n)
{
    put(w, span_of(w->rest.at, n));
    w->rest = span_of(w->rest.at + n, w->rest.len - n);
}

static void replace(struct rewriter *w, size_t n, struct span by)
{
    put(w, by);
    w->rest = span_of(w->rest.at + n, w->rest.len - n);
    w->changed = true;
}

static bool is_digit_at(struct span s, size_t at)
{
    return at < s.len && s.at[at] >= '0' && s.at[at] <= '9';
}

static size_t digits_end(struct span s, size_t at)
{
    while (is_digit_at(s, at))
        at++;
    return at;
}

/* How long the number at the front is; 0: there is none. */
static size_t number_length(struct span s)
{
    size_t n = s.at[0] == '-', exponent;

    if (!is_digit_at(s, n))
        return 0;
    n = s.at[n] == '0' ? n + 1 : digits_end(s, n);
    if (n < s.len && s.at[n] == '.' && is_digit_at(s, n + 1))
        n = digits_end(s, n + 1);
    exponent = n + 1;
    if (n < s.len && tolower(s.at[n]) == 'e') {
        exponent += exponent < s.len && (s.at[exponent] == '+' || s.at[exponent] == '-');
        if (is_digit_at(s, exponent))
            n = digits_end(s, exponent);
    }
    return n;
}

static void rewrite_number(struct rewriter *w)
{
    size_t len = number_length(w->rest);
    double number = number_parse(span_of(w->rest.at, len));

    if (isinf(number))
        replace(w, len, number < 0 ? SPAN(INFINITE_NEGATIVE) : SPAN(INFINITE));
    else
        copy(w, len > 0 ? len : 1);
}

/* The length of the string at the front, with its quotes. */
static size_t string_length(struct span s)
{
    size_t n = 1;

    while (n < s.len && s.at[n] != '"')
        n += s.at[n] == '\\' ? 2 : 1;
    return n < s.len ? n + 1 : s.len;
}

static bool is_name(struct span s, size_t len)
{
    while (len < s.len && strchr(" \t\r\n", s.at[len]))
        len++;
    return len < s.len && s.at[len] == ':';
}

enum { ESCAPE_BYTES = 6 };

/* "\uXXXX" at the front. */
static bool escape_value(struct span s, unsigned *ret_value)
{
    unsigned value = 0;

    if (s.len < ESCAPE_BYTES || s.at[0] != '\\' || s.at[1] != 'u')
        return false;
    for (size_t i = 2; i < ESCAPE_BYTES; i++) {
        unsigned char c = (unsigned char)s.at[i];

        if (!isxdigit(c))
            return false;
        value = value << 4 | (unsigned)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    *ret_value = value;
    return true;
}

static bool is_half(unsigned value, unsigned first)
{
    return (value & 0xfc00) == first;
}

/* What may not stand there becomes a replacement character, as in the original. */
static void rewrite_escape(struct rewriter *w, bool in_name)
{
    unsigned value, second;
    struct span behind;

    if (!escape_value(w->rest, &value)) {
        copy(w, w->rest.len < 2 ? w->rest.len : 2);
        return;
    }
    behind = span_of(w->rest.at + ESCAPE_BYTES, w->rest.len - ESCAPE_BYTES);
    if (is_half(value, 0xd800) && escape_value(behind, &second) && is_half(second, 0xdc00)) {
        copy(w, (size_t)2 * ESCAPE_BYTES);
    } else if (is_half(value, 0xd800) || is_half(value, 0xdc00) || (in_name && value == 0)) {
        replace(w, ESCAPE_BYTES, SPAN("\\ufffd"));
    } else {
        copy(w, ESCAPE_BYTES);
    }
}

static void rewrite_string(struct rewriter *w)
{
    size_t len = string_length(w->rest);
    const char *end = w->rest.at + len;
    bool in_name = is_name(w->rest, len);

    copy(w, 1);
    while (w->rest.at < end)
        if (w->rest.at[0] == '\\')
            rewrite_escape(w, in_name);
        else
            copy(w, 1);
}

/* False: there is nothing to rewrite. */
static bool rewrite(struct span *text, struct arena *arena)
{
    struct rewriter w = { .rest = *text, .out = arena_alloc(arena, GROWTH * text->len + 1) };

    while (w.rest.len > 0)
        if (w.rest.at[0] == '"')
            rewrite_string(&w);
        else if (w.rest.at[0] == '-' || is_digit_at(w.rest, 0))
            rewrite_number(&w);
        else
            copy(&w, 1);
    *text = span_of(w.out, w.len);
    return w.changed;
}

/* Integers beyond 64 bits make it read all numbers as reals, which is slower. */
static json_t *load(struct span text, json_error_t *ret_error)
{
    json_t *json = json_loadb(text.at, text.len, JSON_ALLOW_NUL, ret_error);

    if (!json && json_error_code(ret_error) == json_error_numeric_overflow)
        json = json_loadb(text.at, text.len, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, ret_error);
    return json;
}

json_t *route_json_load(struct span text, struct arena *arena, bool *ret_is_utf8)
{
    json_error_t error;
    json_t *json = load(text, &error);

    *ret_is_utf8 = json || json_error_code(&error) != json_error_invalid_utf8;
    if (json || !*ret_is_utf8)
        return json;
    return rewrite(&text, arena) ? load(text, &error) : NULL;
}
