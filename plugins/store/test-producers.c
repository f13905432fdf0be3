#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "producers.h"

struct written {
    size_t puts, removes;
    char last_put[64], last_removed[64];
    uint64_t last_sequence;
};

static void written_put(const char *name, uint64_t sequence, uint64_t stamp, void *userdata)
{
    struct written *w = userdata;

    w->puts++;
    w->last_sequence = sequence;
    snprintf(w->last_put, sizeof(w->last_put), "%s", name);
}

static void written_remove(const char *name, void *userdata)
{
    struct written *w = userdata;

    w->removes++;
    snprintf(w->last_removed, sizeof(w->last_removed), "%s", name);
}

static const struct producers_writer writer = { written_put, written_remove };

static void test_check(void **state)
{
    _cleanup_(producers_freep) struct producers *p = producers_new();
    struct written w = {};
    uint64_t expected, group;

    assert_int_equal(producers_check(p, "a", 2, &expected, &group), PRODUCER_E_GAP);
    assert_int_equal(expected, 1);
    assert_int_equal(producers_check(p, "a", 1, &expected, &group), 0);
    producers_apply(p, "a", 1, 10);
    producers_apply(p, "a", 2, 11);
    assert_int_equal(producers_check(p, "a", 1, &expected, &group), PRODUCER_E_DONE);
    assert_int_equal(producers_check(p, "a", 2, &expected, &group), PRODUCER_E_DONE);
    assert_int_equal(group, 11);
    assert_int_equal(producers_check(p, "a", 3, &expected, &group), 0);
    assert_int_equal(producers_check(p, "a", 5, &expected, &group), PRODUCER_E_GAP);
    assert_int_equal(expected, 3);

    producers_close(p, &writer, &w);
    assert_int_equal(w.puts, 1);
    assert_int_equal(w.last_sequence, 2);
    producers_close(p, &writer, &w);
    assert_int_equal(w.puts, 1);
}

static void test_latest_are_kept(void **state)
{
    _cleanup_(producers_freep) struct producers *p = producers_new();
    struct written w = {};
    uint64_t expected, group;
    char name[32];

    producers_restore(p, "second", 7, 2);
    producers_restore(p, "first", 3, 1);
    producers_restore(p, "third", 9, 3);
    assert_int_equal(producers_check(p, "second", 8, &expected, &group), 0);
    for (unsigned i = 0; i < PRODUCERS_MAX - 2; i++) {
        snprintf(name, sizeof(name), "p%u", i);
        producers_apply(p, name, 1, 1);
    }
    assert_int_equal(producers_count(p), PRODUCERS_MAX);
    producers_close(p, &writer, &w);
    assert_int_equal(w.removes, 1);
    assert_string_equal(w.last_removed, "first");
    assert_int_equal(w.puts, PRODUCERS_MAX - 2);

    producers_apply(p, "second", 8, 2); /* used: "third" is the oldest now */
    producers_apply(p, "new", 1, 2);
    producers_close(p, &writer, &w);
    assert_string_equal(w.last_removed, "third");
    assert_int_equal(w.puts, PRODUCERS_MAX);
    assert_int_equal(producers_check(p, "third", 10, &expected, &group), PRODUCER_E_GAP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_latest_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
