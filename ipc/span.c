#include "span.h"

#include <strings.h>

#include "mem.h"

bool span_equal_nocase(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.at, b.at, a.len) == 0);
}

static void span_skip(struct span *s, size_t n)
{
    if (n == 0)
        return; /* @at may be NULL */
    s->at += n;
    s->len -= n;
}

bool span_eat(struct span *s, struct span prefix)
{
    if (s->len < prefix.len || !span_equal(span_of(s->at, prefix.len), prefix))
        return false;
    span_skip(s, prefix.len);
    return true;
}

bool span_eat_nocase(struct span *s, struct span prefix)
{
    if (s->len < prefix.len || !span_equal_nocase(span_of(s->at, prefix.len), prefix))
        return false;
    span_skip(s, prefix.len);
    return true;
}

bool span_split(struct span *s, struct span separator, struct span *ret_before)
{
    const char *found;
    size_t before;

    if (s->len < separator.len || s->len == 0)
        return false;
    found = memmem(s->at, s->len, separator.at, separator.len);
    if (!found)
        return false;
    before = (size_t)(found - s->at);
    *ret_before = span_of(s->at, before);
    span_skip(s, before + separator.len);
    return true;
}

bool span_next(struct span *s, char separator, struct span *ret_piece, bool *done)
{
    const char *found;

    if (*done)
        return false;
    found = s->len > 0 ? memchr(s->at, separator, s->len) : NULL;
    if (found) {
        *ret_piece = span_of(s->at, (size_t)(found - s->at));
        span_skip(s, ret_piece->len + 1);
    } else {
        *ret_piece = *s;
        span_skip(s, s->len);
        *done = true;
    }
    return true;
}

/* The length of the well-formed sequence that begins at @p, 0 if there is none (Unicode 15, table
 * 3-7). */
static size_t utf8_sequence_len(const unsigned char *p, size_t len)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t n;

    if (p[0] < 0x80)
        return p[0] != 0;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        n = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        n = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0; /* overlong below */
    else if (p[0] == 0xed)
        high = 0x9f; /* surrogates above */
    else if (p[0] == 0xf0)
        low = 0x90; /* overlong below */
    else if (p[0] == 0xf4)
        high = 0x8f; /* beyond U+10FFFF above */
    if (len < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return n;
}

bool span_is_utf8(struct span s)
{
    const unsigned char *p = (const unsigned char *)s.at;

    for (size_t i = 0; i < s.len;) {
        size_t n = utf8_sequence_len(p + i, s.len - i);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

bool span_to_uint64(struct span s, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.at[i] - '0'), &value))
            return false;
    }
    *ret_value = value;
    return true;
}

char *span_xdup(struct span s)
{
    char *copy = xrealloc(NULL, s.len + 1);

    if (s.len > 0)
        memcpy(copy, s.at, s.len);
    copy[s.len] = '\0';
    return copy;
}
