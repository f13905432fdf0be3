/* A growing byte buffer that is written at the end and eaten from the front. {} is a valid empty one. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mem.h"
#include "span.h"

struct buf {
    char *data;
    size_t start; /* bytes eaten from the front */
    size_t end;   /* bytes written */
    size_t capacity;
};

void buf_done(struct buf *b); /* frees the memory; the buffer is empty and usable */
static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}
static inline struct span buf_span(const struct buf *b)
{
    return (struct span){ b->data ? b->data + b->start : NULL, b->end - b->start };
}

void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_span(struct buf *b, struct span s);
void buf_append_byte(struct buf *b, uint8_t byte);
void buf_append_be16(struct buf *b, uint16_t v);
void buf_append_be32(struct buf *b, uint32_t v);
void buf_append_be64(struct buf *b, uint64_t v);
int buf_printf(struct buf *b, const char *format, ...)
    _printf_(2, 3); /* returns the bytes appended */

/* Room for @len bytes at the end; commit says how many were written there. */
void *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);

void buf_eat(struct buf *b, size_t len); /* off the front */
void buf_trim(struct buf *b);            /* an empty buffer gives its memory back */

/* One write() of what is there; what was written is eaten. Returns bytes written, 0 when it would block, -errno. */
ssize_t buf_write(struct buf *b, int fd);
