/* Values of AMQP 1.0: read with bounds, written in their shortest form. */
#include "amqp-codec.h"

#include <assert.h>
#include <string.h>

static uint64_t be(const char *at, size_t width)
{
    uint64_t v = 0;

    for (size_t n = 0; n < width; n++)
        v = v << 8 | (uint8_t)at[n];
    return v;
}

static bool take(struct span *in, size_t len, struct span *ret)
{
    if (in->len < len)
        return false;
    *ret = span_of(in->at, len);
    *in = span_of(in->at + len, in->len - len);
    return true;
}

static bool take_be(struct span *in, size_t width, uint64_t *ret)
{
    struct span s;

    if (!take(in, width, &s))
        return false;
    *ret = be(s.at, width);
    return true;
}

/* How the data after a constructor byte is to be read. The subcategory (high nibble) tells the width by itself, so a
 * constructor that is not in the table cannot be skipped wrongly: it is refused. */
enum form {
    FORM_NONE,
    FORM_EMPTY,
    FORM_UNSIGNED,
    FORM_SIGNED,
    FORM_RAW,
    FORM_FLOAT,
    FORM_VARIABLE,
    FORM_COMPOUND
};

struct constructor {
    enum form form;
    enum amqp_kind kind;
    uint8_t width;    /* of the value, or of its size and count fields */
    uint8_t constant; /* FORM_EMPTY */
};

static const struct constructor constructors[256] = {
    [0x40] = { FORM_EMPTY, AMQP_NULL, 0, 0 },      [0x41] = { FORM_EMPTY, AMQP_BOOL, 0, 1 },
    [0x42] = { FORM_EMPTY, AMQP_BOOL, 0, 0 },      [0x43] = { FORM_EMPTY, AMQP_UINT, 0, 0 },
    [0x44] = { FORM_EMPTY, AMQP_UINT, 0, 0 },      [0x45] = { FORM_EMPTY, AMQP_LIST, 0, 0 },
    [0x50] = { FORM_UNSIGNED, AMQP_UINT, 1, 0 },   [0x51] = { FORM_SIGNED, AMQP_INT, 1, 0 },
    [0x52] = { FORM_UNSIGNED, AMQP_UINT, 1, 0 },   [0x53] = { FORM_UNSIGNED, AMQP_UINT, 1, 0 },
    [0x54] = { FORM_SIGNED, AMQP_INT, 1, 0 },      [0x55] = { FORM_SIGNED, AMQP_INT, 1, 0 },
    [0x56] = { FORM_UNSIGNED, AMQP_BOOL, 1, 0 },   [0x60] = { FORM_UNSIGNED, AMQP_UINT, 2, 0 },
    [0x61] = { FORM_SIGNED, AMQP_INT, 2, 0 },      [0x70] = { FORM_UNSIGNED, AMQP_UINT, 4, 0 },
    [0x71] = { FORM_SIGNED, AMQP_INT, 4, 0 },      [0x72] = { FORM_FLOAT, AMQP_REAL, 4, 0 },
    [0x73] = { FORM_UNSIGNED, AMQP_CHAR, 4, 0 },   [0x74] = { FORM_RAW, AMQP_DECIMAL, 4, 0 },
    [0x80] = { FORM_UNSIGNED, AMQP_UINT, 8, 0 },   [0x81] = { FORM_SIGNED, AMQP_INT, 8, 0 },
    [0x82] = { FORM_FLOAT, AMQP_REAL, 8, 0 },      [0x83] = { FORM_SIGNED, AMQP_TIMESTAMP, 8, 0 },
    [0x84] = { FORM_RAW, AMQP_DECIMAL, 8, 0 },     [0x94] = { FORM_RAW, AMQP_DECIMAL, 16, 0 },
    [0x98] = { FORM_RAW, AMQP_UUID, 16, 0 },       [0xa0] = { FORM_VARIABLE, AMQP_BINARY, 1, 0 },
    [0xa1] = { FORM_VARIABLE, AMQP_STRING, 1, 0 }, [0xa3] = { FORM_VARIABLE, AMQP_SYMBOL, 1, 0 },
    [0xb0] = { FORM_VARIABLE, AMQP_BINARY, 4, 0 }, [0xb1] = { FORM_VARIABLE, AMQP_STRING, 4, 0 },
    [0xb3] = { FORM_VARIABLE, AMQP_SYMBOL, 4, 0 }, [0xc0] = { FORM_COMPOUND, AMQP_LIST, 1, 0 },
    [0xc1] = { FORM_COMPOUND, AMQP_MAP, 1, 0 },    [0xd0] = { FORM_COMPOUND, AMQP_LIST, 4, 0 },
    [0xd1] = { FORM_COMPOUND, AMQP_MAP, 4, 0 },    [0xe0] = { FORM_COMPOUND, AMQP_ARRAY, 1, 0 },
    [0xf0] = { FORM_COMPOUND, AMQP_ARRAY, 4, 0 },
};

static int64_t sign_extend(uint64_t v, size_t width)
{
    unsigned shift = (unsigned)(64 - 8 * width);

    return (int64_t)(v << shift) >> shift;
}

