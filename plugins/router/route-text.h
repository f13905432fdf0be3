/*
 * Text as the route language sees it. The bytes are UTF-8, but lengths, positions and order are
 * those of UTF-16 code units, as in the original. One half of a surrogate pair, cut off or written
 * as \uD800, is kept as three bytes as if it were a character. Bytes that are no UTF-8 do no harm.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "span.h"

enum { TEXT_CHAR_BYTES_MAX = 4 };

size_t text_units(struct span s);
/* Where unit number @unit is: the offset of its character. @ret_inside: it is the second half of
 * it. */
size_t text_offset(struct span s, size_t unit, bool *ret_inside);
int text_compare(struct span a, struct span b); /* <0, 0, >0 */

/* The next character off the front; @s is not empty. A byte that begins none gives a number
 * beyond Unicode. */
uint32_t text_next(struct span *s);
/* Up to TEXT_CHAR_BYTES_MAX bytes; returns how many. */
size_t text_put(uint32_t character, char *out);

/* Does it begin with the second half of a pair, or end with a first? Then it may be part of a text
 * without any of its characters being one of that text. */
bool text_is_cut(struct span s);
/* All pairs as their two halves. Returns the bytes written to @out, at most TEXT_MAPPED_MAX. */
size_t text_split(struct span s, char *out);
/* Halves that stand side by side as the pairs that they are, in place. Returns the new length. */
size_t text_join(char *text, size_t len);

enum text_case { TEXT_LOWER, TEXT_UPPER };
/* One character for one, and in no particular language. Returns the bytes written to @out, at
 * most TEXT_MAPPED_MAX. */
#define TEXT_MAPPED_MAX(len) ((len) + (len) / 2)
size_t text_map(struct span s, enum text_case to, char *out);
bool text_equal_nocase(struct span a, struct span b);
