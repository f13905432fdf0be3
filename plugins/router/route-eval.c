#include "route-eval.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>

#include "route-text.h"

/* Programs */

/* Operators and calls are instructions under the name of their node; these come in addition. */
enum {
    OP_CONSTANT = _NODE_COUNT,
    OP_SYMBOL,
    OP_POP,
    /* Look at the value on top and leave it there. */
    OP_JUMP_IF_FALSE,
    OP_JUMP_IF_TRUE,
    OP_JUMP_IF_DEFINED,
};

struct instruction {
    uint8_t op;
    bool is_dynamic;
    uint32_t number; /* of a symbol, of arguments, of the instruction to jump to */
    union {
        const struct route_value *constant;
        const struct route_function *function;
    };
};

/* One piece of memory: the instructions, then the constants, then their texts. */
struct route_program {
    uint32_t count;
    struct instruction instructions[];
};

/* Strings */

static bool hex_at(struct span s, size_t at, uint32_t *ret_value)
{
    uint32_t value = 0;

    if (s.len < at + 6 || s.at[at] != '\\' || tolower(s.at[at + 1]) != 'u')
        return false;
    for (size_t i = at + 2; i < at + 6; i++) {
        int c = (unsigned char)s.at[i];

        if (!isxdigit(c))
            return false;
        value = value << 4 | (uint32_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    *ret_value = value;
    return true;
}

static size_t unescape_unicode(struct span s, char *out)
{
    size_t len = 0;

    for (size_t i = 0; i < s.len;) {
        uint32_t c, low;

        if (!hex_at(s, i, &c)) {
            out[len++] = s.at[i++];
            continue;
        }
        i += 6;
        if (c >= 0xd800 && c < 0xdc00 && hex_at(s, i, &low) && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
            i += 6;
        }
        len += text_put(c, out + len);
    }
    return len;
}

/* First \uXXXX, then the others, in what that gave: so the original does. */
static struct span unescape(struct span s, char *out)
{
    size_t from = unescape_unicode(s, out), len = 0;

    for (size_t i = 0; i < from; i++) {
        if (out[i] == '\\' && i + 1 < from && strchr("\"'\\", out[i + 1]))
            i++;
        out[len++] = out[i];
    }
    return span_of(out, len);
}

/* Compiling */

struct compiler {
    const struct route_syntax *syntax;
    struct route_symbols *symbols;
    struct route_program *program;
    struct route_value *constants; /* free ones */
    char *texts;
    uint32_t *skipper; /* by node: the operator that may skip what follows it; 0: none */
    uint32_t *jump;    /* by operator: its jump */
};

static struct instruction *emit(struct compiler *c, int op)
{
    struct instruction *i = &c->program->instructions[c->program->count++];

    *i = (struct instruction){ .op = (uint8_t)op };
    return i;
}

static void emit_constant(struct compiler *c, struct route_value value)
{
    *c->constants = value;
    emit(c, OP_CONSTANT)->constant = c->constants++;
}

static void emit_string(struct compiler *c, const struct route_node *node)
{
    struct span text = unescape(node->text, c->texts);

    c->texts += text.len;
    emit_constant(c, value_text(text));
}

static void emit_operator(struct compiler *c, const struct route_node *node)
{
    struct instruction *i = emit(c, (int)node->kind);

    i->is_dynamic = node->is_dynamic;
    i->function = node->function;
    i->number = node->count;
}

static void emit_node(struct compiler *c, const struct route_node *node)
{
    switch (node->kind) {
    case NODE_UNDEFINED:
        emit_constant(c, VALUE_UNDEFINED);
        break;
    case NODE_NULL:
        emit_constant(c, VALUE_NULL);
        break;
    case NODE_TRUE:
    case NODE_FALSE:
        emit_constant(c, value_bool(node->kind == NODE_TRUE));
        break;
    case NODE_NUMBER:
        emit_constant(c, value_number(node->number));
        break;
    case NODE_STRING:
        emit_string(c, node);
        break;
    case NODE_APPLICATION:
    case NODE_SYSTEM:
    case NODE_SYSTEM_ONLY:
    case NODE_BODY:
    case NODE_BODY_ONLY:
        emit(c, OP_SYMBOL)->number = route_symbols_add(c->symbols, node);
        break;
    case NODE_COALESCE:
        break; /* it is only a jump */
    default:
        emit_operator(c, node);
    }
}

/* Which of AND, OR and ?? need not look at their right side for some values on their left: 0 for
 * none. With body values AND and OR want both sides to be bool, and null has a logic of its own. */
static int skip_op(const struct route_syntax *syntax, uint32_t at)
{
    const struct route_node *node = &syntax->nodes[at];
    enum route_type left = syntax->nodes[node->left].type, right = syntax->nodes[at - 1].type;

    if (node->kind == NODE_COALESCE)
        return OP_JUMP_IF_DEFINED;
    if (node->is_dynamic || left == TYPE_NULL || right == TYPE_NULL)
        return 0;
    return node->kind == NODE_AND ? OP_JUMP_IF_FALSE : OP_JUMP_IF_TRUE;
}

static bool is_logical(enum node_kind kind)
{
    return kind == NODE_AND || kind == NODE_OR || kind == NODE_COALESCE;
}

static void compile(struct compiler *c)
{
    const struct route_syntax *s = c->syntax;

    for (uint32_t i = 0; i < s->count; i++)
        if (is_logical(s->nodes[i].kind) && skip_op(s, i) != 0)
            c->skipper[s->nodes[i].left] = i;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t skipper = c->skipper[i];

        emit_node(c, &s->nodes[i]);
        if (c->jump[i] > 0)
            c->program->instructions[c->jump[i]].number = c->program->count;
        if (skipper == 0)
            continue;
        c->jump[skipper] = c->program->count;
        emit(c, skip_op(s, skipper));
        if (s->nodes[skipper].kind == NODE_COALESCE)
            emit(c, OP_POP);
    }
}

struct route_program *route_program_new(const struct route_syntax *syntax,
                                        struct route_symbols *symbols)
{
    /* At most a jump and a pop with each node. */
    size_t instructions = 3 * (size_t)syntax->count, texts = 0;
    size_t head = sizeof(struct route_program) + instructions * sizeof(struct instruction);
    size_t constants = syntax->count * sizeof(struct route_value);
    _cleanup_(freep) uint32_t *tables = xnew_n(uint32_t, 2 * (size_t)syntax->count);
    struct compiler c = { .syntax = syntax, .symbols = symbols };

    for (uint32_t i = 0; i < syntax->count; i++)
        if (syntax->nodes[i].kind == NODE_STRING)
            texts += syntax->nodes[i].text.len;
    c.program = xalloc0(head + constants + texts);
    c.constants = (struct route_value *)((char *)c.program + head);
    c.texts = (char *)c.program + head + constants;
    c.skipper = tables;
    c.jump = tables + syntax->count;
    compile(&c);
    assert(c.program->count <= instructions);
    return c.program;
}

struct route_program *route_program_free(struct route_program *program)
{
    free(program);
    return NULL;
}

/* Values */

static bool is_bool(struct route_value v, bool truth)
{
    return v.type == TYPE_BOOL && v.truth == truth;
}

/* A body value may come out as a NaN that is not undefined, and smaller than all numbers: so it
 * does in the original. */
static struct route_value arithmetic(const struct instruction *i, struct route_value left,
                                     struct route_value right)
{
    double a, b, result;

    if (left.type != TYPE_NUMBER || right.type != TYPE_NUMBER)
        return VALUE_UNDEFINED;
    a = left.number;
    b = right.number;
    switch (i->op) {
    case NODE_MULTIPLY:
        result = a * b;
        break;
    case NODE_DIVIDE:
        result = a / b;
        break;
    case NODE_MODULO:
        result = fmod(a, b);
        break;
    case NODE_ADD:
        result = a + b;
        break;
    default:
        result = a - b;
    }
    if (i->is_dynamic)
        return (struct route_value){ .type = TYPE_NUMBER, .number = result };
    return value_number(result);
}

static int compare_numbers(double a, double b)
{
    if (isnan(a) || isnan(b))
        return (int)isnan(b) - (int)isnan(a);
    return (a > b) - (a < b);
}

static int compare_texts(struct span a, struct span b)
{
    if (!a.at || !b.at)
        return (a.at != NULL) - (b.at != NULL);
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0 ? 0 : text_compare(a, b);
}

static int compare_values(struct route_value a, struct route_value b)
{
    if (a.type != b.type)
        return a.type < b.type ? -1 : 1;
    switch (a.type) {
    case TYPE_BOOL:
        return a.truth - b.truth;
    case TYPE_NUMBER:
        return compare_numbers(a.number, b.number);
    case TYPE_STRING:
        return compare_texts(a.text, b.text);
    default:
        return 0;
    }
}

/* Can nothing be said of it? A property without a text is comparable to body values only. */
static bool is_incomparable(const struct instruction *i, struct route_value v)
{
    return v.type == TYPE_UNDEFINED || (!i->is_dynamic && v.type == TYPE_STRING && !v.text.at);
}

static struct route_value comparison(const struct instruction *i, struct route_value left,
                                     struct route_value right)
{
    int order;

    if (is_incomparable(i, left) || is_incomparable(i, right))
        return VALUE_UNDEFINED;
    order = compare_values(left, right);
    switch (i->op) {
    case NODE_LESS:
        return value_bool(order < 0);
    case NODE_LESS_EQUAL:
        return value_bool(order <= 0);
    case NODE_GREATER:
        return value_bool(order > 0);
    case NODE_GREATER_EQUAL:
        return value_bool(order >= 0);
    case NODE_EQUAL:
        return value_bool(order == 0);
    default:
        return value_bool(order != 0);
    }
}

/* Three-valued (Kleene), but with body values, and but for null. */
static struct route_value logic(const struct instruction *i, struct route_value left,
                                struct route_value right)
{
    bool is_and = i->op == NODE_AND, decides = !is_and;

    if (i->is_dynamic) {
        if (left.type != TYPE_BOOL || right.type != TYPE_BOOL)
            return VALUE_UNDEFINED;
        return value_bool(is_and ? left.truth && right.truth : left.truth || right.truth);
    }
    if (left.type == TYPE_NULL || right.type == TYPE_NULL)
        return is_and ? VALUE_NULL : left.type == TYPE_NULL ? right : left;
    if (is_bool(left, decides) || is_bool(right, decides))
        return value_bool(decides);
    return left.type == TYPE_BOOL && right.type == TYPE_BOOL ? value_bool(!decides)
                                                             : VALUE_UNDEFINED;
}

static struct route_value negation(const struct instruction *i, struct route_value v)
{
    if (v.type == TYPE_BOOL)
        return value_bool(!v.truth);
    return v.type == TYPE_NULL && !i->is_dynamic ? value_bool(true) : VALUE_UNDEFINED;
}

static struct route_value binary(const struct instruction *i, struct route_value left,
                                 struct route_value right)
{
    switch (i->op) {
    case NODE_AND:
    case NODE_OR:
        return logic(i, left, right);
    case NODE_MULTIPLY:
    case NODE_DIVIDE:
    case NODE_MODULO:
    case NODE_ADD:
    case NODE_SUBTRACT:
        return arithmetic(i, left, right);
    default:
        return comparison(i, left, right);
    }
}

/* Running */

struct known_value {
    struct route_value value;
    uint32_t turn; /* the message it was looked up in */
};

void route_eval_init(struct route_eval *eval, const struct route_symbols *symbols, size_t stack_max)
{
    *eval = (struct route_eval){
        .symbols = symbols,
        .work.arena = arena_new(),
        .stack = xnew_n(struct route_value, stack_max),
        .known = xnew_n(struct known_value, route_symbols_count(symbols)),
    };
}

void route_eval_done(struct route_eval *eval)
{
    arena_free(eval->work.arena);
    free(eval->stack);
    free(eval->known);
    *eval = (struct route_eval){};
}

void route_eval_begin(struct route_eval *eval, struct route_message *message)
{
    if (++eval->turn == 0) { /* after four milliards of messages a value could seem known */
        memset(eval->known, 0, route_symbols_count(eval->symbols) * sizeof(eval->known[0]));
        eval->turn = 1;
    }
    eval->message = message;
    eval->work.left = ROUTE_WORK_MAX;
    route_message_begin(message, eval->work.arena);
}

bool route_eval_end(struct route_eval *eval)
{
    route_message_end(eval->message);
    eval->message = NULL;
    arena_reset(eval->work.arena);
    return eval->work.left >= 0;
}

static struct route_value symbol_value(struct route_eval *eval, uint32_t number)
{
    struct known_value *known = &eval->known[number];

    if (known->turn != eval->turn) {
        known->value =
            route_symbol_value(&eval->symbols->items[number], eval->message, &eval->work);
        known->turn = eval->turn;
    }
    return known->value;
}

static bool spend_on_texts(struct route_eval *eval, const struct route_value *values, size_t count)
{
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++)
        if (values[i].type == TYPE_STRING)
            bytes += values[i].text.len;
    return work_spend(&eval->work, bytes);
}

