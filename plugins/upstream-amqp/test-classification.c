#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backoff.h"
#include "classification.h"
#include "mem.h"

static void test_verdict_of_transfer(void **state)
{
    static const struct {
        enum transfer_outcome outcome;
        const char *condition;
        enum verdict want;
    } cases[] = {
        { TRANSFER_ACCEPTED, NULL, VERDICT_DELIVERED },
        { TRANSFER_RELEASED, NULL, VERDICT_RETRY },
        { TRANSFER_MODIFIED, NULL, VERDICT_RETRY },
        { TRANSFER_NONE, NULL, VERDICT_RETRY },
        { TRANSFER_REJECTED, NULL, VERDICT_RETRY },
        { TRANSFER_REJECTED, "amqp:link:message-size-exceeded", VERDICT_TOO_LARGE },
        { TRANSFER_REJECTED, "amqp:not-allowed", VERDICT_REJECTED },
        { TRANSFER_REJECTED, "amqp:invalid-field", VERDICT_REJECTED },
        { TRANSFER_REJECTED, "com.microsoft:argument-error", VERDICT_REJECTED },
        { TRANSFER_REJECTED, "com.microsoft:argument-out-of-range", VERDICT_REJECTED },
        { TRANSFER_REJECTED, "amqp:unauthorized-access", VERDICT_UNAUTHORIZED },
        { TRANSFER_REJECTED, "amqp:not-found", VERDICT_UNKNOWN_IDENTITY },
        { TRANSFER_REJECTED, "amqp:resource-limit-exceeded", VERDICT_RETRY },
        { TRANSFER_REJECTED, "com.microsoft:device-container-throttled", VERDICT_RETRY },
        { TRANSFER_REJECTED, "amqp:internal-error", VERDICT_RETRY },
        { TRANSFER_REJECTED, "com.microsoft:never-heard-of", VERDICT_RETRY },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++)
        assert_int_equal(verdict_of_transfer(cases[n].outcome, cases[n].condition), cases[n].want);
}

/* What ends a link never says anything of a message: none may be dropped for it. */
static void test_verdict_of_detach(void **state)
{
    static const struct {
        const char *condition;
        enum verdict want;
    } cases[] = {
        { NULL, VERDICT_RETRY },
        { "amqp:link:detach-forced", VERDICT_RETRY },
        { "amqp:link:stolen", VERDICT_RETRY },
        { "amqp:not-allowed", VERDICT_RETRY },
        { "amqp:link:message-size-exceeded", VERDICT_RETRY },
        { "amqp:unauthorized-access", VERDICT_UNAUTHORIZED },
        { "amqp:not-found", VERDICT_UNKNOWN_IDENTITY },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++)
        assert_int_equal(verdict_of_detach(cases[n].condition), cases[n].want);
}

static void test_verdict_of_token(void **state)
{
    static const struct {
        int status;
        enum verdict want;
    } cases[] = {
        { 401, VERDICT_UNAUTHORIZED },
        { 403, VERDICT_UNAUTHORIZED },
        { 404, VERDICT_UNKNOWN_IDENTITY },
        { 400, VERDICT_RETRY },
        { 500, VERDICT_RETRY },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++)
        assert_int_equal(verdict_of_token(cases[n].status), cases[n].want);
}

static void test_condition_wait(void **state)
{
    assert_int_equal(condition_wait_max_usec(NULL), 60 * 1000000);
    assert_int_equal(condition_wait_max_usec("amqp:internal-error"), 60 * 1000000);
    assert_int_equal(condition_wait_max_usec("amqp:resource-limit-exceeded"), 600 * 1000000);
}

static void test_backoff(void **state)
{
    static const uint64_t whole[] = { 100, 200, 400, 800, 1000, 1000, 1000 };
    struct backoff b = {};

    for (size_t n = 0; n < ELEMENTSOF(whole); n++)
        assert_int_equal(backoff_next(&b, 100, 1000, 0), whole[n]);
    assert_int_equal(backoff_next(&b, 100, 1000, UINT32_MAX), 500);
    assert_in_range(backoff_next(&b, 100, 1000, UINT32_MAX / 2), 749, 751);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 100, 1000, UINT32_MAX), 50);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 3000, 1000, 0), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdict_of_transfer),
        cmocka_unit_test(test_verdict_of_detach),
        cmocka_unit_test(test_verdict_of_token),
        cmocka_unit_test(test_condition_wait),
        cmocka_unit_test(test_backoff),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
