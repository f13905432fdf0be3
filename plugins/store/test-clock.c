#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"
#include "mem.h"

#define DAY_MS   INT64_C(86400000)
#define NOW_MS   INT64_C(1800000000000) /* some day in 2027 */
#define BOOT_ONE "boot-one-------"
#define BOOT_TWO "boot-two-------"

static void test_clock(void **state)
{
    static const struct clock_value saved = { 500000, 90000, NOW_MS, BOOT_ONE };
    static const struct clock_value unset = { 500000, 90000, 1000, BOOT_ONE };
    static const struct {
        const char *what;
        const struct clock_value *saved;
        struct clock_reading now;
        uint64_t want_ms;
        bool want_settled;
    } cases[] = {
        { "new", NULL, { 7000, NOW_MS, BOOT_ONE }, 0, true },
        { "the process restarted", &saved, { 91500, NOW_MS + 1500, BOOT_ONE }, 501500, true },
        { "and the wall clock was set back meanwhile",
          &saved,
          { 91500, NOW_MS - 99 * DAY_MS, BOOT_ONE },
          501500,
          true },
        { "and the wall clock was set forward",
          &saved,
          { 91500, NOW_MS + 99 * DAY_MS, BOOT_ONE },
          501500,
          true },
        { "off for a day", &saved, { 3000, NOW_MS + DAY_MS, BOOT_TWO }, 500000 + DAY_MS, true },
        { "booted in 1970", &saved, { 3000, 3000, BOOT_TWO }, 503000, false },
        { "booted a little too early", &saved, { 3000, NOW_MS + 2000, BOOT_TWO }, 503000, false },
        { "saved when the clock was never set", &unset, { 3000, NOW_MS, BOOT_TWO }, 503000, true },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct clock c;

        print_message("%s\n", cases[i].what);
        clock_init(&c, cases[i].saved, &cases[i].now);
        assert_int_equal(clock_ms(&c, cases[i].now.boot_ms), cases[i].want_ms);
        assert_int_equal(c.settled, cases[i].want_settled);
        assert_int_equal(clock_ms(&c, cases[i].now.boot_ms + 250), cases[i].want_ms + 250);
    }
}

static void test_clock_settle_when_set(void **state)
{
    static const struct clock_value saved = { 500000, 90000, NOW_MS, BOOT_ONE };
    struct clock_reading now = { 3000, 3000, BOOT_TWO };
    struct clock_value again;
    struct clock c;

    clock_init(&c, &saved, &now);
    now.boot_ms = 60000;
    now.utc_ms = 60000;
    assert_false(clock_settle(&c, &now));

    /* What is stored now is by our own reckoning: the next boot is not measured from 1970. */
    again = clock_save(&c, &now);
    assert_int_equal(again.utc_ms, NOW_MS + 60000);
    assert_int_equal(again.clock_ms, 560000);

    now.boot_ms = 61000;
    now.utc_ms = NOW_MS + DAY_MS;
    assert_true(clock_settle(&c, &now));
    assert_int_equal(clock_ms(&c, 61000), 500000 + DAY_MS);
    assert_false(clock_settle(&c, &now));
    again = clock_save(&c, &now);
    assert_int_equal(again.utc_ms, now.utc_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_clock_settle_when_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
