/* What expressions have: a type when the route is compiled, a value when a message is judged by
 * it (routing.md §6.1, §7.1). */
#pragma once

#include <stdbool.h>

#include "span.h"

/* Body values of different types are ordered as they stand here: bool < number < string < null. */
enum route_type {
    TYPE_UNDEFINED,
    TYPE_BOOL,
    TYPE_NUMBER,
    TYPE_STRING,
    TYPE_NULL,
    TYPE_DYNAMIC, /* known with the message only; no value has it */
    _TYPE_COUNT
};

struct route_value {
    enum route_type type;
    bool is_missing; /* a null that stands for a body member that is not there */
    union {
        struct span
            text; /* borrowed; @at NULL: a property that has no text, which is not undefined */
        double number;
        bool truth;
    };
};

#define VALUE_UNDEFINED ((struct route_value){ .type = TYPE_UNDEFINED })
#define VALUE_NULL      ((struct route_value){ .type = TYPE_NULL })

static inline struct route_value value_bool(bool truth)
{
    return (struct route_value){ .type = TYPE_BOOL, .truth = truth };
}

static inline struct route_value value_text(struct span text)
{
    return (struct route_value){ .type = TYPE_STRING, .text = text };
}

/* A number that is none is undefined. */
static inline struct route_value value_number(double number)
{
    if (number != number)
        return VALUE_UNDEFINED;
    return (struct route_value){ .type = TYPE_NUMBER, .number = number };
}

/* What a condition says of a message; only true routes it. */
enum route_verdict { VERDICT_UNDEFINED, VERDICT_FALSE, VERDICT_TRUE };
