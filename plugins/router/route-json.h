/* JSON of strangers into jansson's, which refuses some of what the grammar allows: numbers beyond
 * a double, one half of a surrogate pair in a text, NUL in the name of a member. */
#pragma once

#include "arena.h"
#include "span.h"

struct json_t;

/* NULL when it is no array or object. @ret_is_utf8: false when it is none for its bytes alone.
 * @arena: for a text that has to be rewritten. */
struct json_t *route_json_load(struct span text, struct arena *arena, bool *ret_is_utf8);

/* Does this text stand for a number that no double holds? Then @ret_number is infinite. */
bool route_json_is_infinite(struct span text, double *ret_number);
