/* A body value that is of another type than an argument should be makes the result undefined, as
 * does an undefined value. */
#include "route-functions.h"

#include <math.h>

#include "mem.h"
#include "route-number.h"
#include "route-text.h"

#define TYPE(t) (1u << (t))

enum {
    NUMBER = TYPE(TYPE_NUMBER) | TYPE(TYPE_DYNAMIC),
    STRING = TYPE(TYPE_STRING) | TYPE(TYPE_DYNAMIC),
    BOOL = TYPE(TYPE_BOOL) | TYPE(TYPE_DYNAMIC),
    DYNAMIC = TYPE(TYPE_DYNAMIC),
    ANY = TYPE(_TYPE_COUNT) - 1,
};

static bool is_text(struct route_value v)
{
    return v.type == TYPE_STRING && v.text.at;
}

static bool is_number(struct route_value v)
{
    return v.type == TYPE_NUMBER;
}

/* Numbers */

#define DEFINE_MATH(name, expression)                                                              \
    static struct route_value name(struct route_work *work, const struct route_value *a, size_t n) \
    {                                                                                              \
        if (!is_number(a[0]))                                                                      \
            return VALUE_UNDEFINED;                                                                \
        double x = a[0].number;                                                                    \
        return value_number(expression);                                                           \
    }

DEFINE_MATH(fn_abs, fabs(x))
DEFINE_MATH(fn_ceiling, ceil(x))
DEFINE_MATH(fn_exp, exp(x))
DEFINE_MATH(fn_floor, floor(x))
DEFINE_MATH(fn_sign, isnan(x) ? x : (x > 0) - (x < 0))
DEFINE_MATH(fn_sqrt, sqrt(x))
DEFINE_MATH(fn_square, x *x)

static struct route_value fn_power(struct route_work *work, const struct route_value *a, size_t n)
{
    if (!is_number(a[0]) || !is_number(a[1]))
        return VALUE_UNDEFINED;
    return value_number(pow(a[0].number, a[1].number));
}

static struct route_value fn_as_number(struct route_work *work, const struct route_value *a,
                                       size_t n)
{
    if (is_number(a[0]))
        return value_number(a[0].number);
    return is_text(a[0]) ? value_number(number_parse(a[0].text)) : VALUE_UNDEFINED;
}

/* What a value is */

static struct route_value fn_is_defined(struct route_work *work, const struct route_value *a,
                                        size_t n)
{
    return value_bool(a[0].type != TYPE_UNDEFINED);
}

/* Of a body value it says the contrary of what one would think: whether it is anything but a
 * missing member (§7.8). */
static struct route_value fn_is_null_dynamic(struct route_work *work, const struct route_value *a,
                                             size_t n)
{
    if (a[0].type == TYPE_UNDEFINED)
        return VALUE_UNDEFINED;
    return value_bool(!a[0].is_missing);
}

static struct route_value fn_is_null(struct route_work *work, const struct route_value *a, size_t n)
{
    return value_bool(a[0].type == TYPE_NULL || (a[0].type == TYPE_STRING && !a[0].text.at));
}

static struct route_value fn_is_number(struct route_work *work, const struct route_value *a,
                                       size_t n)
{
    return value_bool(is_number(a[0]) && isfinite(a[0].number));
}

static struct route_value fn_is_string(struct route_work *work, const struct route_value *a,
                                       size_t n)
{
    return value_bool(is_text(a[0]));
}

static struct route_value fn_is_bool(struct route_work *work, const struct route_value *a, size_t n)
{
    return a[0].type == TYPE_UNDEFINED ? VALUE_UNDEFINED : value_bool(a[0].type == TYPE_BOOL);
}

static struct route_value fn_false(struct route_work *work, const struct route_value *a, size_t n)
{
    return value_bool(false);
}

/* Texts */

enum { TEXT_OVERHEAD_BYTES = 16 };

static char *text_make(struct route_work *work, size_t len)
{
    if (!work_spend(work, (len + TEXT_OVERHEAD_BYTES) * WORK_BYTE_MADE))
        return NULL;
    return arena_alloc(work->arena, len + 1);
}

static struct route_value fn_concat(struct route_work *work, const struct route_value *a, size_t n)
{
    size_t len = 0;
    char *text, *end;

    for (size_t i = 0; i < n; i++) {
        if (a[i].type != TYPE_STRING)
            return VALUE_UNDEFINED;
        len += a[i].text.len;
    }
    text = end = text_make(work, len);
    if (!text)
        return VALUE_UNDEFINED;
    for (size_t i = 0; i < n; i++)
        if (a[i].text.len > 0)
            end = mempcpy(end, a[i].text.at, a[i].text.len);
    return value_text(span_of(text, text_join(text, len)));
}

static struct route_value fn_length(struct route_work *work, const struct route_value *a, size_t n)
{
    return is_text(a[0]) ? value_number((double)text_units(a[0].text)) : VALUE_UNDEFINED;
}

