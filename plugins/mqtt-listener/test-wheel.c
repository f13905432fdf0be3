#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "wheel.h"

static const uint64_t SEC = 1000000, START = 5000 * UINT64_C(1000000) + 300000;

static unsigned pop_all(struct wheel *w, uint64_t now)
{
    struct wheel_entry *entry;
    unsigned n = 0;

    while ((entry = wheel_pop(w, now))) {
        assert_true(entry->due_usec <= now);
        assert_null(entry->next);
        n++;
    }
    return n;
}

static void test_due(void **state)
{
    struct wheel_entry soon = {}, later = {}, past = {};
    struct wheel w;

    wheel_init(&w, START);
    wheel_set(&w, &soon, START + SEC / 2);
    wheel_set(&w, &later, START + 90 * SEC);
    wheel_set(&w, &past, START - 10 * SEC);
    assert_ptr_equal(wheel_pop(&w, START), &past);
    assert_null(wheel_pop(&w, START));
    assert_null(wheel_pop(&w, START + SEC / 2 - 1));
    assert_ptr_equal(wheel_pop(&w, START + SEC / 2), &soon);
    assert_int_equal(pop_all(&w, START + 90 * SEC - 1), 0);
    assert_int_equal(pop_all(&w, START + 90 * SEC), 1);
}

static void test_move_and_remove(void **state)
{
    struct wheel_entry a = {}, b = {};
    struct wheel w;

    wheel_init(&w, START);
    wheel_set(&w, &a, START + 10 * SEC);
    wheel_set(&w, &b, START + 10 * SEC);
    wheel_set(&w, &a, START + 2 * SEC);
    wheel_remove(&b);
    wheel_remove(&b);
    assert_int_equal(pop_all(&w, START + 2 * SEC), 1);
    assert_int_equal(pop_all(&w, START + 100 * SEC), 0);
}

/* Further away than the wheel is round, and a clock that jumped (the machine slept). */
static void test_far_away(void **state)
{
    const uint64_t round = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_USEC;
    struct wheel_entry far = {}, never = {}, near = {};
    struct wheel w;

    wheel_init(&w, START);
    wheel_set(&w, &far, START + 3 * round);
    wheel_set(&w, &never, UINT64_MAX);
    wheel_set(&w, &near, START + SEC);
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(pop_all(&w, START + i * round), i == 1);
    assert_int_equal(pop_all(&w, START + 3 * round), 1);
    wheel_set(&w, &near, START + 4 * round);
    assert_int_equal(pop_all(&w, START + 50 * round), 1);
    wheel_remove(&never);
}

/* Whatever the times are, each fires once, and not before it is due. */
static void test_many(void **state)
{
    static struct wheel_entry entries[5000];
    unsigned fired = 0, random = 1;
    struct wheel w;

    wheel_init(&w, START);
    for (size_t i = 0; i < ELEMENTSOF(entries); i++) {
        random = random * 1103515245 + 12345;
        wheel_set(&w, &entries[i], START + (random >> 8) % (2000 * SEC));
    }
    for (unsigned sec = 1; sec <= 2000; sec++)
        fired += pop_all(&w, START + sec * SEC);
    assert_int_equal(fired, ELEMENTSOF(entries));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_due),
        cmocka_unit_test(test_move_and_remove),
        cmocka_unit_test(test_far_away),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
