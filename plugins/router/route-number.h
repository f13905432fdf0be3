/* Numbers as the route language reads them from text. */
#pragma once

#include "span.h"

/* Blanks around it, a sign before or behind, digits with commas between, a point, an exponent,
 * (5) for -5, Infinity. NaN when it is no number; infinity when it is too large. */
double number_parse(struct span text);
/* The digits behind 0x: 64 bits in two's complement. NaN when there are more. */
double number_parse_hex(struct span digits);