static struct route_value map_text(struct route_work *work, struct route_value v, enum text_case to)
{
    char *text = is_text(v) ? text_make(work, TEXT_MAPPED_MAX(v.text.len)) : NULL;

    return text ? value_text(span_of(text, text_map(v.text, to, text))) : VALUE_UNDEFINED;
}

static struct route_value fn_lower(struct route_work *work, const struct route_value *a, size_t n)
{
    return map_text(work, a[0], TEXT_LOWER);
}

static struct route_value fn_upper(struct route_work *work, const struct route_value *a, size_t n)
{
    return map_text(work, a[0], TEXT_UPPER);
}

enum { HIGH_SURROGATES = 0xd800, LOW_SURROGATES = 0xdc00, PAIR_BYTES = 4 };

/* The half of the pair at @at that belongs to a cut: its first when the cut ends there, its
 * second when it begins there. */
static uint32_t half_of_pair(struct span s, size_t at, bool second)
{
    struct span rest = span_of(s.at + at, s.len - at);
    uint32_t c = text_next(&rest) - 0x10000;

    return second ? LOW_SURROGATES + (c & 0x3ff) : HIGH_SURROGATES + (c >> 10 & 0x3ff);
}

/* A cut through characters beyond U+FFFF: it has to be written anew, with their halves. */
static struct route_value cut_pairs(struct route_work *work, struct span s, size_t from,
                                    bool from_inside, size_t to, bool to_inside)
{
    char *text = text_make(work, to - from + 2 * TEXT_CHAR_BYTES_MAX);
    size_t len = 0;

    if (!text)
        return VALUE_UNDEFINED;
    if (from_inside) {
        len = text_put(half_of_pair(s, from, true), text);
        from += s.len - from < PAIR_BYTES ? s.len - from : PAIR_BYTES;
    }
    if (to > from) {
        memcpy(text + len, s.at + from, to - from);
        len += to - from;
    }
    if (to_inside)
        len += text_put(half_of_pair(s, to, false), text + len);
    return value_text(span_of(text, len));
}

static struct route_value cut_text(struct route_work *work, struct span s, size_t start,
                                   size_t units)
{
    bool from_inside, to_inside;
    size_t from = text_offset(s, start, &from_inside), to;

    if (units == 0)
        return value_text(SPAN(""));
    to = text_offset(s, start + units, &to_inside);
    if (from_inside || to_inside)
        return cut_pairs(work, s, from, from_inside, to, to_inside);
    return value_text(span_of(s.at + from, to - from));
}

static struct route_value fn_substring(struct route_work *work, const struct route_value *a,
                                       size_t n)
{
    double start, units;

    if (!is_text(a[0]) || !is_number(a[1]))
        return VALUE_UNDEFINED;
    start = a[1].number;
    units = (double)text_units(a[0].text);
    if (!(start >= 0 && start <= units))
        return VALUE_UNDEFINED;
    return cut_text(work, a[0].text, (size_t)start, (size_t)units - (size_t)start);
}

/* The original wants the start before the end here. */
static struct route_value fn_substring_length(struct route_work *work, const struct route_value *a,
                                              size_t n)
{
    double start, length, units;

    if (!is_text(a[0]) || !is_number(a[1]) || !is_number(a[2]))
        return VALUE_UNDEFINED;
    start = a[1].number;
    length = a[2].number;
    units = (double)text_units(a[0].text);
    if (!(start >= 0 && start < units && length >= 0 && length <= units - start))
        return VALUE_UNDEFINED;
    return cut_text(work, a[0].text, (size_t)start, (size_t)length);
}

/* Where one text is looked for in another. Units are what is compared: a part that is cut may be
 * found within a character, so then the characters are taken apart. */
struct lookup {
    struct span text, part;
};

static bool split_pairs(struct route_work *work, struct span *text)
{
    char *out = text_make(work, TEXT_MAPPED_MAX(text->len));

    if (!out)
        return false;
    *text = span_of(out, text_split(*text, out));
    return true;
}

/* False: the result is undefined. */
static bool lookup_init(struct lookup *lookup, struct route_work *work, const struct route_value *a)
{
    if (!is_text(a[0]) || !is_text(a[1]))
        return false;
    *lookup = (struct lookup){ a[0].text, a[1].text };
    return !text_is_cut(lookup->part) ||
           (split_pairs(work, &lookup->text) && split_pairs(work, &lookup->part));
}

static const char *lookup_find(const struct lookup *l)
{
    return l->part.len == 0 ? l->text.at : memmem(l->text.at, l->text.len, l->part.at, l->part.len);
}

static struct route_value fn_index_of(struct route_work *work, const struct route_value *a,
                                      size_t n)
{
    struct lookup l;
    const char *found;

    if (!lookup_init(&l, work, a))
        return VALUE_UNDEFINED;
    found = lookup_find(&l);
    if (!found)
        return value_number(-1);
    return value_number((double)text_units(span_of(l.text.at, (size_t)(found - l.text.at))));
}

