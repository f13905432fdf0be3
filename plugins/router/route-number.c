/* The grammar is .NET's NumberStyles.Any in the invariant culture, but for its currency sign. */
#include "route-number.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Digits that follow do not change the nearest double, except for whether they are all zero: a half is no longer one. */
enum { DIGITS_MAX = 770, EXPONENT_MAX = 99999 };

struct number {
    struct span rest;
    bool is_signed, is_negative, in_parentheses, has_digits;
    char digits[DIGITS_MAX + 1]; /* without leading zeros */
    size_t count;
    long long scale; /* the value is 0.DIGITS * 10^scale */
};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char first(const struct number *n)
{
    return n->rest.len > 0 ? n->rest.at[0] : '\0';
}

static void skip(struct number *n)
{
    n->rest = span_of(n->rest.at + 1, n->rest.len - 1);
}

static bool eat_sign(struct number *n)
{
    char c = first(n);

    if (n->is_signed || (c != '+' && c != '-'))
        return false;
    n->is_signed = true;
    n->is_negative = c == '-';
    skip(n);
    return true;
}

static void eat_front(struct number *n)
{
    while (is_blank(first(n)))
        skip(n);
    if (eat_sign(n) || first(n) != '(')
        return;
    n->is_signed = n->is_negative = n->in_parentheses = true;
    skip(n);
}

static void digit_add(struct number *n, char digit, bool behind_point)
{
    if (n->count == 0 && digit == '0') {
        n->scale -= behind_point;
        return;
    }
    n->scale += !behind_point;
    if (n->count < DIGITS_MAX)
        n->digits[n->count++] = digit;
    else if (digit != '0')
        n->digits[DIGITS_MAX - 1] = '1';
}

static void eat_digits(struct number *n)
{
    bool behind_point = false;

    for (;; skip(n)) {
        char c = first(n);

        if (is_digit(c)) {
            n->has_digits = true;
            digit_add(n, c, behind_point);
        } else if (c == '.' && !behind_point) {
            behind_point = true;
        } else if (c != ',' || !n->has_digits || behind_point) {
            return;
        }
    }
}

static void eat_exponent(struct number *n)
{
    struct number ahead = { .rest = n->rest };
    long long exponent = 0;

    if (tolower(first(n)) != 'e')
        return;
    skip(&ahead);
    eat_sign(&ahead);
    if (!is_digit(first(&ahead)))
        return; /* what is left is refused */
    for (; is_digit(first(&ahead)); skip(&ahead))
        if (exponent < EXPONENT_MAX)
            exponent = exponent * 10 + (first(&ahead) - '0');
    n->scale += ahead.is_negative ? -exponent : exponent;
    n->rest = ahead.rest;
}

static void eat_back(struct number *n)
{
    for (;;) {
        if (is_blank(first(n))) {
            skip(n);
        } else if (first(n) == ')' && n->in_parentheses) {
            n->in_parentheses = false;
            skip(n);
        } else if (!eat_sign(n)) {
            return;
        }
    }
}

static double number_value(struct number *n)
{
    char text[DIGITS_MAX + 32];
    double value;

    if (n->count == 0)
        return n->is_negative ? -0.0 : 0.0;
    n->digits[n->count] = '\0';
    snprintf(text, sizeof(text), "0.%se%lld", n->digits, n->scale);
    value = strtod(text, NULL);
    return n->is_negative ? -value : value;
}

static double parse_word(struct span text)
{
    while (text.len > 0 && is_blank(text.at[0]))
        text = span_of(text.at + 1, text.len - 1);
    while (text.len > 0 && is_blank(text.at[text.len - 1]))
        text.len--;
    if (span_equal_nocase(text, SPAN("Infinity")) || span_equal_nocase(text, SPAN("+Infinity")))
        return INFINITY;
    return span_equal_nocase(text, SPAN("-Infinity")) ? -INFINITY : NAN;
}

double number_parse(struct span text)
{
    struct number n = { .rest = text };

    eat_front(&n);
    eat_digits(&n);
    if (!n.has_digits)
        return parse_word(text);
    eat_exponent(&n);
    eat_back(&n);
    return n.rest.len == 0 && !n.in_parentheses ? number_value(&n) : NAN;
}

double number_parse_hex(struct span digits)
{
    uint64_t value = 0;

    for (size_t i = 0; i < digits.len; i++) {
        unsigned char c = (unsigned char)digits.at[i];

        if (value >> 60 != 0)
            return NAN;
        value = value << 4 | (uint64_t)(is_digit((char)c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    return (double)(int64_t)value;
}
