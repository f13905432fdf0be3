#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "budget.h"
#include "mem.h"

#define MIB (UINT64_C(1) << 20)

static void test_make(void **state)
{
    static const struct {
        const char *what;
        uint64_t max_bytes, max_share, fs_bytes;
        uint64_t want_bytes, want_queued;
    } cases[] = {
        { "a large disk: max_bytes counts", 2048 * MIB, 75, 100000 * MIB, 2048 * MIB, 1728 * MIB },
        { "a small one: the share does", 2048 * MIB, 50, 400 * MIB, 200 * MIB, 0 },
        { "a tiny one", 2048 * MIB, 1, 6400 * MIB, 64 * MIB, 44 * MIB },
        { "all of it", 2048 * MIB, 100, 100 * MIB, 100 * MIB, 0 },
        { "no file system to ask", 64 * MIB, 1, UINT64_MAX, 64 * MIB, 44 * MIB },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct budget b = budget_make(cases[i].max_bytes, cases[i].max_share, cases[i].fs_bytes);

        print_message("%s\n", cases[i].what);
        assert_int_equal(b.bytes, cases[i].want_bytes);
        if (cases[i].want_queued > 0)
            assert_int_equal(b.queued_max, cases[i].want_queued);
        assert_true(b.queued_max < b.queued_urgent_max && b.queued_urgent_max < b.disk_max &&
                    b.disk_max < b.disk_urgent_max && b.disk_urgent_max < b.disk_record_max &&
                    b.disk_record_max < b.bytes && b.reclaim_bytes > 0);
    }
}

/* Of 64 MiB: 44 for messages, 48 with the reserve, on disk 54, 56, 60. */
static void test_check(void **state)
{
    static const struct {
        const char *what;
        struct budget_use use; /* in MiB */
        enum budget_demand demand;
        int want;
        uint64_t want_excess;
        bool want_pressed;
    } cases[] = {
        { "empty", { 0, 0, 100 }, DEMAND_MESSAGES, 0, 0, false },
        { "up to the brim", { 43, 44, 100 }, DEMAND_MESSAGES, 0, 0, false },
        { "over it", { 44, 45, 100 }, DEMAND_MESSAGES, BUDGET_E_QUEUED, 1, true },
        { "the reserve", { 44, 45, 100 }, DEMAND_URGENT, 0, 0, true },
        { "which ends", { 48, 49, 100 }, DEMAND_URGENT, BUDGET_E_QUEUED, 1, true },
        { "records do not care", { 48, 49, 100 }, DEMAND_RECORD, 0, 0, true },
        { "garbage, room is left", { 10, 50, 100 }, DEMAND_MESSAGES, 0, 0, true },
        { "garbage all over", { 10, 54, 100 }, DEMAND_MESSAGES, BUDGET_E_FULL, 0, true },
        { "but not for these", { 10, 54, 100 }, DEMAND_URGENT, 0, 0, true },
        { "nor these", { 10, 56, 100 }, DEMAND_RECORD, 0, 0, true },
        { "that is all", { 10, 60, 100 }, DEMAND_RECORD, BUDGET_E_FULL, 0, true },
        { "others fill the disk", { 10, 12, 10 }, DEMAND_MESSAGES, BUDGET_E_FULL, 0, true },
        { "more and more", { 10, 12, 8 }, DEMAND_URGENT, BUDGET_E_FULL, 0, true },
        { "to the last", { 10, 12, 4 }, DEMAND_RECORD, BUDGET_E_FULL, 0, true },
    };
    struct budget b = budget_make(64 * MIB, 100, 1000 * MIB);

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct budget_use use = { cases[i].use.queued * MIB, cases[i].use.disk * MIB,
                                  cases[i].use.fs_free * MIB };

        print_message("%s\n", cases[i].what);
        assert_int_equal(budget_check(&b, &use, cases[i].demand, MIB), cases[i].want);
        if (cases[i].demand != DEMAND_RECORD)
            assert_int_equal(budget_excess(&b, &use, cases[i].demand, MIB),
                             cases[i].want_excess * MIB);
        assert_int_equal(budget_is_pressed(&b, &use), cases[i].want_pressed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
