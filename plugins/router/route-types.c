/* The types of a condition, worked out along its postfix order (routing.md §6.1): what does not
 * fit is refused here, not at run time. */
#include "mem.h"
#include "route-body.h"
#include "route-functions.h"
#include "route-parser.h"

/* The types of the values that a run would have on its stack. */
struct checker {
    enum route_type *types; /* place for one of each node: they cannot be more */
    size_t count, count_max;
    struct parse_error error;
};

static void push(struct checker *c, enum route_type type)
{
    c->types[c->count++] = type;
    if (c->count > c->count_max)
        c->count_max = c->count;
}

/* Operators. Each returns what was expected, or NULL and the type that results. */

typedef const char *operator_fn(enum route_type left, enum route_type right,
                                enum route_type *ret_type);

static bool is_or_dynamic(enum route_type type, enum route_type wanted)
{
    return type == wanted || type == TYPE_DYNAMIC;
}

static enum route_type dynamic_or(enum route_type left, enum route_type right, enum route_type type)
{
    return left == TYPE_DYNAMIC || right == TYPE_DYNAMIC ? TYPE_DYNAMIC : type;
}

static const char *check_arithmetic(enum route_type left, enum route_type right,
                                    enum route_type *ret_type)
{
    if (!is_or_dynamic(left, TYPE_NUMBER) || !is_or_dynamic(right, TYPE_NUMBER))
        return "numbers or body values on both sides (as_number() makes a number of a property)";
    *ret_type = dynamic_or(left, right, TYPE_NUMBER);
    return NULL;
}

static const char *check_modulo(enum route_type left, enum route_type right,
                                enum route_type *ret_type)
{
    if (left != TYPE_NUMBER || right != TYPE_NUMBER)
        return "numbers on both sides (as_number() makes one of a property or a body value)";
    *ret_type = TYPE_NUMBER;
    return NULL;
}

static bool is_comparable(enum route_type left, enum route_type right)
{
    if (left == TYPE_DYNAMIC || right == TYPE_DYNAMIC)
        return left != TYPE_UNDEFINED && right != TYPE_UNDEFINED;
    return left == right;
}

static const char *check_comparison(enum route_type left, enum route_type right,
                                    enum route_type *ret_type)
{
    if (!is_comparable(left, right))
        return "the same type on both sides (a property is a text: compare it with '5', or "
               "as_number() of it with 5)";
    *ret_type = TYPE_BOOL;
    return NULL;
}

static const char *check_coalesce(enum route_type left, enum route_type right,
                                  enum route_type *ret_type)
{
    if (!is_comparable(left, right))
        return "the same type on both sides of ??";
    *ret_type = dynamic_or(left, right, left);
    return NULL;
}

/* The original's accidents are kept (§7.8): a body value may stand on the right only if there is
 * one on the left, and null goes with neither an undefined literal nor, in AND, a body value. */
static bool are_logical(enum route_type left, enum route_type right, bool is_and)
{
    if (left == TYPE_DYNAMIC)
        return right != TYPE_NULL || !is_and;
    if (left == TYPE_STRING || left == TYPE_NUMBER)
        return false;
    if (right != TYPE_BOOL && right != TYPE_NULL && right != TYPE_UNDEFINED)
        return false;
    return !(left == TYPE_NULL && right == TYPE_UNDEFINED) &&
           !(left == TYPE_UNDEFINED && right == TYPE_NULL);
}

static const char *check_and(enum route_type left, enum route_type right, enum route_type *ret_type)
{
    if (!are_logical(left, right, true))
        return "conditions on both sides of AND (for a body value write: $body.x = true)";
    *ret_type = left == TYPE_NULL || right == TYPE_NULL ? TYPE_NULL : TYPE_BOOL;
    return NULL;
}

static const char *check_or(enum route_type left, enum route_type right, enum route_type *ret_type)
{
    if (!are_logical(left, right, false))
        return "conditions on both sides of OR (for a body value write: $body.x = true)";
    *ret_type = left == TYPE_NULL && right == TYPE_NULL ? TYPE_NULL : TYPE_BOOL;
    return NULL;
}

static const char *check_negate(enum route_type type, enum route_type unused,
                                enum route_type *ret_type)
{
    if (type != TYPE_NUMBER)
        return "a number after the - (of a body value, 0 - $body.x)";
    *ret_type = TYPE_NUMBER;
    return NULL;
}

static const char *check_not(enum route_type type, enum route_type unused,
                             enum route_type *ret_type)
{
    if (type != TYPE_BOOL && type != TYPE_NULL && type != TYPE_DYNAMIC)
        return "a condition after NOT, which binds tighter than = and AND: NOT (a = 'x')";
    *ret_type = TYPE_BOOL;
    return NULL;
}

