/*
 * The grammar of routes (routing.md §2, §6). A condition becomes a list of nodes in postfix order
 * (left, right, operator), so neither checking nor compiling nor running it recurses; what recurses
 * is the parser, ROUTE_DEPTH_MAX deep.
 */
#pragma once

#include <stdint.h>

#include "route-value.h"

enum {
    ROUTE_TEXT_MAX = 32 * 1024, /* bytes of a route: as much as a whole twin */
    ROUTE_DEPTH_MAX = 100,      /* parentheses, calls and signs inside each other */
    ROUTE_QUEUE_MAX = 512,      /* bytes of an endpoint's queue name */
};

#define ROUTE_BODY_PREFIX "$body." /* in any case */

enum { ROUTE_E_INVALID = 1 }; /* parse_error says why */

enum node_kind {
    NODE_UNDEFINED, /* values */
    NODE_NULL,
    NODE_TRUE,
    NODE_FALSE,
    NODE_NUMBER,
    NODE_STRING,
    NODE_APPLICATION,
    NODE_SYSTEM,      /* $name: an application property of that name goes first */
    NODE_SYSTEM_ONLY, /* {$name} */
    NODE_BODY,        /* $body.path, told from NODE_SYSTEM by route_check() */
    NODE_BODY_ONLY,   /* {$body.path}, or one with brackets: never a property's name */
    NODE_CALL,        /* || is a call of concat() */
    NODE_NEGATE,      /* operators */
    NODE_NOT,
    NODE_MULTIPLY,
    NODE_DIVIDE,
    NODE_MODULO,
    NODE_ADD,
    NODE_SUBTRACT,
    NODE_LESS,
    NODE_LESS_EQUAL,
    NODE_GREATER,
    NODE_GREATER_EQUAL,
    NODE_EQUAL,
    NODE_NOT_EQUAL,
    NODE_AND,
    NODE_OR,
    NODE_COALESCE,
    _NODE_COUNT
};

struct route_function;

struct route_node {
    enum node_kind kind;
    size_t offset;    /* in the route's text */
    struct span text; /* of a name, or a literal without its quotes */
    double number;
    uint32_t left;  /* of an operator with two sides: the node that ends its left side */
    uint32_t count; /* arguments of a call */
    /* what route_check() finds out */
    enum route_type type;
    bool is_dynamic; /* an operator that works on a body value on either side */
    const struct route_function *function;
};

enum endpoint_kind { ENDPOINT_UPSTREAM, ENDPOINT_INPUT };

/* Spans are of the text that was parsed. */
struct route_syntax {
    char *source; /* its tokens, with nothing between */
    bool has_condition;
    struct route_node *nodes;
    uint32_t count, capacity;
    size_t stack_max; /* values at a time: route_check() */
    enum endpoint_kind sink;
    struct span module_id, input;
};

/* Syntax only. 0, or ROUTE_E_INVALID. */
int route_parse(struct span text, struct route_syntax *ret_syntax, struct parse_error *ret_error);
void route_syntax_done(struct route_syntax *syntax);

/* Types, names of functions, paths into the body: gives every node of the condition its type. 0,
 * or ROUTE_E_INVALID. */
int route_check(struct route_syntax *syntax, struct parse_error *ret_error);
