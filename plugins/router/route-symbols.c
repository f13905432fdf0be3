#include "route-symbols.h"

#include <assert.h>

void route_symbols_done(struct route_symbols *symbols)
{
    for (uint32_t i = 0; i < symbols->names.count; i++)
        body_path_done(&symbols->items[i].path);
    free(symbols->items);
    names_done(&symbols->names);
    *symbols = (struct route_symbols){};
}

static void path_parse(struct span name, struct body_path *ret_path)
{
    struct parse_error error;
    int r;

    span_eat_nocase(&name, SPAN(ROUTE_BODY_PREFIX));
    r = body_path_parse(name, ret_path, &error);
    assert(r == 0); /* route_check() has seen it */
}

uint32_t route_symbols_add(struct route_symbols *symbols, const struct route_node *node)
{
    /* The same name in another role is another symbol. */
    _cleanup_(freep) char *key =
        xasprintf("%c%.*s", 'A' + (int)node->kind, (int)node->text.len, node->text.at);
    bool is_new;
    uint32_t number;
    struct route_symbol *symbol;

    number = names_add(&symbols->names, span_str(key), &is_new);
    if (!is_new)
        return number;
    xgrow(symbols->items, number, symbols->capacity);
    symbol = &symbols->items[number];
    *symbol = (struct route_symbol){ .kind = node->kind,
                                     .name = span_str(symbols->names.items[number].text + 1) };
    if (node->kind == NODE_BODY || node->kind == NODE_BODY_ONLY)
        path_parse(symbol->name, &symbol->path);
    return number;
}

enum { WORK_LOOK = 16 };

/* @looked_at: names that were compared with one of @len bytes. */
static struct route_value paid(struct route_value value, size_t looked_at, size_t len,
                               struct route_work *work)
{
    return work_spend(work, looked_at * (WORK_LOOK + len)) ? value : VALUE_UNDEFINED;
}

static struct route_value application(struct route_message *message, struct span name,
                                      struct route_work *work)
{
    size_t looked_at;
    struct route_value value = route_message_application(message, name, &looked_at);

    return paid(value, looked_at, name.len, work);
}

static struct route_value system_property(struct route_message *message, struct span name,
                                          struct route_work *work)
{
    struct span key = span_of(name.at + 1, name.len - 1); /* without its $ */
    size_t looked_at;
    struct route_value value = route_message_system(message, key, &looked_at);

    return paid(value, looked_at, name.len, work);
}

static struct route_value body_value(const struct route_symbol *symbol,
                                     struct route_message *message, struct route_work *work)
{
    size_t looked_at;
    struct route_value value = body_find(route_message_body(message), &symbol->path, &looked_at);

    return paid(value, looked_at, 0, work);
}

struct route_value route_symbol_value(const struct route_symbol *symbol,
                                      struct route_message *message, struct route_work *work)
{
    struct route_value value = VALUE_UNDEFINED;

    if (symbol->kind != NODE_SYSTEM_ONLY && symbol->kind != NODE_BODY_ONLY)
        value = application(message, symbol->name, work);
    if (value.type != TYPE_UNDEFINED || symbol->kind == NODE_APPLICATION)
        return value;
    if (symbol->kind == NODE_SYSTEM || symbol->kind == NODE_SYSTEM_ONLY)
        return system_property(message, symbol->name, work);
    return body_value(symbol, message, work);
}