static const struct {
    operator_fn *check;
    unsigned sides;
} operators[_NODE_COUNT] = {
    [NODE_NEGATE] = { check_negate, 1 },
    [NODE_NOT] = { check_not, 1 },
    [NODE_MULTIPLY] = { check_arithmetic, 2 },
    [NODE_DIVIDE] = { check_arithmetic, 2 },
    [NODE_MODULO] = { check_modulo, 2 },
    [NODE_ADD] = { check_arithmetic, 2 },
    [NODE_SUBTRACT] = { check_arithmetic, 2 },
    [NODE_LESS] = { check_comparison, 2 },
    [NODE_LESS_EQUAL] = { check_comparison, 2 },
    [NODE_GREATER] = { check_comparison, 2 },
    [NODE_GREATER_EQUAL] = { check_comparison, 2 },
    [NODE_EQUAL] = { check_comparison, 2 },
    [NODE_NOT_EQUAL] = { check_comparison, 2 },
    [NODE_AND] = { check_and, 2 },
    [NODE_OR] = { check_or, 2 },
    [NODE_COALESCE] = { check_coalesce, 2 },
};

static bool check_operator(struct checker *c, struct route_node *node)
{
    unsigned sides = operators[node->kind].sides;
    enum route_type left = c->types[c->count - sides], right = c->types[c->count - 1];
    const char *expected = operators[node->kind].check(left, right, &node->type);

    if (expected) {
        c->error = (struct parse_error){ node->offset, expected };
        return false;
    }
    node->is_dynamic = left == TYPE_DYNAMIC || right == TYPE_DYNAMIC;
    c->count -= sides;
    return true;
}

/* Names and calls */

static bool check_call(struct checker *c, struct route_node *node)
{
    const char *expected;

    c->count -= node->count;
    node->function = function_find(node->text, c->types + c->count, node->count, &expected);
    if (!node->function) {
        c->error = (struct parse_error){ node->offset, expected };
        return false;
    }
    node->type = node->function->gives;
    return true;
}

static bool has_brackets(struct span name)
{
    return memchr(name.at, '[', name.len) || memchr(name.at, ']', name.len);
}

static bool check_path(struct checker *c, struct route_node *node, struct span path)
{
    struct body_path parsed;
    struct parse_error error;

    if (body_path_parse(path, &parsed, &error) != 0) {
        c->error = (struct parse_error){ node->offset + (node->text.len - path.len) + error.offset,
                                         error.expected };
        return false;
    }
    body_path_done(&parsed);
    node->type = TYPE_DYNAMIC;
    return true;
}

static bool check_system_name(struct checker *c, struct route_node *node)
{
    bool escaped = node->kind == NODE_SYSTEM_ONLY, brackets = has_brackets(node->text);
    struct span path = node->text;

    if (span_eat_nocase(&path, SPAN(ROUTE_BODY_PREFIX))) {
        node->kind = escaped || brackets ? NODE_BODY_ONLY : NODE_BODY;
        return check_path(c, node, path);
    }
    if (brackets)
        node->kind = NODE_UNDEFINED; /* no property has such a name */
    node->type = brackets ? TYPE_UNDEFINED : TYPE_STRING;
    return true;
}

static bool check_node(struct checker *c, struct route_node *node)
{
    static const enum route_type types[_NODE_COUNT] = {
        [NODE_UNDEFINED] = TYPE_UNDEFINED, [NODE_NULL] = TYPE_NULL,     [NODE_TRUE] = TYPE_BOOL,
        [NODE_FALSE] = TYPE_BOOL,          [NODE_NUMBER] = TYPE_NUMBER, [NODE_STRING] = TYPE_STRING,
        [NODE_APPLICATION] = TYPE_STRING,
    };

    if (operators[node->kind].check)
        return check_operator(c, node);
    if (node->kind == NODE_CALL)
        return check_call(c, node);
    if (node->kind == NODE_SYSTEM || node->kind == NODE_SYSTEM_ONLY)
        return check_system_name(c, node);
    node->type = types[node->kind];
    return true;
}

int route_check(struct route_syntax *syntax, struct parse_error *ret_error)
{
    struct checker checker = { .types = xnew_n(enum route_type, (size_t)syntax->count + 1) };
    bool valid = true;

    for (uint32_t i = 0; i < syntax->count && valid; i++) {
        valid = check_node(&checker, &syntax->nodes[i]);
        if (valid)
            push(&checker, syntax->nodes[i].type);
    }
    syntax->stack_max = checker.count_max;
    free(checker.types);
    if (!valid)
        *ret_error = checker.error;
    return valid ? 0 : ROUTE_E_INVALID;
}
