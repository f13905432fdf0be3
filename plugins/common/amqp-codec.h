/*
 * AMQP 1.0 values on the wire (part 1 of the standard, "Types"): what a bounded parser of foreign bytes and a writer into
 * a buffer need, and no more. Pure. Compound values are given as the span of what they hold, so skipping one costs
 * nothing and nothing recurses.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "span.h"

enum amqp_kind {
    AMQP_NULL,
    AMQP_BOOL,      /* u: 0 or 1 */
    AMQP_UINT,      /* u: ubyte, ushort, uint, ulong */
    AMQP_INT,       /* i: byte, short, int, long */
    AMQP_REAL,      /* real: float, double */
    AMQP_CHAR,      /* u: a code point */
    AMQP_TIMESTAMP, /* i: milliseconds UTC */
    AMQP_UUID,      /* bytes: 16 */
    AMQP_DECIMAL,   /* bytes */
    AMQP_BINARY,    /* bytes */
    AMQP_STRING,    /* bytes; not checked for UTF-8 */
    AMQP_SYMBOL,    /* bytes */
    AMQP_LIST,      /* bytes: the elements; count */
    AMQP_MAP,       /* bytes: keys and values; count of both together */
    AMQP_ARRAY,     /* bytes: the constructor and the elements' data; count */
};

/* Section and performative descriptors that we look at. */
enum {
    AMQP_DESCRIPTOR_NONE = 0,
    AMQP_PERFORMATIVE_TRANSFER = 0x14,
    AMQP_PERFORMATIVE_DETACH = 0x16,
    AMQP_PERFORMATIVE_END = 0x17,
    AMQP_SASL_MECHANISMS = 0x40,
    AMQP_SASL_INIT = 0x41,
    AMQP_SASL_OUTCOME = 0x44,
    AMQP_SECTION_HEADER = 0x70,
    AMQP_SECTION_DELIVERY_ANNOTATIONS = 0x71,
    AMQP_SECTION_MESSAGE_ANNOTATIONS = 0x72,
    AMQP_SECTION_PROPERTIES = 0x73,
    AMQP_SECTION_APPLICATION_PROPERTIES = 0x74,
    AMQP_SECTION_DATA = 0x75,
    AMQP_SECTION_SEQUENCE = 0x76,
    AMQP_SECTION_VALUE = 0x77,
    AMQP_SECTION_FOOTER = 0x78,
};

struct amqp_value {
    enum amqp_kind kind;
    uint64_t descriptor; /* AMQP_DESCRIPTOR_NONE: not described; UINT64_MAX: by a symbol */
    uint64_t u;
    int64_t i;
    double real;
    struct span bytes; /* borrowed from the input */
    uint32_t count;
};

/* Takes one value off the front of @in. False, and @in untouched, when it is cut short or malformed. */
bool amqp_read(struct span *in, struct amqp_value *ret);
/* A list, or nothing at all (lists leave trailing nulls out): a missing element reads as AMQP_NULL. */
bool amqp_read_element(struct span *list, struct amqp_value *ret);

void amqp_put_null(struct buf *out);
void amqp_put_ulong(struct buf *out, uint64_t v);
void amqp_put_string(struct buf *out, struct span s);
void amqp_put_symbol(struct buf *out, struct span s);
void amqp_put_binary(struct buf *out, struct span s);
/* Bytes that amqp_put_string(), _symbol() and _binary() write for @len bytes. */
size_t amqp_variable_size(size_t len);
void amqp_put_descriptor(struct buf *out, uint8_t descriptor);
/* Before the elements, whose encoded size together is @size. Short form where it fits. */
void amqp_put_list(struct buf *out, uint32_t count, size_t size);
void amqp_put_map(struct buf *out, uint32_t count, size_t size);
