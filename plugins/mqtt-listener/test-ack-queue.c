#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ack-queue.h"

static void assert_pops(struct ack_queue *q, uint16_t want)
{
    uint16_t id = 0;

    if (want == 0) {
        assert_false(ack_queue_pop(q, &id));
        return;
    }
    assert_true(ack_queue_pop(q, &id));
    assert_int_equal(id, want);
}

static void test_order(void **state)
{
    struct ack_queue q = {};

    assert_pops(&q, 0);
    ack_queue_push(&q, 1, true);
    ack_queue_push(&q, 2, false);
    ack_queue_push(&q, 3, true);
    assert_pops(&q, 0);
    ack_queue_commit(&q);
    assert_pops(&q, 1);
    assert_pops(&q, 2);
    assert_pops(&q, 0);
    ack_queue_push(&q, 0xffff, false);
    assert_pops(&q, 0);
    ack_queue_commit(&q);
    assert_pops(&q, 3);
    assert_pops(&q, 0xffff);
    assert_pops(&q, 0);
    ack_queue_done(&q);
}

/* It wraps around, and grows while it is wrapped. */
static void test_grow(void **state)
{
    struct ack_queue q = {};
    uint16_t pushed = 0, popped = 0;

    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 7; i++)
            ack_queue_push(&q, ++pushed, false);
        for (unsigned i = 0; i < 5; i++)
            assert_pops(&q, ++popped);
    }
    assert_int_equal(q.count, 400);
    while (popped < pushed)
        assert_pops(&q, ++popped);
    assert_pops(&q, 0);
    ack_queue_done(&q);
}

static void test_trim(void **state)
{
    struct ack_queue q = {};

    ack_queue_push(&q, 1, false);
    ack_queue_trim(&q);
    assert_int_equal(q.count, 1);
    assert_pops(&q, 1);
    ack_queue_trim(&q);
    assert_null(q.entries);
    ack_queue_push(&q, 2, false);
    assert_pops(&q, 2);
    ack_queue_done(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_trim),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
