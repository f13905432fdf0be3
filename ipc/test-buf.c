#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "buf.h"

static void assert_buf(const struct buf *b, struct span want)
{
    assert_int_equal(buf_len(b), want.len);
    assert_true(span_equal(buf_span(b), want));
}

static void test_buf_append(void **state)
{
    struct buf b = {};

    assert_int_equal(buf_span(&b).len, 0);
    buf_append(&b, NULL, 0);
    buf_append_span(&b, SPAN("ab"));
    buf_append_byte(&b, 'c');
    buf_append_be16(&b, 0x0102);
    buf_append_be32(&b, 0x03040506);
    buf_append_be64(&b, UINT64_C(0x0708090a0b0c0d0e));
    assert_buf(&b, SPAN("abc\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"));
    buf_done(&b);
    assert_int_equal(b.capacity, 0);
    buf_append_byte(&b, 'x');
    assert_buf(&b, SPAN("x"));
    buf_done(&b);
}

static void test_buf_printf(void **state)
{
    struct buf b = {};

    assert_int_equal(buf_printf(&b, "%s-%d", "a", 7), 3);
    assert_int_equal(buf_printf(&b, "%s", ""), 0);
    assert_int_equal(buf_printf(&b, "%0300d", 1), 300);
    assert_int_equal(buf_len(&b), 303);
    assert_memory_equal(buf_span(&b).at, "a-7000", 6);
    buf_done(&b);
}

static void test_buf_reserve_commit(void **state)
{
    struct buf b = {};
    char *room = buf_reserve(&b, 1000);

    assert_non_null(room);
    memset(room, 'x', 1000);
    assert_int_equal(buf_len(&b), 0);
    buf_commit(&b, 10);
    assert_int_equal(buf_len(&b), 10);
    assert_non_null(buf_reserve(&b, 0));
    buf_done(&b);
}

/* What goes in comes out, whatever the sizes of the bites: against a plain counter. */
static void test_buf_eat_keeps_the_stream(void **state)
{
    struct buf b = {};
    uint8_t in = 0, out = 0;
    uint32_t random = 1;

    for (unsigned round = 0; round < 20000; round++) {
        size_t n;

        random = random * 1664525 + 1013904223;
        for (n = (random >> 16) % 50; n > 0; n--)
            buf_append_byte(&b, in++);
        for (n = (random >> 24) % 50; n > 0 && buf_len(&b) > 0; n--) {
            assert_int_equal((uint8_t)*buf_span(&b).at, out++);
            buf_eat(&b, 1);
        }
    }
    while (buf_len(&b) > 0) {
        assert_int_equal((uint8_t)*buf_span(&b).at, out++);
        buf_eat(&b, 1);
    }
    assert_int_equal(in, out);
    assert_true(b.capacity < 64 << 10); /* room is used again */
    buf_done(&b);
}

static void test_buf_trim(void **state)
{
    struct buf b = {};

    buf_append_span(&b, SPAN("abc"));
    buf_trim(&b);
    assert_buf(&b, SPAN("abc"));
    buf_eat(&b, 3);
    assert_int_equal(b.start, 0);
    buf_trim(&b);
    assert_null(b.data);
    buf_trim(&b);
}

static void test_buf_write(void **state)
{
    static char block[8192];
    struct buf b = {};
    char text[4];
    ssize_t n, sum = 0;
    int fds[2];

    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    assert_int_equal(buf_write(&b, fds[1]), 0);
    buf_append_span(&b, SPAN("abcd"));
    assert_int_equal(buf_write(&b, fds[1]), 4);
    assert_int_equal(buf_len(&b), 0);
    assert_int_equal(read(fds[0], text, 4), 4);
    assert_memory_equal(text, "abcd", 4);

    for (unsigned i = 0; i < 64; i++) /* more than a pipe takes */
        buf_append(&b, block, sizeof(block));
    while ((n = buf_write(&b, fds[1])) > 0)
        sum += n;
    assert_int_equal(n, 0);
    assert_int_equal(buf_len(&b), 64 * sizeof(block) - (size_t)sum);

    close(fds[0]);
    close(fds[1]);
    assert_int_equal(buf_write(&b, -1), -EBADF);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_append),         cmocka_unit_test(test_buf_printf),
        cmocka_unit_test(test_buf_reserve_commit), cmocka_unit_test(test_buf_eat_keeps_the_stream),
        cmocka_unit_test(test_buf_trim),           cmocka_unit_test(test_buf_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