static bool read_float(struct span *in, size_t width, double *ret)
{
    uint64_t raw;
    uint32_t narrow;
    float f;

    if (!take_be(in, width, &raw))
        return false;
    if (width == 8) {
        memcpy(ret, &raw, sizeof(raw));
        return true;
    }
    narrow = (uint32_t)raw;
    memcpy(&f, &narrow, sizeof(f));
    *ret = (double)f;
    return true;
}

static bool read_variable(struct span *in, size_t width, struct amqp_value *ret)
{
    uint64_t size;

    return take_be(in, width, &size) && take(in, (size_t)size, &ret->bytes);
}

static bool read_compound(struct span *in, size_t width, struct amqp_value *ret)
{
    uint64_t count;

    if (!read_variable(in, width, ret) || !take_be(&ret->bytes, width, &count))
        return false;
    ret->count = (uint32_t)count;
    return ret->kind != AMQP_MAP || count % 2 == 0;
}

static bool read_bare(struct span *in, struct amqp_value *ret)
{
    const struct constructor *c;
    struct span code;
    uint64_t raw;

    if (!take(in, 1, &code))
        return false;
    c = &constructors[(uint8_t)code.at[0]];
    ret->kind = c->kind;
    switch (c->form) {
    case FORM_NONE:
        return false;
    case FORM_EMPTY:
        ret->u = c->constant;
        return true;
    case FORM_UNSIGNED:
        return take_be(in, c->width, &ret->u);
    case FORM_SIGNED:
        if (!take_be(in, c->width, &raw))
            return false;
        ret->i = sign_extend(raw, c->width);
        return true;
    case FORM_RAW:
        return take(in, c->width, &ret->bytes);
    case FORM_FLOAT:
        return read_float(in, c->width, &ret->real);
    case FORM_VARIABLE:
        return read_variable(in, c->width, ret);
    case FORM_COMPOUND:
        return read_compound(in, c->width, ret);
    }
    return false;
}

/* The descriptor of a described type: a number, or a symbol that we do not know. */
static bool read_descriptor(struct span *in, uint64_t *ret)
{
    struct amqp_value v = {};

    if (!read_bare(in, &v) || (v.kind != AMQP_UINT && v.kind != AMQP_SYMBOL))
        return false;
    *ret = v.kind == AMQP_UINT ? v.u : UINT64_MAX;
    return true;
}

bool amqp_read(struct span *in, struct amqp_value *ret)
{
    struct amqp_value v = {};
    struct span rest = *in;

    if (rest.len > 0 && rest.at[0] == 0) {
        rest = span_of(rest.at + 1, rest.len - 1);
        if (!read_descriptor(&rest, &v.descriptor))
            return false;
    }
    if (!read_bare(&rest, &v))
        return false;
    *in = rest;
    *ret = v;
    return true;
}

bool amqp_read_element(struct span *list, struct amqp_value *ret)
{
    if (list->len == 0) {
        *ret = (struct amqp_value){ .kind = AMQP_NULL };
        return true;
    }
    return amqp_read(list, ret);
}

void amqp_put_null(struct buf *out)
{
    buf_append_byte(out, 0x40);
}

void amqp_put_ulong(struct buf *out, uint64_t v)
{
    if (v == 0) {
        buf_append_byte(out, 0x44);
    } else if (v <= UINT8_MAX) {
        buf_append_byte(out, 0x53);
        buf_append_byte(out, (uint8_t)v);
    } else {
        buf_append_byte(out, 0x80);
        buf_append_be64(out, v);
    }
}

/* @code: of the form with a one-byte size; the other is 0x10 above it. */
static void put_variable(struct buf *out, uint8_t code, struct span s)
{
    assert(s.len <= UINT32_MAX);
    if (s.len <= UINT8_MAX) {
        buf_append_byte(out, code);
        buf_append_byte(out, (uint8_t)s.len);
    } else {
        buf_append_byte(out, (uint8_t)(code + 0x10));
        buf_append_be32(out, (uint32_t)s.len);
    }
    buf_append_span(out, s);
}

void amqp_put_string(struct buf *out, struct span s)
{
    put_variable(out, 0xa1, s);
}

void amqp_put_symbol(struct buf *out, struct span s)
{
    put_variable(out, 0xa3, s);
}

void amqp_put_binary(struct buf *out, struct span s)
{
    put_variable(out, 0xa0, s);
}

size_t amqp_variable_size(size_t len)
{
    return len + (len <= UINT8_MAX ? 2 : 5);
}

void amqp_put_descriptor(struct buf *out, uint8_t descriptor)
{
    buf_append_byte(out, 0x00);
    buf_append_byte(out, 0x53);
    buf_append_byte(out, descriptor);
}

static void put_compound(struct buf *out, uint8_t code, uint32_t count, size_t size)
{
    assert(size <= UINT32_MAX - 4);
    if (size < UINT8_MAX && count <= UINT8_MAX) { /* the size counts the count field too */
        buf_append_byte(out, code);
        buf_append_byte(out, (uint8_t)(size + 1));
        buf_append_byte(out, (uint8_t)count);
    } else {
        buf_append_byte(out, (uint8_t)(code + 0x10));
        buf_append_be32(out, (uint32_t)(size + 4));
        buf_append_be32(out, count);
    }
}

void amqp_put_list(struct buf *out, uint32_t count, size_t size)
{
    put_compound(out, 0xc0, count, size);
}

void amqp_put_map(struct buf *out, uint32_t count, size_t size)
{
    put_compound(out, 0xc1, count, size);
}
