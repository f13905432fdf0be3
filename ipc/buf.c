#include "buf.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

enum { BUF_CAPACITY_MIN = 256 };

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){};
}

/* Moving what is left to the front must be paid for by at least as many bytes eaten, else a long
 * buffer that is eaten in small bites would be moved for each of them. */
static bool buf_compact(struct buf *b)
{
    if (b->start < buf_len(b))
        return false;
    memmove(b->data, b->data + b->start, buf_len(b));
    b->end -= b->start;
    b->start = 0;
    return true;
}

void *buf_reserve(struct buf *b, size_t len)
{
    size_t need;

    if (b->capacity - b->end >= len && b->data)
        return b->data + b->end;
    if (b->start > 0 && buf_compact(b) && b->capacity - b->end >= len)
        return b->data + b->end;
    if (__builtin_add_overflow(b->end, len, &need) || need > SIZE_MAX / 2)
        need = SIZE_MAX; /* the allocation fails, and says so */
    else if (need < b->capacity * 2)
        need = b->capacity * 2;
    if (need < BUF_CAPACITY_MIN)
        need = BUF_CAPACITY_MIN;
    b->data = xrealloc(b->data, need);
    b->capacity = need;
    return b->data + b->end;
}

void buf_commit(struct buf *b, size_t len)
{
    assert(len <= b->capacity - b->end);
    b->end += len;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0)
        return;
    memcpy(buf_reserve(b, len), data, len);
    buf_commit(b, len);
}

void buf_append_span(struct buf *b, struct span s)
{
    buf_append(b, s.at, s.len);
}

void buf_append_byte(struct buf *b, uint8_t byte)
{
    buf_append(b, &byte, 1);
}

void buf_append_be16(struct buf *b, uint16_t v)
{
    v = htobe16(v);
    buf_append(b, &v, sizeof(v));
}

void buf_append_be32(struct buf *b, uint32_t v)
{
    v = htobe32(v);
    buf_append(b, &v, sizeof(v));
}

void buf_append_be64(struct buf *b, uint64_t v)
{
    v = htobe64(v);
    buf_append(b, &v, sizeof(v));
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(n >= 0);
    buf_reserve(b, (size_t)n + 1); /* the NUL is written, but not part of it */
    va_start(args, format);
    vsnprintf(b->data + b->end, (size_t)n + 1, format, args);
    va_end(args);
    buf_commit(b, (size_t)n);
    return n;
}

void buf_eat(struct buf *b, size_t len)
{
    assert(len <= buf_len(b));
    b->start += len;
    if (b->start == b->end)
        b->start = b->end = 0;
}

void buf_trim(struct buf *b)
{
    if (buf_len(b) == 0)
        buf_done(b);
}

ssize_t buf_write(struct buf *b, int fd)
{
    ssize_t n;

    if (buf_len(b) == 0)
        return 0;
    do {
        n = write(fd, b->data + b->start, buf_len(b));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    buf_eat(b, (size_t)n);
    return n;
}