static struct route_value fn_contains(struct route_work *work, const struct route_value *a,
                                      size_t n)
{
    struct lookup l;

    return lookup_init(&l, work, a) ? value_bool(lookup_find(&l)) : VALUE_UNDEFINED;
}

static struct route_value fn_starts_with(struct route_work *work, const struct route_value *a,
                                         size_t n)
{
    struct lookup l;

    return lookup_init(&l, work, a) ? value_bool(span_eat(&l.text, l.part)) : VALUE_UNDEFINED;
}

static struct route_value fn_ends_with(struct route_work *work, const struct route_value *a,
                                       size_t n)
{
    struct lookup l;
    size_t len;

    if (!lookup_init(&l, work, a))
        return VALUE_UNDEFINED;
    len = l.part.len;
    return value_bool(l.text.len >= len &&
                      span_equal(span_of(l.text.at + (l.text.len - len), len), l.part));
}

static const struct route_function functions[] = {
    { "abs", { NUMBER }, false, TYPE_NUMBER, fn_abs, "abs(number)" },
    { "ceiling", { NUMBER }, false, TYPE_NUMBER, fn_ceiling, "ceiling(number)" },
    { "exp", { NUMBER }, false, TYPE_NUMBER, fn_exp, "exp(number)" },
    { "floor", { NUMBER }, false, TYPE_NUMBER, fn_floor, "floor(number)" },
    { "sign", { NUMBER }, false, TYPE_NUMBER, fn_sign, "sign(number)" },
    { "sqrt", { NUMBER }, false, TYPE_NUMBER, fn_sqrt, "sqrt(number)" },
    { "square", { NUMBER }, false, TYPE_NUMBER, fn_square, "square(number)" },
    { "power", { NUMBER, NUMBER }, false, TYPE_NUMBER, fn_power, "power(number, number)" },
    { "as_number", { STRING | NUMBER }, false, TYPE_NUMBER, fn_as_number, "as_number(text)" },
    { "is_defined", { ANY }, false, TYPE_BOOL, fn_is_defined, "is_defined(value)" },
    { "is_null", { DYNAMIC }, false, TYPE_BOOL, fn_is_null_dynamic, "is_null(value)" },
    { "is_null", { ANY }, false, TYPE_BOOL, fn_is_null, "is_null(value)" },
    { "is_number", { ANY }, false, TYPE_BOOL, fn_is_number, "is_number(value)" },
    { "is_string", { ANY }, false, TYPE_BOOL, fn_is_string, "is_string(value)" },
    { "is_bool", { BOOL }, false, TYPE_BOOL, fn_is_bool, "is_bool(value)" },
    { "is_bool", { ANY }, false, TYPE_BOOL, fn_false, "is_bool(value)" },
    { "concat",
      { STRING, STRING },
      true,
      TYPE_STRING,
      fn_concat,
      "texts: concat(text, text, ...), or || between two" },
    { "length", { STRING }, false, TYPE_NUMBER, fn_length, "length(text)" },
    { "lower", { STRING }, false, TYPE_STRING, fn_lower, "lower(text)" },
    { "upper", { STRING }, false, TYPE_STRING, fn_upper, "upper(text)" },
    { "substring",
      { STRING, NUMBER },
      false,
      TYPE_STRING,
      fn_substring,
      "substring(text, start[, length])" },
    { "substring",
      { STRING, NUMBER, NUMBER },
      false,
      TYPE_STRING,
      fn_substring_length,
      "substring(text, start[, length])" },
    { "index_of", { STRING, STRING }, false, TYPE_NUMBER, fn_index_of, "index_of(text, part)" },
    { "starts_with",
      { STRING, STRING },
      false,
      TYPE_BOOL,
      fn_starts_with,
      "starts_with(text, start)" },
    { "ends_with", { STRING, STRING }, false, TYPE_BOOL, fn_ends_with, "ends_with(text, end)" },
    { "contains", { STRING, STRING }, false, TYPE_BOOL, fn_contains, "contains(text, part)" },
};

static bool function_takes(const struct route_function *f, const enum route_type *types,
                           size_t count)
{
    size_t arity = 0;

    while (arity < ROUTE_ARGUMENTS_MAX && f->takes[arity])
        arity++;
    if (f->repeats ? count < arity : count != arity)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!(f->takes[i < arity ? i : arity - 1] & TYPE(types[i])))
            return false;
    return true;
}

const struct route_function *function_find(struct span name, const enum route_type *types,
                                           size_t count, const char **ret_expected)
{
    *ret_expected = "the name of a function";
    for (size_t i = 0; i < ELEMENTSOF(functions); i++) {
        if (!span_equal_nocase(name, span_str(functions[i].name)))
            continue;
        *ret_expected = functions[i].usage;
        if (function_takes(&functions[i], types, count))
            return &functions[i];
    }
    return NULL;
}
