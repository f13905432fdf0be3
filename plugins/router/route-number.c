/* The grammar is .NET's NumberStyles.Any in the invariant culture, but for its currency sign. */
#include "route-number.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Digits that follow do not change the nearest double, except for whether they are all zero: a
 * half is no longer one. */
enum { DIGITS_MAX = 770, EXPONENT_MAX = 99999 };

/* What doubles hold exactly: so many digits, and powers of ten. */
enum { EXACT_DIGITS = 15, EXACT_POWER = 22 };

struct number {
    struct span rest;
    bool is_signed, is_negative, in_parentheses, has_digits;
    size_t count;
    long long scale; /* the value is 0.DIGITS * 10^scale */
    char *digits;    /* without leading zeros */
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

/* Digits and a power of ten that are exact give the nearest double in one operation. False: they
 * are not. */
static bool exact_value(const struct number *n, double *ret_value)
{
    static const double powers[EXACT_POWER + 1] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    long long power = n->scale - (long long)n->count;
    uint64_t digits = 0;

    if (n->count > EXACT_DIGITS || power > EXACT_POWER || power < -EXACT_POWER)
        return false;
    for (size_t i = 0; i < n->count; i++)
        digits = digits * 10 + (uint64_t)(n->digits[i] - '0');
    *ret_value = power < 0 ? (double)digits / powers[-power] : (double)digits * powers[power];
    return true;
}

static double number_value(const struct number *n)
{
    char text[DIGITS_MAX + 32];
    double value;

    if (n->count == 0)
        value = 0;
    else if (!exact_value(n, &value)) {
        snprintf(text, sizeof(text), "0.%.*se%lld", (int)n->count, n->digits, n->scale);
        value = strtod(text, NULL);
    }
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
    char digits[DIGITS_MAX];
    struct number n = { .rest = text, .digits = digits };

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
