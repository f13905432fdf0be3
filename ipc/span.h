/* A borrowed stretch of bytes, and the few ways a parser eats from its front. Nothing here allocates but span_xdup(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const char *at;
    size_t len;
};

#define SPAN(literal) ((struct span){ "" literal, sizeof(literal) - 1 })

static inline struct span span_of(const void *at, size_t len)
{
    return (struct span){ at, len };
}

static inline struct span span_str(const char *s)
{
    return (struct span){ s, s ? strlen(s) : 0 };
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

bool span_equal_nocase(struct span a, struct span b); /* ASCII */

/* Takes @prefix off the front; false and untouched when it is not there. */
bool span_eat(struct span *s, struct span prefix);
bool span_eat_nocase(struct span *s, struct span prefix);

/* Cuts @s at the first @separator: what stands before goes to @ret_before, @s goes on behind it. False when there is none. */
bool span_split(struct span *s, struct span separator, struct span *ret_before);

/* The next piece up to @separator or the end; false when @s is used up. Empty pieces are given. @done is the caller's,
 * false to begin with. */
bool span_next(struct span *s, char separator, struct span *ret_piece, bool *done);

bool span_is_utf8(struct span s); /* well-formed, no NUL, no surrogates */

/* Decimal digits only, the whole span, no overflow. */
bool span_to_uint64(struct span s, uint64_t *ret_value);

char *span_xdup(struct span s); /* NUL-terminated copy, the caller's */

/* A malformed text: where, and what should have stood there. @expected is a literal. */
struct parse_error {
    size_t offset;
    const char *expected;
};