static bool has_to_jump(const struct instruction *i, struct route_value top)
{
    switch (i->op) {
    case OP_JUMP_IF_FALSE:
        return is_bool(top, false);
    case OP_JUMP_IF_TRUE:
        return is_bool(top, true);
    default:
        return top.type != TYPE_UNDEFINED;
    }
}

static struct route_value run(const struct route_program *program, struct route_eval *eval)
{
    struct route_value *top = eval->stack; /* the next free one */

    for (uint32_t at = 0; at < program->count; at++) {
        const struct instruction *i = &program->instructions[at];

        if (!work_spend(&eval->work, WORK_STEP))
            return VALUE_UNDEFINED;
        switch (i->op) {
        case OP_CONSTANT:
            *top++ = *i->constant;
            break;
        case OP_SYMBOL:
            *top++ = symbol_value(eval, i->number);
            break;
        case OP_POP:
            top--;
            break;
        case OP_JUMP_IF_FALSE:
        case OP_JUMP_IF_TRUE:
        case OP_JUMP_IF_DEFINED:
            if (has_to_jump(i, top[-1]))
                at = i->number - 1;
            break;
        case NODE_CALL:
            top -= i->number;
            if (!spend_on_texts(eval, top, i->number))
                return VALUE_UNDEFINED;
            *top = i->function->fn(&eval->work, top, i->number);
            top++;
            break;
        case NODE_NEGATE:
            if (top[-1].type == TYPE_NUMBER)
                top[-1].number = -top[-1].number;
            break;
        case NODE_NOT:
            top[-1] = negation(i, top[-1]);
            break;
        default:
            top--;
            if (!spend_on_texts(eval, top - 1, 2))
                return VALUE_UNDEFINED;
            top[-1] = binary(i, top[-1], top[0]);
        }
    }
    return top[-1];
}

enum route_verdict route_program_run(const struct route_program *program, struct route_eval *eval)
{
    struct route_value value = run(program, eval);

    if (eval->work.left < 0 || value.type == TYPE_UNDEFINED)
        return VERDICT_UNDEFINED;
    if (value.type == TYPE_BOOL)
        return value.truth ? VERDICT_TRUE : VERDICT_FALSE;
    return value.type == TYPE_NULL ? VERDICT_FALSE : VERDICT_UNDEFINED;
}
