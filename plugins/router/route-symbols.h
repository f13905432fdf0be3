/* What the conditions of a set of routes look up in a message: each property and path is one
 * symbol, however many conditions name it, and is looked up once for a message. */
#pragma once

#include "names.h"
#include "route-body.h"
#include "route-functions.h"
#include "route-message.h"
#include "route-parser.h"

struct route_symbol {
    enum node_kind kind; /* one that stands for something in the message */
    struct span name;    /* with $ where the text has it */
    struct body_path path;
};

struct route_symbols {
    struct names names;
    struct route_symbol *items;
    uint32_t capacity;
};

void route_symbols_done(struct route_symbols *symbols);
/* @node: one that route_check() has passed. Returns the symbol's number. */
uint32_t route_symbols_add(struct route_symbols *symbols, const struct route_node *node);
static inline uint32_t route_symbols_count(const struct route_symbols *symbols)
{
    return symbols->names.count;
}

struct route_value route_symbol_value(const struct route_symbol *symbol,
                                      struct route_message *message, struct route_work *work);
