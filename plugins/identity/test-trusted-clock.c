#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "state-file.h"
#include "trusted-clock.h"

#define S UINT64_C(1000000)

static void test_at(void **state)
{
    static const struct {
        struct trusted_clock clock;
        int64_t utc_sec;
        uint64_t boot_usec;
        int64_t want;
    } cases[] = {
        { { 0, 0 }, 5000, 9 * S, 5000 },          { { 1000, 10 * S }, 5000, 20 * S, 5000 },
        { { 9000, 10 * S }, 5000, 10 * S, 9000 }, /* the clock was reset: the last saved time */
        { { 9000, 10 * S }, 5010, 20 * S, 9010 }, /* and on from there */
        { { 9000, 10 * S }, 9500, 20 * S, 9500 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(trusted_clock_at(&cases[i].clock, cases[i].utc_sec, cases[i].boot_usec),
                         cases[i].want);
}

static void test_correct(void **state)
{
    static const struct {
        struct trusted_clock clock;
        int64_t hub_sec, utc_sec;
        bool want;
        int64_t want_now;
    } cases[] = {
        { { 0, 0 }, 5000, 5000, false, 5000 },
        { { 0, 0 }, 5000, 4800, false, 4800 },      /* within the slack */
        { { 0, 0 }, 5000, 100, true, 5000 },        /* the clock is behind the hub's */
        { { 90000, 0 }, 5000, 5000, true, 5000 },   /* it once was far ahead */
        { { 90000, 0 }, 5000, 90000, true, 90000 }, /* and still is: the system's own word stands */
        { { 5100, 0 }, 5000, 100, false, 5100 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct trusted_clock clock = cases[i].clock;

        assert_int_equal(trusted_clock_correct(&clock, cases[i].hub_sec, cases[i].utc_sec, 0),
                         cases[i].want);
        assert_int_equal(trusted_clock_at(&clock, cases[i].utc_sec, 0), cases[i].want_now);
    }
}

static void test_file(void **state)
{
    static const char *const bad[] = { "",     "x",
                                       "-5",   "99999999999999999999",
                                       "12 3", "1234567890123" };
    char folder[] = "/tmp/test-clock-XXXXXX";
    _cleanup_(freep) char *path = NULL;
    struct trusted_clock clock;
    struct buf content = {};

    assert_non_null(mkdtemp(folder));
    path = xasprintf("%s/clock", folder);
    trusted_clock_load(&clock, path, 7);
    assert_int_equal(clock.floor_sec, 0);
    trusted_clock_print(1893456000, &content);
    assert_int_equal(state_file_write(path, buf_span(&content)), 0);
    buf_done(&content);
    trusted_clock_load(&clock, path, 7);
    assert_int_equal(clock.floor_sec, 1893456000);
    assert_int_equal(clock.floor_usec, 7);
    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        assert_int_equal(state_file_write(path, span_str(bad[i])), 0);
        trusted_clock_load(&clock, path, 7);
        assert_int_equal(clock.floor_sec, 0);
    }
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at),
        cmocka_unit_test(test_correct),
        cmocka_unit_test(test_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
